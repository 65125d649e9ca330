//! The thread that serves faults, in the ways in which programs wait for them.

use super::clock::{spin, stamp};
use super::ground::pin;
use crate::abi::{COPY_MODE_DONTWAKE, Message, Range, Uffd};
use crate::memory::PAGE;
use crate::outcome::Stop;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;

/// How a handler waits for messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    /// By read(2) itself.
    Read,
    /// By poll(2), then read(2) of a non-blocking descriptor.
    Poll,
    /// By epoll_wait(2), the same.
    Epoll,
}

/// When the handler was where, in ticks; of the last fault that it has served.
#[derive(Debug, Default)]
pub(super) struct Moments {
    /// It had the message.
    pub(super) message: AtomicU64,
    /// The page was placed.
    pub(super) placed: AtomicU64,
}

/// What a handler does.
pub(super) struct Duty {
    pub(super) uffd: Arc<Uffd>,
    pub(super) wait: Wait,
    /// Where it copies pages from.
    pub(super) source: usize,
    /// The page whose fault is the last that it serves.
    pub(super) last: usize,
    /// The CPU that it runs on, if that is to be one.
    pub(super) cpu: Option<usize>,
    /// Turns of a loop that it makes before it places a page: a delay of known length.
    pub(super) delay: u64,
    /// Whether it places and wakes in two calls and says when.
    pub(super) moments: Option<Arc<Moments>>,
}

/// A running handler.
#[derive(Debug)]
pub(super) struct Handler(Option<JoinHandle<Result<(), Stop>>>);

impl Handler {
    pub(super) fn start(duty: Duty) -> Result<Self, Stop> {
        let thread = std::thread::Builder::new().spawn(move || duty.serve());
        let thread = thread.map_err(|e| Stop::Broken(format!("a handler's thread: {e}")))?;
        Ok(Self(Some(thread)))
    }

    /// Fails if it has ended already: its userfaultfd is closed then, and faults are no longer its own.
    pub(super) fn check(&mut self) -> Result<(), Stop> {
        if self.0.as_ref().is_some_and(|thread| !thread.is_finished()) {
            return Ok(());
        }
        self.join()?;
        Err(Stop::Broken("a handler ended before its last page".into()))
    }

    /// Waits for its end, which the fault on its last page brings.
    pub(super) fn join(&mut self) -> Result<(), Stop> {
        match self.0.take().map(JoinHandle::join) {
            None => Ok(()),
            Some(Ok(done)) => done,
            Some(Err(_)) => Err(Stop::Broken("a handler panicked".into())),
        }
    }
}

impl Duty {
    fn serve(self) -> Result<(), Stop> {
        if let Some(cpu) = self.cpu {
            pin(cpu)?;
        }
        let broken = |what: &str, e: Errno| Stop::Broken(format!("{what}: {e:?}"));
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(|e| broken("epoll", e))?;
        if self.wait == Wait::Epoll {
            let event = EpollEvent::new(EpollFlags::EPOLLIN, 0);
            epoll.add(self.uffd.as_fd(), event).map_err(|e| broken("epoll_ctl", e))?;
        }
        loop {
            match self.wait {
                Wait::Read => {}
                Wait::Poll => {
                    let fd = PollFd::new(self.uffd.as_fd(), PollFlags::POLLIN);
                    poll(&mut [fd], PollTimeout::NONE).map_err(|e| broken("poll", e))?;
                }
                Wait::Epoll => {
                    let mut events = [EpollEvent::empty()];
                    let n = epoll.wait(&mut events, EpollTimeout::NONE);
                    n.map_err(|e| broken("epoll_wait", e))?;
                }
            }
            match self.uffd.read() {
                Ok(Message::Pagefault { address, .. }) => {
                    let page = Range { start: address & !(PAGE - 1), len: PAGE };
                    self.place(page)?;
                    if page.start == self.last {
                        return Ok(());
                    }
                }
                Ok(message) => event(message),
                Err(Errno::EAGAIN) => {}
                Err(e) => return Err(broken("reading a message", e)),
            }
        }
    }

    #[inline]
    fn place(&self, page: Range) -> Result<(), Stop> {
        spin(self.delay);
        let Some(moments) = &self.moments else {
            return self.copy(page, 0);
        };
        moments.message.store(stamp(), Ordering::Relaxed);
        self.copy(page, COPY_MODE_DONTWAKE)?;
        moments.placed.store(stamp(), Ordering::Release);
        super::ground::must("UFFDIO_WAKE", self.uffd.wake(page))
    }

    /// While an event is on its way COPY fails with EAGAIN, and the page is tried again.
    #[inline]
    fn copy(&self, page: Range, mode: u64) -> Result<(), Stop> {
        loop {
            match self.uffd.copy(page, self.source, mode).0.0 {
                None => return Ok(()),
                Some(Errno::EAGAIN) => std::thread::yield_now(),
                // A thread that wakes for another reason, such as a signal, faults again: its message can be
                // read after the page was placed and before the kernel has looked at the page.
                Some(Errno::EEXIST) => {
                    return super::ground::must("UFFDIO_WAKE", self.uffd.wake(page));
                }
                Some(errno) => return Err(Stop::Broken(format!("UFFDIO_COPY: {errno:?}"))),
            }
        }
    }
}

/// Takes an event for read: of a fork the child's descriptor is closed.
fn event(message: Message) {
    if let Message::Fork { fd } = message
        && let Ok(fd) = i32::try_from(fd)
    {
        // SAFETY: the kernel has just handed out this descriptor; nobody else owns it.
        drop(unsafe { OwnedFd::from_raw_fd(fd) });
    }
}
