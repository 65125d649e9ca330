//! What is left of the protection against all access after a change.

use super::{Delivery, TRACKERS, protected};
use crate::abi::Range;
use crate::abi::newer::REGISTER_MODE_RWP;
use crate::evidence;
use crate::expect::{Expected, OBSERVED};
use crate::lab::{SMALL, Who, want};
use crate::outcome::{Seen, Stop};
use crate::point::Backing;
use crate::probe::{Case, Probe, Trial};
use crate::stage::Stage;
use crate::writeprotect::after::{Change, place};
use uffd_results::KernelVersion;

static AFTER: Probe = Probe {
    suite: "rwp",
    name: "after",
    statement: "Protection against all access stays with its page through mprotect; UNREGISTER ends it.",
    consumers: &[TRACKERS],
};

#[derive(Clone, Copy, Debug)]
struct After {
    backing: Backing,
    change: Change,
}

/// The cases.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for backing in Backing::ALL.iter().copied() {
        for change in Change::ALL.iter().copied().filter(|change| change.fits(backing)) {
            let by_default = SMALL.contains(&backing);
            cases.push(Case::trial(&AFTER, After { backing, change }, by_default));
        }
    }
    cases
}

const PAGE: usize = 2;

impl Trial for After {
    fn axes(&self) -> String {
        format!("backing={},change={}", self.backing, self.change)
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        let features = Delivery::Message.bits() | self.change.features();
        let lab = protected(stage, self.backing, features)?;
        lab.entries("before", seen)?;
        seen.step("change");
        let (rc, child) = self.change.apply(&lab, REGISTER_MODE_RWP, seen)?;
        seen.fact("change", rc);
        if !rc.is_ok() {
            return Ok(());
        }
        let place = place(&lab, self.change);
        let page = lab.block.page;
        seen.fact("reg", evidence::registration(&[(place, page)])?.concat());
        seen.fact("entries", evidence::entries("self", place, page)?);
        if let Some(child) = &child {
            seen.fact("child", evidence::entries(&child.process(), place, page)?);
        }
        seen.step("read");
        let start = place.start + PAGE * page;
        let mut waiter = lab.begin(Who::UserRead, Range { start, len: page })?;
        let fate = waiter.settle(&lab.uffd, &lab.queue)?;
        seen.fact("read", if fate.waits() { "parks".to_owned() } else { stage.word(fate) });
        Ok(())
    }

    fn expect(&self, _kernel: KernelVersion) -> Vec<Expected> {
        want(OBSERVED, &[("change", "0")])
    }

    fn recipe(&self) -> Vec<String> {
        let Self { backing, change } = self;
        vec![
            format!("write to all pages of a {backing} block, register it for RWP and protect it"),
            format!("then: {change}"),
            "look at registration and page table where the block stands now".into(),
            "a thread loads from page 2: does it park?".into(),
        ]
    }

    fn uses_huge_pages(&self) -> bool {
        self.backing.is_huge()
    }
}
