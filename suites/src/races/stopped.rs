//! An ioctl that is stopped in the kernel: a page that it needs from user space is missing, or
//! protected, and belongs to a second userfaultfd. So its thread parks in the middle of the ioctl.

use crate::abi::{Field, Message, Range, Rc, SENTINEL, Uffd};
use crate::evidence::QueueFile;
use crate::memory::{PAGE, RW, SPARE, map};
use crate::outcome::Stop;
use crate::stage::Stage;
use crate::waiter::{Access, Fate, Waiter};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::{AtomicI64, Ordering};

/// Where the page stands that the ioctl is stopped at.
pub(super) const GATE: Range = Range { start: SPARE + (64 << 20), len: PAGE };
/// Where a page with the content for it is prepared.
pub(super) const STOCK: Range = Range { start: SPARE + (80 << 20), len: PAGE };

/// The gate: a page of private anonymous memory and the userfaultfd that it belongs to.
#[derive(Debug)]
pub(super) struct Gate {
    /// The second userfaultfd.
    pub(super) uffd: Uffd,
    pub(super) queue: QueueFile,
}

/// Maps a page of private anonymous memory.
pub(super) fn map_page(at: Range) -> Result<(), Stop> {
    let rc = map(at, RW, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, None, 0);
    if rc.is_ok() { Ok(()) } else { Err(Stop::Broken(format!("mapping a page: {rc}"))) }
}

/// Writes words to a page of the arena.
pub(super) fn write_words(at: Range, words: [u64; 5]) -> Result<(), Stop> {
    for (n, word) in words.into_iter().enumerate() {
        crate::touch::store(at.start + 8 * n, word)
            .map_err(|signal| Stop::Broken(format!("writing an ioctl's struct: {signal}")))?;
    }
    Ok(())
}

impl Gate {
    /// Registers the page at [`GATE`], which is mapped, for `mode`.
    pub(super) fn shut(stage: &Stage, mode: u64) -> Result<Self, Stop> {
        let uffd = stage.uffd(0)?;
        uffd.register(GATE, mode)
            .map_err(|e| Stop::Unsupported(format!("REGISTER of a page for mode {mode}: {e:?}")))?;
        let queue = QueueFile::open(&uffd)?;
        Ok(Self { uffd, queue })
    }

    /// Starts a thread that makes `call` and proves that it has parked at the gate; its message is
    /// read.
    pub(super) fn stop(
        &self,
        stage: &Stage,
        call: impl FnOnce() -> Rc + Send + 'static,
    ) -> Result<Stopped, Stop> {
        Stopped::at(stage, GATE.start, (&self.uffd, &self.queue), call)
    }
}

/// A thread in the middle of an ioctl.
#[derive(Debug)]
pub(super) struct Stopped {
    thread: Waiter,
}

impl Stopped {
    /// Starts a thread that makes `call` and proves that it has parked on `page`, which belongs to
    /// the given context; its message is read, and there must be no other.
    pub(super) fn at(
        stage: &Stage,
        page: usize,
        (uffd, queue): (&Uffd, &QueueFile),
        call: impl FnOnce() -> Rc + Send + 'static,
    ) -> Result<Self, Stop> {
        let mut thread = Waiter::begin(stage, move || match call().0 {
            None => Access::Ran(None),
            Some(errno) => Access::Failed(errno),
        })?;
        match thread.settle(uffd, queue)? {
            Fate::Again => {}
            other => return Err(Stop::Broken(format!("the ioctl did not stop: {other}"))),
        }
        match uffd.read() {
            Ok(Message::Pagefault { address, .. }) if address & !(PAGE - 1) == page => {}
            other => return Err(Stop::Broken(format!("the ioctl's fault: {other:?}"))),
        }
        Ok(Self { thread })
    }

    /// The thread, to be looked at.
    pub(super) const fn thread(&mut self) -> &mut Waiter {
        &mut self.thread
    }

    /// Waits until the ioctl has returned: `0` or the errno.
    pub(super) fn end(&self) -> Result<String, Stop> {
        Ok(word(self.thread.end()?))
    }
}

/// What became of an ioctl's thread: `0`, the errno, or that it waits.
pub(super) fn word(fate: Fate) -> String {
    match fate {
        Fate::Ended(Access::Ran(None)) => "0".to_owned(),
        other => other.to_string(),
    }
}

/// A thread in the middle of a COPY.
#[derive(Debug)]
pub(super) struct Copying {
    /// Its thread.
    pub(super) stopped: Stopped,
    field: &'static AtomicI64,
}

impl Copying {
    /// Starts a thread that copies `from` to `to` through `uffd`, and proves that it has parked on
    /// `page` of the context `source`; its message is read.
    pub(super) fn start(
        stage: &Stage,
        (page, source): (usize, (&Uffd, &QueueFile)),
        uffd: &'static Uffd,
        (to, from): (Range, usize),
    ) -> Result<Self, Stop> {
        let field: &'static AtomicI64 = Box::leak(Box::new(AtomicI64::new(SENTINEL)));
        let stopped = Stopped::at(stage, page, source, move || {
            let _ = crate::process::unblock();
            let (rc, done) = uffd.copy(to, from, 0);
            field.store(done.0, Ordering::Release);
            rc
        })?;
        Ok(Self { stopped, field })
    }

    /// Waits until it has returned; its result and its result field.
    pub(super) fn end(&self) -> Result<(String, Field), Stop> {
        let rc = self.stopped.end()?;
        Ok((rc, Field(self.field.load(Ordering::Acquire))))
    }
}

/// A descriptor that lives as long as the case, for a thread that nobody joins.
pub(super) fn leak(uffd: &Uffd) -> Result<&'static Uffd, Stop> {
    let twin = uffd.duplicate().map_err(|e| Stop::Broken(format!("dup: {e:?}")))?;
    Ok(Box::leak(Box::new(twin)))
}

/// Closes what [`leak`] has made.
pub(super) fn shut(uffd: &'static Uffd) -> Rc {
    Rc(nix::unistd::close(uffd.as_fd().as_raw_fd()).err())
}
