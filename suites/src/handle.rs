//! The suite `handle`: the descriptor: handshake, features, poll, read, dup, close.
//!
//! [`setting`] has what its probes share; then a file a subject.

mod api;
mod blocking;
mod calls;
mod early;
mod namespace;
mod open;
mod polling;
mod reading;
mod setting;
mod sharing;
mod told;

pub(crate) use api::api_line;

use crate::probe::Case;

/// The suite's cases.
pub(crate) fn cases() -> Vec<Case> {
    let groups: [fn() -> Vec<Case>; 10] = [
        open::cases,
        api::cases,
        early::cases,
        polling::cases,
        reading::cases,
        blocking::cases,
        calls::cases,
        sharing::cases,
        told::cases,
        namespace::cases,
    ];
    groups.iter().flat_map(|cases| cases()).collect()
}
