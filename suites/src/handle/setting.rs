//! What the probes of this suite share: a registered block, faults on it, and words for results.

use crate::abi::{Message, REGISTER_MODE_MISSING, Uffd};
use crate::evidence::QueueFile;
use crate::memory::{BLOCK, Block, RW, SPARE, map};
use crate::outcome::Stop;
use crate::point::{Backing, PAGES, Waiter as Kind};
use crate::stage::Stage;
use crate::waiter::Waiter;
use nix::errno::Errno;

/// Bytes of one message.
pub(super) const MESSAGE: usize = 32;

/// A block registered for missing faults, and its context's queue.
#[derive(Debug)]
pub(super) struct Setting<'a> {
    stage: &'a Stage,
    /// The block.
    pub(super) block: Block,
    /// Its context.
    pub(super) uffd: Uffd,
    /// The context's queue.
    pub(super) queue: QueueFile,
}

impl<'a> Setting<'a> {
    /// A block of private anonymous memory.
    pub(super) fn new(stage: &'a Stage, uffd: Uffd) -> Result<Self, Stop> {
        let block = Block::map(Backing::Anon, BLOCK)?;
        uffd.register(block.range(0..PAGES), REGISTER_MODE_MISSING)
            .map_err(|e| Stop::Broken(format!("REGISTER: {e:?}")))?;
        let queue = QueueFile::open(&uffd)?;
        Ok(Self { stage, block, uffd, queue })
    }

    /// Threads that load from `pages` and park one after the other.
    pub(super) fn park(&self, pages: std::ops::Range<usize>) -> Result<Vec<Waiter>, Stop> {
        pages.map(|page| self.park_one(Kind::UserRead, page)).collect()
    }

    /// A thread that parks on a page.
    pub(super) fn park_one(&self, kind: Kind, page: usize) -> Result<Waiter, Stop> {
        let page = self.block.range(page..page + 1);
        Waiter::park_beside(self.stage, kind, page, &self.queue)
    }

    /// Lets everybody go: the last close.
    pub(super) fn release(self, waiters: &[Waiter]) -> Result<(), Stop> {
        drop(self.uffd);
        waiters.iter().try_for_each(|waiter| waiter.end().map(drop))
    }
}

/// A page for the kernel to write to, in the arena.
pub(super) fn buffer() -> Result<usize, Stop> {
    let at = crate::abi::Range { start: SPARE, len: crate::memory::PAGE };
    match map(at, RW, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, None, 0).0 {
        None => Ok(SPARE),
        Some(e) => Err(Stop::Broken(format!("mapping a buffer: {e:?}"))),
    }
}

/// The word for what a read or write returned.
pub(super) fn counted(result: Result<usize, Errno>) -> String {
    result.map_or_else(|e| format!("{e:?}"), |n| n.to_string())
}

/// The messages that lie at `at`, as pages of the block: `2,3`, or `none`.
pub(super) fn messages(at: usize, bytes: usize) -> Result<String, Stop> {
    let mut words = Vec::new();
    for n in 0..bytes / MESSAGE {
        words.push(match Message::at(at + n * MESSAGE) {
            Ok(Message::Pagefault { address, .. }) => {
                (address.wrapping_sub(BLOCK) / crate::memory::PAGE).to_string()
            }
            Ok(other) => crate::abi::event_name(other.number()),
            Err(e) => return Err(Stop::Broken(format!("a message: {e:?}"))),
        });
    }
    Ok(if words.is_empty() { "none".into() } else { words.join(",") })
}
