//! What the next access meets after a page was continued and then changed.

use super::{CLONES, MINOR, MISSING, Modes, Page};
use crate::expect::{Expected, OBSERVED};
use crate::lab::{Lab, outcome, want};
use crate::memory::{RW, dontneed, protect};
use crate::model::source;
use crate::outcome::{Seen, Stop};
use crate::point::{Backing, Discard, PAGES, Waiter as Kind, axis};
use crate::probe::{Case, Probe, Trial};
use crate::stage::Stage;
use uffd_results::KernelVersion;

static REFAULT: Probe = Probe {
    suite: "continue",
    name: "refault",
    statement: "A continued page raises a minor fault again after MADV_DONTNEED, and none after mprotect; \
                once it is out of the file it raises a missing fault if MISSING is registered and reads \
                as zeros if not.",
    consumers: &[CLONES, "memory overcommit by MADV_DONTNEED on shared memory"],
};

axis! {
    /// What happens to the continued page.
    Then {
        /// Nothing: the control.
        Nothing = "nothing",
        /// MADV_DONTNEED.
        DontNeed = "dontneed",
        /// MADV_REMOVE.
        Remove = "remove",
        /// FALLOC_FL_PUNCH_HOLE.
        Punch = "punch-hole",
        /// ftruncate(2) in front of it and back.
        Truncate = "truncate",
        /// mprotect(2) to no access and back.
        Protect = "mprotect-none",
        /// UNREGISTER, REGISTER as before, MADV_DONTNEED.
        Rearm = "unregister-register-dontneed",
        /// UNREGISTER, MADV_DONTNEED.
        Unregister = "unregister-dontneed",
    }
}

/// The question.
#[derive(Clone, Copy, Debug)]
struct Refault {
    backing: Backing,
    modes: Modes,
    then: Then,
    who: Kind,
}

/// The cases.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for backing in [Backing::Shmem, Backing::Private, Backing::HugetlbShared] {
        for modes in [Modes::Minor, Modes::Both] {
            for then in Then::ALL.iter().copied() {
                if backing == Backing::Private && then == Then::Remove {
                    continue;
                }
                for who in [Kind::UserRead, Kind::UserWrite, Kind::SysRead] {
                    let by_default = !backing.is_huge() && who != Kind::SysRead;
                    let trial = Refault { backing, modes, then, who };
                    cases.push(Case::trial(&REFAULT, trial, by_default));
                }
            }
        }
    }
    cases
}

const PAGE: usize = 2;

impl Refault {
    fn change(self, lab: &Lab<'_>) -> Result<crate::abi::Rc, Stop> {
        let page = PAGE..PAGE + 1;
        Ok(match self.then {
            Then::Nothing => crate::abi::Rc::OK,
            Then::DontNeed => dontneed(lab.page(PAGE)),
            Then::Remove => lab.block.discard(Discard::Remove, page)?,
            Then::Punch => lab.block.discard(Discard::Punch, page)?,
            Then::Truncate => lab.block.truncate(PAGE)?,
            Then::Protect => {
                let rc = protect(lab.all(), libc::PROT_NONE);
                if rc.is_ok() { protect(lab.all(), RW) } else { rc }
            }
            Then::Rearm | Then::Unregister => {
                let rc = lab.uffd.unregister(lab.all());
                if !rc.is_ok() {
                    return Ok(rc);
                }
                if self.then == Then::Rearm {
                    lab.register(0..PAGES, self.modes.bits())?;
                }
                dontneed(lab.page(PAGE))
            }
        })
    }
}

impl Trial for Refault {
    fn axes(&self) -> String {
        let Self { backing, modes, then, who } = self;
        format!("backing={backing},mode={modes},then={then},who={who}")
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        let lab = Lab::new(stage, self.backing, 0)?;
        Page::Cached.make(&lab, PAGE)?;
        lab.register(0..PAGES, self.modes.bits())?;
        outcome(("continue", "field"), lab.uffd.resume(lab.page(PAGE), 0), seen);
        seen.step("change");
        let rc = self.change(&lab)?;
        seen.fact("change", rc);
        if !rc.is_ok() {
            return Ok(());
        }
        lab.entries("entries", seen)?;
        lab.meet(("access", "fault"), self.who, PAGE, seen)?;
        lab.contents("pages", seen)
    }

    fn expect(&self, kernel: KernelVersion) -> Vec<Expected> {
        let Self { backing, modes, then, who } = *self;
        let mut facts = want(source::CONTINUE, &[("continue", "0")]);
        let dropped = matches!(then, Then::DontNeed | Then::Rearm | Then::Unregister);
        if backing.is_huge() && dropped && kernel < KernelVersion::new(5, 18, 0) {
            facts.extend(want(source::DONTNEED_HUGE, &[("change", "EINVAL")]));
            return facts;
        }
        facts.extend(want(OBSERVED, &[("change", "0")]));
        let gone = matches!(then, Then::Remove | Then::Punch | Then::Truncate);
        let entries = if dropped || gone { "------" } else { "--p---" };
        facts.extend(want(source::CONTINUE, &[("entries", entries)]));
        let kind = if who.write_faults(backing) { "write@2" } else { "read@2" };
        let caught = match then {
            Then::DontNeed | Then::Rearm => Some(("minor-", MINOR)),
            _ if gone && modes.missing() => Some(("", MISSING)),
            _ => None,
        };
        if let Some((why, says)) = caught {
            facts.extend(want(says, &[("access", "parks"), ("fault", &format!("{why}{kind}"))]));
            return facts;
        }
        let there = if gone { "zero" } else { "kept" };
        let letter = match (who.stores(), gone) {
            (true, _) => "--w---",
            (false, true) => "--0---",
            (false, false) => "--k---",
        };
        facts.extend(want(MINOR, &[("access", &who.ran(there)), ("pages", letter)]));
        facts
    }

    fn recipe(&self) -> Vec<String> {
        let Self { backing, modes, then, who } = self;
        vec![
            format!("page 2 of a {backing} block is in the page cache; register it for {modes}"),
            "UFFDIO_CONTINUE of page 2".into(),
            format!("then: {then}"),
            format!("a thread accesses page 2: {who}; does it park, and in which fault?"),
        ]
    }

    fn uses_huge_pages(&self) -> bool {
        self.backing.is_huge()
    }
}
