//! What steps are made of, each with its word.

use crate::abi::newer::MOVE_MODE_ALLOW_SRC_HOLES;
use crate::abi::{
    COPY_MODE_DONTWAKE, COPY_MODE_WP, REGISTER_MODE_MINOR, REGISTER_MODE_MISSING, REGISTER_MODE_WP,
    WRITEPROTECT_MODE_DONTWAKE, WRITEPROTECT_MODE_WP, features,
};
use crate::point::axis;

/// The value of an axis that a word names.
pub(super) fn named<T: Copy>(all: &[T], word: &str, name: impl Fn(T) -> &'static str) -> Option<T> {
    all.iter().copied().find(|value| name(*value) == word)
}

axis! {
    /// A userfaultfd.
    Ctx {
        /// The first.
        First = "1",
        /// The second of the same process.
        Second = "2",
    }
}

impl Ctx {
    pub(super) const fn index(self) -> usize {
        self as usize
    }
}

axis! {
    /// What a context asks for in `UFFDIO_API`.
    Feature {
        /// Nothing.
        Nothing = "plain",
        /// Events of mremap, of discards and of munmap, each of which is read at once.
        Events = "events",
        /// SIGBUS in place of messages.
        Sigbus = "sigbus",
        /// The kernel resolves write-protect faults (6.7).
        WpAsync = "wp-async",
        /// Write protection of what is not populated (6.4).
        WpUnpopulated = "wp-unpopulated",
    }
}

impl Feature {
    pub(super) const fn bits(self) -> u64 {
        match self {
            Self::Nothing => 0,
            Self::Events => features::EVENT_REMAP | features::EVENT_REMOVE | features::EVENT_UNMAP,
            Self::Sigbus => features::SIGBUS,
            Self::WpAsync => features::WP_ASYNC,
            Self::WpUnpopulated => features::WP_UNPOPULATED,
        }
    }
}

axis! {
    /// What is mapped.
    Memory {
        /// Private anonymous memory.
        Anon = "anon",
        /// Shared anonymous memory.
        SharedAnon = "shared-anon",
        /// The sequence's memfd, shared; a page shows the file's page of the same number.
        Shmem = "shmem",
        /// The same, private.
        Private = "private",
        /// A regular file, private.
        File = "file",
        /// Private anonymous memory that can't be accessed.
        None = "none",
        /// Memory that the kernel may drop: MAP_DROPPABLE (6.11).
        Droppable = "droppable",
    }
}

impl Memory {
    /// Whether it has a page cache of its own, and so minor faults.
    pub(super) const fn is_shmem(self) -> bool {
        matches!(self, Self::SharedAnon | Self::Shmem)
    }
}

axis! {
    /// Protection.
    Prot {
        /// None at all.
        None = "none",
        /// Readable.
        Read = "read",
        /// Readable and writable.
        Write = "write",
    }
}

impl Prot {
    /// As mmap(2) takes it.
    pub(super) const fn bits(self) -> i32 {
        match self {
            Self::None => libc::PROT_NONE,
            Self::Read => libc::PROT_READ,
            Self::Write => crate::memory::RW,
        }
    }
}

axis! {
    /// What is done to memory by one call that takes only a range.
    Treat {
        /// `munmap(2)`.
        Unmap = "munmap",
        /// `MADV_DONTNEED`.
        DontNeed = "dontneed",
        /// `MADV_REMOVE`.
        Remove = "remove",
        /// `MADV_DONTFORK`.
        DontFork = "dontfork",
        /// `MADV_WIPEONFORK`.
        WipeOnFork = "wipeonfork",
        /// `mlock2(MLOCK_ONFAULT)`.
        Lock = "lock",
        /// `munlock(2)`.
        Unlock = "unlock",
        /// `MADV_GUARD_INSTALL` (6.13).
        Guard = "guard",
        /// `MADV_GUARD_REMOVE` (6.13).
        Unguard = "unguard",
        /// `mseal(2)` (6.10).
        Seal = "seal",
    }
}

axis! {
    /// Registration modes.
    Mode {
        /// Missing pages.
        Missing = "missing",
        /// Write protection.
        Wp = "wp",
        /// Both.
        MissingWp = "missing+wp",
        /// Pages that are in the page cache only.
        Minor = "minor",
        /// That and missing pages.
        MissingMinor = "missing+minor",
        /// That and write protection.
        MinorWp = "minor+wp",
    }
}

impl Mode {
    pub(super) const fn bits(self) -> u64 {
        match self {
            Self::Missing => REGISTER_MODE_MISSING,
            Self::Wp => REGISTER_MODE_WP,
            Self::MissingWp => REGISTER_MODE_MISSING | REGISTER_MODE_WP,
            Self::Minor => REGISTER_MODE_MINOR,
            Self::MissingMinor => REGISTER_MODE_MISSING | REGISTER_MODE_MINOR,
            Self::MinorWp => REGISTER_MODE_MINOR | REGISTER_MODE_WP,
        }
    }

    pub(super) const fn has_minor(self) -> bool {
        self.bits() & REGISTER_MODE_MINOR != 0
    }

    pub(super) const fn has_wp(self) -> bool {
        self.bits() & REGISTER_MODE_WP != 0
    }
}

axis! {
    /// Operations of userfaultfd that take pages and options.
    Op {
        /// `UFFDIO_COPY`.
        Copy = "copy",
        /// `UFFDIO_ZEROPAGE`.
        Zeropage = "zeropage",
        /// `UFFDIO_CONTINUE`.
        Continue = "continue",
        /// `UFFDIO_POISON`.
        Poison = "poison",
        /// `UFFDIO_WRITEPROTECT` that protects.
        Protect = "writeprotect",
        /// `UFFDIO_WRITEPROTECT` that lifts the protection.
        Lift = "unprotect",
        /// `UFFDIO_UNREGISTER`.
        Unregister = "unregister",
        /// `UFFDIO_WAKE`.
        Wake = "wake",
    }
}

impl Op {
    /// The options that it takes.
    pub(super) const fn options(self) -> &'static [Extra] {
        match self {
            Self::Copy | Self::Continue => &[Extra::DontWake, Extra::Wp],
            Self::Zeropage | Self::Poison | Self::Lift => &[Extra::DontWake],
            Self::Protect | Self::Unregister | Self::Wake => &[],
        }
    }

    /// The mode that an option and the operation itself make.
    pub(super) const fn mode(self, extra: Extra) -> u64 {
        match (self, extra) {
            (Self::Protect, _) => WRITEPROTECT_MODE_WP,
            (Self::Lift, Extra::DontWake) => WRITEPROTECT_MODE_DONTWAKE,
            (_, Extra::DontWake) => COPY_MODE_DONTWAKE,
            (_, Extra::Wp) => COPY_MODE_WP,
            (_, Extra::Holes | Extra::Nothing) => 0,
        }
    }
}

axis! {
    /// An option of an operation.
    Extra {
        /// None.
        Nothing = "",
        /// Wake nobody.
        DontWake = "dontwake",
        /// Place the page write-protected.
        Wp = "wp",
        /// MOVE passes over what the source lacks.
        Holes = "holes",
    }
}

impl Extra {
    /// The mode of MOVE.
    pub(super) const fn of_move(self) -> u64 {
        match self {
            Self::DontWake => COPY_MODE_DONTWAKE,
            Self::Holes => MOVE_MODE_ALLOW_SRC_HOLES,
            Self::Nothing | Self::Wp => 0,
        }
    }
}
