//! A thread parked in a fault, and what became of it.
//!
//! Belongs here: starting the thread, proving that it is parked, and telling "asleep" from "woken"
//! from "woken and parked again" by the context's queue and the thread's switch counters. Where
//! the two disagree the case is broken; nothing is ever concluded from time.

use crate::abi::{Range, Uffd};
use crate::evidence::{QueueFile, Thread, ThreadFile};
use crate::memory::tag;
use crate::outcome::Stop;
use crate::point::Waiter as Kind;
use crate::stage::Stage;
use crate::touch::{self, Signal};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use std::fmt;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::{Duration, Instant};

/// How an access ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// It was done; the value seen, for a load.
    Ran(Option<u64>),
    /// It got a signal.
    Signal(Signal),
    /// The system call failed.
    Failed(Errno),
    /// A vCPU left its guest for a reason that the guest does not give.
    Exit(u32),
}

/// What became of the waiter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It waits as it waited before: nobody woke it.
    Asleep,
    /// It was woken, met a missing registered page again, and waits with a new message.
    Again,
    /// It was woken, and its access ended.
    Ended(Access),
}

impl Fate {
    /// Whether it still waits.
    pub const fn waits(self) -> bool {
        matches!(self, Self::Asleep | Self::Again)
    }
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ran(None) => f.write_str("ran"),
            Self::Ran(Some(value)) => write!(f, "ran:{}", content(*value)),
            Self::Signal(signal) => signal.fmt(f),
            Self::Failed(errno) => write!(f, "{errno:?}"),
            Self::Exit(reason) => write!(f, "exit:{reason}"),
        }
    }
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Asleep => f.write_str("asleep"),
            Self::Again => f.write_str("again"),
            Self::Ended(access) => access.fmt(f),
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

/// An access that its caller describes.
pub type Own = Box<dyn Fn() -> Access + Send + Sync>;

/// What the thread and its owner share.
struct Shared {
    kind: Kind,
    address: usize,
    pipe: Option<(OwnedFd, OwnedFd)>,
    /// An access of another kind, in the place of `kind`.
    own: Option<Own>,
    tid: AtomicI32,
    access: OnceLock<Access>,
    done: EventFd,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("kind", &self.kind).finish_non_exhaustive()
    }
}

/// A thread that accesses a page.
#[derive(Debug)]
pub struct Waiter {
    shared: &'static Shared,
    patience: Duration,
    thread: Option<ThreadFile>,
    parked: Option<Thread>,
}

impl Waiter {
    /// Starts a thread that accesses `address` in the way of `kind`, which is not [`Kind::None`].
    /// It lives until the process ends, on a stack that was there before any mapping changes.
    pub fn start(stage: &Stage, kind: Kind, address: usize) -> Result<Self, Stop> {
        Self::start_with(stage, kind, address, None)
    }

    /// Starts a thread that does what its caller describes.
    pub fn start_own(stage: &Stage, own: Own) -> Result<Self, Stop> {
        Self::start_with(stage, Kind::None, 0, Some(own))
    }

    fn start_with(
        stage: &Stage,
        kind: Kind,
        address: usize,
        own: Option<Own>,
    ) -> Result<Self, Stop> {
        let fail = |what: &str, e: Errno| Stop::Broken(format!("{what} for the waiter: {e:?}"));
        let pipe = if kind.in_kernel() {
            let pipe = nix::unistd::pipe().map_err(|e| fail("a pipe", e))?;
            if kind == Kind::SysRead {
                let data = tag::WROTE.to_ne_bytes();
                nix::unistd::write(&pipe.1, &data).map_err(|e| fail("write", e))?;
            }
            Some(pipe)
        } else {
            None
        };
        let done =
            EventFd::from_flags(EfdFlags::EFD_NONBLOCK).map_err(|e| fail("an eventfd", e))?;
        let (tid, access) = (AtomicI32::new(0), OnceLock::new());
        let shared: &'static Shared =
            Box::leak(Box::new(Shared { kind, address, pipe, own, tid, access, done }));
        let stack = stage.take_stack()?;
        spawn(shared, stack).map_err(|e| fail("a thread", e))?;
        Ok(Self { shared, patience: stage.patience, thread: None, parked: None })
    }

    /// Starts a thread that must park in a fault, and proves that it has.
    pub fn park(
        stage: &Stage,
        kind: Kind,
        address: usize,
        uffd: &Uffd,
        queue: &QueueFile,
    ) -> Result<Self, Stop> {
        let mut waiter = Self::start(stage, kind, address)?;
        match waiter.settle(uffd, queue)? {
            Fate::Again => Ok(waiter),
            Fate::Ended(Access::Failed(Errno::EFAULT)) if kind.in_kernel() => Err(Stop::Denied(
                "kernel-mode faults fail with EFAULT on a user-mode-only userfaultfd: needs \
                 CAP_SYS_PTRACE, vm.unprivileged_userfaultfd=1 or access to /dev/userfaultfd"
                    .into(),
            )),
            other => Err(Stop::Broken(format!("the {kind} waiter did not park: {other}"))),
        }
    }

    /// Waits until the thread has either parked with an unread message or ended.
    pub fn settle(&mut self, uffd: &Uffd, queue: &QueueFile) -> Result<Fate, Stop> {
        let deadline = Instant::now() + self.patience;
        let mut fds = [
            PollFd::new(uffd.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.shared.done.as_fd(), PollFlags::POLLIN),
        ];
        let timeout = PollTimeout::try_from(self.patience).unwrap_or(PollTimeout::MAX);
        match poll(&mut fds, timeout) {
            Ok(0) => return Err(Stop::Hang("the waiter neither parked nor ended".into())),
            Ok(_) => {}
            Err(e) => return Err(Stop::Broken(format!("poll: {e:?}"))),
        }
        if let Some(access) = self.shared.access.get() {
            return Ok(Fate::Ended(*access));
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
        off_cpu(&thread, deadline)?;
        let (waiters, state) = (queue.read()?, thread.read()?);
        if waiters.pending == 0 || !state.sleeps() {
            return Err(Stop::Broken(format!("parked waiter: queue {waiters}, thread {state:?}")));
        }
        self.parked = Some(state);
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
        off_cpu(thread, Instant::now() + self.patience)?;
        let now = thread.read()?;
        let ran = now.switches != before.switches || !now.sleeps();
        if !ran {
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

    /// The thread's id, once it has parked or ended.
    pub fn tid(&self) -> i32 {
        self.shared.tid.load(Ordering::Acquire)
    }

    /// What a signal has made of the parked thread, whose message must have been read. It does not leave the queue within the call that
    /// sends the signal, but is runnable by its end: off the CPU without a switch is asleep.
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
            if thread.is_off_cpu().unwrap_or(false)
                && let Ok(now) = thread.read()
                && now.switches == before.switches
                && now.sleeps()
            {
                return Ok(Fate::Asleep);
            }
            if Instant::now() > deadline {
                return Err(Stop::Hang("the signalled waiter neither sleeps nor ends".into()));
            }
            std::thread::yield_now();
        }
    }

    /// What became of the thread once its context is gone and it can't park any more.
    pub fn end(&self) -> Result<Fate, Stop> {
        let mut fds = [PollFd::new(self.shared.done.as_fd(), PollFlags::POLLIN)];
        let timeout = PollTimeout::try_from(self.patience).unwrap_or(PollTimeout::MAX);
        match poll(&mut fds, timeout) {
            Ok(0) => Err(Stop::Hang("the waiter did not end after the last close".into())),
            Ok(_) => self
                .shared
                .access
                .get()
                .map(|access| Fate::Ended(*access))
                .ok_or_else(|| Stop::Broken("the waiter ended without a result".into())),
            Err(e) => Err(Stop::Broken(format!("poll: {e:?}"))),
        }
    }
}

/// Waits until a thread that has queued itself is off the CPU, which its switches then tell.
fn off_cpu(thread: &ThreadFile, deadline: Instant) -> Result<(), Stop> {
    while !thread.is_off_cpu()? {
        if Instant::now() > deadline {
            return Err(Stop::Hang("the waiter queued a message and never slept".into()));
        }
        std::thread::yield_now();
    }
    Ok(())
}

fn spawn(shared: &'static Shared, stack: Range) -> Result<(), Errno> {
    let check = |ret: i32| if ret == 0 { Ok(()) } else { Err(Errno::from_raw(ret)) };
    // SAFETY: the attribute object is initialised before use; nobody else uses the stack, which
    // is never unmapped; `run` gets a pointer to data that lives for ever.
    unsafe {
        let mut attr: libc::pthread_attr_t = std::mem::zeroed();
        check(libc::pthread_attr_init(&raw mut attr))?;
        let base = stack.start as *mut libc::c_void;
        check(libc::pthread_attr_setstack(&raw mut attr, base, stack.len))?;
        let mut thread = 0;
        let argument = std::ptr::from_ref(shared).cast_mut().cast();
        check(libc::pthread_create(&raw mut thread, &raw const attr, run, argument))
    }
}

extern "C" fn run(argument: *mut libc::c_void) -> *mut libc::c_void {
    // SAFETY: `spawn` passes a `&'static Shared`.
    let shared: &'static Shared = unsafe { &*argument.cast::<Shared>() };
    shared.tid.store(nix::unistd::gettid().as_raw(), Ordering::Release);
    let access = access(shared);
    let _ = shared.access.set(access);
    // Can't fail: the counter is far from its end.
    let _ = shared.done.write(1);
    std::ptr::null_mut()
}

fn access(shared: &Shared) -> Access {
    let Shared { kind, address, pipe, own, .. } = shared;
    if let Some(own) = own {
        return own();
    }
    match (kind, pipe) {
        (Kind::UserRead, _) => {
            touch::load(*address).map_or_else(Access::Signal, |v| Access::Ran(Some(v)))
        }
        (Kind::UserWrite, _) => {
            touch::store(*address, tag::WROTE).map_or_else(Access::Signal, |()| Access::Ran(None))
        }
        (Kind::SysRead, Some(pipe)) => {
            // SAFETY: the kernel checks the buffer; it lies in the arena, where Rust keeps nothing.
            let n = unsafe { libc::read(pipe.0.as_raw_fd(), *address as *mut _, 8) };
            if n < 0 { Access::Failed(Errno::last()) } else { Access::Ran(None) }
        }
        (Kind::SysWrite, Some(pipe)) => {
            // SAFETY: as above; the kernel only reads.
            let n = unsafe { libc::write(pipe.1.as_raw_fd(), *address as *const _, 8) };
            if n < 0 {
                return Access::Failed(Errno::last());
            }
            let mut value = [0; 8];
            match nix::unistd::read(&pipe.0, &mut value) {
                Ok(_) => Access::Ran(Some(u64::from_ne_bytes(value))),
                Err(e) => Access::Failed(e),
            }
        }
        (Kind::None | Kind::SysRead | Kind::SysWrite, _) => Access::Ran(None),
    }
}

#[cfg(test)]
mod tests;
