//! poll(2), select(2) and epoll(7) on a userfaultfd in every state.

use super::setting::Setting;
use crate::abi::{Uffd, Way};
use crate::expect::Expected;
use crate::outcome::{Seen, Stop};
use crate::point::axis;
use crate::probe::{Case, Probe, Trial};
use crate::stage::Stage;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::select::{FdSet, select};
use nix::sys::time::{TimeVal, TimeValLike};
use std::os::fd::AsFd;
use uffd_results::KernelVersion;

const POLL: &str = "userfaultfd_poll() in fs/userfaultfd.c: POLLERR before UFFDIO_API and without \
    O_NONBLOCK, POLLIN while a message is unread, else nothing";
const EDGE: &str = "epoll(7): an edge-triggered descriptor is reported once a wake-up of its queue";

static READY: Probe = Probe {
    suite: "handle",
    name: "ready",
    statement: "A non-blocking userfaultfd is readable while a message is unread and in no other state; one \
                before UFFDIO_API or without O_NONBLOCK is in error for ever.",
    consumers: &[
        "QEMU: postcopy_ram_fault_thread() and vhost-user postcopy, qemu_set_blocking()",
        "superserve: O_NONBLOCK cleared, then POLLERR",
        "crosvm: swap/ says that epoll works as edge-triggered",
        "Firecracker: examples/uffd",
    ],
};
static INTEREST: Probe = Probe {
    suite: "handle",
    name: "interest",
    statement: "poll(2) reports only what was asked for, and errors always.",
    consumers: &["CRIU: lazy-pages daemon, criu/uffd.c"],
};

axis! {
    /// What has happened to the userfaultfd.
    State {
        BeforeApi = "before-api",
        Idle = "idle",
        Unread = "unread",
        Read = "read",
        OneOfTwo = "one-of-two-read",
        Woken = "woken-unread",
        WokenAgain = "read-woken-again",
    }
}

axis! {
    /// How it is asked whether the userfaultfd is ready.
    Call {
        Poll = "poll",
        Select = "select",
        Level = "epoll",
        Edge = "epoll-edge",
        OneShot = "epoll-oneshot",
        Exclusive = "epoll-exclusive",
    }
}

/// The word for what is ready: in, out, in error, hung up.
fn word(ready: [bool; 4]) -> String {
    let all = ready.into_iter().zip(["in", "out", "err", "hup"]);
    let words: Vec<_> = all.filter(|(is, _)| *is).map(|(_, word)| word).collect();
    if words.is_empty() { "none".into() } else { words.join("+") }
}

fn broken(e: nix::errno::Errno) -> Stop {
    Stop::Broken(format!("asking whether a userfaultfd is ready: {e:?}"))
}

/// One poll(2) without waiting.
fn poll_for(uffd: &Uffd, events: PollFlags) -> Result<String, Stop> {
    let mut fds = [PollFd::new(uffd.as_fd(), events)];
    nix::poll::poll(&mut fds, PollTimeout::ZERO).map_err(broken)?;
    let got = fds[0].revents().unwrap_or(PollFlags::empty());
    let all = [PollFlags::POLLIN, PollFlags::POLLOUT, PollFlags::POLLERR, PollFlags::POLLHUP];
    Ok(word(all.map(|flag| got.contains(flag))))
}

/// One poll(2) for reading, without waiting.
pub(super) fn poll(uffd: &Uffd) -> Result<String, Stop> {
    poll_for(uffd, PollFlags::POLLIN | PollFlags::POLLOUT)
}

/// A way to ask.
enum Asker {
    Poll,
    Select,
    Epoll(Epoll),
}

impl Asker {
    fn new(call: Call, uffd: &Uffd) -> Result<Self, Stop> {
        let more = match call {
            Call::Poll => return Ok(Self::Poll),
            Call::Select => return Ok(Self::Select),
            Call::Level => EpollFlags::EPOLLOUT,
            Call::Edge => EpollFlags::EPOLLOUT | EpollFlags::EPOLLET,
            Call::OneShot => EpollFlags::EPOLLOUT | EpollFlags::EPOLLONESHOT,
            Call::Exclusive => EpollFlags::EPOLLOUT | EpollFlags::EPOLLEXCLUSIVE,
        };
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(broken)?;
        let event = EpollEvent::new(EpollFlags::EPOLLIN | more, 1);
        epoll.add(uffd.as_fd(), event).map_err(broken)?;
        Ok(Self::Epoll(epoll))
    }

    fn ask(&self, uffd: &Uffd) -> Result<String, Stop> {
        match self {
            Self::Poll => poll(uffd),
            Self::Select => {
                let [mut reads, mut writes, mut excepts] =
                    [FdSet::new(), FdSet::new(), FdSet::new()];
                for set in [&mut reads, &mut writes, &mut excepts] {
                    set.insert(uffd.as_fd());
                }
                let mut none = TimeVal::zero();
                select(None, &mut reads, &mut writes, &mut excepts, &mut none).map_err(broken)?;
                let has = |set: &FdSet<'_>| set.contains(uffd.as_fd());
                Ok(word([has(&reads), has(&writes), has(&excepts), false]))
            }
            Self::Epoll(epoll) => {
                let mut events = [EpollEvent::empty(); 2];
                let n = epoll.wait(&mut events, EpollTimeout::ZERO).map_err(broken)?;
                let got = events[..n].first().map_or(EpollFlags::empty(), EpollEvent::events);
                let all = [
                    EpollFlags::EPOLLIN,
                    EpollFlags::EPOLLOUT,
                    EpollFlags::EPOLLERR,
                    EpollFlags::EPOLLHUP,
                ];
                Ok(word(all.map(|flag| got.contains(flag))))
            }
        }
    }
}

/// A call on a descriptor in a state.
#[derive(Debug)]
struct Ready {
    blocking: bool,
    state: State,
    call: Call,
}

impl Ready {
    /// Asks as the state is reached: after every step that could change the answer.
    fn look(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        if self.state == State::BeforeApi {
            let flags = if self.blocking { 0 } else { libc::O_NONBLOCK };
            let way = stage.way.clone()?;
            let uffd = super::open::made(stage, way, libc::O_CLOEXEC | flags)?;
            let asker = Asker::new(self.call, &uffd)?;
            seen.fact("ready", asker.ask(&uffd)?);
            seen.fact("still", asker.ask(&uffd)?);
            return Ok(());
        }
        let setting = Setting::new(stage, stage.uffd(0)?)?;
        let uffd = &setting.uffd;
        if self.blocking && self.state == State::Idle {
            uffd.set_status(OFlag::empty());
        }
        let asker = Asker::new(self.call, uffd)?;
        let park = |pages| setting.park(pages);
        let mut waiters = match self.state {
            State::BeforeApi | State::Idle => Vec::new(),
            State::Unread | State::Read | State::Woken | State::WokenAgain => park(2..3)?,
            State::OneOfTwo => park(2..4)?,
        };
        if self.blocking {
            // Only now: that a waiter has parked is proved with poll(2).
            let rc = uffd.set_status(OFlag::empty());
            if !rc.is_ok() {
                return Err(Stop::Broken(format!("F_SETFL: {rc}")));
            }
        }
        if matches!(self.state, State::Read | State::OneOfTwo | State::WokenAgain) {
            seen.fact("before", asker.ask(uffd)?);
            uffd.read().map_err(broken)?;
        }
        if self.state == State::Woken {
            seen.fact("copy", uffd.copy(setting.block.range(2..3), stage.source, 0).0);
        }
        if self.state == State::WokenAgain {
            seen.fact("wake", uffd.wake(setting.block.range(2..3)));
            let nonblock = uffd.set_status(OFlag::O_NONBLOCK);
            if let Some(waiter) = waiters.first_mut() {
                seen.fact("waiter", stage.word(waiter.look(uffd, &setting.queue)?));
            }
            if self.blocking && nonblock.is_ok() {
                uffd.set_status(OFlag::empty());
            }
        }
        seen.fact("ready", asker.ask(uffd)?);
        seen.fact("still", asker.ask(uffd)?);
        drop(asker);
        setting.release(&waiters)
    }
}

impl Trial for Ready {
    fn axes(&self) -> String {
        let fd = if self.blocking { "blocking" } else { "nonblock" };
        format!("call={},fd={fd},state={}", self.call.word(), self.state.word())
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        self.look(stage, seen)
    }

    fn expect(&self, _: KernelVersion) -> Vec<Expected> {
        let error = if self.call == Call::Select { "in+out" } else { "err" };
        let readable = if self.blocking || self.state == State::BeforeApi { error } else { "in" };
        let unreadable = if readable == "in" { "none" } else { error };
        let (mut facts, mut ready, mut still) = match self.state {
            State::BeforeApi => (vec![], error, error),
            State::Idle | State::Woken => (vec![], unreadable, unreadable),
            State::Unread => (vec![], readable, readable),
            State::Read => (vec![("before", readable)], unreadable, unreadable),
            State::OneOfTwo => (vec![("before", readable)], readable, readable),
            State::WokenAgain => {
                (vec![("before", readable), ("wake", "0"), ("waiter", "again")], readable, readable)
            }
        };
        if self.state == State::Woken {
            facts.push(("copy", "0"));
        }
        let once = matches!(self.call, Call::Edge | Call::OneShot);
        if once {
            still = "none";
            let asked_before = facts.iter().any(|(name, _)| *name == "before");
            // A new message is a new edge; what is left of two is not.
            let edge = self.call == Call::Edge && self.state == State::WokenAgain;
            if asked_before && !edge {
                ready = "none";
            }
        }
        let source = if once { EDGE } else { POLL };
        facts
            .into_iter()
            .chain([("ready", ready), ("still", still)])
            .map(|(name, value)| Expected::new(name, value, source))
            .collect()
    }

    fn recipe(&self) -> Vec<String> {
        vec![
            format!("bring a userfaultfd into the state {:?}", self.state.word()),
            format!("{} without waiting, for reading and writing, twice", self.call.word()),
        ]
    }
}

/// poll(2) for some events.
#[derive(Debug)]
struct Interest {
    name: &'static str,
    events: PollFlags,
    unread: bool,
    blocking: bool,
}

impl Trial for Interest {
    fn axes(&self) -> String {
        let state = if self.unread { "unread" } else { "idle" };
        let fd = if self.blocking { "blocking" } else { "nonblock" };
        format!("events={},fd={fd},state={state}", self.name)
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        let setting = Setting::new(stage, stage.uffd(0)?)?;
        let waiters = if self.unread { setting.park(2..3)? } else { Vec::new() };
        if self.blocking {
            setting.uffd.set_status(OFlag::empty());
        }
        seen.fact("ready", poll_for(&setting.uffd, self.events)?);
        setting.release(&waiters)
    }

    fn expect(&self, _: KernelVersion) -> Vec<Expected> {
        let asked = self.events.contains(PollFlags::POLLIN) && self.unread;
        let ready = match (self.blocking, asked) {
            (true, _) => "err",
            (false, true) => "in",
            (false, false) => "none",
        };
        vec![Expected::new("ready", ready, POLL)]
    }

    fn recipe(&self) -> Vec<String> {
        vec![format!("poll(2) for {} of a userfaultfd", self.name)]
    }
}

/// A descriptor made non-blocking, or blocking, after it was opened.
#[derive(Debug)]
struct Switched {
    way: Way,
    ioctl: bool,
}

static SWITCHED: Probe = Probe {
    suite: "handle",
    name: "switched",
    statement: "O_NONBLOCK may be set and cleared later; poll(2) and read(2) follow at once.",
    consumers: &["QEMU: qemu_set_blocking() of a vhost-user backend's userfaultfd", "superserve"],
};

impl Trial for Switched {
    fn axes(&self) -> String {
        format!("by={},way={}", if self.ioctl { "FIONBIO" } else { "F_SETFL" }, self.way.word())
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        let uffd = super::open::made(stage, self.way, libc::O_CLOEXEC)?;
        uffd.api(0).map_err(broken)?;
        let setting = Setting::new(stage, uffd)?;
        let uffd = &setting.uffd;
        let at = super::setting::buffer()?;
        let set = |on: bool| {
            if !self.ioctl {
                return uffd.set_status(if on { OFlag::O_NONBLOCK } else { OFlag::empty() });
            }
            match crate::touch::store(at, u64::from(on)) {
                Ok(()) => uffd.raw(0x5421, at),
                Err(_) => crate::abi::Rc(Some(nix::errno::Errno::EFAULT)),
            }
        };
        seen.fact("blocking", poll(uffd)?);
        seen.fact("set", set(true));
        seen.fact("idle", poll(uffd)?);
        seen.fact("read", super::setting::counted(uffd.read_into((at, 32))));
        let waiters = setting.park(2..3)?;
        seen.fact("unread", poll(uffd)?);
        seen.fact("clear", set(false));
        seen.fact("blocking-again", poll(uffd)?);
        seen.fact("read-again", super::setting::counted(uffd.read_into((at, 32))));
        setting.release(&waiters)
    }

    fn expect(&self, _: KernelVersion) -> Vec<Expected> {
        [
            ("blocking", "err"),
            ("set", "0"),
            ("idle", "none"),
            ("read", "EAGAIN"),
            ("unread", "in"),
            ("clear", "0"),
            ("blocking-again", "err"),
            ("read-again", "32"),
        ]
        .into_iter()
        .map(|(name, value)| Expected::new(name, value, POLL))
        .collect()
    }

    fn recipe(&self) -> Vec<String> {
        vec![
            "a blocking userfaultfd; poll(2); make it non-blocking; poll(2) and read(2)".into(),
            "a thread parks; poll(2); make it blocking again; poll(2) and read(2)".into(),
        ]
    }
}

/// The cases.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for call in Call::ALL {
        for state in State::ALL {
            for blocking in [false, true] {
                let trial = Ready { blocking, state: *state, call: *call };
                cases.push(Case::trial(&READY, trial, true));
            }
        }
    }
    let events = [
        ("in", PollFlags::POLLIN),
        ("out", PollFlags::POLLOUT),
        ("pri", PollFlags::POLLPRI),
        ("none", PollFlags::empty()),
    ];
    for (name, events) in events {
        for (unread, blocking) in [(false, false), (false, true), (true, false), (true, true)] {
            let trial = Interest { name, events, unread, blocking };
            cases.push(Case::trial(&INTEREST, trial, true));
        }
    }
    for way in [Way::Syscall, Way::Device, Way::UserModeOnly] {
        for ioctl in [false, true] {
            cases.push(Case::trial(&SWITCHED, Switched { way, ioctl }, true));
        }
    }
    cases
}
