//! The suite `rwp`: what UFFDIO_RWPROTECT and UFFDIO_SET_MODE do.

use crate::probe::Case;

/// The suite's cases.
pub(crate) fn cases() -> Vec<Case> {
    Vec::new()
}
