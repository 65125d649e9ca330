//! How two processes of a case talk: words and descriptors, over a socket.

use super::broken;
use crate::abi::Uffd;
use crate::outcome::Stop;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
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
        if n == 0 { Ok("end".into()) } else { word(&raw[..n]) }
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

    /// Closes this end in a child that has inherited it and uses the other.
    pub(super) fn leave(&self) {
        // Can't fail: the descriptor is open.
        let _ = super::close_inherited(self.fd.as_fd());
    }

    /// How long the other side is waited for.
    pub(super) const fn patience(&self) -> Duration {
        self.patience
    }

    pub(super) fn fail(&self, stop: &Stop) {
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
        let Some(raw) = fd else {
            let heard = word(&bytes[..usize::try_from(n).unwrap_or(0)])?;
            return Err(Stop::Broken(format!("heard {heard:?}, no descriptor")));
        };
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

/// A word as it was sent, or the failure that it tells.
fn word(raw: &[u8]) -> Result<String, Stop> {
    let text = String::from_utf8_lossy(raw).into_owned();
    match text.split_at_checked(2) {
        Some(("!u", why)) => Err(Stop::Unsupported(why.into())),
        Some(("!d", why)) => Err(Stop::Denied(why.into())),
        Some(("!p", why)) => Err(Stop::Precondition(why.into())),
        Some(("!h", why)) => Err(Stop::Hang(why.into())),
        Some(("!b", why)) => Err(Stop::Broken(why.into())),
        _ => Ok(text),
    }
}
