//! A thread parked in a fault, and what became of it.
//!
//! Belongs here: starting the thread, proving that it is parked, and telling "asleep" from "woken"
//! from "woken and parked again" by the context's queue and the thread's switch counters. Where
//! the two disagree the case is broken; nothing is ever concluded from time.

use crate::abi::{Range, Uffd, Way};
pub use crate::access::Access;
use crate::access::Accessor;
use crate::evidence::{self, QueueFile, Thread, ThreadFile};
use crate::memory::tag;
use crate::outcome::Stop;
use crate::point::Waiter as Kind;
use crate::stage::Stage;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use std::fmt;
use std::os::fd::AsFd;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::{Duration, Instant};

/// What became of the waiter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It waits as it waited before: nobody woke it.
    Asleep,
    /// It was woken, met a missing registered page again, and waits with a new message.
    Again,
    /// It was woken, and its access ended.
    Ended(Access),
    /// It neither waits nor ends: the kernel lets it fault again and again at the same page.
    Spins,
}

impl Fate {
    /// Whether it still waits.
    pub const fn waits(self) -> bool {
        matches!(self, Self::Asleep | Self::Again)
    }
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Asleep => f.write_str("asleep"),
            Self::Again => f.write_str("again"),
            Self::Ended(access) => access.fmt(f),
            Self::Spins => f.write_str("spins"),
        }
    }
}

/// The word for a page's content.
pub fn content(value: u64) -> &'static str {
    match value {
        tag::ZERO => "zero",
        tag::KEPT => "kept",
        tag::COPIED => "copied",
        tag::NEW => "new",
        tag::WROTE => "wrote",
        _ => "other",
    }
}

/// The letter for a page's content in a row of pages.
pub fn letter(value: u64) -> char {
    match content(value) {
        "zero" => '0',
        "other" => 'x',
        word => word.chars().next().unwrap_or('x'),
    }
}

/// What the thread and its owner share.
#[derive(Debug)]
struct Shared {
    tid: AtomicI32,
    access: OnceLock<Access>,
    done: EventFd,
}

/// A thread that accesses a page.
#[derive(Debug)]
pub struct Waiter {
    shared: &'static Shared,
    patience: Duration,
    /// Whether faults in the kernel fail on the userfaultfds that this process may make.
    user_mode_only: bool,
    thread: Option<ThreadFile>,
    parked: Option<Thread>,
}

impl Waiter {
    /// Starts a thread that accesses `page` in the way of `kind`, which is not [`Kind::None`].
    /// It lives until the process ends, on a stack that was there before any mapping changes.
    pub fn start(stage: &Stage, kind: Kind, page: Range) -> Result<Self, Stop> {
        let accessor = Accessor::new(stage, kind, page)?;
        Self::begin(stage, move || accessor.go())
    }

    /// Starts a thread that makes an access of any other kind.
    pub fn begin(
        stage: &Stage,
        access: impl FnOnce() -> Access + Send + 'static,
    ) -> Result<Self, Stop> {
        let done = EventFd::from_flags(EfdFlags::EFD_NONBLOCK)
            .map_err(|e| Stop::Broken(format!("an eventfd for the waiter: {e:?}")))?;
        let shared: &'static Shared =
            Box::leak(Box::new(Shared { tid: AtomicI32::new(0), access: OnceLock::new(), done }));
        crate::thread::spawn(stage, move || {
            shared.tid.store(nix::unistd::gettid().as_raw(), Ordering::Release);
            let _ = shared.access.set(access());
            // Can't fail: the counter is far from its end.
            let _ = shared.done.write(1);
        })?;
        let user_mode_only = stage.way == Ok(Way::UserModeOnly);
        Ok(Self { shared, patience: stage.patience, user_mode_only, thread: None, parked: None })
    }

    /// Starts a thread that must park in a fault, and proves that it has.
    pub fn park(
        stage: &Stage,
        kind: Kind,
        page: Range,
        uffd: &Uffd,
        queue: &QueueFile,
    ) -> Result<Self, Stop> {
        let mut waiter = Self::start(stage, kind, page)?;
        match waiter.settle(uffd, queue)? {
            Fate::Again => Ok(waiter),
            other => Err(unparked(kind, other)),
        }
    }

    /// Starts a thread that must park beside others, whose messages may be unread, and proves that it
    /// has: it is the one more that the queue then counts.
    pub fn park_beside(
        stage: &Stage,
        kind: Kind,
        page: Range,
        queue: &QueueFile,
    ) -> Result<Self, Stop> {
        let before = queue.read()?.total;
        let mut waiter = Self::start(stage, kind, page)?;
        let deadline = Instant::now() + waiter.patience;
        while queue.read()?.total <= before {
            if let Some(access) = waiter.shared.access.get() {
                return Err(unparked(kind, waiter.ended(*access)?));
            }
            if Instant::now() > deadline {
                return Err(Stop::Hang("the waiter neither parked nor ended".into()));
            }
            std::thread::yield_now();
        }
        let thread = ThreadFile::open(waiter.tid())?;
        waiter.parked = Some(once_asleep(&thread, waiter.patience)?);
        waiter.thread = Some(thread);
        Ok(waiter)
    }

    /// The thread's id; 0 if it has not run yet, which a parked one has.
    pub fn tid(&self) -> i32 {
        self.shared.tid.load(Ordering::Acquire)
    }

    /// Waits until the thread has either parked with an unread message or ended, or is seen to do neither.
    pub fn settle(&mut self, uffd: &Uffd, queue: &QueueFile) -> Result<Fate, Stop> {
        let mut fds = [
            PollFd::new(uffd.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.shared.done.as_fd(), PollFlags::POLLIN),
        ];
        if self.spins_before(&mut fds, "the waiter neither parked nor ended")? {
            return Ok(Fate::Spins);
        }
        if let Some(access) = self.shared.access.get() {
            return self.ended(*access);
        }
        let ready = fds[0].revents().unwrap_or(PollFlags::empty());
        if !ready.contains(PollFlags::POLLIN) {
            return Err(Stop::Broken(format!("poll says {ready:?} of the userfaultfd")));
        }
        // The message is queued before the thread is off the CPU.
        let thread = match self.thread.take() {
            Some(thread) => thread,
            None => ThreadFile::open(self.shared.tid.load(Ordering::Acquire))?,
        };
        let now = once_asleep(&thread, self.patience)?;
        let waiters = queue.read()?;
        if waiters.pending == 0 {
            return Err(Stop::Broken(format!("parked waiter: queue {waiters}, thread {now:?}")));
        }
        self.parked = Some(now);
        self.thread = Some(thread);
        Ok(Fate::Again)
    }

    /// One look at what became of the parked thread. Only if it was woken is it waited for, until
    /// it has ended or parked again.
    pub fn look(&mut self, uffd: &Uffd, queue: &QueueFile) -> Result<Fate, Stop> {
        let waiters = queue.read()?;
        if waiters.total == 0 {
            return self.settle(uffd, queue);
        }
        let (Some(before), Some(thread)) = (self.parked, &self.thread) else {
            return Err(Stop::Broken("looked at a waiter that has not parked".into()));
        };
        // One that was woken and has queued itself again need not have been switched away yet.
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
        self.settle(uffd, queue)
    }

    /// What a signal has made of the parked thread, whose message must have been read. It does not
    /// leave the queue within the call that sends the signal, but is runnable by its end: off the CPU without a switch is asleep.
    pub fn look_after_signal(&self, queue: &QueueFile) -> Result<Fate, Stop> {
        let (Some(before), Some(thread)) = (self.parked, &self.thread) else {
            return Err(Stop::Broken("looked at a waiter that has not parked".into()));
        };
        let deadline = Instant::now() + self.patience;
        loop {
            if self.shared.access.get().is_some() {
                return self.end();
            }
            // One that can't return faults again and again while the signal is pending.
            if queue.read()?.pending > 0 {
                return Ok(Fate::Again);
            }
            // Reading fails if the thread has ended meanwhile.
            if thread.asleep() == Ok(Some(before)) {
                return Ok(Fate::Asleep);
            }
            if Instant::now() > deadline {
                return Err(Stop::Hang("the signalled waiter neither sleeps nor ends".into()));
            }
            std::thread::yield_now();
        }
    }

    /// One look at the parked thread alone, where no descriptor is left to look at its queue through. A
    /// wake-up makes a thread runnable inside the waking call: one that sleeps and was never switched
    /// was not woken.
    pub fn look_alone(&self) -> Result<Fate, Stop> {
        let (Some(before), Some(thread)) = (self.parked, &self.thread) else {
            return Err(Stop::Broken("looked at a waiter that has not parked".into()));
        };
        // Reading fails if the thread has ended meanwhile.
        if self.shared.access.get().is_none() && thread.asleep() == Ok(Some(before)) {
            return Ok(Fate::Asleep);
        }
        self.end()
    }

    /// The thread's access has ended. One that never parked, because it faulted in the kernel where the
    /// userfaultfd is for user mode only, says nothing of what is asked: mlock(2) calls that ENOMEM.
    fn ended(&self, access: Access) -> Result<Fate, Stop> {
        match access {
            Access::Failed(Errno::EFAULT | Errno::ENOMEM)
                if self.user_mode_only && self.parked.is_none() =>
            {
                Err(user_mode_only())
            }
            _ => Ok(Fate::Ended(access)),
        }
    }

    /// What became of the thread once its context is gone and it can't park any more.
    pub fn end(&self) -> Result<Fate, Stop> {
        let mut fds = [PollFd::new(self.shared.done.as_fd(), PollFlags::POLLIN)];
        if self.spins_before(&mut fds, "the waiter did not end after the last close")? {
            return Ok(Fate::Spins);
        }
        match self.shared.access.get() {
            Some(access) => self.ended(*access),
            None => Err(Stop::Broken("the waiter ended without a result".into())),
        }
    }

    /// Waits until one of `fds` is ready (false), or the thread is seen to fault for ever (true); `hang` says
    /// what has not come within the case's patience.
    fn spins_before(&self, fds: &mut [PollFd<'_>], hang: &str) -> Result<bool, Stop> {
        let mut left = self.patience;
        loop {
            match poll(fds, PollTimeout::from(SLICE)) {
                Ok(0) => {}
                Ok(_) => return Ok(false),
                Err(e) => return Err(Stop::Broken(format!("poll: {e:?}"))),
            }
            // Reading fails if the thread has ended meanwhile.
            let faults = evidence::minor_faults(self.tid());
            if self.tid() != 0 && faults.is_ok_and(|faults| faults >= FOR_EVER) {
                return Ok(true);
            }
            left = left
                .checked_sub(Duration::from_millis(SLICE.into()))
                .ok_or_else(|| Stop::Hang(hang.into()))?;
        }
    }
}

/// Faults that no access of a few pages needs.
const FOR_EVER: u64 = 20_000;

/// How long a thread is waited for before it is asked whether it goes round in circles, in milliseconds.
const SLICE: u8 = 100;

/// What it takes that faults in the kernel reach a userfaultfd.
pub(crate) fn user_mode_only() -> Stop {
    Stop::Denied(
        "kernel-mode faults fail with EFAULT on a user-mode-only userfaultfd: needs CAP_SYS_PTRACE, \
         vm.unprivileged_userfaultfd=1 or access to /dev/userfaultfd"
            .into(),
    )
}

/// Why a waiter that should have parked has not.
fn unparked(kind: Kind, fate: Fate) -> Stop {
    match fate {
        Fate::Ended(Access::Failed(Errno::EINVAL))
            if matches!(kind, Kind::PopulateRead | Kind::PopulateWrite) =>
        {
            Stop::Unsupported("madvise(MADV_POPULATE_*): EINVAL (5.14 brought it)".into())
        }
        other => Stop::Broken(format!("the {kind} waiter did not park: {other}")),
    }
}

/// Waits until a thread that has queued itself is off the CPU; one that was woken and has queued itself
/// again need not be yet.
fn once_asleep(thread: &ThreadFile, patience: Duration) -> Result<Thread, Stop> {
    if let Some(asleep) = thread.asleep()? {
        return Ok(asleep);
    }
    // Most cases never need the time, which a new process faults in two pages for.
    let deadline = Instant::now() + patience;
    loop {
        if Instant::now() > deadline {
            return Err(Stop::Hang("the waiter queued a message and never slept".into()));
        }
        std::thread::yield_now();
        if let Some(asleep) = thread.asleep()? {
            return Ok(asleep);
        }
    }
}

mod among;
mod beside;

#[cfg(test)]
mod tests;
