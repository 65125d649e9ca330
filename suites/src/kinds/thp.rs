//! Transparent huge pages and registered memory.

use crate::abi::newer::REGISTER_MODE_RWP;
use crate::abi::{REGISTER_MODE_MISSING, REGISTER_MODE_WP, WRITEPROTECT_MODE_WP, features};
use crate::expect::{Expected, OBSERVED};
use crate::memory::{HUGE, PAGE, tag};
use crate::model::source;
use crate::point::Waiter;
use crate::probe::{Case, Probe};
use crate::script::{COLLAPSE, Call, Ctx, DONTNEED, Memory, Place, Script, Span, Step, Treat};

static THP: Probe = Probe {
    suite: "kinds",
    name: "thp",
    statement: "In memory registered for missing pages no fault and no COPY makes a huge page; registered \
                for protection alone, or not any more, a store makes one. One that was there is present \
                as a whole, and loses exactly the pages that are discarded.",
    consumers: &[
        "QEMU postcopy: nhp_range(), migration/postcopy-ram.c",
        "CRIU lazy-pages: maybe_disable_thp()",
        "Firecracker: docs/hugepages.md, no huge pages in registered ranges",
    ],
};
static COLLAPSES: Probe = Probe {
    suite: "kinds",
    name: "thp-collapse",
    statement: "MADV_COLLAPSE does not fill the missing pages of memory that is registered for \
                missing pages.",
    consumers: &["CRIU lazy-pages: khugepaged skips what is registered", "QEMU postcopy"],
};
static CONTROL: Probe = Probe {
    suite: "kinds",
    name: "thp-collapse-control",
    statement: "MADV_COLLAPSE of memory that is not registered makes a huge page and fills the rest.",
    consumers: &["CRIU lazy-pages: khugepaged skips what is registered"],
};

/// What happens to a range that may hold a huge page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    CopyBeside,
    CopyInto,
    DiscardPart,
    DiscardPartAdvised,
    DiscardAll,
    ProtectPart,
    ProtectAll,
    ZeropageBeside,
    FaultBeside,
    TouchWp,
    TouchUnpopulated,
    TouchAsync,
    TouchRwp,
}

impl How {
    /// What a block is registered for that is only touched, and the features that it takes.
    const fn only_protects(self) -> Option<(u64, u64)> {
        match self {
            Self::TouchWp => Some((REGISTER_MODE_WP, 0)),
            Self::TouchUnpopulated => Some((REGISTER_MODE_WP, features::WP_UNPOPULATED)),
            Self::TouchAsync => Some((REGISTER_MODE_WP, features::WP_ASYNC)),
            Self::TouchRwp => Some((REGISTER_MODE_RWP, features::RWP)),
            _ => None,
        }
    }

    /// Whether a huge page is there before.
    const fn is_huge_before(self) -> bool {
        let is_empty = matches!(self, Self::CopyBeside | Self::ZeropageBeside | Self::FaultBeside);
        !is_empty && self.only_protects().is_none()
    }

    /// Those who touch it, the one that tells most first: what stays a default goes by that. A load maps the
    /// huge zero page, which smaps does not count.
    const fn accesses(self) -> [Waiter; 3] {
        match self {
            Self::FaultBeside
            | Self::TouchWp
            | Self::TouchUnpopulated
            | Self::TouchAsync
            | Self::TouchRwp => [Waiter::UserWrite, Waiter::UserRead, Waiter::SysWrite],
            _ => [Waiter::UserRead, Waiter::UserWrite, Waiter::SysWrite],
        }
    }
}

const HOWS: [(How, &str); 13] = [
    (How::CopyBeside, "copy-to-empty"),
    (How::CopyInto, "copy-into-huge-page"),
    (How::DiscardPart, "discard-part"),
    (How::DiscardPartAdvised, "nohugepage-and-discard-part"),
    (How::DiscardAll, "discard-all"),
    (How::ProtectPart, "protect-part"),
    (How::ProtectAll, "protect-all"),
    (How::ZeropageBeside, "zeropage-to-empty"),
    (How::FaultBeside, "unregister-and-touch"),
    (How::TouchWp, "touch-protection-only"),
    (How::TouchUnpopulated, "touch-protection-only-unpopulated"),
    (How::TouchAsync, "touch-protection-only-async"),
    (How::TouchRwp, "touch-rwp-only"),
];

/// The suite's cases about transparent huge pages.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (how, word) in HOWS {
        for waiter in how.accesses() {
            cases.push(Case::trial(&THP, script(how, word, waiter), true));
        }
    }
    for pages in [1, HUGE / PAGE - 1, HUGE / PAGE] {
        for mode in ["missing", "protection", "none"] {
            let probe = if mode == "none" { &CONTROL } else { &COLLAPSES };
            cases.push(Case::trial(probe, collapse(mode, pages), true));
        }
    }
    cases
}

const fn at(first: usize, count: usize) -> Span {
    Span::new(Place::Block, first, count)
}

const ALL: Span = Span::new(Place::Block, 0, 1).huge();

fn script(how: How, word: &str, waiter: Waiter) -> Script {
    let mut steps = vec![Step::Map(ALL, Memory::Thp)];
    if how.is_huge_before() {
        steps.extend([Step::Fill(ALL, tag::KEPT), Step::MustBeHuge(ALL)]);
        steps.push(Step::Fill(at(5, 2), tag::KEPT));
    } else {
        // A store to memory like it makes a huge page: whether one is made below says something.
        let like = Span::new(Place::Spare, 0, 1).huge();
        steps.extend([
            Step::Map(like, Memory::Thp),
            Step::Fill(like, tag::KEPT),
            Step::MustBeHuge(like),
        ]);
    }
    let (mode, needs) = match how {
        How::ProtectPart | How::ProtectAll => (REGISTER_MODE_WP, 0),
        _ => how.only_protects().unwrap_or((REGISTER_MODE_MISSING, 0)),
    };
    steps.extend([Step::Open(Ctx::First, needs), Step::Set(Ctx::First, Call::Register(ALL, mode))]);
    let call = |call| Step::Do(Ctx::First, call, "op", "field");
    match how {
        How::CopyBeside | How::CopyInto => steps.push(call(Call::Copy(at(5, 1), 0))),
        How::ZeropageBeside => steps.push(call(Call::Zeropage(at(5, 1), 0))),
        How::DiscardPart => steps.push(Step::Treat(DONTNEED, at(5, 1), "op")),
        How::DiscardPartAdvised => steps.extend([
            Step::Prepare(Treat::Advise(libc::MADV_NOHUGEPAGE, "MADV_NOHUGEPAGE"), ALL),
            Step::Treat(DONTNEED, at(5, 1), "op"),
        ]),
        How::DiscardAll => steps.push(Step::Treat(DONTNEED, ALL, "op")),
        How::ProtectPart => steps.push(call(Call::Wp(at(5, 1), WRITEPROTECT_MODE_WP))),
        How::ProtectAll => steps.push(call(Call::Wp(ALL, WRITEPROTECT_MODE_WP))),
        How::FaultBeside => steps.push(call(Call::Unregister(ALL))),
        How::TouchWp | How::TouchUnpopulated | How::TouchAsync | How::TouchRwp => {}
    }
    steps.extend([
        Step::Touch(Ctx::First, waiter, at(5, 1), "touch"),
        Step::Touch(Ctx::First, waiter, at(6, 1), "touch-next"),
        Step::Survey(at(4, 4), "reg", "pages"),
        Step::Huge(ALL, "huge"),
    ]);
    let axes = format!("how={word},access={waiter}");
    Script::new(axes, needs, steps, move |_| expect(how, waiter))
}

/// Who asks whether memory is registered before a fault makes a huge page of it.
const ONLY_MISSING: &str = "do_huge_pmd_anonymous_page() in mm/huge_memory.c: only of memory that is \
    registered for missing pages a fault is handed over";

/// What becomes of the rest.
const PARTS: &str = "zap_pmd_range() in mm/memory.c and change_pmd_range() in mm/mprotect.c: of what is less \
    than a huge page the entry is split first";

fn expect(how: How, waiter: Waiter) -> Vec<Expected> {
    let stores = waiter.stores();
    let ran = |read| if waiter.loads() { read } else { "ran" };
    let parks = if stores { "parks:write" } else { "parks:read" };
    let wp = if stores { "parks:wp-write" } else { "ran:kept" };
    let (rc, touch, next, says) = match how {
        How::CopyBeside => ("0", ran("ran:copied"), parks, source::COPY),
        How::ZeropageBeside => ("0", ran("ran:zero"), parks, source::ZEROPAGE),
        How::CopyInto => ("EEXIST", ran("ran:kept"), ran("ran:kept"), source::COPY),
        How::DiscardPart | How::DiscardPartAdvised => (
            "0",
            parks,
            ran("ran:kept"),
            "madvise(2), MADV_DONTNEED: exactly the pages of the range",
        ),
        How::DiscardAll => ("0", parks, parks, "madvise(2), MADV_DONTNEED"),
        How::ProtectPart => ("0", wp, ran("ran:kept"), source::WRITEPROTECT),
        How::ProtectAll => ("0", wp, wp, source::WRITEPROTECT),
        How::FaultBeside => ("0", ran("ran:zero"), ran("ran:zero"), source::UNREGISTER),
        How::TouchWp | How::TouchUnpopulated | How::TouchAsync | How::TouchRwp => {
            ("", ran("ran:zero"), ran("ran:zero"), ONLY_MISSING)
        }
    };
    let mut facts = Vec::new();
    if !rc.is_empty() {
        facts.push(Expected::new("op", rc, says));
    }
    facts.push(Expected::new("touch", touch, says));
    facts.push(Expected::new("touch-next", next, says));
    let made = how == How::FaultBeside || how.only_protects().is_some();
    if made {
        // What lies beside is present as well.
        let pages = if stores { "0ww0" } else { "0000" };
        facts.push(Expected::new("pages", pages, ONLY_MISSING));
    }
    let (huge, says) = match how {
        How::CopyInto => ("1", OBSERVED),
        How::ProtectAll => {
            ("1", "change_huge_pmd() in mm/huge_memory.c: a whole one is protected as one")
        }
        How::CopyBeside | How::ZeropageBeside => ("0", ONLY_MISSING),
        How::DiscardAll => ("0", "zap_huge_pmd() in mm/huge_memory.c"),
        How::DiscardPart | How::DiscardPartAdvised | How::ProtectPart => ("0", PARTS),
        _ if stores => ("1", ONLY_MISSING),
        _ => ("0", "smaps_pmd_entry() in fs/proc/task_mmu.c: the huge zero page is not counted"),
    };
    facts.push(Expected::new("huge", huge, says));
    facts
}

fn collapse(mode: &'static str, pages: usize) -> Script {
    let mut steps = vec![
        Step::Map(ALL, Memory::Thp),
        // No fault makes a huge page, MADV_COLLAPSE still may: it overrides the sysctl, not this.
        Step::Prepare(Treat::Advise(libc::MADV_NOHUGEPAGE, "MADV_NOHUGEPAGE"), ALL),
        Step::Fill(at(0, pages), tag::KEPT),
        Step::Prepare(Treat::Advise(libc::MADV_HUGEPAGE, "MADV_HUGEPAGE"), ALL),
        Step::Open(Ctx::First, 0),
    ];
    steps.extend(match mode {
        "missing" => Some(Step::Set(Ctx::First, Call::Register(ALL, REGISTER_MODE_MISSING))),
        "protection" => Some(Step::Set(Ctx::First, Call::Register(ALL, REGISTER_MODE_WP))),
        _ => None,
    });
    steps.extend([
        Step::Treat(COLLAPSE, ALL, "collapse"),
        Step::Survey(at(0, 2), "reg", "pages"),
        Step::Huge(ALL, "huge"),
        Step::Touch(Ctx::First, Waiter::UserRead, at(HUGE / PAGE - 1, 1), "touch-last"),
    ]);
    Script::new(format!("registered={mode},present={pages}"), 0, steps, move |kernel| {
        let says = "collapse_scan_pmd() in mm/khugepaged.c: an empty entry of registered memory ends \
                    the scan, also for MADV_COLLAPSE (6.1)";
        let full = pages == HUGE / PAGE;
        if kernel < uffd_results::KernelVersion::new(6, 1, 0) {
            let last = if full {
                "ran:kept"
            } else if mode == "missing" {
                "parks:read"
            } else {
                "ran:zero"
            };
            return vec![
                Expected::new("collapse", "EINVAL", "madvise(2), MADV_COLLAPSE (6.1)"),
                Expected::new("touch-last", last, "madvise(2)"),
            ];
        }
        let done = full || mode == "none";
        let last = match mode {
            _ if full => "ran:kept",
            "missing" => "parks:read",
            _ => "ran:zero",
        };
        let mut facts = vec![
            Expected::new("huge", if done { "1" } else { "0" }, says),
            Expected::new("touch-last", last, says),
        ];
        // 6.12 is the oldest after 6.1 that was asked.
        let refused =
            if kernel < uffd_results::KernelVersion::new(6, 2, 0) { "EINVAL" } else { "EBUSY" };
        let errno = "madvise_collapse_errno() in mm/khugepaged.c";
        facts.push(Expected::new("collapse", if done { "0" } else { refused }, errno));
        facts
    })
}
