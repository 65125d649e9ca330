//! Reads of other sizes and to other places than one message into a buffer of ours.

use super::{Rc, Uffd, event_name};
use nix::errno::Errno;
use std::os::fd::AsRawFd;
use userfaultfd_sys as sys;

const MESSAGE: usize = size_of::<sys::uffd_msg>();

impl Uffd {
    /// read(2) with room for four messages: the names of those that came.
    pub fn read_several(&self) -> Result<Vec<String>, Errno> {
        let mut raw = [0_u8; 4 * MESSAGE];
        let n = nix::unistd::read(&self.0, &mut raw)?;
        Ok(raw[..n].chunks(MESSAGE).map(|message| event_name(message[0])).collect())
    }

    /// read(2) of one message to `at`, which must not be Rust's memory: an address of the arena.
    pub fn read_to(&self, at: usize) -> Rc {
        crate::memory::guard(super::Range { start: at, len: MESSAGE });
        // SAFETY: the kernel checks the buffer; it lies in the arena, where Rust keeps nothing.
        let n = unsafe { libc::read(self.0.as_raw_fd(), at as *mut libc::c_void, MESSAGE) };
        Rc::of(if n < 0 { -1 } else { 0 })
    }
}
