//! fork(2): which event it raises, the userfaultfd that reading it brings, and what the child's
//! memory is registered with.

mod opened;

use super::ground::{Ground, MISSING, asleep, register};
use crate::abi::{Message, Uffd, features};
use crate::evidence::{self, QueueFile};
use crate::expect::Expected;
use crate::memory::{self, BLOCK, PAGE};
use crate::model::source;
use crate::mover::Mover;
use crate::outcome::{Seen, Stop};
use crate::point::{Backing, PAGES, axis};
use crate::probe::{Case, Probe, Trial};
use crate::process::{Offspring, adopt, with_room};
use crate::stage::Stage;
use crate::touch;
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::os::fd::AsFd;
use uffd_results::KernelVersion;

static FORK: Probe = Probe {
    suite: "events",
    name: "fork",
    statement: "With EVENT_FORK a fork waits until its event is read; reading brings a userfaultfd \
                that owns the child's copy of the registered memory; without an event the child's \
                memory is not registered; a close with the event unread releases the fork only where \
                the child shares the descriptors.",
    consumers: &[
        "CRIU lazy-pages: handle_fork(), criu/uffd.c",
        "crosvm: one userfaultfd a process",
    ],
};

axis! {
    /// What is special.
    Forking {
        /// COPY through the child's userfaultfd.
        CopyChild = "copy-child",
        /// COPY through the parent's; then the child's is closed.
        CopyParent = "copy-parent",
        /// WAKE of the child's waiter through its userfaultfd.
        WakeChild = "wake-child",
        /// The child's userfaultfd is closed while the child waits.
        CloseChild = "close-child",
        /// The child's memory is unregistered through its userfaultfd.
        UnregisterChild = "unregister-child",
        /// The parent's userfaultfd is closed with the event unread.
        CloseUnread = "close-unread",
        /// The same, where parent and child share their descriptors.
        CloseShared = "close-unread-shared-files",
        /// The reader has no free descriptor at first.
        NoDescriptor = "no-descriptor",
        /// The feature was not asked for: the control.
        NoFeature = "no-feature",
        /// Nothing is registered any more.
        Unregistered = "unregistered",
        /// The block is not inherited.
        DontFork = "dontfork",
        /// Half of the block belongs to a second context with the feature.
        TwoContexts = "two-contexts",
    }
}

#[derive(Debug)]
struct Forks {
    backing: Backing,
    forking: Forking,
}

/// What the child does: looks at its registration, then loads from the missing page.
fn live() -> String {
    let block = crate::abi::Range { start: BLOCK, len: PAGES * PAGE };
    let reg = evidence::registration(&[(block, PAGE)])
        .map_or_else(|stop| stop.to_string(), |mut rows| rows.remove(0));
    let saw = touch::load(BLOCK + MISSING * PAGE);
    let saw =
        saw.map_or_else(|signal| signal.to_string(), |v| crate::waiter::content(v).to_owned());
    format!("{reg}:{saw}")
}

/// Reads a fork event; the child's userfaultfd.
pub(super) fn child_of(uffd: &Uffd) -> Result<Uffd, String> {
    match uffd.read() {
        Ok(Message::Fork { fd }) => {
            Ok(Uffd::from_fd(adopt(i32::try_from(fd).map_err(|e| e.to_string())?)))
        }
        Ok(other) => Err(format!("event:{}", other.number())),
        Err(errno) => Err(format!("{errno:?}")),
    }
}

/// The flags of a descriptor in words.
fn flags(uffd: &Uffd) -> String {
    let status = fcntl(uffd, FcntlArg::F_GETFL).map(OFlag::from_bits_truncate);
    let own = fcntl(uffd, FcntlArg::F_GETFD).map(FdFlag::from_bits_truncate);
    let blocks = !status.is_ok_and(|f| f.contains(OFlag::O_NONBLOCK));
    let closes = own.is_ok_and(|f| f.contains(FdFlag::FD_CLOEXEC));
    let (one, two) = (["nonblock", "block"], ["keep", "cloexec"]);
    format!("{}+{}", one[usize::from(blocks)], two[usize::from(closes)])
}

/// Reads with no descriptor free, then with some: what the first read gave, and the caller's state.
fn starve(stage: &Stage, uffd: &Uffd, mover: &Mover, seen: &mut Seen<'_>) -> Result<(), Stop> {
    let starved =
        with_room(uffd, 0, || child_of(uffd).map_or_else(|word| word, |_| "fork".to_owned()))
            .map_err(|e| Stop::Broken(format!("the limit of descriptors: {e:?}")))?;
    seen.fact("starved", starved);
    let (file, _) = asleep(stage, mover)?;
    seen.fact("caller", file.state()?);
    Ok(())
}

impl Forks {
    /// Everything before the fork; the second context, for the case that has one.
    fn prepare(&self, ground: &Ground<'_>) -> Result<Option<Uffd>, Stop> {
        let block = &ground.block;
        match self.forking {
            Forking::Unregistered => {
                ground.uffd.unregister(block.range(0..PAGES));
            }
            Forking::DontFork => {
                memory::advise(block.range(0..PAGES), libc::MADV_DONTFORK);
            }
            Forking::TwoContexts => {
                let second = ground.stage.uffd(features::EVENT_FORK)?;
                ground.uffd.unregister(block.range(4..PAGES));
                register(&second, block.range(4..PAGES))?;
                return Ok(Some(second));
            }
            _ => {}
        }
        Ok(None)
    }

    /// What is done to the child that waits in its fault.
    fn serve(&self, ground: &Ground<'_>, uffd: Uffd, seen: &mut Seen<'_>) -> Result<(), Stop> {
        let stage = ground.stage;
        let queue = QueueFile::open(&uffd)?;
        let timeout = PollTimeout::try_from(stage.patience).unwrap_or(PollTimeout::MAX);
        if poll(&mut [PollFd::new(uffd.as_fd(), PollFlags::POLLIN)], timeout) != Ok(1) {
            return Err(Stop::Hang("the child raised no fault".into()));
        }
        seen.fact("fault", super::ground::word(&uffd, PAGE));
        seen.fact("parents-queue", ground.queue.read()?);
        let target = ground.target();
        match self.forking {
            Forking::CopyParent => {
                seen.fact("copy", ground.uffd.copy(target, stage.source, 0).0);
                seen.fact("childs-queue", queue.read()?);
            }
            Forking::WakeChild => {
                seen.fact("wake", uffd.wake(target));
                if poll(&mut [PollFd::new(uffd.as_fd(), PollFlags::POLLIN)], timeout) != Ok(1) {
                    return Err(Stop::Hang("the woken child raised no fault".into()));
                }
                seen.fact("refault", super::ground::word(&uffd, PAGE));
            }
            Forking::UnregisterChild => {
                seen.fact("unregister", uffd.unregister(ground.block.range(0..PAGES)));
            }
            Forking::CloseChild => {}
            _ => seen.fact("copy", uffd.copy(target, stage.source, 0).0),
        }
        seen.fact("pages", ground.pages()?);
        seen.fact("reg", ground.registration()?);
        // Where nothing else frees the child, this does.
        drop(uffd);
        Ok(())
    }
}

impl Trial for Forks {
    fn axes(&self) -> String {
        format!("backing={},case={}", self.backing, self.forking)
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        seen.step("set-up");
        let wants = if self.forking == Forking::NoFeature { 0 } else { features::EVENT_FORK };
        let ground = Ground::set(stage, self.backing, wants)?;
        let second = self.prepare(&ground)?;
        seen.step("fork");
        let shares = self.forking == Forking::CloseShared;
        let flags_of_clone = if shares { libc::CLONE_FILES } else { 0 };
        let (mover, child) = Offspring::fork_with(stage, flags_of_clone, live)?;
        let raised = mover.blocks_on_event(&ground.uffd)?;
        seen.fact("event", if raised { "yes" } else { "no" });
        if self.forking == Forking::CloseUnread {
            let (file, before) = asleep(stage, &mover)?;
            drop(ground.uffd);
            asleep(stage, &mover)?;
            seen.fact("caller", file.state()?);
            let ran = file.read()?.runs != before.runs;
            seen.fact("stirred", if ran { "yes" } else { "no" });
            // Only a fatal signal ends the fork now: the end of this process is one.
            return Ok(());
        }
        if shares {
            drop(ground.uffd);
            seen.fact("call", mover.join()?);
            seen.fact("child", child.word()?);
            seen.fact("ended", child.end()?);
            return Ok(());
        }
        if self.forking == Forking::NoDescriptor && raised {
            starve(stage, &ground.uffd, &mover, seen)?;
        }
        let (mut childs, mut kept) = (None, None);
        if raised {
            let (rc, _) = ground.uffd.copy(ground.target(), stage.source, 0);
            seen.fact("unread-copy", rc);
            match child_of(&ground.uffd) {
                Ok(uffd) => {
                    seen.fact("flags", flags(&uffd));
                    childs = Some(uffd);
                }
                Err(word) => seen.fact("flags", word),
            }
        }
        if let Some(second) = &second {
            let raised = mover.blocks_on_event(second)?;
            seen.fact("second-event", if raised { "yes" } else { "no" });
            // Kept open until the child has looked at its registration.
            kept = child_of(second).ok();
        }
        seen.fact("call", mover.join()?);
        if let Some(uffd) = childs {
            seen.step("child");
            self.serve(&ground, uffd, seen)?;
        }
        seen.fact("left", ground.read());
        seen.fact("child", child.word()?);
        seen.fact("ended", child.end()?);
        drop(kept);
        Ok(())
    }

    fn expect(&self, _: KernelVersion) -> Vec<Expected> {
        expect(self.backing, self.forking)
    }

    fn recipe(&self) -> Vec<String> {
        vec![
            format!("map a block of 6 pages ({}), page 2 missing; register it", self.backing),
            "a thread forks; the child looks at its registration and loads from page 2".to_owned(),
            "is an event there? UFFDIO_COPY to page 2; read the event".to_owned(),
            format!("what is special: {}", self.forking),
            "read from the parent's userfaultfd; hear what the child saw".to_owned(),
        ]
    }
}

fn expect(backing: Backing, forking: Forking) -> Vec<Expected> {
    let says = "userfaultfd(2), UFFD_EVENT_FORK; dup_userfaultfd(): a new context for the child";
    let silent = "dup_userfaultfd(): without the feature the child's mapping loses the context";
    let is_silent =
        matches!(forking, Forking::NoFeature | Forking::Unregistered | Forking::DontFork);
    let mut facts = vec![Expected::new("event", if is_silent { "no" } else { "yes" }, says)];
    if forking == Forking::CloseUnread {
        let says = "copy_process() copies the descriptors before the memory: the child that is not born \
                    yet holds the userfaultfd, so the parent's close is not the last";
        facts.push(Expected::new("caller", "D", says));
        facts.push(Expected::new("stirred", "no", says));
        return facts;
    }
    if forking == Forking::CloseShared {
        let says = "userfaultfd_release_new(): a fork whose event is never read leaves the child's \
                    memory without registration";
        facts.push(Expected::new("call", "0", says));
        facts.push(Expected::new("child", "......:zero", says));
        facts.push(Expected::new("ended", "exit:0", says));
        return facts;
    }
    if is_silent {
        let child = if forking == Forking::DontFork { "------:SEGV_MAPERR" } else { "......:zero" };
        facts.push(Expected::new("call", "0", silent));
        facts.push(Expected::new("left", "EAGAIN", silent));
        facts.push(Expected::new("child", child, silent));
        return facts;
    }
    if forking == Forking::NoDescriptor {
        let says =
            "userfaultfd_ctx_read(): the event goes back to the queue if no descriptor is free";
        facts.push(Expected::new("starved", "EMFILE", says));
        facts.push(Expected::new("caller", "D", says));
    }
    facts.push(Expected::new("unread-copy", "EAGAIN", says));
    facts.push(Expected::new("flags", "nonblock+cloexec", opened::KEPT));
    if forking == Forking::TwoContexts {
        facts.push(Expected::new("second-event", "yes", says));
    }
    facts.push(Expected::new("call", "0", says));
    facts.push(Expected::new("fault", "pagefault@2", says));
    facts.push(Expected::new("parents-queue", "0/0", says));
    let shared = backing == Backing::Shmem || backing == Backing::SharedAnon;
    let saw = match forking {
        Forking::CopyParent => {
            facts.push(Expected::new("copy", "0", says));
            facts.push(Expected::new("childs-queue", "1/0", says));
            if shared { "copied" } else { "zero" }
        }
        Forking::WakeChild => {
            facts.push(Expected::new("wake", "0", source::WAKE));
            facts.push(Expected::new("refault", "pagefault@2", source::RERUN));
            "zero"
        }
        Forking::CloseChild => "zero",
        Forking::UnregisterChild => {
            facts.push(Expected::new("unregister", "0", source::UNREGISTER));
            "zero"
        }
        _ => {
            facts.push(Expected::new("copy", "0", source::COPY));
            "copied"
        }
    };
    let pages = if forking == Forking::CopyParent { "kkckkk" } else { "kk-kkk" };
    facts.push(Expected::new("pages", pages, says));
    facts.push(Expected::new("reg", "mmmmmm", says));
    facts.push(Expected::new("left", "EAGAIN", says));
    facts.push(Expected::new("child", format!("mmmmmm:{saw}"), says));
    facts.push(Expected::new("ended", "exit:0", says));
    facts
}

/// The cases.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for backing in [Backing::Anon, Backing::Shmem, Backing::Private, Backing::SharedAnon] {
        for forking in Forking::ALL {
            let by_default = matches!(backing, Backing::Anon | Backing::Shmem);
            let trial = Forks { backing, forking: *forking };
            cases.push(Case::trial(&FORK, trial, by_default));
        }
    }
    cases.extend(opened::cases());
    cases
}
