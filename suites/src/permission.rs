//! The suite `permission`: who may make a userfaultfd, and of which kind.

mod open;
mod passed;
mod who;

pub(crate) use who::must_show_device;

use crate::probe::Case;

/// The suite's cases.
pub(crate) fn cases() -> Vec<Case> {
    let mut cases = open::cases();
    cases.extend(passed::cases());
    cases
}
