//! Threads that wait in a fault or for an event while their process ends, and what the queue then
//! shows to who holds the userfaultfd elsewhere.

use crate::abi::{REGISTER_MODE_MISSING, Uffd, features};
use crate::evidence::QueueFile;
use crate::expect::Expected;
use crate::memory::{BLOCK, Block};
use crate::mover::{self, Mover};
use crate::outcome::{Seen, Stop};
use crate::point::{Backing, Msg, PAGES, Waiter as Kind};
use crate::probe::{Case, Probe, Trial};
use crate::process::{self, Child, Link};
use crate::stage::Stage;
use crate::waiter::Waiter;
use std::os::fd::AsFd;
use uffd_results::KernelVersion;

const KILLABLE: &str = "handle_userfault() in fs/userfaultfd.c: a waiter that gets a fatal signal leaves the \
    queue, and nobody is told";
const EVENT: &str = "userfaultfd_event_wait_completion() in fs/userfaultfd.c waits killably; who is killed takes \
    the event back";

static WAITING: Probe = Probe {
    suite: "lifetime",
    name: "ends-waiting",
    statement: "A process whose threads wait in a fault ends all the same; they leave the queue, read or not, \
                and no message stays.",
    consumers: &[
        "QEMU and Firecracker: a guest that is killed while vCPUs wait",
        "E2B orchestrator: teardown while faults are outstanding",
        "CRIU: a restored task that dies",
    ],
};
static EVENTS: Probe = Probe {
    suite: "lifetime",
    name: "ends-in-event",
    statement: "A process that is killed while its call waits for an event to be read takes the event back.",
    consumers: &["CRIU: lazy-pages daemon, criu/uffd.c"],
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    Lives,
    Killed,
    Exits,
    Execs,
}

impl How {
    const ALL: &'static [Self] = &[Self::Lives, Self::Killed, Self::Exits, Self::Execs];

    const fn word(self) -> &'static str {
        match self {
            Self::Lives => "lives",
            Self::Killed => "sigkill",
            Self::Exits => "exit",
            Self::Execs => "execve",
        }
    }
}

/// Ends the process `child`, which obeys `end` once its threads wait.
fn end(how: How, child: &mut Child) -> Result<(), Stop> {
    match how {
        How::Lives => Ok(()),
        How::Killed => {
            child.kill()?;
            child.wait().map(drop)
        }
        How::Exits => {
            child.link().say("end")?;
            child.wait().map(drop)
        }
        How::Execs => {
            child.link().say("end")?;
            child.link().must_hear("end")
        }
    }
}

/// What the child does when it is told to end.
fn obey(how: How, link: &Link, program: &impl AsFd) -> Result<(), Stop> {
    link.hear()?;
    if how == How::Execs { Err(process::exec(program.as_fd())) } else { Ok(()) }
}

#[derive(Debug)]
struct Waiting {
    how: How,
    kind: Kind,
    msg: Msg,
    waiters: usize,
}

impl Trial for Waiting {
    fn axes(&self) -> String {
        let Self { how, kind, msg, waiters } = self;
        format!("how={},waiter={kind},waiters={waiters},msg={msg}", how.word())
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        let program = process::program()?;
        seen.step("park");
        let mut child = Child::fork(stage, |link| {
            let block = Block::map(Backing::Anon, BLOCK)?;
            let uffd = stage.uffd(0)?;
            uffd.register(block.range(0..PAGES), REGISTER_MODE_MISSING)
                .map_err(|e| Stop::Broken(format!("REGISTER: {e:?}")))?;
            let queue = QueueFile::open(&uffd)?;
            for page in 0..self.waiters {
                let page = block.range(page..page + 1);
                Waiter::park_beside(stage, self.kind, page, &queue)?;
            }
            link.pass(uffd.as_fd())?;
            obey(self.how, link, &program)
        })?;
        let uffd = Uffd::from_fd(child.link().take()?);
        let queue = QueueFile::open(&uffd)?;
        if self.msg == Msg::Read {
            for _ in 0..self.waiters {
                uffd.read().map_err(|e| Stop::Broken(format!("reading a message: {e:?}")))?;
            }
        }
        seen.fact("before", queue.read()?);
        seen.step("end");
        end(self.how, &mut child)?;
        seen.fact("queue", queue.read()?);
        seen.fact("read", mover::word(uffd.read()));
        Ok(())
    }

    fn expect(&self, _: KernelVersion) -> Vec<Expected> {
        let unread = if self.msg == Msg::Unread { self.waiters } else { 0 };
        let before = format!("{}/{unread}", self.waiters);
        let lives = self.how == How::Lives;
        let queue = if lives { before.clone() } else { "0/0".into() };
        let read = if lives && unread > 0 { "pagefault" } else { "EAGAIN" };
        vec![
            Expected::new("before", before, KILLABLE),
            Expected::new("queue", queue, KILLABLE),
            Expected::new("read", read, KILLABLE),
        ]
    }

    fn recipe(&self) -> Vec<String> {
        vec![
            format!("{} threads of another process park on its block", self.waiters),
            format!("that process: {}", self.how.word()),
            "fdinfo and read(2) of the passed userfaultfd".into(),
        ]
    }
}

#[derive(Debug)]
struct InEvent {
    how: How,
    event: &'static str,
    read_first: bool,
}

impl Trial for InEvent {
    fn axes(&self) -> String {
        let msg = if self.read_first { "read" } else { "unread" };
        format!("event={},how={},msg={msg}", self.event, self.how.word())
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        let wanted = match self.event {
            "remove" => features::EVENT_REMOVE,
            "remap" => features::EVENT_REMAP,
            _ => features::EVENT_UNMAP,
        };
        stage.must_offer(wanted)?;
        let program = process::program()?;
        seen.step("event");
        let mut child = Child::fork(stage, |link| {
            let block = Block::map(Backing::Anon, BLOCK)?;
            let uffd = stage.uffd(wanted)?;
            uffd.register(block.range(0..PAGES), REGISTER_MODE_MISSING)
                .map_err(|e| Stop::Broken(format!("REGISTER: {e:?}")))?;
            let page = block.range(2..3);
            let event = self.event;
            let mover = Mover::start(stage, move || match event {
                "remove" => crate::memory::dontneed(page),
                "remap" => {
                    let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
                    crate::memory::remap(page, page.len, flags, crate::memory::ELSEWHERE)
                }
                _ => crate::memory::unmap(page),
            })?;
            if !mover.blocks_on_event(&uffd)? {
                return Err(Stop::Broken("the call raised no event".into()));
            }
            link.pass(uffd.as_fd())?;
            if self.read_first {
                link.must_hear("read")?;
                mover.join()?;
                link.say("returned")?;
            }
            obey(self.how, link, &program)
        })?;
        let uffd = Uffd::from_fd(child.link().take()?);
        if self.read_first {
            seen.fact("event", mover::word(uffd.read()));
            child.link().say("read")?;
            child.link().must_hear("returned")?;
        }
        seen.step("end");
        end(self.how, &mut child)?;
        seen.fact("read", mover::word(uffd.read()));
        seen.fact("queue", QueueFile::open(&uffd)?.read()?);
        Ok(())
    }

    fn expect(&self, _: KernelVersion) -> Vec<Expected> {
        let lives = self.how == How::Lives && !self.read_first;
        let mut facts = Vec::new();
        if self.read_first {
            facts.push(Expected::new("event", self.event, EVENT));
        }
        facts.push(Expected::new("read", if lives { self.event } else { "EAGAIN" }, EVENT));
        facts.push(Expected::new("queue", "0/0", EVENT));
        facts
    }

    fn recipe(&self) -> Vec<String> {
        vec![
            format!("a thread of another process waits for its {} event to be read", self.event),
            format!("that process: {}", self.how.word()),
            "read(2) of the passed userfaultfd".into(),
        ]
    }
}

/// The cases.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for how in How::ALL {
        for kind in [Kind::UserRead, Kind::UserWrite, Kind::SysRead, Kind::VmRead] {
            for waiters in [1, 3] {
                for msg in [Msg::Read, Msg::Unread] {
                    let trial = Waiting { how: *how, kind, msg, waiters };
                    cases.push(Case::trial(
                        &WAITING,
                        trial,
                        waiters == 1 || kind == Kind::UserRead,
                    ));
                }
            }
        }
        for event in ["remove", "remap", "unmap"] {
            for read_first in [false, true] {
                cases.push(Case::trial(&EVENTS, InEvent { how: *how, event, read_first }, true));
            }
        }
    }
    cases
}
