//! Calls that a userfaultfd refuses or takes as any descriptor: write, lseek, mmap, unknown ioctls.

use super::setting::{Setting, buffer, counted};
use crate::abi::{Rc, Uffd};
use crate::expect::{Expected, OBSERVED};
use crate::memory::{PAGE, RW, SPARE, map};
use crate::outcome::{Seen, Stop};
use crate::probe::{Case, Probe, Trial};
use crate::stage::Stage;
use nix::errno::Errno;
use nix::unistd::Whence;
use std::os::fd::AsFd;
use uffd_results::KernelVersion;

/// A userfaultfd can only be read.
pub(super) const READ_ONLY: &str = "new_userfaultfd() in fs/userfaultfd.c opens with O_RDONLY, in every stable series \
    that was asked";
const SEEK: &str = "userfaultfd_fops has noop_llseek, which lseek(2) asks only with FMODE_LSEEK; that follows from \
    it since 6.0 (fs: clear or set FMODE_LSEEK based on llseek function)";
const FOPS: &str = "userfaultfd_fops in fs/userfaultfd.c has poll, read, ioctl, llseek, release, and \
    nothing else";

static CALL: Probe = Probe {
    suite: "handle",
    name: "call",
    statement: "A userfaultfd refuses what is not poll(2), read(2) or its ioctls, and nobody is woken.",
    consumers: &["seccomp filters of Firecracker and Cloud Hypervisor allow only these"],
};
static UNKNOWN: Probe = Probe {
    suite: "handle",
    name: "unknown-ioctl",
    statement: "An ioctl whose number differs in any bit from a known one fails with EINVAL, and wakes nobody.",
    consumers: &[
        "Cloud Hypervisor: UFFDIO_WAKE with a wrong direction failed for weeks (#8016)",
        "userfaultfd-rs: hand-written numbers",
    ],
};

type Ask = fn(&Uffd) -> Result<String, Stop>;

#[derive(Debug)]
struct Call {
    name: &'static str,
    ask: Ask,
    old: &'static str,
    new: &'static str,
    /// The first series that answers with `new`.
    since: (u16, u16),
    source: &'static str,
}

fn rc(result: Result<(), Errno>) -> String {
    Rc(result.err()).to_string()
}

fn mmap(uffd: &Uffd, prot: i32, flags: i32) -> String {
    let at = crate::abi::Range { start: SPARE + 16 * PAGE, len: PAGE };
    map(at, prot, flags, Some(uffd.as_fd()), 0).to_string()
}

fn seek(uffd: &Uffd, offset: i64, whence: Whence) -> String {
    nix::unistd::lseek(uffd.as_fd(), offset, whence)
        .map_or_else(|e| format!("{e:?}"), |at| at.to_string())
}

/// Name, call, answer, source; the answer is one for every kernel.
const CALLS: &[(&str, Ask, &str, &str)] = &[
    ("write", |u| Ok(counted(u.write_from((SPARE, 32)))), "EBADF", READ_ONLY),
    ("mmap-shared", |u| Ok(mmap(u, libc::PROT_READ, libc::MAP_SHARED)), "ENODEV", FOPS),
    ("mmap-private", |u| Ok(mmap(u, RW, libc::MAP_PRIVATE)), "ENODEV", FOPS),
    ("ftruncate", |u| Ok(rc(nix::unistd::ftruncate(u.as_fd(), 0))), "EINVAL", OBSERVED),
    ("fsync", |u| Ok(rc(nix::unistd::fsync(u.as_fd()))), "EINVAL", FOPS),
    ("fchdir", |u| Ok(rc(nix::unistd::fchdir(u.as_fd()))), "ENOTDIR", "fchdir(2)"),
    (
        "fstat",
        |u| {
            let stat = nix::sys::stat::fstat(u.as_fd());
            stat.map(|s| format!("{:o}:{}", s.st_mode, s.st_size))
                .map_err(|e| Stop::Broken(format!("fstat: {e:?}")))
        },
        "600:0",
        "anonymous inodes have mode 0600, no type and no size",
    ),
    (
        "fallocate",
        |u| {
            use nix::fcntl::{FallocateFlags, fallocate};
            Ok(rc(fallocate(u.as_fd(), FallocateFlags::empty(), 0, 4096)))
        },
        "EBADF",
        READ_ONLY,
    ),
    (
        "pwrite",
        |u| {
            Ok(nix::sys::uio::pwrite(u.as_fd(), b"x", 0)
                .map_or_else(|e| format!("{e:?}"), |n| n.to_string()))
        },
        "ESPIPE",
        OBSERVED,
    ),
    ("FIONREAD", |u| Ok(u.raw(0x541b, SPARE).to_string()), "EINVAL", FOPS),
    (
        "FIOCLEX",
        |u| Ok(u.raw(0x5451, SPARE).to_string()),
        "0",
        "ioctl(2), FIOCLEX: every descriptor",
    ),
    ("FIOASYNC", |u| Ok(u.raw(0x5452, SPARE).to_string()), "0", OBSERVED),
    ("TCGETS", |u| Ok(u.raw(0x5401, SPARE).to_string()), "EINVAL", FOPS),
    ("FIFREEZE", |u| Ok(u.raw(0xc004_5877, SPARE).to_string()), "EOPNOTSUPP", OBSERVED),
];

impl Trial for Call {
    fn axes(&self) -> String {
        format!("call={}", self.name)
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        buffer()?;
        let setting = Setting::new(stage, stage.uffd(0)?)?;
        let mut waiters = setting.park(2..3)?;
        seen.step("call");
        let answer = (self.ask)(&setting.uffd)?;
        if answer == "EPERM" && self.name == "FIFREEZE" {
            return Err(Stop::Denied("FIFREEZE: EPERM (it takes CAP_SYS_ADMIN)".into()));
        }
        seen.fact("call", answer);
        if let Some(waiter) = waiters.first_mut() {
            seen.fact("waiter", stage.word(waiter.look(&setting.uffd, &setting.queue)?));
        }
        seen.fact("queue", setting.queue.read()?);
        setting.release(&waiters)
    }

    fn expect(&self, kernel: KernelVersion) -> Vec<Expected> {
        let new = (kernel.major, kernel.minor) >= self.since;
        vec![
            Expected::new("call", if new { self.new } else { self.old }, self.source),
            Expected::new("waiter", "asleep", FOPS),
            Expected::new("queue", "1/1", FOPS),
        ]
    }

    fn recipe(&self) -> Vec<String> {
        vec!["a thread parks".into(), format!("{} of the userfaultfd", self.name)]
    }
}

/// UFFDIO_WAKE of a waiter, by a number that is nearly right.
#[derive(Debug)]
struct Unknown {
    name: &'static str,
    number: u64,
    known: bool,
}

const WAKE: u64 = 0x8010_aa02;

impl Trial for Unknown {
    fn axes(&self) -> String {
        format!("number={}", self.name)
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        let at = buffer()?;
        let setting = Setting::new(stage, stage.uffd(0)?)?;
        let mut waiters = setting.park(2..3)?;
        setting.uffd.read().map_err(|e| Stop::Broken(format!("reading a message: {e:?}")))?;
        let page = setting.block.range(2..3);
        for (at, word) in [(at, page.start), (at + 8, page.len)] {
            crate::touch::store(at, word as u64)
                .map_err(|e| Stop::Broken(format!("writing an argument: {e}")))?;
        }
        seen.step("ioctl");
        seen.fact("ioctl", setting.uffd.raw(self.number, at));
        if let Some(waiter) = waiters.first_mut() {
            seen.fact("waiter", stage.word(waiter.look(&setting.uffd, &setting.queue)?));
        }
        seen.fact("wake", setting.uffd.raw(WAKE, at));
        if let Some(waiter) = waiters.first_mut() {
            seen.fact("woken", stage.word(waiter.look(&setting.uffd, &setting.queue)?));
        }
        setting.release(&waiters)
    }

    fn expect(&self, _: KernelVersion) -> Vec<Expected> {
        const SWITCH: &str = "userfaultfd_ioctl() in fs/userfaultfd.c compares the whole number";
        let (rc, fate) = if self.known { ("0", "again") } else { ("EINVAL", "asleep") };
        vec![
            Expected::new("ioctl", rc, SWITCH),
            Expected::new("waiter", fate, SWITCH),
            Expected::new("wake", "0", SWITCH),
            Expected::new("woken", "again", SWITCH),
        ]
    }

    fn recipe(&self) -> Vec<String> {
        vec![
            "a thread parks; its message is read".into(),
            format!("ioctl {:#x} with the waiter's page; then UFFDIO_WAKE, {WAKE:#x}", self.number),
        ]
    }
}

/// The cases.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, ask, answer, source) in CALLS {
        let (old, new) = (*answer, *answer);
        let trial = Call { name, ask: *ask, old, new, since: (0, 0), source };
        cases.push(Case::trial(&CALL, trial, true));
    }
    let seeks: [(&str, Ask); 4] = [
        ("lseek-set", |u| Ok(seek(u, 0, Whence::SeekSet))),
        ("lseek-far", |u| Ok(seek(u, 4096, Whence::SeekSet))),
        ("lseek-cur", |u| Ok(seek(u, 0, Whence::SeekCur))),
        ("lseek-end", |u| Ok(seek(u, 0, Whence::SeekEnd))),
    ];
    for (name, ask) in seeks {
        let trial = Call { name, ask, old: "ESPIPE", new: "0", since: (6, 0), source: SEEK };
        cases.push(Case::trial(&CALL, trial, true));
    }
    for (name, number) in [
        ("wake", WAKE),
        ("wake-direction-write", 0x4010_aa02),
        ("wake-direction-both", 0xc010_aa02),
        ("wake-direction-none", 0x0010_aa02),
        ("wake-size-8", 0x8008_aa02),
        ("wake-size-0", 0x8000_aa02),
        ("wake-size-24", 0x8018_aa02),
        ("wake-type", 0x8010_ab02),
        ("unregister-direction-write", 0x4010_aa01),
        ("number-0b", 0xc010_aa0b),
        ("number-3e", 0xc010_aa3e),
        ("number-40", 0xc010_aa40),
        ("number-ff", 0xc010_aaff),
        ("zero", 0),
        ("all", 0xffff_ffff),
    ] {
        let trial = Unknown { name, number, known: number == WAKE };
        cases.push(Case::trial(&UNKNOWN, trial, true));
    }
    cases
}
