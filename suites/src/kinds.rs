//! The suite `kinds`: kinds of memory beside the grid's: which faults, ioctls and wake-ups work on them.

mod beyond;
mod file;
mod guard;
mod limited;
mod swapped;
mod thp;
mod treated;

use crate::probe::Case;

/// The suite's cases.
pub(crate) fn cases() -> Vec<Case> {
    let mut cases = treated::cases();
    cases.extend(guard::cases());
    cases.extend(thp::cases());
    cases.extend(file::cases());
    cases.extend(swapped::cases());
    cases.extend(beyond::cases());
    cases.extend(limited::cases());
    cases
}
