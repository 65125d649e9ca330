//! Whom RWPROTECT wakes, and what else happens to a thread parked at a protected page.

use super::{HEADER, SET_MODE_WAKES, TRACKERS, bits, protected};
use crate::abi::newer::{REGISTER_MODE_RWP, RWPROTECT_MODE_DONTWAKE, RWPROTECT_MODE_RWP};
use crate::abi::{Rc, features};
use crate::expect::Expected;
use crate::lab::{Lab, SMALL, want};
use crate::model::source;
use crate::outcome::{Seen, Stop};
use crate::point::{Backing, Waiter as Kind, axis};
use crate::probe::{Case, Probe, Trial};
use crate::protection::Delivery;
use crate::stage::Stage;
use uffd_results::KernelVersion;

static LIFT: Probe = Probe {
    suite: "rwp",
    name: "lift",
    statement: "A thread parked at a page that RWPROTECT has protected is woken when the protection of its \
                page is removed, unless MODE_DONTWAKE says otherwise, and when SET_MODE enables RWP_ASYNC; \
                nothing else but WAKE and close wakes it, UNREGISTER neither.",
    consumers: &[TRACKERS],
};

/// What RWPROTECT takes, and whom it wakes.
const RWPROTECT: &str = "userfaultfd_rwprotect() (7.3): wakes the range's waiters if neither MODE_RWP nor \
    MODE_DONTWAKE is given; EINVAL for both, and for an unknown bit";
/// RWPROTECT through another userfaultfd.
const FOREIGN: &str = "mrwprotect_range() (7.3) asks whether the mapping is registered for RWP, not by whom; the \
    wake-up goes to the caller's context";
/// WRITEPROTECT of what is not registered for it.
const WRITEPROTECT: &str =
    "mwriteprotect_range(): ENOENT for a mapping that is not registered for write protection";
/// UNREGISTER.
const UNREGISTER: &str = "userfaultfd_unregister() (7.3): takes the protection off, and wakes for mappings in missing \
    mode only";

axis! {
    /// What is done while the thread waits.
    Deed {
        /// RWPROTECT of its page without MODE_RWP.
        Page = "lift",
        /// RWPROTECT of the whole block without MODE_RWP.
        Whole = "lift-whole",
        /// RWPROTECT of the page behind without MODE_RWP.
        Next = "lift-next",
        /// RWPROTECT with MODE_DONTWAKE.
        Quiet = "lift-dontwake",
        /// RWPROTECT with MODE_RWP.
        Again = "protect-again",
        /// RWPROTECT with MODE_RWP and MODE_DONTWAKE.
        Both = "protect-dontwake",
        /// RWPROTECT with an unknown mode bit.
        Unknown = "unknown-mode",
        /// RWPROTECT through another userfaultfd of the process.
        Foreign = "lift-other-uffd",
        /// WRITEPROTECT(0) of its page.
        Writeprotect = "writeprotect",
        /// COPY to its page.
        Copy = "copy",
        /// SET_MODE that enables RWP_ASYNC.
        SetAsync = "set-async",
        /// UNREGISTER.
        Unregister = "unregister",
        /// UNREGISTER, then REGISTER as before.
        Rearm = "unregister-register",
        /// WAKE.
        Wake = "wake",
        /// close(2).
        Close = "close",
    }
}

#[derive(Clone, Copy, Debug)]
struct Lift {
    backing: Backing,
    deed: Deed,
    who: Kind,
}

/// The cases.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for backing in Backing::ALL.iter().copied() {
        for deed in Deed::ALL.iter().copied() {
            for who in [Kind::UserRead, Kind::UserWrite, Kind::SysRead] {
                let by_default = SMALL.contains(&backing) && who != Kind::UserWrite;
                cases.push(Case::trial(&LIFT, Lift { backing, deed, who }, by_default));
            }
        }
    }
    cases
}

const PAGE: usize = 2;

impl Lift {
    fn act(self, lab: &Lab<'_>, seen: &mut Seen<'_>) -> Result<Rc, Stop> {
        let page = lab.page(PAGE);
        let protect = |range, mode| lab.uffd.rwprotect(range, mode);
        Ok(match self.deed {
            Deed::Page => protect(page, 0),
            Deed::Whole => protect(lab.all(), 0),
            Deed::Next => protect(lab.page(PAGE + 1), 0),
            Deed::Quiet => protect(page, RWPROTECT_MODE_DONTWAKE),
            Deed::Again => protect(page, RWPROTECT_MODE_RWP),
            Deed::Both => protect(page, RWPROTECT_MODE_RWP | RWPROTECT_MODE_DONTWAKE),
            Deed::Unknown => protect(page, 1 << 2),
            Deed::Foreign => lab.stage.uffd(features::RWP)?.rwprotect(page, 0),
            Deed::Writeprotect => lab.uffd.writeprotect(page, 0),
            Deed::Copy => {
                let (rc, field) = lab.uffd.copy(page, lab.stage.source, 0);
                seen.fact("field", field);
                rc
            }
            Deed::SetAsync => lab.uffd.set_mode(features::RWP_ASYNC, 0),
            Deed::Unregister => lab.uffd.unregister(lab.all()),
            Deed::Rearm => {
                seen.fact("unregister", lab.uffd.unregister(lab.all()));
                Rc(lab.uffd.register(lab.all(), REGISTER_MODE_RWP).err())
            }
            Deed::Wake => lab.uffd.wake(page),
            Deed::Close => Rc::OK,
        })
    }
}

impl Trial for Lift {
    fn axes(&self) -> String {
        let Self { backing, deed, who } = self;
        format!("backing={backing},act={deed},who={who}")
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        let lab = protected(stage, self.backing, bits(Delivery::Message))?;
        let Some(mut waiter) = lab.meet(("access", "fault"), self.who, PAGE, seen)? else {
            return Ok(());
        };
        seen.step("act");
        let mut waits = true;
        if self.deed != Deed::Close {
            let rc = self.act(&lab, seen)?;
            seen.fact("act", rc);
            waits = lab.look("waiter", &mut waiter, seen)?;
            seen.fact("queue", lab.queue.read()?);
            lab.entries("after", seen)?;
            if waits && self.deed != Deed::Wake {
                waits = lab.rescue(&mut waiter, PAGE, seen)?;
            }
        }
        if waits {
            let all = lab.all();
            let size = lab.block.page;
            lab.close(&waiter, seen)?;
            seen.fact("left", crate::evidence::entries("self", all, size)?);
        }
        Ok(())
    }

    fn expect(&self, _kernel: KernelVersion) -> Vec<Expected> {
        let Self { backing, deed, who } = *self;
        let kind = if who.write_faults(backing) { "rwp-write@2" } else { "rwp-read@2" };
        let mut facts = want(HEADER, &[("access", "parks"), ("fault", kind)]);
        let ends = who.ran("kept");
        if deed == Deed::Close {
            facts.extend(want(source::CLOSE, &[("closed", &ends), ("left", "pppppp")]));
            return facts;
        }
        let act = match deed {
            Deed::Both | Deed::Unknown => "EINVAL",
            Deed::Writeprotect => "ENOENT",
            Deed::Copy => "EEXIST",
            _ => "0",
        };
        let (fate, queue) = match deed {
            Deed::Page | Deed::Whole | Deed::SetAsync => (ends.as_str(), "0/0"),
            Deed::Wake => ("again", "1/1"),
            _ => ("asleep", "1/0"),
        };
        let after = match deed {
            Deed::Page | Deed::Quiet | Deed::Foreign | Deed::SetAsync => "wwpwww",
            Deed::Next => "wwwpww",
            Deed::Whole | Deed::Unregister | Deed::Rearm => "pppppp",
            _ => "wwwwww",
        };
        let says = match deed {
            Deed::Wake => source::WAKE,
            Deed::Foreign => FOREIGN,
            Deed::Writeprotect => WRITEPROTECT,
            Deed::Copy => source::COPY,
            Deed::SetAsync => SET_MODE_WAKES,
            Deed::Unregister | Deed::Rearm => UNREGISTER,
            _ => RWPROTECT,
        };
        facts.extend(want(says, &[("act", act), ("waiter", fate), ("queue", queue)]));
        facts.extend(want(says, &[("after", after)]));
        if deed == Deed::Copy {
            facts.extend(want(source::COPY, &[("field", "-17")]));
        }
        let freed = matches!(deed, Deed::Quiet | Deed::Foreign | Deed::Unregister | Deed::Rearm);
        if fate == "asleep" {
            let rescued = if freed { ends.as_str() } else { "again" };
            facts.extend(want(source::RERUN, &[("rescue", "0"), ("rescued", rescued)]));
        }
        if fate == "again" || fate == "asleep" && !freed {
            facts.extend(want(source::CLOSE, &[("closed", &ends), ("left", "pppppp")]));
        }
        facts
    }

    fn recipe(&self) -> Vec<String> {
        let Self { backing, deed, who } = self;
        vec![
            format!("write to all pages of a {backing} block, register it for RWP and protect it"),
            format!("a thread accesses page 2: {who}; it parks, its message is read"),
            format!("then: {deed}; look at the thread and the page table"),
            "if it still waits: WAKE; if it then parks again: close".into(),
        ]
    }

    fn uses_huge_pages(&self) -> bool {
        self.backing.is_huge()
    }
}
