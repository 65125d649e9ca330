//! What stands at each page of the block while a change runs its steps: the documented rules as a
//! pure simulation, from which expectations follow.

mod advise;

use super::step::{Advice, Child, Over, Prot, Span, Step};
use crate::point::{Backing, PAGES};
use uffd_results::KernelVersion;

/// What maps a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Map {
    Hole,
    /// The block's own memory.
    Own,
    /// Private anonymous memory in its place.
    Fresh,
}

/// One page of the block's place.
#[allow(clippy::struct_excessive_bools, reason = "independent attributes of a page")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Page {
    pub(super) map: Map,
    pub(super) registered: bool,
    pub(super) prot: Prot,
    /// What the page table shows: the letter of a present page.
    pub(super) shown: Option<char>,
    /// What the page cache of the file holds.
    pub(super) cached: Option<char>,
    /// A guard marker stands in the page table.
    pub(super) guard: bool,
    /// Behind the end of the file.
    pub(super) beyond: bool,
    sealed: bool,
    locked: bool,
    wiped: bool,
    absent_in_child: bool,
}

/// The block, and what the change has done to the waiter of page 2.
#[derive(Clone, Debug)]
pub(super) struct State {
    pub(super) backing: Backing,
    pub(super) kernel: KernelVersion,
    pub(super) pages: [Page; PAGES],
    /// The change itself has woken the waiter.
    pub(super) woken: bool,
    /// Nothing has come to the empty place that a move back would take it from.
    refused: bool,
}

/// Who says what a step returns.
pub(super) type Returned = (&'static str, &'static str);

const MADVISE: &str = "madvise(2)";
const OK: Returned = ("0", "the system call's man page");

impl State {
    /// A registered block with page 3 present.
    pub(super) fn new(backing: Backing, kernel: KernelVersion) -> Self {
        let page = Page {
            map: Map::Own,
            registered: true,
            prot: Prot::Rw,
            shown: None,
            cached: None,
            guard: false,
            beyond: false,
            sealed: false,
            locked: false,
            wiped: false,
            absent_in_child: false,
        };
        let mut pages = [page; PAGES];
        pages[3].shown = Some('k');
        if is_shared(backing) {
            pages[3].cached = Some('k');
        } else if backing == Backing::Private {
            // The store has read the file's empty page first, and then copied it.
            pages[3].cached = Some('0');
        }
        Self { backing, kernel, pages, woken: false, refused: false }
    }

    pub(super) fn before(&self, major: u16, minor: u16) -> bool {
        self.kernel < KernelVersion::new(major, minor, 0)
    }

    /// Whether the block is a mapping of its file that shows what the page cache holds.
    pub(super) fn shared(&self) -> bool {
        is_shared(self.backing)
    }

    fn each(&mut self, span: Span, change: impl Fn(&mut Page)) {
        self.pages[span.pages()].iter_mut().for_each(change);
    }

    fn any(&self, span: Span, is: impl Fn(&Page) -> bool) -> bool {
        self.pages[span.pages()].iter().any(is)
    }

    /// Performs a step; what it returns.
    pub(super) fn step(&mut self, step: Step) -> Returned {
        match step {
            Step::Advise(span, advice) => self.advise(span, advice),
            Step::ProcessAdvise(span, advice) => self.process_advise(span, advice),
            Step::Protect(span, prot) | Step::PkeyProtect(span, prot) => self.protect(span, prot),
            Step::Truncate(_)
            | Step::Allocate(_)
            | Step::Punch(_)
            | Step::Write(_)
            | Step::RemapFilePages(_) => self.change_file(step),
            Step::Seal(span) => {
                self.each(span, |page| page.sealed = true);
                OK
            }
            Step::Unmap(span) => {
                if self.any(span, |page| page.sealed) {
                    return ("EPERM", SEALED);
                }
                self.each(span, |page| page.leave(Map::Hole));
                OK
            }
            Step::Map(span, over) => {
                if self.any(span, |page| page.sealed) {
                    return ("EPERM", SEALED);
                }
                self.each(span, |page| {
                    page.leave(if over == Over::Same { Map::Own } else { Map::Fresh });
                    if over == Over::NoAccess {
                        page.prot = Prot::None;
                    }
                });
                self.forget_private(span);
                OK
            }
            Step::MapOnceMore(span) => {
                self.each(span, |page| page.leave(Map::Own));
                self.forget_private(span);
                OK
            }
            Step::Register(span) => {
                self.each(span, |page| page.registered = page.map != Map::Hole);
                OK
            }
            Step::Unregister(span) => {
                self.each(span, |page| page.registered = false);
                self.woken |= span.holds(2);
                OK
            }
            Step::Fork(child) => self.fork(child),
            Step::Move(span) => self.travel(span),
            Step::MoveBack(span) if self.refused => {
                self.each(span, |page| page.leave(Map::Hole));
                let says = "mremap(2), EFAULT: nothing is there; before 5.13 mremap_to() has unmapped the \
                            target by then";
                ("EFAULT", says)
            }
            Step::MoveBack(span) => {
                self.each(span, |page| page.leave(Map::Own));
                if span.holds(3) {
                    self.pages[3].shown = Some('k');
                    if is_shared(self.backing) {
                        self.pages[3].cached = Some('k');
                    }
                }
                OK
            }
            Step::MoveKeeping(span) => {
                if self.backing != Backing::Anon && self.before(5, 13) {
                    self.refused = true;
                    return ("EINVAL", crate::model::source::DONTUNMAP);
                }
                self.each(span, Page::drop_shown);
                OK
            }
            Step::MoveOverlapping => ("EINVAL", "mremap(2), EINVAL: the ranges overlap"),
            Step::GrowBeyondLimit => ("ENOMEM", "mremap(2), ENOMEM; RLIMIT_AS of getrlimit(2)"),
            Step::Shrink(pages) => {
                if self.any(Span(pages, PAGES), |page| page.sealed) {
                    return ("EPERM", SEALED);
                }
                self.each(Span(pages, PAGES), |page| page.leave(Map::Hole));
                OK
            }
            Step::LockOnFault(span) => {
                self.each(span, |page| page.locked = true);
                OK
            }
            Step::Unlock(_) | Step::Munlockall => {
                self.each(Span(0, PAGES), |page| page.locked = false);
                OK
            }
            Step::Bind(_) | Step::Msync(_) => OK,
        }
    }

    /// A step that changes the file, or which part of it is shown.
    fn change_file(&mut self, step: Step) -> Returned {
        let private = !self.shared();
        match step {
            Step::Truncate(pages) => {
                for (n, page) in self.pages.iter_mut().enumerate() {
                    if n >= pages && page.map == Map::Own {
                        // Also private copies of pages behind the new end go.
                        page.shown = None;
                        page.cached = None;
                        // A page table that loses everything loses its markers as well.
                        page.guard = false;
                    }
                    page.beyond = n >= pages && page.map == Map::Own;
                }
                OK
            }
            Step::Allocate(span) => {
                // It allocates what is missing, and never touches what is there.
                self.each(span, |page| {
                    page.cached = page.cached.or(Some('0'));
                });
                OK
            }
            Step::Punch(span) => {
                self.each(span, |page| {
                    page.cached = None;
                    if !private {
                        page.shown = None;
                    }
                });
                OK
            }
            Step::Write(page) => {
                if self.backing.is_huge() {
                    return ("EINVAL", "hugetlbfs has no write(2)");
                }
                self.pages[page].cached = Some('n');
                OK
            }
            Step::RemapFilePages(span) => {
                // The new mapping is populated with the file's first pages, which are empty.
                self.each(span, |page| {
                    page.leave(Map::Own);
                    page.shown = Some('0');
                    page.cached = Some('0');
                });
                ("0", "remap_file_pages(2) (emulated since 4.0)")
            }
            _ => OK,
        }
    }

    fn process_advise(&mut self, span: Span, advice: Advice) -> Returned {
        match advice {
            Advice::DontNeed if self.before(6, 13) => ("EINVAL", PROCESS_MADVISE),
            // More than before: the count of bytes is what it returns.
            _ => self.advise(span, advice),
        }
    }

    fn protect(&mut self, span: Span, prot: Prot) -> Returned {
        if let Some(sealed) = span.pages().find(|page| self.pages[*page].sealed) {
            if !self.before(6, 12) {
                self.each(Span(span.0, sealed), |page| page.prot = prot);
            }
            return ("EPERM", SEALED_LATE);
        }
        if self.any(span, |page| page.map == Map::Hole) {
            return ("ENOMEM", "mprotect(2), ENOMEM: a part is not mapped");
        }
        self.each(span, |page| page.prot = prot);
        OK
    }

    fn fork(&mut self, child: Child) -> Returned {
        const FORK: &str = "fork(2); dup_userfaultfd() in fs/userfaultfd.c: without EVENT_FORK the \
            child's memory is not registered";
        let page = |n: usize| self.pages[n];
        let sees = |page: Page| match page {
            Page { absent_in_child: true, .. } => "SEGV_MAPERR",
            Page { wiped: true, .. } => "zero",
            Page { shown: Some('k'), .. } => "kept",
            _ => "zero",
        };
        match child {
            Child::Load => {
                let saw = sees(page(2));
                // Also a private mapping reads the file through the page cache; huge private pages do not.
                let reads_file = self.shared() || self.backing == Backing::Private;
                if reads_file && saw == "zero" {
                    self.pages[2].cached = Some('0');
                }
                (saw, FORK)
            }
            Child::LoadBehind => (sees(page(3)), FORK),
            Child::Discard if self.backing.is_huge() && self.before(5, 18) => {
                ("failed", crate::model::source::DONTNEED_HUGE)
            }
            _ => ("0", FORK),
        }
    }

    /// mremap of pages to another place.
    fn travel(&mut self, span: Span) -> Returned {
        if self.any(span, |page| page.sealed) {
            return ("EPERM", SEALED);
        }
        let first = self.pages[span.0];
        let alike = |page: &Page| page.prot == first.prot && page.registered == first.registered;
        if self.any(span, |page| !alike(page) || page.map != Map::Own) {
            return ("EFAULT", MOVES_ONE);
        }
        self.each(span, |page| page.leave(Map::Hole));
        OK
    }

    /// Fresh mappings of memory that no file holds begin empty.
    fn forget_private(&mut self, span: Span) {
        // A new anonymous shared mapping has a new file; the memfd of a private one holds nothing.
        if self.backing == Backing::SharedAnon {
            self.each(span, |page| page.cached = None);
        }
    }
}

const SEALED_LATE: &str = "mseal(2): EPERM; mprotect_fixup() in mm/mprotect.c asks each mapping as it \
    comes to it (6.12), before, can_modify_mm() asked all of them first";
/// What forbids changes of a sealed mapping.
const SEALED: &str = "mseal(2) (6.10): EPERM for what would change or remove the mapping";
const PROCESS_MADVISE: &str = "process_madvise(2): of the process itself any advice since 6.13, \
    before only COLD, PAGEOUT, WILLNEED and COLLAPSE";
const MOVES_ONE: &str = "mremap(2), EFAULT: more than one mapping; check_prep_vma() and \
    remap_move() in mm/mremap.c: several may move since 6.17, but none that userfaultfd holds";

fn is_shared(backing: Backing) -> bool {
    matches!(backing, Backing::Shmem | Backing::SharedAnon | Backing::HugetlbShared)
}

impl Page {
    /// A new mapping, or none, takes its place.
    fn leave(&mut self, map: Map) {
        self.map = map;
        self.registered = false;
        self.shown = None;
        self.guard = false;
        self.prot = Prot::Rw;
        self.locked = false;
        self.wiped = false;
        self.absent_in_child = false;
        if map != Map::Own {
            self.beyond = false;
        }
    }

    /// Whether a discard would change what can't be written to.
    fn sealed_read_only(&self) -> bool {
        self.sealed && self.prot == Prot::Read
    }

    /// The private copy or the entry of the page table goes.
    fn drop_shown(&mut self) {
        self.shown = None;
    }
}
