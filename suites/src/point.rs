//! The grid: its axes, their words, and the geometry of the block.
//!
//! A point says what backs the block, who waits in a fault on it, what happens to its mapping and
//! which operation is then issued. Pure data; [`crate::scenario`] performs it.

use crate::vcpu::VcpuAccess;
use std::ops::Range;

/// Pages in the block when it is registered.
pub const PAGES: usize = 6;

/// Pages in the window that is looked at when the block grows.
pub const GROWN: usize = 8;

/// Pages that remain when the block shrinks.
pub const SHRUNK: usize = 4;

/// An enumeration whose values have one word each, as case ids write them.
macro_rules! axis {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $value:ident = $word:literal,)+ }) => {
        $(#[$meta])*
        #[allow(unreachable_pub, reason = "some axes are a suite's own")]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$doc])* $value,)+ }

        #[allow(unreachable_pub, reason = "some axes are a suite's own")]
        #[allow(dead_code, reason = "not every axis is listed as a whole")]
        impl $name {
            /// Every value, in the order in which cases are listed.
            pub const ALL: &'static [Self] = &[$(Self::$value,)+];

            /// The word used in case ids.
            pub const fn word(self) -> &'static str {
                match self { $(Self::$value => $word,)+ }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.word())
            }
        }
    };
}
pub(crate) use axis;

axis! {
    /// What backs the block.
    Backing {
        /// Private anonymous memory.
        Anon = "anon",
        /// A memfd, mapped shared: what QEMU calls a shared RAM block.
        Shmem = "shmem",
        /// A memfd, mapped private.
        Private = "private-memfd",
        /// Shared anonymous memory.
        SharedAnon = "shared-anon",
        /// 2 MiB hugetlb pages of a memfd, mapped shared.
        HugetlbShared = "hugetlb-shared",
        /// 2 MiB hugetlb pages, private.
        HugetlbPrivate = "hugetlb-private",
    }
}

axis! {
    /// Which part of the block a change concerns.
    Part {
        /// All pages.
        Whole = "whole",
        /// The first third.
        Head = "head",
        /// The second third, so that the block is left in two pieces.
        Middle = "middle",
        /// The last third.
        Tail = "tail",
    }
}

axis! {
    /// What `mmap(MAP_FIXED)` puts in the place of the old mapping.
    Over {
        /// Private anonymous memory.
        Anon = "anon",
        /// Another memfd, shared, that holds data.
        Shared = "shared",
        /// Private anonymous memory without any access.
        ProtNone = "prot-none",
        /// A regular file, which userfaultfd does not handle.
        File = "file",
        /// The same memory at the same offset again, as `qemu_ram_remap()` does.
        Same = "same",
    }
}

axis! {
    /// What `mremap(2)` does to the block.
    Remap {
        /// The whole block moves elsewhere.
        Move = "move",
        /// Its middle moves elsewhere.
        MovePart = "move-part",
        /// It grows in place.
        Grow = "grow",
        /// It shrinks in place.
        Shrink = "shrink",
        /// It moves and grows.
        MoveGrow = "move-grow",
        /// It moves and shrinks.
        MoveShrink = "move-shrink",
        /// Other, unregistered memory of the same kind is moved onto it (MREMAP_FIXED).
        Onto = "onto",
        /// Its pages move, its mapping stays (MREMAP_DONTUNMAP).
        DontUnmap = "dontunmap",
    }
}

axis! {
    /// How memory is discarded without a change of the mapping (virtio-mem, balloon).
    Discard {
        /// `madvise(MADV_DONTNEED)`.
        DontNeed = "dontneed",
        /// `madvise(MADV_REMOVE)`.
        Remove = "remove",
        /// `fallocate(FALLOC_FL_PUNCH_HOLE)`.
        Punch = "punch-hole",
    }
}

axis! {
    /// Who waits in a fault on the block.
    Waiter {
        /// Nobody.
        None = "none",
        /// A thread that loads from the page.
        UserRead = "user-read",
        /// A thread that stores to the page.
        UserWrite = "user-write",
        /// A thread in read(2) whose buffer is the page: the kernel writes to it.
        SysRead = "sys-read",
        /// A thread in write(2) whose buffer is the page: the kernel reads from it.
        SysWrite = "sys-write",
        /// A thread in process_vm_readv(2) of its own process: get_user_pages(), as debuggers do.
        VmRead = "vm-read",
        /// A thread in process_vm_writev(2) of its own process.
        VmWrite = "vm-write",
        /// A thread in madvise(MADV_POPULATE_READ) of the page (5.14).
        PopulateRead = "populate-read",
        /// A thread in madvise(MADV_POPULATE_WRITE) of the page (5.14).
        PopulateWrite = "populate-write",
        /// A thread in mlock(2) of the page.
        Mlock = "mlock",
        /// A thread in futex(2), FUTEX_WAIT, on the page.
        Futex = "futex",
        /// A thread in pread(2) of a file opened with O_DIRECT, whose buffer is the page: the device
        /// writes to the page, which get_user_pages() pins.
        DirectRead = "direct-read",
        /// A thread in pwrite(2) of a file opened with O_DIRECT, whose buffer is the page.
        DirectWrite = "direct-write",
        /// A thread in KVM_RUN whose guest loads from the page.
        VcpuRead = "vcpu-read",
        /// A thread in KVM_RUN whose guest stores to the page.
        VcpuWrite = "vcpu-write",
        /// A thread in KVM_RUN whose guest fetches an instruction from the page.
        VcpuFetch = "vcpu-fetch",
        /// A thread in pread(2) of /proc/self/mem: the page is taken as another process's, with whose
        /// faults the kernel does not always wait. Not in the grid.
        MemRead = "proc-mem-read",
        /// A thread in pwrite(2) to /proc/self/mem. Not in the grid.
        MemWrite = "proc-mem-write",
    }
}

axis! {
    /// For what the block is registered.
    Mode {
        /// Faults on missing pages; the waiter's page is missing.
        Missing = "missing",
        /// Faults on writes to protected pages; the waiter's page is present and protected.
        Wp = "wp",
        /// Faults on pages of the page cache that are not mapped; the waiter's page is one.
        Minor = "minor",
    }
}

axis! {
    /// Whether the waiter's message was read before the change.
    Msg {
        /// The handler has read it, as a handler that is about to place the page has.
        Read = "read",
        /// It still lies in the queue.
        Unread = "unread",
    }
}

/// What happens to the block's mapping while the waiter waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Change {
    /// Nothing: the control.
    None,
    /// `munmap(2)`.
    Munmap(Part),
    /// `mmap(2)` with MAP_FIXED.
    MmapOver(Part, Over),
    /// `mremap(2)`.
    Mremap(Remap),
    /// A discard of the middle of the block.
    Discard(Discard),
}

impl Part {
    /// The pages concerned.
    pub const fn pages(self) -> Range<usize> {
        match self {
            Self::Whole => 0..PAGES,
            Self::Head => 0..2,
            Self::Middle => 2..4,
            Self::Tail => 4..PAGES,
        }
    }
}

impl Change {
    /// The page that the waiter waits for and that is placed: always one that the change concerns.
    /// The page behind it is present before the change, so that its fate is seen as well.
    pub const fn page(self) -> usize {
        match self {
            Self::Munmap(part) | Self::MmapOver(part, _) => match part {
                Part::Whole => 2,
                other => other.pages().start,
            },
            Self::Mremap(Remap::Shrink | Remap::MoveShrink) => SHRUNK,
            Self::None | Self::Mremap(_) | Self::Discard(_) => 2,
        }
    }

    /// Pages of the block's old place to look at afterwards.
    pub const fn window(self) -> usize {
        if matches!(self, Self::Mremap(Remap::Grow)) { GROWN } else { PAGES }
    }

    /// Pages of the new place to look at, for changes that have one.
    pub const fn new_window(self) -> Option<usize> {
        match self {
            Self::Mremap(Remap::Move | Remap::DontUnmap) => Some(PAGES),
            Self::Mremap(Remap::MovePart) => Some(2),
            Self::Mremap(Remap::MoveGrow) => Some(GROWN),
            Self::Mremap(Remap::MoveShrink) => Some(SHRUNK),
            _ => None,
        }
    }

    /// The name of the change, which with the suite names the probe.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "unchanged",
            Self::Munmap(_) => "munmap",
            Self::MmapOver(..) => "mmap-over",
            Self::Mremap(_) => "mremap",
            Self::Discard(_) => "discard",
        }
    }

    /// The change's own axes as case ids write them, each with a comma behind it.
    pub fn axes(self) -> String {
        match self {
            Self::None => String::new(),
            Self::Munmap(part) => format!("part={part},"),
            Self::MmapOver(part, over) => format!("part={part},over={over},"),
            Self::Mremap(how) => format!("how={how},"),
            Self::Discard(how) => format!("how={how},"),
        }
    }
}

impl Backing {
    /// Whether its pages are 2 MiB pages of the global hugetlb pool.
    pub const fn is_huge(self) -> bool {
        matches!(self, Self::HugetlbShared | Self::HugetlbPrivate)
    }

    /// Whether it is mapped private.
    pub const fn is_private(self) -> bool {
        matches!(self, Self::Anon | Self::Private | Self::HugetlbPrivate)
    }

    /// Whether the kernel treats its mapping as anonymous memory.
    pub const fn is_anon(self) -> bool {
        matches!(self, Self::Anon)
    }
}

impl Waiter {
    /// Whether the fault is taken in kernel mode.
    pub const fn in_kernel(self) -> bool {
        !matches!(self, Self::None | Self::UserRead | Self::UserWrite)
    }

    /// Whether the access changes the content of the page.
    pub const fn stores(self) -> bool {
        matches!(
            self,
            Self::UserWrite
                | Self::SysRead
                | Self::VmWrite
                | Self::DirectRead
                | Self::VcpuWrite
                | Self::MemWrite
        )
    }

    /// Whether the access brings back the content of the page.
    pub const fn loads(self) -> bool {
        matches!(
            self,
            Self::UserRead
                | Self::SysWrite
                | Self::VmRead
                | Self::DirectWrite
                | Self::VcpuRead
                | Self::VcpuFetch
                | Self::MemRead
        )
    }

    /// The word for an access that nothing stops, to a page with this content; see
    /// [`crate::waiter::content`].
    pub fn ran(self, content: &str) -> String {
        if self.loads() { format!("ran:{content}") } else { "ran".to_owned() }
    }

    /// Those that the grid crosses with everything.
    pub const GRID: &'static [Self] = Self::ALL.split_at(Self::ALL.len() - 2).0;

    /// Those of the grid but the vCPUs, which need KVM.
    pub const TASKS: &'static [Self] = Self::GRID.split_at(Self::GRID.len() - 3).0;

    /// Those of them that need nothing but memory: all but the ones that go past the page cache.
    pub const THREADS: &'static [Self] = Self::TASKS.split_at(Self::TASKS.len() - 2).0;

    /// Whether the access goes to a device past the page cache (O_DIRECT).
    pub const fn is_direct(self) -> bool {
        matches!(self, Self::DirectRead | Self::DirectWrite)
    }

    /// Everybody who needs no KVM, by way of /proc/self/mem too; nobody not.
    pub fn without_kvm() -> impl Iterator<Item = Self> {
        Self::THREADS[1..].iter().copied().chain([Self::MemRead, Self::MemWrite])
    }

    /// What the guest does, for a waiter that is a vCPU.
    pub const fn vcpu(self) -> Option<VcpuAccess> {
        match self {
            Self::VcpuRead => Some(VcpuAccess::Read),
            Self::VcpuWrite => Some(VcpuAccess::Write),
            Self::VcpuFetch => Some(VcpuAccess::Fetch),
            _ => None,
        }
    }

    /// Whether the fault is one of a write. mlock(2) writes to what it may make private copies of.
    pub const fn write_faults(self, backing: Backing) -> bool {
        match self {
            Self::PopulateWrite => true,
            Self::Mlock => backing.is_private(),
            _ => self.stores(),
        }
    }
}

/// The operation issued after the change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Op {
    /// None: only look.
    Look,
    /// `UFFDIO_COPY` of one page to the waiter's page.
    Copy,
    /// `UFFDIO_ZEROPAGE` of the waiter's page.
    Zeropage,
    /// `UFFDIO_CONTINUE` of the waiter's page (5.13).
    Continue,
    /// `UFFDIO_WRITEPROTECT` of the waiter's page that removes the protection (5.7).
    Unprotect,
    /// `UFFDIO_POISON` of the waiter's page (6.6).
    Poison,
    /// `UFFDIO_MOVE` of a page of other anonymous memory to the waiter's page (6.8).
    Move,
    /// `UFFDIO_UNREGISTER` of the block as it was registered.
    Unregister,
    /// `UFFDIO_WAKE` of the waiter's page.
    Wake,
}

/// One point of the grid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Point {
    /// What backs the block.
    pub backing: Backing,
    /// For what it is registered.
    pub mode: Mode,
    /// What happens to it.
    pub change: Change,
    /// Who waits.
    pub waiter: Waiter,
    /// Whether the waiter's message was read; without meaning when nobody waits.
    pub msg: Msg,
    /// What is then asked of the kernel.
    pub op: Op,
}

impl Point {
    /// An unchanged block, registered for missing pages, with a waiter whose message is read, and
    /// nothing asked: where questions start that go on in their own way.
    pub const fn missing(backing: Backing, waiter: Waiter) -> Self {
        let (mode, change, msg, op) = (Mode::Missing, Change::None, Msg::Read, Op::Look);
        Self { backing, mode, change, waiter, msg, op }
    }

    /// The axes as case ids write them; mode and operation are told by the probe's name:
    /// `backing=anon,part=middle,waiter=user-read,msg=read`.
    pub fn axes(&self) -> String {
        let Self { backing, mode: _, change, waiter, msg, op: _ } = self;
        let changed = change.axes();
        let waits = if *waiter == Waiter::None { String::new() } else { format!(",msg={msg}") };
        format!("backing={backing},{changed}waiter={waiter}{waits}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(
        Change::Munmap(Part::Middle),
        Waiter::UserRead,
        "backing=anon,part=middle,waiter=user-read,msg=unread"
    )]
    #[case(Change::None, Waiter::None, "backing=anon,waiter=none")]
    #[case(
        Change::MmapOver(Part::Tail, Over::ProtNone),
        Waiter::SysRead,
        "backing=anon,part=tail,over=prot-none,waiter=sys-read,msg=unread"
    )]
    fn axes_read_as_documented(#[case] change: Change, #[case] waiter: Waiter, #[case] axes: &str) {
        let (backing, msg, op) = (Backing::Anon, Msg::Unread, Op::Copy);
        let point = Point { backing, mode: Mode::Missing, change, waiter, msg, op };
        assert_eq!(point.axes(), axes);
    }

    #[test]
    fn every_kind_that_is_no_thread_is_a_vcpu() {
        assert!(Waiter::TASKS.iter().all(|kind| kind.vcpu().is_none()));
        assert!(Waiter::THREADS.iter().all(|kind| !kind.is_direct() && kind.vcpu().is_none()));
        assert_eq!(Waiter::TASKS.len(), Waiter::THREADS.len() + 2);
        assert_eq!(Waiter::GRID.iter().filter(|kind| kind.vcpu().is_some()).count(), 3);
    }

    #[test]
    fn the_waiters_page_and_the_one_behind_it_lie_in_the_changed_part() {
        for part in Part::ALL {
            let page = Change::Munmap(*part).page();
            assert!(part.pages().contains(&page) && part.pages().contains(&(page + 1)));
        }
        assert_eq!(Change::Mremap(Remap::Shrink).page(), SHRUNK);
    }
}
