//! What this program is built from: every crate from the registry, under a licence that is allowed, once, and
//! in the table of docs/dependencies.md. `UFFD_BLESS=1` writes the table anew.

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Licences of which one must be offered. All let anybody use, change and hand on what is made with them.
const ALLOWED: [&str; 9] = [
    "Apache-2.0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "MIT",
    "MIT-0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// Crates that are there in two versions, and through whom: to be looked at again when one of them moves.
const TWICE: &[(&str, &str)] = &[
    ("getrandom", "tempfile; ahash of jsonschema, which only tests use"),
    ("itertools", "bindgen of userfaultfd-sys; criterion"),
    ("shlex", "bindgen of userfaultfd-sys; cc"),
    ("syn", "macros of maud, rstest and bindgen; those of serde, clap and thiserror"),
];

/// Where the table stands in its file.
const MARKS: (&str, &str) = (
    "<!-- table: written by `UFFD_BLESS=1 cargo test --test supply` -->",
    "<!-- end of the table -->",
);

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// What cargo knows of the workspace. It loads what only other systems' builds take, where no build has.
fn metadata(more: &[&str]) -> Value {
    let mut command = Command::new(env!("CARGO"));
    command.args(["metadata", "--format-version", "1", "--locked"]).args(more);
    let output = command.current_dir(root()).output().expect("cargo");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

fn text<'v>(value: &'v Value, member: &str) -> &'v str {
    value[member].as_str().unwrap_or_default()
}

/// The crates of others.
fn foreign(metadata: &Value) -> Vec<&Value> {
    let packages = metadata["packages"].as_array().expect("packages");
    packages.iter().filter(|package| !package["source"].is_null()).collect()
}

/// Whether a licence expression can be met by allowed licences alone.
fn is_allowed(expression: &str) -> bool {
    // `/` is the old way to write OR; an exception only allows more.
    let expression = expression.replace('/', " OR ").replace(" WITH LLVM-exception", "");
    let words = expression.replace(['(', ')'], " ");
    let alternatives = |part: &str| part.split(" OR ").any(|l| ALLOWED.contains(&l.trim()));
    words.split(" AND ").all(alternatives)
}

#[test]
fn licences_are_read_as_they_are_meant() {
    for good in ["MIT", "MIT/Apache-2.0", "(MIT OR GPL-3.0) AND Unicode-3.0", "Unlicense OR MIT"] {
        assert!(is_allowed(good), "{good}");
    }
    for bad in ["", "GPL-2.0", "MIT AND GPL-2.0", "LGPL-2.1-or-later OR SSPL-1.0"] {
        assert!(!is_allowed(bad), "{bad}");
    }
}

#[test]
fn crates_come_from_the_registry_under_allowed_licences() {
    let metadata = metadata(&[]);
    let crates = foreign(&metadata);
    assert!(crates.len() > 50, "{} crates", crates.len());
    let sources: BTreeSet<&str> = crates.iter().map(|package| text(package, "source")).collect();
    let one = sources.len() == 1 && sources.iter().all(|source| source.starts_with("registry+"));
    assert!(one, "other sources than the registry: {sources:?}");
    let wrong: Vec<String> = crates
        .iter()
        .filter(|package| !is_allowed(text(package, "license")))
        .map(|package| format!("{}: {:?}", text(package, "name"), package["license"]))
        .collect();
    assert!(wrong.is_empty(), "licences that are not allowed: {wrong:?}");
}

#[test]
fn no_crate_is_built_twice_unless_it_is_known() {
    let metadata = metadata(&["--filter-platform", "x86_64-unknown-linux-gnu"]);
    let used = used(&metadata);
    let mut versions: BTreeMap<&str, usize> = BTreeMap::new();
    for package in foreign(&metadata) {
        if used.contains_key(text(package, "id")) {
            *versions.entry(text(package, "name")).or_default() += 1;
        }
    }
    let twice: Vec<&str> =
        versions.into_iter().filter(|(_, n)| *n > 1).map(|(name, _)| name).collect();
    let known: Vec<&str> = TWICE.iter().map(|(name, _)| *name).collect();
    assert_eq!(twice, known, "crates in several versions, and those of them that are known");
}

/// What each crate is for, by its id: `program` if it is in what is shipped or makes it, else `tests`.
fn used(metadata: &Value) -> BTreeMap<&str, &'static str> {
    let nodes = metadata["resolve"]["nodes"].as_array().expect("nodes");
    let by_id: BTreeMap<&str, &Value> = nodes.iter().map(|node| (text(node, "id"), node)).collect();
    let members = metadata["workspace_members"].as_array().expect("members");
    let members: Vec<&str> = members.iter().filter_map(Value::as_str).collect();
    let mut used = BTreeMap::new();
    for (what, tests) in [("tests", true), ("program", false)] {
        let mut waiting = members.clone();
        while let Some(id) = waiting.pop() {
            if used.insert(id, what) == Some(what) {
                continue;
            }
            for needed in by_id[id]["deps"].as_array().expect("deps") {
                let kinds = needed["dep_kinds"].as_array().expect("kinds");
                // Tests of others are never built.
                let built =
                    |kind: &Value| text(kind, "kind") != "dev" || (tests && members.contains(&id));
                if kinds.iter().any(built) {
                    waiting.push(text(needed, "pkg"));
                }
            }
        }
    }
    used
}

#[test]
fn the_table_of_dependencies_is_what_is_locked() {
    let (all, here) = (metadata(&[]), metadata(&["--filter-platform", "x86_64-unknown-linux-gnu"]));
    let used = used(&here);
    let mut rows: Vec<(&str, &str, &str, &str)> = foreign(&all)
        .into_iter()
        .map(|package| {
            let what = used.get(text(package, "id")).copied().unwrap_or("other systems");
            (text(package, "name"), text(package, "version"), text(package, "license"), what)
        })
        .collect();
    rows.sort_unstable();
    let mut table = "| crate | version | licence | for |\n| --- | --- | --- | --- |\n".to_owned();
    for (name, version, licence, what) in &rows {
        let _ = writeln!(table, "| {name} | {version} | {licence} | {what} |");
    }
    let path = root().join("docs/dependencies.md");
    let page = fs::read_to_string(&path).expect("the page");
    let (head, rest) = page.split_once(MARKS.0).expect("the table's begin");
    let (old, tail) = rest.split_once(MARKS.1).expect("the table's end");
    if std::env::var_os("UFFD_BLESS").is_some() {
        let page = format!("{head}{}\n{table}{}{tail}", MARKS.0, MARKS.1);
        fs::write(&path, page).expect("written");
    } else {
        assert_eq!(old.trim(), table.trim(), "run it with UFFD_BLESS=1 and read what has changed");
    }
    // The lock file is what is built, whatever cargo says of it.
    let lock = fs::read_to_string(root().join("Cargo.lock")).expect("the lock file");
    let lock: toml::Table = toml::from_str(&lock).expect("TOML");
    let locked: BTreeSet<&str> = lock["package"]
        .as_array()
        .expect("packages")
        .iter()
        .filter(|package| package.get("source").is_some())
        .map(|package| package["name"].as_str().expect("a name"))
        .collect();
    assert_eq!(rows.iter().map(|row| row.0).collect::<BTreeSet<_>>(), locked);
}

#[test]
fn every_dependency_of_ours_is_reviewed_with_its_version() {
    let metadata = metadata(&[]);
    let members = metadata["workspace_members"].as_array().expect("members");
    let packages = metadata["packages"].as_array().expect("packages");
    let ours = packages.iter().filter(|package| members.contains(&package["id"]));
    let named: BTreeSet<&str> = ours
        .flat_map(|package| package["dependencies"].as_array().expect("dependencies"))
        .filter(|needed| !needed["source"].is_null())
        .map(|needed| text(needed, "name"))
        .collect();
    let page = fs::read_to_string(root().join("docs/dependencies.md")).expect("the page");
    let review = page.split(MARKS.0).next().unwrap_or_default();
    for name in named {
        let versions = packages.iter().filter(|package| text(package, "name") == name);
        let reviewed = versions
            .map(|package| {
                format!("| {name} | {} |", text(package, "version").split('+').next().unwrap_or(""))
            })
            .any(|row| review.contains(&row));
        assert!(reviewed, "{name} in its locked version is not reviewed in docs/dependencies.md");
    }
}
