//! The suite `permission`: who may make a userfaultfd, and of which kind.

use crate::probe::Case;

/// The suite's cases.
pub(crate) fn cases() -> Vec<Case> {
    Vec::new()
}
