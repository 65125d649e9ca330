//! The changes that are asked, each a probe's family, a word and its steps; `sequence` has those that
//! consumers make step by step.

use super::step::{Advice, BEHIND, Child, MIDDLE, OTHER, Over, PAGE, Prot, Span, Step, WHOLE};
use crate::probe::Probe;

pub(super) mod sequence;

/// A change: one or several steps.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) probe: &'static Probe,
    /// Its word in case ids.
    pub(super) how: &'static str,
    pub(super) steps: &'static [Step],
    /// Whether huge pages are asked by default: they cost much more.
    pub(super) huge: bool,
}

const fn plain(probe: &'static Probe, how: &'static str, steps: &'static [Step]) -> Change {
    Change { probe, how, steps, huge: false }
}

const fn also_huge(probe: &'static Probe, how: &'static str, steps: &'static [Step]) -> Change {
    Change { probe, how, steps, huge: true }
}

const BALLOON: &str = "QEMU virtio-balloon: ram_block_discard_range(), system/physmem.c";
const CRIU: &str = "CRIU lazy-pages: criu/uffd.c";

static MADVISE: Probe = Probe {
    suite: "changes",
    name: "madvise",
    statement: "madvise(2) of registered pages changes no registration and wakes no waiter, and COPY \
                then works unless something stands in the page table.",
    consumers: &[BALLOON, "umap: src/umap/Uffd.cpp", "Firecracker: discard_range()"],
};
static TRUNCATE: Probe = Probe {
    suite: "changes",
    name: "truncate",
    statement: "ftruncate(2) of the file wakes no waiter; COPY behind the end of a file of small \
                pages, or of a hugetlb file that is mapped shared, fails with EFAULT (from 7.1 on ENOMEM, of shared \
                memory of small pages), and works again once the file has grown back.",
    consumers: &["QEMU: RAM blocks of a memfd or hugetlbfs", CRIU],
};
static FILE: Probe = Probe {
    suite: "changes",
    name: "file",
    statement: "What is written, allocated or punched through the file changes no \
                registration and wakes no waiter; a page that has come into the page cache so makes \
                COPY fail with EEXIST.",
    consumers: &[
        "QEMU postcopy with vhost-user: postcopy_wake_shared(), migration/postcopy-ram.c",
        "Cloud Hypervisor: the peer fills the memfd",
    ],
};
static MPROTECT: Probe = Probe {
    suite: "changes",
    name: "mprotect",
    statement: "mprotect(2) keeps the registration and wakes no waiter; COPY works under any \
                protection, and the woken waiter meets the new one.",
    consumers: &[
        "Firecracker virtio-mem: docs/memory-hotplug.md",
        "libvhost-user: generate_faults()",
        CRIU,
    ],
};
static SPLIT: Probe = Probe {
    suite: "changes",
    name: "split",
    statement: "What splits the mapping without changing its memory (locks, policies) keeps \
                the registration of all parts and wakes no waiter.",
    consumers: &["QEMU: munlockall() before postcopy, mbind() of host-nodes"],
};
static SEAL: Probe = Probe {
    suite: "changes",
    name: "seal",
    statement: "A sealed mapping refuses to be changed, stays registered, and takes COPY and \
                UNREGISTER as before; of a longer range munmap and mmap change nothing then, and \
                mprotect changes what lies before the sealed part (6.12).",
    consumers: &["glibc: sealed mappings of a process whose memory is registered"],
};
static FORK: Probe = Probe {
    suite: "changes",
    name: "fork",
    statement: "A fork without EVENT_FORK, and whatever the child does to its memory, changes no \
                registration of the parent and wakes no waiter.",
    consumers: &[
        "crosvm: jailed devices are forked",
        "Firecracker: never forks after registration",
    ],
};
static UNREGISTER: Probe = Probe {
    suite: "changes",
    name: "unregister-part",
    statement: "UNREGISTER of a part wakes the waiter if its page lies in the part and nobody else; \
                the rest stays registered.",
    consumers: &["CRIU: handle_remove()", "Firecracker: unregister_range()", "E2B orchestrator"],
};
static ADOPT: Probe = Probe {
    suite: "changes",
    name: "adopt",
    statement: "A waiter whose page was unmapped or replaced stays asleep through new mappings, and \
                once the new mapping is registered with its context a COPY there frees it.",
    consumers: &["psm3: REGISTER again over partly replaced memory", "QEMU: qemu_ram_remap()"],
};
static MOVE: Probe = Probe {
    suite: "changes",
    name: "move",
    statement: "mremap(2) that fails leaves registration and waiter as they were; memory that moves \
                away and back has lost its registration and wakes no waiter; where MREMAP_DONTUNMAP \
                leaves the mapping, the registration stays.",
    consumers: &["QEMU: resizes of RAM blocks", CRIU],
};
use Step::{
    Advise, Allocate, Bind, Fork, GrowBeyondLimit, LockOnFault, Map, MapOnceMore, Move, MoveBack,
    MoveKeeping, MoveOverlapping, Msync, Munlockall, PkeyProtect, ProcessAdvise, Protect, Punch,
    Register, RemapFilePages, Seal, Shrink, Truncate, Unlock, Unmap, Unregister, Write,
};

/// Every change but the sequences.
pub(super) static CHANGES: &[Change] = &[
    plain(&MADVISE, "dontneed-whole", &[Advise(WHOLE, Advice::DontNeed)]),
    also_huge(&MADVISE, "dontneed-page", &[Advise(PAGE, Advice::DontNeed)]),
    plain(&MADVISE, "dontneed-behind", &[Advise(BEHIND, Advice::DontNeed)]),
    plain(&MADVISE, "dontneed-other", &[Advise(OTHER, Advice::DontNeed)]),
    plain(
        &MADVISE,
        "dontneed-twice",
        &[Advise(MIDDLE, Advice::DontNeed), Advise(MIDDLE, Advice::DontNeed)],
    ),
    also_huge(&MADVISE, "dontneed-locked", &[Advise(MIDDLE, Advice::DontNeedLocked)]),
    plain(
        &MADVISE,
        "locked-then-dontneed-locked",
        &[LockOnFault(MIDDLE), Advise(MIDDLE, Advice::DontNeedLocked)],
    ),
    plain(
        &MADVISE,
        "locked-then-dontneed",
        &[LockOnFault(MIDDLE), Advise(MIDDLE, Advice::DontNeed)],
    ),
    plain(&MADVISE, "free", &[Advise(MIDDLE, Advice::Free)]),
    plain(
        &MADVISE,
        "free-then-dontneed",
        &[Advise(MIDDLE, Advice::Free), Advise(MIDDLE, Advice::DontNeed)],
    ),
    plain(&MADVISE, "remove-whole", &[Advise(WHOLE, Advice::Remove)]),
    plain(&MADVISE, "remove-page", &[Advise(PAGE, Advice::Remove)]),
    plain(&MADVISE, "remove-behind", &[Advise(BEHIND, Advice::Remove)]),
    plain(&MADVISE, "remove-other", &[Advise(OTHER, Advice::Remove)]),
    plain(&MADVISE, "cold", &[Advise(MIDDLE, Advice::Cold)]),
    plain(&MADVISE, "pageout", &[Advise(PAGE, Advice::PageOut)]),
    plain(&MADVISE, "willneed", &[Advise(MIDDLE, Advice::WillNeed)]),
    plain(&MADVISE, "random", &[Advise(MIDDLE, Advice::Random)]),
    plain(&MADVISE, "sequential", &[Advise(MIDDLE, Advice::Sequential)]),
    plain(
        &MADVISE,
        "sequential-then-normal",
        &[Advise(MIDDLE, Advice::Sequential), Advise(WHOLE, Advice::Normal)],
    ),
    plain(&MADVISE, "hugepage", &[Advise(WHOLE, Advice::HugePage)]),
    plain(&MADVISE, "nohugepage", &[Advise(WHOLE, Advice::NoHugePage)]),
    plain(&MADVISE, "mergeable", &[Advise(MIDDLE, Advice::Mergeable)]),
    plain(
        &MADVISE,
        "unmergeable",
        &[Advise(MIDDLE, Advice::Mergeable), Advise(MIDDLE, Advice::Unmergeable)],
    ),
    plain(&MADVISE, "dontdump", &[Advise(MIDDLE, Advice::DontDump)]),
    plain(
        &MADVISE,
        "dontdump-then-dodump",
        &[Advise(MIDDLE, Advice::DontDump), Advise(WHOLE, Advice::DoDump)],
    ),
    plain(&MADVISE, "dontfork", &[Advise(MIDDLE, Advice::DontFork)]),
    plain(&MADVISE, "wipeonfork", &[Advise(MIDDLE, Advice::WipeOnFork)]),
    plain(&MADVISE, "populate-read-behind", &[Advise(BEHIND, Advice::PopulateRead)]),
    plain(&MADVISE, "populate-write-behind", &[Advise(BEHIND, Advice::PopulateWrite)]),
    plain(&MADVISE, "guard-install", &[Advise(MIDDLE, Advice::GuardInstall)]),
    plain(&MADVISE, "guard-install-other", &[Advise(OTHER, Advice::GuardInstall)]),
    plain(
        &MADVISE,
        "guard-remove",
        &[Advise(MIDDLE, Advice::GuardInstall), Advise(MIDDLE, Advice::GuardRemove)],
    ),
    plain(
        &MADVISE,
        "guard-then-dontneed",
        &[Advise(MIDDLE, Advice::GuardInstall), Advise(MIDDLE, Advice::DontNeed)],
    ),
    plain(&MADVISE, "hwpoison-behind", &[Advise(BEHIND, Advice::HwPoison)]),
    plain(&MADVISE, "soft-offline-behind", &[Advise(BEHIND, Advice::SoftOffline)]),
    plain(&MADVISE, "process-cold", &[ProcessAdvise(MIDDLE, Advice::Cold)]),
    plain(&MADVISE, "process-dontneed", &[ProcessAdvise(MIDDLE, Advice::DontNeed)]),
    also_huge(&TRUNCATE, "shrink-to-page", &[Truncate(2)]),
    plain(&TRUNCATE, "shrink-behind-page", &[Truncate(3)]),
    plain(&TRUNCATE, "shrink-behind-present", &[Truncate(4)]),
    also_huge(&TRUNCATE, "zero", &[Truncate(0)]),
    plain(&TRUNCATE, "grow", &[Truncate(16)]),
    plain(&TRUNCATE, "same", &[Truncate(12)]),
    also_huge(&TRUNCATE, "zero-then-back", &[Truncate(0), Truncate(12)]),
    plain(&TRUNCATE, "shrink-then-back-in-part", &[Truncate(1), Truncate(3)]),
    plain(&TRUNCATE, "shrink-back-shrink", &[Truncate(2), Truncate(12), Truncate(2)]),
    also_huge(&FILE, "allocate-page", &[Allocate(PAGE)]),
    plain(&FILE, "allocate-whole", &[Allocate(WHOLE)]),
    plain(&FILE, "allocate-other", &[Allocate(OTHER)]),
    plain(&FILE, "punch-whole", &[Punch(WHOLE)]),
    also_huge(&FILE, "punch-page", &[Punch(PAGE)]),
    plain(&FILE, "punch-behind", &[Punch(BEHIND)]),
    plain(&FILE, "allocate-then-punch", &[Allocate(MIDDLE), Punch(MIDDLE)]),
    plain(&FILE, "write-page", &[Write(2)]),
    plain(&FILE, "write-other", &[Write(4)]),
    plain(&FILE, "write-then-punch", &[Write(2), Punch(PAGE)]),
    plain(&FILE, "write-then-truncate-and-back", &[Write(2), Truncate(0), Truncate(12)]),
    plain(&FILE, "msync", &[Msync(WHOLE)]),
    plain(&FILE, "remap-file-pages", &[RemapFilePages(MIDDLE)]),
    plain(&MPROTECT, "none-whole", &[Protect(WHOLE, Prot::None)]),
    also_huge(&MPROTECT, "none-middle", &[Protect(MIDDLE, Prot::None)]),
    plain(&MPROTECT, "none-page", &[Protect(PAGE, Prot::None)]),
    plain(&MPROTECT, "none-behind", &[Protect(BEHIND, Prot::None)]),
    plain(&MPROTECT, "none-other", &[Protect(OTHER, Prot::None)]),
    plain(&MPROTECT, "read-whole", &[Protect(WHOLE, Prot::Read)]),
    also_huge(&MPROTECT, "read-middle", &[Protect(MIDDLE, Prot::Read)]),
    plain(&MPROTECT, "read-page", &[Protect(PAGE, Prot::Read)]),
    plain(&MPROTECT, "same", &[Protect(WHOLE, Prot::Rw)]),
    plain(&MPROTECT, "none-then-rw", &[Protect(MIDDLE, Prot::None), Protect(MIDDLE, Prot::Rw)]),
    plain(&MPROTECT, "read-then-rw", &[Protect(WHOLE, Prot::Read), Protect(WHOLE, Prot::Rw)]),
    plain(
        &MPROTECT,
        "none-whole-then-rw-page",
        &[Protect(WHOLE, Prot::None), Protect(PAGE, Prot::Rw)],
    ),
    plain(&MPROTECT, "pkey-read", &[PkeyProtect(MIDDLE, Prot::Read)]),
    plain(&SPLIT, "lock-on-fault", &[LockOnFault(MIDDLE)]),
    plain(&SPLIT, "lock-on-fault-then-munlock", &[LockOnFault(MIDDLE), Unlock(WHOLE)]),
    plain(&SPLIT, "munlockall", &[LockOnFault(WHOLE), Munlockall]),
    plain(&SPLIT, "bind", &[Bind(MIDDLE)]),
    also_huge(
        &SPLIT,
        "four-parts",
        &[
            Protect(Span(0, 1), Prot::Read),
            Protect(PAGE, Prot::Read),
            Advise(OTHER, Advice::DontDump),
        ],
    ),
    plain(&SEAL, "whole", &[Seal(WHOLE)]),
    plain(&SEAL, "page", &[Seal(PAGE)]),
    plain(&SEAL, "then-munmap", &[Seal(WHOLE), Unmap(MIDDLE)]),
    plain(&SEAL, "then-mmap-over", &[Seal(WHOLE), Map(MIDDLE, Over::Anon)]),
    plain(&SEAL, "then-mprotect", &[Seal(WHOLE), Protect(MIDDLE, Prot::None)]),
    plain(&SEAL, "then-move", &[Seal(WHOLE), Move(WHOLE)]),
    plain(&SEAL, "then-dontneed", &[Seal(WHOLE), Advise(MIDDLE, Advice::DontNeed)]),
    plain(&SEAL, "other-then-munmap", &[Seal(OTHER), Unmap(MIDDLE)]),
    plain(&SEAL, "page-then-munmap-whole", &[Seal(PAGE), Unmap(WHOLE)]),
    plain(&SEAL, "page-then-mmap-over-whole", &[Seal(PAGE), Map(WHOLE, Over::Anon)]),
    plain(&SEAL, "page-then-mprotect-whole", &[Seal(PAGE), Protect(WHOLE, Prot::None)]),
    plain(&SEAL, "behind-then-mprotect-whole", &[Seal(BEHIND), Protect(WHOLE, Prot::None)]),
    plain(&SEAL, "behind-then-shrink", &[Seal(BEHIND), Shrink(2)]),
    plain(&SEAL, "behind-then-munmap-page", &[Seal(BEHIND), Unmap(PAGE)]),
    plain(&SEAL, "page-then-unregister", &[Seal(PAGE), Unregister(MIDDLE)]),
    plain(&SEAL, "page-then-register", &[Unregister(OTHER), Seal(WHOLE), Register(OTHER)]),
    plain(
        &SEAL,
        "read-only-then-dontneed-whole",
        &[Protect(MIDDLE, Prot::Read), Seal(MIDDLE), Advise(WHOLE, Advice::DontNeed)],
    ),
    plain(&FORK, "exit", &[Fork(Child::Exit)]),
    plain(&FORK, "vfork-exit", &[Fork(Child::VforkExit)]),
    plain(&FORK, "exec", &[Fork(Child::Exec)]),
    plain(&FORK, "twice", &[Fork(Child::Exit), Fork(Child::Exit)]),
    plain(&FORK, "grandchild", &[Fork(Child::Fork)]),
    plain(&FORK, "unmap", &[Fork(Child::Unmap)]),
    plain(&FORK, "discard", &[Fork(Child::Discard)]),
    also_huge(&FORK, "load", &[Fork(Child::Load)]),
    plain(&FORK, "load-behind", &[Fork(Child::LoadBehind)]),
    plain(&FORK, "dontfork", &[Advise(MIDDLE, Advice::DontFork), Fork(Child::LoadBehind)]),
    also_huge(
        &FORK,
        "dontfork-then-dofork",
        &[
            Advise(MIDDLE, Advice::DontFork),
            Advise(MIDDLE, Advice::DoFork),
            Fork(Child::LoadBehind),
        ],
    ),
    plain(&FORK, "wipeonfork", &[Advise(MIDDLE, Advice::WipeOnFork), Fork(Child::LoadBehind)]),
    plain(
        &FORK,
        "wipeonfork-then-keeponfork",
        &[
            Advise(MIDDLE, Advice::WipeOnFork),
            Advise(MIDDLE, Advice::KeepOnFork),
            Fork(Child::LoadBehind),
        ],
    ),
    also_huge(&UNREGISTER, "page", &[Unregister(PAGE)]),
    plain(&UNREGISTER, "middle", &[Unregister(MIDDLE)]),
    plain(&UNREGISTER, "whole", &[Unregister(WHOLE)]),
    plain(&UNREGISTER, "head", &[Unregister(Span(0, 2))]),
    plain(&UNREGISTER, "behind", &[Unregister(BEHIND)]),
    plain(&UNREGISTER, "other", &[Unregister(OTHER)]),
    plain(&UNREGISTER, "other-twice", &[Unregister(OTHER), Unregister(OTHER)]),
    plain(&UNREGISTER, "other-and-again", &[Unregister(OTHER), Register(OTHER)]),
    plain(&UNREGISTER, "again-while-registered", &[Register(WHOLE)]),
    plain(&UNREGISTER, "page-after-munmap", &[Unmap(BEHIND), Unregister(MIDDLE)]),
    plain(&ADOPT, "munmap-and-anew", &[Unmap(MIDDLE), MapOnceMore(MIDDLE)]),
    also_huge(
        &ADOPT,
        "munmap-anew-register",
        &[Unmap(MIDDLE), MapOnceMore(MIDDLE), Register(MIDDLE)],
    ),
    plain(&ADOPT, "mmap-over-register", &[Map(MIDDLE, Over::Same), Register(MIDDLE)]),
    plain(&ADOPT, "mmap-over-register-whole", &[Map(MIDDLE, Over::Same), Register(WHOLE)]),
    plain(&ADOPT, "mmap-over-anon-register", &[Map(MIDDLE, Over::Anon), Register(MIDDLE)]),
    plain(&ADOPT, "mmap-over-twice", &[Map(MIDDLE, Over::Anon), Map(MIDDLE, Over::Same)]),
    plain(
        &ADOPT,
        "mmap-over-none-then-rw",
        &[Map(MIDDLE, Over::NoAccess), Protect(MIDDLE, Prot::Rw)],
    ),
    plain(
        &ADOPT,
        "munmap-whole-anew-register",
        &[Unmap(WHOLE), MapOnceMore(WHOLE), Register(WHOLE)],
    ),
    plain(
        &ADOPT,
        "munmap-other-anew-register",
        &[Unmap(OTHER), MapOnceMore(OTHER), Register(OTHER)],
    ),
    plain(&ADOPT, "register-over-hole", &[Unmap(MIDDLE), Register(WHOLE)]),
    plain(&ADOPT, "munmap-twice", &[Unmap(MIDDLE), Unmap(WHOLE)]),
    plain(&MOVE, "overlapping", &[MoveOverlapping]),
    plain(&MOVE, "beyond-limit", &[GrowBeyondLimit]),
    plain(&MOVE, "several-mappings", &[Protect(OTHER, Prot::Read), Move(WHOLE)]),
    plain(&MOVE, "part-of-several", &[Protect(OTHER, Prot::Read), Move(MIDDLE)]),
    plain(&MOVE, "away-and-back", &[Move(WHOLE), MoveBack(WHOLE)]),
    plain(&MOVE, "away-back-register", &[Move(WHOLE), MoveBack(WHOLE), Register(WHOLE)]),
    plain(&MOVE, "part-away-and-back", &[Move(MIDDLE), MoveBack(MIDDLE)]),
    plain(&MOVE, "dontunmap-part", &[MoveKeeping(MIDDLE)]),
    plain(&MOVE, "dontunmap-twice", &[MoveKeeping(WHOLE), MoveKeeping(WHOLE)]),
    plain(&MOVE, "dontunmap-and-back", &[MoveKeeping(WHOLE), MoveBack(WHOLE)]),
    plain(&MOVE, "after-unregister-of-other", &[Unregister(OTHER), Move(WHOLE)]),
];
