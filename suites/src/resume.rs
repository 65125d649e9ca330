//! The suite `continue`: what UFFDIO_CONTINUE returns, stores and wakes, and what raises a minor fault.

use crate::probe::Case;

/// The suite's cases.
pub(crate) fn cases() -> Vec<Case> {
    Vec::new()
}
