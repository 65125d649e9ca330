//! Runs cases: one forked child a case, on one or on several worker processes.

mod child;
mod huge;
mod pages;
mod pins;
mod pool;
mod repeat;
mod slate;
mod wait;

pub use child::{Limits, Runner, in_child};
pub use huge::is_used_up;
pub use pool::{Pool, PoolError};
pub use wait::{BURIAL, attend_children, wait};
