//! Processes that a case makes beside its own. Each kind has its purpose:
//!
//! | | |
//! |---|---|
//! | [`fork`], [`fork_with`] | runs a task and ends with its exit code; the others are made of these |
//! | [`Child`] | is talked to over a [`Link`]: words one way and the other, and descriptors |
//! | [`Offspring`] | is what the case is about: made by a thread that may block on the fork's event, sharing the case's descriptors, or idle, so that pages stay shared |
//! | [`Twin`] | shares the case's memory |
//! | [`program`](program()), [`exec`] | another program in a child's place |
//!
//! What a child may do beside other threads of the case: everything, since the case's heap takes no
//! lock.

mod child;
mod link;
mod offspring;
mod program;
mod room;
mod signal;
mod twin;

pub use child::Child;
pub use link::Link;
pub use offspring::{Offspring, refused};
pub use program::{exec, program};
pub use room::with_room;
pub use signal::{catch, caught, signal_thread, unblock};
pub use twin::Twin;

use crate::outcome::Stop;
use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::unistd::{ForkResult, Pid};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

fn broken(what: &str, e: Errno) -> Stop {
    Stop::Broken(format!("{what}: {e:?}"))
}

/// fork(2) of a process that runs `task` and ends with its exit code, at the latest with the thread that
/// forked it. It inherits every descriptor.
pub fn fork(task: impl FnOnce() -> i32) -> Result<Pid, Stop> {
    let parent = Pid::this();
    // SAFETY: the heap and everything else that the child uses takes no lock that a thread of this
    // process could hold.
    match unsafe { nix::unistd::fork() }.map_err(|e| broken("fork", e))? {
        ForkResult::Parent { child } => Ok(child),
        ForkResult::Child => {
            die_with(parent);
            let code = task();
            // SAFETY: ends the process without the destructors and exit handlers of its parent.
            unsafe { libc::_exit(code) }
        }
    }
}

/// clone(2) as fork(2) calls it, with `flags` beside, such as `CLONE_FILES`; nothing of the C library
/// runs in between. The child, a copy of the calling thread, may outlive it.
pub fn fork_with(flags: i32, task: impl FnOnce() -> i32) -> Result<Pid, Errno> {
    // SAFETY: without CLONE_VM the child has a copy of everything on its own stack. It is the copy
    // of one thread of several: it allocates only from the bump heap, which has no lock, and leaves
    // by `_exit`.
    let ret = unsafe {
        libc::syscall(libc::SYS_clone, flags | libc::SIGCHLD, 0_usize, 0_usize, 0_usize, 0_usize)
    };
    match Errno::result(ret)? {
        0 => {
            let code = task();
            // SAFETY: ends the child without destructors and exit handlers, which are its parent's.
            unsafe { libc::_exit(code) }
        }
        child => Ok(Pid::from_raw(i32::try_from(child).unwrap_or(0))),
    }
}

/// Has the kernel kill this process when the thread of `parent` that forked it ends. To be said again after
/// every change of credentials, which forgets it.
///
/// If `parent` has ended before, no signal comes any more, and this process ends at once.
pub fn die_with(parent: Pid) {
    let _ = nix::sys::prctl::set_pdeathsig(Signal::SIGKILL);
    // 0 is a parent outside of this process's namespace.
    if ![parent.as_raw(), 0].contains(&Pid::parent().as_raw()) {
        // SAFETY: ends this process without the destructors and exit handlers of its parent.
        unsafe { libc::_exit(ORPHAN) }
    }
}

/// The exit code of a process whose parent ended before it; nobody asks for it.
const ORPHAN: i32 = 1;

/// Lets this process look at its own files in /proc after a change of credentials.
pub fn stay_visible() {
    let _ = nix::sys::prctl::set_dumpable(true);
}

/// A descriptor of a process.
fn pidfd_of(pid: Pid) -> Result<OwnedFd, Stop> {
    // SAFETY: pidfd_open takes plain numbers and returns a new descriptor.
    let ret = unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) };
    owned(ret).map_err(|e| broken("pidfd_open", e))
}

/// A copy of another process's descriptor: pidfd_getfd(2).
pub fn get_fd(pid: i32, fd: BorrowedFd<'_>) -> Result<OwnedFd, Stop> {
    let pidfd = pidfd_of(Pid::from_raw(pid))?;
    // SAFETY: takes plain numbers and returns a new descriptor.
    let ret = unsafe { libc::syscall(libc::SYS_pidfd_getfd, pidfd.as_raw_fd(), fd.as_raw_fd(), 0) };
    owned(ret).map_err(|e| broken("pidfd_getfd", e))
}

/// Takes over a descriptor that the kernel or a child with the same table has put there and that
/// nobody else owns.
pub fn adopt(fd: i32) -> OwnedFd {
    // SAFETY: a new descriptor, which the one who made it has given up.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

fn owned(ret: libc::c_long) -> Result<OwnedFd, Errno> {
    let raw = i32::try_from(Errno::result(ret)?).map_err(|_| Errno::EBADF)?;
    Ok(adopt(raw))
}

/// A process's descriptor closed in this process alone, which has inherited it.
pub fn close_inherited(fd: BorrowedFd<'_>) -> Result<(), Stop> {
    nix::unistd::close(fd.as_raw_fd()).map_err(|e| broken("closing an inherited descriptor", e))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::isolated;
    use std::os::fd::AsFd;

    #[test]
    fn words_and_descriptors_go_both_ways() {
        isolated(|stage| {
            let mut child = Child::fork(stage, |link| {
                let fd = link.take()?;
                link.say("got")?;
                link.pass(fd.as_fd())
            })
            .expect("a child");
            let file = std::fs::File::open("/proc/self/stat").expect("a file");
            child.link().pass(file.as_fd()).expect("sent");
            child.link().must_hear("got").expect("a word");
            assert!(child.link().take().is_ok());
            assert_eq!(child.link().hear(), Ok("end".into()));
            assert_eq!(child.wait(), Ok("exit:0".into()));
        });
    }

    #[test]
    fn what_stops_a_child_stops_the_case() {
        isolated(|stage| {
            let child = Child::fork(stage, |_| Err(Stop::Unsupported("why".into())));
            let heard = child.expect("a child").link().hear();
            assert_eq!(heard, Err(Stop::Unsupported("why".into())));
        });
    }

    /// A process that has lost its parent before it could ask for a signal waits for nothing more.
    #[test]
    fn who_has_lost_its_parent_before_ends() {
        isolated(|_| {
            let (ours, theirs) = nix::unistd::pipe().expect("a pipe");
            let child = fork_with(0, || {
                let parent = Pid::this();
                let orphaned = fork_with(0, || {
                    while Pid::parent() == parent {
                        std::thread::yield_now();
                    }
                    die_with(parent);
                    i32::from(nix::unistd::write(&theirs, b"lives").is_err())
                });
                i32::from(orphaned.is_err())
            });
            let status = nix::sys::wait::waitpid(child.expect("a child"), None);
            assert!(matches!(status, Ok(nix::sys::wait::WaitStatus::Exited(_, 0))), "{status:?}");
            drop(theirs);
            let mut said = [0; 8];
            assert_eq!(nix::unistd::read(&ours, &mut said), Ok(0), "{said:?}");
        });
    }

    /// One that was forked by a thread gets no signal with its process, and ends with it all the same.
    #[test]
    fn an_idle_child_ends_with_its_case() {
        isolated(|stage| {
            let (ours, theirs) = nix::unistd::pipe().expect("a pipe");
            let case = fork_with(0, || {
                let idle = Offspring::fork_idle(stage);
                let forked = idle.and_then(|(mover, idle)| Ok((mover.join()?, idle)));
                let is_there = forked.is_ok_and(|(rc, idle)| {
                    std::mem::forget(idle);
                    rc.is_ok()
                });
                i32::from(!is_there)
            });
            let status = nix::sys::wait::waitpid(case.expect("a child"), None);
            assert!(matches!(status, Ok(nix::sys::wait::WaitStatus::Exited(_, 0))), "{status:?}");
            drop(theirs);
            let mut fds = [nix::poll::PollFd::new(ours.as_fd(), nix::poll::PollFlags::POLLIN)];
            // The idle child has the other end, as all that the case had open.
            let ended = nix::poll::poll(&mut fds, 20_000_u16);
            assert_eq!(ended, Ok(1), "it still waits");
        });
    }

    /// A child of one that was gone, number and all, before it came to look ends, too.
    #[test]
    fn an_idle_child_that_looks_too_late_ends() {
        isolated(|_| {
            let gone = fork_with(0, || 0).expect("a child");
            nix::sys::wait::waitpid(gone, None).expect("its end");
            assert_eq!(offspring::idle_beside(gone), "");
        });
    }

    #[test]
    fn the_program_waits_until_it_is_killed() {
        isolated(|stage| {
            let file = program().expect("a program");
            let mut child = Child::fork(stage, |_| Err(exec(file.as_fd()))).expect("a child");
            // The child's end of the link is closed by the successful call.
            assert_eq!(child.link().hear(), Ok("end".into()));
            child.kill().expect("kill");
            assert_eq!(child.wait(), Ok("killed:SIGKILL".into()));
        });
    }
}
