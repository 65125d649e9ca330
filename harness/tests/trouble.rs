//! What the command does where the machine is in its way: no permission, no room, no reader, no
//! QEMU, a kernel that goes down.

mod shared;

use rstest::rstest;
use shared::{
    conform, kernel, nobody, outcomes, program_for_everybody, refused, run, seccomp, set_mode, text,
};
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use uffd_harness::vm::accel::Choice;
use uffd_harness::vm::{Options, run_vm};
use uffd_results::{End, Record};

const GOOD: &str = "copy/munmap[backing=anon,part=head,waiter=user-read,msg=read]";
const IN_KERNEL: &str = "copy/unchanged[backing=anon,waiter=sys-read,msg=read]";
const HANGS: &str = "hidden/hangs[backing=anon]";
const DIES: &str = "hidden/dies[backing=anon]";
const PANICS: &str = "hidden/panics[backing=anon]";

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

#[test]
fn where_userfaultfd_is_refused_it_says_what_would_help() {
    let mut command = conform();
    let output = seccomp::refuse(command.args(["run", GOOD]), true).output().expect("it starts");
    let advice = ["no permission", "root", "vm.unprivileged_userfaultfd=1", "/dev/userfaultfd"];
    refused(&output, &advice);
    refused(&output, &["seccomp"]);
    assert!(output.stdout.is_empty(), "{}", text(&output.stdout));
}

/// A program that reads what is said hears it as well; for kselftest it is a skip.
#[rstest]
#[case(&["--format", "tap"], 2, "TAP version 14\nBail out! no permission")]
#[case(&["--format", "ktap"], 2, "KTAP version 1\nBail out! no permission")]
#[case(&["--format", "ktap", "--exit-codes", "kselftest"], 4, "KTAP version 1\n1..0 # SKIP no permission")]
#[case(&["--format", "junit"], 2, "no permission")]
fn where_userfaultfd_is_refused_programs_hear_why(
    #[case] how: &[&str],
    #[case] code: i32,
    #[case] says: &str,
) {
    let mut command = conform();
    let output = seccomp::refuse(command.args(["run", GOOD]).args(how), true).output();
    let output = output.expect("it starts");
    assert_eq!(output.status.code(), Some(code), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains(says), "{}", text(&output.stdout));
}

#[test]
fn where_only_the_device_is_allowed_it_is_used() {
    if fs::File::options().read(true).write(true).open("/dev/userfaultfd").is_err() {
        eprintln!("this user may not open /dev/userfaultfd: not asked");
        return;
    }
    let mut command = conform();
    command.args(["run", GOOD, IN_KERNEL, "--format", "jsonl"]);
    let output = seccomp::refuse(&mut command, false).output().expect("it starts");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("\"uffd\":\"device\""), "{}", text(&output.stdout));
    assert!(outcomes(&output).values().all(|case| case["verdict"] == "pass"));
}

/// What a filter or a limit of this machine refuses is never taken for what the kernel answers.
#[rstest]
#[case::reading(libc::SYS_process_vm_readv, "vm-read", "process_vm_readv(2)")]
#[case::writing(libc::SYS_process_vm_writev, "vm-write", "process_vm_writev(2)")]
#[case::privileges(libc::SYS_userfaultfd, "permission/", "userfaultfd(2) is refused")]
fn a_call_that_is_filtered_is_denied(
    #[case] call: libc::c_long,
    #[case] filter: &str,
    #[case] why: &str,
) {
    if !is_root() {
        eprintln!("not asked: only root's answers would be the kernel's");
        return;
    }
    let mut command = conform();
    command.args(["run", filter, "--format", "jsonl"]);
    only_denied(&seccomp::refuse_call(&mut command, call).output().expect("it starts"), why);
}

#[test]
fn a_lock_over_the_limit_is_denied() {
    if !is_root() {
        eprintln!("not asked: only root can give its capability up");
        return;
    }
    let mut command = Command::new("sh");
    command.args([
        "-c",
        "ulimit -l 0 && exec setpriv --bounding-set -ipc_lock --inh-caps -all \"$@\"",
        "sh",
    ]);
    command
        .arg(env!("CARGO_BIN_EXE_uffd-conform"))
        .args(["run", "lock", "uring", "--format", "jsonl"]);
    only_denied(&command.output().expect("a shell"), "RLIMIT_MEMLOCK");
}

fn only_denied(output: &std::process::Output, why: &str) {
    let cases = outcomes(output);
    let is = |case: &serde_json::Value, verdict: &str| case["verdict"] == verdict;
    let odd = cases.values().find(|case| ["differs", "broken", "hang"].iter().any(|v| is(case, v)));
    assert!(odd.is_none(), "{odd:?}");
    let says = |case: &serde_json::Value| case["detail"].as_str().is_some_and(|d| d.contains(why));
    let denied = cases.values().any(|case| is(case, "denied") && says(case));
    assert!(denied, "{} {}", text(&output.stdout), text(&output.stderr));
}

/// As nobody, with the call for user-mode faults alone: every case ends with a word.
#[test]
fn nobody_gets_an_outcome_for_every_case() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = Command::new(program_for_everybody(folder.path()));
    command.args(["run", "copy/", "wake/", "--format", "jsonl"]);
    let output = nobody(&mut command).output().expect("it starts");
    if text(&output.stderr).contains("no permission") {
        eprintln!("not even user-mode faults are allowed here");
        return;
    }
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let user_mode = text(&output.stdout).contains("\"uffd\":\"user-mode-only\"");
    let cases = outcomes(&output);
    let listed = run(&["list", "copy/", "wake/"]);
    assert_eq!(cases.len(), text(&listed.stdout).lines().count());
    for (id, case) in cases {
        let verdict = case["verdict"].as_str().unwrap_or_default();
        let detail = case["detail"].as_str().unwrap_or_default();
        match verdict {
            "pass" => assert!(!user_mode || !id.contains("waiter=sys-"), "{case}"),
            "denied" => assert!(!id.contains("waiter=user-") && detail.contains("CAP_SYS_PTRACE")),
            "precondition" => assert!(!detail.is_empty(), "{case}"),
            _ => panic!("{case}"),
        }
    }
}

/// Runs the program `$0` with a record in `$1`, then shows what is there.
const SCRIPT: &str = "echo old >\"$1/r.json\"
    \"$0\" run 'copy/m*backing=anon*' --record \"$1/r.json\" >/dev/null; code=$?
    ls -A \"$1\"; cat \"$1/r.json\"; exit $code";

/// On a file system of 8 KiB that only the command and its shell see.
#[test]
fn a_record_that_does_not_fit_leaves_the_old_one() {
    use nix::mount::{MsFlags, mount};
    use nix::sched::{CloneFlags, unshare};
    if !is_root() {
        eprintln!("only root can mount a small file system");
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let place = folder.path().to_owned();
    let mut command = Command::new("sh");
    command.args(["-c", SCRIPT, env!("CARGO_BIN_EXE_uffd-conform")]).arg(folder.path());
    let small = move || {
        unshare(CloneFlags::CLONE_NEWNS)?;
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(None::<&str>, "/", None::<&str>, private, None::<&str>)?;
        mount(Some("small"), &place, Some("tmpfs"), MsFlags::empty(), Some("size=8k"))?;
        Ok(())
    };
    // SAFETY: the closure makes system calls only, with memory that was there before the fork.
    unsafe { command.pre_exec(small) };
    let output = match command.output() {
        Err(e) if e.kind() == std::io::ErrorKind::PermissionDenied => {
            eprintln!("this root can't mount a small file system");
            return;
        }
        output => output.expect("it starts"),
    };
    refused(&output, &["writing ", "r.json", "No space left", "nothing was changed", "make room"]);
    assert_eq!(text(&output.stdout), "r.json\nold\n");
}

/// The stored records in a folder that nobody can write to.
fn read_only_results(folder: &Path) -> PathBuf {
    let results = folder.join("results");
    let place = results.join("records/x86_64/5.10");
    fs::create_dir_all(&place).expect("a folder");
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/records/x86_64/5.10");
    for entry in fs::read_dir(golden).expect("the stored records") {
        let path = entry.expect("an entry").path();
        fs::copy(&path, place.join(path.file_name().expect("a name"))).expect("copied");
    }
    set_mode(&results, 0o555);
    results
}

#[rstest]
#[case(&["matrix"], &["MATRIX.md", "--results"])]
#[case(&["sweep", "-k", "6.12.118"], &["results", "--results"])]
fn results_that_cannot_be_written_are_named(#[case] arguments: &[&str], #[case] words: &[&str]) {
    let folder = tempfile::tempdir().expect("a folder");
    let program = program_for_everybody(folder.path());
    let results = read_only_results(folder.path());
    let cache = folder.path().join("cache");
    let mut command = Command::new(program);
    command.args(arguments).arg("--results").arg(&results).env("UFFD_CONFORM_CACHE", &cache);
    let output = nobody(&mut command).output().expect("it starts");
    refused(&output, &["writing", "Permission denied", "nothing was changed"]);
    refused(&output, words);
    assert!(!cache.exists(), "something was downloaded in vain");
    let left: Vec<_> = fs::read_dir(&results).expect("listed").collect();
    assert_eq!(left.len(), 1, "{left:?}");
    set_mode(&results, 0o755);
}

#[test]
fn without_qemu_nothing_is_downloaded() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = conform();
    command.args(["run", "-k", "6.12.118", GOOD]).env("PATH", folder.path());
    let output = command.env("UFFD_CONFORM_CACHE", folder.path()).output().expect("it starts");
    refused(&output, &["no qemu-system-x86_64", "apt install qemu-system-x86"]);
    assert_eq!(fs::read_dir(folder.path()).expect("listed").count(), 0);
}

/// A kernel of arm64 boots in another QEMU, and does without that of x86-64.
#[test]
fn a_sweep_of_another_architecture_wants_its_own_qemu() {
    let folder = tempfile::tempdir().expect("a folder");
    let image = folder.path().join("Image");
    let mut bytes = vec![0; 100];
    bytes[..2].copy_from_slice(b"MZ");
    bytes[56..60].copy_from_slice(b"ARMd");
    bytes.extend(b"Linux version 6.12.1 (a@b) #1 SMP\n\0");
    fs::write(&image, bytes).expect("written");
    let mut command = conform();
    command.arg("--results").arg(folder.path().join("results")).env("PATH", folder.path());
    let output = command.args(["sweep", "--kernel-image"]).arg(&image).output();
    let output = output.expect("it starts");
    refused(&output, &["no qemu-system-aarch64", "apt install qemu-system-arm)"]);
    assert!(!folder.path().join("results").exists());
}

/// An update begins with the file that it will replace: one that can't be read stays as it is.
#[rstest]
#[case(&[])]
#[case(&["--lock", "kernels.lock"])]
fn an_update_never_forgets_what_the_lock_file_here_holds(#[case] options: &[&str]) {
    let folder = tempfile::tempdir().expect("a folder");
    let lock = folder.path().join("kernels.lock");
    fs::write(&lock, "{\"schema\": 99, \"kernels\": []}").expect("written");
    let mut command = conform();
    command.args(["kernels", "--update"]).args(options).current_dir(folder.path());
    command.env("UFFD_CONFORM_CACHE", folder.path().join("cache")).env("PATH", folder.path());
    refused(&command.output().expect("it starts"), &["kernels.lock", "schema 99"]);
    assert_eq!(fs::read(&lock).expect("read"), b"{\"schema\": 99, \"kernels\": []}");
    assert!(!folder.path().join("cache").exists(), "the archive was asked in vain");
}

#[rstest]
#[case("matrix")]
#[case("show")]
fn a_record_that_cannot_be_read_says_what_to_do(#[case] command: &str) {
    let folder = tempfile::tempdir().expect("a folder");
    let results = folder.path().join("results");
    let file = results.join("records/x86_64/6.1/a.json");
    fs::create_dir_all(file.parent().expect("a folder")).expect("a folder");
    let arguments = |words: &[&str]| {
        let mut all = vec![command, "--results", results.to_str().expect("a name")];
        all.extend(if command == "show" { &[GOOD][..] } else { &[] });
        fs::write(&file, words.concat()).expect("written");
        run(&all)
    };
    let cut = arguments(&["{\"schema\": 1, \"kernel\": {"]);
    refused(&cut, &["a.json", "not a record", "restore the file from git"]);
    let newer = arguments(&["{\"schema\": 99, \"new\": []}"]);
    refused(&newer, &["a.json", "schema 99", "use a newer one"]);
    assert!(!text(&newer.stderr).contains("delete"), "{}", text(&newer.stderr));
    assert!(cut.stdout.is_empty() && newer.stdout.is_empty());
    assert!(!results.join("MATRIX.md").exists());
}

#[test]
fn output_that_cannot_be_written_is_named() {
    let full = fs::File::create("/dev/full").expect("/dev/full");
    let output = conform().args(["run", GOOD]).stdout(full).output().expect("it starts");
    refused(&output, &["standard output", "No space left"]);
}

/// The reader is gone before the first word: the cases are asked all the same.
#[test]
fn a_run_without_a_reader_still_counts() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("record.json");
    let mut command = conform();
    command.args(["run", "-v", DIES, GOOD, "--record"]).arg(&file);
    let mut child =
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("it ends");
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(1), String::new()));
    let record = Record::parse(&fs::read_to_string(&file).expect("read")).expect("a record");
    let ends: Vec<End> = record.cases.iter().map(|(_, outcome)| outcome.end).collect();
    assert_eq!(ends, [End::Done, End::Killed]);
}

/// What is no file takes the record as it comes, and is there afterwards; a file that a link leads to is replaced.
#[rstest]
#[case::output_to_a_file("ln -s /proc/self/fd/1 to; exec >out")]
#[case::output_to_a_pipe("ln -s /proc/self/fd/1 to; mkfifo pipe; cat pipe >out & exec >pipe")]
#[case::pipe("mkfifo to; cat to >out & exec >/dev/null")]
#[case::link("ln -s out to; exec >/dev/null")]
#[case::link_to_an_old_one("ln -s out to; echo old >out; exec >/dev/null")]
fn a_record_goes_where_its_name_leads(#[case] before: &str) {
    let folder = tempfile::tempdir().expect("a folder");
    let script = format!(
        "cd \"$1\"; {before}; \"$0\" run '{GOOD}' --format jsonl --record to; exec >&2; wait"
    );
    let mut command = Command::new("sh");
    command.args(["-ec", &script, env!("CARGO_BIN_EXE_uffd-conform")]).arg(folder.path());
    let output = command.output().expect("it starts");
    assert!(output.status.success(), "{}", text(&output.stderr));
    let all = fs::read_to_string(folder.path().join("out")).expect("written");
    let begin = all.find("{\n\"schema\"").expect("a record");
    let end = begin + all[begin..].find("\n}\n").expect("its end") + 3;
    Record::parse(&all[begin..end]).expect("a record");
    // What the run said is there as well, if it went there.
    assert_eq!(before.contains("fd/1"), begin > 0 && all.len() > end, "{all}");
    let kind = fs::symlink_metadata(folder.path().join("to")).expect("there").file_type();
    assert!(!kind.is_file(), "it was replaced");
}

#[test]
fn equal_runs_give_equal_bytes() {
    let folder = tempfile::tempdir().expect("a folder");
    let record = |jobs: &str| {
        let file = folder.path().join(jobs);
        // No vCPU: where it is too slow to prove itself, the words for that differ.
        let copy = ["user", "sys", "vm"].map(|who| format!("copy/m*backing=anon,*waiter={who}-*"));
        let mut command = conform();
        command.arg("run").args(copy).args(["wake/*backing=shmem*", "--jobs", jobs]);
        let output = command.arg("--record").arg(&file).output();
        let output = output.expect("it starts");
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        fs::read_to_string(file).expect("a record")
    };
    let first = record("1");
    assert!(Record::parse(&first).expect("a record").cases.len() > 50);
    assert_eq!(first, record("5"));
}

#[rstest]
#[case(&["list"])]
#[case(&["list", "--full"])]
#[case(&["list", "copy/munmap", "claims/"])]
fn list_says_the_same_in_both_formats(#[case] arguments: &[&str]) {
    let human = text(&run(arguments).stdout);
    let jsonl = text(&run(&[arguments, &["--format", "jsonl"]].concat()).stdout);
    let ids = jsonl.lines().map(|line| {
        let case: serde_json::Value = serde_json::from_str(line).expect("JSON");
        case["id"].as_str().expect("an id").to_owned()
    });
    assert_eq!(human.lines().collect::<Vec<_>>(), ids.collect::<Vec<_>>());
}

#[rstest]
#[case(&["--help"], &["0 as expected", "1 a kernel differs", "2 bad input", "3 nothing"])]
#[case(&["sweep", "--help"], &["0 every chosen kernel", "1 recorded, but", "2 a kernel could not"])]
fn exit_codes_are_documented(#[case] arguments: &[&str], #[case] words: &[&str]) {
    let output = run(arguments);
    assert_eq!(output.status.code(), Some(0));
    let help = text(&output.stdout).split_whitespace().collect::<Vec<_>>().join(" ");
    for word in words {
        assert!(help.contains(word), "{word:?} is not in: {help}");
    }
}

/// In a VM, and in the worst places of the list: each costs itself, what follows is answered.
#[test]
#[ignore = "boots the kernel that UFFD_TEST_KERNEL names"]
fn trouble_between_ordinary_cases_costs_only_itself() {
    let kernel = kernel();
    let ordinary = text(&run(&["list", "copy/munmap[backing=anon"]).stdout);
    let mut ordinary = ordinary.lines();
    let mut plan = Vec::new();
    for hidden in [HANGS, DIES, PANICS] {
        plan.push(ordinary.next().expect("a case").to_owned());
        plan.push(hidden.to_owned());
    }
    plan.push(ordinary.next().expect("a case").to_owned());
    let options = Options {
        accelerator: Choice::Tcg,
        program: Some(env!("CARGO_BIN_EXE_uffd-conform").into()),
        settings: [("deadline".to_owned(), "3".to_owned())].into(),
        ..Options::default()
    };
    let report = run_vm(&kernel, &plan, &options, &mut |_| {}).expect("a session");
    let ends: Vec<End> = report.outcomes.iter().map(|outcome| outcome.end).collect();
    let done = End::Done;
    assert_eq!(ends, [done, End::Hang, done, End::Killed, done, End::Panic, done], "{report:#?}");
    let [_, hang, _, killed, _, panic, _] = &report.outcomes[..] else { unreachable!() };
    assert_eq!(hang.facts.get("before"), Some("seen"));
    assert!(hang.detail.contains("wait for ever"), "{hang}");
    assert!(killed.detail.contains("SIGSEGV in step \"die\""), "{killed}");
    assert!(panic.detail.contains("Kernel panic"), "{panic}");
}
