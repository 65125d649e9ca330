//! Permission is asked when a userfaultfd is made: what holds for one that was passed on, or made
//! before privileges or the sysctl changed.

use super::open::caught;
use super::who::{self, SYSCTL, Setting, Who};
use crate::abi::{REGISTER_MODE_MISSING, Uffd, Way, features};
use crate::edge::UNKNOWN_LAST;
use crate::expect::{Expected, OBSERVED};
use crate::memory::{BLOCK, Block};
use crate::outcome::{Seen, Stop};
use crate::point::{Backing, PAGES, Waiter as Kind};
use crate::probe::{Case, Probe, Trial};
use crate::process::Child;
use crate::stage::Stage;
use nix::errno::Errno;
use std::os::fd::AsFd;
use uffd_results::KernelVersion;

const ONCE: &str = "fs/userfaultfd.c asks for a privilege in userfaultfd(2) and for EVENT_FORK only: no other \
    ioctl does";
const FORK: &str =
    "userfaultfd_api() in fs/userfaultfd.c: capable(CAP_SYS_PTRACE) of who makes the call";

static HELPER: Probe = Probe {
    suite: "permission",
    name: "api-by-helper",
    statement: "UFFDIO_API with EVENT_FORK fails with EPERM for a process without CAP_SYS_PTRACE, and works when \
                a privileged helper issues it on the passed descriptor; the owner then uses it.",
    consumers: &["CRIU: userns_call(uffd_api_ioctl), criu/uffd.c; #964"],
};
static LATER: Probe = Probe {
    suite: "permission",
    name: "dropped",
    statement: "A userfaultfd that was made with privileges works in full after they are gone, but for \
                UFFDIO_API with EVENT_FORK.",
    consumers: &[
        "Firecracker: the jailer drops privileges",
        "QEMU: -run-with user=",
        "crosvm: minijail",
    ],
};
static SWITCH: Probe = Probe {
    suite: "permission",
    name: "sysctl-later",
    statement: "vm.unprivileged_userfaultfd decides when a userfaultfd is made: one that exists goes on to catch \
                kernel-mode faults.",
    consumers: &["CRIU #3035, shadPS4 #1680: advice to set the sysctl"],
};
static VALUES: Probe = Probe {
    suite: "permission",
    name: "sysctl-value",
    statement: "vm.unprivileged_userfaultfd takes 0 and 1 from the system's root user, and nothing else.",
    consumers: &["CRIU #3035: advice to set the sysctl"],
};

fn failed(e: Errno) -> Stop {
    Stop::Broken(format!("a userfaultfd: {e:?}"))
}

fn feature(fork: bool) -> u64 {
    if fork { features::EVENT_FORK } else { features::THREAD_ID }
}

fn block_of(uffd: &Uffd) -> Result<Block, Stop> {
    let block = Block::map(Backing::Anon, BLOCK)?;
    uffd.register(block.range(0..PAGES), REGISTER_MODE_MISSING).map_err(failed)?;
    Ok(block)
}

#[derive(Debug)]
struct Helper {
    who: Who,
    fork: bool,
    user_mode: bool,
}

impl Trial for Helper {
    fn axes(&self) -> String {
        let wanted = if self.fork { "event-fork" } else { "thread-id" };
        let way = if self.user_mode { "user-mode-only" } else { "syscall" };
        format!("who={},way={way},features={wanted}", self.who.word())
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        who::must_be_root()?;
        let _sysctl = Setting::sysctl(stage, "1")?;
        let way = if self.user_mode { Way::UserModeOnly } else { Way::Syscall };
        let mut child = Child::fork(stage, |link| {
            self.who.enter()?;
            let uffd = match Uffd::open(way) {
                Err(Errno::EINVAL) if self.user_mode => {
                    return Err(Stop::Unsupported("no UFFD_USER_MODE_ONLY (5.11)".into()));
                }
                other => other.map_err(failed)?,
            };
            link.say(uffd.handshake(0xAA, feature(self.fork) | 1 << 40).rc)?;
            link.pass(uffd.as_fd())?;
            link.must_hear("done")?;
            let block = block_of(&uffd)?;
            link.say(caught(stage, &uffd, &block, Kind::UserRead, 1)?)?;
            link.say(caught(stage, &uffd, &block, Kind::SysRead, 2)?)
        })?;
        seen.fact("unknown", child.link().hear()?);
        let uffd = Uffd::from_fd(child.link().take()?);
        seen.fact("helper", uffd.handshake(0xAA, feature(self.fork)).rc);
        drop(uffd);
        child.link().say("done")?;
        seen.fact("user-fault", child.link().hear()?);
        seen.fact("kernel-fault", child.link().hear()?);
        child.finish()
    }

    fn expect(&self, kernel: KernelVersion) -> Vec<Expected> {
        let late = UNKNOWN_LAST.is_known_in(kernel);
        let denied = self.fork && !self.who.may_trace() && late;
        vec![
            Expected::new("unknown", if denied { "EPERM" } else { "EINVAL" }, UNKNOWN_LAST.source),
            Expected::new("helper", "0", FORK),
            Expected::new("user-fault", "parks", ONCE),
            Expected::new("kernel-fault", if self.user_mode { "EFAULT" } else { "parks" }, ONCE),
        ]
    }

    fn recipe(&self) -> Vec<String> {
        vec![
            format!(
                "a process as {} opens a userfaultfd; UFFDIO_API with an unknown feature",
                self.who.word()
            ),
            "its parent, with privileges, issues UFFDIO_API on the passed descriptor".into(),
            "the process registers; a load from page 1; a read(2) into page 2".into(),
        ]
    }
}

#[derive(Debug)]
struct Dropped {
    who: Who,
    fork: bool,
    api_first: bool,
    sysctl: &'static str,
}

impl Trial for Dropped {
    fn axes(&self) -> String {
        let wanted = if self.fork { "event-fork" } else { "thread-id" };
        let api = if self.api_first { "before" } else { "after" };
        let Self { who, sysctl, .. } = self;
        format!("who={},sysctl={sysctl},api={api},features={wanted}", who.word())
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        who::must_be_root()?;
        let _sysctl = Setting::sysctl(stage, self.sysctl)?;
        let mut child = Child::fork(stage, |link| {
            let uffd = Uffd::open(Way::Syscall).map_err(failed)?;
            let mut api = None;
            if self.api_first {
                api = Some(uffd.handshake(0xAA, feature(self.fork)).rc);
            }
            self.who.enter()?;
            let api = api.unwrap_or_else(|| uffd.handshake(0xAA, feature(self.fork)).rc);
            link.say(api)?;
            if !api.is_ok() {
                uffd.api(0).map_err(failed)?;
            }
            let block = block_of(&uffd)?;
            link.say(caught(stage, &uffd, &block, Kind::UserRead, 1)?)?;
            link.say(caught(stage, &uffd, &block, Kind::SysRead, 2)?)?;
            link.say(uffd.zeropage(block.range(3..4), 0).0)?;
            link.say(uffd.wake(block.range(0..PAGES)))?;
            link.say(uffd.unregister(block.range(0..PAGES)))
        })?;
        for name in ["api", "user-fault", "kernel-fault", "zeropage", "wake", "unregister"] {
            seen.fact(name, child.link().hear()?);
        }
        child.finish()
    }

    fn expect(&self, _: KernelVersion) -> Vec<Expected> {
        let denied = self.fork && !self.api_first && !self.who.may_trace();
        vec![
            Expected::new("api", if denied { "EPERM" } else { "0" }, FORK),
            Expected::new("user-fault", "parks", ONCE),
            Expected::new("kernel-fault", "parks", ONCE),
            Expected::new("zeropage", "0", ONCE),
            Expected::new("wake", "0", ONCE),
            Expected::new("unregister", "0", ONCE),
        ]
    }

    fn recipe(&self) -> Vec<String> {
        let order = if self.api_first { "UFFDIO_API, then" } else { "then UFFDIO_API as" };
        vec![
            format!("a process opens a userfaultfd as root; {order} {}", self.who.word()),
            "REGISTER; a load from page 1; a read(2) into page 2; ZEROPAGE, WAKE, UNREGISTER"
                .into(),
        ]
    }
}

#[derive(Debug)]
struct Switch {
    who: Who,
    api_first: bool,
}

impl Trial for Switch {
    fn axes(&self) -> String {
        let api = if self.api_first { "before" } else { "after" };
        format!("who={},api={api}", self.who.word())
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        who::must_be_root()?;
        who::must_be_disposable(stage, "vm.unprivileged_userfaultfd changed")?;
        let sysctl = Setting::sysctl(stage, "1")?;
        let mut child = Child::fork(stage, |link| {
            self.who.enter()?;
            let uffd = Uffd::open(Way::Syscall).map_err(failed)?;
            if self.api_first {
                uffd.api(0).map_err(failed)?;
            }
            link.say("opened")?;
            link.must_hear("off")?;
            let again = Uffd::open(Way::Syscall);
            link.say(again.map_or_else(|e| format!("{e:?}"), |_| "0".into()))?;
            if !self.api_first {
                uffd.api(0).map_err(failed)?;
            }
            let block = block_of(&uffd)?;
            link.say(caught(stage, &uffd, &block, Kind::UserRead, 1)?)?;
            link.say(caught(stage, &uffd, &block, Kind::SysRead, 2)?)
        })?;
        child.link().must_hear("opened")?;
        let off = Setting::sysctl(stage, "0")?;
        child.link().say("off")?;
        for name in ["open-again", "user-fault", "kernel-fault"] {
            seen.fact(name, child.link().hear()?);
        }
        let ended = child.finish();
        drop(off);
        drop(sysctl);
        ended
    }

    fn expect(&self, _: KernelVersion) -> Vec<Expected> {
        vec![
            Expected::new("open-again", if self.who.may_trace() { "0" } else { "EPERM" }, ONCE),
            Expected::new("user-fault", "parks", ONCE),
            Expected::new("kernel-fault", "parks", ONCE),
        ]
    }

    fn recipe(&self) -> Vec<String> {
        vec![
            format!(
                "vm.unprivileged_userfaultfd=1; a process as {} opens a userfaultfd",
                self.who.word()
            ),
            "vm.unprivileged_userfaultfd=0; it opens another; REGISTER; a load; a read(2)".into(),
        ]
    }
}

#[derive(Debug)]
struct Value {
    who: Who,
    value: &'static str,
}

impl Trial for Value {
    fn axes(&self) -> String {
        format!("who={},value={}", self.who.word(), self.value)
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        who::must_be_root()?;
        who::must_be_disposable(stage, "vm.unprivileged_userfaultfd changed")?;
        let before = Setting::sysctl(stage, "0")?;
        let mut child = Child::fork(stage, |link| {
            self.who.enter()?;
            let written =
                std::fs::OpenOptions::new().write(true).open(SYSCTL).and_then(|mut file| {
                    use std::io::Write;
                    file.write_all(self.value.as_bytes())
                });
            link.say(match written {
                Ok(()) => "0".to_owned(),
                Err(e) => format!("{:?}", Errno::from_raw(e.raw_os_error().unwrap_or(0))),
            })
        })?;
        seen.fact("write", child.link().hear()?);
        child.finish()?;
        let now =
            std::fs::read_to_string(SYSCTL).map_err(|e| Stop::Broken(format!("{SYSCTL}: {e}")))?;
        seen.fact("value", now.trim());
        std::fs::write(SYSCTL, "0").map_err(|e| Stop::Broken(format!("{SYSCTL}: {e}")))?;
        drop(before);
        Ok(())
    }

    fn expect(&self, _: KernelVersion) -> Vec<Expected> {
        const RANGE: &str = "vm_userfaultfd_table in fs/userfaultfd.c: proc_dointvec_minmax() from 0 to 1, mode 0644";
        let may = matches!(self.who, Who::Root | Who::NoCaps | Who::Userns);
        let good = matches!(self.value, "0" | "1");
        let write = match (may, good) {
            (false, _) => "EACCES",
            (true, true) => "0",
            (true, false) => "EINVAL",
        };
        let value = if may && self.value == "1" { "1" } else { "0" };
        let source = if self.who == Who::Userns { OBSERVED } else { RANGE };
        vec![Expected::new("write", write, source), Expected::new("value", value, source)]
    }

    fn recipe(&self) -> Vec<String> {
        vec![format!(
            "vm.unprivileged_userfaultfd=0; a process as {} writes {:?} to it",
            self.who.word(),
            self.value
        )]
    }
}

/// The cases.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for who in Who::ALL {
        for fork in [false, true] {
            for user_mode in [false, true] {
                cases.push(Case::trial(&HELPER, Helper { who: *who, fork, user_mode }, true));
            }
            for api_first in [false, true] {
                for sysctl in ["0", "1"] {
                    let trial = Dropped { who: *who, fork, api_first, sysctl };
                    cases.push(Case::trial(&LATER, trial, true));
                }
            }
        }
        for api_first in [false, true] {
            cases.push(Case::trial(&SWITCH, Switch { who: *who, api_first }, true));
        }
        for value in ["0", "1", "2", "-1", "x"] {
            cases.push(Case::trial(&VALUES, Value { who: *who, value }, true));
        }
    }
    cases
}
