//! Which pages WRITEPROTECT protects, by what is at the page.

use super::{
    ASYNC, Asks, BACKGROUND, E2B, FAULTS, LIFTS, PROTECTS, SHOWN, UNPOPULATED, marks, row,
};
use crate::abi::{REGISTER_MODE_WP, WRITEPROTECT_MODE_WP};
use crate::expect::Expected;
use crate::lab::{Lab, want};
use crate::outcome::{Seen, Stop};
use crate::point::{Backing, Waiter as Kind};
use crate::probe::{Case, Probe, Trial};
use crate::protection::State;
use crate::stage::Stage;
use uffd_results::KernelVersion;

static REACH: Probe = Probe {
    suite: "writeprotect",
    name: "reach",
    statement: "WRITEPROTECT of the whole block returns 0 whatever its pages are; it protects those \
                that are present, and where a page is missing only what leaves a marker: files, and \
                anonymous memory with WP_UNPOPULATED.",
    consumers: &[BACKGROUND, E2B],
};

/// The question.
#[derive(Clone, Copy, Debug)]
struct Reach {
    backing: Backing,
    state: State,
    asks: Asks,
}

/// The cases.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for backing in Backing::ALL.iter().copied() {
        for state in State::ALL.iter().copied().filter(|state| state.fits(backing)) {
            for asks in Asks::ALL.iter().copied() {
                let few = matches!(state, State::Present | State::Missing) && asks != Asks::Async;
                let by_default = !backing.is_huge() || few && backing == Backing::HugetlbShared;
                let trial = Reach { backing, state, asks };
                cases.push(Case::trial(&REACH, trial, by_default));
            }
        }
    }
    cases
}

const PAGE: usize = 2;

impl Trial for Reach {
    fn axes(&self) -> String {
        let Self { backing, state, asks } = self;
        format!("backing={backing},page={state},asks={asks}")
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        let lab = Lab::new(stage, self.backing, self.asks.bits())?;
        lab.fill(PAGE + 1..PAGE + 2)?;
        let _child = self.state.make(&lab, PAGE)?;
        lab.register(0..6, REGISTER_MODE_WP)?;
        lab.entries("before", seen)?;
        seen.step("protect");
        seen.fact("protect", lab.uffd.writeprotect(lab.all(), WRITEPROTECT_MODE_WP));
        lab.entries("protected", seen)?;
        let waiter = lab.meet(("write", "fault"), Kind::UserWrite, PAGE, seen)?;
        lab.entries("written", seen)?;
        if let Some(mut waiter) = waiter {
            seen.step("lift");
            seen.fact("lift", lab.uffd.writeprotect(lab.page(PAGE), 0));
            lab.look("writer", &mut waiter, seen)?;
            lab.entries("after", seen)?;
        }
        Ok(())
    }

    fn expect(&self, kernel: KernelVersion) -> Vec<Expected> {
        let Self { backing, state, asks } = *self;
        let mapped = state.is_mapped();
        let marks = marks(backing, asks);
        let around = if marks { "nn?wnn" } else { "--?w--" };
        let line = |around: &str, page: &str| row(&around.replace('?', page), kernel);
        let mut facts = want(SHOWN, &[("before", &line("--?p--", if mapped { "p" } else { "-" }))]);
        facts.extend(want(PROTECTS, &[("protect", "0")]));
        let here = match (mapped, marks) {
            (true, _) => "w",
            (false, true) => "n",
            (false, false) => "-",
        };
        facts.extend(want(UNPOPULATED, &[("protected", &line(around, here))]));
        if here == "-" || asks == Asks::Async {
            let says = if here == "-" { UNPOPULATED } else { ASYNC };
            facts.extend(want(says, &[("write", "ran"), ("written", &line(around, "p"))]));
            return facts;
        }
        facts.extend(want(FAULTS, &[("write", "parks"), ("fault", "wp-write@2")]));
        facts.extend(want(
            LIFTS,
            &[("lift", "0"), ("writer", "ran"), ("after", &line(around, "p"))],
        ));
        facts
    }

    fn recipe(&self) -> Vec<String> {
        let Self { backing, state, asks } = self;
        vec![
            format!("map a {backing} block of 6 pages, write to page 3; page 2 is {state}"),
            format!("register it for write protection, features asked for: {asks}"),
            "UFFDIO_WRITEPROTECT of the whole block; look at the page table".into(),
            "a thread stores to page 2: does it park?".into(),
            "if so, remove the protection of page 2 and look at the thread".into(),
        ]
    }

    fn uses_huge_pages(&self) -> bool {
        self.backing.is_huge()
    }
}
