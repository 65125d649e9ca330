//! A native run leaves the machine as it was: settings, huge pages, mounts, swap, modules, processes, files.
//!
//! Processes and files are a run's own, and not one may be left. The rest belongs to the whole machine, so somebody
//! else can change it meanwhile. A run that changes something does so each time: three runs in a row must differ from
//! what was before for a failure.

mod shared;

use shared::{nobody, program_for_everybody, set_mode};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The variable by which processes of a run are known.
const MARK: &str = "UFFD_CONFORM_TEST_RUN";

/// What is a number of the moment, or belongs to the reader.
const VOLATILE: [&str; 15] = [
    "/proc/sys/fs/aio-nr",
    "/proc/sys/fs/binfmt_misc",
    "/proc/sys/fs/dentry-state",
    "/proc/sys/fs/file-nr",
    "/proc/sys/fs/inode-nr",
    "/proc/sys/fs/inode-state",
    "/proc/sys/fs/quota",
    "/proc/sys/kernel/ns_last_pid",
    "/proc/sys/kernel/pty/nr",
    "/proc/sys/kernel/random",
    "/proc/sys/kernel/perf_event_max_sample_rate",
    "/sys/kernel/mm/ksm/full_scans",
    "/sys/kernel/mm/ksm/general_profit",
    "/sys/kernel/mm/ksm/pages_",
    "/sys/kernel/mm/transparent_hugepage/khugepaged",
];

/// Everything by its path.
type Snapshot = BTreeMap<String, String>;

/// The files below a folder that can be read, with what they hold.
fn settings(folder: &Path, into: &mut Snapshot) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        let name = path.to_string_lossy().into_owned();
        // Counters of huge pages that were made and split.
        let counts = name.ends_with("/stats");
        if counts || VOLATILE.iter().any(|volatile| name.starts_with(volatile)) {
            continue;
        }
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => settings(&path, into),
            Ok(kind) if kind.is_file() => {
                if let Ok(text) = fs::read_to_string(&path) {
                    into.insert(name, text);
                }
            }
            _ => {}
        }
    }
}

/// The names below a folder, `depth` folders deep.
fn names(folder: &Path, depth: u32, into: &mut Snapshot) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        into.insert(path.to_string_lossy().into_owned(), "is there".to_owned());
        if depth > 0 && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            names(&path, depth - 1, into);
        }
    }
}

fn snapshot() -> Snapshot {
    let mut all = Snapshot::new();
    for folder in ["/proc/sys/vm", "/proc/sys/fs", "/proc/sys/user", "/proc/sys/kernel"] {
        settings(Path::new(folder), &mut all);
    }
    for folder in ["hugepages", "ksm", "transparent_hugepage", "lru_gen", "swap", "numa"] {
        settings(&Path::new("/sys/kernel/mm").join(folder), &mut all);
    }
    for file in ["/proc/self/mounts", "/proc/swaps", "/proc/sysvipc/shm", "/proc/sysvipc/sem"] {
        all.insert(file.to_owned(), fs::read_to_string(file).unwrap_or_default());
    }
    // Their users change; which there are does not.
    let modules = fs::read_to_string("/proc/modules").unwrap_or_default();
    let modules: Vec<&str> = modules.lines().filter_map(|line| line.split(' ').next()).collect();
    all.insert("/proc/modules".to_owned(), modules.join(" "));
    for disk in ["disksize", "initstate", "comp_algorithm"] {
        let file = format!("/sys/block/zram0/{disk}");
        all.insert(file.clone(), fs::read_to_string(file).unwrap_or_default());
    }
    names(Path::new("/dev"), 1, &mut all);
    names(Path::new("/sys/fs/cgroup"), 6, &mut all);
    all.retain(|name, _| !name.starts_with("/dev/pts") && !name.starts_with("/dev/fd"));
    all
}

/// What is in one of them only, or differs.
fn changes(before: &Snapshot, after: &Snapshot) -> Vec<String> {
    let keys = before.keys().chain(after.keys()).collect::<std::collections::BTreeSet<_>>();
    let differ = keys.into_iter().filter(|key| before.get(*key) != after.get(*key));
    differ.map(|key| format!("{key}: {:?}, then {:?}", before.get(key), after.get(key))).collect()
}

/// Processes of a run, by its mark.
fn processes(mark: &str) -> Vec<String> {
    let entry = format!("{MARK}={mark}");
    let mut found = Vec::new();
    for process in fs::read_dir("/proc").expect("/proc").flatten() {
        let Ok(environment) = fs::read(process.path().join("environ")) else { continue };
        if environment.split(|b| *b == 0).any(|variable| variable == entry.as_bytes()) {
            let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            let state = fs::read_to_string(process.path().join("stat")).unwrap_or_default();
            found.push(format!("{} {} {state}", process.path().display(), name.trim()));
        }
    }
    found
}

/// Which cases are run, by whom, and after what time the run is killed, if it is.
#[derive(Clone, Copy, Debug, Default)]
struct Run<'a> {
    arguments: &'a [&'a str],
    as_nobody: bool,
    killed_after: Option<Duration>,
}

/// Makes a run in folders of its own, of which nothing may be left; what it has changed of the machine.
fn changed_by(run: Run<'_>, n: u32) -> Vec<String> {
    let Run { arguments, as_nobody, killed_after } = run;
    let folder = tempfile::tempdir().expect("a folder");
    let program = program_for_everybody(folder.path());
    let (home, temporary) = (folder.path().join("home"), folder.path().join("tmp"));
    for place in [&home, &temporary] {
        fs::create_dir(place).expect("a folder");
        set_mode(place, 0o777);
    }
    let mark = format!("{}-{n}-{killed_after:?}-{as_nobody}", std::process::id());
    let before = snapshot();
    let mut command = Command::new(program);
    if as_nobody {
        nobody(&mut command);
    }
    command.args(["run", "--format", "jsonl"]).args(arguments);
    command.env(MARK, &mark).env("TMPDIR", &temporary).env("HOME", &home).env("NO_COLOR", "1");
    let mut run = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("it starts");
    if let Some(time) = killed_after {
        std::thread::sleep(time);
        run.kill().expect("killed");
    }
    run.wait().expect("its end");
    // What a run has forked dies with it, which takes a moment on a busy machine.
    let patience = Instant::now() + Duration::from_secs(30);
    let mut left = processes(&mark);
    while !left.is_empty() && Instant::now() < patience {
        std::thread::sleep(Duration::from_millis(20));
        left = processes(&mark);
    }
    let mut files = Snapshot::new();
    names(&home, 3, &mut files);
    names(&temporary, 3, &mut files);
    left.extend(files.into_keys());
    assert!(left.is_empty(), "left: {left:#?}");
    changes(&before, &snapshot())
}

/// One at a time: the machine is one.
fn leaves_nothing(run: Run<'_>) {
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let mut each = Vec::new();
    for n in 0..3 {
        let changed = changed_by(run, n);
        if changed.is_empty() {
            return;
        }
        each.push(changed);
    }
    panic!("three times in a row something was changed: {each:#?}");
}

#[test]
fn a_run_of_all_cases_leaves_nothing() {
    leaves_nothing(Run::default());
}

#[test]
fn a_run_of_an_ordinary_user_leaves_nothing() {
    leaves_nothing(Run { as_nobody: true, ..Run::default() });
}

#[test]
fn a_run_that_is_killed_leaves_nothing() {
    for milliseconds in [150, 700, 1500, 2600] {
        let killed_after = Some(Duration::from_millis(milliseconds));
        leaves_nothing(Run { killed_after, ..Run::default() });
    }
}

/// Of cases that do little else than start processes that wait: the run dies at any moment of such a start.
#[test]
fn processes_that_have_just_begun_die_with_a_run() {
    for n in 0..25 {
        let killed_after = Some(Duration::from_millis(250 + 4 * n));
        let arguments = &["waiters/process", "--repeat", "2000", "--jobs", "3"];
        leaves_nothing(Run { arguments, killed_after, ..Run::default() });
    }
}
