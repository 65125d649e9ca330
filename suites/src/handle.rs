//! The suite `handle`: the descriptor: handshake, features, poll, read, dup, close.

use crate::probe::Case;

/// The suite's cases.
pub(crate) fn cases() -> Vec<Case> {
    Vec::new()
}
