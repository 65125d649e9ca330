//! Several threads parked in faults at once.
//!
//! [`crate::waiter`] tells one thread's fate by a queue that holds nobody else; here the queue's
//! counters say how many wait, and each thread's switch counters whether it is one that slept on.

use crate::abi::Range;
use crate::access::{Access, Accessor};
use crate::evidence::{Queue, QueueFile, Thread, ThreadFile};
use crate::outcome::Stop;
use crate::point::Waiter as Kind;
use crate::stage::Stage;
use crate::waiter::user_mode_only;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use std::os::fd::AsFd;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::{Duration, Instant};

#[derive(Debug)]
struct Shared {
    tid: AtomicI32,
    access: OnceLock<Access>,
    done: EventFd,
}

#[derive(Debug)]
struct Member {
    shared: &'static Shared,
    thread: ThreadFile,
    parked: Thread,
}

/// Threads that have parked in faults, in the order in which they did.
#[derive(Debug)]
pub(crate) struct Crowd {
    members: Vec<Member>,
    patience: Duration,
}

impl Crowd {
    /// Nobody yet.
    pub(crate) fn new(stage: &Stage) -> Self {
        Self { members: Vec::new(), patience: stage.patience }
    }

    /// Starts a thread that accesses `page`, and waits until it sleeps in `queue`.
    pub(crate) fn park(
        &mut self,
        stage: &Stage,
        kind: Kind,
        page: Range,
        queue: &QueueFile,
    ) -> Result<(), Stop> {
        let accessor = Accessor::new(stage, kind, page)?;
        let done = EventFd::from_flags(EfdFlags::EFD_NONBLOCK)
            .map_err(|e| Stop::Broken(format!("an eventfd: {e:?}")))?;
        let shared: &'static Shared =
            Box::leak(Box::new(Shared { tid: AtomicI32::new(0), access: OnceLock::new(), done }));
        let before = queue.read()?.total;
        crate::thread::spawn(stage, move || {
            shared.tid.store(nix::unistd::gettid().as_raw(), Ordering::Release);
            let _ = shared.access.set(accessor.go());
            // Can't fail: the counter is far from its end.
            let _ = shared.done.write(1);
        })?;
        let deadline = Instant::now() + self.patience;
        while queue.read()?.total == before {
            if let Some(access) = shared.access.get() {
                return Err(match access {
                    Access::Failed(nix::errno::Errno::EFAULT) if kind.in_kernel() => {
                        user_mode_only()
                    }
                    other => Stop::Broken(format!("the {kind} waiter did not park: {other}")),
                });
            }
            pause(deadline, "a waiter neither parked nor ended")?;
        }
        let thread = ThreadFile::open(shared.tid.load(Ordering::Acquire))?;
        let parked = loop {
            match thread.asleep()? {
                Some(parked) => break parked,
                None => pause(deadline, "a waiter queued a message and never slept")?,
            }
        };
        self.members.push(Member { shared, thread, parked });
        Ok(())
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.members.len()
    }

    /// Waits until `queue` has come down to `total` by threads that ended, and they have ended.
    pub(crate) fn await_ended(&self, count: usize) -> Result<(), Stop> {
        let mut left = count;
        for member in &self.members {
            if left == 0 {
                return Ok(());
            }
            // Those that sleep are passed over: their counters have not moved.
            if member.shared.access.get().is_none() && Self::sleeps(member)? {
                continue;
            }
            self.await_one(member)?;
            left -= 1;
        }
        if left == 0 {
            return Ok(());
        }
        Err(Stop::Broken(format!("{left} more have left the queue than have run")))
    }

    /// Waits until all have ended.
    pub(crate) fn await_all(&self) -> Result<(), Stop> {
        self.members.iter().try_for_each(|member| self.await_one(member))
    }

    fn await_one(&self, member: &Member) -> Result<(), Stop> {
        let mut fds = [PollFd::new(member.shared.done.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, PollTimeout::try_from(self.patience).unwrap_or(PollTimeout::MAX)) {
            Ok(0) => Err(Stop::Hang("a woken waiter did not end".into())),
            Ok(_) => Ok(()),
            Err(e) => Err(Stop::Broken(format!("poll: {e:?}"))),
        }
    }

    /// Waits until `count` messages are unread and everybody who is in the queue sleeps.
    pub(crate) fn await_again(&self, queue: &QueueFile, count: usize) -> Result<Queue, Stop> {
        let deadline = Instant::now() + self.patience;
        loop {
            let now = queue.read()?;
            if now.pending as usize == count {
                return Ok(now);
            }
            pause(deadline, "those that were woken did not park again")?;
        }
    }

    /// Waits until each has ended, sleeps on, or was woken and has parked again, where all messages of
    /// before were read; each one's word: that of its access, `asleep` or `again`. Those that have
    /// parked again count as parked from then on.
    pub(crate) fn settle(&mut self, queues: &[&QueueFile]) -> Result<Vec<String>, Stop> {
        let deadline = Instant::now() + self.patience;
        loop {
            let fates = self.fates()?;
            let moved = fates.iter().filter(|fate| *fate == "moved").count();
            let mut unread = 0;
            for queue in queues {
                unread += queue.read()?.pending as usize;
            }
            if moved == unread && self.park_moved(&fates)? {
                let again = |fate: String| if fate == "moved" { "again".into() } else { fate };
                return Ok(fates.into_iter().map(again).collect());
            }
            pause(deadline, "a waiter that was woken neither ended nor parked again")?;
        }
    }

    /// Notes the sleep of those that moved; false if one of them does not sleep.
    fn park_moved(&mut self, fates: &[String]) -> Result<bool, Stop> {
        let mut parked = Vec::new();
        for (member, _) in self.members.iter().zip(fates).filter(|(_, fate)| *fate == "moved") {
            // One that has ended meanwhile has no file to read any more.
            match member.thread.asleep() {
                Ok(Some(now)) => parked.push(now),
                Err(stop) if member.shared.access.get().is_none() => return Err(stop),
                _ => return Ok(false),
            }
        }
        let moved = self.members.iter_mut().zip(fates).filter(|(_, fate)| *fate == "moved");
        for ((member, _), now) in moved.zip(parked) {
            member.parked = now;
        }
        Ok(true)
    }

    /// Whether a member is still in the sleep in which it parked.
    fn sleeps(member: &Member) -> Result<bool, Stop> {
        let ended = || member.shared.access.get().is_some();
        match member.thread.asleep() {
            _ if ended() => Ok(false),
            Ok(now) => Ok(now == Some(member.parked)),
            Err(stop) => Err(stop),
        }
    }

    /// What became of each: its access's word, `asleep`, or `moved` if it ran and has not ended.
    pub(crate) fn fates(&self) -> Result<Vec<String>, Stop> {
        let mut fates = Vec::with_capacity(self.members.len());
        for member in &self.members {
            fates.push(match member.shared.access.get() {
                Some(access) => access.to_string(),
                None if Self::sleeps(member)? => "asleep".into(),
                None => "moved".into(),
            });
        }
        Ok(fates)
    }

    /// The fates as one word: `16*ran:copied`, `4*asleep+4*ran`, sorted.
    pub(crate) fn summary(&self) -> Result<String, Stop> {
        Ok(summary(&self.fates()?))
    }
}

/// Counts equal words: `4*asleep+4*ran`.
pub(crate) fn summary(words: &[String]) -> String {
    let mut counts = std::collections::BTreeMap::new();
    for word in words {
        *counts.entry(word).or_insert(0) += 1;
    }
    let parts: Vec<_> = counts.iter().map(|(word, n)| format!("{n}*{word}")).collect();
    parts.join("+")
}

/// Gives others the CPU, until `deadline`, which is only a way out.
pub(crate) fn pause(deadline: Instant, hang: &str) -> Result<(), Stop> {
    if Instant::now() > deadline {
        return Err(Stop::Hang(hang.to_owned()));
    }
    std::thread::yield_now();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_fates_are_counted() {
        let words = ["ran", "asleep", "ran"].map(str::to_owned);
        assert_eq!(summary(&words), "1*asleep+2*ran");
    }
}
