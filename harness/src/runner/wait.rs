//! Waiting for a child under a deadline.

use nix::errno::Errno;
use nix::sys::signal::{SigHandler, SigSet, Signal, signal};
use nix::unistd::Pid;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

/// How long a killed process may take to be gone.
pub const BURIAL: Duration = Duration::from_secs(5);

/// Has the ends of this process's children be told by [`wait`]: to be said before the first one is made. For a
/// process with one thread, since another one could take the signal.
pub fn attend_children() -> nix::Result<()> {
    // Who was started with it ignored would never see a child's end.
    // SAFETY: the default action runs nothing of ours.
    unsafe { signal(Signal::SIGCHLD, SigHandler::SigDfl) }?;
    children().thread_block()
}

fn children() -> SigSet {
    let mut set = SigSet::empty();
    set.add(Signal::SIGCHLD);
    set
}

/// Reaps `child` and says how it ended; none if it has not within that time. One that has ended while another was
/// waited for is seen at the end of that time.
///
/// Two calls where it ends in time, the first of which sleeps. What is called between fork and that sleep costs a
/// guest twice: a TLB that fork has emptied fills for it, and the child's process empties it again. (A descriptor of
/// the process that is made, polled and closed was a fiftieth of a case.)
pub fn wait(child: Pid, within: Duration) -> nix::Result<Option<ExitStatus>> {
    let (mut left, mut deadline) = (within, None);
    loop {
        // Blocked, the signal has been pending since the child ended; another child's costs one more look.
        let woken = next(&children(), left);
        if let Some(status) = reap(child)? {
            return Ok(Some(status));
        }
        match woken {
            Ok(()) | Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => return Ok(None),
            Err(error) => return Err(error),
        }
        let end = *deadline.get_or_insert_with(|| Instant::now() + within);
        left = end.saturating_duration_since(Instant::now());
    }
}

/// The status of a child that has ended, which is gone then.
fn reap(child: Pid) -> nix::Result<Option<ExitStatus>> {
    let mut status = 0;
    // SAFETY: the call writes one number.
    let ret = unsafe { libc::waitpid(child.as_raw(), &raw mut status, libc::WNOHANG) };
    Ok((Errno::result(ret)? != 0).then(|| ExitStatus::from_raw(status)))
}

/// Takes the next pending signal of `set`; EAGAIN if there is none within that time.
fn next(set: &SigSet, within: Duration) -> nix::Result<()> {
    let timeout = libc::timespec {
        tv_sec: libc::time_t::try_from(within.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: within.subsec_nanos().into(),
    };
    // SAFETY: the call reads the set and the time, and is to say nothing of the signal's sender.
    let ret = unsafe { libc::sigtimedwait(set.as_ref(), std::ptr::null_mut(), &raw const timeout) };
    Errno::result(ret).map(drop)
}

#[cfg(test)]
mod tests {
    use super::super::in_child;
    use super::*;
    use uffd_suites::process::fork_with;

    const LONG: Duration = Duration::from_secs(60);
    const SHORT: Duration = Duration::from_millis(20);

    /// Runs `check` in a process with one thread, and returns what it says.
    fn alone(check: fn() -> nix::Result<String>) -> String {
        let check = || attend_children().and_then(|()| check());
        in_child(|| check().map_err(|e| e.to_string())).expect("no error")
    }

    fn ends(code: i32) -> nix::Result<Pid> {
        fork_with(0, || code)
    }

    fn sleeps() -> nix::Result<Pid> {
        fork_with(0, || {
            loop {
                nix::unistd::pause();
            }
        })
    }

    #[test]
    fn the_end_of_a_child_is_seen_once() {
        let said = alone(|| {
            let child = ends(3)?;
            Ok(format!("{:?} {:?}", wait(child, LONG)?.and_then(|s| s.code()), wait(child, SHORT)))
        });
        assert_eq!(said, "Some(3) Err(ECHILD)");
    }

    #[test]
    fn who_was_started_with_the_signal_ignored_sees_it_too() {
        let said = alone(|| {
            // SAFETY: nothing runs when the signal comes.
            unsafe { signal(Signal::SIGCHLD, SigHandler::SigIgn) }?;
            attend_children()?;
            Ok(format!("{:?}", wait(ends(3)?, LONG)?.and_then(|s| s.code())))
        });
        assert_eq!(said, "Some(3)");
    }

    #[test]
    fn one_that_does_not_end_is_left_alone() {
        let said = alone(|| {
            let child = sleeps()?;
            let first = wait(child, SHORT)?;
            nix::sys::signal::kill(child, Signal::SIGKILL)?;
            Ok(format!("{first:?} {:?}", wait(child, LONG)?.and_then(|s| s.signal())))
        });
        assert_eq!(said, "None Some(9)");
    }

    #[test]
    fn the_end_of_another_child_ends_no_wait() {
        let said = alone(|| {
            let (other, child) = (ends(1)?, sleeps()?);
            let first = wait(child, Duration::from_millis(200))?;
            nix::sys::signal::kill(child, Signal::SIGKILL)?;
            let (child, other) = (wait(child, LONG)?, wait(other, SHORT)?);
            Ok(format!("{first:?} {:?} {:?}", child.and_then(|s| s.signal()), other))
        });
        assert_eq!(said, "None Some(9) Some(ExitStatus(unix_wait_status(256)))");
    }
}
