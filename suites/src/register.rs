//! The suite `register`: what UFFDIO_REGISTER takes, refuses and offers.
//!
//! `ground` makes memory of every kind, `words` names modes and ioctls; then a file for each question.

mod ground;
mod modes;
mod twice;
mod words;

use crate::probe::Case;

/// The suite's cases.
pub(crate) fn cases() -> Vec<Case> {
    [modes::cases(), twice::cases()].concat()
}
