//! A run on this kernel whose processes are killed: what was at fault is asked again, and nothing stays.

use crate::scene::{
    GONE, all_of, children, died_of, end, injected, pid, processes_with, send, times,
    until_it_meets,
};
use crate::shared::{conform, outcomes, text};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::DirEntry;
use std::io::{BufRead, BufReader};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;
use std::process::{Child, ChildStdout, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
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

/// What all cases end with, without a disturbance.
fn undisturbed(folder: &Path) -> BTreeMap<String, Value> {
    answers(&end(start(folder)))
}

/// The answers of a run that came to its end.
fn answers(output: &Output) -> BTreeMap<String, Value> {
    assert!(matches!(output.status.code(), Some(0 | 3)), "{}", text(&output.stderr));
    seen(output)
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

/// A run that `look` sees again and again until its end: its process, and how many lines have come from it. Faults
/// come by these, since what a run takes depends on what else the machine does.
fn watched(folder: &Path, mut look: impl FnMut(Pid, usize)) -> Output {
    let mut child = start(folder);
    let lines = Arc::new(AtomicUsize::new(0));
    let (counter, pipe) = (lines.clone(), child.stdout.take().expect("a pipe"));
    let stdout = std::thread::spawn(move || {
        let (mut pipe, mut all) = (BufReader::new(pipe), Vec::new());
        while pipe.read_until(b'\n', &mut all).expect("read") > 0 {
            counter.fetch_add(1, Ordering::Relaxed);
        }
        all
    });
    while child.try_wait().expect("it can be waited for").is_none() {
        look(pid(&child), lines.load(Ordering::Relaxed));
        std::thread::sleep(Duration::from_millis(1));
    }
    let mut output = end(child);
    output.stdout = stdout.join().expect("it reads");
    output
}

/// The line after which the `n`th of so many faults comes, of a run of so many cases: the first line is a head.
fn line(n: u32, times: u32, cases: usize) -> usize {
    1 + cases * (2 * n as usize + 1) / (2 * times as usize)
}

/// One is killed a run: a case that was in both of two killed workers is accused, and which one a worker has is not
/// to be seen from outside. The first line says that there are workers, and no other processes.
fn a_worker_that_is_killed_costs_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let expected = undisturbed(folder.path());
    let times = times(4);
    for n in 0..times {
        until_it_meets(|| {
            let (mut is_open, mut killed) = (true, false);
            let output = watched(folder.path(), |harness, lines| {
                if is_open && lines >= line(n, times, expected.len()) {
                    is_open = false;
                    let worker = children(harness).get(n as usize % 2).copied();
                    killed = worker.is_some_and(|worker| send(worker, Signal::SIGKILL));
                }
            });
            assert_eq!(answers(&output), expected);
            killed
        });
    }
    injected("worker process killed during a run on this kernel", times);
}

/// A copy of each socket of a process, if it is still there.
fn sockets(of: Pid) -> Vec<OwnedFd> {
    // The calls take plain numbers and return new descriptors, which nobody else owns.
    let owned = |fd: libc::c_long| {
        let fd = i32::try_from(fd).ok().filter(|fd| *fd >= 0)?;
        // SAFETY: a new descriptor.
        Some(unsafe { OwnedFd::from_raw_fd(fd) })
    };
    // SAFETY: takes plain numbers.
    let process = owned(unsafe { libc::syscall(libc::SYS_pidfd_open, of.as_raw(), 0) });
    let Some(process) = process else { return Vec::new() };
    let entries = std::fs::read_dir(format!("/proc/{of}/fd")).into_iter().flatten().flatten();
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
    let expected = undisturbed(folder.path());
    until_it_meets(|| {
        let (mut held, mut killed) = (Vec::new(), false);
        let output = watched(folder.path(), |harness, _| {
            // Processes before the workers come one by one.
            if let [_, worker] = children(harness)[..]
                && held.is_empty()
            {
                held = sockets(worker);
                killed = !held.is_empty() && send(worker, Signal::SIGKILL);
            }
        });
        assert_eq!(answers(&output), expected);
        killed
    });
    injected("worker process killed whose socket lives on", 1);
}

/// Kills the children of a run that come before its first line, which are no workers; how many, at most so many.
fn kill_first(run: &Child, pipe: &ChildStdout, most: usize) -> u32 {
    let (mut seen, mut killed) = (Vec::new(), 0);
    while seen.len() < most {
        let first = children(pid(run)).first().copied();
        // Behind the look: who was a child before the line was there has come before it.
        let mut line = [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)];
        if poll(&mut line, PollTimeout::ZERO).expect("polled") > 0 {
            break;
        }
        if let Some(first) = first.filter(|child| !seen.contains(child)) {
            killed += u32::from(send(first, Signal::SIGKILL));
            seen.push(first);
        }
    }
    killed
}

/// Before there are workers, a process reads what the cases will meet here.
fn a_run_whose_first_processes_are_killed_goes_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let expected = undisturbed(folder.path());
    let mut all = 0;
    for n in 1..=times(3) {
        until_it_meets(|| {
            let mut run = start(folder.path());
            let pipe = run.stdout.take().expect("a pipe");
            let killed = kill_first(&run, &pipe, 1 + n as usize % 3);
            run.stdout = Some(pipe);
            assert_eq!(answers(&end(run)), expected);
            all += killed;
            killed > 0
        });
    }
    injected("process that reads the environment of a run killed", all);
}

fn a_case_that_is_killed_is_asked_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let expected = undisturbed(folder.path());
    let mut all = 0;
    for n in 0..times(2) {
        let apart = expected.len() / 30 + n as usize;
        until_it_meets(|| {
            let (mut gone, mut again) = (None, None);
            let (mut next, mut killed) = (1, 0);
            let output = watched(folder.path(), |harness, lines| {
                // Before the first line there is another process, with others below it.
                let worker = children(harness).first().copied().filter(|_| lines > 0);
                let case = worker.and_then(|worker| children(worker).first().copied());
                let Some(case) = case.filter(|_| case != gone && case != again) else { return };
                // The process after it asks the case again, and is left alone: of two the case is accused.
                if gone.is_some() && again.is_none() {
                    again = Some(case);
                } else if lines >= next && send(case, Signal::SIGKILL) {
                    (gone, again) = (Some(case), None);
                    (next, killed) = (lines + apart, killed + 1);
                }
            });
            assert_eq!(answers(&output), expected);
            all += killed;
            killed > 0
        });
    }
    injected("process of a case killed during a run on this kernel", all);
}

/// As of a worker whose group has used up its CPU time: it is stopped while its case hangs.
fn a_case_whose_runner_does_not_get_to_run_ends() {
    until_it_meets(is_stopped_while_its_case_hangs);
    injected("worker process stopped while a case hangs", 1);
}

/// Stops a process until its child has ended; whether an alarm has ended that.
fn stops(parent: Pid, child: Pid) -> bool {
    send(parent, Signal::SIGSTOP);
    let started = Instant::now();
    let by_alarm = loop {
        let stat = std::fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
        match fields.first() {
            None => break false,
            // The last field is what wait(2) will say.
            Some(&"Z") => {
                break fields.last() == Some(&(Signal::SIGALRM as i32).to_string().as_str());
            }
            _ => {}
        }
        assert!(started.elapsed() < Duration::from_secs(120), "it still runs: {stat}");
        std::thread::sleep(Duration::from_millis(20));
    };
    send(parent, Signal::SIGCONT);
    by_alarm
}

/// Whether it was, by the alarm that ends the case then: a runner that gets to run ends it after a second.
fn is_stopped_while_its_case_hangs() -> bool {
    let case = "hidden/hangs[backing=anon]";
    let mut command = conform();
    command.args(["run", case, "--deadline", "1", "--jobs", "1", "--format", "jsonl"]);
    let mut child =
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    let (stdout, harness) = (all_of(child.stdout.take()), pid(&child));
    let mut is_met = false;
    while !is_met && child.try_wait().expect("it can be waited for").is_none() {
        if let [worker] = children(harness)[..]
            && let [hangs] = children(worker)[..]
        {
            is_met = stops(worker, hangs);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    let mut output = end(child);
    output.stdout = stdout.join().expect("it reads");
    let outcome = &seen(&output)[case];
    assert_eq!(outcome["end"], "hang", "{outcome}");
    is_met
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
    let cases = undisturbed(folder.path()).len();
    let record = std::fs::read(folder.path().join("record.json")).expect("a record");
    for signal in [Signal::SIGKILL, Signal::SIGINT, Signal::SIGTERM] {
        let times = times(4);
        for n in 0..times {
            // The first one before there are workers.
            let line = cases * n as usize / times as usize;
            until_it_meets(|| is_ended(folder.path(), &record, signal, line));
        }
        injected(&format!("run on this kernel ended by {signal}"), times);
    }
}

/// Whether the signal has ended the run, which gets it with its first process or as many lines.
fn is_ended(folder: &Path, record: &[u8], signal: Signal, line: usize) -> bool {
    let mut is_sent = false;
    let output = watched(folder, |harness, lines| {
        if !is_sent && lines >= line && !children(harness).is_empty() {
            is_sent = send(harness, signal);
        }
    });
    assert!(died_of(output.status).is_none_or(|of| of == signal));
    let (place, ended) = (folder.display().to_string(), Instant::now());
    while !processes_with(&place).is_empty() {
        let left = processes_with(&place);
        assert!(ended.elapsed() < GONE, "after {signal}: {left:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
    // The old record, or the same one anew; read as one, it is whole.
    let now = std::fs::read(folder.join("record.json")).expect("a record");
    let changed = changed(record, &now);
    assert!(changed.is_empty(), "the record has changed: {changed:#?}");
    died_of(output.status).is_some()
}
