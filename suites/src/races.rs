//! The suite `races`: steps of several threads whose order is forced.

mod argument;
mod close;
mod crossed;
mod handover;
mod handshake;
mod killed;
mod own;
mod owner;
mod pending;
mod source;
mod stopped;
mod window;

use crate::probe::Case;

/// The suite's cases.
pub(crate) fn cases() -> Vec<Case> {
    let mut cases = source::cases();
    cases.extend(argument::cases());
    cases.extend(window::cases());
    cases.extend(close::cases());
    cases.extend(own::cases());
    cases.extend(crossed::cases());
    cases.extend(owner::cases());
    cases.extend(killed::cases());
    cases.extend(pending::cases());
    cases.extend(handshake::cases());
    cases.extend(handover::cases());
    cases
}
