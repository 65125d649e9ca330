//! The suite `lifetime`: fork, exec and exit of the process, and ioctls on its memory afterwards.

use crate::probe::Case;

/// The suite's cases.
pub(crate) fn cases() -> Vec<Case> {
    Vec::new()
}
