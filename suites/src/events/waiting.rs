//! Waiters of memory whose event is unread, and after it was read: whom does it wake?

use super::call::{Call, Fresh, How, Ready, What};
use super::ground::{ALL, Ground};
use crate::expect::Expected;
use crate::memory::ELSEWHERE;
use crate::model::source as says;
use crate::mover::Mover;
use crate::outcome::{Seen, Stop};
use crate::point::{Backing, PAGES, Waiter as Kind, axis};
use crate::probe::{Case, Probe, Trial};
use crate::stage::Stage;
use crate::waiter::{Fate, Waiter};
use uffd_results::KernelVersion;

static WAITER: Probe = Probe {
    suite: "events",
    name: "waiter",
    statement: "An event wakes no waiter of its range, neither when it is raised nor when it is read; \
                afterwards a waiter comes free as it would without events, and COPY to the new place \
                of moved memory does not reach one that waits at the old.",
    consumers: &[
        "CRIU lazy-pages: handle_page_fault(), criu/uffd.c",
        "Firecracker UFFD handlers: on_demand_handler",
        "E2B orchestrator: faultPage()",
    ],
};

axis! {
    /// What raises the event.
    By {
        /// `madvise(MADV_DONTNEED)`.
        Remove = "remove",
        /// `munmap(2)`.
        Unmap = "unmap",
        /// `mmap(2)` with MAP_FIXED.
        Over = "mmap-over",
        /// `mremap(2)`.
        Remap = "remap",
    }
}

axis! {
    /// What is done after the event was read.
    Then {
        /// `UFFDIO_COPY` to the page where the thread waits.
        Copy = "copy",
        /// `UFFDIO_COPY` to the page where it is now.
        CopyNew = "copy-new",
        /// `UFFDIO_WAKE` where the thread waits: the control.
        Wake = "wake",
        /// `UFFDIO_WAKE` where the page is now.
        WakeNew = "wake-new",
        /// `UFFDIO_UNREGISTER` of the block's place.
        Unregister = "unregister",
        /// `UFFDIO_UNREGISTER` of its new place.
        UnregisterNew = "unregister-new",
        /// The last close.
        Close = "close",
    }
}

#[derive(Debug)]
struct Waits {
    backing: Backing,
    kind: Kind,
    by: By,
    then: Then,
}

impl By {
    const fn call(self) -> Call {
        match self {
            Self::Remove => Call::Advise(super::call::Advice::DontNeed, What::Middle),
            Self::Unmap => Call::Unmap(What::Middle),
            Self::Over => Call::Over(What::Middle, Fresh::Anon),
            Self::Remap => Call::Remap(How::Move),
        }
    }
}

impl Trial for Waits {
    fn axes(&self) -> String {
        let Self { backing, kind, by, then } = self;
        format!("backing={backing},waiter={kind},by={by},then={then}")
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        let Self { backing, kind, by, then } = *self;
        seen.step("set-up");
        let ground = Ground::set(stage, backing, ALL.bits)?;
        let old = ground.target();
        let new = ground.block.at(ELSEWHERE, super::ground::MISSING..super::ground::MISSING + 1);
        let ready = Ready::new(&ground, by.call())?;
        seen.step("park");
        let mut waiter = Waiter::park(stage, kind, old, &ground.uffd, &ground.queue)?;
        seen.fact("fault", ground.read());
        seen.step("call");
        let mover = Mover::start(stage, ready.call(&ground.block, by.call()))?;
        let mut first = true;
        while mover.blocks_on_event(&ground.uffd)? {
            if first {
                let fate = waiter.look_by_queue(&ground.queue)?;
                seen.fact("unread", stage.word(fate));
            }
            first = false;
            ground.read();
        }
        seen.fact("call", mover.join()?);
        let fate = waiter.look(&ground.uffd, &ground.queue)?;
        seen.fact("read", stage.word(fate));
        seen.step("then");
        let Ground { uffd, queue, block, .. } = ground;
        let rc = match then {
            Then::Copy => uffd.copy(old, stage.source, 0).0,
            Then::CopyNew => uffd.copy(new, stage.source, 0).0,
            Then::Wake => uffd.wake(old),
            Then::WakeNew => uffd.wake(new),
            Then::Unregister => uffd.unregister(block.range(0..PAGES)),
            Then::UnregisterNew => uffd.unregister(block.at(ELSEWHERE, 0..PAGES)),
            Then::Close => {
                drop(uffd);
                seen.fact("waiter", stage.word(waiter.end()?));
                return Ok(());
            }
        };
        seen.fact("then", rc);
        let fate = waiter.look(&uffd, &queue)?;
        seen.fact("waiter", stage.word(fate));
        if fate == Fate::Asleep {
            seen.step("free");
            uffd.wake(old);
            let fate = waiter.look(&uffd, &queue)?;
            seen.fact("woken", stage.word(fate));
        }
        Ok(())
    }

    fn expect(&self, _: KernelVersion) -> Vec<Expected> {
        let Self { kind, by, then, .. } = *self;
        let hole = if kind.in_kernel() { "EFAULT" } else { "SEGV_MAPERR" };
        // The woken thread meets what is there now.
        let met = match by {
            By::Remove => "again",
            By::Unmap | By::Remap => hole,
            By::Over => "ran:zero",
        };
        let mut facts = vec![
            Expected::new("fault", "pagefault@2", "ioctl_userfaultfd(2)"),
            Expected::new("unread", "asleep", says::QUEUE),
            Expected::new("call", "0", says::QUEUE),
            Expected::new("read", "asleep", says::QUEUE),
        ];
        let (rc, fate, why) = match (then, by) {
            (Then::Copy, By::Remove) => ("0", "ran:copied", says::COPY),
            (Then::Copy, _) => ("ENOENT", "asleep", says::COPY_ENOENT),
            (Then::CopyNew, _) => ("0", "asleep", says::COPY),
            (Then::Wake, _) => ("0", met, says::WAKE),
            (Then::WakeNew, _) => ("0", "asleep", says::WAKE),
            (Then::Unregister, By::Remove) => ("0", "ran:zero", says::UNREGISTER_WAKES),
            (Then::Unregister, By::Remap) => ("EINVAL", "asleep", says::UNREGISTER_EINVAL),
            (Then::Unregister | Then::UnregisterNew, _) => ("0", "asleep", says::UNREGISTER_WAKES),
            (Then::Close, By::Remove) => ("", "ran:zero", says::CLOSE),
            (Then::Close, _) => ("", met, says::CLOSE),
        };
        if then != Then::Close {
            facts.push(Expected::new("then", rc, why));
        }
        facts.push(Expected::new("waiter", fate, why));
        if fate == "asleep" {
            facts.push(Expected::new("woken", met, says::WAKE));
        }
        facts
    }

    fn recipe(&self) -> Vec<String> {
        let Self { backing, kind, by, then } = self;
        vec![
            format!("map a block of 6 pages ({backing}); write to all but page 2"),
            "UFFDIO_API with the events remap, remove and unmap; UFFDIO_REGISTER for missing pages"
                .to_owned(),
            format!("a {kind} thread accesses page 2 and parks; its message is read"),
            format!(
                "another thread calls {}; look at the waiter while its event is unread",
                by.call()
            ),
            "read its events; when the call has returned look at the waiter".to_owned(),
            format!("do {then}; look at the waiter; if it still waits, UFFDIO_WAKE of page 2"),
        ]
    }
}

/// The cases.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for backing in [Backing::Anon, Backing::Shmem, Backing::Private, Backing::SharedAnon] {
        for kind in [Kind::UserRead, Kind::SysWrite] {
            for by in By::ALL {
                for then in Then::ALL {
                    let is_new =
                        matches!(then, Then::CopyNew | Then::WakeNew | Then::UnregisterNew);
                    if is_new && *by != By::Remap {
                        continue;
                    }
                    let by_default = match kind {
                        Kind::UserRead => matches!(backing, Backing::Anon | Backing::Shmem),
                        _ => backing == Backing::Anon,
                    };
                    let trial = Waits { backing, kind, by: *by, then: *then };
                    cases.push(Case::trial(&WAITER, trial, by_default));
                }
            }
        }
    }
    cases
}
