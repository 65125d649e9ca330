//! The suite `waiters`: waiters beside the grid's: several at once, signals, SIGBUS, who can't wait.

use crate::probe::Case;

/// The suite's cases.
pub(crate) fn cases() -> Vec<Case> {
    Vec::new()
}
