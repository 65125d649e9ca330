//! Commands that take several folders or files: what is wrong with one, or missing there, says nothing of the others.

mod shared;

use shared::{conform, refused, run, text};
use std::fs;
use std::path::{Path, PathBuf};
use uffd_harness::store::Store;
use uffd_results::{Cases, End, Facts, Outcome};

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn word(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// A results folder with so many of the stored records.
fn with_records(folder: &Path, n: usize) -> PathBuf {
    let store = Store::new(&folder.join("some"));
    for record in Store::new(&golden()).load().expect("records").iter().take(n) {
        store.save(record).expect("written");
    }
    store.folder().to_owned()
}

/// As a sweep of a part without kernels leaves it; one that is not there is a slip of whoever typed it.
#[test]
fn a_part_without_records_is_merged_if_another_has_some() {
    let folder = tempfile::tempdir().expect("a folder");
    let (some, all, none) =
        (with_records(folder.path(), 2), folder.path().join("all"), folder.path().join("none"));
    let merge = |parts: &[&str]| run(&[&["--results", word(&all), "merge"], parts].concat());
    refused(&merge(&[word(&some), word(&none)]), &["there is no folder", "none"]);
    // The last one of as many parts as there are words for has no kernel.
    let sweep = ["--results", word(&none), "sweep", "-k", "6.12.118", "--shard", "9/9"];
    assert_eq!(run(&sweep).status.code(), Some(0));
    refused(&merge(&[word(&none)]), &["none", "no records"]);
    assert!(!all.exists());
    let output = merge(&[word(&none), word(&some)]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("none has no records"), "{}", text(&output.stderr));
    assert_eq!(Store::new(&all).load().expect("merged").len(), 2);
}

#[test]
fn kernels_that_are_gone_are_a_difference() {
    let folder = tempfile::tempdir().expect("a folder");
    let (some, all) = (with_records(folder.path(), 1), golden());
    let diff = |a: &Path, b: &Path, more: &[&str]| {
        run(&[&["diff", "--folders", word(a), word(b)], more].concat()).status.code()
    };
    assert_eq!(diff(&all, &some, &["--fail-on", "gone"]), Some(1));
    assert_eq!(diff(&all, &some, &["--fail-on", "new"]), Some(0));
    assert_eq!(diff(&some, &all, &["--fail-on", "new"]), Some(1));
    assert_eq!(diff(&all, &all, &[]), Some(0));
}

#[test]
fn all_files_are_checked() {
    let folder = tempfile::tempdir().expect("a folder");
    let bad = folder.path().join("bad");
    fs::write(&bad, "{}").expect("written");
    let good = Store::new(&golden());
    let record = &good.load().expect("records")[0];
    let good = good.path(&record.kernel).expect("a path");
    let output = run(&["record", "check", word(&bad), word(&good)]);
    refused(&output, &["bad", "not a record"]);
    assert!(text(&output.stdout).contains(&record.kernel.release));
}

#[test]
fn the_list_of_operations_is_json_lines() {
    let output = run(&["bench", "--list", "--format", "jsonl"]);
    let said = text(&output.stdout);
    let lines: Vec<serde_json::Value> =
        said.lines().map(|line| serde_json::from_str(line).expect("an object a line")).collect();
    assert!(!lines.is_empty() && lines.iter().all(|line| line["id"].is_string()));
}

/// There are fewer kernels than parts.
#[test]
fn a_part_without_kernels_is_said() {
    let output = run(&["run", "-k", "6.12.118", "--shard", "2/2", "copy/present"]);
    assert_eq!(output.status.code(), Some(3), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("this part has no kernel"), "{}", text(&output.stderr));
}

/// Whoever answers from records of kernels with another command line says so, once for each place.
#[test]
fn another_command_line_is_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let usual = with_records(folder.path(), 1);
    let other = Store::new(&folder.path().join("other"));
    let mut record = Store::new(&usual).load().expect("a record").remove(0);
    record.environment.append = "lru_gen=n".to_owned();
    other.save(&record).expect("written");
    let file = other.path(&record.kernel).expect("a path");
    let (other, kernel) = (word(other.folder()), record.kernel.release.as_str());
    let told = |arguments: &[&str], place: &str| {
        let output = run(arguments);
        let error = text(&output.stderr);
        assert!(matches!(output.status.code(), Some(0 | 1)), "{arguments:?}: {error}");
        let line =
            format!("note: {place}: asked with \"lru_gen=n\" added to the kernel's command line");
        assert_eq!(error.matches(&line).count(), 1, "{arguments:?}: {error}");
        assert_eq!(error.matches("command line").count(), 1, "{arguments:?}: {error}");
    };
    let case = record.cases.iter().next().expect("a case").0;
    told(&["--results", other, "show", case], other);
    told(&["--results", other, "query", "suite(arguments)"], other);
    told(&["--results", other, "ask", case], other);
    told(&["--results", other, "export", "--format", "csv"], other);
    told(&["--results", other, "contract", "qemu-postcopy"], other);
    told(&["--results", other, "check", "--contract", "qemu-postcopy"], other);
    told(&["--results", other, "diff", kernel, kernel], other);
    told(&["diff", "--folders", word(&usual), other], other);
    told(&["--results", word(&usual), "diff", kernel, word(&file)], word(&file));
}

#[test]
fn what_disagrees_is_told_and_not_written() {
    let folder = tempfile::tempdir().expect("a folder");
    let ours = with_records(folder.path(), 1);
    let mut record = Store::new(&ours).load().expect("a record").remove(0);
    let mut cases: Vec<_> = record.cases.iter().map(|(id, o)| (id.to_owned(), o.clone())).collect();
    let other = Outcome::done(Facts::parse("copy=EIO").expect("facts"));
    let place = cases.iter().position(|(_, outcome)| outcome.end == End::Done).expect("a case");
    let id = cases[place].0.clone();
    cases[place].1 = other;
    record.cases = Cases::new(cases);
    let theirs = Store::new(&folder.path().join("theirs"));
    theirs.save(&record).expect("written");
    let path = Store::new(&ours).path(&record.kernel).expect("a path");
    let before = fs::read(&path).expect("read");
    let output = run(&["--results", word(&ours), "merge", word(theirs.folder())]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    let said = text(&output.stdout);
    assert!(said.contains("nothing is written") && said.contains(&id), "{said}");
    assert_eq!(fs::read(&path).expect("read"), before);
}

#[test]
fn a_matrix_that_is_not_what_the_records_make_is_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let some = with_records(folder.path(), 1);
    let matrix = |more: &[&str]| run(&[&["--results", word(&some), "matrix"], more].concat());
    assert_eq!(matrix(&[]).status.code(), Some(0));
    assert_eq!(matrix(&["--check"]).status.code(), Some(0));
    let path = some.join("MATRIX.md");
    let changed = fs::read_to_string(&path).expect("read").replacen("pass 1", "pass 2", 1);
    fs::write(&path, changed).expect("written");
    let output = matrix(&["--check"]);
    assert_eq!(output.status.code(), Some(1));
    let said = format!("{}{}", text(&output.stdout), text(&output.stderr));
    assert!(said.contains("MATRIX.md"), "{said}");
}

/// What is built in answers: 6.12.43 and 6.16.3 agree on what 6.13 does otherwise.
#[test]
fn what_no_recorded_kernel_speaks_for_is_not_known() {
    let case = "copy/event-unread[backing=anon]";
    let empty = tempfile::tempdir().expect("a folder");
    let on = |arguments: &[&str]| {
        let output = conform().args(arguments).current_dir(&empty).output().expect("it starts");
        (output.status.code(), format!("{}{}", text(&output.stdout), text(&output.stderr)))
    };
    for command in ["ask", "show"] {
        let (_, said) = on(&[command, case, "-k", "6.13.2"]);
        assert!(said.contains("by its sources it answers otherwise"), "{command}: {said}");
        let (_, said) = on(&[command, case, "-k", "6.12.60"]);
        assert!(!said.contains("by its sources"), "{command}: {said}");
    }
    let (code, said) = on(&["contract", "qemu-postcopy", "-k", "9.9.1"]);
    assert_eq!(code, Some(3), "{said}");
}
