//! Transparent huge pages and registered memory.

use crate::abi::{REGISTER_MODE_MISSING, REGISTER_MODE_WP, WRITEPROTECT_MODE_WP};
use crate::expect::{Expected, OBSERVED};
use crate::memory::{HUGE, PAGE, tag};
use crate::model::source;
use crate::point::Waiter;
use crate::probe::{Case, Probe};
use crate::script::{COLLAPSE, Call, Ctx, DONTNEED, Memory, Place, Script, Span, Step, Treat};

static THP: Probe = Probe {
    suite: "kinds",
    name: "thp",
    statement: "In registered memory no fault and no COPY makes a huge page; one that was there is \
                present as a whole, and loses exactly the pages that are discarded.",
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
}

const HOWS: [(How, &str); 9] = [
    (How::CopyBeside, "copy-to-empty"),
    (How::CopyInto, "copy-into-huge-page"),
    (How::DiscardPart, "discard-part"),
    (How::DiscardPartAdvised, "nohugepage-and-discard-part"),
    (How::DiscardAll, "discard-all"),
    (How::ProtectPart, "protect-part"),
    (How::ProtectAll, "protect-all"),
    (How::ZeropageBeside, "zeropage-to-empty"),
    (How::FaultBeside, "unregister-and-touch"),
];

/// The suite's cases about transparent huge pages.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (how, word) in HOWS {
        for waiter in [Waiter::UserRead, Waiter::UserWrite, Waiter::SysWrite] {
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
    let there = !matches!(how, How::CopyBeside | How::ZeropageBeside | How::FaultBeside);
    if there {
        steps.extend([Step::Fill(ALL, tag::KEPT), Step::MustBeHuge(ALL)]);
        steps.push(Step::Fill(at(5, 2), tag::KEPT));
    }
    let protects = matches!(how, How::ProtectPart | How::ProtectAll);
    let mode = if protects { REGISTER_MODE_WP } else { REGISTER_MODE_MISSING };
    steps.extend([Step::Open(Ctx::First, 0), Step::Set(Ctx::First, Call::Register(ALL, mode))]);
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
    }
    steps.extend([
        Step::Touch(Ctx::First, waiter, at(5, 1), "touch"),
        Step::Touch(Ctx::First, waiter, at(6, 1), "touch-next"),
        Step::Survey(at(4, 4), "reg", "pages"),
        Step::Huge(ALL, "huge"),
    ]);
    let axes = format!("how={word},access={waiter}");
    Script::new(axes, 0, steps, move |_| expect(how, waiter))
}

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
    };
    let mut facts = vec![Expected::new("op", rc, says)];
    facts.push(Expected::new("touch", touch, says));
    facts.push(Expected::new("touch-next", next, says));
    let huge = match how {
        How::CopyInto => Some("1"),
        How::CopyBeside | How::ZeropageBeside | How::DiscardAll => Some("0"),
        _ => None,
    };
    facts.extend(huge.map(|huge| Expected::new("huge", huge, OBSERVED)));
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
