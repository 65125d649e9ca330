//! What is left of the protection against all access after a change.

use super::{DROPPED, HEADER, RESTORED, TRACKERS, bits, protected};
use crate::expect::{Expected, OBSERVED};
use crate::lab::{SMALL, want};
use crate::outcome::{Seen, Stop};
use crate::point::Backing;
use crate::probe::{Case, Probe, Trial};
use crate::protection::{Change, Delivery, Protection};
use crate::stage::Stage;
use uffd_results::KernelVersion;

static AFTER: Probe = Probe {
    suite: "rwp",
    name: "after",
    statement: "Protection against all access stays with its page through mprotect, and is lost with a page \
                that is dropped, of a file too; UNREGISTER, a move without EVENT_REMAP and fork without \
                EVENT_FORK end it.",
    consumers: &[TRACKERS],
};

/// Memory that has moved.
const MOVED: &str = "mremap_userfaultfd_prep(), move_ptes(), move_hugetlb_page_tables() (7.3): without EVENT_REMAP \
    moved memory loses registration and protection";
/// The child.
const FORKED: &str = "dup_userfaultfd(), copy_page_range() (7.3): the child keeps the protection only if EVENT_FORK \
    keeps it registered";

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

impl Trial for After {
    fn axes(&self) -> String {
        format!("backing={},change={}", self.backing, self.change)
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        let features = bits(Delivery::Message) | self.change.features();
        let lab = protected(stage, self.backing, features)?;
        Protection::All.outlives(self.change, &lab, seen)
    }

    fn expect(&self, _kernel: KernelVersion) -> Vec<Expected> {
        let Self { backing, change } = *self;
        let dropped = if backing.is_private() { "ran:zero" } else { "ran:kept" };
        let mut facts = want(HEADER, &[("before", "wwwwww")]);
        facts.extend(want(OBSERVED, &[("change", "0")]));
        let (reg, entries, read) = match change {
            Change::Rearm => ("rrrrrr", "pppppp", "ran:kept"),
            Change::DontNeed => ("rrrrrr", "ww--ww", dropped),
            // A private copy outlives its page of the file.
            Change::Punch if backing == Backing::Private => ("rrrrrr", "wwwwww", "parks"),
            Change::Remove | Change::Punch => ("rrrrrr", "ww--ww", "ran:zero"),
            Change::Truncate => ("rrrrrr", "ww----", "ran:zero"),
            Change::Over => ("rr..rr", "ww--ww", dropped),
            Change::Move => ("......", "pppppp", "ran:kept"),
            _ => ("rrrrrr", "wwwwww", "parks"),
        };
        if change == Change::Rearm {
            facts.extend(want(RESTORED, &[("unregistered", "pppppp")]));
        }
        let says = match change {
            Change::Rearm => RESTORED,
            Change::Punch if backing == Backing::Private => OBSERVED,
            Change::DontNeed | Change::Remove | Change::Punch | Change::Truncate => DROPPED,
            Change::Move => MOVED,
            _ => OBSERVED,
        };
        facts.extend(want(says, &[("reg", reg), ("entries", entries), ("read", read)]));
        let child = match change {
            Change::ForkEvent => Some("wwwwww"),
            Change::Fork if backing.is_private() => Some("pppppp"),
            Change::Fork => Some("------"),
            _ => None,
        };
        facts.extend(child.into_iter().flat_map(|row| want(FORKED, &[("child", row)])));
        facts
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
