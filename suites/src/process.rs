//! Processes that a case forks, and how it talks to them.
//!
//! A child runs a closure and speaks over a socket: words one way and the other, and descriptors. It
//! dies with the thread that forked it, and at the latest when its [`Child`] is dropped. What it may
//! do beside other threads of the case: everything, since the case's heap takes no lock.
//!
//! For a fork that may raise an event, or a child that only has to be there, see [`crate::offspring`].

mod program;
mod room;
mod signal;
mod twin;

pub use program::{exec, program};
pub use room::with_room;
pub use signal::{catch, caught, signal_thread, unblock};
pub use twin::Twin;

use crate::abi::Uffd;
use crate::outcome::Stop;
use crate::stage::Stage;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};
use std::fmt::Display;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

/// Bytes that a word may have.
const WORD: usize = 512;
/// One end of the socket between a case and its child.
#[derive(Debug)]
pub struct Link {
    fd: OwnedFd,
    patience: Duration,
}

fn broken(what: &str, e: Errno) -> Stop {
    Stop::Broken(format!("{what}: {e:?}"))
}

impl Link {
    /// Both ends of a new one.
    pub fn pair(patience: Duration) -> Result<(Self, Self), Stop> {
        let mut fds: [RawFd; 2] = [-1; 2];
        let kind = libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC;
        // SAFETY: the kernel writes two descriptors into the array.
        let ret = unsafe { libc::socketpair(libc::AF_UNIX, kind, 0, fds.as_mut_ptr()) };
        Errno::result(ret).map_err(|e| broken("socketpair", e))?;
        // SAFETY: the kernel has just handed out these descriptors; nobody else owns them.
        let [one, two] = fds.map(|fd| Self { fd: unsafe { OwnedFd::from_raw_fd(fd) }, patience });
        Ok((one, two))
    }

    /// Sends a word.
    pub fn say(&self, word: impl Display) -> Result<(), Stop> {
        let text = word.to_string();
        nix::unistd::write(&self.fd, text.as_bytes()).map_err(|e| broken("writing a word", e))?;
        Ok(())
    }

    fn ready(&self) -> Result<(), Stop> {
        let mut fds = [PollFd::new(self.fd.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, PollTimeout::try_from(self.patience).unwrap_or(PollTimeout::MAX)) {
            Ok(0) => Err(Stop::Hang("the other process said nothing".into())),
            Ok(_) => Ok(()),
            Err(e) => Err(broken("poll", e)),
        }
    }

    /// Receives a word; `end` once the other side is gone. A child's failure becomes this side's.
    pub fn hear(&self) -> Result<String, Stop> {
        self.ready()?;
        let mut raw = [0; WORD];
        let n = nix::unistd::read(&self.fd, &mut raw).map_err(|e| broken("reading a word", e))?;
        let text = String::from_utf8_lossy(&raw[..n]).into_owned();
        match text.split_at_checked(2) {
            _ if n == 0 => Ok("end".into()),
            Some(("!u", why)) => Err(Stop::Unsupported(why.into())),
            Some(("!d", why)) => Err(Stop::Denied(why.into())),
            Some(("!p", why)) => Err(Stop::Precondition(why.into())),
            Some(("!h", why)) => Err(Stop::Hang(why.into())),
            Some(("!b", why)) => Err(Stop::Broken(why.into())),
            _ => Ok(text),
        }
    }

    /// Waits until a message can be read from `uffd` (true), or the other side has said something
    /// (false).
    pub fn faults_first(&self, uffd: &Uffd) -> Result<bool, Stop> {
        let mut fds = [
            PollFd::new(uffd.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.fd.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut fds, PollTimeout::try_from(self.patience).unwrap_or(PollTimeout::MAX)) {
            Ok(0) => Err(Stop::Hang("the other process neither faulted nor spoke".into())),
            Ok(_) => Ok(fds[0].any().unwrap_or(false)),
            Err(e) => Err(broken("poll", e)),
        }
    }

    /// Receives a word that must be `expected`.
    pub fn must_hear(&self, expected: &str) -> Result<(), Stop> {
        match self.hear()? {
            word if word == expected => Ok(()),
            word => Err(Stop::Broken(format!("heard {word:?} in place of {expected:?}"))),
        }
    }

    fn fail(&self, stop: &Stop) {
        let (kind, why) = match stop {
            Stop::Unsupported(why) => ("!u", why),
            Stop::Denied(why) => ("!d", why),
            Stop::Precondition(why) => ("!p", why),
            Stop::Hang(why) => ("!h", why),
            Stop::Broken(why) => ("!b", why),
        };
        let text: String = format!("{kind}{why}").chars().take(WORD / 4).collect();
        let _ = self.say(text);
    }

    /// Sends a descriptor (SCM_RIGHTS).
    pub fn pass(&self, fd: BorrowedFd<'_>) -> Result<(), Stop> {
        let mut byte = *b"f";
        let mut control = Control([0; 24]);
        let mut iov = libc::iovec { iov_base: byte.as_mut_ptr().cast(), iov_len: 1 };
        let header = control.message(&mut iov);
        // SAFETY: the control buffer has room for one header and one descriptor, and is aligned.
        let ret = unsafe {
            let head = libc::CMSG_FIRSTHDR(&raw const header);
            (*head).cmsg_level = libc::SOL_SOCKET;
            (*head).cmsg_type = libc::SCM_RIGHTS;
            (*head).cmsg_len = 20;
            libc::CMSG_DATA(head).cast::<RawFd>().write_unaligned(fd.as_raw_fd());
            libc::sendmsg(self.fd.as_raw_fd(), &raw const header, 0)
        };
        Errno::result(ret).map(drop).map_err(|e| broken("sending a descriptor", e))
    }

    /// Receives a descriptor.
    pub fn take(&self) -> Result<OwnedFd, Stop> {
        self.ready()?;
        let mut bytes = [0_u8; WORD];
        let mut control = Control([0; 24]);
        let mut iov = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: WORD };
        let mut header = control.message(&mut iov);
        // SAFETY: the buffers outlive the call; a control message is looked at only if there is one.
        let (n, fd) = unsafe {
            let n = libc::recvmsg(self.fd.as_raw_fd(), &raw mut header, libc::MSG_CMSG_CLOEXEC);
            let head = libc::CMSG_FIRSTHDR(&raw const header);
            let is_fd = n == 1 && !head.is_null() && (*head).cmsg_type == libc::SCM_RIGHTS;
            (n, is_fd.then(|| libc::CMSG_DATA(head).cast::<RawFd>().read_unaligned()))
        };
        Errno::result(n).map_err(|e| broken("receiving a descriptor", e))?;
        let heard = String::from_utf8_lossy(&bytes[..usize::try_from(n).unwrap_or(0)]).into_owned();
        let raw = fd.ok_or_else(|| Stop::Broken(format!("heard {heard:?}, no descriptor")))?;
        // SAFETY: the kernel has just handed out this descriptor; nobody else owns it.
        Ok(unsafe { OwnedFd::from_raw_fd(raw) })
    }
}

/// A buffer for one descriptor's control message.
#[repr(C, align(8))]
struct Control([u8; 24]);

impl Control {
    fn message(&mut self, iov: &mut libc::iovec) -> libc::msghdr {
        // SAFETY: a header of zeros is an empty one.
        let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
        header.msg_iov = iov;
        header.msg_iovlen = 1;
        header.msg_control = self.0.as_mut_ptr().cast();
        header.msg_controllen = self.0.len();
        header
    }
}

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
        // SAFETY: the heap and everything else that the child uses takes no lock that a thread of
        // this process could hold.
        match unsafe { fork() }.map_err(|e| broken("fork", e))? {
            ForkResult::Child => {
                drop(ours);
                die_with_parent();
                if let Err(stop) = job(&theirs) {
                    theirs.fail(&stop);
                }
                // SAFETY: ends the process without the destructors and exit handlers of its parent.
                unsafe { libc::_exit(0) }
            }
            ForkResult::Parent { child } => {
                drop(theirs);
                Ok(Self { pid: child, pidfd: pidfd_of(child)?, link: ours, ended: false })
            }
        }
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
        let mut fds = [PollFd::new(self.pidfd.as_fd(), PollFlags::POLLIN)];
        let patience = PollTimeout::try_from(self.link.patience).unwrap_or(PollTimeout::MAX);
        match poll(&mut fds, patience) {
            Ok(0) => return Err(Stop::Hang("the other process did not end".into())),
            Ok(_) => {}
            Err(e) => return Err(broken("poll", e)),
        }
        self.ended = true;
        match waitpid(self.pid, None) {
            Ok(WaitStatus::Exited(_, code)) => Ok(format!("exit:{code}")),
            Ok(WaitStatus::Signaled(_, signal, _)) => Ok(format!("killed:{signal}")),
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

/// Has the kernel kill this process when the thread that forked it ends. To be said again after
/// every change of credentials, which forgets it.
pub fn die_with_parent() {
    let _ = nix::sys::prctl::set_pdeathsig(Signal::SIGKILL);
}

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

fn owned(ret: libc::c_long) -> Result<OwnedFd, Errno> {
    let raw = i32::try_from(Errno::result(ret)?).map_err(|_| Errno::EBADF)?;
    // SAFETY: the kernel has just handed out this descriptor; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

/// A process's descriptor closed in this process alone, which has inherited it.
pub fn close_inherited(fd: BorrowedFd<'_>) -> Result<(), Stop> {
    nix::unistd::close(fd.as_raw_fd()).map_err(|e| broken("closing an inherited descriptor", e))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::isolated;

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
