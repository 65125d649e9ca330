//! A machine in place of QEMU: takes its options, reads the plan from the initramfs, and answers each case
//! with what a committed record of its kernel says. It costs no time that is not asked for.

use crate::shared::frame::frame;
use nix::sys::signal::{SigHandler, Signal, signal};
use serde_json::json;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use uffd_results::{Facts, Outcome, Record};

/// Names a file that each boot adds a line to: how many cases it was asked.
pub(crate) const LOG: &str = "UFFD_FAULTS_LOG";

/// How long a case takes, in microseconds.
pub(crate) const PACE: &str = "UFFD_FAULTS_PACE";

/// Whether this process is to be a machine.
pub(crate) fn is_machine() -> bool {
    let name = std::env::args_os().next().map(PathBuf::from);
    name.as_deref().and_then(Path::file_name).is_some_and(|name| name == "qemu-system-x86_64")
}

/// The committed record of a kernel.
pub(crate) fn committed(release: &str) -> PathBuf {
    let records = concat!(env!("CARGO_MANIFEST_DIR"), "/../results/records/x86_64");
    let series = fs::read_dir(records).expect("the records").flatten();
    let mut files = series.map(|folder| folder.path().join(format!("{release}.json")));
    files.find(|file| file.is_file()).unwrap_or_else(|| panic!("{release} is not recorded"))
}

/// The value of the option that begins so.
fn option(begins: &str) -> PathBuf {
    let text = |arg: OsString| arg.into_string().expect("UTF-8");
    let mut arguments = std::env::args_os().map(text);
    let value = arguments.find_map(|arg| Some(arg.strip_prefix(begins)?.to_owned()));
    value.unwrap_or_else(|| panic!("no option {begins}")).into()
}

/// The argument behind another.
fn argument(name: &str) -> PathBuf {
    let mut arguments = std::env::args_os().skip_while(|arg| arg != name);
    arguments.nth(1).unwrap_or_else(|| panic!("no {name}")).into()
}

/// The file `plan` of an initramfs (cpio, "newc").
fn plan(initramfs: &[u8]) -> String {
    let mut at = 0;
    loop {
        let entry = &initramfs[at..];
        let number = |field: usize| {
            let digits =
                std::str::from_utf8(&entry[6 + 8 * field..14 + 8 * field]).expect("digits");
            usize::from_str_radix(digits, 16).expect("hex")
        };
        let (size, name) = (number(6), number(11));
        let data = (110 + name).next_multiple_of(4);
        if &entry[110..110 + name] == b"plan\0" {
            return String::from_utf8(entry[data..data + size].to_vec()).expect("text");
        }
        at += (data + size).next_multiple_of(4);
    }
}

/// The memory that guest and host share.
struct Wire {
    file: File,
    at: u64,
    sequence: u64,
}

impl Wire {
    fn say(&mut self, message: &serde_json::Value) {
        let frame = frame(self.sequence, message);
        self.file.write_all_at(&frame, self.at).expect("the wire takes it");
        self.at += frame.len() as u64;
        self.sequence += 1;
    }
}

/// What QEMU does when it is told to stop: it says so, and ends as well as ever.
extern "C" fn terminate(_: i32) {
    let said = b"qemu-system-x86_64: terminating on signal 15 from pid 1 (test)\n";
    // SAFETY: writes bytes that are there, and ends the process without anything else of it.
    unsafe {
        libc::write(2, said.as_ptr().cast(), said.len());
        libc::_exit(0)
    }
}

/// Is the machine.
pub(crate) fn run() {
    if std::env::args().nth(1).as_deref() == Some("--version") {
        println!("QEMU emulator version 7.2.22 (a test's)");
        return;
    }
    let plan = plan(&fs::read(argument("-initrd")).expect("the initramfs"));
    let cases: Vec<&str> = plan.split_once("\n\n").expect("a plan").1.lines().collect();
    let kernel = fs::read_to_string(argument("-kernel")).expect("an image");
    let release = kernel.strip_prefix("the image of linux-image-").expect("a kernel of the tests");
    // SAFETY: the handler makes two system calls.
    unsafe { signal(Signal::SIGTERM, SigHandler::Handler(terminate)) }.expect("handled");
    if let Some(log) = std::env::var_os(LOG) {
        let mut log = OpenOptions::new().create(true).append(true).open(log).expect("the log");
        // In one piece: two machines write at once.
        let line = format!("{release} {}\n", cases.len());
        log.write_all(line.as_bytes()).expect("logged");
    }
    let record = fs::read(committed(release)).expect("the record");
    let record = Record::read(&record).expect("a record");
    let pace: u64 = std::env::var(PACE).ok().and_then(|pace| pace.parse().ok()).unwrap_or(0);

    let memory = option("memory-backend-file,id=wire,share=on,size=");
    let memory = memory.to_str().and_then(|m| m.split_once("mem-path=")).expect("a path").1;
    let file = OpenOptions::new().write(true).open(memory).expect("the wire");
    let mut wire = Wire { file, at: 0, sequence: 0 };
    let suite = json!({"version": env!("CARGO_PKG_VERSION"), "revision": uffd_suites::REVISION});
    wire.say(&json!({"hello": {
        "release": release, "version": record.kernel.version, "machine": "x86_64",
        "environment": record.environment, "suite": suite, "cases": cases.len(),
    }}));
    for (index, case) in cases.iter().enumerate() {
        wire.say(&json!({"start": {"index": index}}));
        // Short sleeps are longer than they should be.
        if pace > 0 && index % 20 == 0 {
            std::thread::sleep(Duration::from_micros(20 * pace));
        }
        let id = case.split_once(' ').map_or(*case, |(_, id)| id);
        let unknown = || Outcome::done(Facts::parse("asked=yes").expect("facts"));
        let outcome = record.cases.get(id).cloned().unwrap_or_else(unknown);
        wire.say(&json!({"case": {"index": index, "outcome": outcome}}));
    }
    wire.say(&json!({"end": {"cases": cases.len()}}));
    // Until it is ended, as a machine that powers off slowly.
    std::thread::sleep(Duration::from_secs(5));
}
