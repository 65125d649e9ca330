//! The suite `events`: fork, remap, remove and unmap events: payload, order, whom they block and
//! until when.

mod across;
pub(crate) mod call;
mod fork;
pub(crate) mod ground;
mod model;
mod pairs;
mod payload;
pub(crate) mod raiser;
mod release;
mod taken;
mod unborn;
pub(crate) mod unread;
mod waiting;

use crate::probe::Case;

/// The suite's cases.
pub(crate) fn cases() -> Vec<Case> {
    let mut cases = payload::cases();
    cases.extend(unread::cases());
    cases.extend(pairs::cases());
    cases.extend(waiting::cases());
    cases.extend(release::cases());
    cases.extend(taken::cases());
    cases.extend(fork::cases());
    cases.extend(unborn::cases());
    cases.extend(across::cases());
    cases
}
