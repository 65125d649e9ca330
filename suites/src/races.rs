//! The suite `races`: steps of several threads whose order is forced.

mod argument;
mod source;
mod stopped;

use crate::probe::Case;

/// The suite's cases.
pub(crate) fn cases() -> Vec<Case> {
    let mut cases = source::cases();
    cases.extend(argument::cases());
    cases
}
