//! Runs cases: one forked child a case, on one or on several worker processes.

mod child;
mod pages;
mod pool;
mod repeat;
mod slate;

pub use child::{Limits, Runner, ended, in_child};
pub use pool::{Pool, PoolError};
