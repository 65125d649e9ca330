//! Several waiters of several contexts, any of whom a step may have woken. The contexts' queues
//! together count all who wait: once they hold as many as have not ended, and all of these sleep,
//! nobody is on the way.

use super::{Fate, Waiter};
use crate::evidence::{QueueFile, Thread, ThreadFile};
use crate::outcome::Stop;
use std::sync::atomic::Ordering;
use std::time::Instant;

impl Waiter {
    /// Waits until each of these threads, all that wait for the contexts behind `queues`, has ended
    /// or sleeps there; what became of each since the last time.
    pub fn settle_all(waiters: &mut [&mut Self], queues: &[&QueueFile]) -> Result<Vec<Fate>, Stop> {
        let Some(patience) = waiters.first().map(|waiter| waiter.patience) else {
            return Ok(Vec::new());
        };
        let deadline = Instant::now() + patience;
        loop {
            if let Some(threads) = at_rest(waiters, queues)? {
                let fates = waiters.iter_mut().zip(threads);
                return Ok(fates.map(|(waiter, thread)| waiter.fate_at_rest(thread)).collect());
            }
            if Instant::now() > deadline {
                return Err(Stop::Hang("the waiters neither sleep in a queue nor end".into()));
            }
            std::thread::yield_now();
        }
    }

    /// What /proc says of the thread, if it sleeps.
    fn asleep(&mut self) -> Option<Thread> {
        if self.thread.is_none() {
            let tid = self.shared.tid.load(Ordering::Acquire);
            // Both fail if the thread has ended meanwhile, which the next look tells.
            self.thread = if tid == 0 { None } else { ThreadFile::open(tid).ok() };
        }
        self.thread.as_ref()?.asleep().ok().flatten()
    }

    fn fate_at_rest(&mut self, thread: Option<Thread>) -> Fate {
        if let Some(access) = self.shared.access.get() {
            return Fate::Ended(*access);
        }
        let before = std::mem::replace(&mut self.parked, thread);
        match (before, thread) {
            (Some(before), Some(now)) if before.runs == now.runs => Fate::Asleep,
            _ => Fate::Again,
        }
    }
}

/// The sleeping threads, or none while one of them is on the way.
fn at_rest(
    waiters: &mut [&mut Waiter],
    queues: &[&QueueFile],
) -> Result<Option<Vec<Option<Thread>>>, Stop> {
    let waiting = |w: &Waiter| w.shared.access.get().is_none();
    let count = waiters.iter().filter(|w| waiting(w)).count();
    let mut total = 0;
    for queue in queues {
        total += queue.read()?.total as usize;
    }
    if total != count {
        return Ok(None);
    }
    let mut threads = Vec::with_capacity(waiters.len());
    for waiter in waiters.iter_mut() {
        let waits = waiting(waiter);
        let thread = if waits { waiter.asleep() } else { None };
        if waits && thread.is_none() {
            return Ok(None);
        }
        threads.push(thread);
    }
    Ok(Some(threads))
}
