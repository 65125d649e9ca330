//! Everything that a sweep needs, in a folder of its own: kernels that stand in the cache and are none, a
//! QEMU that is none, a place for temporary files, a results folder.

use crate::machine::{LOG, PACE};
use crate::shared::{conform, text};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Kernels that are recorded and in the built-in list.
pub(crate) const KERNELS: [&str; 2] = ["6.1.170", "6.12.118"];

/// How long what was ended may take to be gone. None of these limits tests how fast a machine is.
pub(crate) const GONE: Duration = Duration::from_secs(30);

/// A folder with all of it.
pub(crate) struct Scene {
    folder: tempfile::TempDir,
}

impl Scene {
    pub(crate) fn new() -> Self {
        let scene = Self { folder: tempfile::tempdir().expect("a folder") };
        for name in ["bin", "tmp", "cache/kernels"] {
            fs::create_dir_all(scene.path(name)).expect("made");
        }
        let this = std::env::current_exe().expect("this program");
        let qemu = scene.path("bin/qemu-system-x86_64");
        std::os::unix::fs::symlink(this, qemu).expect("linked");
        let lock = concat!(env!("CARGO_MANIFEST_DIR"), "/../kernels.lock");
        let lock: Value = serde_json::from_slice(&fs::read(lock).expect("read")).expect("JSON");
        for kernel in lock["kernels"].as_array().expect("kernels") {
            if KERNELS.iter().any(|version| kernel["upstream"] == *version) {
                scene.cache(kernel);
            }
        }
        scene
    }

    /// An entry of the cache, with an image that only our machine takes.
    fn cache(&self, kernel: &Value) {
        let image = &kernel["image"];
        let text = |field: &str| image[field].as_str().expect("a text").to_owned();
        let (name, version) = (text("name"), text("version"));
        let bytes = format!("the image of {name}");
        let hash = Sha256::digest(bytes.as_bytes()).iter().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        });
        let release = name.strip_prefix("linux-image-").expect("a kernel");
        let entry = json!({
            "format": 1, "upstream": kernel["upstream"], "release": release,
            "package": {"name": name, "version": version, "sha256": text("sha256")},
            "image_sha256": hash, "config_sha256": null, "modules_sha256": null,
        });
        let file = |ending: &str| self.path(&format!("cache/kernels/{name}_{version}.{ending}"));
        fs::write(file("vmlinuz"), bytes).expect("written");
        fs::write(file("json"), entry.to_string()).expect("written");
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A command that meets nothing but the scene.
    pub(crate) fn command(&self) -> Command {
        let mut command = conform();
        let path = std::env::var("PATH").unwrap_or_default();
        command
            .env("PATH", format!("{}:{path}", self.path("bin").display()))
            .env("TMPDIR", self.path("tmp"))
            .env("UFFD_CONFORM_CACHE", self.path("cache"))
            .env(LOG, self.path("log"))
            .arg("--results")
            .arg(self.path("results"))
            .stdin(Stdio::null());
        command
    }

    /// A sweep of all kernels of the scene.
    pub(crate) fn sweep(&self, more: &[&str]) -> Command {
        let mut command = self.command();
        command.arg("sweep").args(KERNELS.iter().flat_map(|kernel| ["-k", kernel])).args(more);
        command
    }

    /// A sweep that takes its time, in the background.
    pub(crate) fn slow_sweep(&self, more: &[&str], pace: u64) -> Child {
        let mut command = self.sweep(more);
        command.env(PACE, pace.to_string()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().expect("it starts")
    }

    /// The records, by name.
    pub(crate) fn records(&self) -> BTreeMap<String, Vec<u8>> {
        self.beside_records("json")
    }

    /// The journals, by name.
    pub(crate) fn journals(&self) -> BTreeMap<String, Vec<u8>> {
        self.beside_records("journal")
    }

    /// Puts something in the place of a record.
    pub(crate) fn put(&self, name: &str, bytes: &[u8]) {
        let all = files(&self.path("results/records"));
        let is_it = |path: &&PathBuf| path.ends_with(format!("{name}.json"));
        fs::write(all.iter().find(is_it).expect("a record"), bytes).expect("written");
    }

    fn beside_records(&self, ending: &str) -> BTreeMap<String, Vec<u8>> {
        files(&self.path("results/records"))
            .into_iter()
            .filter(|path| path.extension().is_some_and(|e| e == ending))
            .filter_map(|path| {
                let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
                match fs::read(&path) {
                    // A sweep that still runs has put another in its place, or removed it.
                    Err(e) if e.kind() == std::io::ErrorKind::NotFound => None,
                    bytes => Some((name, bytes.expect("read"))),
                }
            })
            .collect()
    }

    /// How many cases each boot was asked since the last call.
    pub(crate) fn asked(&self) -> usize {
        let log = fs::read_to_string(self.path("log")).unwrap_or_default();
        let _ = fs::remove_file(self.path("log"));
        let numbers = log.lines().filter_map(|line| line.split_once(' ')?.1.parse::<usize>().ok());
        numbers.sum()
    }

    /// Processes of the scene, with their command lines.
    pub(crate) fn processes(&self) -> Vec<(Pid, String)> {
        processes_with(&self.folder.path().display().to_string())
    }

    /// The process that is QEMU here, and a machine: not one that is only asked for its version.
    pub(crate) fn machine(&self) -> Option<Pid> {
        let is = |line: &str| {
            let mut words = line.split('\0');
            words.next().is_some_and(|program| program.ends_with("qemu-system-x86_64"))
                && !words.any(|word| word == "--version")
        };
        self.processes().into_iter().find(|(_, line)| is(line)).map(|(pid, _)| pid)
    }

    /// Checks that no process of the scene is left.
    pub(crate) fn check_no_process(&self) {
        let started = Instant::now();
        while !self.processes().is_empty() {
            assert!(started.elapsed() < GONE, "left: {:?}", self.processes());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Checks that no temporary file of ours is left.
    pub(crate) fn check_no_file(&self) {
        let mut left = files(&self.path("tmp"));
        for place in ["results", "cache"] {
            let ours = |path: &PathBuf| path.iter().any(|part| part.as_encoded_bytes()[0] == b'.');
            let all = files(&self.path(place)).into_iter();
            left.extend(
                all.filter(|p| ours(&p.strip_prefix(self.folder.path()).expect("in it").into())),
            );
        }
        assert!(left.is_empty(), "left: {left:?}");
        assert_eq!(fs::read_dir(self.path("tmp")).expect("listed").count(), 0, "an empty folder");
    }

    /// Removes all results.
    pub(crate) fn forget(&self) {
        let _ = fs::remove_dir_all(self.path("results"));
        self.asked();
    }
}

/// All files below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}

/// Processes whose command line has a text.
pub(crate) fn processes_with(text: &str) -> Vec<(Pid, String)> {
    let entries = fs::read_dir("/proc").expect("/proc").flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let with_line = pids.filter_map(|pid| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        Some((Pid::from_raw(pid), String::from_utf8_lossy(&line).into_owned()))
    });
    with_line.filter(|(pid, line)| line.contains(text) && *pid != Pid::this()).collect()
}

/// The processes that a process has started and not buried.
pub(crate) fn children(parent: Pid) -> Vec<Pid> {
    let file = format!("/proc/{parent}/task/{parent}/children");
    let text = fs::read_to_string(file).unwrap_or_default();
    text.split_whitespace().filter_map(|pid| pid.parse().ok().map(Pid::from_raw)).collect()
}

pub(crate) fn pid(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).expect("a process"))
}

/// Sends a signal; whether there was a process yet that could take it.
pub(crate) fn send(to: Pid, signal: Signal) -> bool {
    let stat = fs::read_to_string(format!("/proc/{to}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(')').map(|(_, rest)| rest.trim_start());
    state.is_some_and(|state| !state.starts_with(['Z', 'X'])) && kill(to, signal).is_ok()
}

/// The end of a process that must come soon, and all of its output.
pub(crate) fn end(mut child: Child) -> Output {
    let readers = (all_of(child.stdout.take()), all_of(child.stderr.take()));
    let started = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().expect("it can be waited for") {
            break Some(status);
        }
        if started.elapsed() > Duration::from_secs(300) {
            let _ = child.kill();
            break None;
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    let (stdout, stderr) = (readers.0.join(), readers.1.join());
    let (stdout, stderr) = (stdout.expect("it reads"), stderr.expect("it reads"));
    let status = status.unwrap_or_else(|| panic!("it does not end: {}", text(&stderr)));
    Output { status, stdout, stderr }
}

/// Reads a pipe beside what else is done: a full one would hold up who writes.
pub(crate) fn all_of(pipe: Option<impl Read + Send + 'static>) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            pipe.read_to_end(&mut bytes).expect("read");
        }
        bytes
    })
}

/// The signal that ended a process.
pub(crate) fn died_of(status: ExitStatus) -> Option<Signal> {
    status.signal().and_then(|signal| Signal::try_from(signal).ok())
}

/// The number of faults, of those that one run injects: more in `scripts/faults`.
pub(crate) fn times(usual: u32) -> u32 {
    let factor = std::env::var("UFFD_FAULTS").ok().and_then(|n| n.parse().ok()).unwrap_or(1);
    usual * factor
}

/// How often a fault is tried until one has met what it is for.
const TRIES: usize = 100;

/// Injects a fault until it has met what it is for, which it says: who is late by a stall finds the run at its end.
pub(crate) fn until_it_meets(mut fault: impl FnMut() -> bool) {
    assert!((0..TRIES).any(|_| fault()), "it has met nobody, {TRIES} times");
}

/// Injects a fault at moments that are spread over `all`, what something took once; returns how often. One that has
/// met nobody comes again after half the time: what was slow when it was measured ends before many of the moments.
pub(crate) fn at_moments(
    all: Duration,
    times: u32,
    mut fault: impl FnMut(u32, Duration) -> bool,
) -> u32 {
    for n in 0..times {
        let mut after = all * (2 * n + 1) / (2 * times);
        until_it_meets(|| {
            let has_met = fault(n, after);
            after /= 2;
            has_met
        });
    }
    times
}

/// Says what a table is made from: how often a fault was injected. What met nobody was none.
pub(crate) fn injected<N: std::fmt::Display + PartialEq + Default + Copy>(fault: &str, times: N) {
    assert!(times != N::default(), "never injected: {fault}");
    println!("injected {times}: {fault}");
}
