//! Calls on a userfaultfd that any descriptor knows: reads of every kind, and how it was opened.

use super::{Rc, Uffd};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use std::os::fd::AsRawFd;

/// Memory for a read: address and length in bytes. Not memory that Rust owns.
pub(crate) type Piece = (usize, usize);

fn count(ret: isize) -> Result<usize, Errno> {
    usize::try_from(ret).map_err(|_| Errno::last())
}

fn vector(pieces: &[Piece]) -> (Vec<libc::iovec>, i32) {
    let one = |&(at, len): &Piece| libc::iovec { iov_base: at as *mut libc::c_void, iov_len: len };
    (pieces.iter().map(one).collect(), i32::try_from(pieces.len()).unwrap_or(0))
}

impl Uffd {
    /// read(2) into any memory; the kernel checks it.
    pub fn read_into(&self, (at, len): Piece) -> Result<usize, Errno> {
        // SAFETY: the kernel reaches user memory only through checked copies, and the piece is not
        // Rust's.
        count(unsafe { libc::read(self.0.as_raw_fd(), at as *mut libc::c_void, len) })
    }

    /// readv(2).
    pub fn read_vector(&self, pieces: &[Piece]) -> Result<usize, Errno> {
        let (vector, n) = vector(pieces);
        // SAFETY: as for `read_into`; the vector lives through the call.
        count(unsafe { libc::readv(self.0.as_raw_fd(), vector.as_ptr(), n) })
    }

    /// preadv2(2) with an offset and flags.
    pub fn read_vector_at(
        &self,
        pieces: &[Piece],
        offset: i64,
        flags: i32,
    ) -> Result<usize, Errno> {
        let (vector, n) = vector(pieces);
        // SAFETY: as for `read_vector`.
        count(unsafe { libc::preadv2(self.0.as_raw_fd(), vector.as_ptr(), n, offset, flags) })
    }

    /// pread(2).
    pub fn read_at(&self, (at, len): Piece, offset: i64) -> Result<usize, Errno> {
        // SAFETY: as for `read_into`.
        count(unsafe { libc::pread(self.0.as_raw_fd(), at as *mut libc::c_void, len, offset) })
    }

    /// write(2) of any memory.
    pub fn write_from(&self, (at, len): Piece) -> Result<usize, Errno> {
        // SAFETY: the kernel only reads, through checked copies.
        count(unsafe { libc::write(self.0.as_raw_fd(), at as *const libc::c_void, len) })
    }

    /// Whether the descriptor is closed by execve(2).
    pub fn is_cloexec(&self) -> Result<bool, Errno> {
        fcntl(&self.0, FcntlArg::F_GETFD)
            .map(|flags| FdFlag::from_bits_retain(flags).contains(FdFlag::FD_CLOEXEC))
    }

    /// The status flags: fcntl(F_GETFL).
    pub fn status(&self) -> Result<OFlag, Errno> {
        fcntl(&self.0, FcntlArg::F_GETFL).map(OFlag::from_bits_retain)
    }

    /// Sets the status flags: fcntl(F_SETFL).
    pub fn set_status(&self, flags: OFlag) -> Rc {
        Rc(fcntl(&self.0, FcntlArg::F_SETFL(flags)).err())
    }

    /// The child's userfaultfd that a fork event has brought into this process, from now on owned here.
    pub fn of_fork(message: super::Message) -> Option<Self> {
        use std::os::fd::{FromRawFd, OwnedFd};
        let super::Message::Fork { fd } = message else { return None };
        let raw = i32::try_from(fd).ok()?;
        // SAFETY: reading the event has installed this descriptor for its reader; nobody else owns it.
        Some(Self(unsafe { OwnedFd::from_raw_fd(raw) }))
    }

    /// A second descriptor of the same context, by fcntl(F_DUPFD_CLOEXEC).
    pub fn duplicate_from(&self, lowest: i32) -> Result<Self, Errno> {
        use std::os::fd::{FromRawFd, OwnedFd};
        let raw = fcntl(&self.0, FcntlArg::F_DUPFD_CLOEXEC(lowest))?;
        // SAFETY: the kernel has just handed out this descriptor; nobody else owns it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(raw) }))
    }
}
