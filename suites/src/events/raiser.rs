//! One call for each kind of event, small enough to leave the missing page alone.

use super::ground::Ground;
use crate::abi::features;
use crate::memory::{self, ELSEWHERE};
use crate::mover::Mover;
use crate::outcome::Stop;
use crate::point::axis;
use crate::process::Offspring;

axis! {
    /// Which event is raised.
    Raiser {
        /// `MADV_DONTNEED` of a page.
        Remove = "remove",
        /// `munmap` of a page.
        Unmap = "unmap",
        /// `mremap` of a page to an empty place.
        Remap = "remap",
        /// `fork(2)`.
        Fork = "fork",
    }
}

/// A call that has raised, or will raise, its event.
#[derive(Debug)]
pub(crate) struct Raised {
    /// Its thread.
    pub(crate) mover: Mover,
    /// The child process that a fork makes, which ends at once.
    pub(crate) child: Option<Offspring>,
}

/// Pages for the first, the second and the third call of a case; all were written to.
pub(crate) const SLOTS: [usize; 3] = [0, 4, 5];

impl Raiser {
    /// The feature that makes the call raise its event.
    pub(crate) const fn feature(self) -> u64 {
        match self {
            Self::Remove => features::EVENT_REMOVE,
            Self::Unmap => features::EVENT_UNMAP,
            Self::Remap => features::EVENT_REMAP,
            Self::Fork => features::EVENT_FORK,
        }
    }

    /// What is read, if the call concerns the page of `slot`.
    pub(crate) fn event(self, slot: usize) -> String {
        let page = SLOTS[slot];
        match self {
            Self::Remove | Self::Unmap => format!("{self}({page}..{})", page + 1),
            Self::Remap => {
                let to = if slot == 0 { String::new() } else { format!("+{}", 16 * slot) };
                format!("remap({page}..{}>new{to})", page + 1)
            }
            Self::Fork => "fork".to_owned(),
        }
    }

    /// Starts the call on a thread of its own, for the page of `slot`.
    pub(crate) fn start(self, ground: &Ground<'_>, slot: usize) -> Result<Raised, Stop> {
        let page = SLOTS[slot];
        let range = ground.block.range(page..page + 1);
        let to = ELSEWHERE + slot * 16 * ground.block.page;
        let stage = ground.stage;
        let mover = match self {
            Self::Remove => Mover::discard(stage, range)?,
            Self::Unmap => Mover::start(stage, move || memory::unmap(range))?,
            Self::Remap => Mover::start(stage, move || {
                let moving = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
                memory::remap(range, range.len, moving, to)
            })?,
            Self::Fork => {
                let (mover, child) = Offspring::fork(stage, || "ended".to_owned())?;
                return Ok(Raised { mover, child: Some(child) });
            }
        };
        Ok(Raised { mover, child: None })
    }

    /// Starts the call and waits until its event is queued; the first of its context.
    pub(crate) fn raise(self, ground: &Ground<'_>) -> Result<Raised, Stop> {
        let raised = self.start(ground, 0)?;
        if raised.mover.blocks_on_event(&ground.uffd)? {
            return Ok(raised);
        }
        Err(Stop::Unsupported(format!("the call raised no event: {}", raised.mover.join()?)))
    }

    /// What the call is, in words.
    pub(crate) fn recipe(self, slot: usize) -> String {
        let page = SLOTS[slot];
        let call = match self {
            Self::Remove => format!("madvise(MADV_DONTNEED) of page {page}"),
            Self::Unmap => format!("munmap of page {page}"),
            Self::Remap => format!("mremap of page {page} to an empty place"),
            Self::Fork => "fork(2); the child ends at once".to_owned(),
        };
        format!("a thread calls {call}, and waits for its event to be read")
    }
}

impl Raised {
    /// Waits until the call has returned, and its child has ended: `0`, or the errno.
    pub(crate) fn join(&self) -> Result<String, Stop> {
        let rc = self.mover.join()?;
        if let Some(child) = &self.child {
            child.word()?;
            child.end()?;
        }
        Ok(rc.to_string())
    }
}
