//! The suite `arguments`: what every ioctl makes of bad arguments.
//!
//! `ground` sets the scene in which good arguments would work, `twist` makes a case of a ground and
//! one wrong thing; then a file for each kind of wrong thing.

mod early;
mod ground;
mod handshake;
mod inside;
mod mode;
mod moved;
mod number;
mod order;
mod origin;
mod placement;
mod range;
mod switch;
mod twist;

use crate::probe::Case;

/// The suite's cases.
pub(crate) fn cases() -> Vec<Case> {
    [
        range::cases(),
        mode::cases(),
        placement::cases(),
        number::cases(),
        origin::cases(),
        order::cases(),
        early::cases(),
        handshake::cases(),
        moved::cases(),
        inside::cases(),
        switch::cases(),
    ]
    .concat()
}
