//! A run on this kernel whose processes are killed: what was at fault is asked again, and nothing stays.

use crate::scene::{
    GONE, all_of, children, died_of, end, injected, pid, processes_with, send, times,
};
use crate::shared::{conform, outcomes, text};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::DirEntry;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;
use std::process::{Child, Output, Stdio};
use std::time::{Duration, Instant};
use uffd_results::{End, Record};

pub(crate) const TESTS: &[(&str, fn())] = &[
    ("a_worker_that_is_killed_costs_nothing", a_worker_that_is_killed_costs_nothing),
    ("a_worker_whose_socket_lives_on_is_missed", a_worker_whose_socket_lives_on_is_missed),
    (
        "a_run_whose_first_processes_are_killed_goes_on",
        a_run_whose_first_processes_are_killed_goes_on,
    ),
    ("a_case_that_is_killed_is_asked_again", a_case_that_is_killed_is_asked_again),
    ("a_case_whose_runner_does_not_get_to_run_ends", a_case_whose_runner_does_not_get_to_run_ends),
    ("a_run_that_is_ended_leaves_no_process", a_run_that_is_ended_leaves_no_process),
];

/// Cases with threads, children and programs of their own, some hundreds. None is of KVM, whose proof takes
/// seconds: it would be killed twice.
const CASES: [&str; 3] = ["copy/m*backing=anon,*waiter=user-*", "events/", "lifetime/"];

/// A run whose processes can be told by the record's path.
fn start(folder: &Path) -> Child {
    let mut command = conform();
    command.arg("run").args(CASES).args(["--format", "jsonl", "--jobs", "2", "--record"]);
    command.arg(folder.join("record.json")).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().expect("it starts")
}

/// What all cases end with, without a disturbance, and how long that takes.
fn undisturbed(folder: &Path) -> (BTreeMap<String, Value>, Duration) {
    let started = Instant::now();
    let output = end(start(folder));
    assert!(matches!(output.status.code(), Some(0 | 3)), "{}", text(&output.stderr));
    (seen(&output), started.elapsed())
}

/// What each case has shown. Of what this machine lacks the words may differ: whether its KVM is of use is
/// tried by every worker.
fn seen(output: &Output) -> BTreeMap<String, Value> {
    let mut cases = outcomes(output);
    for case in cases.values_mut().filter(|case| case["end"] == "precondition") {
        case["detail"].take();
    }
    cases
}

/// Kills what `whom` finds, again and again, until the run ends.
fn disturb(
    folder: &Path,
    every: Duration,
    mut whom: impl FnMut(Pid) -> Vec<Pid>,
) -> (BTreeMap<String, Value>, u32) {
    let mut child = start(folder);
    let harness = pid(&child);
    let stdout = all_of(child.stdout.take());
    let mut killed = 0;
    while child.try_wait().expect("it can be waited for").is_none() {
        std::thread::sleep(every);
        for pid in whom(harness) {
            killed += u32::from(send(pid, Signal::SIGKILL));
        }
    }
    let mut output = end(child);
    output.stdout = stdout.join().expect("it reads");
    assert!(matches!(output.status.code(), Some(0 | 3)), "{}", text(&output.stderr));
    (seen(&output), killed)
}

fn a_worker_that_is_killed_costs_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let (expected, took) = undisturbed(folder.path());
    let mut all = 0;
    for n in 0..times(2) {
        // Seldom enough that hardly any case is met twice, which would be its end.
        let every = took / 4 + Duration::from_millis(u64::from(7 * n));
        let (seen, killed) = disturb(folder.path(), every, |harness| {
            children(harness).into_iter().take(1).collect()
        });
        assert_eq!(seen, expected);
        all += killed;
    }
    injected("worker process killed during a run on this kernel", all);
}

/// A copy of each socket of a process.
fn sockets(of: Pid) -> Vec<OwnedFd> {
    // The calls take plain numbers and return new descriptors, which nobody else owns.
    let owned = |fd: libc::c_long| {
        let fd = i32::try_from(fd).ok().filter(|fd| *fd >= 0)?;
        // SAFETY: a new descriptor.
        Some(unsafe { OwnedFd::from_raw_fd(fd) })
    };
    // SAFETY: takes plain numbers.
    let process = owned(unsafe { libc::syscall(libc::SYS_pidfd_open, of.as_raw(), 0) });
    let process = process.expect("a process");
    let entries = std::fs::read_dir(format!("/proc/{of}/fd")).expect("its descriptors").flatten();
    let is_socket = |entry: &DirEntry| {
        std::fs::read_link(entry.path()).is_ok_and(|to| to.to_string_lossy().starts_with("socket:"))
    };
    let numbers = entries
        .filter(is_socket)
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let copy = |fd: i32| {
        // SAFETY: takes plain numbers.
        owned(unsafe { libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), fd, 0) })
    };
    numbers.filter_map(copy).collect()
}

/// A killed worker's processes may outlive it with its end of the socket, by which its harness would wait for ever.
fn a_worker_whose_socket_lives_on_is_missed() {
    let folder = tempfile::tempdir().expect("a folder");
    let (expected, _) = undisturbed(folder.path());
    let mut child = start(folder.path());
    let stdout = all_of(child.stdout.take());
    let started = Instant::now();
    // Processes before the workers come one by one.
    let worker = loop {
        if let [_, worker] = children(pid(&child))[..] {
            break worker;
        }
        assert!(started.elapsed() < Duration::from_secs(120), "there are no workers");
        std::thread::sleep(Duration::from_millis(1));
    };
    let held = sockets(worker);
    assert!(!held.is_empty() && send(worker, Signal::SIGKILL));
    let mut output = end(child);
    output.stdout = stdout.join().expect("it reads");
    assert!(matches!(output.status.code(), Some(0 | 3)), "{}", text(&output.stderr));
    assert_eq!(seen(&output), expected);
    injected("worker process killed whose socket lives on", held.len().min(1));
}

/// Before there are workers, a process reads what the cases will meet here.
fn a_run_whose_first_processes_are_killed_goes_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let (expected, _) = undisturbed(folder.path());
    let mut all = 0;
    for n in 1..=times(3) {
        let mut gone = Vec::new();
        let (seen, killed) = disturb(folder.path(), Duration::ZERO, |harness| {
            let first = children(harness).first().copied().filter(|child| !gone.contains(child));
            let killed = first.filter(|_| gone.len() < 1 + n as usize % 3);
            gone.extend(killed);
            killed.into_iter().collect()
        });
        assert_eq!(seen, expected);
        assert!(killed > 0, "nothing was killed");
        all += killed;
    }
    injected("process that reads the environment of a run killed", all);
}

fn a_case_that_is_killed_is_asked_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let (expected, took) = undisturbed(folder.path());
    let mut all = 0;
    for n in 0..times(2) {
        let every = took / 40 + Duration::from_millis(u64::from(n));
        let (mut gone, mut again) = (None, None);
        let (seen, killed) = disturb(folder.path(), every, |harness| {
            let case =
                children(harness).first().and_then(|worker| children(*worker).first().copied());
            // The process after it asks the case again, and is left alone: of two the case is accused.
            if case.is_none() || case == gone || case == again {
                return Vec::new();
            }
            if gone.is_some() && again.is_none() {
                again = case;
                return Vec::new();
            }
            (gone, again) = (case, None);
            case.into_iter().collect()
        });
        assert_eq!(seen, expected);
        all += killed;
    }
    injected("process of a case killed during a run on this kernel", all);
}

/// As of a worker whose group has used up its CPU time: it is stopped while its case hangs.
fn a_case_whose_runner_does_not_get_to_run_ends() {
    let case = "hidden/hangs[backing=anon]";
    let mut command = conform();
    command.args(["run", case, "--deadline", "1", "--jobs", "1", "--format", "jsonl"]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    let started = Instant::now();
    let below = |of: Pid| children(of).first().copied();
    let (worker, hangs) = loop {
        if let Some(worker) = below(pid(&child))
            && let Some(case) = below(worker)
        {
            break (worker, case);
        }
        assert!(started.elapsed() < Duration::from_secs(120), "no case has begun");
        std::thread::sleep(Duration::from_millis(1));
    };
    send(worker, Signal::SIGSTOP);
    let state = || std::fs::read_to_string(format!("/proc/{hangs}/stat")).unwrap_or_default();
    while !state().contains(") Z ") {
        assert!(started.elapsed() < Duration::from_secs(120), "it still runs: {}", state());
        std::thread::sleep(Duration::from_millis(50));
    }
    send(worker, Signal::SIGCONT);
    let outcome = &seen(&end(child))[case];
    assert_eq!(outcome["end"], "hang", "{outcome}");
    injected("worker process stopped while a case hangs", 1);
}

/// The cases that one of two records has an answer to, and the other has not or another one.
fn changed(before: &[u8], now: &[u8]) -> Vec<String> {
    let read = |bytes| Record::read(bytes).expect("a record").cases;
    let (before, now) = (read(before), read(now));
    assert_eq!(before.len(), now.len(), "cases");
    let pairs = before.iter().zip(now.iter());
    let differ =
        pairs.filter(|((_, a), (_, b))| a != b && (a.end == End::Done || b.end == End::Done));
    differ.map(|((id, a), (_, b))| format!("{id}: {a}, now {b}")).collect()
}

fn a_run_that_is_ended_leaves_no_process() {
    let folder = tempfile::tempdir().expect("a folder");
    let place = folder.path().display().to_string();
    let (_, took) = undisturbed(folder.path());
    let record = std::fs::read(folder.path().join("record.json")).expect("a record");
    for signal in [Signal::SIGKILL, Signal::SIGINT, Signal::SIGTERM] {
        let (times, mut ended_by_it) = (times(4), 0);
        for n in 0..times {
            let child = start(folder.path());
            std::thread::sleep(took * (2 * n + 1) / (2 * times));
            send(pid(&child), signal);
            let output = end(child);
            assert!(died_of(output.status).is_none_or(|of| of == signal));
            ended_by_it += u32::from(died_of(output.status).is_some());
            let ended = Instant::now();
            while !processes_with(&place).is_empty() {
                let left = processes_with(&place);
                assert!(ended.elapsed() < GONE, "after {signal}: {left:?}");
                std::thread::sleep(Duration::from_millis(5));
            }
            // The old record, or the same one anew; read as one, it is whole.
            let now = std::fs::read(folder.path().join("record.json")).expect("a record");
            let changed = changed(&record, &now);
            assert!(changed.is_empty(), "the record has changed: {changed:#?}");
        }
        injected(&format!("run on this kernel ended by {signal}"), ended_by_it);
    }
}
