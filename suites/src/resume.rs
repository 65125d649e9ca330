//! The suite `continue`: what UFFDIO_CONTINUE returns, stores and wakes, and what raises a minor fault.
//!
//! The grid asks for CONTINUE after each change of the mapping. Here: [`state`] by what is at the page,
//! [`fault`] which fault comes for which state, [`span`] several pages, [`wakes`] whom it wakes,
//! [`refault`] what comes afterwards, [`elsewhere`] pages that another mapping of the file fills,
//! [`failed`] pages that the memory has lost.

mod elsewhere;
mod failed;
mod fault;
mod refault;
mod span;
mod state;
mod wakes;

use crate::abi::{REGISTER_MODE_MINOR, REGISTER_MODE_MISSING, REGISTER_MODE_WP};
use crate::lab::Lab;
use crate::memory::dontneed;
use crate::outcome::Stop;
use crate::point::{Backing, Discard, axis};
use crate::probe::Case;
use crate::touch;

/// The suite's cases.
pub(crate) fn cases() -> Vec<Case> {
    let mut cases = state::cases();
    cases.extend(fault::cases());
    cases.extend(span::cases());
    cases.extend(wakes::cases());
    cases.extend(refault::cases());
    cases.extend(elsewhere::cases());
    cases.extend(failed::cases());
    cases
}

axis! {
    /// What is at the page.
    Page {
        /// In the page cache, never mapped here.
        Cached = "cached",
        /// In the page cache and mapped.
        Mapped = "mapped",
        /// Mapped and written to here; a private copy in a private mapping.
        Written = "written",
        /// Written to, then MADV_DONTNEED: in the page cache of a shared file.
        Dropped = "dropped",
        /// Not in the page cache.
        Missing = "missing",
        /// It was in the page cache; FALLOC_FL_PUNCH_HOLE took it out.
        Punched = "punched",
        /// Beyond the end of the file.
        Beyond = "beyond-end",
    }
}

impl Page {
    fn fits(self, backing: Backing) -> bool {
        let file = matches!(backing, Backing::Shmem | Backing::Private | Backing::HugetlbShared);
        match self {
            Self::Cached | Self::Mapped | Self::Punched | Self::Beyond => file,
            // A private copy is lost with MADV_DONTNEED: missing.
            Self::Dropped => !backing.is_private(),
            Self::Written | Self::Missing => true,
        }
    }

    /// Whether the page cache has the page and nobody maps it.
    const fn is_minor(self) -> bool {
        matches!(self, Self::Cached | Self::Dropped)
    }

    const fn is_mapped(self) -> bool {
        matches!(self, Self::Mapped | Self::Written)
    }

    /// Brings `page` of a block that is not registered yet into this state.
    fn make(self, lab: &Lab<'_>, page: usize) -> Result<(), Stop> {
        match self {
            Self::Missing => {}
            Self::Cached | Self::Mapped | Self::Punched => lab.block.fill_cache(page)?,
            Self::Written | Self::Dropped => lab.fill(page..page + 1)?,
            Self::Beyond => {
                let rc = lab.block.cut(page)?;
                if !rc.is_ok() {
                    return Err(Stop::Broken(format!("ftruncate: {rc}")));
                }
            }
        }
        let rc = match self {
            Self::Mapped => {
                touch::load(lab.page(page).start)
                    .map_err(|signal| Stop::Broken(format!("reading the page: {signal}")))?;
                return Ok(());
            }
            Self::Dropped => dontneed(lab.page(page)),
            Self::Punched => lab.block.discard(Discard::Punch, page..page + 1)?,
            _ => return Ok(()),
        };
        match rc.0 {
            None => Ok(()),
            Some(errno) if lab.block.backing.is_huge() => {
                Err(Stop::Unsupported(format!("discarding a huge page: {errno:?}")))
            }
            Some(errno) => Err(Stop::Broken(format!("discarding the page: {errno:?}"))),
        }
    }
}

axis! {
    /// For what the block is registered.
    Modes {
        /// Nothing: the control.
        None = "none",
        /// Minor faults.
        Minor = "minor",
        /// Missing faults.
        Missing = "missing",
        /// Both.
        Both = "missing-minor",
        /// Minor faults and write protection.
        MinorWp = "minor-wp",
    }
}

impl Modes {
    const fn bits(self) -> u64 {
        match self {
            Self::None => 0,
            Self::Minor => REGISTER_MODE_MINOR,
            Self::Missing => REGISTER_MODE_MISSING,
            Self::Both => REGISTER_MODE_MISSING | REGISTER_MODE_MINOR,
            Self::MinorWp => REGISTER_MODE_MINOR | REGISTER_MODE_WP,
        }
    }

    const fn minor(self) -> bool {
        matches!(self, Self::Minor | Self::Both | Self::MinorWp)
    }

    const fn missing(self) -> bool {
        matches!(self, Self::Missing | Self::Both)
    }
}

/// The backings that can raise minor faults, with pages of the usual size.
const FILES: [Backing; 3] = [Backing::Shmem, Backing::Private, Backing::SharedAnon];

/// When a minor fault comes.
const MINOR: &str = "Documentation/admin-guide/mm/userfaultfd.rst: MINOR mode (5.13, shared memory \
    5.14) is for pages that the page cache has and no page table maps";
/// What a missing fault is.
const MISSING: &str = "shmem_get_folio_gfp(), hugetlb_no_page(): a missing fault comes only for \
    what the page cache does not have";
/// CONTINUE's failures.
const REFUSES: &str = "mfill_atomic_pte_continue() in mm/userfaultfd.c: EFAULT without a page in the \
    page cache, EEXIST if one is mapped";

const CLONES: &str = "Firecracker snapshot clones: MINOR and CONTINUE of a shared memfd";
const VHOST: &str =
    "vhost-user backends: DPDK lib/vhost, rust-vmm vhost-user-backend, QEMU libvhost-user";
const ART: &str = "Android ART: mark_compact.cc";
const CROSVM: &str = "crosvm: vmm-swap";
