//! What is left of the protection after a change.

use super::{Asks, BACKGROUND, SHOWN, TRACKERS, row};
use crate::edge::{MOVE_LIFTS, UNREGISTER_LIFTS};
use crate::expect::{Expected, OBSERVED};
use crate::lab::{Lab, SMALL, want};
use crate::outcome::{Seen, Stop};
use crate::point::{Backing, PAGES};
use crate::probe::{Case, Probe, Trial};
use crate::protection::{Change, Protection};
use crate::stage::Stage;
use uffd_results::KernelVersion;

static AFTER: Probe = Probe {
    suite: "writeprotect",
    name: "after",
    statement: "Protection stays with its page through mprotect, and with the marker of a file's page \
                that is dropped; UNREGISTER ends it (6.0); a child without EVENT_FORK does not take it \
                along, and from 6.13 (6.12.11, 6.1.192) on neither does a move without EVENT_REMAP. \
                Before, a writer of a hugetlb page that was so moved faults for ever.",
    consumers: &[BACKGROUND, TRACKERS],
};

/// The question.
#[derive(Clone, Copy, Debug)]
struct After {
    backing: Backing,
    change: Change,
    asks: Asks,
}

/// The cases.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for backing in Backing::ALL.iter().copied() {
        for change in Change::ALL.iter().copied().filter(|change| change.fits(backing)) {
            for asks in [Asks::None, Asks::Unpopulated] {
                let spins = change == Change::Move && asks == Asks::None;
                let by_default = SMALL.contains(&backing) || spins;
                cases.push(Case::trial(&AFTER, After { backing, change, asks }, by_default));
            }
        }
    }
    cases
}

/// Pages that are dropped.
const MARKERS: &str = "zap_install_uffd_wp_if_needed() in mm/memory.c: a marker stays where a protected page of a file \
    is dropped; anonymous memory keeps none";
/// The child.
const FORKED: &str = "dup_userfaultfd(), copy_present_ptes(): the child keeps the protection only if \
    EVENT_FORK keeps it registered";

impl Trial for After {
    fn axes(&self) -> String {
        let Self { backing, change, asks } = self;
        format!("backing={backing},change={change},asks={asks}")
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        let lab = Lab::new(stage, self.backing, self.asks.bits() | self.change.features())?;
        lab.fill(0..PAGES - 1)?;
        Protection::Writes.cover(&lab)?;
        Protection::Writes.outlives(self.change, &lab, seen)
    }

    fn expect(&self, kernel: KernelVersion) -> Vec<Expected> {
        let Self { backing, change, asks } = *self;
        let last = if super::marks(backing, asks) { "n" } else { "-" };
        let full = format!("wwwww{last}");
        let mut facts = want(SHOWN, &[("before", &row(&full, kernel))]);
        let cleared = UNREGISTER_LIFTS.is_known_in(kernel);
        if change == Change::Rearm {
            let entries = if cleared { "ppppp-" } else { &full };
            facts.extend(want(UNREGISTER_LIFTS.source, &[("unregistered", &row(entries, kernel))]));
        }
        let gone = if backing.is_anon() { format!("ww--w{last}") } else { "wwnnwn".to_owned() };
        let (reg, entries, caught, says) = match change {
            Change::DontNeed => ("wwwwww", gone, !backing.is_anon(), MARKERS),
            // A private copy outlives its page of the file.
            Change::Punch if backing == Backing::Private => ("wwwwww", full.clone(), true, SHOWN),
            Change::Remove | Change::Punch => ("wwwwww", gone, true, MARKERS),
            Change::Truncate if backing.is_huge() => {
                ("wwwwww", "ww----".to_owned(), false, OBSERVED)
            }
            Change::Truncate => ("wwwwww", "wwnnnn".to_owned(), true, MARKERS),
            Change::Over => ("ww..ww", format!("ww--w{last}"), false, "mmap(2)"),
            Change::Move => {
                ("......", MOVE_LIFTS.value(kernel, &full, "ppppp-"), false, MOVE_LIFTS.source)
            }
            Change::Rearm if cleared => {
                ("wwwwww", "ppppp-".to_owned(), false, UNREGISTER_LIFTS.source)
            }
            Change::Rearm => ("wwwwww", full.clone(), true, UNREGISTER_LIFTS.source),
            _ => ("wwwwww", full.clone(), true, OBSERVED),
        };
        facts.extend(want(says, &[("change", "0"), ("reg", reg)]));
        facts.extend(want(says, &[("entries", &row(&entries, kernel))]));
        let child = match change {
            Change::ForkEvent => Some(full.as_str()),
            Change::Fork if backing.is_private() => Some("ppppp-"),
            Change::Fork => Some("------"),
            _ => None,
        };
        if let Some(child) = child {
            facts.extend(want(FORKED, &[("child", &row(child, kernel))]));
        }
        let write = match change {
            _ if caught => "parks".to_owned(),
            Change::Move if backing.is_huge() => MOVE_LIFTS.value(kernel, "spins", "ran"),
            _ => "ran".to_owned(),
        };
        facts.extend(want(says, &[("write", &write)]));
        facts
    }

    fn recipe(&self) -> Vec<String> {
        let Self { backing, change, asks } = self;
        vec![
            format!("write to pages 0 to 4 of a {backing} block; features: {asks}"),
            "register it for write protection and protect it all".into(),
            format!("then: {change}"),
            "look at registration and page table where the block stands now".into(),
            "a thread stores to page 2: does it park?".into(),
        ]
    }

    fn uses_huge_pages(&self) -> bool {
        self.backing.is_huge()
    }
}
