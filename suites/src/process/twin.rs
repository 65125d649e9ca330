//! A process that shares the case's memory.

use super::{broken, die_with};
use crate::outcome::Stop;
use crate::stage::Stage;
use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;

/// A process that shares this one's memory (CLONE_VM) and nothing else, on a stack of the stage's.
#[derive(Debug)]
pub struct Twin(Pid, bool);

/// What a twin does: true makes exit code 0.
type Job = Box<dyn FnOnce() -> bool + Send>;

extern "C" fn be_twin(job: *mut libc::c_void) -> i32 {
    // SAFETY: `Twin::start` passes a box of this type that it has given up.
    let job = unsafe { Box::from_raw(job.cast::<Job>()) };
    i32::from(!job())
}

impl Twin {
    /// Starts one that runs `job`, which may only touch memory: it shares everything that the C
    /// library keeps for the calling thread.
    pub fn start(stage: &Stage, job: impl FnOnce() -> bool + Send + 'static) -> Result<Self, Stop> {
        let stack = stage.take_stack()?;
        let parent = Pid::this();
        let bound = move || {
            die_with(parent);
            job()
        };
        let job: Box<Job> = Box::new(Box::new(bound));
        // SAFETY: nobody else uses the stack, which is never unmapped; `be_twin` gets the only pointer
        // to the job and ends with the process.
        let ret = unsafe {
            let top = stack.end() as *mut libc::c_void;
            let flags = libc::CLONE_VM | libc::SIGCHLD;
            libc::clone(be_twin, top, flags, Box::into_raw(job).cast())
        };
        Errno::result(ret)
            .map(|pid| Self(Pid::from_raw(pid), false))
            .map_err(|e| broken("clone", e))
    }

    /// Its process id.
    pub fn pid(&self) -> i32 {
        self.0.as_raw()
    }

    /// Waits until something holds.
    pub fn wait_until(
        &self,
        stage: &Stage,
        holds: impl Fn() -> Result<bool, Stop>,
    ) -> Result<(), Stop> {
        let deadline = std::time::Instant::now() + stage.patience;
        while !holds()? {
            if std::time::Instant::now() > deadline {
                return Err(Stop::Hang("the other process did not come so far".into()));
            }
            std::thread::yield_now();
        }
        Ok(())
    }

    /// Kills it.
    pub fn kill(&self) -> Result<(), Stop> {
        nix::sys::signal::kill(self.0, Signal::SIGKILL).map_err(|e| broken("kill", e))
    }

    /// Waits until it has ended: `exit:0` or `killed:SIGKILL`.
    pub fn wait(&mut self, stage: &Stage) -> Result<String, Stop> {
        let deadline = std::time::Instant::now() + stage.patience;
        loop {
            match waitpid(self.0, Some(nix::sys::wait::WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::StillAlive) if std::time::Instant::now() > deadline => {
                    return Err(Stop::Hang("the other process did not end".into()));
                }
                Ok(WaitStatus::StillAlive) => std::thread::yield_now(),
                Ok(WaitStatus::Exited(_, code)) => {
                    self.1 = true;
                    return Ok(format!("exit:{code}"));
                }
                Ok(WaitStatus::Signaled(_, signal, _)) => {
                    self.1 = true;
                    return Ok(format!("killed:{signal}"));
                }
                other => return Err(Stop::Broken(format!("waitpid: {other:?}"))),
            }
        }
    }
}

impl Drop for Twin {
    fn drop(&mut self) {
        if !self.1 {
            let _ = self.kill();
        }
    }
}
