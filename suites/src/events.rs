//! The suite `events`: fork, remap, remove and unmap events: payload, order, whom they block and
//! until when.

mod call;
mod ground;
mod model;
mod payload;

use crate::probe::Case;

/// The suite's cases.
pub(crate) fn cases() -> Vec<Case> {
    payload::cases()
}
