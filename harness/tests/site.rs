//! The site, as files: sound pages whose links all lead somewhere, the same bytes for the same records, and
//! nothing that a record, contract or note says is ever more than text.

mod shared;

use html5gum::{DefaultEmitter, Token, Tokenizer};
use shared::text;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::sync::OnceLock;
use uffd_harness::known::{self, Known};
use uffd_harness::notes::{self, Note};
use uffd_harness::recipes::{self, Recipe};
use uffd_harness::site;
use uffd_harness::store::Store;
use uffd_results::{Cases, Contract, End, Facts, Outcome, Record};

const RECORDED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../results");

type Files = BTreeMap<String, Vec<u8>>;

/// What a site is made of.
struct Sources {
    records: Vec<Record>,
    known: Known,
    notes: Vec<Note>,
    recipes: Vec<Recipe>,
}

impl Sources {
    /// What stands in a results folder.
    fn of(folder: &Path) -> Self {
        let store = Store::new(folder);
        let records = store.load().expect("records");
        let known = known::of(&records, &store).expect("contracts");
        let notes = notes::load(folder).expect("notes");
        let recipes = recipes::load(folder, &known.contracts).expect("recipes");
        Self { records, known, notes, recipes }
    }

    fn build(&self) -> Files {
        let costs = site::Costs { measured: &[], notes: &[] };
        let site = site::build(&self.records, &self.known, &self.notes, &self.recipes, costs);
        let site = site.expect("a site");
        site.files().map(|(path, bytes)| (path.to_owned(), bytes.to_vec())).collect()
    }
}

/// The site of the committed records, made once.
fn files() -> &'static Files {
    static FILES: OnceLock<Files> = OnceLock::new();
    FILES.get_or_init(|| Sources::of(Path::new(RECORDED)).build())
}

/// A page as a browser takes it apart.
#[derive(Debug, Default)]
struct Parsed {
    /// Elements, in order, with their attributes.
    elements: Vec<(String, BTreeMap<String, String>)>,
    /// All texts, joined.
    text: String,
    /// What stands in `title` of the head.
    title: String,
    /// Text of scripts that stand in the page.
    script: String,
    is_html5: bool,
}

fn parse(html: &str) -> Parsed {
    let mut emitter = DefaultEmitter::<()>::default();
    emitter.naively_switch_states(true);
    let (mut page, mut within) = (Parsed::default(), String::new());
    let own = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    for token in Tokenizer::new_with_emitter(html, emitter) {
        match token.expect("no reader that can fail") {
            Token::StartTag(tag) => {
                let attributes = tag.attributes.iter().map(|(n, v)| (own(n), own(v)));
                within = own(&tag.name);
                page.elements.push((within.clone(), attributes.collect()));
            }
            Token::EndTag(_) => within.clear(),
            Token::String(text) => {
                let text = own(&text);
                match within.as_str() {
                    "title" if page.title.is_empty() => page.title += &text,
                    "script" => page.script += &text,
                    _ => page.text += &text,
                }
            }
            Token::Doctype(doctype) => page.is_html5 = own(&doctype.name) == "html",
            Token::Comment(_) | Token::Error(_) => {}
        }
    }
    page
}

fn pages(files: &Files) -> BTreeMap<&str, Parsed> {
    let html =
        files.iter().filter(|(path, _)| Path::new(path).extension().is_some_and(|e| e == "html"));
    html.map(|(path, bytes)| (path.as_str(), parse(&text(bytes)))).collect()
}

/// The path of a file that a page names, and the anchor.
fn target(page: &str, address: &str) -> (String, String) {
    let (path, anchor) = address.split_once('#').unwrap_or((address, ""));
    let mut parts: Vec<&str> = page.split('/').collect();
    if !path.is_empty() {
        parts.pop();
        for part in path.split('/') {
            match part {
                ".." => drop(parts.pop().expect("no way out of the site")),
                "." => {}
                part => parts.push(part),
            }
        }
    }
    (parts.join("/"), anchor.to_owned())
}

/// An address that leaves the site, which only a link that somebody follows may have.
fn is_elsewhere(address: &str) -> bool {
    address.starts_with("https://") || address.starts_with("http://")
}

/// What is wrong with a page by itself.
fn faults(page: &Parsed) -> Vec<String> {
    let mut wrong = Vec::new();
    let count = |name: &str| page.elements.iter().filter(|(n, _)| n == name).count();
    let lang = page.elements.iter().find(|(n, _)| n == "html").and_then(|(_, a)| a.get("lang"));
    if !page.is_html5 || lang.map(String::as_str) != Some("en") {
        wrong.push("no doctype, or no language".to_owned());
    }
    for (name, wanted) in [("h1", 1), ("main", 1), ("title", 1)] {
        // Drawings have titles of their own.
        let n = if name == "title" { usize::from(!page.title.is_empty()) } else { count(name) };
        if n != wanted {
            wrong.push(format!("{n} {name}"));
        }
    }
    let mut ids = BTreeSet::new();
    for (name, attributes) in &page.elements {
        if let Some(id) = attributes.get("id").filter(|id| !ids.insert(id.as_str())) {
            wrong.push(format!("the id {id} twice"));
        }
        if name == "img" && !attributes.contains_key("alt") {
            wrong.push("img without alt".to_owned());
        }
        if let Some(attribute) = attributes.keys().find(|a| a.starts_with("on") || *a == "style") {
            wrong.push(format!("{name} with {attribute}"));
        }
        let loaded = attributes.get("src").or(attributes.get("href").filter(|_| name != "a"));
        let is_empty_icon = |address: &&String| *address == "data:,";
        if loaded.filter(|l| !is_empty_icon(l)).is_some_and(|address| address.contains(':')) {
            wrong.push(format!("{name} loads {loaded:?}"));
        }
    }
    if !page.script.is_empty() {
        wrong.push("a script within the page".to_owned());
    }
    wrong
}

#[test]
fn every_page_is_sound_and_every_link_leads_somewhere() {
    let (files, mut wrong, mut titles) = (files(), Vec::new(), HashMap::new());
    let pages = pages(files);
    let anchors: HashMap<&str, BTreeSet<&str>> = pages
        .iter()
        .map(|(path, page)| {
            let ids = page.elements.iter().filter_map(|(_, a)| a.get("id")).map(String::as_str);
            (*path, ids.collect())
        })
        .collect();
    for (path, page) in &pages {
        wrong.extend(faults(page).into_iter().map(|fault| format!("{path}: {fault}")));
        if let Some(other) = titles.insert(page.title.clone(), path) {
            wrong.push(format!("{path}: the title of {other}"));
        }
        for (name, attributes) in &page.elements {
            for address in ["href", "src"].iter().filter_map(|a| attributes.get(*a)) {
                if (is_elsewhere(address) && name == "a") || address == "data:," {
                    continue;
                }
                let (file, anchor) = target(path, address);
                // Behind # of the matrix and of ask stands what their scripts show.
                let is_state = anchor.contains('=');
                let is_there = files.contains_key(&file)
                    && (anchor.is_empty()
                        || is_state
                        || anchors[file.as_str()].contains(anchor.as_str()));
                if !is_there {
                    wrong.push(format!("{path}: {name} to {address}"));
                }
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{} faults:\n{}",
        wrong.len(),
        wrong[..wrong.len().min(20)].join("\n")
    );
    assert!(pages.len() > 50, "{} pages", pages.len());
}

#[test]
fn a_fault_is_seen() {
    let page = |body: &str| {
        parse(&format!(
            "<!doctype html><html lang=\"en\"><title>t</title><main><h1>h</h1>{body}</main>"
        ))
    };
    assert_eq!(faults(&page("<p id=a>")), Vec::<String>::new());
    let bad = [
        "<p id=a><p id=a>",
        "<img src=x.png>",
        "<a onclick=x>",
        "<script>x</script>",
        "<h1>",
        "<script src=https://example.org/x.js></script>",
        "<link href=//example.org:8/x.css>",
    ];
    for body in bad {
        assert_eq!(faults(&page(body)).len(), 1, "{body}: {:?}", faults(&page(body)));
    }
    assert_eq!(target("a/b/c.html", "../d.html#e"), ("a/d.html".into(), "e".into()));
    assert_eq!(target("a/b.html", "#e"), ("a/b.html".into(), "e".into()));
}

#[test]
fn equal_records_make_equal_bytes_whatever_the_order_of_their_files() {
    let mut paths: Vec<_> = Store::new(Path::new(RECORDED)).load().expect("records");
    paths.truncate(3);
    let folders: Vec<_> = (0..2).map(|_| tempfile::tempdir().expect("a folder")).collect();
    for (i, folder) in folders.iter().enumerate() {
        let store = Store::new(folder.path());
        let written = |record: &Record| drop(store.save(record).expect("written"));
        if i == 0 { paths.iter().for_each(written) } else { paths.iter().rev().for_each(written) }
    }
    let [a, b] = [0, 1].map(|i: usize| Sources::of(folders[i].path()).build());
    let differ: Vec<&String> = a.keys().filter(|path| a.get(*path) != b.get(*path)).collect();
    assert!(differ.is_empty() && a.len() == b.len(), "{differ:?}");
}

/// Markup, what ends an attribute, what ends a script, a line end of JavaScript: with `evil` in all.
const HOSTILE: &str = "<script>evil(1)</script>\"><img src=x onerror=evil(2)>' onfocus='evil(3) </script>\
                       <evil-tag evil=1>]]>--><svg onload=evil(4)>\u{2028}evil\u{202e}&lt;evil&amp;";

fn evil() -> String {
    HOSTILE.to_owned()
}

/// The same as one word of a fact.
const WORD: &str = "\"><img/src=x/onerror=evil(5)><script>evil(6)</script>";

/// The committed sources, with hostile text wherever a text can be.
fn hostile() -> Sources {
    let mut sources = Sources::of(Path::new(RECORDED));
    sources.records.drain(..18);
    for (i, record) in sources.records.iter_mut().enumerate() {
        let kernel = &mut record.kernel;
        kernel.release = format!("{}-{i}-{HOSTILE}", kernel.upstream);
        kernel.version = evil();
        kernel.machine = format!("x86_64{HOSTILE}");
        if let Some(package) = &mut kernel.package {
            package.name = evil();
            package.version = evil();
        }
        kernel.config.insert(evil(), evil());
        record.environment.accelerator = evil();
        record.environment.uffd = evil();
        record.environment.uffd_features.push(evil());
        record.environment.sysctls.insert(evil(), evil());
        record.suite.revision = evil();
        record.suite.version = evil();
        record.by = Some(evil());
        let spoil = |(at, (id, outcome)): (usize, (&str, &Outcome))| {
            let mut facts = Facts::new();
            let names = ["copy", "field", "waiter", "rescue", "rescued", "events", "change"];
            for name in names {
                facts.set(name, WORD);
            }
            let ends = [End::Panic, End::Hang, End::Killed, End::Unsupported, End::Broken];
            let outcome = match (at + i) % 9 {
                0..3 => Outcome::done(facts),
                at @ 3..8 => Outcome::ended(ends[at - 3], HOSTILE, facts),
                _ => outcome.clone(),
            };
            (id.to_owned(), outcome)
        };
        record.cases = Cases::new(record.cases.iter().enumerate().map(spoil).collect());
    }
    sources.known.data = known::dataset(&sources.records).expect("a table");
    for note in &mut sources.notes {
        note.kernels.clear();
        note.says = evil();
        note.source = evil();
    }
    for recipe in &mut sources.recipes {
        recipe.title = evil();
        recipe.when = evil();
        recipe.steps.iter_mut().for_each(|step| step.does = evil());
    }
    sources.known.contracts.iter_mut().for_each(spoil);
    sources
}

fn spoil(contract: &mut Contract) {
    contract.title = format!("{}{HOSTILE}", contract.title);
    contract.about = evil();
    contract.snapshot = evil();
    for share in &mut contract.shares {
        share.r#where = vec![evil()];
        share.effect = evil();
    }
    for assumption in &mut contract.assumptions {
        assumption.says = evil();
        assumption.effect = evil();
        assumption.r#where = vec![evil()];
        assumption.not_asked = assumption.not_asked.as_ref().map(|_| evil());
    }
}

#[test]
fn hostile_text_comes_out_as_text_everywhere() {
    let files = hostile().build();
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-~/".contains(c);
    let odd: Vec<&String> =
        files.keys().filter(|path| !path.chars().all(plain) || path.contains("..")).collect();
    assert!(odd.is_empty(), "{odd:?}");
    let (pages, mut seen) = (pages(&files), BTreeMap::new());
    for (path, page) in &pages {
        let wrong = faults(page);
        assert!(wrong.is_empty(), "{path}: {wrong:?}");
        for (name, attributes) in &page.elements {
            assert!(!["img", "evil-tag"].contains(&name.as_str()), "{path}: {name} {attributes:?}");
            let own = ["src", "defer"];
            let is_asset = name != "script" || attributes.keys().all(|a| own.contains(&a.as_str()));
            assert!(is_asset, "{path}: {attributes:?}");
            for (attribute, value) in attributes {
                assert!(!attribute.contains("evil"), "{path}: {name} {attributes:?}");
                let address = ["href", "src"].contains(&attribute.as_str());
                assert!(
                    !address || !value.trim().to_lowercase().starts_with("javascript:"),
                    "{path}"
                );
            }
        }
        let folder = path.split_once('/').map_or(*path, |(folder, _)| folder);
        *seen.entry(folder).or_insert(0) += page.text.matches("<evil-tag evil=1>").count();
    }
    // It is shown, too: nothing was dropped to be safe.
    for folder in
        ["kernel", "kernels.html", "contract", "contracts.html", "guarantees.html", "answer"]
    {
        assert!(seen.get(folder).is_some_and(|n| *n > 0), "{folder} shows nothing of it: {seen:?}");
    }
    for (path, name) in [("search-data.js", "SEARCH"), ("ask-data.js", "ASK")] {
        let script = text(&files[path]);
        let json =
            script.strip_prefix(&format!("const {name}=")).and_then(|s| s.strip_suffix(";\n"));
        let json = json.unwrap_or_else(|| panic!("{path} is no constant"));
        assert!(!json.contains(['\n', '\u{2028}', '\u{2029}']), "{path} has a line end within");
        serde_json::from_str::<serde_json::Value>(json).expect("JSON");
        assert!(json.contains("evil"), "{path} shows nothing of it");
    }
}

#[test]
fn scripts_of_ours_make_text_only() {
    let of_kind = |path: &str, kind: &str| Path::new(path).extension().is_some_and(|e| e == kind);
    let is_ours = |path: &str| of_kind(path, "js") && !path.contains("-data.");
    let scripts = files().iter().filter(|(path, _)| is_ours(path));
    for (path, bytes) in scripts {
        let (script, ways) =
            (text(bytes), ["innerHTML", "outerHTML", "insertAdjacent", "document.write", "eval("]);
        let way = ways.into_iter().find(|way| script.contains(way));
        assert_eq!(way, None, "{path}");
    }
}
