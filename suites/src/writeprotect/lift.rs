//! Whom WRITEPROTECT wakes, and whom it leaves asleep.

use super::{BACKGROUND, E2B, FAULTS, LIFTS, SHOWN, row};
use crate::abi::{
    REGISTER_MODE_WP, Uffd, WRITEPROTECT_MODE_DONTWAKE, WRITEPROTECT_MODE_WP, features,
};
use crate::edge::UNREGISTER_LIFTS;
use crate::expect::{Expected, OBSERVED};
use crate::lab::{Lab, SMALL, want};
use crate::memory::OTHER;
use crate::model::source;
use crate::mover::{self, Mover};
use crate::outcome::{Seen, Stop};
use crate::point::{Backing, PAGES, Waiter as Kind, axis};
use crate::probe::{Case, Probe, Trial};
use crate::protection::Protection;
use crate::stage::Stage;
use uffd_results::KernelVersion;

static LEAVES: Probe = Probe {
    suite: "writeprotect",
    name: "leaves-asleep",
    statement: "A writer parked at a protected page sleeps on when other pages are freed, when its page is \
                freed with MODE_DONTWAKE or through another userfaultfd, when it is protected again, \
                when the call fails, and when the block is unregistered.",
    consumers: &[BACKGROUND, E2B],
};
static WAKES: Probe = Probe {
    suite: "writeprotect",
    name: "leaves-asleep-control",
    statement: "A writer parked at a protected page is woken when the protection of its page is removed \
                with whatever lies around it, and by WAKE, which leaves the protection, so that it \
                parks again.",
    consumers: &[BACKGROUND, E2B],
};

axis! {
    /// What is done while the writer waits.
    Deed {
        /// WRITEPROTECT(0) of the whole block.
        Whole = "lift-whole",
        /// WRITEPROTECT(0) of its page and the one before.
        Pair = "lift-pair",
        /// WAKE of its page.
        Wake = "wake",
        /// WRITEPROTECT(0) of the page behind.
        Next = "lift-next",
        /// WRITEPROTECT(0) with MODE_DONTWAKE.
        Quiet = "lift-dontwake",
        /// WRITEPROTECT with MODE_WP.
        Again = "protect-again",
        /// WRITEPROTECT with MODE_WP and MODE_DONTWAKE, which is refused.
        Both = "protect-dontwake",
        /// WRITEPROTECT(0) through another userfaultfd of the process.
        Foreign = "lift-other-uffd",
        /// WRITEPROTECT(0) while an event is unread.
        Changing = "lift-while-changing",
        /// UNREGISTER.
        Unregister = "unregister",
        /// UNREGISTER, then REGISTER as before.
        Rearm = "unregister-register",
    }
}

impl Deed {
    const fn wakes(self) -> bool {
        matches!(self, Self::Whole | Self::Pair | Self::Wake)
    }

    /// Whether the protection of the page is gone.
    const fn frees(self) -> bool {
        !matches!(self, Self::Wake | Self::Next | Self::Again | Self::Both | Self::Changing)
    }
}

/// The question.
#[derive(Clone, Copy, Debug)]
struct Lift {
    backing: Backing,
    deed: Deed,
    who: Kind,
    message_read: bool,
}

/// The cases.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for backing in Backing::ALL.iter().copied() {
        for deed in Deed::ALL.iter().copied() {
            for who in [Kind::UserWrite, Kind::SysRead, Kind::VmWrite] {
                for message_read in [true, false] {
                    // The fault would be read before the event.
                    if deed == Deed::Changing && !message_read {
                        continue;
                    }
                    let probe = if deed.wakes() { &WAKES } else { &LEAVES };
                    let first = message_read && who != Kind::VmWrite;
                    let by_default = first && SMALL.contains(&backing);
                    let trial = Lift { backing, deed, who, message_read };
                    cases.push(Case::trial(probe, trial, by_default));
                }
            }
        }
    }
    cases
}

const PAGE: usize = 2;

impl Lift {
    fn act(self, lab: &Lab<'_>, other: &Uffd, seen: &mut Seen<'_>) -> Result<(), Stop> {
        let target = lab.page(PAGE);
        let protect = |range, mode| lab.uffd.writeprotect(range, mode);
        let rc = match self.deed {
            Deed::Whole => protect(lab.all(), 0),
            Deed::Pair => protect(lab.range(PAGE - 1..PAGE + 1), 0),
            Deed::Wake => lab.uffd.wake(target),
            Deed::Next => protect(lab.page(PAGE + 1), 0),
            Deed::Quiet => protect(target, WRITEPROTECT_MODE_DONTWAKE),
            Deed::Again => protect(target, WRITEPROTECT_MODE_WP),
            Deed::Both => protect(target, WRITEPROTECT_MODE_WP | WRITEPROTECT_MODE_DONTWAKE),
            Deed::Foreign => other.writeprotect(target, 0),
            Deed::Unregister => lab.uffd.unregister(lab.all()),
            Deed::Rearm => {
                seen.fact("unregister", lab.uffd.unregister(lab.all()));
                crate::abi::Rc(lab.uffd.register(lab.all(), REGISTER_MODE_WP).err())
            }
            Deed::Changing => {
                let mover = Mover::discard(lab.stage, lab.page(5))?;
                seen.fact("event-waits", mover.blocks_on_event(&lab.uffd)?);
                seen.fact("act", protect(target, 0));
                seen.fact("event", mover::word(lab.uffd.read()));
                seen.fact("discard", mover.join()?);
                return Ok(());
            }
        };
        seen.fact("act", rc);
        Ok(())
    }
}

impl Trial for Lift {
    fn axes(&self) -> String {
        let Self { backing, deed, who, message_read } = self;
        let msg = if *message_read { "read" } else { "unread" };
        format!("backing={backing},act={deed},who={who},msg={msg}")
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        let changing = self.deed == Deed::Changing;
        let lab = Lab::new(stage, self.backing, if changing { features::EVENT_REMOVE } else { 0 })?;
        let other = stage.uffd(0)?;
        lab.fill(0..PAGES)?;
        Protection::Writes.cover(&lab)?;
        if self.deed == Deed::Foreign {
            // A context of the same process that owns something else.
            let beside = crate::memory::Block::map(self.backing, OTHER)?;
            let range = beside.at(OTHER, 0..PAGES);
            other
                .register(range, REGISTER_MODE_WP)
                .map_err(|e| Stop::Broken(format!("REGISTER of another block: {e:?}")))?;
        }
        seen.step("park");
        let (mut waiter, fate) = lab.access(self.who, PAGE)?;
        if !fate.waits() {
            return Err(Stop::Broken(format!("the writer did not park: {fate}")));
        }
        if self.message_read {
            seen.fact("fault", lab.read_fault()?);
        }
        seen.step("act");
        self.act(&lab, &other, seen)?;
        let mut waits = lab.look("waiter", &mut waiter, seen)?;
        seen.fact("queue", lab.queue.read()?);
        lab.entries("after", seen)?;
        if waits {
            waits = lab.rescue(&mut waiter, PAGE, seen)?;
        }
        if waits && self.backing.is_huge() {
            // A close would leave it faulting for ever on some kernels, see `writeprotect/close`.
            seen.fact("unprotect", lab.uffd.writeprotect(lab.all(), 0));
            lab.look("unprotected", &mut waiter, seen)?;
        } else if waits {
            lab.close(&waiter, seen)?;
        }
        Ok(())
    }

    fn expect(&self, kernel: KernelVersion) -> Vec<Expected> {
        let Self { deed, message_read, .. } = *self;
        let mut facts = Vec::new();
        if message_read {
            facts.extend(want(FAULTS, &[("fault", "wp-write@2")]));
        }
        if deed == Deed::Rearm {
            facts.extend(want(source::UNREGISTER, &[("unregister", "0")]));
        }
        let act = match deed {
            Deed::Both => "EINVAL",
            Deed::Changing => "EAGAIN",
            _ => "0",
        };
        let says = match deed {
            Deed::Unregister | Deed::Rearm => source::UNREGISTER_WAKES,
            Deed::Wake => source::WAKE,
            Deed::Foreign => OBSERVED,
            _ => LIFTS,
        };
        facts.extend(want(says, &[("act", act)]));
        let queue = if message_read { "1/0" } else { "1/1" };
        let (fate, queue) = match deed {
            Deed::Whole | Deed::Pair => ("ran", "0/0"),
            Deed::Wake => ("again", "1/1"),
            _ => ("asleep", queue),
        };
        facts.extend(want(says, &[("waiter", fate), ("queue", queue)]));
        let cleared = UNREGISTER_LIFTS.is_known_in(kernel);
        let after = match deed {
            Deed::Whole => "pppppp",
            Deed::Unregister | Deed::Rearm if cleared => "pppppp",
            Deed::Pair => "wppwww",
            Deed::Next => "wwwpww",
            Deed::Quiet | Deed::Foreign => "wwpwww",
            Deed::Changing => "wwwww?",
            // Before 6.0 UNREGISTER left the protection on the pages.
            _ => "wwwwww",
        };
        facts.extend(want(SHOWN, &[("after", &row(after, kernel))]));
        if fate != "ran" {
            let stale = deed == Deed::Rearm && !cleared;
            let rescued = if deed.frees() && !stale { "ran" } else { "again" };
            facts.extend(want(source::RERUN, &[("rescue", "0"), ("rescued", rescued)]));
            if rescued == "again" && self.backing.is_huge() {
                facts.extend(want(LIFTS, &[("unprotect", "0"), ("unprotected", "ran")]));
            } else if rescued == "again" {
                facts.extend(want(source::CLOSE, &[("closed", "ran")]));
            }
        }
        facts
    }

    fn recipe(&self) -> Vec<String> {
        let Self { backing, deed, who, message_read } = self;
        let end = if backing.is_huge() { "WRITEPROTECT(0) of the block" } else { "close" };
        vec![
            format!("write to all pages of a {backing} block, register and protect it"),
            format!("a thread writes to page 2 and parks: {who}; message read: {message_read}"),
            format!("then: {deed}; look at the thread and the page table"),
            format!("if it still waits: WAKE; if it then parks again: {end}"),
        ]
    }

    fn uses_huge_pages(&self) -> bool {
        self.backing.is_huge()
    }
}
