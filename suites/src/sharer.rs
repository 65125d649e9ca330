//! A forked child that only waits: it keeps what fork(2) made shared, shared.

use crate::outcome::Stop;
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;

/// The child; killed when dropped.
#[derive(Debug)]
pub(crate) struct Sharer(Pid);

/// fork(2) of a child that waits until it is killed.
pub(crate) fn fork() -> Result<Pid, Errno> {
    // SAFETY: the child makes no call but pause(2), so no lock of another thread can matter to it.
    let pid = unsafe { libc::fork() };
    match pid {
        -1 => Err(Errno::last()),
        0 => loop {
            // SAFETY: takes nothing, touches nothing; all signals but SIGKILL are blocked.
            unsafe { libc::pause() };
        },
        pid => Ok(Pid::from_raw(pid)),
    }
}

impl Sharer {
    /// Forks.
    pub(crate) fn new() -> Result<Self, Stop> {
        fork().map(Self).map_err(|e| Stop::Broken(format!("fork: {e:?}")))
    }

    /// Takes over a child that another thread has forked.
    pub(crate) const fn of(pid: Pid) -> Self {
        Self(pid)
    }

    /// Its process id, as /proc names it.
    pub(crate) fn process(&self) -> String {
        self.0.to_string()
    }
}

impl Drop for Sharer {
    fn drop(&mut self) {
        // Nothing to be done where these fail: the child dies with the machine at the latest.
        let _ = kill(self.0, Signal::SIGKILL);
        let _ = waitpid(self.0, None);
    }
}
