//! The flags of the child's userfaultfd: those that the parent's was made with, whatever fcntl(2) has made
//! of them since.

use super::{child_of, flags, register};
use crate::abi::{Rc, Uffd, features};
use crate::events::ground::queues_behind;
use crate::expect::Expected;
use crate::memory::{BLOCK, Block};
use crate::outcome::{Seen, Stop};
use crate::point::{Backing, PAGES, axis};
use crate::probe::{Case, Probe, Trial};
use crate::process::Offspring;
use crate::stage::Stage;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::os::fd::AsFd;
use uffd_results::KernelVersion;

/// Which flags the child's has.
pub(super) const KEPT: &str = "resolve_userfault_fork() in fs/userfaultfd.c: UFFD_SHARED_FCNTL_FLAGS \
    (O_CLOEXEC, O_NONBLOCK) of what the context keeps from userfaultfd(2)";
const POLL: &str = "userfaultfd_poll() in fs/userfaultfd.c: POLLERR without O_NONBLOCK, nothing where \
    nothing is unread";

static OPENED: Probe = Probe {
    suite: "events",
    name: "fork-flags",
    statement: "The userfaultfd that a fork's event brings has O_NONBLOCK and O_CLOEXEC where the parent's \
                was made with them; what fcntl(2) has set or cleared since does not count. Without \
                O_NONBLOCK poll(2) finds it in error.",
    consumers: &[
        "CRIU lazy-pages: handle_fork() adds the child's userfaultfd to epoll, criu/uffd.c",
    ],
};

axis! {
    /// How the parent's is made.
    Opened {
        /// As every other case does.
        Both = "nonblock+cloexec",
        NonBlock = "nonblock+keep",
        CloseOnExec = "block+cloexec",
        Neither = "block+keep",
    }
}

impl Opened {
    const fn bits(self) -> i32 {
        match self {
            Self::Both => libc::O_NONBLOCK | libc::O_CLOEXEC,
            Self::NonBlock => libc::O_NONBLOCK,
            Self::CloseOnExec => libc::O_CLOEXEC,
            Self::Neither => 0,
        }
    }

    const fn blocks(self) -> bool {
        self.bits() & libc::O_NONBLOCK == 0
    }
}

axis! {
    /// What fcntl(2) does to it before the fork.
    Later {
        /// Nothing.
        Nothing = "nothing",
        /// O_NONBLOCK and FD_CLOEXEC are set.
        Set = "set",
        /// Both are cleared.
        Cleared = "cleared",
    }
}

#[derive(Clone, Copy, Debug)]
struct Flags {
    opened: Opened,
    later: Later,
}

impl Flags {
    /// The words for the parent's flags at the fork.
    fn parents(self) -> String {
        match self.later {
            Later::Nothing => self.opened.to_string(),
            Later::Set => Opened::Both.to_string(),
            Later::Cleared => Opened::Neither.to_string(),
        }
    }

    fn change(self, uffd: &Uffd) -> Result<(), Errno> {
        let (status, own) = match self.later {
            Later::Nothing => return Ok(()),
            Later::Set => (OFlag::O_NONBLOCK, FdFlag::FD_CLOEXEC),
            Later::Cleared => (OFlag::empty(), FdFlag::empty()),
        };
        match uffd.set_status(status) {
            Rc(Some(errno)) => Err(errno),
            Rc(None) => fcntl(uffd, FcntlArg::F_SETFD(own)).map(drop),
        }
    }
}

impl Trial for Flags {
    fn axes(&self) -> String {
        format!("opened={},later={}", self.opened, self.later)
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        seen.step("set-up");
        stage.must_offer(features::EVENT_FORK)?;
        // Says why, where it can't be had.
        drop(stage.uffd(features::EVENT_FORK)?);
        let broken = |what: &str, e: Errno| Stop::Broken(format!("{what}: {e:?}"));
        let block = Block::map(Backing::Anon, BLOCK)?;
        let uffd = Uffd::open_with(stage.way.clone()?, self.opened.bits())
            .map_err(|e| broken("making a userfaultfd", e))?;
        uffd.api(features::EVENT_FORK).map_err(|e| broken("UFFDIO_API", e))?;
        register(&uffd, block.range(0..PAGES))?;
        self.change(&uffd).map_err(|e| broken("fcntl", e))?;
        seen.fact("parent", flags(&uffd));
        seen.step("fork");
        let (mover, child) = Offspring::fork(stage, || "ended".to_owned())?;
        // A blocking one can't be polled; that the fork waits tells that its event is there.
        let raised = if self.parents().starts_with("nonblock") {
            mover.blocks_on_event(&uffd)?
        } else {
            queues_behind(stage, &mover)?
        };
        if !raised {
            return Err(Stop::Broken("the fork raised no event".into()));
        }
        let childs =
            child_of(&uffd).map_err(|e| Stop::Broken(format!("reading the event: {e}")))?;
        seen.fact("flags", flags(&childs));
        let mut fds = [PollFd::new(childs.as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::ZERO).map_err(|e| broken("poll", e))?;
        let error = PollFlags::POLLERR;
        let word = match fds[0].revents().unwrap_or(error) {
            bits if bits.is_empty() => "nothing".to_owned(),
            bits if bits == error => "POLLERR".to_owned(),
            other => other.bits().to_string(),
        };
        seen.fact("poll", word);
        seen.fact("call", mover.join()?);
        seen.fact("child", child.word()?);
        seen.fact("ended", child.end()?);
        Ok(())
    }

    fn expect(&self, _: KernelVersion) -> Vec<Expected> {
        let poll = if self.opened.blocks() { "POLLERR" } else { "nothing" };
        vec![
            Expected::new("parent", self.parents(), "fcntl(2), F_GETFL and F_GETFD"),
            Expected::new("flags", self.opened.to_string(), KEPT),
            Expected::new("poll", poll, POLL),
            Expected::new("call", "0", "fork(2)"),
            Expected::new("child", "ended", "fork(2)"),
            Expected::new("ended", "exit:0", "wait(2)"),
        ]
    }

    fn recipe(&self) -> Vec<String> {
        vec![
            format!(
                "make a userfaultfd that is {}, with EVENT_FORK; register a block of 6 pages",
                self.opened
            ),
            format!(
                "fcntl(F_SETFL) of O_NONBLOCK and fcntl(F_SETFD) of FD_CLOEXEC: {}",
                self.later
            ),
            "a thread forks, and waits; read the event".to_owned(),
            "fcntl(F_GETFL), fcntl(F_GETFD) and poll of the child's userfaultfd".to_owned(),
        ]
    }
}

/// The cases. Of what fcntl(2) changes, those are defaults in which it does change something.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for opened in Opened::ALL.iter().copied() {
        for later in Later::ALL.iter().copied() {
            let by_default = match later {
                Later::Nothing => true,
                Later::Set => opened == Opened::Neither,
                Later::Cleared => opened == Opened::Both,
            };
            cases.push(Case::trial(&OPENED, Flags { opened, later }, by_default));
        }
    }
    cases
}
