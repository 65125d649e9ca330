//! The suite `rwp`: what UFFDIO_RWPROTECT and UFFDIO_SET_MODE do (7.3).
//!
//! Protection against all access, not only writes. Nobody has documented more than the header's
//! comments, so almost all is observed only. [`register`] which modes go together, [`reach`] which
//! pages get protected, [`who`] meets the protection, [`lift`] whom its removal wakes, [`after`] what
//! is left of it after a change, [`set_mode`] and [`scan`].

mod after;
mod lift;
mod reach;
mod register;
mod scan;
mod set_mode;
mod who;

use crate::abi::features;
use crate::abi::newer::{REGISTER_MODE_RWP, RWPROTECT_MODE_RWP};
use crate::lab::Lab;
use crate::outcome::Stop;
use crate::point::{Backing, PAGES, axis};
use crate::probe::Case;
use crate::stage::Stage;

/// The suite's cases.
pub(crate) fn cases() -> Vec<Case> {
    let mut cases = register::cases();
    cases.extend(reach::cases());
    cases.extend(who::cases());
    cases.extend(lift::cases());
    cases.extend(after::cases());
    cases.extend(set_mode::cases());
    cases.extend(scan::cases());
    cases
}

axis! {
    /// Which way of delivery the context asks for.
    Delivery {
        /// Messages.
        Message = "message",
        /// None: RWP_ASYNC.
        Async = "async",
        /// Signals: SIGBUS.
        Signal = "sigbus",
    }
}

impl Delivery {
    const fn bits(self) -> u64 {
        features::RWP
            | match self {
                Self::Message => 0,
                Self::Async => features::RWP_ASYNC,
                Self::Signal => features::SIGBUS,
            }
    }
}

/// A block whose pages were all written to, registered with `features` and protected.
fn protected(stage: &Stage, backing: Backing, features: u64) -> Result<Lab<'_>, Stop> {
    let lab = Lab::new(stage, backing, features)?;
    lab.fill(0..PAGES)?;
    lab.register(0..PAGES, REGISTER_MODE_RWP)?;
    let rc = lab.uffd.rwprotect(lab.all(), RWPROTECT_MODE_RWP);
    if rc.is_ok() { Ok(lab) } else { Err(Stop::Broken(format!("RWPROTECT of the block: {rc}"))) }
}

/// What the header says.
const HEADER: &str = "include/uapi/linux/userfaultfd.h, UFFD_FEATURE_RWP (7.3): pages are made \
    inaccessible and faults are delivered when they are accessed again";
/// What the header says of RWP_ASYNC.
const ASYNC: &str = "include/uapi/linux/userfaultfd.h, UFFD_FEATURE_RWP_ASYNC (7.3): faults are \
    resolved by the kernel without a message";
/// What the header says of SET_MODE.
const SET_MODE: &str = "include/uapi/linux/userfaultfd.h, struct uffdio_set_mode (7.3): RWP_ASYNC only; \
    a bit in both masks is invalid";

const TRACKERS: &str = "working-set trackers and swap in user space (7.3 and later)";
