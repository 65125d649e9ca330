//! What is asked: probes of userfaultfd after mappings changed, with waiters parked in the fault.
//!
//! From the ground up: [`abi`], [`memory`] and [`touch`], [`change`], [`waiter`] with its
//! [`evidence`], [`point`] and [`scenario`]; then [`model`] and [`probe`]; then a file a suite.
//! `unsafe` stays in abi, bump, memory, touch, stage and waiter.

pub mod abi;
pub mod bump;
pub mod change;
pub mod evidence;
pub mod expect;
pub mod memory;
pub mod model;
pub mod mover;
pub mod outcome;
pub mod point;
pub mod probe;
pub mod scenario;
pub mod stage;
pub mod touch;
pub mod vcpu;
pub mod waiter;

mod claims;
mod copy;
mod grid;
mod growth;
mod hidden;
mod recipe;
mod unregister;
mod wake;
mod zeropage;

#[cfg(test)]
mod testing;

use probe::Case;

/// A group of probes.
#[derive(Clone, Copy, Debug)]
pub struct Suite {
    /// The first word of its cases' ids.
    pub name: &'static str,
    /// What it asks, in one line.
    pub about: &'static str,
    cases: fn() -> Vec<Case>,
}

/// The suites, in the order in which they run.
pub const SUITES: &[Suite] = &[
    Suite {
        name: "copy",
        about: "what UFFDIO_COPY returns, stores and wakes after a change",
        cases: copy::cases,
    },
    Suite {
        name: "zeropage",
        about: "what UFFDIO_ZEROPAGE returns, stores and wakes after a change",
        cases: zeropage::cases,
    },
    Suite {
        name: "unregister",
        about: "what UFFDIO_UNREGISTER returns, ends and wakes after a change",
        cases: unregister::cases,
    },
    Suite {
        name: "wake",
        about: "whom UFFDIO_WAKE wakes after a change, and what they meet",
        cases: wake::cases,
    },
    Suite {
        name: "claims",
        about: "what was claimed about changed mappings in QEMU's postcopy, true or false",
        cases: claims::cases,
    },
    Suite {
        name: "vcpu",
        about: "what KVM_RUN does while its guest waits for a page of the block",
        cases: vcpu::cases,
    },
];

/// Hash of this crate's sources: equal revisions ask equal questions in the same way.
pub const REVISION: &str = env!("UFFD_SUITES_REVISION");

/// Every case, in the order of the suites.
pub fn cases() -> Vec<Case> {
    SUITES.iter().flat_map(|suite| (suite.cases)()).collect()
}

/// Cases that test the runner; in no list.
pub fn hidden_cases() -> Vec<Case> {
    hidden::cases()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use uffd_results::KernelVersion;

    #[test]
    fn ids_are_unique_and_suites_own_their_cases() {
        let mut ids = HashSet::new();
        for suite in SUITES {
            for case in (suite.cases)() {
                assert_eq!(case.probe.suite, suite.name);
                assert!(ids.insert(case.id()), "{} stands twice", case.id());
            }
        }
    }

    #[test]
    fn every_case_has_an_expectation_a_recipe_and_a_source() {
        for case in cases() {
            let facts = case.expect(KernelVersion::new(6, 18, 0));
            assert!(!facts.is_empty() && !case.recipe().is_empty(), "{}", case.id());
            assert!(facts.iter().all(|e| !e.source.is_empty()), "{}", case.id());
            assert!(case.probe.statement.ends_with('.'), "{}", case.probe);
        }
    }

    #[test]
    fn a_default_run_asks_at_least_a_thousand_cases() {
        let by_default = cases().iter().filter(|c| c.by_default).count();
        assert!((1000..=2500).contains(&by_default), "{by_default}");
    }
}
