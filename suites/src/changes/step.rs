//! The steps that changes are made of: one system call each, and its words.

use crate::point::Backing;

/// Pages `0..1` of the block, as a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span(pub(super) usize, pub(super) usize);

/// All pages.
pub(super) const WHOLE: Span = Span(0, 6);
/// The waiter's page and the one behind it, which is present.
pub(super) const MIDDLE: Span = Span(2, 4);
/// The waiter's page alone.
pub(super) const PAGE: Span = Span(2, 3);
/// The present page behind the waiter's.
pub(super) const BEHIND: Span = Span(3, 4);
/// Pages that are neither.
pub(super) const OTHER: Span = Span(4, 6);

impl Span {
    pub(super) const fn holds(self, page: usize) -> bool {
        self.0 <= page && page < self.1
    }

    pub(super) const fn pages(self) -> std::ops::Range<usize> {
        self.0..self.1
    }

    fn words(self) -> String {
        format!("pages {}..{}", self.0, self.1)
    }
}

/// Advices of madvise(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Advice {
    Normal,
    Random,
    Sequential,
    WillNeed,
    DontNeed,
    Free,
    Remove,
    DontFork,
    DoFork,
    Mergeable,
    Unmergeable,
    HugePage,
    NoHugePage,
    DontDump,
    DoDump,
    WipeOnFork,
    KeepOnFork,
    Cold,
    PageOut,
    PopulateRead,
    PopulateWrite,
    DontNeedLocked,
    HwPoison,
    SoftOffline,
    GuardInstall,
    GuardRemove,
}

impl Advice {
    /// The number and the name without `MADV_`.
    pub(super) const fn of(self) -> (i32, &'static str) {
        match self {
            Self::Normal => (0, "NORMAL"),
            Self::Random => (1, "RANDOM"),
            Self::Sequential => (2, "SEQUENTIAL"),
            Self::WillNeed => (3, "WILLNEED"),
            Self::DontNeed => (4, "DONTNEED"),
            Self::Free => (8, "FREE"),
            Self::Remove => (9, "REMOVE"),
            Self::DontFork => (10, "DONTFORK"),
            Self::DoFork => (11, "DOFORK"),
            Self::Mergeable => (12, "MERGEABLE"),
            Self::Unmergeable => (13, "UNMERGEABLE"),
            Self::HugePage => (14, "HUGEPAGE"),
            Self::NoHugePage => (15, "NOHUGEPAGE"),
            Self::DontDump => (16, "DONTDUMP"),
            Self::DoDump => (17, "DODUMP"),
            Self::WipeOnFork => (18, "WIPEONFORK"),
            Self::KeepOnFork => (19, "KEEPONFORK"),
            Self::Cold => (20, "COLD"),
            Self::PageOut => (21, "PAGEOUT"),
            Self::PopulateRead => (22, "POPULATE_READ"),
            Self::PopulateWrite => (23, "POPULATE_WRITE"),
            Self::DontNeedLocked => (24, "DONTNEED_LOCKED"),
            Self::HwPoison => (100, "HWPOISON"),
            Self::SoftOffline => (101, "SOFT_OFFLINE"),
            Self::GuardInstall => (102, "GUARD_INSTALL"),
            Self::GuardRemove => (103, "GUARD_REMOVE"),
        }
    }

    /// Whether it takes memory away from the machine until it boots again.
    pub(super) const fn harms(self) -> bool {
        matches!(self, Self::HwPoison | Self::SoftOffline)
    }
}

/// Access that a mapping allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Prot {
    None,
    Read,
    Rw,
}

impl Prot {
    /// The bits of mprotect(2).
    pub(super) const fn bits(self) -> i32 {
        match self {
            Self::None => libc::PROT_NONE,
            Self::Read => libc::PROT_READ,
            Self::Rw => libc::PROT_READ | libc::PROT_WRITE,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::None => "PROT_NONE",
            Self::Read => "PROT_READ",
            Self::Rw => "PROT_READ|PROT_WRITE",
        }
    }
}

/// What `mmap(MAP_FIXED)` puts over pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Over {
    /// The same memory at the same offset.
    Same,
    /// Private anonymous memory.
    Anon,
    /// Private anonymous memory without access.
    NoAccess,
}

/// What a forked child does with its copy of the block before it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Child {
    Exit,
    /// vfork(2): it shares the memory until it ends.
    VforkExit,
    Exec,
    Unmap,
    Discard,
    /// Loads from the waiter's page.
    Load,
    /// Loads from the page behind.
    LoadBehind,
    Fork,
}

/// One step of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Advise(Span, Advice),
    /// The same through process_madvise(2) with a pidfd of the process itself.
    ProcessAdvise(Span, Advice),
    Protect(Span, Prot),
    /// pkey_mprotect(2) with key -1.
    PkeyProtect(Span, Prot),
    /// ftruncate(2) of the file to this many pages.
    Truncate(usize),
    Allocate(Span),
    Punch(Span),
    /// pwrite(2) of new data to a page of the file.
    Write(usize),
    /// mseal(2).
    Seal(Span),
    Unmap(Span),
    Map(Span, Over),
    Register(Span),
    Unregister(Span),
    Fork(Child),
    /// mremap(2) to the same pages of an empty place.
    Move(Span),
    /// mremap(2) from there back.
    MoveBack(Span),
    /// The same to there with MREMAP_DONTUNMAP, so that the mapping stays.
    MoveKeeping(Span),
    /// mremap(2) of all pages to a place that overlaps them.
    MoveOverlapping,
    /// mremap(2) in place to a length that RLIMIT_AS refuses.
    GrowBeyondLimit,
    /// mremap(2) in place to a shorter length, in pages.
    Shrink(usize),
    /// mmap(2) of the pages behind the end again, at the same offset.
    MapOnceMore(Span),
    /// mlock2(2) with MLOCK_ONFAULT.
    LockOnFault(Span),
    Unlock(Span),
    Munlockall,
    /// mbind(2) to any node: splits the mapping.
    Bind(Span),
    Msync(Span),
    /// remap_file_pages(2): the pages show the file from its beginning.
    RemapFilePages(Span),
}

impl Step {
    /// Whether it means something for memory of this kind.
    pub(super) fn applies(self, backing: Backing) -> bool {
        let has_file =
            matches!(backing, Backing::Shmem | Backing::Private | Backing::HugetlbShared);
        match self {
            Self::Truncate(_) | Self::Allocate(_) | Self::Punch(_) | Self::Write(_) => has_file,
            Self::RemapFilePages(_) => matches!(backing, Backing::Shmem | Backing::SharedAnon),
            // The pool of huge pages is to be left as it was.
            Self::Advise(_, advice) => !(advice.harms() && backing.is_huge()),
            // The heap of hugetlb reservations can't be split by moves: asked in the grid. A lock populates huge
            // pages, MLOCK_ONFAULT or not, and so waits itself: `waiters/system-call`.
            Self::LockOnFault(_)
            | Self::Move(_)
            | Self::MoveBack(_)
            | Self::MoveKeeping(_)
            | Self::MoveOverlapping
            | Self::GrowBeyondLimit => !backing.is_huge(),
            _ => true,
        }
    }

    /// The step in words.
    pub(super) fn words(self) -> String {
        match self {
            Self::Advise(span, advice) => {
                format!("madvise(MADV_{}) of {}", advice.of().1, span.words())
            }
            Self::ProcessAdvise(span, advice) => format!(
                "process_madvise(MADV_{}) of {} of this process",
                advice.of().1,
                span.words()
            ),
            Self::Protect(span, prot) => format!("mprotect({}) of {}", prot.name(), span.words()),
            Self::PkeyProtect(span, prot) => {
                format!("pkey_mprotect({}, key -1) of {}", prot.name(), span.words())
            }
            Self::Truncate(pages) => format!("ftruncate of the memfd to {pages} pages"),
            Self::Allocate(span) => format!("fallocate of {} of the memfd", span.words()),
            Self::Punch(span) => {
                format!("fallocate(FALLOC_FL_PUNCH_HOLE) of {} of the memfd", span.words())
            }
            Self::Write(page) => format!("pwrite of data to page {page} of the memfd"),
            Self::Seal(span) => format!("mseal of {}", span.words()),
            Self::Unmap(span) => format!("munmap of {}", span.words()),
            Self::Map(span, over) => {
                let what = match over {
                    Over::Same => "the same memory at the same offset",
                    Over::Anon => "private anonymous memory",
                    Over::NoAccess => "PROT_NONE anonymous memory",
                };
                format!("mmap(MAP_FIXED) of {what} over {}", span.words())
            }
            Self::Register(span) => format!("UFFDIO_REGISTER of {} again", span.words()),
            Self::Unregister(span) => format!("UFFDIO_UNREGISTER of {}", span.words()),
            Self::Fork(child) => {
                let does = match child {
                    Child::Exit => "ends at once",
                    Child::VforkExit => "(vfork) ends at once",
                    Child::Exec => "calls execve of this program, which says its version and ends",
                    Child::Unmap => "unmaps the block and ends",
                    Child::Discard => "discards pages 2..4 with MADV_DONTNEED and ends",
                    Child::Load => "loads from page 2 and ends",
                    Child::LoadBehind => "loads from page 3 and ends",
                    Child::Fork => "forks a child of its own; both end",
                };
                format!("fork; the child {does}; wait for it")
            }
            Self::Move(span) => format!("mremap of {} to an empty place", span.words()),
            Self::MoveBack(span) => format!("mremap of {} from there back", span.words()),
            Self::MoveKeeping(span) => {
                format!("mremap(MREMAP_DONTUNMAP) of {} to an empty place", span.words())
            }
            Self::MoveOverlapping => {
                "mremap(MREMAP_FIXED) of the block to a place that overlaps it".into()
            }
            Self::GrowBeyondLimit => {
                "mremap in place to 8 pages while RLIMIT_AS allows no more memory".into()
            }
            Self::Shrink(pages) => format!("mremap in place to {pages} pages"),
            Self::MapOnceMore(span) => {
                format!("mmap of {} again, where nothing is any more", span.words())
            }
            Self::LockOnFault(span) => format!("mlock2(MLOCK_ONFAULT) of {}", span.words()),
            Self::Unlock(span) => format!("munlock of {}", span.words()),
            Self::Munlockall => "munlockall".into(),
            Self::Bind(span) => format!("mbind(MPOL_PREFERRED) of {}", span.words()),
            Self::Msync(span) => format!("msync(MS_SYNC) of {}", span.words()),
            Self::RemapFilePages(span) => {
                format!("remap_file_pages of {} to the file's beginning", span.words())
            }
        }
    }
}
