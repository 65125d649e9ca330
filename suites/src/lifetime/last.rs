//! The last reference to a context in a forked child: what ends it there frees the parent's waiter.

use crate::abi::{REGISTER_MODE_MISSING, Uffd};
use crate::evidence::QueueFile;
use crate::expect::Expected;
use crate::memory::{BLOCK, Block};
use crate::model::source;
use crate::outcome::{Seen, Stop};
use crate::point::{Backing, PAGES, Waiter as Kind};
use crate::probe::{Case, Probe, Trial};
use crate::process::{self, Child};
use crate::stage::Stage;
use crate::waiter::Waiter;
use std::os::fd::{AsFd, AsRawFd};
use uffd_results::KernelVersion;

static LAST: Probe = Probe {
    suite: "lifetime",
    name: "last-close",
    statement: "A forked child holds the userfaultfd: the owner's close wakes nobody, and the owner's waiter is \
                freed when the child closes it, ends, or runs another program with close-on-exec.",
    consumers: &[
        "CRIU: the lazy-pages daemon's death frees every restored task, criu/pie/restorer.c",
        "Firecracker: a handler's death must not free the guest, src/vmm/src/persist.rs:639",
        "crosvm: swap/ monitor process",
    ],
};
static FIRST: Probe = Probe {
    suite: "lifetime",
    name: "last-close-control",
    statement: "While the owner has its descriptor, nothing that a forked child does with its own frees the waiter.",
    consumers: &["Firecracker: src/vmm/src/persist.rs:639"],
};

/// What the child does with its descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    Close,
    Exit,
    Killed,
    ExecCloexec,
    ExecKeeps,
}

impl How {
    const ALL: &'static [Self] =
        &[Self::Close, Self::Exit, Self::Killed, Self::ExecCloexec, Self::ExecKeeps];

    const fn word(self) -> &'static str {
        match self {
            Self::Close => "close",
            Self::Exit => "exit",
            Self::Killed => "sigkill",
            Self::ExecCloexec => "execve-cloexec",
            Self::ExecKeeps => "execve",
        }
    }
}

#[derive(Debug)]
struct Last {
    how: How,
    kind: Kind,
    backing: Backing,
    owner_keeps: bool,
}

impl Last {
    fn end(&self, child: &mut Child) -> Result<(), Stop> {
        match self.how {
            How::Killed => {
                child.kill()?;
                child.wait().map(drop)
            }
            How::Exit => {
                child.link().say("end")?;
                child.wait().map(drop)
            }
            How::Close => {
                child.link().say("end")?;
                child.link().must_hear("closed")
            }
            How::ExecCloexec | How::ExecKeeps => {
                child.link().say("end")?;
                child.link().must_hear("end")
            }
        }
    }
}

/// What another process's descriptor is.
fn link_of(child: &Child, fd: i32) -> String {
    match std::fs::read_link(format!("/proc/{}/fd/{fd}", child.pid())) {
        Ok(link) => link.to_string_lossy().into_owned(),
        Err(_) => "closed".into(),
    }
}

impl Trial for Last {
    fn axes(&self) -> String {
        format!("backing={},how={},waiter={}", self.backing, self.how.word(), self.kind)
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        let program = process::program()?;
        let cloexec = if self.how == How::ExecKeeps { 0 } else { libc::O_CLOEXEC };
        let block = Block::map(self.backing, BLOCK)?;
        let broken = |e| Stop::Broken(format!("a userfaultfd: {e:?}"));
        let uffd =
            Uffd::open_with(stage.way.clone()?, cloexec | libc::O_NONBLOCK).map_err(broken)?;
        uffd.api(0).map_err(broken)?;
        uffd.register(block.range(0..PAGES), REGISTER_MODE_MISSING).map_err(broken)?;
        let queue = QueueFile::open(&uffd)?;
        let number = uffd.as_fd().as_raw_fd();
        let page = block.range(2..3);
        let waiter = Waiter::park(stage, self.kind, page, &uffd, &queue)?;
        uffd.read().map_err(broken)?;
        seen.step("fork");
        let mut child = Child::fork(stage, |link| {
            link.say("ready")?;
            link.hear()?;
            match self.how {
                How::ExecCloexec | How::ExecKeeps => return Err(process::exec(program.as_fd())),
                How::Close => {
                    process::close_inherited(uffd.as_fd())?;
                    link.say("closed")?;
                    link.hear()?;
                }
                How::Exit | How::Killed => {}
            }
            Ok(())
        })?;
        child.link().must_hear("ready")?;
        let far = QueueFile::of_process(child.pid(), number)?;
        let mut own = Some(uffd);
        if !self.owner_keeps {
            own = None;
            seen.fact("closed", stage.word(waiter.look_alone()?));
            seen.fact("queue", far.read()?);
        }
        drop(far);
        seen.step("end");
        self.end(&mut child)?;
        let held = self.owner_keeps || self.how == How::ExecKeeps;
        if held {
            seen.fact("after", stage.word(waiter.look_alone()?));
            seen.fact("in-child", link_of(&child, number));
            if self.how != How::Exit && self.how != How::Killed {
                child.kill()?;
                child.wait()?;
            }
            drop(own);
            seen.fact("last", stage.word(waiter.end()?));
        } else {
            seen.fact("after", stage.word(waiter.end()?));
            seen.fact("in-child", link_of(&child, number));
        }
        let letter = |value| stage.letter(value);
        seen.fact("page", crate::evidence::pages(page, block.page, &letter)?);
        Ok(())
    }

    fn expect(&self, _: KernelVersion) -> Vec<Expected> {
        let unread = "1/0";
        let (ran, page) = match self.kind {
            Kind::UserRead | Kind::VmRead => ("ran:zero", "0"),
            _ => ("ran", "w"),
        };
        let mut facts = Vec::new();
        if !self.owner_keeps {
            facts.push(Expected::new("closed", "asleep", source::CLOSE));
            facts.push(Expected::new("queue", unread, source::CLOSE));
        }
        let in_child =
            if self.how == How::ExecKeeps { "anon_inode:[userfaultfd]" } else { "closed" };
        if self.owner_keeps || self.how == How::ExecKeeps {
            facts.push(Expected::new("after", "asleep", source::CLOSE));
            facts.push(Expected::new("in-child", in_child, "execve(2): close-on-exec"));
            facts.push(Expected::new("last", ran, source::CLOSE));
        } else {
            facts.push(Expected::new("after", ran, source::CLOSE));
            facts.push(Expected::new("in-child", in_child, "execve(2): close-on-exec"));
        }
        facts.push(Expected::new("page", page, source::CLOSE));
        facts
    }

    fn recipe(&self) -> Vec<String> {
        let close = if self.owner_keeps { "keep the descriptor" } else { "close the descriptor" };
        vec![
            format!("map and register a {} block; a thread parks on page 2", self.backing),
            format!("fork; in the parent {close}; in the child: {}", self.how.word()),
            "look at the waiter".into(),
        ]
    }
}

/// The cases.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for how in How::ALL {
        for owner_keeps in [false, true] {
            let probe = if owner_keeps { &FIRST } else { &LAST };
            for kind in [Kind::UserRead, Kind::UserWrite, Kind::SysRead, Kind::VmRead] {
                for backing in [Backing::Anon, Backing::Shmem] {
                    let trial = Last { how: *how, kind, backing, owner_keeps };
                    let by_default = backing == Backing::Anon || kind == Kind::UserRead;
                    cases.push(Case::trial(probe, trial, by_default));
                }
            }
        }
    }
    cases
}
