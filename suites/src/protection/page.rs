//! What can be at a page when it is protected.

use crate::lab::Lab;
use crate::memory::{advise, dontneed};
use crate::outcome::Stop;
use crate::point::{Backing, Discard, axis};
use crate::process::Offspring;
use crate::touch;

axis! {
    /// What is at the page when the block is protected.
    State {
        /// It was written to.
        Present = "present",
        /// It was only read: the zero page, or a page of the page cache.
        Loaded = "loaded",
        /// It was never touched.
        Missing = "missing",
        /// It is in the page cache and not mapped.
        Cached = "cached",
        /// It was written to, then MADV_DONTNEED.
        Dropped = "dropped",
        /// It was written to, then MADV_FREE.
        Freed = "freed",
        /// It was written to, then FALLOC_FL_PUNCH_HOLE.
        Punched = "punched",
        /// It was written to and is shared with a forked child.
        Forked = "forked",
    }
}

impl State {
    /// Whether a block of this backing can have such a page.
    pub(crate) fn fits(self, backing: Backing) -> bool {
        let file = matches!(backing, Backing::Shmem | Backing::Private | Backing::HugetlbShared);
        match self {
            Self::Cached => file,
            Self::Punched => file && backing != Backing::Private,
            Self::Freed => backing.is_anon(),
            // Private huge pages take two of the pool where a child shares them.
            Self::Forked => !backing.is_huge(),
            Self::Present | Self::Loaded | Self::Missing | Self::Dropped => true,
        }
    }

    /// Whether the page is mapped.
    pub(crate) const fn is_mapped(self) -> bool {
        matches!(self, Self::Present | Self::Loaded | Self::Freed | Self::Forked)
    }

    /// Brings `page` there; the child, if that takes one.
    pub(crate) fn make(self, lab: &Lab<'_>, page: usize) -> Result<Option<Offspring>, Stop> {
        let pages = page..page + 1;
        if !matches!(self, Self::Loaded | Self::Missing | Self::Cached) {
            lab.fill(pages.clone())?;
        }
        let rc = match self {
            Self::Present | Self::Missing => return Ok(None),
            Self::Loaded => {
                touch::load(lab.page(page).start)
                    .map_err(|signal| Stop::Broken(format!("reading the page: {signal}")))?;
                return Ok(None);
            }
            Self::Cached => {
                lab.block.fill_cache(page)?;
                return Ok(None);
            }
            Self::Forked => return Offspring::idle(lab.stage).map(Some),
            Self::Dropped => dontneed(lab.page(page)),
            Self::Freed => advise(lab.page(page), libc::MADV_FREE),
            Self::Punched => lab.block.discard(Discard::Punch, pages)?,
        };
        match rc.0 {
            None => Ok(None),
            Some(errno) if lab.block.backing.is_huge() => {
                Err(Stop::Unsupported(format!("discarding a huge page: {errno:?}")))
            }
            Some(errno) => Err(Stop::Broken(format!("discarding the page: {errno:?}"))),
        }
    }
}
