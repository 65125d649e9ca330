//! The suite `move`: what UFFDIO_MOVE moves, refuses, stores and wakes.

use crate::probe::Case;

/// The suite's cases.
pub(crate) fn cases() -> Vec<Case> {
    Vec::new()
}
