//! The suite `register`: what UFFDIO_REGISTER takes, refuses and offers.

use crate::probe::Case;

/// The suite's cases.
pub(crate) fn cases() -> Vec<Case> {
    Vec::new()
}
