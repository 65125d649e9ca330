//! The suite `kinds`: kinds of memory beside the grid's: which faults, ioctls and wake-ups work on them.

use crate::probe::Case;

/// The suite's cases.
pub(crate) fn cases() -> Vec<Case> {
    Vec::new()
}
