//! What the command says of stored records, byte for byte. `UFFD_BLESS=1` writes the files anew.

mod shared;

use rstest::rstest;
use shared::{conform, text};
use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use uffd_results::{Cases, Record};

const KEPT: &str = "copy/mremap[backing=shmem,how=dontunmap,waiter=user-read,msg=read]";

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

/// Compares a text with its file, or writes the file.
fn compare(name: &str, seen: &str) {
    let path = folder().join(name);
    if std::env::var_os("UFFD_BLESS").is_some() {
        fs::write(&path, seen).expect("the golden file is written");
        return;
    }
    let golden = fs::read_to_string(&path).unwrap_or_default();
    let differs = golden.lines().zip(seen.lines()).position(|(a, b)| a != b);
    let line = differs.unwrap_or(golden.lines().count().min(seen.lines().count())) + 1;
    assert!(
        golden == seen,
        "{name} differs from line {line} on; if it should, UFFD_BLESS=1 writes it. Seen:\n{seen}"
    );
}

#[rstest]
#[case("show.txt", &["show", "copy/event-unread[backing=anon]", KEPT])]
#[case("show.jsonl", &["show", "--format", "jsonl", KEPT])]
#[case("show-unasked.txt", &["show", "wake/unchanged[backing=hugetlb-private,waiter=sys-write,msg=unread]"])]
#[case("matrix.md", &["matrix", "--print"])]
#[case("probes.txt", &["list", "--probes"])]
#[case("probes.jsonl", &["list", "--probes", "--format", "jsonl", "claims/"])]
#[case("show-kernel.txt", &["show", KEPT, "-k", "5.10.250", "-k", "6.8.0-45-generic", "-k", "6.12"])]
#[case("ask.txt", &["ask", "--op", "UFFDIO_COPY", "--change", "mremap", "--how", "dontunmap"])]
#[case("ask-kernel.txt", &["ask", "--op", "copy", "--change", "mmap-over,mremap", "--waiter", "thread", "-k", "6.12", "-k", "6.1.90"])]
#[case("ask.jsonl", &["ask", "--op", "copy", "--change", "mmap", "--waiter", "thread", "-k", "6.12", "-k", "6.1.90", "--part", "head", "--over", "anon", "--backing", "anon", "--msg", "read", "--format", "jsonl"])]
#[case("ask-trial.txt", &["ask", "copy/event-unread"])]
#[case("query.txt", &["query", "suite(copy) & (changed | differs_by(backing))", "--cases"])]
#[case("query.jsonl", &["query", "probe(copy/event-unread) & since(6.12)", "--cases", "--format", "jsonl"])]
fn the_words_are_these(#[case] name: &str, #[case] arguments: &[&str]) {
    said(name, arguments, 0);
}

/// What no stored record holds or speaks for, though the suite asks it.
#[rstest]
#[case("show-kernel.jsonl", &["show", KEPT, "-k", "5.10.250", "--format", "jsonl"])]
#[case("ask-unasked.txt", &["ask", "--op", "copy", "--change", "mmap-over", "--part", "tail", "--over", "anon", "--waiter", "vcpu-read", "--backing", "anon", "--msg", "read", "-k", "6.1"])]
fn what_is_not_recorded_is_said(#[case] name: &str, #[case] arguments: &[&str]) {
    said(name, arguments, 3);
}

fn said(name: &str, arguments: &[&str], code: i32) {
    let mut command = conform();
    let output =
        command.args(arguments).arg("--results").arg(folder()).output().expect("it starts");
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(code), String::new()));
    compare(name, &text(&output.stdout));
}

/// On the running kernel, whose name and speed are left out.
#[test]
fn a_run_says_this() {
    let cases = [
        "copy/unchanged[backing=anon,waiter=user-read,msg=read]",
        "wake/length-zero[backing=shmem]",
    ];
    let output = conform().args(["run", "-v"]).args(cases).output().expect("it starts");
    if text(&output.stderr).contains("no permission") {
        eprintln!("this user may not make a userfaultfd: nothing to compare");
        return;
    }
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), String::new()));
    let seen = text(&output.stdout);
    let (_, seen) = seen.split_once('\n').expect("a first line");
    let (before, after) = seen.split_once(" cases in ").expect("a sum");
    let (_, after) = after.split_once(" s: ").expect("a time");
    compare("run.txt", &format!("{before} cases: {after}"));
}

#[test]
fn the_records_are_as_the_tool_writes_them() {
    for path in records(&folder()) {
        let stored = fs::read_to_string(&path).expect("readable");
        let record = Record::parse(&stored).expect("a record");
        assert_eq!(record.to_json(), stored, "{}", path.display());
    }
}

/// Cuts the records of a sweep down to those that stand beside this test; see the README there.
#[test]
#[ignore = "makes the stored records; UFFD_CUT_FROM names the results of a sweep"]
fn cut() {
    let from = PathBuf::from(std::env::var_os("UFFD_CUT_FROM").expect("UFFD_CUT_FROM"));
    for path in records(&from) {
        let mut record =
            Record::parse(&fs::read_to_string(&path).expect("readable")).expect("a record");
        let mut probes = HashSet::new();
        let mut wanted = |id: &str| {
            let probe = id.split('[').next().unwrap_or(id);
            probes.insert(probe.to_owned()) || probe == "copy/event-unread" || id == KEPT
        };
        let cases = record.cases.iter().filter(|(id, _)| wanted(id));
        record.cases = Cases::new(cases.map(|(id, o)| (id.to_owned(), o.clone())).collect());
        let to = folder().join(path.strip_prefix(&from).expect("below the results"));
        fs::create_dir_all(to.parent().expect("a folder")).expect("a folder");
        fs::write(to, record.to_json()).expect("written");
    }
}

/// The records in a results folder: `records/<machine>/<series>/<release>.json`.
fn records(results: &Path) -> Vec<PathBuf> {
    let below = |folder: &PathBuf| {
        let entries = fs::read_dir(folder).expect("a folder");
        entries.map(|entry| entry.expect("an entry").path()).collect::<Vec<_>>()
    };
    let machines = below(&results.join("records"));
    let series: Vec<PathBuf> = machines.iter().flat_map(below).collect();
    let mut files: Vec<PathBuf> = series.iter().flat_map(below).collect();
    files.sort();
    files
}
