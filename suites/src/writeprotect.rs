//! The suite `writeprotect`: what UFFDIO_WRITEPROTECT protects, frees and wakes, and who meets the protection.

use crate::probe::Case;

/// The suite's cases.
pub(crate) fn cases() -> Vec<Case> {
    Vec::new()
}
