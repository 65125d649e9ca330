//! The suite `register`: what UFFDIO_REGISTER takes, refuses and offers.
//!
//! `ground` makes memory of every kind, `words` names modes and ioctls; then a file for each question.

mod adopt;
mod ground;
mod later;
pub(crate) mod limit;
mod modes;
mod span;
mod twice;
mod unspan;
mod words;

use crate::probe::Case;

/// The suite's cases.
pub(crate) fn cases() -> Vec<Case> {
    [
        modes::cases(),
        twice::cases(),
        span::cases(),
        unspan::cases(),
        later::cases(),
        adopt::cases(),
        limit::cases(),
    ]
    .concat()
}
