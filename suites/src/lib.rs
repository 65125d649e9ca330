//! What is asked: probes of userfaultfd after mappings changed, with waiters parked in the fault.
//!
//! From the ground up: [`abi`], [`memory`] and [`touch`], [`change`], [`waiter`] with its
//! [`evidence`], [`point`] and [`scenario`]; then [`model`] and [`probe`]; then a file a suite.
//! `unsafe` stays in the ground under the suites: abi, access, bump, direct, memory, touch, treat,
//! thread, process and stage; in [`files`] and [`swap`], which make what cases need; and in [`bench`], for
//! its clock, its handlers of signals and calls that no case makes.

pub mod abi;
pub mod access;
pub mod bench;
pub mod bump;
pub mod change;
pub mod evidence;
pub mod expect;
pub mod explore;
pub mod memory;
pub mod model;
pub mod mover;
pub mod outcome;
pub mod point;
pub mod probe;
pub mod process;
pub mod scenario;
pub mod stage;
pub mod thread;
pub mod touch;
pub mod treat;
pub mod vcpu;
pub mod waiter;

mod arguments;
mod changes;
mod claims;
mod copy;
mod cover;
mod crowd;
mod direct;
mod edge;
mod events;
mod files;
mod grid;
mod group;
mod growth;
mod handle;
mod hidden;
mod kinds;
mod ksm;
mod lab;
mod lifetime;
mod permission;
mod points;
mod poison;
mod protection;
mod races;
mod recipe;
mod register;
mod relocate;
mod resume;
mod rwp;
mod script;
mod swap;
mod unregister;
mod waiters;
mod wake;
mod withheld;
mod writeprotect;
mod zeropage;

#[cfg(test)]
mod controls;
#[cfg(test)]
mod testing;

use probe::Case;
use std::sync::OnceLock;

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
        name: "continue",
        about: "what UFFDIO_CONTINUE returns, stores and wakes, and what raises a minor fault",
        cases: || both(points::of_continue(), resume::cases()),
    },
    Suite {
        name: "writeprotect",
        about: "what UFFDIO_WRITEPROTECT protects, frees and wakes, and who meets the protection",
        cases: || both(points::of_writeprotect(), writeprotect::cases()),
    },
    Suite {
        name: "poison",
        about: "what UFFDIO_POISON returns, stores and wakes, and what the poisoned page does",
        cases: || both(points::of_poison(), poison::cases()),
    },
    Suite {
        name: "move",
        about: "what UFFDIO_MOVE moves, refuses, stores and wakes",
        cases: || both(points::of_move(), relocate::cases()),
    },
    Suite { name: "rwp", about: "what UFFDIO_RWPROTECT and UFFDIO_SET_MODE do", cases: rwp::cases },
    Suite {
        name: "unregister",
        about: "what UFFDIO_UNREGISTER returns, ends and wakes after a change",
        cases: || both(points::of_unregister(), unregister::cases()),
    },
    Suite {
        name: "wake",
        about: "whom UFFDIO_WAKE wakes after a change, and what they meet",
        cases: || both(points::of_wake(), wake::cases()),
    },
    Suite {
        name: "claims",
        about: "what was claimed about changed mappings in QEMU's postcopy, true or false",
        cases: claims::cases,
    },
    Suite {
        name: "register",
        about: "what UFFDIO_REGISTER takes, refuses and offers",
        cases: register::cases,
    },
    Suite {
        name: "events",
        about: "fork, remap, remove and unmap events: payload, order, whom they block and until when",
        cases: events::cases,
    },
    Suite {
        name: "races",
        about: "steps of several threads whose order is forced",
        cases: races::cases,
    },
    Suite {
        name: "handle",
        about: "the descriptor: handshake, features, poll, read, dup, close",
        cases: handle::cases,
    },
    Suite {
        name: "lifetime",
        about: "fork, exec and exit of the process, and ioctls on its memory afterwards",
        cases: lifetime::cases,
    },
    Suite {
        name: "permission",
        about: "who may make a userfaultfd, and of which kind",
        cases: permission::cases,
    },
    Suite {
        name: "arguments",
        about: "what every ioctl makes of bad arguments",
        cases: arguments::cases,
    },
    Suite {
        name: "kinds",
        about: "kinds of memory beside the grid's: which faults, ioctls and wake-ups work on them",
        cases: kinds::cases,
    },
    Suite {
        name: "changes",
        about: "changes beside the grid's: madvise, truncation, mprotect, fork, several mappings at once",
        cases: changes::cases,
    },
    Suite {
        name: "waiters",
        about: "waiters beside the grid's: several at once, signals, SIGBUS, who can't wait",
        cases: waiters::cases,
    },
    Suite {
        name: "vcpu",
        about: "what KVM_RUN does while its guest waits for a page of the block",
        cases: vcpu::cases,
    },
];

/// Hash of this crate's sources: equal revisions ask equal questions in the same way.
pub const REVISION: &str = env!("UFFD_SUITES_REVISION");

/// Every case, in the order of the suites, with what the suites propose for a default run. What the cases
/// consist of is made once, and kept.
pub fn registry() -> &'static [Case] {
    static ALL: OnceLock<Vec<Case>> = OnceLock::new();
    ALL.get_or_init(|| SUITES.iter().flat_map(|suite| (suite.cases)()).collect())
}

/// Every case, in the order of the suites, with what a default run asks.
pub fn cases() -> Vec<Case> {
    let mut cases = registry().to_vec();
    cover::thin(&mut cases);
    cases
}

fn both(mut first: Vec<Case>, second: Vec<Case>) -> Vec<Case> {
    first.extend(second);
    first
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
            // How a case ended is told beside its facts, by that name.
            assert!(facts.iter().all(|e| e.fact != "end"), "{}", case.id());
        }
    }

    #[test]
    fn a_default_run_asks_thousands_of_cases_and_a_full_one_five_times_as_many() {
        let cases = cases();
        let by_default = cases.iter().filter(|c| c.by_default).count();
        assert!((4000..=6000).contains(&by_default), "{by_default}");
        assert!(cases.len() >= 20_000, "{}", cases.len());
    }
}
