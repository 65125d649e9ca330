//! Real VMs: their QEMU is killed, told to stop with its harness, or starved of memory, and every other case
//! answers as it does undisturbed.

use crate::scene::{GONE, Scene, at_moments, died_of, end, injected, pid, send, times};
use crate::shared::{outcomes, text};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub(crate) const TESTS: &[(&str, fn())] = &[
    ("a_real_machine_that_is_killed_costs_nothing", a_real_machine_that_is_killed_costs_nothing),
    ("a_real_run_that_is_ended_leaves_nothing", a_real_run_that_is_ended_leaves_nothing),
    ("a_real_machine_without_memory_says_nothing_false", without_memory),
];

const CASES: &str = "copy/m*backing=anon*";

/// The scene has a QEMU that is none: here it is the real one.
fn command(scene: &Scene) -> Command {
    let _ = fs::remove_file(scene.path("bin/qemu-system-x86_64"));
    let kernel = std::env::var_os("UFFD_TEST_KERNEL").expect("a kernel is named");
    let mut command = scene.command();
    command.args(["run", CASES, "--format", "jsonl", "--kernel-image"]).arg(kernel);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn start(scene: &Scene) -> Child {
    command(scene).spawn().expect("it starts")
}

/// A run with a machine, unless it has ended before that was seen.
fn start_machine(scene: &Scene) -> Child {
    let mut child = start(scene);
    while child.try_wait().expect("it can be waited for").is_none() && scene.machine().is_none() {
        std::thread::sleep(Duration::from_millis(1));
    }
    child
}

/// What the cases show, and how long a run takes from its first machine on.
fn undisturbed(scene: &Scene) -> (BTreeMap<String, Value>, Duration) {
    let child = start_machine(scene);
    let started = Instant::now();
    let output = end(child);
    assert!(matches!(output.status.code(), Some(0 | 3)), "{}", text(&output.stderr));
    (outcomes(&output), started.elapsed())
}

fn a_real_machine_that_is_killed_costs_nothing() {
    let scene = Scene::new();
    let (expected, took) = undisturbed(&scene);
    for signal in [Signal::SIGKILL, Signal::SIGTERM] {
        let ended = at_moments(took, times(3), |_, after| {
            let child = start_machine(&scene);
            std::thread::sleep(after);
            let is_sent = scene.machine().is_some_and(|machine| send(machine, signal));
            let output = end(child);
            assert_eq!(outcomes(&output), expected, "{}", text(&output.stderr));
            scene.check_no_process();
            scene.check_no_file();
            is_sent
        });
        injected(&format!("QEMU of a real VM ended by {signal}"), ended);
    }
}

fn a_real_run_that_is_ended_leaves_nothing() {
    let scene = Scene::new();
    let (_, took) = undisturbed(&scene);
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        let ended_by_it = at_moments(took, times(2), |_, after| {
            let child = start_machine(&scene);
            std::thread::sleep(after);
            send(pid(&child), signal);
            let output = end(child);
            // It may have ended just before.
            let is_its_end = died_of(output.status).is_none_or(|of| of == signal);
            assert!(is_its_end, "{}: {}", output.status, text(&output.stderr));
            scene.check_no_process();
            if signal == Signal::SIGKILL {
                end(start_and_forget(&scene));
            }
            scene.check_no_file();
            died_of(output.status).is_some()
        });
        injected(&format!("harness of a real VM ended by {signal}"), ended_by_it);
    }
}

/// The next run of any VM, as short as can be.
fn start_and_forget(scene: &Scene) -> Child {
    let mut command = command(scene);
    command.stdout(Stdio::null()).spawn().expect("it starts")
}

/// A memory group of this process's own, of either version; `None` where none can be made.
struct Group(PathBuf);

impl Group {
    fn new(mib: u64) -> Option<Self> {
        let own = fs::read_to_string("/proc/self/cgroup").ok()?;
        let below = |controller: &str| {
            let line = own.lines().find(|line| line.split(':').nth(1) == Some(controller))?;
            line.split(':').nth(2).map(|path| path.trim_start_matches('/').to_owned())
        };
        let first = below("memory").map(|path| Path::new("/sys/fs/cgroup/memory").join(path));
        let second = below("").map(|path| Path::new("/sys/fs/cgroup").join(path));
        let name = format!("uffd-conform-test-{}-{mib}", std::process::id());
        for (parent, limit) in [(first, "memory.limit_in_bytes"), (second, "memory.max")] {
            let Some(folder) = parent.map(|parent| parent.join(&name)) else { continue };
            if fs::create_dir(&folder).is_err() {
                continue;
            }
            let group = Self(folder);
            if fs::write(group.0.join(limit), (mib << 20).to_string()).is_ok() {
                return Some(group);
            }
        }
        eprintln!("no memory group can be made here: not asked");
        None
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // What was killed in it takes a moment to be gone.
        let started = Instant::now();
        while fs::remove_dir(&self.0).is_err() && started.elapsed() < GONE {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// QEMU is killed at once, or when the guest has used some of its memory.
fn without_memory() {
    let scene = Scene::new();
    let (expected, _) = undisturbed(&scene);
    let sizes = [150, 240, 270, 285, 400];
    let mut injections = 0;
    for mib in sizes {
        let Some(group) = Group::new(mib) else { return };
        let mut shell = Command::new("sh");
        shell.args(["-c", r#"echo $$ >"$0/cgroup.procs" && exec "$@""#]).arg(&group.0);
        let inner = command(&scene);
        shell.arg(inner.get_program()).args(inner.get_args());
        for (name, value) in inner.get_envs() {
            match value {
                Some(value) => shell.env(name, value),
                None => shell.env_remove(name),
            };
        }
        let child = shell.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
        let output = end(child);
        let (error, seen) = (text(&output.stderr), outcomes(&output));
        println!("{mib} MiB: {:?}, {} cases answered", output.status.code(), seen.len());
        injections += u32::from(error.contains("signal 9") || seen.is_empty());
        for (id, case) in &seen {
            let lost = matches!(case["end"].as_str(), Some("broken" | "not-run"));
            assert!(lost || expected[id] == *case, "{mib} MiB: {case}");
        }
        if seen.is_empty() {
            let says = error.contains("signal 9") || output.status.code().is_none();
            assert!(says, "{mib} MiB: {error}");
        }
        scene.check_no_process();
        drop(group);
    }
    assert_eq!(undisturbed(&scene).0, expected);
    scene.check_no_file();
    injected("memory group too small for a VM", injections);
}
