//! The grid's axes in words for people who have not met them, and its recorded points.

use super::world::World;
use crate::ask::choose::{Wanted, choose};
use crate::ask::{Asked, words};
use anyhow::Result;
use uffd_suites::probe::Ask;

/// A kind of waiter: its anchor, which is its word, a heading, and the waiters that it has.
pub(super) struct Kind {
    /// The anchor.
    pub(super) anchor: &'static str,
    /// The heading.
    pub(super) heading: &'static str,
    /// More words for it.
    pub(super) words: &'static str,
}

/// The kinds of waiters, in the order in which people ask.
pub(super) const KINDS: [Kind; 4] = [
    Kind {
        anchor: "vcpu",
        heading: "A vCPU waits in KVM_RUN",
        words: "vcpu kvm guest virtual machine",
    },
    Kind { anchor: "thread", heading: "A thread waits in user mode", words: "thread user process" },
    Kind {
        anchor: "syscall",
        heading: "A system call waits",
        words: "syscall system call kernel read write mlock futex process_vm_readv madvise O_DIRECT",
    },
    Kind { anchor: "nobody", heading: "Nobody waits", words: "nobody none" },
];

/// The kind of a waiter.
pub(super) fn kind(waiter: &str) -> &'static str {
    match waiter {
        "none" => "nobody",
        "user-read" | "user-write" => "thread",
        vcpu if vcpu.starts_with("vcpu-") => "vcpu",
        _ => "syscall",
    }
}

/// The recorded points of the grid, each once.
pub(super) fn points(world: &World<'_>) -> Result<Vec<Asked>> {
    let cases = world.questions.iter().flat_map(|question| &question.cases);
    let cases = cases.filter(|case| !matches!(case.ask, Ask::Trial(_)));
    let all: Vec<Asked> = cases.copied().map(Asked::new).collect();
    if all.is_empty() {
        return Ok(all);
    }
    Ok(choose(&Wanted::default(), &all, world.data)?.recorded)
}

/// The operations and changes that some points have together, in the order of the grid.
pub(super) fn pairs(points: &[Asked]) -> Vec<(&'static str, &'static str)> {
    let changes = words::values("change");
    let pairs =
        words::values("op").into_iter().flat_map(|op| changes.iter().map(move |c| (op, *c)));
    pairs.filter(|(op, change)| points.iter().any(|asked| is_at(asked, op, change))).collect()
}

/// Whether a point has an operation and a change.
pub(super) fn is_at(asked: &Asked, op: &str, change: &str) -> bool {
    asked.axis("op") == Some(op) && asked.axis("change") == Some(change)
}

/// The modes of some points, the usual one first.
pub(super) fn modes(points: &[&Asked]) -> Vec<&'static str> {
    let has = |mode: &&str| points.iter().any(|asked| asked.axis("mode") == Some(*mode));
    words::values("mode").into_iter().filter(has).collect()
}

/// The name of an axis, as a question.
pub(super) fn question(axis: &str) -> &'static str {
    match axis {
        "op" => "The operation",
        "change" => "After what change of the block",
        "part" => "To which part",
        "over" => "What was mapped over",
        "how" => "How",
        "waiter" => "Who waits",
        "backing" => "What backs the block",
        "msg" => "The message",
        _ => "Registered for",
    }
}

/// What a value of an axis means, as an entry of a list.
pub(super) fn meaning(axis: &str, value: &str) -> &'static str {
    match (axis, value) {
        ("op", "look") => "no operation: only the change",
        ("op", "copy") => "UFFDIO_COPY",
        ("op", "zeropage") => "UFFDIO_ZEROPAGE",
        ("op", "continue") => "UFFDIO_CONTINUE",
        ("op", "unprotect") => "UFFDIO_WRITEPROTECT, to lift the protection",
        ("op", "poison") => "UFFDIO_POISON",
        ("op", "move") => "UFFDIO_MOVE",
        ("op", "unregister") => "UFFDIO_UNREGISTER of the whole block",
        ("op", "wake") => "UFFDIO_WAKE",
        ("change", "unchanged") => "nothing",
        ("change", "munmap") => "munmap(2)",
        ("change", "mmap-over") => "mmap(2) over it (MAP_FIXED)",
        ("change", "mremap") => "mremap(2)",
        ("change", "discard") => "a discard, as of a balloon",
        ("part", "whole") => "all of the block",
        ("part", "head") => "its first third",
        ("part", "middle") => "its second third",
        ("part", "tail") => "its last third",
        ("over", "anon") => "anonymous memory",
        ("over", "shared") => "other shared memory",
        ("over", "prot-none") => "memory without any access",
        ("over", "file") => "a regular file",
        ("over", "same") => "the same memory again, as qemu_ram_remap() does",
        ("how", "move") => "moved elsewhere",
        ("how", "move-part") => "its middle moved elsewhere",
        ("how", "grow") => "grown in place",
        ("how", "shrink") => "shrunk in place",
        ("how", "move-grow") => "moved and grown",
        ("how", "move-shrink") => "moved and shrunk",
        ("how", "onto") => "other memory moved onto it",
        ("how", "dontunmap") => "its pages moved, its mapping stays (MREMAP_DONTUNMAP)",
        ("how", "dontneed") => "madvise(MADV_DONTNEED)",
        ("how", "remove") => "madvise(MADV_REMOVE)",
        ("how", "punch-hole") => "fallocate(FALLOC_FL_PUNCH_HOLE)",
        ("waiter", "none") => "nobody",
        ("waiter", "user-read") => "a thread that loads from the page",
        ("waiter", "user-write") => "a thread that stores to the page",
        ("waiter", "sys-read") => "a thread in read(2) into the page",
        ("waiter", "sys-write") => "a thread in write(2) from the page",
        ("waiter", "vm-read") => "a thread in process_vm_readv(2) of the page",
        ("waiter", "vm-write") => "a thread in process_vm_writev(2) to the page",
        ("waiter", "populate-read") => "a thread in madvise(MADV_POPULATE_READ)",
        ("waiter", "populate-write") => "a thread in madvise(MADV_POPULATE_WRITE)",
        ("waiter", "mlock") => "a thread in mlock(2)",
        ("waiter", "futex") => "a thread in futex(2) on the page",
        ("waiter", "direct-read") => "a thread in an O_DIRECT read into the page",
        ("waiter", "direct-write") => "a thread in an O_DIRECT write from the page",
        ("waiter", "vcpu-read") => "a vCPU whose guest loads from the page",
        ("waiter", "vcpu-write") => "a vCPU whose guest stores to the page",
        ("waiter", "vcpu-fetch") => "a vCPU whose guest runs code in the page",
        ("backing", "anon") => "private anonymous memory",
        ("backing", "shmem") => "a memfd, mapped shared",
        ("backing", "private-memfd") => "a memfd, mapped private",
        ("backing", "shared-anon") => "shared anonymous memory",
        ("backing", "hugetlb-shared") => "2 MiB huge pages, mapped shared",
        ("backing", "hugetlb-private") => "2 MiB huge pages, mapped private",
        ("msg", "read") => "had been read before the change",
        ("msg", "unread") => "was not read yet",
        ("mode", "missing") => "missing pages",
        ("mode", "wp") => "write protection",
        ("mode", "minor") => "minor faults",
        _ => "",
    }
}

/// An operation as a title names it; empty for none.
pub(super) fn ioctl(op: &str) -> &'static str {
    match op {
        "look" => "",
        "unprotect" => "UFFDIO_WRITEPROTECT",
        "unregister" => "UFFDIO_UNREGISTER",
        op => meaning("op", op),
    }
}

/// A change as a title names it, to follow `after`.
pub(super) fn change(change: &str) -> &'static str {
    match change {
        "munmap" => "munmap of the block",
        "mmap-over" => "mmap over the block",
        "mremap" => "mremap of the block",
        "discard" => "a discard (MADV_DONTNEED, MADV_REMOVE, hole punching)",
        _ => "no change at all",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ask::words::GRID;

    #[test]
    fn every_value_of_the_grid_has_a_meaning_but_those_that_only_trials_have() {
        for axis in GRID {
            for value in words::values(axis).into_iter().filter(|v| !v.starts_with("proc-mem")) {
                assert_ne!(meaning(axis, value), "", "{axis}={value}");
            }
        }
    }
}
