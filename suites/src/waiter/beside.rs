//! Waiters of a context with an unread event: its descriptor polls readable whether or not the
//! thread has parked, so the fault queue alone tells.

use super::{Fate, Waiter, once_asleep};
use crate::evidence::{QueueFile, ThreadFile};
use crate::outcome::Stop;
use std::sync::atomic::Ordering;
use std::time::Instant;

impl Waiter {
    /// Waits until the thread has either parked with an unread message or ended. No other thread
    /// may have an unread fault on the context.
    pub fn settle_by_queue(&mut self, queue: &QueueFile) -> Result<Fate, Stop> {
        let deadline = Instant::now() + self.patience;
        while queue.read()?.pending == 0 {
            if let Some(access) = self.shared.access.get() {
                return self.ended(*access);
            }
            if Instant::now() > deadline {
                return Err(Stop::Hang("the waiter neither parked nor ended".into()));
            }
            std::thread::yield_now();
        }
        let thread = match self.thread.take() {
            Some(thread) => thread,
            None => ThreadFile::open(self.shared.tid.load(Ordering::Acquire))?,
        };
        self.parked = Some(once_asleep(&thread, self.patience)?);
        self.thread = Some(thread);
        Ok(Fate::Again)
    }

    /// One look at what became of the parked thread, as [`Waiter::look`].
    pub fn look_by_queue(&mut self, queue: &QueueFile) -> Result<Fate, Stop> {
        let waiters = queue.read()?;
        let (Some(before), Some(thread)) = (self.parked, &self.thread) else {
            return Err(Stop::Broken("looked at a waiter that has not parked".into()));
        };
        if waiters.total == 0 {
            return self.settle_by_queue(queue);
        }
        let now = once_asleep(thread, self.patience)?;
        if now == before {
            return Ok(Fate::Asleep);
        }
        if waiters.pending == 0 {
            return Err(Stop::Broken(format!(
                "fdinfo says that the waiter was not woken ({waiters}), /proc that it ran \
                 ({before:?}, now {now:?})"
            )));
        }
        self.settle_by_queue(queue)
    }
}
