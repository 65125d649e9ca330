//! A descriptor that is closed while another thread waits in a call on it: what the call then says,
//! and whether the context is gone.

use super::stopped::{leak, map_page, shut};
use crate::abi::{Range, Rc, Uffd, Way, features};
use crate::access::Accessor;
use crate::events::ground::{Ground, register};
use crate::evidence::QueueFile;
use crate::expect::Expected;
use crate::memory::{OTHER, PAGE};
use crate::model::source;
use crate::mover::{self, Mover};
use crate::outcome::{Seen, Stop};
use crate::point::{Backing, Waiter as Kind, axis};
use crate::probe::{Case, Probe, Trial};
use crate::process;
use crate::stage::Stage;
use crate::waiter::{Access, Waiter};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::select::{FdSet, select};
use std::os::fd::AsFd;
use std::sync::OnceLock;
use uffd_results::KernelVersion;

static CLOSED: Probe = Probe {
    suite: "races",
    name: "close-in-call",
    statement: "A thread in read(2), poll(2) or select(2) keeps the context that it waits for: closing \
                the last descriptor neither brings it back nor frees waiters, until it returns; epoll \
                keeps nothing, and never tells of the close.",
    consumers: &[
        "Firecracker: examples/uffd, a handler that blocks in poll(2)",
        "crosvm: swap/ monitor process, which waits in epoll",
        "umap: src/umap/Uffd.cpp, whose worker is stopped by a pipe and not by a close",
    ],
};

axis! {
    /// What the thread waits in.
    Call {
        /// read(2) of a blocking userfaultfd.
        Read = "read",
        /// poll(2).
        Poll = "poll",
        /// select(2).
        Select = "select",
        /// epoll_wait(2).
        Epoll = "epoll",
    }
}

axis! {
    /// Which descriptor is closed.
    Close {
        /// The only one.
        Last = "last",
        /// The one that the call names; another stays.
        Named = "named",
        /// The other one: the control.
        Other = "other",
    }
}

axis! {
    /// What happens after the close.
    Then {
        /// A thread loads from a missing page.
        UserFault = "user-fault",
        /// A thread is in write(2) from a missing page.
        KernelFault = "kernel-fault",
        /// A thread discards a page, which raises an event.
        Event = "event",
        /// The thread in the call takes a signal.
        Signal = "signal",
    }
}

#[derive(Debug)]
struct Closed {
    call: Call,
    close: Close,
    then: Then,
}

/// Another missing page of the context, for the fault that comes after the close.
const SECOND: Range = Range { start: OTHER, len: PAGE };

/// What the waiting thread said at last.
static SAID: OnceLock<String> = OnceLock::new();

impl Call {
    /// The system calls that it can be.
    const fn numbers(self) -> &'static [i64] {
        match self {
            Self::Read => &[libc::SYS_read],
            Self::Poll => &[
                #[cfg(target_arch = "x86_64")]
                libc::SYS_poll,
                libc::SYS_ppoll,
            ],
            Self::Select => &[
                #[cfg(target_arch = "x86_64")]
                libc::SYS_select,
                libc::SYS_pselect6,
            ],
            Self::Epoll => &[
                #[cfg(target_arch = "x86_64")]
                libc::SYS_epoll_wait,
                libc::SYS_epoll_pwait,
            ],
        }
    }

    /// Whether it holds a reference to the open file while it waits.
    const fn holds(self) -> bool {
        !matches!(self, Self::Epoll)
    }

    /// Makes the call; what it says, in a word.
    fn make(self, uffd: &Uffd, epoll: &Epoll) -> Result<String, Errno> {
        let bad = Errno::EBADMSG;
        match self {
            Self::Read => uffd.read().map(|message| mover::word(Ok(message))),
            Self::Poll => {
                let mut fds = [PollFd::new(uffd.as_fd(), PollFlags::POLLIN)];
                nix::poll::poll(&mut fds, PollTimeout::NONE)?;
                match fds[0].revents().unwrap_or(PollFlags::empty()) {
                    PollFlags::POLLIN => Ok("in".to_owned()),
                    PollFlags::POLLNVAL => Ok("nval".to_owned()),
                    other => Ok(format!("{:#x}", other.bits())),
                }
            }
            Self::Select => {
                let mut reads = FdSet::new();
                reads.insert(uffd.as_fd());
                select(None, &mut reads, None, None, None)?;
                Ok(if reads.contains(uffd.as_fd()) { "in" } else { "none" }.to_owned())
            }
            Self::Epoll => {
                let mut events = [EpollEvent::empty(); 1];
                epoll.wait(&mut events, EpollTimeout::NONE)?;
                Ok(match events[0].data() {
                    0 => "in",
                    1 => "only-the-other",
                    _ => return Err(bad),
                }
                .to_owned())
            }
        }
    }
}

/// What the waiting thread waits with.
#[derive(Debug)]
struct Ears {
    epoll: Epoll,
    bell: EventFd,
}

impl Ears {
    fn new(uffd: &Uffd) -> Result<Self, Stop> {
        let broken = |e: Errno| Stop::Broken(format!("an epoll: {e:?}"));
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(broken)?;
        let bell = EventFd::from_flags(EfdFlags::EFD_NONBLOCK).map_err(broken)?;
        epoll.add(uffd.as_fd(), EpollEvent::new(EpollFlags::EPOLLIN, 0)).map_err(broken)?;
        epoll.add(&bell, EpollEvent::new(EpollFlags::EPOLLIN, 1)).map_err(broken)?;
        Ok(Self { epoll, bell })
    }
}

/// The threads of what comes after the close, made before it: a descriptor that is made after it would
/// get the closed one's number, by which poll(2) and select(2) look again.
struct Next {
    bell: &'static EventFd,
    second: Option<Waiter>,
    discard: Option<Mover>,
}

impl Next {
    fn ready(stage: &Stage, then: Then, page: Range) -> Result<Self, Stop> {
        let bell = EventFd::from_flags(EfdFlags::empty())
            .map_err(|e| Stop::Broken(format!("an eventfd: {e:?}")))?;
        let bell: &'static EventFd = Box::leak(Box::new(bell));
        let fault = |kind| {
            let access = Accessor::new(stage, kind, SECOND)?;
            Waiter::begin(stage, move || match bell.read() {
                Ok(_) => access.go(),
                Err(e) => Access::Failed(e),
            })
        };
        let (mut second, mut discard) = (None, None);
        match then {
            Then::UserFault => second = Some(fault(Kind::UserRead)?),
            Then::KernelFault => second = Some(fault(Kind::SysWrite)?),
            Then::Event => {
                discard = Some(Mover::start(stage, move || match bell.read() {
                    Ok(_) => crate::memory::dontneed(page),
                    Err(e) => Rc(Some(e)),
                })?);
            }
            Then::Signal => {}
        }
        Ok(Self { bell, second, discard })
    }

    fn go(&self) {
        // Can't fail: the counter is far from its end.
        let _ = self.bell.write(1);
    }
}

impl Closed {
    /// Whether the context outlives the close for as long as the case.
    fn lives(&self) -> bool {
        self.close != Close::Last
    }
}

impl Trial for Closed {
    fn axes(&self) -> String {
        let Self { call, close, then } = self;
        format!("call={call},close={close},then={then}")
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        let Self { call, close, then } = *self;
        seen.step("set-up");
        if then == Then::KernelFault && stage.way == Ok(Way::UserModeOnly) {
            return Err(Stop::Denied("kernel-mode faults are not caught here".into()));
        }
        let wanted = if then == Then::Event { features::EVENT_REMOVE } else { 0 };
        let ground = Ground::set(stage, Backing::Anon, wanted)?;
        map_page(SECOND)?;
        register(&ground.uffd, SECOND)?;
        let waiter =
            Waiter::park(stage, Kind::UserRead, ground.target(), &ground.uffd, &ground.queue)?;
        ground.read();
        if call == Call::Read {
            ground.uffd.set_status(OFlag::empty());
        }
        let (named, other) = (leak(&ground.uffd)?, leak(&ground.uffd)?);
        let (target, page) = (ground.target(), ground.block.range(0..1));
        let Ground { uffd: first, queue, block, .. } = ground;
        drop(queue);
        drop(first);
        let ears: &'static Ears = Box::leak(Box::new(Ears::new(named)?));
        process::catch(false)?;
        seen.step("call");
        let caller = Mover::start(stage, move || {
            let rc = process::unblock();
            let said = call.make(named, &ears.epoll).unwrap_or_else(|e| format!("{e:?}"));
            let _ = SAID.set(said);
            rc
        })?;
        let next = Next::ready(stage, then, page)?;
        let thread = caller.file()?;
        caller.sleeps_in(&thread, call.numbers())?;
        let before = thread.read()?;
        seen.step("close");
        let rc = match close {
            Close::Last => {
                shut(other);
                shut(named)
            }
            Close::Named => shut(named),
            Close::Other => shut(other),
        };
        seen.fact("close", rc);
        // A wake-up makes a thread runnable within the waking call.
        let stirred = caller.returned() || thread.read() != Ok(before);
        seen.fact("stirred", if stirred { "yes" } else { "no" });
        seen.fact("waiter", stage.word(waiter.look_alone()?));
        seen.fact("reg", crate::evidence::registration(&[(block.range(0..6), PAGE)])?.concat());
        seen.step("then");
        match then {
            Then::Signal => process::signal_thread(caller.tid())?,
            _ => next.go(),
        }
        let (mut second, mut discard) = (next.second, next.discard);
        let deaf = call == Call::Epoll && close == Close::Last && then != Then::Signal;
        if deaf {
            // Nothing that happens to the block is told any more: the other descriptor brings it back.
            if let Some(second) = second.take() {
                seen.fact("second", stage.word(second.end()?));
            }
            if let Some(discard) = discard.take() {
                seen.fact("discard", discard.join()?);
            }
            seen.fact("told", if caller.returned() { "yes" } else { "no" });
            let _ = ears.bell.write(1);
        }
        seen.fact("call", caller.join()?);
        seen.fact("said", SAID.get().map_or("nothing", String::as_str));
        let open = if close == Close::Named { other } else { named };
        if !self.lives() {
            seen.fact("freed", stage.word(waiter.end()?));
            if let Some(second) = second {
                seen.fact("second", stage.word(second.end()?));
            }
            if let Some(discard) = discard {
                seen.fact("discard", discard.join()?);
            }
            return Ok(());
        }
        seen.step("live");
        seen.fact("after", stage.word(waiter.look_alone()?));
        let left = if call == Call::Read { "none".to_owned() } else { mover::word(open.read()) };
        seen.fact("left", left);
        if let Some(discard) = discard {
            seen.fact("discard", discard.join()?);
        }
        if let Some(second) = second {
            seen.fact("copy-second", open.copy(SECOND, stage.source, 0).0);
            seen.fact("second", stage.word(second.end()?));
        }
        seen.fact("copy", open.copy(target, stage.source, 0).0);
        seen.fact("freed", stage.word(waiter.end()?));
        seen.fact("queue", QueueFile::open(open)?.read()?);
        Ok(())
    }

    fn expect(&self, _: KernelVersion) -> Vec<Expected> {
        let Self { call, close, then } = *self;
        let held = "poll(2), select(2) and read(2) hold the open file while they wait (fdget(), \
                    __pollwait()): userfaultfd_release() comes when they let it go";
        let epoll = "epoll(7): a closed file leaves the set, without a word, when no descriptor of it is \
                     left; until then it is reported, by whatever number it was added";
        let stale = "do_poll() and do_select() look up the number again when anything wakes them, a signal as \
                     well: POLLNVAL, which select(2) counts as readable (5.17)";
        let gone = close == Close::Last && !call.holds();
        let mut facts = vec![
            Expected::new("close", "0", "close(2)"),
            Expected::new("stirred", "no", if call.holds() { held } else { epoll }),
            Expected::new("waiter", if gone { "ran:zero" } else { "asleep" }, held),
            Expected::new("reg", if gone { "......" } else { "mmmmmm" }, held),
        ];
        let message = if then == Then::Event { "remove" } else { "pagefault" };
        let (said, why) = match (then, call, close) {
            (Then::Signal, Call::Poll, Close::Last | Close::Named) => ("nval", stale),
            (Then::Signal, Call::Select, Close::Last | Close::Named) => ("in", stale),
            (Then::Signal, ..) => ("EINTR", "signal(7)"),
            (_, Call::Read, _) => (message, held),
            (_, Call::Poll, Close::Last | Close::Named) => ("nval", stale),
            (_, Call::Select, Close::Last | Close::Named) => ("in", stale),
            (_, Call::Epoll, Close::Last) => ("only-the-other", epoll),
            (_, Call::Epoll, _) => ("in", epoll),
            _ => ("in", "userfaultfd_poll()"),
        };
        let faults = matches!(then, Then::UserFault | Then::KernelFault);
        if gone && then != Then::Signal {
            facts.push(if faults {
                Expected::new("second", "ran:zero", source::CLOSE)
            } else {
                Expected::new("discard", "0", source::CLOSE)
            });
            facts.push(Expected::new("told", "no", epoll));
        }
        facts.push(Expected::new("call", "0", why));
        facts.push(Expected::new("said", said, why));
        if self.lives() {
            let left = match (call, then) {
                (Call::Read, _) => "none",
                (_, Then::Signal) => "EAGAIN",
                _ => message,
            };
            facts.extend([
                Expected::new("after", "asleep", held),
                Expected::new("left", left, "userfaultfd(2)"),
            ]);
            if then == Then::Event {
                facts.push(Expected::new("discard", "0", "userfaultfd(2)"));
            }
            if faults {
                facts.push(Expected::new("copy-second", "0", source::COPY));
                facts.push(Expected::new("second", "ran:copied", source::COPY));
            }
            facts.extend([
                Expected::new("copy", "0", source::COPY),
                Expected::new("freed", "ran:copied", source::COPY),
                Expected::new("queue", "0/0", source::COPY),
            ]);
            return facts;
        }
        facts.push(Expected::new("freed", "ran:zero", source::CLOSE));
        if !gone && faults {
            facts.push(Expected::new("second", "ran:zero", source::CLOSE));
        }
        if !gone && then == Then::Event {
            facts.push(Expected::new("discard", "0", source::CLOSE));
        }
        facts
    }

    fn recipe(&self) -> Vec<String> {
        let Self { call, close, then } = self;
        vec![
            "map and register a block of 6 pages, page 2 missing, and one more missing page".to_owned(),
            "a thread loads from page 2 and parks; its message is read".to_owned(),
            format!("a thread waits in {call} on one of two descriptors of the userfaultfd"),
            format!(
                "close {}",
                match close {
                    Close::Last => "both",
                    Close::Named => "that one",
                    Close::Other => "the other one",
                }
            ),
            "look at both threads and at the block's registration".to_owned(),
            format!("then: {then} (on the other page, or of page 0)"),
            "what the call said; what became of everybody; where a descriptor is left, UFFDIO_COPY to \
             the missing pages through it"
                .to_owned(),
        ]
    }
}

/// The cases.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for call in Call::ALL {
        for close in Close::ALL {
            for then in Then::ALL {
                let trial = Closed { call: *call, close: *close, then: *then };
                let by_default = *close != Close::Other || *then == Then::UserFault;
                cases.push(Case::trial(&CLOSED, trial, by_default));
            }
        }
    }
    cases
}
