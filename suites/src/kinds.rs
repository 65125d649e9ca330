//! The suite `kinds`: kinds of memory beside the grid's: which faults, ioctls and wake-ups work on them.

mod beyond;
mod file;
mod guard;
mod guard_marked;
mod hugetlb_empty;
mod hugetlb_last;
mod hugetlb_table;
mod limited;
mod merged;
mod poisoned;
mod sealed_file;
mod secret;
mod shmem_thp;
mod shmem_thp_waiter;
mod soft_dirty;
mod state;
mod swapped;
mod thp;
mod tmpfs_full;
mod treated;

use crate::probe::Case;

/// The suite's cases.
pub(crate) fn cases() -> Vec<Case> {
    let mut cases = treated::cases();
    cases.extend(guard::cases());
    cases.extend(guard_marked::cases());
    cases.extend(thp::cases());
    cases.extend(file::cases());
    cases.extend(swapped::cases());
    cases.extend(beyond::cases());
    cases.extend(limited::cases());
    cases.extend(shmem_thp::cases());
    cases.extend(shmem_thp_waiter::cases());
    cases.extend(secret::cases());
    cases.extend(sealed_file::cases());
    cases.extend(merged::cases());
    cases.extend(state::cases());
    cases.extend(poisoned::cases());
    cases.extend(hugetlb_empty::cases());
    cases.extend(hugetlb_last::cases());
    cases.extend(tmpfs_full::cases());
    cases.extend(soft_dirty::cases());
    cases.extend(hugetlb_table::cases());
    cases
}
