//! PAGEMAP_SCAN on memory protected against all access.

use super::{ASYNC, SCANNED, TRACKERS, bits, protected};
use crate::abi::scan::{IS_ACCESSED, IS_PRESENT, IS_WRITTEN, REGIONS, Scan};
use crate::expect::Expected;
use crate::lab::{SMALL, want};
use crate::memory::{BLOCK, tag};
use crate::outcome::{Seen, Stop};
use crate::point::{Backing, axis};
use crate::probe::{Case, Probe, Trial};
use crate::protection::Delivery;
use crate::stage::Stage;
use crate::touch;
use std::fs::File;
use uffd_results::KernelVersion;

static SCAN: Probe = Probe {
    suite: "rwp",
    name: "scan",
    statement: "PAGEMAP_SCAN tells which pages of a block protected with RWP_ASYNC were accessed since, and \
                with the category inverted which were not.",
    consumers: &[TRACKERS],
};

axis! {
    /// What is asked.
    Ask {
        /// Accessed pages.
        Accessed = "accessed",
        /// Pages that were not.
        Inverted = "not-accessed",
        /// Written pages.
        Written = "written",
        /// Everything, to see the categories of each page.
        Categories = "categories",
    }
}

axis! {
    /// What was done since the protection.
    Done {
        /// Nothing.
        Nothing = "nothing",
        /// A load from page 3.
        Load = "load",
        /// A store to page 3.
        Store = "store",
    }
}

#[derive(Clone, Copy, Debug)]
struct Asked {
    backing: Backing,
    ask: Ask,
    done: Done,
}

/// The cases.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for backing in Backing::ALL.iter().copied() {
        for ask in Ask::ALL.iter().copied() {
            for done in Done::ALL.iter().copied() {
                let by_default = SMALL.contains(&backing);
                cases.push(Case::trial(&SCAN, Asked { backing, ask, done }, by_default));
            }
        }
    }
    cases
}

const PAGE: usize = 3;

impl Trial for Asked {
    fn axes(&self) -> String {
        let Self { backing, ask, done } = self;
        format!("backing={backing},ask={ask},done={done}")
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        let lab = protected(stage, self.backing, bits(Delivery::Async))?;
        let at = lab.page(PAGE).start;
        let done = match self.done {
            Done::Nothing => Ok(()),
            Done::Load => touch::load(at).map(drop),
            Done::Store => touch::store(at, tag::WROTE),
        };
        done.map_err(|signal| Stop::Broken(format!("accessing the page: {signal}")))?;
        let scan = Scan { regions: REGIONS, ..Scan::default() };
        let scan = match self.ask {
            Ask::Accessed => Scan { mask: IS_ACCESSED, reported: IS_ACCESSED, ..scan },
            Ask::Inverted => {
                Scan { mask: IS_ACCESSED, inverted: IS_ACCESSED, reported: IS_ACCESSED, ..scan }
            }
            Ask::Written => Scan { mask: IS_WRITTEN, reported: IS_WRITTEN, ..scan },
            Ask::Categories => Scan { reported: IS_ACCESSED | IS_WRITTEN | IS_PRESENT, ..scan },
        };
        let pagemap = File::open("/proc/self/pagemap")
            .map_err(|e| Stop::Broken(format!("opening /proc/self/pagemap: {e}")))?;
        seen.step("scan");
        let scanned = scan.ask(&pagemap, lab.all());
        seen.fact("scan", scanned.rc);
        let regions: Vec<String> = scanned
            .regions
            .iter()
            .map(|(range, bits)| {
                let first = range.start.wrapping_sub(BLOCK) / lab.block.page;
                let letters = [(IS_ACCESSED, 'a'), (IS_WRITTEN, 'w'), (IS_PRESENT, 'p')];
                let letters: String =
                    letters.iter().filter(|(bit, _)| bits & bit != 0).map(|(_, l)| *l).collect();
                format!("{first}..{}:{letters}", first + range.len / lab.block.page)
            })
            .collect();
        let none = regions.is_empty();
        seen.fact("regions", if none { "none".to_owned() } else { regions.join(",") });
        lab.entries("entries", seen)
    }

    fn expect(&self, _kernel: KernelVersion) -> Vec<Expected> {
        let idle = self.done == Done::Nothing;
        let regions = match self.ask {
            Ask::Accessed if idle => "none",
            Ask::Accessed => "3..4:a",
            Ask::Inverted if idle => "0..6:",
            Ask::Inverted => "0..3:,4..6:",
            Ask::Written => "none",
            Ask::Categories if idle => "0..6:p",
            Ask::Categories => "0..3:p,3..4:ap,4..6:p",
        };
        let says = if self.ask == Ask::Written { ASYNC } else { SCANNED };
        let entries = if idle { "wwwwww" } else { "wwwpww" };
        let mut facts = want(says, &[("scan", "0"), ("regions", regions)]);
        facts.extend(want(SCANNED, &[("entries", entries)]));
        facts
    }

    fn recipe(&self) -> Vec<String> {
        let Self { backing, ask, done } = self;
        vec![
            format!("write to a {backing} block, register it with RWP_ASYNC and protect it"),
            format!("since then: {done}"),
            format!("PAGEMAP_SCAN of the block: {ask}"),
        ]
    }

    fn uses_huge_pages(&self) -> bool {
        self.backing.is_huge()
    }
}
