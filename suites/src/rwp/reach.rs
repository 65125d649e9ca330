//! Which pages RWPROTECT protects, by what is at the page.

use super::{HEADER, PRESENT, TRACKERS, bits};
use crate::abi::newer::{REGISTER_MODE_RWP, RWPROTECT_MODE_RWP};
use crate::expect::Expected;
use crate::lab::{Lab, SMALL, want};
use crate::outcome::{Seen, Stop};
use crate::point::{Backing, PAGES, Waiter as Kind};
use crate::probe::{Case, Probe, Trial};
use crate::protection::{Delivery, State};
use crate::stage::Stage;
use uffd_results::KernelVersion;

static REACH: Probe = Probe {
    suite: "rwp",
    name: "reach",
    statement: "RWPROTECT of the whole block returns 0 whatever its pages are; who accesses a page that was \
                present parks, and is freed by RWPROTECT without MODE_RWP; a page that was not is not \
                protected.",
    consumers: &[TRACKERS],
};

#[derive(Clone, Copy, Debug)]
struct Reach {
    backing: Backing,
    state: State,
    who: Kind,
}

/// The cases.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for backing in Backing::ALL.iter().copied() {
        for state in State::ALL.iter().copied().filter(|state| state.fits(backing)) {
            for who in [Kind::UserRead, Kind::UserWrite] {
                let huge = backing == Backing::HugetlbShared
                    && who == Kind::UserRead
                    && matches!(state, State::Present | State::Missing);
                let by_default = SMALL.contains(&backing) || huge;
                cases.push(Case::trial(&REACH, Reach { backing, state, who }, by_default));
            }
        }
    }
    cases
}

const PAGE: usize = 2;

impl Trial for Reach {
    fn axes(&self) -> String {
        let Self { backing, state, who } = self;
        format!("backing={backing},page={state},who={who}")
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        let lab = Lab::new(stage, self.backing, bits(Delivery::Message))?;
        lab.fill(PAGE + 1..PAGE + 2)?;
        let _child = self.state.make(&lab, PAGE)?;
        lab.register(0..PAGES, REGISTER_MODE_RWP)?;
        lab.entries("before", seen)?;
        seen.step("protect");
        seen.fact("protect", lab.uffd.rwprotect(lab.all(), RWPROTECT_MODE_RWP));
        lab.entries("protected", seen)?;
        let waiter = lab.meet(("access", "fault"), self.who, PAGE, seen)?;
        if let Some(mut waiter) = waiter {
            seen.step("lift");
            seen.fact("lift", lab.uffd.rwprotect(lab.page(PAGE), 0));
            lab.look("waiter", &mut waiter, seen)?;
        }
        lab.entries("after", seen)
    }

    fn expect(&self, _kernel: KernelVersion) -> Vec<Expected> {
        let Self { backing, state, who } = *self;
        let mapped = state.is_mapped();
        let before = if mapped { "--pp--" } else { "---p--" };
        let after = if mapped { "--ww--" } else { "---w--" };
        let mut facts = want(HEADER, &[("before", before), ("protect", "0"), ("protected", after)]);
        let there = match state {
            State::Present | State::Freed | State::Forked | State::Cached => "kept",
            State::Dropped if !backing.is_private() => "kept",
            _ => "zero",
        };
        let ends = who.ran(there);
        if mapped {
            let kind = if who.write_faults(backing) { "rwp-write@2" } else { "rwp-read@2" };
            facts.extend(want(HEADER, &[("access", "parks"), ("fault", kind)]));
            facts.extend(want(HEADER, &[("lift", "0"), ("waiter", &ends)]));
        } else {
            facts.extend(want(PRESENT, &[("access", &ends)]));
        }
        facts.extend(want(if mapped { HEADER } else { PRESENT }, &[("after", "--pw--")]));
        facts
    }

    fn recipe(&self) -> Vec<String> {
        let Self { backing, state, who } = self;
        vec![
            format!("map a {backing} block of 6 pages, write to page 3; page 2 is {state}"),
            "register it for RWP; UFFDIO_RWPROTECT of the whole block; look at the page table"
                .into(),
            format!("a thread accesses page 2: {who}; does it park?"),
            "if so, remove the protection of page 2 and look at the thread".into(),
        ]
    }

    fn uses_huge_pages(&self) -> bool {
        self.backing.is_huge()
    }
}
