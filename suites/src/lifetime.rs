//! The suite `lifetime`: fork, exec and exit of the process, and ioctls on its memory afterwards.

pub(crate) mod dead;
mod followed;
mod fork;
mod killed;
mod last;
mod shared;

use crate::probe::Case;

/// The suite's cases.
pub(crate) fn cases() -> Vec<Case> {
    let groups: [fn() -> Vec<Case>; 6] =
        [fork::cases, shared::cases, followed::cases, last::cases, killed::cases, dead::cases];
    groups.iter().flat_map(|cases| cases()).collect()
}
