//! The suite `waiters`: waiters beside the grid's: several at once, signals, SIGBUS, who can't wait.

use crate::probe::Case;

mod call;
mod cross;
mod debugger;
mod frozen;
mod grow_locked;
mod owner;
mod pair;
mod process;
mod reach;
mod remote;
mod several;
mod sigbus;
pub(crate) mod signal;
mod spread;
mod uring;
mod uring_buffer;

/// The suite's cases.
pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    several::cases(&mut cases);
    spread::cases(&mut cases);
    pair::cases(&mut cases);
    signal::cases(&mut cases);
    sigbus::cases(&mut cases);
    process::cases(&mut cases);
    cross::cases(&mut cases);
    reach::cases(&mut cases);
    uring::cases(&mut cases);
    uring_buffer::cases(&mut cases);
    debugger::cases(&mut cases);
    remote::cases(&mut cases);
    frozen::cases(&mut cases);
    grow_locked::cases(&mut cases);
    cases
}
