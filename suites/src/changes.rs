//! The suite `changes`: changes beside the grid's: madvise, truncation, mprotect, fork, several mappings at once.

use crate::probe::Case;

/// The suite's cases.
pub(crate) fn cases() -> Vec<Case> {
    Vec::new()
}
