//! An ioctl that is stopped in the kernel: a page that it needs from user space is missing, or
//! protected, and belongs to a second userfaultfd. So its thread parks in the middle of the ioctl.

use crate::abi::{Message, Range, Rc, Uffd};
use crate::evidence::QueueFile;
use crate::memory::{PAGE, RW, SPARE, map};
use crate::outcome::Stop;
use crate::stage::Stage;
use crate::waiter::{Access, Fate, Waiter};

/// Where the page stands that the ioctl is stopped at.
pub(super) const GATE: Range = Range { start: SPARE + (64 << 20), len: PAGE };
/// Where a page with the content for it is prepared.
pub(super) const STOCK: Range = Range { start: SPARE + (80 << 20), len: PAGE };

/// The gate: a page of private anonymous memory and the userfaultfd that it belongs to.
#[derive(Debug)]
pub(super) struct Gate {
    /// The second userfaultfd.
    pub(super) uffd: Uffd,
    queue: QueueFile,
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
        let mut thread = Waiter::begin(stage, move || match call().0 {
            None => Access::Ran(None),
            Some(errno) => Access::Failed(errno),
        })?;
        match thread.settle(&self.uffd, &self.queue)? {
            Fate::Again => {}
            Fate::Ended(Access::Failed(nix::errno::Errno::EFAULT)) => {
                return Err(Stop::Denied(
                    "kernel-mode faults fail with EFAULT on a user-mode-only userfaultfd".into(),
                ));
            }
            other => return Err(Stop::Broken(format!("the ioctl did not stop: {other}"))),
        }
        match self.uffd.read() {
            Ok(Message::Pagefault { address, .. }) if address & !(PAGE - 1) == GATE.start => {}
            other => return Err(Stop::Broken(format!("the ioctl's fault: {other:?}"))),
        }
        Ok(Stopped { thread })
    }
}

/// A thread in the middle of an ioctl.
#[derive(Debug)]
pub(super) struct Stopped {
    thread: Waiter,
}

impl Stopped {
    /// Waits until the ioctl has returned: `0` or the errno.
    pub(super) fn end(&self) -> Result<String, Stop> {
        match self.thread.end()? {
            Fate::Ended(Access::Failed(errno)) => Ok(format!("{errno:?}")),
            Fate::Ended(Access::Ran(None)) => Ok("0".to_owned()),
            other => Err(Stop::Broken(format!("the ioctl ended with {other}"))),
        }
    }
}
