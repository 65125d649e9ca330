//! A thread that waits in read(2) or poll(2), and what brings it back.

use super::setting::{MESSAGE, Setting, buffer, counted};
use crate::abi::{Rc, features};
use crate::evidence::ThreadFile;
use crate::expect::Expected;
use crate::mover::Mover;
use crate::outcome::{Seen, Stop};
use crate::point::Waiter as Kind;
use crate::probe::{Case, Probe, Trial};
use crate::process;
use crate::stage::Stage;
use crate::waiter::Waiter;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sys::signal::{SigSet, Signal};
use std::os::fd::AsFd;
use std::sync::OnceLock;
use std::time::Instant;
use uffd_results::KernelVersion;

const READ: &str = "userfaultfd_ctx_read() in fs/userfaultfd.c: without O_NONBLOCK the reader sleeps until \
    a message comes or a signal";
const RESTART: &str = "signal(7): a read(2) that returns ERESTARTSYS is restarted if the handler has \
    SA_RESTART, else it fails with EINTR";

static BLOCKED: Probe = Probe {
    suite: "handle",
    name: "blocked-call",
    statement: "A thread that waits in read(2) or poll(2) on a userfaultfd comes back with the first \
                message, and from read(2) with EINTR after a handled signal.",
    consumers: &[
        "Firecracker: examples/uffd, a handler that blocks in poll(2)",
        "umap: src/umap/Uffd.cpp",
        "E2B orchestrator: poll(2) with an exit eventfd",
    ],
};

/// What the waiting thread does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call {
    Read,
    Poll,
}

/// What happens while it waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    UserFault,
    KernelFault,
    Event,
    Signal { restart: bool },
    Nonblock,
}

impl Then {
    const fn word(self) -> &'static str {
        match self {
            Self::UserFault => "user-fault",
            Self::KernelFault => "kernel-fault",
            Self::Event => "event",
            Self::Signal { restart: false } => "signal",
            Self::Signal { restart: true } => "signal-restart",
            Self::Nonblock => "set-nonblock",
        }
    }
}

#[derive(Debug)]
struct Blocked {
    call: Call,
    then: Then,
}

/// What the waiting thread said at last.
static SAID: OnceLock<String> = OnceLock::new();

/// Waits until the handler has run.
fn handled(stage: &Stage) -> Result<(), Stop> {
    let deadline = Instant::now() + stage.patience;
    while process::caught() == 0 {
        if Instant::now() > deadline {
            return Err(Stop::Hang("the signal was not handled".into()));
        }
        std::thread::yield_now();
    }
    Ok(())
}

impl Blocked {
    /// A thread that makes the call, and is in it.
    fn start(&self, stage: &Stage, setting: &Setting<'_>) -> Result<(Mover, ThreadFile), Stop> {
        let at = buffer()?;
        let reader = setting.uffd.duplicate().map_err(|e| Stop::Broken(format!("dup: {e:?}")))?;
        let call = self.call;
        let mover = Mover::start(stage, move || {
            let mut signals = SigSet::empty();
            signals.add(Signal::SIGUSR1);
            let _ = signals.thread_unblock();
            let said = match call {
                Call::Read => counted(reader.read_into((at, MESSAGE))),
                Call::Poll => {
                    let mut fds = [PollFd::new(reader.as_fd(), PollFlags::POLLIN)];
                    match nix::poll::poll(&mut fds, PollTimeout::NONE) {
                        Ok(_) => format!("{:?}", fds[0].revents().map_or(0, |e| e.bits())),
                        Err(e) => format!("{e:?}"),
                    }
                }
            };
            let _ = SAID.set(said);
            Rc::OK
        })?;
        let thread = mover.file()?;
        mover.sleeps_in(&thread, &[self.number()])?;
        Ok((mover, thread))
    }

    const fn number(&self) -> i64 {
        match self.call {
            Call::Read => libc::SYS_read,
            #[cfg(target_arch = "x86_64")]
            Call::Poll => libc::SYS_poll,
            #[cfg(not(target_arch = "x86_64"))]
            Call::Poll => libc::SYS_ppoll,
        }
    }
}

impl Trial for Blocked {
    fn axes(&self) -> String {
        let call = if self.call == Call::Read { "read" } else { "poll" };
        format!("call={call},then={}", self.then.word())
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        let wanted = if self.then == Then::Event { features::EVENT_REMOVE } else { 0 };
        stage.must_offer(wanted)?;
        let uffd = stage.uffd(wanted)?;
        if self.call == Call::Read {
            uffd.set_status(OFlag::empty());
        }
        let setting = Setting::new(stage, uffd)?;
        if let Then::Signal { restart } = self.then {
            process::catch(restart)?;
        }
        seen.step("wait");
        let (mover, thread) = self.start(stage, &setting)?;
        let page = setting.block.range(2..3);
        let mut waiter = None;
        let mut fault = |kind| -> Result<(), Stop> {
            waiter = Some(Waiter::start(stage, kind, page)?);
            Ok(())
        };
        match self.then {
            Then::UserFault => fault(Kind::UserRead)?,
            Then::KernelFault => {
                if stage.way == Ok(crate::abi::Way::UserModeOnly) {
                    return Err(Stop::Denied("kernel-mode faults are not caught here".into()));
                }
                fault(Kind::SysRead)?;
            }
            Then::Event => {
                Mover::discard(stage, page)?;
            }
            Then::Signal { .. } => {
                process::signal_thread(mover.tid())?;
                handled(stage)?;
            }
            Then::Nonblock => {
                setting.uffd.set_status(OFlag::O_NONBLOCK);
            }
        }
        seen.step("come back");
        let back = match (self.then, self.call) {
            // Back in the call, or never out of it: then a message.
            (Then::Signal { restart: true }, Call::Read) | (Then::Nonblock, _) => {
                mover.sleeps_in(&thread, &[self.number()])?;
                seen.fact("then", "waits-again");
                Some(Waiter::start(stage, Kind::UserRead, page)?)
            }
            _ => waiter,
        };
        seen.fact("join", mover.join()?);
        seen.fact("said", SAID.get().map_or("nothing", String::as_str));
        seen.fact("caught", process::caught());
        seen.fact("queue", setting.queue.read()?);
        // An event's thread ends by itself once its event is read, or with the context.
        setting.release(back.as_slice())
    }

    fn expect(&self, _: KernelVersion) -> Vec<Expected> {
        let mut facts = Vec::new();
        let waits_again = matches!(
            (self.then, self.call),
            (Then::Signal { restart: true }, Call::Read) | (Then::Nonblock, _)
        );
        if waits_again {
            facts.push(Expected::new("then", "waits-again", RESTART));
        }
        let signal = matches!(self.then, Then::Signal { .. });
        let fault = !matches!(self.then, Then::Event) && (!signal || waits_again);
        let (said, unread) = match (self.call, signal && !waits_again) {
            (_, true) => ("EINTR", 0),
            (Call::Read, false) => ("32", 0),
            (Call::Poll, false) => ("1", 1),
        };
        let queue = if fault { format!("1/{unread}") } else { "0/0".into() };
        facts.push(Expected::new("join", "0", READ));
        facts.push(Expected::new("said", said, if signal { RESTART } else { READ }));
        facts.push(Expected::new("caught", if signal { "1" } else { "0" }, RESTART));
        facts.push(Expected::new("queue", queue, READ));
        facts
    }

    fn recipe(&self) -> Vec<String> {
        vec![
            "a thread waits in the call, which /proc/self/task says".into(),
            format!("then: {}", self.then.word()),
            "what the call returned; fdinfo".into(),
        ]
    }
}

/// A reader that waits for the message of its own fault.
#[derive(Debug)]
struct OwnFault(&'static str);

static OWN: Probe = Probe {
    suite: "handle",
    name: "read-into-registered",
    statement: "A read(2) into a missing registered page takes a message and then waits for its own page \
                with a new one; COPY of that page lets it return.",
    consumers: &["whoever keeps the message buffer in registered memory"],
};

impl Trial for OwnFault {
    fn axes(&self) -> String {
        format!("by={}", self.0)
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        if stage.way == Ok(crate::abi::Way::UserModeOnly) {
            return Err(Stop::Denied("kernel-mode faults are not caught here".into()));
        }
        let setting = Setting::new(stage, stage.uffd(0)?)?;
        let waiters = setting.park(2..3)?;
        let reader = setting.uffd.duplicate().map_err(|e| Stop::Broken(format!("dup: {e:?}")))?;
        let place = setting.block.range(4..5);
        seen.step("read into the block");
        let mover = Mover::start(stage, move || match reader.read_into((place.start, MESSAGE)) {
            Ok(MESSAGE) => Rc::OK,
            Ok(_) => Rc(Some(Errno::EIO)),
            Err(e) => Rc(Some(e)),
        })?;
        // The first message is being read, so what becomes unread is the reader's own.
        let thread = mover.file()?;
        let deadline = Instant::now() + stage.patience;
        while setting.queue.read()?.total < 2 || !thread.is_off_cpu()? {
            if Instant::now() > deadline {
                return Err(Stop::Hang("the reader never met its own page".into()));
            }
            std::thread::yield_now();
        }
        seen.fact("queue", setting.queue.read()?);
        seen.fact(
            "second",
            match setting.uffd.read() {
                Ok(crate::abi::Message::Pagefault { address, .. }) => {
                    format!("page-{}", (address - crate::memory::BLOCK) / crate::memory::PAGE)
                }
                other => format!("{other:?}"),
            },
        );
        if self.0 == "copy" {
            seen.fact("serve", setting.uffd.copy(place, stage.source, 0).0);
        } else {
            seen.fact("serve", setting.uffd.unregister(setting.block.range(4..6)));
        }
        seen.fact("read", mover.join()?);
        seen.fact("message", super::setting::messages(place.start, MESSAGE)?);
        seen.fact("rest", setting.queue.read()?);
        setting.release(&waiters)
    }

    fn expect(&self, _: KernelVersion) -> Vec<Expected> {
        [
            ("queue", "2/1"),
            ("second", "page-4"),
            ("serve", "0"),
            ("read", "0"),
            ("message", "2"),
            ("rest", "1/0"),
        ]
        .into_iter()
        .map(|(name, value)| Expected::new(name, value, READ))
        .collect()
    }

    fn recipe(&self) -> Vec<String> {
        vec![
            "a thread parks on page 2; another reads messages into page 4 of the block".into(),
            format!("read the second message; serve page 4 by {}", self.0),
        ]
    }
}

/// The cases.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for call in [Call::Read, Call::Poll] {
        for then in [
            Then::UserFault,
            Then::KernelFault,
            Then::Event,
            Then::Signal { restart: false },
            Then::Signal { restart: true },
            Then::Nonblock,
        ] {
            // poll(2) of a descriptor that is made blocking is in error.
            if !(call == Call::Poll && then == Then::Nonblock) {
                cases.push(Case::trial(&BLOCKED, Blocked { call, then }, true));
            }
        }
    }
    for by in ["copy", "unregister"] {
        cases.push(Case::trial(&OWN, OwnFault(by), true));
    }
    cases
}
