//! A thread that makes a change which raises an event, and so waits until the event is read.

use crate::abi::{Message, Range, Rc, Uffd};
use crate::evidence::ThreadFile;
use crate::outcome::Stop;
use crate::stage::Stage;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use std::os::fd::AsFd;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::{Duration, Instant};

#[derive(Debug)]
struct Shared {
    tid: AtomicI32,
    rc: OnceLock<Rc>,
    done: EventFd,
}

/// The thread.
#[derive(Debug)]
pub struct Mover {
    shared: &'static Shared,
    patience: Duration,
}

/// The word for what was read.
pub fn word(message: Result<Message, Errno>) -> String {
    match message {
        Ok(message) => crate::abi::event_name(message.number()),
        Err(errno) => format!("{errno:?}"),
    }
}

/// Stops outside of a VM of ours, where what follows may never leave the kernel: that uses up the CPU time of a
/// cgroup that has a limit, and nothing else of the group runs any more. Seen on 6.18.44, where a thread may be
/// throttled only when it returns to user mode; other kernels were not asked.
pub fn may_spin(stage: &Stage) -> Result<(), Stop> {
    if stage.disposable {
        return Ok(());
    }
    let why = "some kernels never return from it, which starves a group whose CPU time is limited: only asked in a VM";
    Err(Stop::Precondition(why.into()))
}

impl Mover {
    /// Starts a thread that makes `call`, a system call that may raise an event.
    pub fn start(stage: &Stage, call: impl FnOnce() -> Rc + Send + 'static) -> Result<Self, Stop> {
        let done = EventFd::from_flags(EfdFlags::EFD_NONBLOCK)
            .map_err(|e| Stop::Broken(format!("an eventfd: {e:?}")))?;
        let shared: &'static Shared =
            Box::leak(Box::new(Shared { tid: AtomicI32::new(0), rc: OnceLock::new(), done }));
        crate::thread::spawn(stage, move || {
            shared.tid.store(nix::unistd::gettid().as_raw(), Ordering::Release);
            let _ = shared.rc.set(call());
            let _ = shared.done.write(1);
        })?;
        Ok(Self { shared, patience: stage.patience })
    }

    /// Starts a thread that calls `madvise(MADV_DONTNEED)` on `range`, which lies in the arena.
    pub fn discard(stage: &Stage, range: Range) -> Result<Self, Stop> {
        crate::memory::guard(range);
        Self::start(stage, move || crate::memory::dontneed(range))
    }

    /// The thread's id; 0 if it has not run yet, which one that blocks on an event has.
    pub fn tid(&self) -> i32 {
        self.shared.tid.load(Ordering::Acquire)
    }

    /// What /proc says of the thread, once it has run.
    pub fn file(&self) -> Result<ThreadFile, Stop> {
        let deadline = Instant::now() + self.patience;
        while self.tid() == 0 {
            if Instant::now() > deadline {
                return Err(Stop::Hang("the thread never ran".into()));
            }
            std::thread::yield_now();
        }
        ThreadFile::open(self.tid())
    }

    /// Waits until the thread sleeps in one of the system calls `numbers`.
    pub fn sleeps_in(&self, thread: &ThreadFile, numbers: &[i64]) -> Result<(), Stop> {
        let deadline = Instant::now() + self.patience;
        while !thread.call()?.is_some_and(|number| numbers.contains(&number))
            || !thread.read()?.asleep
        {
            if Instant::now() > deadline {
                return Err(Stop::Hang("the thread never slept in its call".into()));
            }
            std::thread::yield_now();
        }
        Ok(())
    }

    /// Waits until the call has returned (`None`), or a message can be read from one of `uffds`.
    fn wait(&self, uffds: &[&Uffd]) -> Result<Option<usize>, Stop> {
        let mut fds = vec![PollFd::new(self.shared.done.as_fd(), PollFlags::POLLIN)];
        fds.extend(uffds.iter().map(|uffd| PollFd::new(uffd.as_fd(), PollFlags::POLLIN)));
        match poll(&mut fds, PollTimeout::try_from(self.patience).unwrap_or(PollTimeout::MAX)) {
            Ok(0) => Err(Stop::Hang("the call neither returned nor raised an event".into())),
            Ok(_) if self.shared.rc.get().is_some() => Ok(None),
            Ok(_) => Ok(fds[1..].iter().position(|fd| fd.any().unwrap_or(false))),
            Err(e) => Err(Stop::Broken(format!("poll: {e:?}"))),
        }
    }

    /// Waits until the call has raised an event, and so waits for it to be read (true), or has
    /// returned without one (false).
    pub fn blocks_on_event(&self, uffd: &Uffd) -> Result<bool, Stop> {
        Ok(self.wait(&[uffd])?.is_some())
    }

    /// As [`Mover::blocks_on_event`], of an event of any of several contexts: which of them.
    pub fn blocks_on_one_of(&self, uffds: &[&Uffd]) -> Result<Option<usize>, Stop> {
        self.wait(uffds)
    }

    /// Waits until the call has returned (false), or has used `ticks` of CPU time in the kernel without
    /// returning (true): it goes round in circles there, for a call that can't take so long.
    pub fn spins(&self, ticks: u64) -> Result<bool, Stop> {
        let deadline = Instant::now() + self.patience;
        while Instant::now() < deadline {
            if self.shared.rc.get().is_some() {
                return Ok(false);
            }
            // Reading fails if the thread has ended meanwhile.
            let used = crate::evidence::system_time(self.tid());
            if self.tid() != 0 && used.is_ok_and(|used| used >= ticks) {
                return Ok(true);
            }
            std::thread::yield_now();
        }
        Err(Stop::Hang("the call neither returned nor used CPU time".into()))
    }

    /// Waits until the call has returned; its return value.
    pub fn join(&self) -> Result<Rc, Stop> {
        self.wait(&[])?;
        let rc = self.shared.rc.get();
        rc.copied().ok_or_else(|| Stop::Broken("the call ended without a result".into()))
    }
}

impl Mover {
    /// Whether the call has returned; does not wait.
    pub fn returned(&self) -> bool {
        self.shared.rc.get().is_some()
    }
}
