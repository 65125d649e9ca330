//! Child processes that are what a case is about: made by a thread that may block on the fork's
//! event, sharing the case's descriptors, so that what the child opens is at hand in the case, or
//! idle, so that pages stay shared. They say one word, or none.

use crate::abi::Rc;
use crate::mover::Mover;
use crate::outcome::Stop;
use crate::stage::Stage;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

/// A child process that says one word and ends, or only waits.
#[derive(Debug)]
pub struct Offspring {
    pid: &'static AtomicI32,
    words: OwnedFd,
    patience: Duration,
    /// Whether it only waits, so that whoever drops this ends it.
    idle: bool,
}

/// A pipe's two ends: read, write.
type Pipe = (OwnedFd, OwnedFd);

fn pipe() -> Result<Pipe, Stop> {
    nix::unistd::pipe().map_err(|e| Stop::Broken(format!("a pipe: {e:?}")))
}

impl Offspring {
    /// Starts a thread that forks. The child runs `life` on a copy of that thread, says its word and
    /// ends; it must not wait for anything that does not come when the case dies.
    pub fn fork(
        stage: &Stage,
        life: impl FnOnce() -> String + Send + 'static,
    ) -> Result<(Mover, Self), Stop> {
        Self::fork_with(stage, 0, life)
    }

    /// As [`Offspring::fork`], with flags of clone(2), such as `CLONE_FILES`.
    pub fn fork_with(
        stage: &Stage,
        flags: i32,
        life: impl FnOnce() -> String + Send + 'static,
    ) -> Result<(Mover, Self), Stop> {
        let pid: &'static AtomicI32 = Box::leak(Box::new(AtomicI32::new(0)));
        let (words, pen) = pipe()?;
        let call = move || {
            let rc = clone(flags, life, &pen);
            // The child may share the table of descriptors: its pen must not close with this thread.
            std::mem::forget(pen);
            rc.map_or_else(
                |e| Rc(Some(e)),
                |child| {
                    pid.store(child, Ordering::Release);
                    Rc::OK
                },
            )
        };
        let mover = Mover::start(stage, call)?;
        Ok((mover, Self { pid, words, patience: stage.patience, idle: false }))
    }

    /// As [`Offspring::fork`], of a child that waits until this is dropped.
    pub fn fork_idle(stage: &Stage) -> Result<(Mover, Self), Stop> {
        let case = Pid::this();
        let (mover, mut child) = Self::fork(stage, move || idle_beside(case))?;
        child.idle = true;
        Ok((mover, child))
    }

    /// Makes, from the case's first thread, a child that shares the table of descriptors. It dies
    /// with the case.
    pub fn sharing_files(stage: &Stage, life: impl FnOnce() -> String) -> Result<Self, Stop> {
        Self::bound(stage, libc::CLONE_FILES, life)
    }

    /// Forks from the case's first thread, with no event to wait for. The child dies with the case.
    pub fn here(stage: &Stage, life: impl FnOnce() -> String) -> Result<Self, Stop> {
        Self::bound(stage, 0, life)
    }

    /// As [`Offspring::here`], of a child that only waits: it keeps what fork(2) made shared, shared,
    /// until this is dropped.
    pub fn idle(stage: &Stage) -> Result<Self, Stop> {
        let mut child = Self::here(stage, idle)?;
        child.idle = true;
        Ok(child)
    }

    fn bound(stage: &Stage, flags: i32, life: impl FnOnce() -> String) -> Result<Self, Stop> {
        let pid: &'static AtomicI32 = Box::leak(Box::new(AtomicI32::new(0)));
        let (words, pen) = pipe()?;
        let parent = Pid::this();
        let bound = || {
            super::die_with(parent);
            life()
        };
        let child = clone(flags, bound, &pen)
            .map_err(|e| Stop::Broken(format!("clone with flags {flags:#x}: {e:?}")))?;
        pid.store(child, Ordering::Release);
        std::mem::forget(pen);
        Ok(Self { pid, words, patience: stage.patience, idle: false })
    }

    /// The child's id; 0 before it was made.
    pub fn pid(&self) -> i32 {
        self.pid.load(Ordering::Acquire)
    }

    /// Waits for the child's word.
    pub fn word(&self) -> Result<String, Stop> {
        let mut fds = [PollFd::new(self.words.as_fd(), PollFlags::POLLIN)];
        let timeout = PollTimeout::try_from(self.patience).unwrap_or(PollTimeout::MAX);
        match poll(&mut fds, timeout) {
            Ok(0) => return Err(Stop::Hang("the child process said nothing".into())),
            Ok(_) => {}
            Err(e) => return Err(Stop::Broken(format!("poll: {e:?}"))),
        }
        let mut text = [0; 256];
        let n = nix::unistd::read(&self.words, &mut text)
            .map_err(|e| Stop::Broken(format!("reading the child's word: {e:?}")))?;
        Ok(String::from_utf8_lossy(&text[..n]).into_owned())
    }

    /// Kills the child with SIGKILL.
    pub fn kill(&self) -> Rc {
        Rc(nix::sys::signal::kill(Pid::from_raw(self.pid()), Signal::SIGKILL).err())
    }

    /// Waits for the child's end: `exit:0`, `SIGKILL`.
    pub fn end(&self) -> Result<String, Stop> {
        match waitpid(Pid::from_raw(self.pid()), None) {
            Ok(WaitStatus::Exited(_, code)) => Ok(format!("exit:{code}")),
            Ok(WaitStatus::Signaled(_, signal, _)) => Ok(signal.as_str().to_owned()),
            other => Err(Stop::Broken(format!("waitpid: {other:?}"))),
        }
    }
}

impl Drop for Offspring {
    fn drop(&mut self) {
        // Nothing to be done where these fail: the child dies with the machine at the latest.
        if self.idle && self.pid() != 0 {
            let _ = self.kill();
            let _ = self.end();
        }
    }
}

/// The life of a child that only waits.
fn idle() -> String {
    loop {
        // SAFETY: takes nothing, touches nothing; all signals but SIGKILL and faults' are blocked.
        unsafe { libc::pause() };
    }
}

/// The same of a child that no signal of its parent's reaches, since a thread that has ended forked it. The
/// parent may be gone before the child runs at all.
pub(super) fn idle_beside(parent: Pid) -> String {
    let pidfd = super::pidfd_of(parent);
    // As long as it is the parent, nobody else can have had its number.
    while Pid::parent() == parent {
        let Ok(pidfd) = &pidfd else { return idle() };
        let mut fds = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
        let _ = poll(&mut fds, PollTimeout::NONE);
    }
    String::new()
}

/// A child that runs `life` and writes its word to `pen`.
fn clone(flags: i32, life: impl FnOnce() -> String, pen: &OwnedFd) -> Result<i32, Errno> {
    let child = super::fork_with(flags, || {
        let word = life();
        let _ = nix::unistd::write(pen, word.as_bytes());
        0
    })?;
    Ok(child.as_raw())
}

/// clone3(2) of a child whose id no process can have: the kernel copies the memory first, and refuses then.
pub fn refused() -> Rc {
    // SAFETY: a row of zeros asks for nothing.
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    let id = i32::MAX;
    arguments.exit_signal = libc::SIGCHLD as u64;
    arguments.set_tid = &raw const id as u64;
    arguments.set_tid_size = 1;
    // SAFETY: both structs outlive the call. A child, which there can't be, would be a copy of this
    // thread; it ends at once.
    unsafe {
        let size = size_of::<libc::clone_args>();
        let ret = libc::syscall(libc::SYS_clone3, &raw const arguments, size);
        if ret == 0 {
            libc::_exit(0);
        }
        Rc::of(ret)
    }
}
