//! Which pages WRITEPROTECT protects, by what is at the page.

use super::{
    ASYNC, Asks, BACKGROUND, E2B, FAULTS, LIFTS, PROTECTS, SHOWN, UNPOPULATED, marks, row,
};
use crate::abi::{REGISTER_MODE_WP, WRITEPROTECT_MODE_WP};
use crate::expect::Expected;
use crate::lab::{Lab, Who, want};
use crate::memory::{advise, dontneed};
use crate::offspring::Offspring;
use crate::outcome::{Seen, Stop};
use crate::point::{Backing, Discard, axis};
use crate::probe::{Case, Probe, Trial};
use crate::stage::Stage;
use crate::touch;
use uffd_results::KernelVersion;

static REACH: Probe = Probe {
    suite: "writeprotect",
    name: "reach",
    statement: "WRITEPROTECT of the whole block returns 0 whatever its pages are; it protects those \
                that are present, and where a page is missing only what leaves a marker: files, and \
                anonymous memory with WP_UNPOPULATED.",
    consumers: &[BACKGROUND, E2B],
};

axis! {
    /// What is at the page when the block is protected.
    State {
        /// It was written to.
        Present = "present",
        /// It was only read: the zero page, or a page of the page cache.
        Loaded = "loaded",
        /// It was never touched.
        Missing = "missing",
        /// It is in the page cache and not mapped.
        Cached = "cached",
        /// It was written to, then MADV_DONTNEED.
        Dropped = "dropped",
        /// It was written to, then MADV_FREE.
        Freed = "freed",
        /// It was written to, then FALLOC_FL_PUNCH_HOLE.
        Punched = "punched",
        /// It was written to and is shared with a forked child.
        Forked = "forked",
    }
}

impl State {
    /// Whether a block of this backing can have such a page.
    pub(crate) fn fits(self, backing: Backing) -> bool {
        let file = matches!(backing, Backing::Shmem | Backing::Private | Backing::HugetlbShared);
        match self {
            Self::Cached => file,
            Self::Punched => file && backing != Backing::Private,
            Self::Freed => backing.is_anon(),
            // Private huge pages take two of the pool where a child shares them.
            Self::Forked => !backing.is_huge(),
            Self::Present | Self::Loaded | Self::Missing | Self::Dropped => true,
        }
    }

    /// Whether the page is mapped.
    pub(crate) const fn is_mapped(self) -> bool {
        matches!(self, Self::Present | Self::Loaded | Self::Freed | Self::Forked)
    }

    /// Brings `page` there; the child, if that takes one.
    pub(crate) fn make(self, lab: &Lab<'_>, page: usize) -> Result<Option<Offspring>, Stop> {
        let pages = page..page + 1;
        if !matches!(self, Self::Loaded | Self::Missing | Self::Cached) {
            lab.fill(pages.clone())?;
        }
        let rc = match self {
            Self::Present | Self::Missing => return Ok(None),
            Self::Loaded => {
                touch::load(lab.page(page).start)
                    .map_err(|signal| Stop::Broken(format!("reading the page: {signal}")))?;
                return Ok(None);
            }
            Self::Cached => {
                lab.block.fill_cache(page)?;
                return Ok(None);
            }
            Self::Forked => return Offspring::idle(lab.stage).map(Some),
            Self::Dropped => dontneed(lab.page(page)),
            Self::Freed => advise(lab.page(page), libc::MADV_FREE),
            Self::Punched => lab.block.discard(Discard::Punch, pages)?,
        };
        match rc.0 {
            None => Ok(None),
            Some(errno) if lab.block.backing.is_huge() => {
                Err(Stop::Unsupported(format!("discarding a huge page: {errno:?}")))
            }
            Some(errno) => Err(Stop::Broken(format!("discarding the page: {errno:?}"))),
        }
    }
}

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
        let waiter = lab.meet(("write", "fault"), Who::UserWrite, PAGE, seen)?;
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
