//! A thread that makes a change which raises an event, and so waits until the event is read.

use crate::abi::{Message, Range, Rc, Uffd};
use crate::outcome::Stop;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use std::os::fd::AsFd;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// The thread.
#[derive(Debug)]
pub struct Mover {
    shared: Arc<(EventFd, OnceLock<Rc>)>,
    patience: Duration,
}

/// The word for what was read.
pub fn word(message: Result<Message, Errno>) -> String {
    match message {
        Ok(Message::Pagefault { .. }) => "pagefault".into(),
        Ok(Message::Other(number)) => crate::abi::event_name(number),
        Err(errno) => format!("{errno:?}"),
    }
}

impl Mover {
    /// Starts a thread that calls `madvise(MADV_DONTNEED)` on `range`, which lies in the arena.
    pub fn discard(range: Range, patience: Duration) -> Result<Self, Stop> {
        crate::memory::guard(range);
        let done = EventFd::from_flags(EfdFlags::EFD_NONBLOCK)
            .map_err(|e| Stop::Broken(format!("an eventfd: {e:?}")))?;
        let shared = Arc::new((done, OnceLock::new()));
        let theirs = Arc::clone(&shared);
        std::thread::Builder::new()
            .spawn(move || {
                let rc = crate::memory::dontneed(range);
                let _ = theirs.1.set(rc);
                let _ = theirs.0.write(1);
            })
            .map_err(|e| Stop::Broken(format!("a thread: {e}")))?;
        Ok(Self { shared, patience })
    }

    fn wait(&self, uffd: Option<&Uffd>) -> Result<bool, Stop> {
        let mut fds = vec![PollFd::new(self.shared.0.as_fd(), PollFlags::POLLIN)];
        fds.extend(uffd.map(|uffd| PollFd::new(uffd.as_fd(), PollFlags::POLLIN)));
        match poll(&mut fds, PollTimeout::try_from(self.patience).unwrap_or(PollTimeout::MAX)) {
            Ok(0) => Err(Stop::Hang("the call neither returned nor raised an event".into())),
            Ok(_) => Ok(self.shared.1.get().is_some()),
            Err(e) => Err(Stop::Broken(format!("poll: {e:?}"))),
        }
    }

    /// Waits until the call has raised an event, and so waits for it to be read (true), or has
    /// returned without one (false).
    pub fn blocks_on_event(&self, uffd: &Uffd) -> Result<bool, Stop> {
        Ok(!self.wait(Some(uffd))?)
    }

    /// Waits until the call has returned; its return value.
    pub fn join(&self) -> Result<Rc, Stop> {
        self.wait(None)?;
        let rc = self.shared.1.get();
        rc.copied().ok_or_else(|| Stop::Broken("the call ended without a result".into()))
    }
}
