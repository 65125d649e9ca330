//! The suite `arguments`: what every ioctl makes of bad arguments.

use crate::probe::Case;

/// The suite's cases.
pub(crate) fn cases() -> Vec<Case> {
    Vec::new()
}
