//! A registration for missing pages and write protection at once.

use super::{Asks, E2B, FAULTS, LIFTS, UMAP, row};
use crate::abi::{
    COPY_MODE_DONTWAKE, COPY_MODE_WP, REGISTER_MODE_MISSING, REGISTER_MODE_WP, WRITEPROTECT_MODE_WP,
};
use crate::expect::Expected;
use crate::lab::{Lab, SMALL, length, outcome, want};
use crate::model::source;
use crate::outcome::{Seen, Stop};
use crate::point::{Backing, PAGES, Waiter as Kind, axis};
use crate::probe::{Case, Probe, Trial};
use crate::stage::Stage;
use uffd_results::KernelVersion;

static BOTH: Probe = Probe {
    suite: "writeprotect",
    name: "missing-then-wp",
    statement: "Registered for both, a missing page raises a missing fault first; COPY with MODE_WP places \
                it protected in one step, so a woken writer parks again, now for the protection, and \
                is freed by WRITEPROTECT(0).",
    consumers: &[UMAP, E2B],
};
static PLAIN: Probe = Probe {
    suite: "writeprotect",
    name: "missing-then-wp-control",
    statement: "Registered for both, a page that COPY places without MODE_WP is not protected: the woken \
                writer runs through.",
    consumers: &[UMAP, E2B],
};

axis! {
    /// How the missing page is placed.
    How {
        /// COPY.
        Copy = "copy",
        /// COPY with MODE_WP.
        CopyWp = "copy-wp",
        /// COPY with MODE_WP and MODE_DONTWAKE, then WAKE.
        CopyWpWake = "copy-wp-then-wake",
        /// ZEROPAGE.
        Zeropage = "zeropage",
        /// ZEROPAGE with MODE_DONTWAKE, then WRITEPROTECT, then WAKE.
        ZeroProtectWake = "zeropage-protect-wake",
        /// WRITEPROTECT of the missing page before the thread parks, then COPY.
        MarkThenCopy = "mark-then-copy",
        /// WRITEPROTECT of the missing page before the thread parks, then COPY with MODE_WP.
        MarkThenCopyWp = "mark-then-copy-wp",
        /// WRITEPROTECT of the missing page before the thread parks, then WRITEPROTECT(0), then COPY.
        MarkLiftCopy = "mark-lift-copy",
        /// WRITEPROTECT of the missing page before the thread parks, then ZEROPAGE.
        MarkThenZeropage = "mark-then-zeropage",
    }
}

impl How {
    const fn marks(self) -> bool {
        matches!(
            self,
            Self::MarkThenCopy | Self::MarkThenCopyWp | Self::MarkLiftCopy | Self::MarkThenZeropage
        )
    }

    const fn zeroes(self) -> bool {
        matches!(self, Self::Zeropage | Self::ZeroProtectWake | Self::MarkThenZeropage)
    }

    /// Whether the page is protected once the thread is woken.
    const fn protects(self) -> bool {
        matches!(
            self,
            Self::CopyWp | Self::CopyWpWake | Self::ZeroProtectWake | Self::MarkThenCopyWp
        )
    }
}

/// The question.
#[derive(Clone, Copy, Debug)]
struct Both {
    backing: Backing,
    how: How,
    who: Kind,
    asks: Asks,
}

/// The cases.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let everyone = [Kind::UserRead, Kind::UserWrite, Kind::SysRead, Kind::VmWrite];
    for backing in Backing::ALL.iter().copied() {
        for how in How::ALL.iter().copied() {
            if backing.is_huge() && how.zeroes() {
                continue;
            }
            for who in everyone {
                for asks in Asks::ALL.iter().copied() {
                    if asks == Asks::Unpopulated && !how.marks() {
                        continue;
                    }
                    let trial = Both { backing, how, who, asks };
                    let probe = if how == How::Copy { &PLAIN } else { &BOTH };
                    let brief = matches!(who, Kind::UserRead | Kind::UserWrite);
                    let huge = backing == Backing::HugetlbShared
                        && matches!(how, How::CopyWp | How::MarkThenCopy)
                        && who == Kind::UserWrite
                        && asks == Asks::None;
                    let by_default = (SMALL.contains(&backing) && brief) || huge;
                    cases.push(Case::trial(probe, trial, by_default));
                }
            }
        }
    }
    cases
}

const PAGE: usize = 2;

impl Both {
    fn place(self, lab: &Lab<'_>, seen: &mut Seen<'_>) {
        let target = lab.page(PAGE);
        let (copy, zero) = (("copy", "field"), ("zeropage", "field"));
        let source = lab.stage.source;
        match self.how {
            How::Copy | How::MarkThenCopy => outcome(copy, lab.uffd.copy(target, source, 0), seen),
            How::CopyWp | How::MarkThenCopyWp => {
                outcome(copy, lab.uffd.copy(target, source, COPY_MODE_WP), seen);
            }
            How::CopyWpWake => {
                let mode = COPY_MODE_WP | COPY_MODE_DONTWAKE;
                outcome(copy, lab.uffd.copy(target, source, mode), seen);
                seen.fact("wake", lab.uffd.wake(target));
            }
            How::Zeropage | How::MarkThenZeropage => {
                outcome(zero, lab.uffd.zeropage(target, 0), seen);
            }
            How::ZeroProtectWake => {
                outcome(zero, lab.uffd.zeropage(target, COPY_MODE_DONTWAKE), seen);
                seen.fact("protect", lab.uffd.writeprotect(target, WRITEPROTECT_MODE_WP));
                seen.fact("wake", lab.uffd.wake(target));
            }
            How::MarkLiftCopy => {
                seen.fact("unmark", lab.uffd.writeprotect(target, 0));
                outcome(copy, lab.uffd.copy(target, source, 0), seen);
            }
        }
    }
}

impl Trial for Both {
    fn axes(&self) -> String {
        let Self { backing, how, who, asks } = self;
        format!("backing={backing},how={how},who={who},asks={asks}")
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        let lab = Lab::new(stage, self.backing, self.asks.bits())?;
        lab.register(0..PAGES, REGISTER_MODE_MISSING | REGISTER_MODE_WP)?;
        if self.how.marks() {
            seen.fact("mark", lab.uffd.writeprotect(lab.page(PAGE), WRITEPROTECT_MODE_WP));
            lab.entries("marked", seen)?;
        }
        let Some(mut waiter) = lab.meet(("access", "fault"), self.who, PAGE, seen)? else {
            return lab.entries("after", seen);
        };
        seen.step("place");
        self.place(&lab, seen);
        let mut waits = lab.look("waiter", &mut waiter, seen)?;
        if waits {
            seen.fact(
                "second",
                lab.uffd.read().map_or_else(
                    |e| format!("{e:?}"),
                    |m| match m {
                        crate::abi::Message::Pagefault { flags, .. } => {
                            crate::scenario::fault_word(flags)
                        }
                        other => crate::abi::event_name(other.number()),
                    },
                ),
            );
        }
        lab.entries("placed", seen)?;
        if waits {
            seen.step("lift");
            seen.fact("lift", lab.uffd.writeprotect(lab.page(PAGE), 0));
            waits = lab.look("freed", &mut waiter, seen)?;
            lab.entries("after", seen)?;
        }
        if waits { Ok(()) } else { lab.contents("pages", seen) }
    }

    fn expect(&self, kernel: KernelVersion) -> Vec<Expected> {
        let Self { backing, how, who, asks } = *self;
        let writes = who.write_faults(backing);
        let mut facts = Vec::new();
        if how.marks() {
            facts.extend(want(super::PROTECTS, &[("mark", "0")]));
            let marked = if super::marks(backing, asks) { "--n---" } else { "------" };
            facts.extend(want(super::UNPOPULATED, &[("marked", marked)]));
        }
        let fault = if writes { "write@2" } else { "read@2" };
        facts.extend(want(source::QUEUE, &[("access", "parks"), ("fault", fault)]));
        if how == How::MarkLiftCopy {
            facts.extend(want(super::PROTECTS, &[("unmark", "0")]));
        }
        let call = if how.zeroes() { "zeropage" } else { "copy" };
        let over = how == How::MarkThenZeropage && super::marks(backing, asks);
        if over && backing.is_private() {
            // Not woken; WRITEPROTECT(0) takes the marker away and wakes, to the next missing fault.
            let says = "mfill_atomic_pte_zeropage(): EEXIST at anything but an empty entry, a marker \
                        included";
            facts.extend(want(says, &[(call, "EEXIST"), ("field", "-17")]));
            facts.extend(want(says, &[("waiter", "asleep"), ("second", "EAGAIN")]));
            facts.extend(want(says, &[("placed", "--n---")]));
            facts.extend(want(LIFTS, &[("lift", "0"), ("freed", "again"), ("after", "------")]));
            return facts;
        }
        facts.extend(want(source::COPY, &[(call, "0"), ("field", &length(backing))]));
        let content = if how.zeroes() { "zero" } else { "copied" };
        let again = how.protects() && writes && asks != Asks::Async;
        if again {
            facts.extend(want(FAULTS, &[("waiter", "again"), ("second", "wp-write")]));
            facts.extend(want(super::SHOWN, &[("placed", &row("--w---", kernel))]));
            facts.extend(want(LIFTS, &[("lift", "0"), ("freed", "ran")]));
            facts.extend(want(super::SHOWN, &[("after", "--p---")]));
        } else {
            let placed = if how.protects() && !writes { "--w---" } else { "--p---" };
            facts.extend(want(FAULTS, &[("waiter", &who.ran(content))]));
            facts.extend(want(super::SHOWN, &[("placed", &row(placed, kernel))]));
        }
        let page = match (who.stores(), how.zeroes()) {
            (true, _) => "--w---",
            (false, true) => "--0---",
            (false, false) => "--c---",
        };
        facts.extend(want(source::RERUN, &[("pages", page)]));
        facts
    }

    fn recipe(&self) -> Vec<String> {
        let Self { backing, how, who, asks } = self;
        vec![
            format!("register an empty {backing} block for missing and wp, features: {asks}"),
            format!("a thread accesses page 2: {who}; it parks, its message is read"),
            format!("place the page: {how}"),
            "look at the thread; if it parks again, remove the protection and look again".into(),
        ]
    }

    fn uses_huge_pages(&self) -> bool {
        self.backing.is_huge()
    }
}
