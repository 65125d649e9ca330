//! Several descriptors of one context: what closing one of them does, and closing the last.

use super::setting::Setting;
use crate::abi::Uffd;
use crate::evidence::QueueFile;
use crate::expect::Expected;
use crate::model::source;
use crate::outcome::{Seen, Stop};
use crate::point::{Msg, Waiter as Kind};
use crate::probe::{Case, Probe, Trial};
use crate::process::{self, Child, Link};
use crate::stage::Stage;
use std::os::fd::{AsFd, AsRawFd};
use uffd_results::KernelVersion;

static KEEPS: Probe = Probe {
    suite: "handle",
    name: "close",
    statement: "Closing one of several descriptors of a userfaultfd wakes nobody and changes nothing; closing \
                the last one wakes its waiters, who then find zeros.",
    consumers: &[
        "Firecracker: keeps a descriptor so that a dead handler freezes the guest, src/vmm/src/persist.rs:639",
        "CRIU: the restored task closes its descriptor, the daemon keeps one, criu/uffd.c",
        "QEMU: postcopy_ram_incoming_cleanup(), uffd_close_fd()",
        "DPDK and rust-vmm vhost: close at POSTCOPY_END",
        "fcvm #739: zero pages after the handler's death",
    ],
};
static ALONE: Probe = Probe {
    suite: "handle",
    name: "close-control",
    statement: "Closing the only descriptor of a userfaultfd wakes its waiter at once.",
    consumers: &["QEMU: uffd_close_fd()", "fcvm #739"],
};

/// How a second reference is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    Dup,
    DupFd,
    GetFd,
    Rights,
    InFlight,
    Child,
    ChildExits,
    ChildKilled,
}

impl How {
    const ALL: &'static [Self] = &[
        Self::Dup,
        Self::DupFd,
        Self::GetFd,
        Self::Rights,
        Self::InFlight,
        Self::Child,
        Self::ChildExits,
        Self::ChildKilled,
    ];

    const fn word(self) -> &'static str {
        match self {
            Self::Dup => "dup",
            Self::DupFd => "fcntl-dupfd",
            Self::GetFd => "pidfd-getfd",
            Self::Rights => "scm-rights",
            Self::InFlight => "scm-rights-in-flight",
            Self::Child => "fork-close",
            Self::ChildExits => "fork-exit",
            Self::ChildKilled => "fork-kill",
        }
    }
}

/// A second reference, which its drop or [`Second::end`] gives up.
enum Second {
    Here(Uffd),
    Flying(Link, Link),
    Child(Child, How),
}

impl Second {
    fn new(stage: &Stage, how: How, uffd: &Uffd) -> Result<Self, Stop> {
        let fail = |e| Stop::Broken(format!("{}: {e:?}", how.word()));
        Ok(match how {
            How::Dup => Self::Here(uffd.duplicate().map_err(fail)?),
            How::DupFd => Self::Here(uffd.duplicate_from(100).map_err(fail)?),
            How::GetFd => {
                let own = nix::unistd::getpid().as_raw();
                Self::Here(Uffd::from_fd(process::get_fd(own, uffd.as_fd())?))
            }
            How::Rights => {
                let (one, two) = Link::pair(stage.patience)?;
                one.pass(uffd.as_fd())?;
                Self::Here(Uffd::from_fd(two.take()?))
            }
            How::InFlight => {
                let (one, two) = Link::pair(stage.patience)?;
                one.pass(uffd.as_fd())?;
                Self::Flying(one, two)
            }
            How::Child | How::ChildExits | How::ChildKilled => {
                let child = Child::fork(stage, |link| {
                    link.say("ready")?;
                    link.must_hear("close")?;
                    process::close_inherited(uffd.as_fd())?;
                    link.say("closed")?;
                    link.must_hear("end")
                })?;
                child.link().must_hear("ready")?;
                Self::Child(child, how)
            }
        })
    }

    /// The context's queue as seen through this reference alone.
    fn queue(&self, first: &Uffd) -> Result<Option<QueueFile>, Stop> {
        match self {
            Self::Here(uffd) => QueueFile::open(uffd).map(Some),
            Self::Flying(..) => Ok(None),
            Self::Child(child, _) => {
                QueueFile::of_process(child.pid(), first.as_fd().as_raw_fd()).map(Some)
            }
        }
    }

    /// Gives the reference up.
    fn end(self) -> Result<(), Stop> {
        match self {
            Self::Here(_) => Ok(()),
            Self::Flying(one, two) => {
                drop(two);
                drop(one);
                Ok(())
            }
            Self::Child(mut child, how) => match how {
                How::ChildKilled => {
                    child.kill()?;
                    child.wait().map(drop)
                }
                How::ChildExits => {
                    // A word that the child does not know ends it.
                    child.link().say("leave")?;
                    child.wait().map(drop)
                }
                _ => {
                    child.link().say("close")?;
                    child.link().must_hear("closed")
                }
            },
        }
    }
}

#[derive(Debug)]
struct Close {
    how: How,
    /// The one through which all was done is closed first, else the second one.
    first_own: bool,
    waiter: Kind,
    msg: Msg,
}

impl Trial for Close {
    fn axes(&self) -> String {
        let first = if self.first_own { "own" } else { "copy" };
        format!("how={},first={first},waiter={},msg={}", self.how.word(), self.waiter, self.msg)
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        let setting = Setting::new(stage, stage.uffd(0)?)?;
        let page = setting.block.range(2..3);
        let mut waiter = setting.park_one(self.waiter, 2)?;
        if self.msg == Msg::Read {
            setting.uffd.read().map_err(|e| Stop::Broken(format!("reading: {e:?}")))?;
        }
        seen.step("second");
        let second = Second::new(stage, self.how, &setting.uffd)?;
        seen.step("close");
        if self.first_own {
            let (uffd, queue) = (setting.uffd, setting.queue);
            let others = second.queue(&uffd)?;
            drop(uffd);
            drop(queue);
            seen.fact("first", stage.word(waiter.look_alone()?));
            if let Some(queue) = others {
                seen.fact("queue", queue.read()?);
            }
            second.end()?;
        } else {
            second.end()?;
            seen.fact("first", stage.word(waiter.look(&setting.uffd, &setting.queue)?));
            let copied = setting.uffd.copy(setting.block.range(3..4), stage.source, 0).0;
            seen.fact("copy", copied);
            drop(setting.uffd);
        }
        seen.step("end");
        seen.fact("last", stage.word(waiter.end()?));
        let letter = |value| stage.letter(value);
        seen.fact("page", crate::evidence::pages(page, setting.block.page, &letter)?);
        Ok(())
    }

    fn expect(&self, _: KernelVersion) -> Vec<Expected> {
        let mut facts = vec![Expected::new("first", "asleep", source::CLOSE)];
        if !self.first_own {
            facts.push(Expected::new("copy", "0", source::COPY));
        } else if self.how != How::InFlight {
            let unread = u8::from(self.msg == Msg::Unread);
            facts.push(Expected::new("queue", format!("1/{unread}"), source::CLOSE));
        }
        let (last, page) = match self.waiter {
            Kind::UserRead | Kind::VmRead | Kind::SysWrite => ("ran:zero", "0"),
            _ => ("ran", "w"),
        };
        facts.push(Expected::new("last", last, source::CLOSE));
        facts.push(Expected::new("page", page, source::CLOSE));
        facts
    }

    fn recipe(&self) -> Vec<String> {
        vec![
            "map and register a block; a thread parks on page 2".into(),
            format!("a second descriptor of the context, by {}", self.how.word()),
            "close the one, look at the waiter; close the other, wait for the waiter".into(),
        ]
    }
}

#[derive(Debug)]
struct Alone {
    waiter: Kind,
    msg: Msg,
}

impl Trial for Alone {
    fn axes(&self) -> String {
        format!("waiter={},msg={}", self.waiter, self.msg)
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        let setting = Setting::new(stage, stage.uffd(0)?)?;
        let waiter = setting.park_one(self.waiter, 2)?;
        if self.msg == Msg::Read {
            setting.uffd.read().map_err(|e| Stop::Broken(format!("reading: {e:?}")))?;
        }
        seen.step("close");
        drop(setting.uffd);
        seen.fact("last", stage.word(waiter.end()?));
        let reg =
            crate::evidence::registration(&[(setting.block.range(0..6), setting.block.page)])?;
        seen.fact("reg", &reg[0]);
        Ok(())
    }

    fn expect(&self, _: KernelVersion) -> Vec<Expected> {
        let loads = matches!(self.waiter, Kind::UserRead | Kind::VmRead | Kind::SysWrite);
        vec![
            Expected::new("last", if loads { "ran:zero" } else { "ran" }, source::CLOSE),
            Expected::new("reg", "......", source::CLOSE),
        ]
    }

    fn recipe(&self) -> Vec<String> {
        vec!["map and register a block; a thread parks on page 2; close the userfaultfd".into()]
    }
}

/// The cases.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for how in How::ALL {
        for first_own in [false, true] {
            for waiter in [Kind::UserRead, Kind::UserWrite, Kind::SysRead, Kind::VmRead] {
                for msg in [Msg::Read, Msg::Unread] {
                    let by_default = matches!(waiter, Kind::UserRead | Kind::SysRead);
                    let trial = Close { how: *how, first_own, waiter, msg };
                    cases.push(Case::trial(&KEEPS, trial, by_default));
                }
            }
        }
    }
    for waiter in Kind::THREADS.iter().filter(|kind| **kind != Kind::None) {
        for msg in [Msg::Read, Msg::Unread] {
            cases.push(Case::trial(&ALONE, Alone { waiter: *waiter, msg }, true));
        }
    }
    cases
}
