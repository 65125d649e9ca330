//! A child that the case talks to, both ways and with descriptors.

use super::{Link, broken, pidfd_of};
use crate::outcome::Stop;
use crate::stage::Stage;
use crate::withheld;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use std::os::fd::{AsFd, OwnedFd};

/// A forked process.
#[derive(Debug)]
pub struct Child {
    pid: Pid,
    pidfd: OwnedFd,
    link: Link,
    ended: bool,
}

impl Child {
    /// Forks a process that runs `job` and exits. It inherits every descriptor.
    pub fn fork(stage: &Stage, job: impl FnOnce(&Link) -> Result<(), Stop>) -> Result<Self, Stop> {
        let (ours, theirs) = Link::pair(stage.patience)?;
        let pid = super::fork(|| {
            ours.leave();
            if let Err(stop) = withheld::or(job(&theirs)) {
                theirs.fail(&stop);
            }
            0
        })?;
        drop(theirs);
        Ok(Self { pid, pidfd: pidfd_of(pid)?, link: ours, ended: false })
    }

    /// Its process id.
    pub fn pid(&self) -> i32 {
        self.pid.as_raw()
    }

    /// The way to talk to it.
    pub const fn link(&self) -> &Link {
        &self.link
    }

    /// Kills it.
    pub fn kill(&self) -> Result<(), Stop> {
        nix::sys::signal::kill(self.pid, Signal::SIGKILL).map_err(|e| broken("kill", e))
    }

    /// Waits until it has ended: `exit:0` or `killed:SIGKILL`.
    pub fn wait(&mut self) -> Result<String, Stop> {
        self.wait_with_core().map(|(end, _)| end)
    }

    /// As [`Child::wait`], with whether it says that it has left a core dump.
    pub fn wait_with_core(&mut self) -> Result<(String, bool), Stop> {
        let mut fds = [PollFd::new(self.pidfd.as_fd(), PollFlags::POLLIN)];
        let patience = PollTimeout::try_from(self.link.patience()).unwrap_or(PollTimeout::MAX);
        match poll(&mut fds, patience) {
            Ok(0) => return Err(Stop::Hang("the other process did not end".into())),
            Ok(_) => {}
            Err(e) => return Err(broken("poll", e)),
        }
        self.ended = true;
        match waitpid(self.pid, None) {
            Ok(WaitStatus::Exited(_, code)) => Ok((format!("exit:{code}"), false)),
            Ok(WaitStatus::Signaled(_, signal, core)) => Ok((format!("killed:{signal}"), core)),
            other => Err(Stop::Broken(format!("waitpid: {other:?}"))),
        }
    }

    /// Waits until it has ended; what went wrong in it goes wrong here.
    pub fn finish(&mut self) -> Result<(), Stop> {
        match self.link.hear()?.as_str() {
            "end" => self.wait().map(drop),
            word => Err(Stop::Broken(format!("heard {word:?} in place of an end"))),
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if !self.ended && self.kill().is_ok() {
            let _ = self.wait();
        }
    }
}
