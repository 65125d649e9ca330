//! The suite `rwp`: what UFFDIO_RWPROTECT and UFFDIO_SET_MODE do (7.3).
//!
//! Protection against all access, not only writes. The header's comments, the kernel's document on userfaultfd and
//! the code of 7.3 say what to expect; what none of them says is observed only. [`register`] which modes go together,
//! [`reach`] which pages get protected, [`ranges`] over which mappings, [`who`] meets the protection, [`lift`] whom
//! its removal wakes, [`after`] what is left of it after a change, [`set_mode`] and [`scan`].

mod after;
mod lift;
mod ranges;
mod reach;
mod register;
mod scan;
mod set_mode;
mod who;

use crate::abi::features;
use crate::lab::Lab;
use crate::outcome::Stop;
use crate::point::{Backing, PAGES};
use crate::probe::Case;
use crate::protection::{Delivery, Protection};
use crate::stage::Stage;

/// The suite's cases.
pub(crate) fn cases() -> Vec<Case> {
    let mut cases = register::cases();
    cases.extend(reach::cases());
    cases.extend(ranges::cases());
    cases.extend(who::cases());
    cases.extend(lift::cases());
    cases.extend(after::cases());
    cases.extend(set_mode::cases());
    cases.extend(scan::cases());
    cases
}

/// The features that a way of delivery takes.
const fn bits(delivery: Delivery) -> u64 {
    features::RWP
        | match delivery {
            Delivery::Message => 0,
            Delivery::Async => features::RWP_ASYNC,
            Delivery::Signal => features::SIGBUS,
        }
}

/// A block whose pages were all written to, registered with `features` and protected.
fn protected(stage: &Stage, backing: Backing, features: u64) -> Result<Lab<'_>, Stop> {
    let lab = Lab::new(stage, backing, features)?;
    lab.fill(0..PAGES)?;
    Protection::All.cover(&lab)?;
    Ok(lab)
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
/// Whom SET_MODE wakes.
const SET_MODE_WAKES: &str = "userfaultfd_set_mode() (7.3): enabling RWP_ASYNC wakes all who wait for a page, and \
    takes no protection off";
/// What the document says of the pages that are protected.
const PRESENT: &str = "Documentation/admin-guide/mm/userfaultfd.rst (7.3), Read-Write Protection: only entries that \
    are present are protected, and a page that comes later is not";
/// What the document says of pages that are dropped.
const DROPPED: &str = "Documentation/admin-guide/mm/userfaultfd.rst (7.3), Read-Write Protection: what drops the entry \
    drops its protection too";
/// What the document says of the end.
const RESTORED: &str = "Documentation/admin-guide/mm/userfaultfd.rst (7.3), Read-Write Protection: UNREGISTER and \
    close give the pages back the permissions of their mapping";
/// What the document says of PAGEMAP_SCAN.
const SCANNED: &str = "Documentation/admin-guide/mm/userfaultfd.rst (7.3), Read-Write Protection: an access takes the \
    entry's mark, and PAGEMAP_SCAN calls a page accessed that lacks it";

const TRACKERS: &str = "working-set trackers and swap in user space (7.3 and later)";
