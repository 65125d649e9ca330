//! The suite `move`: what `UFFDIO_MOVE` moves, refuses, stores and wakes.
//!
//! Every question has a destination block of 6 private anonymous pages, registered for missing
//! pages, and a source area beside it, both in steps: see [`crate::script`].

mod after;
mod huge;
mod place;
mod source;
mod span;

use crate::abi::{REGISTER_MODE_MISSING, features};
use crate::expect::Expected;
use crate::memory::RW;
use crate::memory::tag;
use crate::point::{Backing, PAGES, Waiter};
use crate::probe::Case;
use crate::script::{Call, Ctx, Memory, Place, Span, Step};

/// Who moves pages.
pub(crate) const ART: &str = "Android ART: mark_compact.cc, compaction by UFFDIO_MOVE";

/// Why a move is refused.
pub(crate) mod says {
    /// Success.
    pub(crate) const MOVED: &str = "ioctl_userfaultfd(2), UFFDIO_MOVE (6.8): the pages change their place, and the waiters of \
         the destination are woken";
    /// No source page.
    pub(crate) const ENOENT: &str = "ioctl_userfaultfd(2), UFFDIO_MOVE, ENOENT: the source has a \
         hole, and MODE_ALLOW_SRC_HOLES was not given";
    /// Holes are allowed.
    pub(crate) const HOLES: &str = "ioctl_userfaultfd(2), UFFDIO_MOVE_MODE_ALLOW_SRC_HOLES: a hole \
         counts as moved, and the waiter of its destination is woken for nothing";
    /// Not exclusive, or pinned.
    pub(crate) const EBUSY: &str = "ioctl_userfaultfd(2), UFFDIO_MOVE, EBUSY: pages that are pinned \
         or not exclusive to the process";
    /// A marker in the source.
    pub(crate) const EFAULT: &str = "move_pages_ptes() in mm/userfaultfd.c: an entry that is neither a page nor swapped out: EFAULT";
    /// Something at the destination.
    pub(crate) const EEXIST: &str =
        "ioctl_userfaultfd(2), UFFDIO_MOVE, EEXIST: the destination is not empty; nobody is woken";
    /// Mappings that do not fit.
    pub(crate) const EINVAL: &str = "validate_move_areas() in mm/userfaultfd.c: source and \
         destination must be private, anonymous, writable, equal in protection and locks, and the \
         destination registered with the caller's context";
    /// No mapping.
    pub(crate) const NO_VMA: &str =
        "find_vmas_mm_locked() in mm/userfaultfd.c: ENOENT where nothing is mapped";
    /// Some pages were moved.
    pub(crate) const PARTLY: &str = "ioctl_userfaultfd(2), UFFDIO_MOVE, EAGAIN: only a part was moved; \
         the field says how much, and the waiters of that part are woken";
    /// DONTWAKE.
    pub(crate) const DONTWAKE: &str = "ioctl_userfaultfd(2), UFFDIO_MOVE_MODE_DONTWAKE";
    /// The source's registration.
    pub(crate) const SOURCE: &str = "move_pages() in mm/userfaultfd.c looks at the context of the \
         destination only; what is left at the source is a hole";
}

/// The suite's cases.
pub(crate) fn cases() -> Vec<Case> {
    let mut cases = source::cases();
    cases.extend(span::cases());
    cases.extend(place::cases());
    cases.extend(after::cases());
    cases.extend(huge::cases());
    cases
}

/// Pages of the block.
const fn block(first: usize, count: usize) -> Span {
    Span::new(Place::Block, first, count)
}

/// Pages of the source area.
const fn source_area(first: usize, count: usize) -> Span {
    Span::new(Place::Spare, first, count)
}

/// Maps the block, its page 5 written to.
fn map_block() -> Vec<Step> {
    vec![Step::Map(block(0, PAGES), Memory::Of(Backing::Anon)), Step::Fill(block(5, 1), tag::KEPT)]
}

/// Maps the source area, its page 5 written to, so that it has a page table.
fn map_source() -> Vec<Step> {
    vec![
        Step::Map(source_area(0, PAGES), Memory::Anon(RW)),
        Step::Fill(source_area(5, 1), tag::KEPT),
    ]
}

/// Opens the context and registers the block.
fn open() -> Vec<Step> {
    vec![
        Step::Open(Ctx::First, 0),
        Step::Set(Ctx::First, Call::Register(block(0, PAGES), REGISTER_MODE_MISSING)),
    ]
}

/// Parks a waiter on a page of the block, if there is to be one.
fn park(waiter: Waiter, page: usize) -> Vec<Step> {
    match waiter {
        Waiter::None => Vec::new(),
        kind => vec![Step::Park(Ctx::First, kind, block(page, 1))],
    }
}

/// The move that the question is about.
fn relocate(to: Span, from: Span, mode: u64) -> Step {
    Step::Do(Ctx::First, Call::Move(to, from, mode), "move", "field")
}

/// Looks at the waiter and at both areas, and frees the waiter.
fn look() -> Vec<Step> {
    vec![
        Step::Look(Ctx::First),
        Step::Survey(block(0, PAGES), "reg", "pages"),
        Step::Survey(source_area(0, PAGES), "src-reg", "src-pages"),
        Step::Rescue(Ctx::First),
    ]
}

/// What every case of the suite needs.
const NEEDS: u64 = features::MOVE;

/// What a move returned.
fn returned(rc: &'static str, field: impl ToString + Copy, says: &'static str) -> Vec<Expected> {
    vec![Expected::new("move", rc, says), Expected::new("field", field.to_string(), says)]
}

/// What became of a waiter: asleep, woken for nothing, or ended.
fn fate(waiter: Waiter, fate: &'static str, says: &'static str) -> Vec<Expected> {
    if waiter == Waiter::None {
        return Vec::new();
    }
    let queue = match fate {
        "asleep" => "1/0",
        "again" => "1/1",
        _ => "0/0",
    };
    let mut facts = vec![Expected::new("waiter", fate, says), Expected::new("queue", queue, says)];
    if matches!(fate, "asleep" | "again") {
        facts.push(Expected::new("rescued", "again", crate::model::source::RERUN));
    }
    facts
}

/// How an access that finds `content` ends.
fn ran(waiter: Waiter, content: &'static str) -> &'static str {
    match content {
        _ if !waiter.loads() => "ran",
        "new" => "ran:new",
        _ => "ran:zero",
    }
}
