//! Records of others, and records changed by hand, as the command meets them.

mod shared;

use shared::{conform, refused, text};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use uffd_results::{Cases, Facts, Outcome, Record};

const PLACE: &str = "records/x86_64/6.12/6.12.118+deb13-cloud-amd64.json";

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

/// A copy of the stored records, to be changed.
fn copy() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    for place in [PLACE, "records/x86_64/5.10/5.10.0-46-cloud-amd64.json"] {
        let to = folder.path().join(place);
        fs::create_dir_all(to.parent().expect("a folder")).expect("a folder");
        fs::copy(golden().join(place), to).expect("copied");
    }
    folder
}

fn stored(folder: &Path) -> Record {
    let text = fs::read_to_string(folder.join(PLACE)).expect("readable");
    Record::parse(&text).expect("a record")
}

/// The record with other facts in the first case that copied; its id.
fn changed(record: &Record) -> (Record, String) {
    let copied = |outcome: &Outcome| outcome.to_string().contains("copy=0 ");
    let (id, outcome) = record.cases.iter().find(|(_, o)| copied(o)).expect("one that copied");
    let facts = outcome.to_string().replace("copy=0 ", "copy=EIO ");
    let id = id.to_owned();
    let other = Outcome::done(Facts::parse(&facts).expect("facts"));
    let cases = record
        .cases
        .iter()
        .map(|(i, o)| (i.to_owned(), if i == id { other.clone() } else { o.clone() }));
    (Record { cases: Cases::new(cases.collect()), ..record.clone() }, id)
}

fn on(results: &Path, arguments: &[&str]) -> Output {
    conform().args(arguments).arg("--results").arg(results).output().expect("it starts")
}

fn lines(output: &Output) -> BTreeSet<String> {
    text(&output.stdout).lines().map(str::to_owned).collect()
}

#[test]
fn a_fact_changed_by_hand_is_found_by_diff_contract_and_lint() {
    let folder = copy();
    let (record, id) = changed(&stored(folder.path()));
    let contract = format!(
        "title = \"T\"\nabout = \"A\"\nsnapshot = \"S\"\n[[assumption]]\nid = \"t.a\"\nsays = \"It \
         copies.\"\nwhere = [\"a.c: b()\"]\nbreaks = \"hang\"\neffect = \"E\"\nneeds = [{{ cases = \
         [{id:?}], facts = {{ copy = \"0\" }} }}]\n"
    );
    fs::create_dir(folder.path().join("contracts")).expect("a folder");
    fs::write(folder.path().join("contracts/t.toml"), contract).expect("written");
    let golden = golden();
    let folders = [golden.to_str().expect("a name"), folder.path().to_str().expect("a name")];
    let diff = || on(&golden, &["diff", "--folders", folders[0], folders[1]]);
    let verdict = || on(folder.path(), &["contract", "t", "-k", "6.12.118+deb13-cloud-amd64"]);
    let lint = || on(folder.path(), &["lint", "--format", "jsonl"]);
    let before = (diff(), verdict(), lines(&lint()));
    assert_eq!(before.0.status.code(), Some(0), "{}", text(&before.0.stdout));
    assert_eq!(before.1.status.code(), Some(0), "{}", text(&before.1.stdout));

    fs::write(folder.path().join(PLACE), record.to_json()).expect("written");
    let found = diff();
    assert_eq!(found.status.code(), Some(1));
    let seen = text(&found.stdout);
    assert!(seen.contains("1 regression") && seen.contains("copy: 0 → EIO"), "{seen}");
    let broken = verdict();
    assert_eq!(broken.status.code(), Some(1));
    assert!(text(&broken.stdout).contains("broken"), "{}", text(&broken.stdout));
    let output = lint();
    assert_eq!(output.status.code(), Some(1));
    let new: Vec<String> = lines(&output).difference(&before.2).cloned().collect();
    assert!(new.len() == 1 && new[0].contains(&id), "{new:?}");
}

#[test]
fn two_kernels_a_file_and_backings_are_compared() {
    let folder = golden();
    let file = folder.join(PLACE);
    let file = file.to_str().expect("a name");
    let code = |arguments: &[&str]| on(&folder, arguments).status.code();
    assert_eq!(code(&["diff", "6.12", file]), Some(0));
    assert_eq!(code(&["diff", "6.12:oldest", "6.12.118"]), Some(0));
    assert_eq!(code(&["diff", "5.10", "6.12.118+deb13-cloud-amd64"]), Some(1));
    assert_eq!(code(&["diff", "5.10", "6.12", "--fail-on", "regression"]), Some(0));
    let events = ["diff", "--axis", "backing", "anon", "shmem", "copy/event-unread", "-k", "6.12"];
    let output = on(&folder, &[&events[..], &["--format", "jsonl"]].concat());
    let first = text(&output.stdout).lines().next().expect("a line").to_owned();
    assert!(
        first.contains("backing=anon on 6.12.118") && !first.contains("\"cases\":0"),
        "{first}"
    );
    for (arguments, words) in [
        (["diff", "6.12", "9.9"], ["9.9 is not recorded", "6.12.118"]),
        (["diff", "6.12", "/nowhere"], ["/nowhere", "reading"]),
        (["diff", "6.12", "banana"], ["banana", "neither a kernel"]),
        (["diff", "6.12", "6.12.118:oldest"], ["6.12.118:oldest", "only a series"]),
    ] {
        refused(&on(&folder, &arguments), &words);
    }
    refused(&on(&folder, &["diff", "5.10", "6.12", "copy/teleport"]), &["copy/teleport"]);
}

#[test]
fn a_record_is_taken_once_and_never_over_another() {
    let folder = copy();
    let before = fs::read_to_string(folder.path().join(PLACE)).expect("readable");
    let (record, id) = changed(&stored(folder.path()));
    let file = folder.path().join("theirs.json");
    let name = file.to_str().expect("a name");
    let give = |record: &Record| fs::write(&file, record.to_json()).expect("written");
    let import = |options: &[&str]| {
        on(folder.path(), &[&["record", "import", name, "--by", "A. Other"], options].concat())
    };
    give(&record);
    refused(&import(&[]), &["is recorded already", "--merge", "--replace"]);
    let merged = import(&["--merge"]);
    assert_eq!(merged.status.code(), Some(1));
    let seen = text(&merged.stdout);
    assert!(seen.contains(&format!("kept {id}: copy is 0 here, EIO in the file")), "{seen}");
    assert_eq!(fs::read_to_string(folder.path().join(PLACE)).expect("readable"), before);

    let mut elsewhere = record.clone();
    elsewhere.kernel.upstream = "6.12.200".into();
    elsewhere.kernel.release = "6.12.200-theirs".into();
    give(&elsewhere);
    let new = import(&[]);
    assert_eq!(new.status.code(), Some(0), "{}", text(&new.stderr));
    let taken = folder.path().join("records/x86_64/6.12/6.12.200-theirs.json");
    let taken = Record::parse(&fs::read_to_string(taken).expect("written")).expect("a record");
    assert_eq!((taken.by.as_deref(), taken.cases), (Some("A. Other"), record.cases.clone()));

    give(&record);
    assert_eq!(import(&["--replace"]).status.code(), Some(0));
    let replaced = stored(folder.path());
    assert_eq!((replaced.by.as_deref(), replaced.cases), (Some("A. Other"), record.cases));
    let odd = ["record", "import", name, "--replace", "--by", "\u{1b}[2J"];
    refused(&on(folder.path(), &odd), &["--by", "can't stand in a record"]);
}

/// A record of the stored kernel, as another release, by somebody.
fn as_another(folder: &Path, release: &str, change: impl FnOnce(&mut Record)) -> String {
    let mut record = stored(&golden());
    record.kernel.release = format!("6.12.118-{release}");
    change(&mut record);
    let file = folder.join(format!("{release}.json"));
    fs::write(&file, record.to_json()).expect("written");
    file.to_str().expect("a name").to_owned()
}

/// One after the other the second would be refused.
#[test]
fn two_command_lines_do_not_come_in_with_one_call() {
    let folder = tempfile::tempdir().expect("a folder");
    let results = folder.path().join("results");
    let a = as_another(folder.path(), "a", |record| record.environment.append = "lru_gen=n".into());
    let b = as_another(folder.path(), "b", |_| ());
    for files in [[&a, &b], [&b, &a]] {
        let import = on(&results, &["record", "import", files[0], files[1]]);
        refused(&import, &["lru_gen=n", "the usual one", "--results"]);
        assert!(!results.exists());
    }
    assert_eq!(on(&results, &["record", "import", &a]).status.code(), Some(0));
    refused(&on(&results, &["record", "import", &b]), &["lru_gen=n", "the usual one"]);
}

/// Each can be read, and what they would be together can't: the names of all who gave a part are too long.
#[test]
fn what_together_could_not_be_read_is_not_merged() {
    let folder = tempfile::tempdir().expect("a folder");
    let results = ["ours", "theirs"].map(|name| folder.path().join(name));
    for (results, by) in results.iter().zip(["a", "b"]) {
        for release in ["0", "x"] {
            let by = (release == "x").then(|| by.repeat(600));
            let file = as_another(folder.path(), release, |record| record.by = by);
            let options: &[&str] = &["record", "import", &file];
            assert_eq!(on(results, options).status.code(), Some(0));
        }
    }
    let [ours, theirs] = &results;
    // This one is merged before the other: it gets a case.
    let file = theirs.join("records/x86_64/6.12/6.12.118-0.json");
    let mut record = Record::parse(&fs::read_to_string(&file).expect("read")).expect("a record");
    let mut cases: Vec<_> = record.cases.iter().map(|(id, o)| (id.to_owned(), o.clone())).collect();
    cases.push(("copy/new".into(), Outcome::done(Facts::new())));
    record.cases = Cases::new(cases);
    fs::write(&file, record.to_json()).expect("written");
    let before = ["0", "x"].map(|name| {
        fs::read(ours.join(format!("records/x86_64/6.12/6.12.118-{name}.json"))).expect("read")
    });
    let merge = on(ours, &["merge", theirs.to_str().expect("a name")]);
    refused(&merge, &["6.12.118-x", "by: a text of more than 1024 bytes", "nothing was changed"]);
    let after = ["0", "x"].map(|name| {
        fs::read(ours.join(format!("records/x86_64/6.12/6.12.118-{name}.json"))).expect("read")
    });
    assert!(before == after && merge.stdout.is_empty());
}

#[test]
fn hostile_files_are_refused_in_little_memory_and_write_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let good = fs::read_to_string(golden().join(PLACE)).expect("readable");
    let swap = |from: &str, to: &str| good.replacen(from, to, 1);
    let facts: Vec<String> = (0..60).map(|n| format!("f{n}={}", "v".repeat(60))).collect();
    let axes: Vec<String> = (0..90_000).map(|n| format!("\"a={n}\"")).collect();
    let (facts, axes) = (facts.join(" "), axes.join(","));
    let bomb = format!("\"x/y\": [{{\"outcome\": \"{facts}\", \"cases\": [{axes}]}}],");
    let release = "\"release\": \"6.12.118+deb13-cloud-amd64\"";
    let hostile = [
        (swap(release, "\"release\": \"../../../../tmp/x\""), "kernel.release"),
        (swap(release, "\"release\": \"\\u001b]0;x\\u0007\""), "kernel.release"),
        (swap(release, "\"release\": \"7.1.0\""), "not of one series"),
        (swap("\"x86_64\"", "\"..\""), "kernel.machine"),
        (swap("\"cpus\": 1", &format!("\"cpus\": {}", "9".repeat(4000))), "line"),
        (
            swap("\"cases\": {", "\"cases\": {\"<img src=x>/y\": [],\"a/<b>\": {\"\": \"a=1\"},"),
            "a/<b>",
        ),
        ("[".repeat(1_000_000), "nested more than"),
        (" ".repeat(17 << 20), "more than 16 MiB"),
        (good[..good.len() / 2].to_owned(), "EOF"),
    ];
    let check = |content: &[u8]| {
        let file = folder.path().join("x.json");
        fs::write(&file, content).expect("written");
        let mut command = Command::new("sh");
        command.args(["-c", "ulimit -v 200000; exec \"$0\" --results \"$2\" record import \"$1\""]);
        command.arg(env!("CARGO_BIN_EXE_uffd-conform")).arg(&file).arg(folder.path());
        command.env("NO_COLOR", "1").output().expect("it starts")
    };
    for (content, word) in &hostile {
        let output = check(content.as_bytes());
        refused(&output, &["x.json", word]);
        assert!(!text(&output.stderr).contains(['\u{1b}', '\u{7}']));
    }
    refused(&check(b"\xff\xfe"), &["x.json", "not UTF-8"]);
    assert!(!folder.path().join("records").exists());
    // A short file of many cases with long facts is a record, and takes little more than its length.
    let output = check(swap("\"cases\": {", &format!("\"cases\": {{{bomb}")).as_bytes());
    assert!(output.status.code().is_some(), "{}", text(&output.stderr));
    assert!(!text(&output.stderr).contains("panicked"), "{}", text(&output.stderr));
    refused(&on(folder.path(), &["record", "check", "/dev/zero"]), &["more than 16 MiB"]);
}

/// Whether a terminal would take any of it for more than text.
fn steers(output: &Output) -> bool {
    let all = format!("{}{}", text(&output.stdout), text(&output.stderr));
    all.chars().any(|c| c != '\n' && !uffd_results::is_plain(c))
}

/// What commands say of a folder, a file or a name that tries to steer the terminal.
#[test]
fn nothing_that_anybody_wrote_steers_a_terminal() {
    const EVIL: &str = "\\u001b]0;x\\u0007\\u202e";
    const RAW: &str = "\u{1b}]0;x\u{7}\u{202e}";
    let contract = format!(
        "title = \"{EVIL}\"\nabout = \"A\"\nsnapshot = \"S\"\n[[assumption]]\nid = \"t.a\"\nsays = \
         \"{EVIL}\"\nwhere = [\"a.c: b()\"]\nbreaks = \"hang\"\neffect = \"E\"\nnot-asked = \"N\"\n"
    );
    let note = format!("[[note]]\nprobe = \"copy/*\"\nsays = \"{EVIL}\"\nsource = \"{EVIL}\"\n");
    let recipe = format!(
        "[[recipe]]\nid = \"a\"\ntitle = \"{EVIL}\"\nwhen = \"N\"\nstep = [{{ does = \"{EVIL}\", \
         rests-on = [] }}]\n"
    );
    let lock = fs::read_to_string(golden().join("../../../kernels.lock")).expect("the lock");
    let lock = lock.replacen("\"bullseye\"", &format!("\"{EVIL}\""), 1);
    let record = fs::read_to_string(golden().join(PLACE)).expect("readable");
    let record = record.replacen("#1 SMP", EVIL, 1);
    // One that nothing is wrong with, so that what is asked for is there.
    let good = contract.replace(EVIL, "It holds.").replace("t.a", "good.a");
    let names = ["contracts/t.toml", "notes.toml", "guarantees.toml", "kernels.lock", PLACE];
    for (name, evil) in names.into_iter().zip([&contract, &note, &recipe, &lock, &record]) {
        let folder = copy();
        fs::create_dir(folder.path().join("contracts")).expect("a folder");
        fs::write(folder.path().join("contracts/good.toml"), &good).expect("written");
        let file = folder.path().join(name);
        fs::write(&file, evil).expect("written");
        let file = file.to_str().expect("a name");
        let other = golden();
        let other = other.to_str().expect("a name");
        let site = folder.path().join("site");
        let site = site.to_str().expect("a name");
        let own = folder.path().to_str().expect("a name");
        let commands: [&[&str]; 20] = [
            &["contract"],
            &["contract", "t"],
            &["lint"],
            &["lint", "--format", "jsonl"],
            &["publish", "-o", site],
            &["matrix", "--check"],
            &["query", "contract(t)"],
            &["ask", "--op", "copy", "--change", "munmap"],
            &["show", "copy/*"],
            &["show", "copy/*", "-k", "6.12", "--format", "jsonl"],
            &["export", "--format", "json"],
            &["export", "--format", "c-header"],
            &["diff", "5.10", "6.12"],
            &["diff", "--folders", own, other],
            &["record", "check", file],
            &["record", "import", file],
            &["kernels", "--lock", file],
            &["run", "-k", "5.10", "--lock", file, "copy/present"],
            &["check", "--contract", "good"],
            &["merge", own, other],
        ];
        for arguments in commands {
            let output = on(folder.path(), arguments);
            assert!(!steers(&output), "{name}: {arguments:?}: {}", text(&output.stdout));
            let error = text(&output.stderr);
            assert!(!error.contains("panicked"), "{name}: {arguments:?}: {error}");
            // What names no file that is read says nothing about how it is read.
            let reads = match arguments[0] {
                "run" => true,
                "check" => name.starts_with("contracts/"),
                _ => false,
            };
            if reads {
                refused(&output, &[file]);
            }
        }
    }
    for arguments in [
        &["show", RAW][..],
        &["query", RAW],
        &["ask", RAW],
        &["run", RAW],
        &["run", "-k", RAW],
        &["contract", RAW],
        &["diff", RAW, "6.12"],
        &["explore", "--sequence", RAW, "-k", "6.12"],
        &["record", "check", RAW],
        &["merge", RAW],
        &["--results", RAW, "show", "copy/*"],
        &["bench", RAW],
        &["exec", "-k", "6.12", "--", RAW],
        &["run", "--kernel-image", RAW],
    ] {
        let output = conform().args(arguments).output().expect("it starts");
        assert!(!steers(&output), "{arguments:?}: {}", text(&output.stderr).escape_debug());
        assert_ne!(output.status.code(), Some(0), "{arguments:?}");
    }
}
