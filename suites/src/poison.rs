//! The suite `poison`: what UFFDIO_POISON returns, stores and wakes, and what the poisoned page does.

use crate::probe::Case;

/// The suite's cases.
pub(crate) fn cases() -> Vec<Case> {
    Vec::new()
}
