//! Huge pages of shared memory: a file on a tmpfs with `huge=always`, that needs no setting.

use crate::abi::{
    REGISTER_MODE_MINOR, REGISTER_MODE_MISSING, REGISTER_MODE_WP, WRITEPROTECT_MODE_WP, features,
};
use crate::expect::{Expected, OBSERVED};
use crate::memory::{HUGE, ONE_PAGE, PAGE, tag};
use crate::model::source;
use crate::point::{Waiter, axis};
use crate::probe::{Case, Probe};
use crate::script::{Call, Ctx, DONTNEED, Memory, Place, REMOVE, Script, Span, Step, Treat};

const CROSVM: &str = "crosvm: MADV_REMOVE must be aligned to huge pages, commit 71725ed10c40";
const QEMU: &str = "QEMU postcopy: shared RAM blocks on a tmpfs with huge pages";

static PLACED: Probe = Probe {
    suite: "kinds",
    name: "shmem-thp",
    statement: "A huge page in the page cache is present as a whole: nothing raises a missing fault and \
                nothing is placed over it; CONTINUE, POISON and WRITEPROTECT still concern single pages \
                of it, and no COPY makes one.",
    consumers: &[QEMU, "DPDK, rust-vmm: vhost-user back-ends that do not forbid huge pages"],
};
static DISCARDED: Probe = Probe {
    suite: "kinds",
    name: "shmem-thp-part",
    statement: "A page that is removed from a huge page of shared memory raises a missing fault, \
                unless the huge page can't be split (a pin): then it is zeroed and stays present.",
    consumers: &[CROSVM, QEMU, "QEMU virtio-balloon: ram_block_discard_range()"],
};

axis! {
    /// What happens to memory that has a huge page, or may get one.
    How {
        /// The huge page is in the page cache and not mapped; registered for missing pages.
        CachedMissing = "cached-missing",
        /// The same, registered for minor faults.
        CachedMinor = "cached-minor",
        /// The huge page is mapped when it is registered for minor faults.
        MappedMinor = "mapped-minor",
        /// Half of it is registered for minor faults.
        MappedHalfMinor = "mapped-half-minor",
        /// CONTINUE of one page.
        ContinueOne = "continue-one",
        /// CONTINUE of one page for the second time.
        ContinueTwice = "continue-twice",
        /// CONTINUE of all pages.
        ContinueAll = "continue-all",
        /// WRITEPROTECT of one page of a mapped huge page.
        ProtectOne = "protect-one",
        /// WRITEPROTECT of one page of a huge page that is not mapped.
        ProtectCached = "protect-one-cached",
        /// WRITEPROTECT of all pages.
        ProtectAll = "protect-all",
        /// All protected, then one page unprotected.
        UnprotectOne = "protect-all-and-unprotect-one",
        /// COPY over one page of a mapped huge page.
        CopyInto = "copy-into-mapped",
        /// COPY over one page of a huge page that is not mapped.
        CopyCached = "copy-into-cached",
        /// COPY to a file without pages.
        CopyEmpty = "copy-to-empty",
        /// ZEROPAGE to a file without pages.
        ZeroEmpty = "zeropage-to-empty",
        /// POISON of one page of a mapped huge page.
        PoisonMapped = "poison-mapped",
        /// POISON of one page of a huge page that is not mapped.
        PoisonCached = "poison-cached",
    }
}

axis! {
    /// How a part of a mapped huge page is discarded.
    Part {
        /// MADV_REMOVE of one page.
        Remove = "remove",
        /// A punched hole of one page.
        Punch = "punch-hole",
        /// A punched hole of one page, the huge page not being mapped.
        PunchCached = "punch-hole-cached",
        /// A punched hole of one page while another page is pinned.
        PunchPinned = "punch-hole-pinned",
        /// The same, registered for minor faults too.
        PunchPinnedMinor = "punch-hole-pinned-minor",
        /// MADV_REMOVE of all pages.
        RemoveAll = "remove-all",
        /// MADV_DONTNEED of one page.
        Dontneed = "dontneed",
        /// The same, registered for minor faults.
        DontneedMinor = "dontneed-minor",
        /// One page is write-protected, registered for minor faults too.
        ProtectMinor = "protect-minor",
    }
}

/// Who touches page 5, the one concerned.
const WHO: [Waiter; 3] = [Waiter::UserRead, Waiter::UserWrite, Waiter::SysWrite];

/// The cases.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for waiter in WHO {
        let by_default = waiter != Waiter::SysWrite;
        for how in How::ALL {
            let by_default = by_default || *how == How::CachedMissing;
            cases.push(Case::trial(&PLACED, placed(*how, waiter), by_default));
        }
        for part in Part::ALL {
            let by_default = by_default || *part == Part::Punch;
            cases.push(Case::trial(&DISCARDED, discarded(*part, waiter), by_default));
        }
    }
    cases
}

/// The whole block, one huge page.
pub(super) const ALL: Span = Span::new(Place::Block, 0, 1).huge();
/// The second mapping of the file, at the same offset.
const ALIAS: Span = Span::new(Place::Other, 0, 1).huge();
const COUNT: usize = HUGE / PAGE;

const fn at(first: usize, count: usize) -> Span {
    Span::new(Place::Block, first, count)
}

/// A huge page that the block does not map.
fn cached() -> Vec<Step> {
    vec![
        Step::Map(ALL, Memory::HugeFile),
        Step::Map(ALIAS, Memory::BlockAgain),
        Step::Fill(Span::new(Place::Other, 0, 8), tag::KEPT),
        Step::MustBeHuge(ALIAS),
    ]
}

/// A huge page that the block maps.
fn mapped() -> Vec<Step> {
    vec![Step::Map(ALL, Memory::HugeFile), Step::Fill(at(0, 8), tag::KEPT), Step::MustBeHuge(ALL)]
}

fn register(span: Span, mode: u64) -> [Step; 2] {
    [Step::Open(Ctx::First, 0), Step::Set(Ctx::First, Call::Register(span, mode))]
}

/// Touches the page concerned and the next one, and counts the huge pages that are left.
fn touches(waiter: Waiter) -> [Step; 3] {
    [
        Step::Touch(Ctx::First, waiter, at(5, 1), "touch"),
        Step::Touch(Ctx::First, waiter, at(6, 1), "touch-next"),
        Step::Huge(ALL, "huge"),
    ]
}

fn placed(how: How, waiter: Waiter) -> Script {
    let one = at(5, 1);
    let mut steps = match how {
        How::MappedMinor
        | How::MappedHalfMinor
        | How::ProtectOne
        | How::ProtectAll
        | How::UnprotectOne
        | How::CopyInto
        | How::PoisonMapped => mapped(),
        How::CopyEmpty | How::ZeroEmpty => vec![Step::Map(ALL, Memory::HugeFile)],
        _ => cached(),
    };
    let mode = match how {
        How::CachedMinor
        | How::MappedMinor
        | How::MappedHalfMinor
        | How::ContinueOne
        | How::ContinueTwice
        | How::ContinueAll => REGISTER_MODE_MINOR,
        How::ProtectOne | How::ProtectCached | How::ProtectAll | How::UnprotectOne => {
            REGISTER_MODE_WP
        }
        _ => REGISTER_MODE_MISSING,
    };
    // Some are about a fault that maps the huge page, or a call that might make one.
    let may_be = matches!(how, How::CachedMissing | How::CopyEmpty | How::ZeroEmpty);
    if !may_be {
        steps.push(Step::ForbidHuge);
    }
    let half = if how == How::MappedHalfMinor { at(0, COUNT / 2) } else { ALL };
    steps.extend(register(half, mode));
    let protect = |span| Call::Wp(span, WRITEPROTECT_MODE_WP);
    match how {
        How::ContinueTwice => steps.push(Step::Set(Ctx::First, Call::Continue(one, 0))),
        How::UnprotectOne => steps.push(Step::Set(Ctx::First, protect(ALL))),
        _ => {}
    }
    let call = match how {
        How::CachedMissing | How::CachedMinor | How::MappedMinor | How::MappedHalfMinor => None,
        How::ContinueOne | How::ContinueTwice => Some(Call::Continue(one, 0)),
        How::ContinueAll => Some(Call::Continue(ALL, 0)),
        How::ProtectOne | How::ProtectCached => Some(protect(one)),
        How::ProtectAll => Some(protect(ALL)),
        How::UnprotectOne => Some(Call::Wp(one, 0)),
        How::CopyInto | How::CopyCached | How::CopyEmpty => Some(Call::Copy(one, 0)),
        How::ZeroEmpty => Some(Call::Zeropage(one, 0)),
        How::PoisonMapped | How::PoisonCached => Some(Call::Poison(one, 0)),
    };
    steps.extend(call.map(|call| Step::Do(Ctx::First, call, "op", "field")));
    if matches!(how, How::CopyEmpty | How::ZeroEmpty) {
        steps.push(Step::ForbidHuge);
    }
    steps.extend(touches(waiter));
    let poisons = matches!(how, How::PoisonMapped | How::PoisonCached);
    let needs = if poisons { features::POISON } else { 0 };
    Script::new(format!("how={how},access={waiter}"), needs, steps, move |_| expect(how, waiter))
}

/// What an access meets where nothing stops it.
fn ran(waiter: Waiter, content: &'static str) -> String {
    if waiter.loads() { format!("ran:{content}") } else { "ran".into() }
}

/// The message of an access: of a minor fault if `reason` is `minor-`.
fn parks(waiter: Waiter, reason: &str) -> String {
    format!("parks:{reason}{}", if waiter.stores() { "write" } else { "read" })
}

const CACHED: &str = "shmem_get_folio_gfp() in mm/shmem.c: what the page cache holds raises no missing \
    fault, and a huge page holds all of its pages; finish_fault() in mm/memory.c maps it as a whole";
const MINOR: &str = "shmem_get_folio_gfp() in mm/shmem.c: a minor fault for each access that no page \
    table entry serves, whatever the size of the page behind it";

/// COPY that fails has still changed how the page is mapped later.
pub(super) const TABLE: &str = "mfill_atomic() in mm/userfaultfd.c makes a page table before it looks at \
    the page cache: where there is one no huge page is mapped";

fn expect(how: How, waiter: Waiter) -> Vec<Expected> {
    let kept = ran(waiter, "kept");
    let wp = if waiter.stores() { parks(waiter, "wp-") } else { kept.clone() };
    let minor = parks(waiter, "minor-");
    let missing = parks(waiter, "");
    let (op, field, touch, next, huge, says) = match how {
        How::CachedMissing => ("", "", kept.clone(), kept, "1", CACHED),
        How::CachedMinor => ("", "", minor.clone(), minor, "0", MINOR),
        How::MappedMinor => ("", "", kept.clone(), kept, "1", MINOR),
        How::MappedHalfMinor => ("", "", minor.clone(), minor, "0", SPLITS),
        How::ContinueOne => ("0", ONE_PAGE, kept, minor, "0", source::CONTINUE),
        How::ContinueTwice => ("EEXIST", "-17", kept, minor, "0", source::CONTINUE),
        How::ContinueAll => ("0", "2097152", kept.clone(), kept, "0", source::CONTINUE),
        How::ProtectOne | How::ProtectCached => ("0", "", wp, kept, "0", source::WRITEPROTECT),
        How::ProtectAll => ("0", "", wp.clone(), wp, "0", source::WRITEPROTECT),
        How::UnprotectOne => ("0", "", kept, wp, "0", source::WRITEPROTECT),
        How::CopyInto | How::PoisonMapped => ("EEXIST", "-17", kept.clone(), kept, "1", CACHED),
        How::CopyCached => ("EEXIST", "-17", kept.clone(), kept, "0", TABLE),
        How::CopyEmpty => ("0", ONE_PAGE, ran(waiter, "copied"), missing, "0", source::COPY),
        How::ZeroEmpty => ("0", ONE_PAGE, ran(waiter, "zero"), missing, "0", source::ZEROPAGE),
        How::PoisonCached => {
            let killed = if waiter.in_kernel() { "EFAULT" } else { crate::poison::SIGBUS };
            ("0", ONE_PAGE, killed.into(), kept, "0", source::POISON)
        }
    };
    let op = [("op", op), ("field", field)];
    let op = op.into_iter().filter(|(_, value)| !value.is_empty());
    let mut facts: Vec<_> = op.map(|(name, value)| Expected::new(name, value, says)).collect();
    facts.push(Expected::new("touch", touch, says));
    facts.push(Expected::new("touch-next", next, says));
    facts.push(Expected::new("huge", huge, says));
    facts
}

const SPLITS: &str = "__split_huge_pmd_locked() in mm/huge_memory.c: the mapping of a huge page of a \
    file is not split but taken away as a whole";
const TRUNCATES: &str = "truncate_inode_partial_folio() in mm/truncate.c: the part is zeroed, the huge \
    page split, and the page dropped; if it can't be split, it stays";

fn discarded(part: Part, waiter: Waiter) -> Script {
    let one = at(5, 1);
    let mut steps = if part == Part::PunchCached { cached() } else { mapped() };
    let mode = match part {
        Part::DontneedMinor => REGISTER_MODE_MINOR,
        Part::ProtectMinor => REGISTER_MODE_MINOR | REGISTER_MODE_WP,
        Part::PunchPinnedMinor => REGISTER_MODE_MINOR | REGISTER_MODE_MISSING,
        _ => REGISTER_MODE_MISSING,
    };
    if matches!(part, Part::PunchPinned | Part::PunchPinnedMinor) {
        steps.push(Step::Prepare(Treat::Pin, at(6, 1)));
    }
    steps.push(Step::ForbidHuge);
    steps.extend(register(ALL, mode));
    steps.push(match part {
        Part::Remove => Step::Treat(REMOVE, one, "op"),
        Part::Punch | Part::PunchCached | Part::PunchPinned | Part::PunchPinnedMinor => {
            Step::Treat(Treat::Punch, one, "op")
        }
        Part::RemoveAll => Step::Treat(REMOVE, ALL, "op"),
        Part::Dontneed | Part::DontneedMinor => Step::Treat(DONTNEED, one, "op"),
        Part::ProtectMinor => {
            Step::Do(Ctx::First, Call::Wp(one, WRITEPROTECT_MODE_WP), "op", "field")
        }
    });
    steps.extend(touches(waiter));
    Script::new(format!("how={part},access={waiter}"), 0, steps, move |_| {
        let kept = ran(waiter, "kept");
        let (missing, minor) = (parks(waiter, ""), parks(waiter, "minor-"));
        let (touch, next, says) = match part {
            Part::Remove | Part::Punch | Part::PunchCached => (missing, kept, TRUNCATES),
            Part::PunchPinned => (ran(waiter, "zero"), kept, TRUNCATES),
            Part::PunchPinnedMinor => (minor.clone(), minor, TRUNCATES),
            Part::RemoveAll => (missing.clone(), missing, "madvise(2), MADV_REMOVE"),
            Part::Dontneed => (kept.clone(), kept, CACHED),
            Part::DontneedMinor | Part::ProtectMinor => (minor.clone(), minor, SPLITS),
        };
        vec![
            Expected::new("op", "0", OBSERVED),
            Expected::new("touch", touch, says),
            Expected::new("touch-next", next, says),
        ]
    })
}
