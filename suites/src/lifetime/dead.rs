//! Every call on a userfaultfd whose owner is gone: its process ended, or runs another program.

use crate::abi::{
    REGISTER_MODE_MISSING, REGISTER_MODE_WP, Range, Rc, Uffd, WRITEPROTECT_MODE_WP, features,
};
use crate::events::ground;
use crate::evidence::QueueFile;
use crate::expect::{Expected, OBSERVED};
use crate::memory::{BLOCK, Block, ONE_PAGE, PAGE, SPARE};
use crate::outcome::{Seen, Stop};
use crate::point::{Backing, PAGES};
use crate::probe::{Case, Probe, Trial};
use crate::process::{self, Child};
use crate::stage::Stage;
use nix::poll::{PollFd, PollFlags, PollTimeout};
use std::os::fd::AsFd;
use std::time::Instant;
use uffd_results::KernelVersion;

const ESRCH: &str = "ioctl_userfaultfd(2), ESRCH (4.13): the process that made the userfaultfd has \
    exited; mmget_not_zero() fails";
const ENOMEM: &str = "userfaultfd_register() and userfaultfd_unregister() in fs/userfaultfd.c: ENOMEM \
    if mmget_not_zero() fails";
const EVENT: &str = "userfaultfd(2), UFFD_EVENT_UNMAP: munmap(2) of registered memory raises it, and waits \
    until it is read";
const NOTHING: &str =
    "fs/userfaultfd.c tells nobody that an owner has ended, and WAKE looks at the queue only";

static DEAD: Probe = Probe {
    suite: "lifetime",
    name: "dead-owner",
    statement: "Once the memory of the owner is gone, filling ioctls fail with ESRCH (MOVE, which takes \
                its own memory alone, with EINVAL) and leave their result field alone, REGISTER and \
                UNREGISTER fail with ENOMEM, WAKE returns 0, and no event comes, whatever events were \
                asked for.",
    consumers: &[
        "CRIU: handle_exit(), handle_remove(), criu/uffd.c",
        "crosvm: swap/ treats ESRCH and ENOMEM as the end of a device process",
        "E2B orchestrator: ESRCH on teardown, faultPage()",
        "QEMU vhost-user: a dead client's userfaultfd",
    ],
};
static ALIVE: Probe = Probe {
    suite: "lifetime",
    name: "dead-owner-control",
    statement: "As long as the owner lives every call through a passed descriptor acts on the owner's memory, \
                and the events that the owner's calls raise are read through it.",
    consumers: &["CRIU: the lazy-pages daemon serves from another process"],
};

/// How the owner's memory goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    Lives,
    Exits,
    Killed,
    Execs,
    Unmaps,
}

impl How {
    const fn word(self) -> &'static str {
        match self {
            Self::Lives => "lives",
            Self::Exits => "exit",
            Self::Killed => "sigkill",
            Self::Execs => "execve",
            Self::Unmaps => "munmap",
        }
    }

    const fn is_dead(self) -> bool {
        matches!(self, Self::Exits | Self::Killed | Self::Execs)
    }
}

const CALLS: &[(&str, u64)] = &[
    ("copy", 0),
    ("copy-dontwake", 0),
    ("copy-bad-source", 0),
    ("zeropage", 0),
    ("writeprotect", features::PAGEFAULT_FLAG_WP),
    ("unprotect", features::PAGEFAULT_FLAG_WP),
    ("continue", features::MINOR_SHMEM),
    ("poison", features::POISON),
    ("move", features::MOVE),
    ("rwprotect", features::RWP),
    ("register", 0),
    ("unregister", 0),
    ("wake", 0),
    ("api", 0),
    ("read", 0),
    ("poll", 0),
    ("fdinfo", 0),
];

/// Calls of a context that asks for every event that needs no leave. Where the owner unmaps the block an event
/// must come, and only there: whoever lives and does nothing raises none.
const EVENTS: [&str; 2] = ["read-events", "poll-events"];

#[derive(Debug)]
struct Dead {
    how: How,
    backing: Backing,
    call: &'static str,
    needs: u64,
}

/// The owner's side: a block, registered, whose userfaultfd goes to the case.
fn own(
    stage: &Stage,
    link: &process::Link,
    backing: Backing,
    features: u64,
    wp: bool,
) -> Result<Block, Stop> {
    let block = Block::map(backing, BLOCK)?;
    let uffd = stage.uffd(features)?;
    let mode = if wp { REGISTER_MODE_MISSING | REGISTER_MODE_WP } else { REGISTER_MODE_MISSING };
    uffd.register(block.range(0..PAGES), mode)
        .map_err(|e| Stop::Unsupported(format!("REGISTER of a {backing} block: {e:?}")))?;
    link.pass(uffd.as_fd())?;
    link.must_hear("got")?;
    Ok(block)
}

impl Dead {
    fn follows(&self) -> bool {
        EVENTS.contains(&self.call)
    }

    fn owner(&self, stage: &Stage) -> Result<(Child, Uffd), Stop> {
        let program = process::program()?;
        let wp = self.call.ends_with("protect") && self.backing == Backing::Anon;
        let events = if self.follows() { ground::ALL.bits } else { 0 };
        let child = Child::fork(stage, |link| {
            let block = own(stage, link, self.backing, events, wp)?;
            match self.how {
                How::Exits => return Ok(()),
                How::Execs => return Err(process::exec(program.as_fd())),
                How::Unmaps => {
                    let rc = crate::memory::unmap(block.range(0..PAGES));
                    link.say(rc)?;
                }
                How::Lives | How::Killed => {}
            }
            link.hear().map(drop)
        })?;
        let uffd = Uffd::from_fd(child.link().take()?);
        Ok((child, uffd))
    }

    /// Lets the owner go on and waits for what it does.
    fn gone(&self, child: &mut Child, seen: &mut Seen<'_>) -> Result<(), Stop> {
        child.link().say("got")?;
        match self.how {
            How::Lives => Ok(()),
            // It waits until its event is read.
            How::Unmaps if self.follows() => Ok(()),
            How::Unmaps => child.link().must_hear("0"),
            How::Execs => child.link().must_hear("end"),
            How::Exits => {
                seen.fact("ended", child.wait()?);
                Ok(())
            }
            How::Killed => {
                child.kill()?;
                seen.fact("ended", child.wait()?);
                Ok(())
            }
        }
    }
}

/// What poll(2) says of a userfaultfd: bits.
fn poll(uffd: &Uffd, timeout: PollTimeout) -> Result<i16, Stop> {
    let mut fds = [PollFd::new(uffd.as_fd(), PollFlags::POLLIN)];
    nix::poll::poll(&mut fds, timeout).map_err(|e| Stop::Broken(format!("poll: {e:?}")))?;
    Ok(fds[0].revents().map_or(0, |flags| flags.bits()))
}

/// Whoever looks at a process holds its memory for a moment: waits until the last one is through.
pub(crate) fn dropped(stage: &Stage, uffd: &Uffd) -> Result<(), Stop> {
    let page = Range { start: BLOCK, len: PAGE };
    let deadline = Instant::now() + stage.patience;
    // A source that can't be read: nothing is filled while the memory is there.
    while uffd.copy(page, SPARE, 0).0 != Rc(Some(nix::errno::Errno::ESRCH)) {
        if Instant::now() > deadline {
            return Err(Stop::Hang("the dead owner's memory stays".into()));
        }
        std::thread::yield_now();
    }
    Ok(())
}

impl Trial for Dead {
    fn axes(&self) -> String {
        format!("backing={},how={},call={}", self.backing, self.how.word(), self.call)
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        stage.must_offer(self.needs)?;
        seen.step("owner");
        let (mut child, uffd) = self.owner(stage)?;
        self.gone(&mut child, seen)?;
        if self.how.is_dead() {
            seen.step("gone");
            dropped(stage, &uffd)?;
        }
        seen.step("call");
        let page = Range { start: BLOCK + 2 * PAGE, len: PAGE };
        let all = Range { start: BLOCK, len: PAGES * PAGE };
        let errno = |e: nix::errno::Errno| format!("{e:?}");
        let mut both = |(rc, field): (Rc, crate::abi::Field)| {
            seen.fact("rc", rc);
            seen.fact("field", field);
        };
        match self.call {
            "copy" => both(uffd.copy(page, stage.source, 0)),
            "copy-dontwake" => both(uffd.copy(page, stage.source, crate::abi::COPY_MODE_DONTWAKE)),
            "copy-bad-source" => both(uffd.copy(page, SPARE, 0)),
            "zeropage" => both(uffd.zeropage(page, 0)),
            "continue" => both(uffd.resume(page, 0)),
            "poison" => both(uffd.poison(page, 0)),
            "move" => both(uffd.relocate(page, SPARE, 0)),
            "writeprotect" => seen.fact("rc", uffd.writeprotect(page, WRITEPROTECT_MODE_WP)),
            "unprotect" => seen.fact("rc", uffd.writeprotect(page, 0)),
            "rwprotect" => seen.fact("rc", uffd.rwprotect(page, 0)),
            "register" => {
                let rc = uffd.register(all, REGISTER_MODE_MISSING);
                seen.fact("rc", rc.map_or_else(errno, |_| "0".into()));
            }
            "unregister" => seen.fact("rc", uffd.unregister(all)),
            "wake" => seen.fact("rc", uffd.wake(all)),
            "api" => seen.fact("rc", uffd.handshake(0xAA, 0).rc),
            "read" => seen.fact("rc", uffd.read().map_or_else(errno, |_| "message".into())),
            "read-events" | "poll-events" if self.how == How::Unmaps => {
                let timeout = PollTimeout::try_from(stage.patience).unwrap_or(PollTimeout::MAX);
                let ready = poll(&uffd, timeout)?;
                let event = ground::word(&uffd, PAGE);
                if self.call == "poll-events" {
                    seen.fact("rc", ready);
                } else {
                    seen.fact("rc", event);
                }
                child.link().must_hear("0")?;
            }
            "read-events" => seen.fact("rc", ground::word(&uffd, PAGE)),
            "poll" | "poll-events" => seen.fact("rc", poll(&uffd, PollTimeout::ZERO)?),
            _ => seen.fact("rc", QueueFile::open(&uffd)?.read()?),
        }
        Ok(())
    }

    fn expect(&self, _: KernelVersion) -> Vec<Expected> {
        let mut facts = Vec::new();
        match self.how {
            How::Exits => facts.push(Expected::new("ended", "exit:0", "wait(2)")),
            How::Killed => facts.push(Expected::new("ended", "killed:SIGKILL", "wait(2)")),
            _ => {}
        }
        let registers = matches!(self.call, "register" | "unregister");
        let (rc, field, source) = match (self.call, self.how.is_dead()) {
            (_, false) if registers && self.how != How::Unmaps => ("0", None, OBSERVED),
            ("move", _) => ("EINVAL", Some("untouched"), super::fork::OWN_MEMORY),
            ("read-events", false) => ("unmap(0..6)", None, EVENT),
            // POLLIN.
            ("poll-events", false) => ("1", None, EVENT),
            ("api", _) => {
                ("EINVAL", None, "ioctl_userfaultfd(2), UFFDIO_API, EINVAL: a second time")
            }
            ("read" | "read-events", _) => ("EAGAIN", None, NOTHING),
            ("poll" | "poll-events" | "wake", _) => ("0", None, NOTHING),
            ("fdinfo", _) => ("0/0", None, NOTHING),
            ("register" | "unregister", true) => ("ENOMEM", None, ENOMEM),
            ("register" | "unregister", false) => ("EINVAL", None, "no mapping in the range"),
            ("writeprotect" | "unprotect" | "rwprotect", true) => ("ESRCH", None, ESRCH),
            (_, true) => ("ESRCH", Some("untouched"), ESRCH),
            (call, false) => return self.expect_alive(call, facts),
        };
        facts.push(Expected::new("rc", rc, source));
        facts.extend(field.map(|field| Expected::new("field", field, source)));
        facts
    }

    fn recipe(&self) -> Vec<String> {
        vec![
            format!(
                "another process maps and registers a block and passes its userfaultfd on, {}",
                if self.follows() {
                    "which has asked for EVENT_REMAP, EVENT_REMOVE and EVENT_UNMAP"
                } else {
                    "which has asked for no features"
                }
            ),
            format!(
                "that process: {}; where it is gone, wait until its memory is",
                self.how.word()
            ),
            match self.call {
                "read-events" => {
                    "read from the passed descriptor, once it is readable where it must be".into()
                }
                "poll-events" => {
                    "poll the passed descriptor, until it is readable where it must be; read".into()
                }
                call => format!("{call} through the passed descriptor"),
            },
        ]
    }
}

impl Dead {
    fn expect_alive(&self, call: &str, mut facts: Vec<Expected>) -> Vec<Expected> {
        let gone = self.how == How::Unmaps;
        let (rc, field) = match call {
            _ if gone && matches!(call, "writeprotect" | "unprotect" | "rwprotect") => {
                ("ENOENT", "")
            }
            _ if gone => ("ENOENT", "-2"),
            "continue" if self.backing == Backing::Anon => ("EINVAL", "-22"),
            "copy-bad-source" | "continue" => ("EFAULT", "-14"),
            "writeprotect" | "unprotect" if self.backing == Backing::Anon => ("0", ""),
            "writeprotect" | "unprotect" | "rwprotect" => ("ENOENT", ""),
            _ => ("0", ONE_PAGE),
        };
        facts.push(Expected::new("rc", rc, OBSERVED));
        if !field.is_empty() {
            facts.push(Expected::new("field", field, OBSERVED));
        }
        facts
    }
}

/// A userfaultfd without handshake, or one of whose memory nothing was registered.
#[derive(Debug)]
struct Bare {
    how: How,
    api_first: bool,
}

static BARE: Probe = Probe {
    suite: "lifetime",
    name: "dead-owner-bare",
    statement: "UFFDIO_API works on a userfaultfd whose owner is gone; what follows fails as on any other \
                without an owner.",
    consumers: &["CRIU: UFFDIO_API by a privileged helper on a passed descriptor"],
};

impl Trial for Bare {
    fn axes(&self) -> String {
        let api = if self.api_first { "owner" } else { "late" };
        format!("api={api},how={}", self.how.word())
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        let program = process::program()?;
        let way = stage.way.clone()?;
        let mut child = Child::fork(stage, |link| {
            let fail = |e| Stop::Broken(format!("a userfaultfd: {e:?}"));
            let uffd = Uffd::open(way).map_err(fail)?;
            if self.api_first {
                uffd.api(0).map_err(fail)?;
            }
            link.pass(uffd.as_fd())?;
            link.must_hear("got")?;
            match self.how {
                How::Exits => Ok(()),
                How::Execs => Err(process::exec(program.as_fd())),
                _ => link.hear().map(drop),
            }
        })?;
        let uffd = Uffd::from_fd(child.link().take()?);
        child.link().say("got")?;
        match self.how {
            How::Exits => drop(child.wait()?),
            How::Execs => child.link().must_hear("end")?,
            _ => {
                child.kill()?;
                child.wait()?;
            }
        }
        seen.step("call");
        seen.fact("api", uffd.handshake(0xAA, 0).rc);
        dropped(stage, &uffd)?;
        let page = Range { start: BLOCK, len: PAGE };
        let rc = uffd.register(page, REGISTER_MODE_MISSING);
        seen.fact("register", rc.map_or_else(|e| format!("{e:?}"), |_| "0".into()));
        seen.fact("wake", uffd.wake(page));
        seen.fact("queue", QueueFile::open(&uffd)?.read()?);
        Ok(())
    }

    fn expect(&self, _: KernelVersion) -> Vec<Expected> {
        const API: &str = "userfaultfd_api() in fs/userfaultfd.c does not look at the memory";
        vec![
            Expected::new("api", if self.api_first { "EINVAL" } else { "0" }, API),
            Expected::new("register", "ENOMEM", ENOMEM),
            Expected::new("wake", "0", NOTHING),
            Expected::new("queue", "0/0", NOTHING),
        ]
    }

    fn recipe(&self) -> Vec<String> {
        vec![
            "another process opens a userfaultfd and passes it on".into(),
            format!("that process: {}", self.how.word()),
            "UFFDIO_API, REGISTER, WAKE, fdinfo through the passed descriptor".into(),
        ]
    }
}

/// The cases.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for how in [How::Lives, How::Unmaps, How::Exits, How::Killed, How::Execs] {
        let probe = if how.is_dead() { &DEAD } else { &ALIVE };
        for (call, needs) in CALLS {
            for backing in [Backing::Anon, Backing::Shmem, Backing::Private] {
                let trial = Dead { how, backing, call, needs: *needs };
                let by_default = backing == Backing::Anon
                    || (backing == Backing::Shmem && matches!(how, How::Lives | How::Exits));
                cases.push(Case::trial(probe, trial, by_default));
            }
        }
        for call in EVENTS.iter().filter(|_| how != How::Lives) {
            for backing in [Backing::Anon, Backing::Shmem, Backing::Private] {
                let trial = Dead { how, backing, call, needs: ground::ALL.bits };
                cases.push(Case::trial(probe, trial, backing == Backing::Anon));
            }
        }
    }
    for how in [How::Exits, How::Killed, How::Execs] {
        for api_first in [false, true] {
            cases.push(Case::trial(&BARE, Bare { how, api_first }, true));
        }
    }
    cases
}
