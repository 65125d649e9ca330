//! Waiting for a child under a deadline.

use crate::patience;
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

/// The longest sleep at a stretch. A time in which nobody runs counts for no more, and a little.
const SLICE: Duration = Duration::from_secs(1);

fn children() -> SigSet {
    let mut set = SigSet::empty();
    set.add(Signal::SIGCHLD);
    set
}

/// Reaps `child` and says how it ended; none if it has not within that time, of which [`patience::counts`] says what
/// is held against it. One that has ended while another was waited for is seen after a second, or at the end of that
/// time.
///
/// Two calls where it ends in time, the first of which sleeps. What is called between fork and that sleep costs a
/// guest twice: a TLB that fork has emptied fills for it, and the child's process empties it again. (A descriptor of
/// the process that is made, polled and closed was a fiftieth of a case.)
pub fn wait(child: Pid, within: Duration) -> nix::Result<Option<ExitStatus>> {
    let mut left = Left { time: within, looked: None };
    loop {
        let slice = left.time.min(SLICE);
        // Blocked, the signal has been pending since the child ended; another child's costs one more look.
        let woken = next(&children(), slice);
        if let Some(status) = reap(child)? {
            return Ok(Some(status));
        }
        match woken {
            Ok(()) | Err(Errno::EINTR | Errno::EAGAIN) => {}
            Err(error) => return Err(error),
        }
        left.less(slice, woken.is_err_and(|error| error == Errno::EAGAIN), Instant::now());
        if left.time.is_zero() {
            return Ok(None);
        }
    }
}

/// What is left of a child's time.
struct Left {
    time: Duration,
    /// The last look at the clock; none before the first sleep has ended.
    looked: Option<Instant>,
}

impl Left {
    /// Takes off a sleep that was to take as long as `slice`, and did if it is over.
    fn less(&mut self, slice: Duration, is_over: bool, now: Instant) {
        let took = match self.looked {
            Some(looked) => patience::counts(now.saturating_duration_since(looked), slice),
            None if is_over => slice,
            None => Duration::ZERO,
        };
        self.time = self.time.saturating_sub(took);
        self.looked = Some(now);
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
    use rstest::rstest;
    use uffd_suites::process::fork_with;

    const LONG: Duration = Duration::from_secs(60);
    const SHORT: Duration = Duration::from_millis(20);

    /// What is left of 30 s after sleeps of a second, which end at these milliseconds or are cut short before.
    #[rstest]
    #[case::in_time(&[(1000, true), (2000, true)], 28_000)]
    #[case::woken_by_another(&[(400, false), (900, false)], 29_500)]
    #[case::stopped_in_the_first(&[(90_000, true), (91_000, true)], 28_000)]
    #[case::stopped_later(&[(1000, true), (91_000, true)], 27_750)]
    #[case::woken_after_a_stop(&[(1000, true), (91_000, false)], 27_750)]
    #[case::always_slow(&[(1000, true), (9000, true), (17_000, true)], 26_500)]
    fn a_stop_is_not_held_against_a_child(#[case] sleeps: &[(u64, bool)], #[case] stays: u64) {
        let mut left = Left { time: Duration::from_secs(30), looked: None };
        let start = Instant::now();
        for (end, is_over) in sleeps {
            left.less(SLICE, *is_over, start + Duration::from_millis(*end));
        }
        assert_eq!(left.time, Duration::from_millis(stays));
    }

    #[test]
    fn a_time_of_several_sleeps_ends() {
        let said = alone(|| {
            let child = sleeps()?;
            let first = wait(child, SLICE + SHORT)?;
            nix::sys::signal::kill(child, Signal::SIGKILL)?;
            Ok(format!("{first:?} {:?}", wait(child, LONG)?.and_then(|s| s.signal())))
        });
        assert_eq!(said, "None Some(9)");
    }

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
            let (child, other) = (wait(child, LONG)?, wait(other, LONG)?);
            Ok(format!("{first:?} {:?} {:?}", child.and_then(|s| s.signal()), other))
        });
        assert_eq!(said, "None Some(9) Some(ExitStatus(unix_wait_status(256)))");
    }
}
