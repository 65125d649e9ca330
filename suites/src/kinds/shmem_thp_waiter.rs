//! Huge pages of shared memory under a waiter: made beside its page by somebody else, or by
//! MADV_COLLAPSE.

use super::shmem_thp::{ALL, TABLE};
use crate::abi::{
    REGISTER_MODE_MINOR, REGISTER_MODE_MISSING, REGISTER_MODE_WP, WRITEPROTECT_MODE_WP,
};
use crate::expect::Expected;
use crate::memory::{HUGE, PAGE, tag};
use crate::model::source;
use crate::point::{Backing, PAGES, Waiter, axis};
use crate::probe::{Case, Probe};
use crate::script::{COLLAPSE, Call, Ctx, Memory, Place, Script, Span, Step};
use uffd_results::KernelVersion;

static FILLED: Probe = Probe {
    suite: "kinds",
    name: "filled-elsewhere-thp",
    statement: "Where a store through another mapping makes a huge page, the waiter's neighbours are \
                present as well, though nobody has filled them: they raise no missing fault and read \
                as zeros.",
    consumers: &[
        "Cloud Hypervisor: issue 8663, filling the memfd elsewhere and waking",
        "vhost-user back-ends of QEMU, DPDK and rust-vmm, which fill by a mapping of their own",
    ],
};
static COLLAPSED: Probe = Probe {
    suite: "kinds",
    name: "shmem-collapse",
    statement: "MADV_COLLAPSE of shared memory wakes nobody and fills no page that is registered for \
                missing pages (6.4); what is registered for minor faults it maps as a whole, with no \
                fault (in 6.1 it is EINVAL there).",
    consumers: &["CRIU lazy-pages: khugepaged skips what is registered", "QEMU postcopy"],
};

axis! {
    /// What the handler does after it has filled the page elsewhere.
    Act {
        /// UFFDIO_WAKE.
        Wake = "wake",
        /// UFFDIO_CONTINUE, the block being registered for minor faults too.
        Continue = "continue",
        /// UFFDIO_COPY, which finds the page.
        Copy = "copy",
    }
}

axis! {
    /// For what the block is registered that is collapsed, and who waits.
    State {
        /// For missing pages; a reader waits for one, the rest of the first eight is there.
        Missing = "missing",
        /// The same, and a writer waits.
        MissingWrite = "missing-write",
        /// For missing pages, all of which are there; nobody waits.
        MissingFull = "missing-full",
        /// For minor faults; a reader waits for one, the page cache holds all pages.
        Minor = "minor",
        /// For minor faults; a reader waits for one, the page cache holds the first eight.
        MinorPart = "minor-part",
        /// For write protection; a writer waits, all pages are there.
        Protected = "protection",
        /// Not registered, the first eight pages are there: the control.
        None = "none",
        /// Not registered, all pages are there.
        NoneFull = "none-full",
    }
}

/// The cases.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for huge in [true, false] {
        for act in Act::ALL {
            for waiter in [Waiter::UserRead, Waiter::UserWrite, Waiter::SysWrite] {
                cases.push(Case::trial(&FILLED, filled(huge, *act, waiter), true));
            }
        }
    }
    cases.extend(State::ALL.iter().map(|state| Case::trial(&COLLAPSED, collapsed(*state), true)));
    cases
}

const fn at(first: usize, count: usize) -> Span {
    Span::new(Place::Block, first, count)
}

const fn alias(first: usize, count: usize) -> Span {
    Span::new(Place::Other, first, count)
}

fn filled(huge: bool, act: Act, waiter: Waiter) -> Script {
    let (all, second, memory) = if huge {
        (ALL, alias(0, 1).huge(), Memory::HugeFile)
    } else {
        (at(0, PAGES), alias(0, PAGES), Memory::Of(Backing::Shmem))
    };
    let minor = if act == Act::Continue { REGISTER_MODE_MINOR } else { 0 };
    let page = at(2, 1);
    let mut steps = vec![
        Step::Map(all, memory),
        Step::Map(second, Memory::BlockAgain),
        Step::Open(Ctx::First, 0),
        Step::Set(Ctx::First, Call::Register(all, REGISTER_MODE_MISSING | minor)),
        Step::Park(Ctx::First, waiter, page),
        Step::Fill(alias(2, 1), tag::NEW),
    ];
    if huge {
        steps.push(Step::MustBeHuge(second));
    }
    if huge && act != Act::Wake {
        steps.push(Step::ForbidHuge);
    }
    let call = match act {
        Act::Wake => Call::Wake(page),
        Act::Continue => Call::Continue(page, 0),
        Act::Copy => Call::Copy(page, 0),
    };
    steps.extend([
        Step::Do(Ctx::First, call, "op", "field"),
        Step::Look(Ctx::First),
        Step::Rescue(Ctx::First),
        Step::Touch(Ctx::First, Waiter::UserRead, at(3, 1), "touch-next"),
        Step::Huge(all, "huge"),
    ]);
    let pages = if huge { "huge" } else { "small" };
    let axes = format!("pages={pages},op={act},waiter={waiter}");
    Script::new(axes, 0, steps, move |_| {
        let says = "shmem_get_folio_gfp() in mm/shmem.c: what the page cache holds raises no missing \
                    fault; a huge page that a store makes is zeroed and holds all 512 pages";
        let ran = if waiter.loads() { "ran:new" } else { "ran" };
        let mut facts = match act {
            Act::Copy => vec![
                Expected::new("op", "EEXIST", says),
                Expected::new("waiter", "asleep", says),
                Expected::new("rescued", ran, says),
            ],
            _ => vec![Expected::new("op", "0", says), Expected::new("waiter", ran, says)],
        };
        let next = match (huge, act) {
            (false, _) => "parks:read",
            (true, Act::Continue) => "parks:minor-read",
            (true, _) => "ran:zero",
        };
        facts.push(Expected::new("touch-next", next, says));
        let mapped = huge && act == Act::Wake;
        facts.push(Expected::new("huge", if mapped { "1" } else { "0" }, TABLE));
        facts
    })
}

impl State {
    const fn waiter(self) -> Waiter {
        match self {
            Self::Missing | Self::Minor | Self::MinorPart => Waiter::UserRead,
            Self::MissingWrite | Self::Protected => Waiter::UserWrite,
            Self::MissingFull | Self::None | Self::NoneFull => Waiter::None,
        }
    }

    /// Whether all pages are there.
    const fn full(self) -> bool {
        matches!(self, Self::MissingFull | Self::Minor | Self::Protected | Self::NoneFull)
    }

    const fn mode(self) -> u64 {
        match self {
            Self::Missing | Self::MissingWrite | Self::MissingFull => REGISTER_MODE_MISSING,
            Self::Minor | Self::MinorPart => REGISTER_MODE_MINOR,
            Self::Protected => REGISTER_MODE_WP,
            Self::None | Self::NoneFull => 0,
        }
    }
}

fn collapsed(state: State) -> Script {
    const COUNT: usize = HUGE / PAGE;
    let page = at(5, 1);
    let mut steps = vec![Step::Map(ALL, Memory::LongFile)];
    let count = if state.full() { COUNT } else { 8 };
    match state {
        State::Minor | State::MinorPart => steps.extend([
            Step::Map(alias(0, 1).huge(), Memory::BlockAgain),
            Step::Fill(alias(0, count), tag::KEPT),
        ]),
        State::Missing | State::MissingWrite => {
            steps.extend([Step::Fill(at(0, 5), tag::KEPT), Step::Fill(at(6, 2), tag::KEPT)]);
        }
        _ => steps.push(Step::Fill(at(0, count), tag::KEPT)),
    }
    steps.push(Step::Open(Ctx::First, 0));
    if state.mode() != 0 {
        steps.push(Step::Set(Ctx::First, Call::Register(ALL, state.mode())));
    }
    if state == State::Protected {
        steps.push(Step::Set(Ctx::First, Call::Wp(page, WRITEPROTECT_MODE_WP)));
    }
    let waits = state.waiter() != Waiter::None;
    if waits {
        steps.push(Step::Park(Ctx::First, state.waiter(), page));
    }
    steps.push(Step::Treat(COLLAPSE, ALL, "collapse"));
    if waits {
        steps.extend([Step::Look(Ctx::First), Step::Rescue(Ctx::First)]);
    }
    steps.extend([
        Step::Huge(ALL, "huge"),
        Step::Touch(Ctx::First, Waiter::UserRead, at(COUNT - 1, 1), "touch-last"),
    ]);
    Script::new(format!("registered={state}"), 0, steps, move |kernel| expect(state, kernel))
}

fn expect(state: State, kernel: KernelVersion) -> Vec<Expected> {
    let (collapse, rescued, huge, last, says) = if kernel < KernelVersion::new(6, 1, 0) {
        let last = match state {
            State::Missing | State::MissingWrite => "parks:read",
            State::None => "ran:zero",
            _ => "ran:kept",
        };
        ("EINVAL", "again", "0", last, "madvise(2), MADV_COLLAPSE (6.1)")
    } else {
        // 6.12 is the oldest after 6.1 that was asked.
        let old = kernel < KernelVersion::new(6, 2, 0);
        match state {
            State::Missing if old => ("0", "ran:zero", "1", "ran:zero", FILLS),
            State::MissingWrite if old => ("0", "ran", "1", "ran:zero", FILLS),
            State::Missing | State::MissingWrite => ("EBUSY", "again", "0", "parks:read", ENDS),
            State::Minor | State::MinorPart if old => {
                ("EINVAL", "again", "0", "parks:minor-read", MAPS)
            }
            State::Minor => ("0", "ran:kept", "1", "ran:kept", MAPS),
            State::MinorPart => ("0", "ran:kept", "1", "ran:zero", MAPS),
            State::Protected => ("EINVAL", "again", "0", "ran:kept", PROTECTED),
            State::MissingFull | State::NoneFull => ("0", "", "1", "ran:kept", COLLAPSE_SAYS),
            State::None => ("0", "", "1", "ran:zero", COLLAPSE_SAYS),
        }
    };
    let mut facts = vec![Expected::new("collapse", collapse, says)];
    if state.waiter() != Waiter::None {
        facts.push(Expected::new("waiter", "asleep", source::QUEUE));
        facts.push(Expected::new("queue", "1/0", source::QUEUE));
        facts.push(Expected::new("rescued", rescued, says));
    }
    facts.push(Expected::new("huge", huge, says));
    facts.push(Expected::new("touch-last", last, says));
    facts
}

const COLLAPSE_SAYS: &str = "madvise(2), MADV_COLLAPSE (6.1): what is missing of a file is filled";
const FILLS: &str = "collapse_file() in mm/khugepaged.c, before 6.4: what is missing is filled, whatever is \
    registered";
const ENDS: &str = "collapse_file() in mm/khugepaged.c (6.4): a hole, and a mapping that is registered for \
    missing pages, end it";
const MAPS: &str = "collapse_file() in mm/khugepaged.c: registrations for minor faults do not matter, \
    and collapse_pte_mapped_thp() maps the huge page at once; 6.1 did not";
const PROTECTED: &str = "try_collapse_pte_mapped_thp() in mm/khugepaged.c: not of a mapping that is \
    registered for write protection";
