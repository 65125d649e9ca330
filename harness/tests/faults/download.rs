//! A mirror that is not as it should be: packages that are gone, cut short, of other content, or never come.
//! apt fetches them as it does anything else.

use crate::scene::{Scene, died_of, end, injected, pid, send};
use crate::shared::{refused, text};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub(crate) const TESTS: &[(&str, fn())] = &[
    ("a_package_that_does_not_come_is_no_kernel", a_package_that_does_not_come_is_no_kernel),
    ("a_kernel_that_does_not_come_costs_no_other", a_kernel_that_does_not_come_costs_no_other),
    ("a_download_that_is_ended_leaves_nothing", a_download_that_is_ended_leaves_nothing),
];

/// How large the package is said to be.
const SIZE: usize = 200_000;

/// What the mirror does.
#[derive(Clone, Copy, Debug)]
enum Mirror {
    Gone,
    CutShort,
    OtherContent,
    Refuses,
    Stalls,
}

impl Mirror {
    /// Serves whoever comes, for as long as the tests run; the root of the archive.
    fn serve(self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        if !matches!(self, Self::Refuses) {
            std::thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    std::thread::spawn(move || self.answer(stream));
                }
            });
        }
        format!("http://127.0.0.1:{port}/debian")
    }

    fn answer(self, mut stream: TcpStream) -> std::io::Result<()> {
        let mut reader = BufReader::new(stream.try_clone()?);
        loop {
            let mut line = String::new();
            // Until the empty line behind the request's head.
            while line != "\r\n" {
                line.clear();
                if reader.read_line(&mut line)? == 0 {
                    return Ok(());
                }
            }
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n");
            match self {
                Self::Gone | Self::Refuses => {
                    stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")?;
                }
                Self::CutShort => {
                    stream.write_all(head.as_bytes())?;
                    stream.write_all(&vec![7; SIZE / 3])?;
                    return stream.shutdown(std::net::Shutdown::Both);
                }
                Self::OtherContent => {
                    stream.write_all(head.as_bytes())?;
                    stream.write_all(&vec![7; SIZE])?;
                }
                Self::Stalls => {
                    stream.write_all(head.as_bytes())?;
                    stream.write_all(&vec![7; SIZE / 3])?;
                    std::thread::sleep(Duration::from_secs(600));
                }
            }
        }
    }
}

/// A sweep with an empty cache, of one kernel that the mirror is said to have.
fn sweep(scene: &Scene, mirror: Mirror) -> Command {
    let _ = fs::remove_dir_all(scene.path("cache"));
    let lock = concat!(env!("CARGO_MANIFEST_DIR"), "/../kernels.lock");
    let mut lock: Value = serde_json::from_slice(&fs::read(lock).expect("read")).expect("JSON");
    let kernels = lock["kernels"].as_array_mut().expect("kernels");
    kernels.retain(|kernel| kernel["upstream"] == "6.12.118");
    kernels[0]["image"]["size"] = json!(SIZE);
    kernels[0]["image"]["archive"] = json!("main");
    fs::write(scene.path("lock"), lock.to_string()).expect("written");
    // Whatever proxy this machine uses knows no mirror of ours.
    // Nor may apt give up by itself, however long this machine stands still meanwhile.
    let direct = "Acquire::http::Proxy::127.0.0.1 \"DIRECT\";\nAcquire::Retries \"0\";\n\
                  Acquire::http::Timeout \"600\";\n";
    fs::write(scene.path("apt.conf"), direct).expect("written");
    let mut command = scene.command();
    command.args(["sweep", "-k", "6.12.118", "--lock"]).arg(scene.path("lock"));
    command.env("UFFD_CONFORM_MIRROR", mirror.serve()).env("APT_CONFIG", scene.path("apt.conf"));
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn has_apt() -> bool {
    let has = std::path::Path::new("/usr/lib/apt/apt-helper").exists();
    if !has {
        eprintln!("apt is not here: not asked");
    }
    has
}

fn a_package_that_does_not_come_is_no_kernel() {
    if !has_apt() {
        return;
    }
    let faults: [(Mirror, &[&str]); 4] = [
        (Mirror::Gone, &["gone from Debian's archive", "skipped"]),
        (Mirror::CutShort, &["downloading linux-image-6.12.118", "failed", "try again"]),
        (Mirror::OtherContent, &["downloading linux-image-6.12.118", "failed", "try again"]),
        (Mirror::Refuses, &["downloading linux-image-6.12.118", "failed", "try again"]),
    ];
    for (mirror, words) in faults {
        let scene = Scene::new();
        let output = end(sweep(&scene, mirror).spawn().expect("it starts"));
        refused(&output, words);
        let left: Vec<_> = fs::read_dir(scene.path("cache/kernels")).expect("listed").collect();
        assert!(left.is_empty(), "{mirror:?}: {left:?}");
        assert!(scene.records().is_empty());
        scene.check_no_process();
        scene.check_no_file();
    }
    injected("package gone, cut short, of other content, refused", faults.len());
}

fn a_kernel_that_does_not_come_costs_no_other() {
    if !has_apt() {
        return;
    }
    let scene = Scene::new();
    for entry in fs::read_dir(scene.path("cache/kernels")).expect("listed").flatten() {
        if entry.file_name().to_string_lossy().contains("_6.1.170") {
            fs::remove_file(entry.path()).expect("removed");
        }
    }
    let root = Mirror::Gone.serve();
    let mut command = scene.sweep(&[]);
    fs::write(scene.path("apt.conf"), "Acquire::http::Proxy::127.0.0.1 \"DIRECT\";\n")
        .expect("written");
    command.env("UFFD_CONFORM_MIRROR", &root).env("UFFD_CONFORM_MIRROR_SECURITY", &root);
    command.env("APT_CONFIG", scene.path("apt.conf"));
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let output = end(command.spawn().expect("it starts"));
    refused(&output, &["6.1.170", "is gone from Debian's archive"]);
    let recorded: Vec<_> = scene.records().into_keys().collect();
    assert!(matches!(&recorded[..], [one] if one.starts_with("6.12.118")), "{recorded:?}");
    assert!(scene.path("results/MATRIX.md").exists());
}

/// Waits until half of the package has come.
fn half_done(scene: &Scene, child: &mut Child) {
    let started = Instant::now();
    loop {
        let entries = fs::read_dir(scene.path("cache/kernels")).into_iter().flatten().flatten();
        let mut files =
            entries.flat_map(|e| fs::read_dir(e.path()).into_iter().flatten().flatten());
        if files.any(|file| file.metadata().is_ok_and(|m| m.len() > 0)) {
            return;
        }
        let ended = child.try_wait().expect("it can be waited for");
        assert!(ended.is_none() && started.elapsed() < Duration::from_secs(120), "{ended:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn a_download_that_is_ended_leaves_nothing() {
    if !has_apt() {
        return;
    }
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGKILL] {
        let scene = Scene::new();
        let mut child = sweep(&scene, Mirror::Stalls).spawn().expect("it starts");
        half_done(&scene, &mut child);
        send(pid(&child), signal);
        let output = end(child);
        assert_eq!(died_of(output.status), Some(signal), "{}", text(&output.stderr));
        scene.check_no_process();
        if signal == Signal::SIGKILL {
            // Nobody was left to remove it; the next one does.
            let next = end(sweep_again(&scene));
            refused(&next, &["gone from Debian's archive"]);
        }
        scene.check_no_file();
    }
    injected("download ended by SIGTERM, SIGINT, SIGKILL", 3);
}

/// Another sweep with the same cache.
fn sweep_again(scene: &Scene) -> Child {
    let aside = scene.path("aside");
    fs::rename(scene.path("cache"), &aside).expect("moved");
    let mut command = sweep(scene, Mirror::Gone);
    fs::rename(aside, scene.path("cache")).expect("moved back");
    command.spawn().expect("it starts")
}
