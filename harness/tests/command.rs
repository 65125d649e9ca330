//! The command as a person or a script meets it: exit codes, messages, what is left behind.

mod shared;

use rstest::rstest;
use shared::{conform, kernel, nobody, outcomes, program_for_everybody, refused, run, text};
use std::path::Path;
use std::process::{Command, Stdio};
use uffd_results::{End, Outcome, Record};

#[rstest]
#[case(&["run", "copy/teleport"], &["copy/teleport", "uffd-conform list"])]
#[case(&["list", "nonsense"], &["nonsense", "uffd-conform list"])]
#[case(&["show", "nonsense"], &["nonsense"])]
#[case(&["show", "copy/"], &["narrow it down", "--all"])]
#[case(&["sweep", "-k", "9.9"], &["9.9", "6.12"])]
#[case(&["run", "-k", "banana", "copy/present"], &["banana"])]
#[case(&["run", "--kernel-image", "/nowhere", "copy/present"], &["/nowhere"])]
#[case(&["run", "--kernel-image", "/etc/passwd", "copy/present"], &["/etc/passwd"])]
#[case(&["run", "--kernel-image", "/tmp", "copy/present"], &["/tmp"])]
#[case(&["run", "--repeat", "0"], &["--repeat"])]
#[case(&["run", "--jobs", "0"], &["--jobs"])]
#[case(&["run", "--kernel-image", "x", "--coverage", "y", "--jobs", "2"], &["--coverage", "--jobs"])]
#[case(&["matrix", "--results", "/nowhere"], &["/nowhere", "sweep"])]
#[case(&["run", "--coverage", "/tmp/new", "copy/present"], &["--kernel-image"])]
#[case(&["exec", "-k", "6.12"], &["PROGRAM"])]
#[case(&["run", "--accelerator", "auto"], &["--accelerator", "-k"])]
#[case(&["run", "--record", "/"], &["writing /", "nothing was changed"])]
#[case(&["run", ""], &["filter is empty"])]
#[case(&["exec", "--", "/bin/true"], &["no kernel is named"])]
#[case(&["exec", "-k", "6.12", "--", "/nowhere/program"], &["/nowhere/program"])]
#[case(&["ask"], &["nothing is asked", "--op copy"])]
#[case(&["ask", "--backing", "teapot"], &["teapot", "hugetlb-shared"])]
#[case(&["ask", "--backing", "anon", "--mode", "minor"], &["shared page cache", "backing can be shmem"])]
#[case(&["ask", "copy/teleport"], &["copy/teleport", "uffd-conform list"])]
#[case(&["ask", "events/", "--axis", "colour=red"], &["\"colour\"", "backing"])]
#[case(&["ask", "--op", "copy", "-k", "banana"], &["banana"])]
#[case(&["query", "since(6.12) & suit(copy)"], &["  since(6.12) & suit(copy)\n                ^ expected"])]
#[case(&["query", "contract(nobody)"], &["nobody", "qemu-postcopy"])]
#[case(&["query", "differs_by(colour)"], &["an axis", "colour"])]
#[case(&["diff", "/", "6.12.118"], &["/ is a folder", "--folders"])]
#[case(&["diff", "src", "6.12.118"], &["src is a folder", "--folders"])]
#[case(&["--results", "", "sweep"], &["UFFD_CONFORM_RESULTS", "is empty"])]
#[case(&["completions", "csh"], &["csh", "fish"])]
#[case(&["frobnicate"], &["frobnicate"])]
fn bad_input_is_refused_with_a_word(#[case] arguments: &[&str], #[case] words: &[&str]) {
    refused(&run(arguments), words);
}

/// In kselftest 2 is a failure that was expected.
#[rstest]
#[case(&["--jobs", "0"])]
#[case(&["--frobnicate"])]
#[case(&["copy/teleport"])]
#[case(&["-k", "banana"])]
fn bad_input_is_a_failure_for_kselftest(#[case] arguments: &[&str]) {
    for options in [&["--exit-codes", "kselftest"][..], &["--exit-codes=kselftest"]] {
        let output = run(&[&["run"], options, arguments].concat());
        assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
        assert!(!output.stderr.is_empty());
    }
    assert_eq!(run(&["run", "--exit-codes", "kselftest", "--help"]).status.code(), Some(0));
}

#[rstest]
#[case(&["run", "--kernel-image", "/bin/true", "copy/present"])]
#[case(&["sweep", "-k", "6.12.118"])]
fn without_qemu_it_says_what_to_install(#[case] arguments: &[&str]) {
    let folder = tempfile::tempdir().expect("a folder");
    let output = conform()
        .args(arguments)
        .env("PATH", folder.path())
        .arg("--results")
        .arg(folder.path())
        .output()
        .expect("the command starts");
    assert_eq!(output.status.code(), Some(2));
    let error = text(&output.stderr);
    let image = error.contains("/bin/true");
    assert!(image || error.contains("qemu-system-x86"), "{error}");
    assert_eq!(std::fs::read_dir(folder.path()).expect("listed").count(), 0);
}

#[test]
fn a_full_disk_is_said_and_not_panicked_about() {
    let full = || std::fs::File::create("/dev/full").expect("/dev/full");
    let output = conform().args(["list"]).stdout(full()).output().expect("the command starts");
    refused(&output, &["No space left"]);
    let arguments = ["run", "copy/present", "--format", "jsonl"];
    let output = conform().args(arguments).stdout(full()).output().expect("the command starts");
    refused(&output, &["No space left"]);
}

#[test]
fn a_reader_that_leaves_is_no_error() {
    let mut child = conform()
        .args(["list", "--full"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the command starts");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("it ends");
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), String::new()));
}

#[test]
fn a_record_cut_short_names_its_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let place = folder.path().join("records/x86_64/6.1");
    std::fs::create_dir_all(&place).expect("a folder");
    std::fs::write(place.join("cut.json"), "{\"schema\": 1, \"kernel\": {\"upst").expect("written");
    let results = folder.path().to_str().expect("a name");
    refused(&run(&["matrix", "--results", results]), &["cut.json", "EOF"]);
    std::fs::write(place.join("cut.json"), "{\"schema\": 99}").expect("written");
    refused(&run(&["show", "copy/present", "--results", results]), &["cut.json", "schema 99"]);
    assert!(!folder.path().join("MATRIX.md").exists());
}

#[test]
fn list_names_every_case_once() {
    let lines = text(&run(&["list", "--full"]).stdout);
    let mut ids: Vec<&str> = lines.lines().collect();
    let all = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!((ids.len(), all), (uffd_suites::cases().len(), uffd_suites::cases().len()));
    assert!(ids.iter().all(|id| !id.starts_with("hidden/")));
}

#[test]
fn json_lines_and_record_agree_case_by_case() {
    let folder = tempfile::tempdir().expect("a folder");
    let record = folder.path().join("record.json");
    let arguments = ["run", "wake/", "copy/munmap", "--format", "jsonl", "--record"];
    let output = conform().args(arguments).arg(&record).output().expect("the command starts");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let lines = outcomes(&output);
    let record = Record::parse(&std::fs::read_to_string(&record).expect("read")).expect("a record");
    assert_eq!(lines.len(), record.cases.len());
    for (id, Outcome { end, facts, .. }) in record.cases.iter() {
        let line = &lines[id];
        assert_eq!(line["end"], end.word(), "{id}");
        let seen = line["facts"].as_object().expect("facts");
        assert_eq!(seen.len(), facts.iter().count(), "{id}");
        assert!(facts.iter().all(|f| seen[f.name.as_ref()] == f.value.as_str()), "{id}");
    }
}

#[test]
fn a_record_is_not_replaced_by_one_with_less() {
    let folder = tempfile::tempdir().expect("a folder");
    let record = folder.path().join("record.json");
    let run = |filters: &[&str]| {
        let mut command = conform();
        command.arg("run").args(filters).arg("--record").arg(&record);
        command.output().expect("the command starts")
    };
    assert_eq!(run(&["wake/munmap", "copy/munmap"]).status.code(), Some(0));
    let before = std::fs::read(&record).expect("read");
    let less = run(&["copy/munmap"]);
    assert_eq!(less.status.code(), Some(2));
    assert!(
        text(&less.stderr).contains("cases that this run does not ask"),
        "{}",
        text(&less.stderr)
    );
    assert!(less.stdout.is_empty() && std::fs::read(&record).expect("read") == before);
    assert_eq!(run(&["wake/munmap", "copy/munmap", "copy/unchanged"]).status.code(), Some(0));
}

const GOOD: &str = "copy/munmap[backing=anon,part=head,waiter=user-read,msg=read]";

#[test]
fn a_case_that_hangs_or_dies_costs_that_case_alone() {
    let arguments = [
        "run",
        "hidden/hangs[backing=anon]",
        "hidden/dies[backing=anon]",
        GOOD,
        "--deadline",
        "10",
    ];
    let output = conform().args(arguments).args(["--format", "jsonl"]).output().expect("starts");
    assert_eq!(output.status.code(), Some(1));
    let cases = outcomes(&output);
    let hang = &cases["hidden/hangs[backing=anon]"];
    assert_eq!((&hang["verdict"], &hang["facts"]["before"]), (&"hang".into(), &"seen".into()));
    assert!(hang["detail"].as_str().is_some_and(|why| why.contains("wait for ever")), "{hang}");
    let dead = &cases["hidden/dies[backing=anon]"];
    assert_eq!(dead["verdict"], "killed");
    assert!(dead["detail"].as_str().is_some_and(|why| why.contains("SIGSEGV")), "{dead}");
    assert_eq!(cases[GOOD]["verdict"], "pass");
}

#[test]
fn a_host_is_not_taken_down() {
    let output = run(&["run", "hidden/panics[backing=anon]"]);
    assert_eq!(output.status.code(), Some(3), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("only asked in a VM"));
}

#[test]
#[ignore = "boots the kernel that UFFD_TEST_KERNEL names"]
fn a_kernel_that_goes_down_costs_one_case() {
    let kernel = kernel();
    let hidden = ["hangs", "dies", "panics"].map(|name| format!("hidden/{name}[backing=anon]"));
    let mut command = conform();
    command
        .args(["run", "--deadline", "10", "--format", "jsonl", GOOD, "wake/wide[backing=anon]"])
        .args(&hidden);
    let output = command.arg("--kernel-image").arg(kernel).output().expect("the command starts");
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    let cases = outcomes(&output);
    let verdicts = hidden.each_ref().map(|id| cases[id]["verdict"].as_str().unwrap_or_default());
    assert_eq!(verdicts, ["hang", "killed", "panic"]);
    let others: Vec<_> = cases.iter().filter(|(id, _)| !hidden.contains(id)).collect();
    assert_eq!(others.len(), 2);
    for (id, case) in others {
        assert!(case["verdict"] == "pass", "{id}: {case}");
    }
}

#[test]
#[ignore = "boots the kernel that UFFD_TEST_KERNEL names"]
fn a_program_runs_in_a_vm_and_says_how_it_ended() {
    let kernel = kernel();
    let program = env!("CARGO_BIN_EXE_uffd-conform");
    let exec = |options: &[&str], command: &[&str]| {
        let mut exec = conform();
        exec.arg("exec").arg("--kernel-image").arg(&kernel).args(options).arg("--").args(command);
        exec.output().expect("the command starts")
    };
    let output = exec(&[], &[program, "list", "copy/present"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(output.stdout, run(&["list", "copy/present"]).stdout);

    let output = exec(&[], &[program, "list", "nonsense"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stdout).contains("nonsense"), "what it said comes out");
    assert!(text(&output.stderr).contains("exit=2"), "{}", text(&output.stderr));

    refused(&exec(&[], &["/bin/true"]), &["/bin/true", "linked dynamically", "linked statically"]);
    refused(&exec(&["--huge-pages", "600"], &[program]), &["600 huge pages", "--memory"]);

    let folder = tempfile::tempdir().expect("a folder");
    let counters = folder.path().join("counters").display().to_string();
    refused(&exec(&["--coverage", &counters], &[program, "list"]), &["CONFIG_GCOV_KERNEL"]);
    refused(&exec(&["--coverage", &folder.path().display().to_string()], &[program]), &["empty"]);
}

/// As nobody: what needs no permission is answered, the rest says what it needs.
#[test]
fn without_root_user_mode_is_asked() {
    if !nix::unistd::geteuid().is_root() || sysctl_allows_everybody() {
        eprintln!("needs root and vm.unprivileged_userfaultfd=0");
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let program = program_for_everybody(folder.path());
    let arguments = ["run", "copy/unchanged*backing=anon*", "--format", "jsonl"];
    let mut command = Command::new(&program);
    let output = nobody(command.args(arguments)).output().expect("the command starts");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    for (id, case) in outcomes(&output) {
        let of_the_user = ["waiter=none", "waiter=user-"].iter().any(|who| id.contains(who));
        let verdict = match (of_the_user, id.contains("waiter=vcpu-")) {
            (true, _) => "pass",
            (_, true) => "precondition",
            _ => "denied",
        };
        assert_eq!(case["verdict"], verdict, "{id}: {case}");
    }
}

fn sysctl_allows_everybody() -> bool {
    let file = Path::new("/proc/sys/vm/unprivileged_userfaultfd");
    std::fs::read_to_string(file).is_ok_and(|text| text.trim() == "1")
}

/// Every word for an end is documented where people look for it.
#[test]
fn the_matrix_explains_its_words() {
    let legend = uffd_harness::report::matrix::LEGEND;
    for end in End::ALL.into_iter().filter(|end| !matches!(end, End::Done | End::Denied)) {
        assert!(legend.contains(end.word()), "{}", end.word());
    }
}
