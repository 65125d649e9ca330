//! What is asked: probes of userfaultfd after mappings changed, with waiters parked in the fault.
//!
//! Modules from the ground up: [`abi`], [`memory`] and [`touch`], [`change`], [`waiter`] with its
//! [`evidence`], [`point`] and [`scenario`], then probes. `unsafe` stays in the first five.
pub mod abi;
pub mod change;
pub mod evidence;
pub mod expect;
pub mod memory;
pub mod model;
pub mod outcome;
pub mod point;
pub mod scenario;
pub mod stage;
pub mod touch;
pub mod waiter;

#[cfg(test)]
mod testing;
