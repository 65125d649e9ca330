//! The suite `writeprotect`: what UFFDIO_WRITEPROTECT protects, frees and wakes, and who meets the
//! protection.
//!
//! The grid asks for WRITEPROTECT(0) after each change of the mapping. Here: [`reach`] which pages
//! get protected, [`who`] meets the protection, [`both`] missing and protected pages in one
//! registration, [`ranges`] of several mappings, [`lift`] whom the removal wakes, [`after`] what is
//! left of the protection after a change, [`scan`] PAGEMAP_SCAN, [`sequence`] what consumers do step by step,
//! [`close`] what the last close leaves behind.

mod after;
mod both;
mod close;
mod lift;
mod ranges;
mod reach;
mod scan;
mod sequence;
mod who;

use crate::abi::features;
use crate::point::{Backing, axis};
use crate::probe::Case;
use uffd_results::KernelVersion;

/// The suite's cases.
pub(crate) fn cases() -> Vec<Case> {
    let mut cases = reach::cases();
    cases.extend(who::cases());
    cases.extend(both::cases());
    cases.extend(ranges::cases());
    cases.extend(lift::cases());
    cases.extend(after::cases());
    cases.extend(scan::cases());
    cases.extend(sequence::cases());
    cases.extend(close::cases());
    cases
}

axis! {
    /// Which features the context asks for.
    Asks {
        /// None.
        None = "none",
        /// WP_UNPOPULATED (6.4).
        Unpopulated = "wp-unpopulated",
        /// WP_ASYNC (6.7).
        Async = "wp-async",
    }
}

impl Asks {
    /// The bits.
    pub(crate) const fn bits(self) -> u64 {
        match self {
            Self::None => 0,
            Self::Unpopulated => features::WP_UNPOPULATED,
            Self::Async => features::WP_ASYNC,
        }
    }

    /// Whether protection also reaches anonymous pages that are not there; WP_ASYNC implies it.
    const fn marks_anon(self) -> bool {
        !matches!(self, Self::None)
    }
}

/// Whether protection leaves a mark where no page is mapped.
const fn marks(backing: Backing, asks: Asks) -> bool {
    !backing.is_anon() || asks.marks_anon()
}

/// A row of page table entries as a kernel shows it: before 5.14 it did not show protection.
fn row(letters: &str, kernel: KernelVersion) -> String {
    if kernel < KernelVersion::new(5, 14, 0) {
        letters.replace('w', "p")
    } else {
        letters.to_owned()
    }
}

/// Where protection can be seen.
const SHOWN: &str = "Documentation/admin-guide/mm/pagemap.rst: bit 57 says that a page is \
    write-protected through userfaultfd (commit fb8e37f35a2f, 5.14)";
/// What WRITEPROTECT does.
const PROTECTS: &str = "ioctl_userfaultfd(2), UFFDIO_WRITEPROTECT: write-protects or \
    write-unprotects the range";
/// What happens to pages that are not there.
const UNPOPULATED: &str = "Documentation/admin-guide/mm/userfaultfd.rst: without \
    UFFD_FEATURE_WP_UNPOPULATED (6.4) anonymous pages that are not there are not protected; files \
    keep a marker in any case (5.19)";
/// What a write to a protected page does.
const FAULTS: &str = "Documentation/admin-guide/mm/userfaultfd.rst: a write to a protected page \
    raises a message with UFFD_PAGEFAULT_FLAG_WP, a read does not";
/// What removing the protection does.
const LIFTS: &str = "ioctl_userfaultfd(2), UFFDIO_WRITEPROTECT: removing the protection wakes who \
    waits in the range, unless MODE_DONTWAKE says otherwise";
/// What WP_ASYNC does.
const ASYNC: &str = "Documentation/admin-guide/mm/userfaultfd.rst: with UFFD_FEATURE_WP_ASYNC (6.7) \
    the kernel resolves the fault itself and removes the protection";

const BACKGROUND: &str = "QEMU background snapshot: ram_write_tracking_start(), migration/ram.c";
const E2B: &str = "E2B orchestrator: faultPage(), resolveWriteProtect()";
const UMAP: &str = "LLNL umap: Uffd.cpp";
const TRACKERS: &str = "write trackers: Wine, CRIU and garbage collectors with PAGEMAP_SCAN";
