//! Transparent huge pages in the source and at the destination.

use super::{ART, NEEDS, fate, relocate, returned, says};
use crate::abi::{REGISTER_MODE_MISSING, newer::MOVE_MODE_ALLOW_SRC_HOLES};
use crate::expect::Expected;
use crate::memory::{HUGE, PAGE, tag};
use crate::point::Waiter;
use crate::probe::{Case, Probe};
use crate::script::{Call, Ctx, DONTNEED, Memory, Place, Script, Span, Step, Treat};
use uffd_results::KernelVersion;

static THP: Probe = Probe {
    suite: "move",
    name: "thp",
    statement: "MOVE of a whole, aligned transparent huge page moves it as one; of a part, or to \
                where a page table is, it is split and moved page by page; shared or pinned it gives \
                EBUSY and stays whole.",
    consumers: &[ART],
};

static PINNED: Probe = Probe {
    suite: "move",
    name: "thp-pinned",
    statement: "MOVE of a part of a huge page that is pinned gives EBUSY, or tries again for as long \
                as the pin lasts.",
    consumers: &[ART],
};

/// What a split of a huge page gives while somebody else holds it, where the EAGAIN of an earlier try is
/// not forgotten when a try succeeds (6.18 to 7.1: move_pages() in mm/userfaultfd.c).
const STALE: &[&str] = &["EBUSY", "EEXIST"];
/// The same, where that EAGAIN itself is not what is expected.
const HELD: &[&str] = &["EAGAIN", "EBUSY", "EEXIST"];

/// Base pages of a huge page.
const SMALL: usize = HUGE / PAGE;

/// What is moved, and onto what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    /// One huge page to an empty, aligned place.
    Whole,
    /// Two of them.
    Two,
    /// The first base page of one.
    Head,
    /// A base page in its middle.
    Middle,
    /// A huge page's length, from its second base page on, into the next.
    Shifted,
    /// A whole one to a place that is not aligned.
    Misplaced,
    /// A whole one to where a page table is.
    Table,
    /// A whole one to where a base page is: its fourth.
    Taken,
    /// A whole one to where a huge page is.
    TakenByHuge,
    /// A whole one that a child shares.
    Shared,
    /// A part of one that a child shares.
    SharedPart,
    /// A whole one that is pinned.
    Pinned,
    /// The first two base pages of one, of which the first is no longer its: a page of its own.
    Replaced,
    /// A whole one that was only loaded from: the huge zero page.
    Zero,
    /// The first base page of the huge zero page.
    ZeroPart,
    /// A hole of a huge page's length, with holes allowed.
    Hole,
}

const HOWS: [(How, &str); 16] = [
    (How::Whole, "whole"),
    (How::Two, "two"),
    (How::Head, "first-page"),
    (How::Middle, "page-in-middle"),
    (How::Shifted, "shifted-source"),
    (How::Misplaced, "shifted-destination"),
    (How::Table, "onto-page-table"),
    (How::Taken, "onto-page"),
    (How::TakenByHuge, "onto-huge-page"),
    (How::Shared, "shared-by-fork"),
    (How::SharedPart, "part-shared-by-fork"),
    (How::Pinned, "pinned"),
    (How::Replaced, "first-page-replaced"),
    (How::Zero, "zero"),
    (How::ZeroPart, "part-of-zero"),
    (How::Hole, "hole-allowed"),
];

/// The suite's cases about huge pages.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (how, word) in HOWS {
        for waiter in [Waiter::None, Waiter::UserRead, Waiter::SysWrite] {
            // Where the kernel goes down, each case costs two boots.
            let once = how != How::Zero || waiter == Waiter::UserRead;
            let by_default = waiter != Waiter::None && once;
            cases.push(Case::trial(&THP, script(how, word, waiter), by_default));
        }
    }
    for waiter in [Waiter::None, Waiter::UserRead] {
        for page in [0, 7, 100] {
            let by_default = (page, waiter) == (7, Waiter::UserRead);
            cases.push(Case::trial(&PINNED, pinned(page, waiter), by_default));
        }
    }
    cases
}

fn pinned(page: usize, waiter: Waiter) -> Script {
    let huge = |place| Span::new(place, 0, 1).huge();
    let mut steps = vec![
        Step::Map(huge(Place::Block), Memory::Thp),
        Step::Map(huge(Place::Spare), Memory::Thp),
        Step::Fill(huge(Place::Spare), tag::NEW),
        Step::MustBeHuge(huge(Place::Spare)),
        Step::Fill(from(page, 1), tag::NEW),
        Step::Prepare(Treat::Pin, from(7, 1)),
        Step::Open(Ctx::First, 0),
        Step::Set(Ctx::First, Call::Register(huge(Place::Block), REGISTER_MODE_MISSING)),
    ];
    if waiter != Waiter::None {
        steps.push(Step::Park(Ctx::First, waiter, to(4, 1)));
    }
    steps.extend([
        Step::WhilePinned(Ctx::First, Call::Move(to(4, 1), from(page, 1), 0)),
        Step::Look(Ctx::First),
        Step::Bits(to(4, 1), "bits"),
        Step::Rescue(Ctx::First),
    ]);
    let axes = format!("pinned=7,moves={page},waiter={waiter}");
    Script::new(axes, NEEDS, steps, |kernel| {
        let says = "move_pages() in mm/userfaultfd.c tries again on EAGAIN, which is what splitting \
                    a pinned folio gives; a fatal signal is the only other way out. In 6.12.118 and 7.3.4 \
                    the move of single pages makes EBUSY of an EAGAIN that split_folio() has given, not yet in \
                    6.12.117, 6.18.15, 7.2.13 and 7.3-rc7 (seen in 6.18.44; the commit is not found)";
        // From 6.18 to 7.1 the EAGAIN of an earlier try is not forgotten when a try succeeds: the
        // page has moved, and the next try finds it at its destination.
        let stale = kernel >= KernelVersion::new(6, 18, 0) && kernel < KernelVersion::new(7, 2, 0);
        let (rc, field) = if stale { ("EBUSY|EEXIST", "-16|-17") } else { ("EBUSY|0", "-16|4096") };
        vec![
            Expected::new("spins", spins(kernel), says),
            Expected::new("move", rc, says),
            Expected::new("field", field, says),
        ]
    })
}

/// Whether MOVE goes round in circles; between two releases that were seen to differ it is open.
fn spins(kernel: KernelVersion) -> &'static str {
    let at_least = |major, minor, patch| kernel >= KernelVersion::new(major, minor, patch);
    let (last, first) = match kernel.series().as_str() {
        "6.12" => (at_least(6, 12, 44), at_least(6, 12, 118)),
        "6.18" => (at_least(6, 18, 16), at_least(6, 18, 44)),
        _ => (at_least(7, 3, 0), at_least(7, 3, 0)),
    };
    match (last, first) {
        (_, true) => "false",
        (true, false) => "true|false",
        (false, false) => "true",
    }
}

const fn to(first: usize, count: usize) -> Span {
    Span::new(Place::Block, first, count)
}

const fn from(first: usize, count: usize) -> Span {
    Span::new(Place::Spare, first, count)
}

fn script(how: How, word: &str, waiter: Waiter) -> Script {
    let huge = |place| Span::new(place, 0, 3).huge();
    let mut steps = Vec::new();
    if how == How::Zero {
        steps.push(Step::OnlyInVm);
    }
    steps.extend([
        Step::Map(huge(Place::Block), Memory::Thp),
        Step::Map(huge(Place::Spare), Memory::Thp),
    ]);
    if matches!(how, How::Zero | How::ZeroPart) {
        steps.push(Step::Load(from(0, 1)));
    } else if how != How::Hole {
        let source = Span::new(Place::Spare, 0, 2).huge();
        steps.extend([Step::Fill(source, tag::NEW), Step::MustBeHuge(source)]);
        // So that the first base pages moved from inside of it hold something as well.
        steps.push(Step::Fill(from(1, 1), tag::NEW));
        steps.push(Step::Fill(from(100, 1), tag::NEW));
    }
    let one = Span::new(Place::Spare, 0, 1).huge();
    match how {
        How::Shared | How::SharedPart => steps.push(Step::Prepare(Treat::Fork, one)),
        How::Pinned => steps.push(Step::Prepare(Treat::Pin, from(7, 1))),
        How::Table => steps.extend([
            Step::Prepare(
                Treat::Advise(libc::MADV_NOHUGEPAGE, "MADV_NOHUGEPAGE"),
                huge(Place::Block),
            ),
            Step::Fill(to(9, 1), tag::KEPT),
            Step::Prepare(DONTNEED, to(9, 1)),
        ]),
        How::Taken => steps.extend([
            Step::Prepare(
                Treat::Advise(libc::MADV_NOHUGEPAGE, "MADV_NOHUGEPAGE"),
                huge(Place::Block),
            ),
            Step::Fill(to(3, 1), tag::KEPT),
        ]),
        How::TakenByHuge => {
            let taken = Span::new(Place::Block, 0, 1).huge();
            steps.extend([Step::Fill(to(0, 1), tag::KEPT), Step::MustBeHuge(taken)]);
        }
        How::Replaced => {
            steps.extend([Step::Prepare(DONTNEED, from(0, 1)), Step::Fill(from(0, 1), tag::NEW)]);
        }
        _ => {}
    }
    steps.extend([
        Step::Open(Ctx::First, 0),
        Step::Set(Ctx::First, Call::Register(huge(Place::Block), REGISTER_MODE_MISSING)),
    ]);
    let (target, source) = match how {
        How::Two => (Span::new(Place::Block, 0, 2).huge(), Span::new(Place::Spare, 0, 2).huge()),
        How::Head | How::SharedPart | How::ZeroPart => (to(0, 1), from(0, 1)),
        How::Middle => (to(4, 1), from(100, 1)),
        How::Replaced => (to(0, 2), from(0, 2)),
        How::Shifted => (to(0, SMALL), from(1, SMALL)),
        How::Misplaced => (to(1, SMALL), from(0, SMALL)),
        _ => (Span::new(Place::Block, 0, 1).huge(), one),
    };
    if waiter != Waiter::None {
        steps.push(Step::Park(Ctx::First, waiter, waits(how)));
    }
    let mode = if how == How::Hole { MOVE_MODE_ALLOW_SRC_HOLES } else { 0 };
    steps.extend([
        relocate(target, source, mode),
        // What is in small pages now stays in them.
        Step::ForbidHuge,
        Step::Look(Ctx::First),
        Step::Survey(to(0, 6), "reg", "pages"),
        Step::Survey(from(0, 6), "src-reg", "src-pages"),
        Step::Huge(huge(Place::Block), "huge"),
        Step::Huge(huge(Place::Spare), "src-huge"),
        Step::Rescue(Ctx::First),
    ]);
    let axes = format!("how={word},waiter={waiter}");
    let script = Script::new(axes, NEEDS, steps, move |_| expect(how, waiter));
    match how {
        How::Head | How::Middle | How::Shifted | How::Misplaced | How::Table => {
            script.again_on(HELD)
        }
        How::Taken => script.again_on(STALE),
        _ => script,
    }
}

/// The page that is waited for: the first that the move reaches, or, if that is taken, in the last
/// huge page, which no move reaches.
fn waits(how: How) -> Span {
    match how {
        How::Middle => to(4, 1),
        How::Misplaced => to(1, 1),
        How::TakenByHuge => to(2 * SMALL, 1),
        _ => to(0, 1),
    }
}

fn expect(how: How, waiter: Waiter) -> Vec<Expected> {
    let moved = |len: usize| (returned("0", len, says::MOVED), "ran:new", says::MOVED);
    let (mut facts, word, says) = match how {
        How::Two => moved(2 * HUGE),
        How::Head | How::Middle => moved(PAGE),
        How::Replaced => moved(2 * PAGE),
        How::Whole | How::Shifted | How::Misplaced | How::Table => moved(HUGE),
        How::Taken => (returned("EAGAIN", 3 * PAGE, says::PARTLY), "ran:new", says::PARTLY),
        How::TakenByHuge => (returned("EEXIST", -17, says::EEXIST), "asleep", says::EEXIST),
        How::Shared | How::SharedPart | How::Pinned => {
            (returned("EBUSY", -16, says::EBUSY), "asleep", says::EBUSY)
        }
        How::Zero => (returned("0", HUGE, says::MOVED), "ran:zero", says::MOVED),
        How::ZeroPart => (returned("0", PAGE, says::MOVED), "ran:zero", says::MOVED),
        How::Hole => (returned("0", HUGE, says::HOLES), "again", says::HOLES),
    };
    facts.extend(fate(waiter, word, says));
    facts.extend(left(how));
    facts
}

/// What stands at both places afterwards: contents of the first six small pages of each, and in how many huge
/// pages.
fn left(how: How) -> [Expected; 4] {
    // A huge page begins with two pages that were written to.
    const FULL: &str = "nn0000";
    const EMPTY: &str = "------";
    let (pages, source, says) = match how {
        How::Whole | How::Two | How::Table => (FULL, EMPTY, says::MOVED),
        How::Head => ("n-----", "-n0000", says::MOVED),
        How::Middle => ("----n-", FULL, says::MOVED),
        // Its last page comes from the second of the two.
        How::Shifted => ("n00000", "n-----", says::MOVED),
        How::Misplaced => ("-nn000", EMPTY, says::MOVED),
        How::Replaced => ("nn----", "--0000", says::MOVED),
        How::Zero => ("000000", EMPTY, says::MOVED),
        How::ZeroPart => ("0-----", "-00000", says::MOVED),
        How::Taken => ("nn0k--", "---000", says::PARTLY),
        How::TakenByHuge => ("k00000", FULL, says::EEXIST),
        How::Shared | How::SharedPart | How::Pinned => (EMPTY, FULL, says::EBUSY),
        How::Hole => (EMPTY, EMPTY, says::HOLES),
    };
    let (huge, huge_source, why) = match how {
        How::Whole => ("1", "1", AS_ONE),
        How::Two => ("2", "0", AS_ONE),
        How::Head | How::Middle | How::Replaced | How::Misplaced | How::Table | How::Taken => {
            ("0", "1", IN_PARTS)
        }
        // From the one and into the other: both are split.
        How::Shifted => ("0", "0", IN_PARTS),
        How::TakenByHuge => ("1", "2", says),
        How::Shared | How::SharedPart | How::Pinned => ("0", "2", says),
        How::Zero | How::ZeroPart => ("0", "0", NOT_COUNTED),
        How::Hole => ("0", "0", says),
    };
    [
        Expected::new("pages", pages, says),
        Expected::new("src-pages", source, says),
        Expected::new("huge", huge, why),
        Expected::new("src-huge", huge_source, why),
    ]
}

const AS_ONE: &str = "move_pages_huge_pmd() in mm/huge_memory.c: the entry of a whole, aligned huge page goes to an \
    empty place";
const IN_PARTS: &str = "move_pages() in mm/userfaultfd.c: where move_splits_huge_pmd(), or where the destination has a \
    page table, the entry is split and its pages are moved one by one";
const NOT_COUNTED: &str =
    "smaps_pmd_entry() in fs/proc/task_mmu.c: the huge zero page is not counted";
