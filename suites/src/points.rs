//! Probes of the newer ioctls and modes that are points of the grid: each operation after nothing,
//! munmap, mmap-over and mremap. The suites of these ioctls add what the grid can't express.

use crate::grid;
use crate::point::{Mode, Op};
use crate::probe::{Case, Probe};

const CH: &str = "Cloud Hypervisor: postcopy with MINOR and CONTINUE, vmm/src/uffd.rs";
const SNAPSHOT: &str = "QEMU background snapshot: migration/ram.c, ram_write_tracking_*()";
const UMAP: &str = "LLNL umap: src/umap/Uffd.cpp";
const ART: &str = "Android ART: mark_compact.cc";
const CLEANUP: &str = "QEMU postcopy: cleanup_range(), migration/postcopy-ram.c";

/// Declares the four probes of an operation in a mode, named after the kinds of change.
macro_rules! probes {
    ($name:ident, $suite:literal, $prefix:literal, $consumers:expr, {
        unchanged: $unchanged:literal, munmap: $munmap:literal,
        mmap_over: $mmap_over:literal, mremap: $mremap:literal $(,)?
    }) => {
        static $name: [Probe; 4] = [
            Probe {
                suite: $suite,
                name: concat!($prefix, "unchanged"),
                statement: $unchanged,
                consumers: $consumers,
            },
            Probe {
                suite: $suite,
                name: concat!($prefix, "munmap"),
                statement: $munmap,
                consumers: $consumers,
            },
            Probe {
                suite: $suite,
                name: concat!($prefix, "mmap-over"),
                statement: $mmap_over,
                consumers: $consumers,
            },
            Probe {
                suite: $suite,
                name: concat!($prefix, "mremap"),
                statement: $mremap,
                consumers: $consumers,
            },
        ];
    };
}

probes!(CONTINUE, "continue", "", &[CH, "vhost-user backends with shared memory"], {
    unchanged: "CONTINUE of a page of the page cache maps it and wakes its waiter.",
    munmap: "CONTINUE of an unmapped page fails with ENOENT, stores -2 and wakes nobody.",
    mmap_over: "CONTINUE of a page whose mapping was replaced fails with ENOENT, stores -2 and wakes \
                nobody.",
    mremap: "CONTINUE at the old place of moved or cut memory fails with ENOENT and wakes nobody; in \
             one that grew in place or kept its mapping it works.",
});
probes!(WRITEPROTECT, "writeprotect", "", &[SNAPSHOT, UMAP], {
    unchanged: "WRITEPROTECT without MODE_WP of a protected page frees it and wakes the writer.",
    munmap: "WRITEPROTECT of an unmapped page fails with ENOENT and wakes nobody.",
    mmap_over: "WRITEPROTECT of a page whose mapping was replaced fails with ENOENT and wakes nobody.",
    mremap: "WRITEPROTECT at the old place of moved or cut memory fails with ENOENT and wakes nobody; \
             in one that grew in place or kept its mapping it works.",
});
probes!(POISON, "poison", "", &["QEMU and others that migrate poisoned pages"], {
    unchanged: "POISON of a missing page marks it; its waiter is woken and gets SIGBUS.",
    munmap: "POISON of an unmapped page fails with ENOENT, stores -2 and wakes nobody.",
    mmap_over: "POISON of a page whose mapping was replaced fails with ENOENT, stores -2 and wakes \
                nobody.",
    mremap: "POISON at the old place of moved or cut memory fails with ENOENT and wakes nobody; in one \
             that grew in place or kept its mapping it works.",
});
probes!(MOVE, "move", "", &[ART], {
    unchanged: "MOVE of a page to a missing page of anonymous memory places it and wakes its waiter; \
                other memory is refused.",
    munmap: "MOVE to an unmapped page is refused and wakes nobody.",
    mmap_over: "MOVE to a page whose mapping was replaced is refused and wakes nobody.",
    mremap: "MOVE to the old place of moved or cut memory is refused and wakes nobody; to one that \
             grew in place or kept its mapping it works.",
});
probes!(UNREGISTER_WP, "unregister", "wp-", &[SNAPSHOT, CLEANUP], {
    unchanged: "UNREGISTER of a block that is registered for write protection returns 0 and leaves \
                the writer asleep until WAKE.",
    munmap: "UNREGISTER of a write-protected block that is partly unmapped returns 0 and wakes nobody; \
             of one that is gone it fails with EINVAL.",
    mmap_over: "UNREGISTER of a write-protected block that is partly replaced returns 0 and wakes \
                nobody; over a regular file it fails with EINVAL and ends no registration.",
    mremap: "UNREGISTER of a write-protected block that was moved or resized wakes nobody.",
});
probes!(UNREGISTER_MINOR, "unregister", "minor-", &[CH, ART], {
    unchanged: "UNREGISTER of a block that is registered for minor faults returns 0 and leaves the \
                waiter asleep until WAKE.",
    munmap: "UNREGISTER of a block for minor faults that is partly unmapped returns 0 and wakes \
             nobody; of one that is gone it fails with EINVAL.",
    mmap_over: "UNREGISTER of a block for minor faults that is partly replaced returns 0 and wakes \
                nobody; over a regular file it fails with EINVAL and ends no registration.",
    mremap: "UNREGISTER of a block for minor faults that was moved or resized wakes nobody.",
});
probes!(WAKE_WP, "wake", "wp-", &[SNAPSHOT, UMAP], {
    unchanged: "WAKE of a protected page lets the writer fault again with a new message.",
    munmap: "WAKE of an unmapped page frees the writer that waited for its protection to go.",
    mmap_over: "WAKE of a replaced page frees the writer that waited for its protection to go.",
    mremap: "WAKE at the old place of moved memory frees the writer that waited there.",
});
probes!(WAKE_MINOR, "wake", "minor-", &[CH, ART], {
    unchanged: "WAKE of a page that is not mapped lets its waiter fault again with a new message.",
    munmap: "WAKE of an unmapped page frees the waiter of a minor fault.",
    mmap_over: "WAKE of a replaced page frees the waiter of a minor fault.",
    mremap: "WAKE at the old place of moved memory frees the waiter of a minor fault.",
});

/// CONTINUE.
pub(crate) fn of_continue() -> Vec<Case> {
    grid::cases(Op::Continue, Mode::Minor, &CONTINUE.each_ref())
}

/// WRITEPROTECT that removes the protection.
pub(crate) fn of_writeprotect() -> Vec<Case> {
    grid::cases(Op::Unprotect, Mode::Wp, &WRITEPROTECT.each_ref())
}

/// POISON.
pub(crate) fn of_poison() -> Vec<Case> {
    grid::cases(Op::Poison, Mode::Missing, &POISON.each_ref())
}

/// MOVE.
pub(crate) fn of_move() -> Vec<Case> {
    grid::cases(Op::Move, Mode::Missing, &MOVE.each_ref())
}

/// UNREGISTER of what is registered for other faults than missing ones.
pub(crate) fn of_unregister() -> Vec<Case> {
    let mut cases = grid::cases(Op::Unregister, Mode::Wp, &UNREGISTER_WP.each_ref());
    cases.extend(grid::cases(Op::Unregister, Mode::Minor, &UNREGISTER_MINOR.each_ref()));
    cases
}

/// WAKE of waiters of other faults than missing ones.
pub(crate) fn of_wake() -> Vec<Case> {
    let mut cases = grid::cases(Op::Wake, Mode::Wp, &WAKE_WP.each_ref());
    cases.extend(grid::cases(Op::Wake, Mode::Minor, &WAKE_MINOR.each_ref()));
    cases
}
