//! Exports say what the library says: compiled, and asked the same questions.

mod shared;

#[path = "../../results/examples/decide.rs"]
#[allow(dead_code, reason = "its main() is not called")]
mod decide;
#[path = "../../results/examples/postcopy_destination.rs"]
#[allow(dead_code, reason = "its main() is not called")]
mod postcopy_destination;

use postcopy_destination::{CleanUp, plan};
use shared::releases::{every_kind_of_answer, releases};
use shared::{conform, refused, run, text};
use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use uffd_harness::known::{self, Known};
use uffd_harness::store::Store;
use uffd_results::{Case, Certainty, Dataset, Release, Why};

const RECORDED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../results");

fn recorded() -> Known {
    known::load(&Store::new(Path::new(RECORDED))).expect("records")
}

fn exported(arguments: &[&str]) -> String {
    let output = conform()
        .args(["export", "--results", RECORDED])
        .args(arguments)
        .output()
        .expect("the command starts");
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), String::new()));
    text(&output.stdout)
}

/// Runs a compiler, which may not even warn.
fn compile(command: &mut Command) {
    let output = command.output().expect("a compiler, which scripts/setup installs");
    assert!(output.status.success(), "{command:?}: {}", text(&output.stderr));
    assert_eq!(text(&output.stderr), "", "{command:?}");
}

/// Compiles a C program against the default header.
fn c_program(source: &Path, folder: &Path) -> PathBuf {
    let header = folder.join("uffd_conform.h");
    exported(&["--format", "c-header", "--output", header.to_str().expect("UTF-8")]);
    let size = fs::metadata(&header).expect("a header").len();
    assert!(size < 300_000, "the default header has {size} bytes: choose fewer cases");
    let program = folder.join("program");
    let strict = ["-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-O1"];
    compile(
        Command::new("cc").args(strict).arg("-I").arg(folder).arg(source).arg("-o").arg(&program),
    );
    program
}

fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/export").join(name)
}

/// Cases of the default selection: every fortieth, and the first few that differ between kernels, and of those of
/// which the sources expect something else in between.
fn cases(data: &Dataset) -> Vec<Case<'_>> {
    let small = |case: &Case<'_>| {
        uffd_harness::export::SMALL.iter().any(|f| uffd_results::id_matches(f, &case.id()))
    };
    let kernels = 0..data.kernels().len();
    let differs = |case: &Case<'_>| {
        let mut ends = kernels.clone().filter_map(|kernel| case.answer(kernel));
        ends.next().is_some_and(|first| ends.any(|other| other != first))
    };
    let few = data.cases().filter(small).step_by(40);
    let stands_apart = |case: &Case<'_>| data.apart().iter().any(|apart| apart.case == case.id());
    let apart = data.cases().filter(small).filter(stands_apart).take(5);
    few.chain(data.cases().filter(small).filter(differs).take(10)).chain(apart).collect()
}

/// Questions as lines, and the library's answers.
fn questions(data: &Dataset) -> (String, Vec<String>) {
    let (mut questions, mut answers) = (Vec::new(), Vec::new());
    let cases = cases(data);
    let kernels = 0..data.kernels().len();
    let asked = releases(data).into_iter().enumerate().flat_map(|(i, release)| {
        // Of another machine nothing more is told of a release.
        let machines: &[&str] = match i % 6 {
            4 => &["-", "aarch64"],
            5 => &["-", "vax"],
            place => [&["-"], &["-"], &["x86_64"], &["amd64"]][place],
        };
        machines.iter().map(move |machine| (i, release.clone(), *machine))
    });
    for (i, release, machine) in asked {
        let release = release.as_str();
        for case in &cases {
            let mut outcomes = kernels.clone().rev().filter_map(|kernel| case.answer(kernel));
            let seen = outcomes.find_map(|o| o.facts.iter().nth(i % 3).map(|f| f.name.to_string()));
            // One that only other cases show, and one that none does.
            let mut facts =
                vec!["end", "copy", "nothing-of-that", seen.as_deref().unwrap_or("end")];
            let is_its = |apart: &&uffd_results::Apart| apart.case == case.id();
            facts.extend(data.apart().iter().filter(is_its).map(|apart| apart.fact.as_str()));
            facts.dedup();
            for fact in facts {
                questions.push(format!("{release}\t{machine}\t{}\t{fact}\n", case.id()));
                answers.push(answer(data, release, machine, &case.id(), fact));
            }
        }
        questions.push(format!("{release}\t{machine}\tcopy/teleport\tend\n"));
        answers.push(answer(data, release, machine, "copy/teleport", "end"));
    }
    (questions.concat(), answers)
}

fn answer(data: &Dataset, release: &str, machine: &str, case: &str, fact: &str) -> String {
    let Ok(release) = Release::parse(release) else {
        return format!("-\tunknown\t{}\t-\t-", Why::NotARelease);
    };
    let release = if machine == "-" { release } else { release.on_machine(machine) };
    let answer = data.fact(case, fact, &release);
    let why = answer.why.map_or("-".to_owned(), |why| why.to_string());
    let name = |place: Option<&(&uffd_results::Recorded, &str)>| {
        place.map_or("-".to_owned(), |(kernel, _)| kernel.release.clone())
    };
    let (first, last) = (name(answer.basis.first()), name(answer.basis.last()));
    format!("{}\t{}\t{why}\t{first}\t{last}", answer.value.unwrap_or("-"), answer.certainty)
}

/// Asks a compiled program and compares its answers with the library's.
fn agrees(program: &Path) {
    let data = recorded().data;
    let (questions, wanted) = questions(&data);
    every_kind_of_answer(&wanted);
    for why in [Why::NoSuchCase, Why::NoSuchFact, Why::Otherwise] {
        assert!(wanted.iter().any(|line| line.contains(&why.to_string())), "never: {why}");
    }
    let mut child = Command::new(program)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut stdin = child.stdin.take().expect("its input");
    let lines = questions.clone();
    let writer = std::thread::spawn(move || stdin.write_all(lines.as_bytes()));
    let output = child.wait_with_output().expect("it ends");
    writer.join().expect("no panic").expect("written");
    assert!(output.status.success(), "{:?}", output.status);
    let seen = text(&output.stdout);
    assert_eq!(seen.lines().count(), wanted.len());
    for ((question, seen), wanted) in questions.lines().zip(seen.lines()).zip(&wanted) {
        assert_eq!(seen, wanted, "{question}");
    }
}

#[test]
fn the_c_header_answers_as_the_library_does() {
    let folder = tempfile::tempdir().expect("a folder");
    agrees(&c_program(&source("answers.c"), folder.path()));
}

#[test]
fn the_rust_table_answers_as_the_library_does() {
    let folder = tempfile::tempdir().expect("a folder");
    let table = folder.path().join("uffd_conform.rs");
    exported(&["--format", "rust", "-o", table.to_str().expect("UTF-8")]);
    let main = folder.path().join("answers.rs");
    fs::copy(source("answers.rs"), &main).expect("copied");
    let program = folder.path().join("program");
    let rustc = |edition: &str| {
        let mut command = Command::new("rustc");
        command.current_dir(folder.path()).args(["--edition", edition, "-D", "warnings"]);
        command
    };
    compile(rustc("2021").arg(&main).arg("-o").arg(&program));
    agrees(&program);
    // Nothing but core, and any edition.
    let bare = folder.path().join("bare.rs");
    fs::write(&bare, "#![no_std]\npub mod uffd_conform;\n").expect("written");
    compile(rustc("2024").args(["--crate-type", "lib", "--emit", "metadata"]).arg(&bare));
}

#[test]
fn the_examples_decide_and_agree() {
    let folder = tempfile::tempdir().expect("a folder");
    let examples = Path::new(RECORDED).join("examples");
    let program = c_program(&examples.join("uffd_decide.c"), folder.path());
    for release in ["6.12.90", "6.1.0-47-amd64", "6.8.0-45-generic", "5.14.0-503.11.1.el9_5.x86_64"]
    {
        let output = Command::new(&program).arg(release).output().expect("it starts");
        let in_rust = decide::decide(release).expect("a release");
        assert_eq!(text(&output.stdout), in_rust, "{release}");
    }
    let decided = |release| decide::decide(release).expect("a release");
    let held = decided("6.12.90");
    assert!(held.contains("waiter after UNREGISTER: asleep (within series)"), "{held}");
    assert!(held.contains("field on EAGAIN: -11 (within series)"), "{held}");
    assert!(decided("6.1.180").contains("field on EAGAIN: untouched (within series)"));
    // Between 6.1 and 6.12 it changed, and by Red Hat's number nothing is known.
    assert!(decided("6.8.0-45-generic").contains("field on EAGAIN: unknown ("));
    assert!(decided("5.14.0-503.11.1.el9_5.x86_64").contains("UNREGISTER: unknown ("));
    for name in ["decide.rs", "uffd_decide.c"] {
        let source = fs::read_to_string(examples.join(name)).expect("readable");
        assert!(source.lines().count() <= 30, "{name} has more than 30 lines");
    }
}

#[test]
fn a_destination_cleans_up_by_what_is_known() {
    let data = Dataset::recorded();
    let plan = |release: &str| plan(data, &Release::parse(release).expect("a release"));
    let known = plan("6.12.90");
    assert_eq!(
        (known.clean_up, known.certainty),
        (CleanUp::UnregisterAndWake, Certainty::WithinSeries)
    );
    // Not known, so as it works everywhere.
    let unknown = plan("5.14.0-503.11.1.el9_5.x86_64");
    assert_eq!(
        (unknown.clean_up, unknown.certainty),
        (CleanUp::UnregisterAndWake, Certainty::Unknown)
    );
    assert!(unknown.to_string().contains("not known"));
    // Nor without any record.
    let release = Release::parse("6.12.90").expect("a release");
    let nothing = postcopy_destination::plan(&Dataset::default(), &release);
    assert_eq!(nothing.clean_up, CleanUp::UnregisterWakeAndClose);
}

#[test]
fn json_holds_what_the_library_does() {
    let known = recorded();
    let data = &known.data;
    let document: serde_json::Value =
        serde_json::from_str(&exported(&["--format", "json"])).expect("JSON");
    let cases = document["cases"].as_array().expect("cases");
    assert_eq!(cases.len(), data.cases().count());
    for (line, case) in cases.iter().zip(data.cases()) {
        assert_eq!(line["id"], case.id());
        for kernel in 0..data.kernels().len() {
            let place = line["outcomes"][kernel].as_u64();
            let Some(outcome) = case.outcome(kernel) else {
                assert_eq!(place, None);
                continue;
            };
            let place = usize::try_from(place.expect("a place")).expect("a place");
            let seen = &document["outcomes"][place];
            assert_eq!(seen["end"], outcome.end.word());
            let facts = seen["facts"].as_object().expect("facts").iter();
            let facts =
                facts.map(|(name, value)| format!("{name}={}", value.as_str().expect("text")));
            assert_eq!(facts.collect::<Vec<_>>().join(" "), outcome.facts.to_string());
        }
    }
}

/// The fields of lines as RFC 4180 has them, without line breaks inside of fields.
fn fields(line: &str) -> Vec<String> {
    let (mut fields, mut quoted) = (vec![String::new()], false);
    for c in line.chars() {
        match c {
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(String::new()),
            _ => fields.last_mut().expect("a field").push(c),
        }
    }
    fields
}

#[test]
fn csv_holds_what_the_library_does() {
    let data = recorded().data;
    let csv = exported(&["--format", "csv"]);
    let mut lines = csv.lines();
    assert_eq!(lines.next(), Some("case,fact,value,first,last,after,before"));
    let mut seen: BTreeMap<(String, String, usize), String> = BTreeMap::new();
    let versions: Vec<String> = data.kernels().iter().map(|k| k.upstream.to_string()).collect();
    let place = |version: &str| versions.iter().position(|v| v == version).expect("a kernel");
    for line in lines {
        let [case, fact, value, first, last, after, before] =
            fields(line).try_into().expect("seven fields");
        for kernel in place(&first)..=place(&last) {
            seen.insert((case.clone(), fact.clone(), kernel), value.clone());
        }
        assert!(after.is_empty() || place(&after) < place(&first), "{line}");
        assert!(before.is_empty() || place(&before) > place(&last), "{line}");
    }
    let mut wanted = 0;
    for case in data.cases() {
        for kernel in 0..data.kernels().len() {
            let Some(outcome) = case.answer(kernel) else { continue };
            for fact in outcome.facts.iter() {
                let key = (case.id(), fact.name.to_string(), kernel);
                // Not the fact's own value: one that is named `end` gives way to how the case ended.
                let value = case.fact(kernel, &fact.name);
                assert_eq!(seen.get(&key).map(String::as_str), value, "{key:?}");
                wanted += 1;
            }
        }
    }
    assert!(wanted > 0 && seen.len() >= wanted);
}

#[test]
fn a_selection_is_kept_and_an_empty_one_refused() {
    let some = exported(&["--format", "csv", "--only", "wake/*", "--only", "copy/event-unread"]);
    let of = |head: &str| some.lines().filter(|line| line.contains(head)).count();
    assert_eq!(of("wake/") + of("copy/event-unread") + 1, some.lines().count());
    let header = exported(&["--format", "c-header", "--only", "copy/event-unread"]);
    assert!(header.contains("copy/event-unread[backing=anon]") && !header.contains("wake/"));
    let arguments = ["export", "--results", RECORDED, "--format", "csv", "--only", "copy/teleport"];
    refused(&run(&arguments), &["copy/teleport", "uffd-conform list"]);
    refused(&run(&["export"]), &["--format"]);
}
