//! The userfaultfd ABI: numbers, structs, and a handle whose methods are one system call each.
//!
//! What userfaultfd-sys has is taken from there; newer things stand in [`newer`]. Every number and
//! size is asserted at compile time: a wrong direction bit makes an ioctl fail silently, as
//! cloud-hypervisor's `UFFDIO_WAKE` did. No other module issues a raw ioctl.
//!
//! [`call`] has the ioctls, [`command`] the same as numbers and words, [`message`] what is read,
//! [`descriptor`] the other calls on a descriptor.

mod call;
pub mod command;
mod descriptor;
pub mod kick;
pub mod kvm;
mod message;
pub mod newer;
mod reading;
mod request;
pub mod scan;
pub mod uring;

pub use call::Api;
pub use message::{Message, event_name};
pub use request::Request;

use nix::errno::Errno;
use std::fmt;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use userfaultfd_sys as sys;

/// `REGISTER` mode: faults on missing pages.
pub const REGISTER_MODE_MISSING: u64 = sys::UFFDIO_REGISTER_MODE_MISSING;
/// `REGISTER` mode: faults on writes to write-protected pages (5.7).
pub const REGISTER_MODE_WP: u64 = sys::UFFDIO_REGISTER_MODE_WP;
/// `REGISTER` mode: faults on pages that are in the page cache and not mapped (5.13).
pub const REGISTER_MODE_MINOR: u64 = sys::UFFDIO_REGISTER_MODE_MINOR;

/// `COPY` mode: fill the page, wake nobody. The same bit in ZEROPAGE, CONTINUE, POISON and MOVE.
pub const COPY_MODE_DONTWAKE: u64 = sys::UFFDIO_COPY_MODE_DONTWAKE;
/// `COPY` mode: place the page write-protected (5.7). The same bit in CONTINUE (6.4).
pub const COPY_MODE_WP: u64 = sys::UFFDIO_COPY_MODE_WP;
/// `WRITEPROTECT` mode: protect; without it, remove the protection and wake.
pub const WRITEPROTECT_MODE_WP: u64 = sys::UFFDIO_WRITEPROTECT_MODE_WP;
/// `WRITEPROTECT` mode: wake nobody.
pub const WRITEPROTECT_MODE_DONTWAKE: u64 = sys::UFFDIO_WRITEPROTECT_MODE_DONTWAKE;

/// Features to ask for in `UFFDIO_API`.
pub mod features {
    use userfaultfd_sys as sys;

    /// Write-protect faults (5.7).
    pub const PAGEFAULT_FLAG_WP: u64 = sys::UFFD_FEATURE_PAGEFAULT_FLAG_WP;
    /// fork(2) raises an event; needs CAP_SYS_PTRACE since 5.4.
    pub const EVENT_FORK: u64 = sys::UFFD_FEATURE_EVENT_FORK;
    /// mremap(2) raises an event, and moved memory stays registered.
    pub const EVENT_REMAP: u64 = sys::UFFD_FEATURE_EVENT_REMAP;
    /// Discards raise an event.
    pub const EVENT_REMOVE: u64 = sys::UFFD_FEATURE_EVENT_REMOVE;
    /// munmap(2) and its like raise an event.
    pub const EVENT_UNMAP: u64 = sys::UFFD_FEATURE_EVENT_UNMAP;
    /// Missing faults on hugetlb.
    pub const MISSING_HUGETLBFS: u64 = sys::UFFD_FEATURE_MISSING_HUGETLBFS;
    /// Missing faults on shared memory.
    pub const MISSING_SHMEM: u64 = sys::UFFD_FEATURE_MISSING_SHMEM;
    /// Faults raise SIGBUS instead of a message.
    pub const SIGBUS: u64 = sys::UFFD_FEATURE_SIGBUS;
    /// Messages name the faulting thread.
    pub const THREAD_ID: u64 = sys::UFFD_FEATURE_THREAD_ID;
    /// Minor faults on hugetlb (5.13).
    pub const MINOR_HUGETLBFS: u64 = sys::UFFD_FEATURE_MINOR_HUGETLBFS;
    /// Minor faults on shared memory (5.14).
    pub const MINOR_SHMEM: u64 = sys::UFFD_FEATURE_MINOR_SHMEM;
    /// Messages hold the address in full (5.18).
    pub const EXACT_ADDRESS: u64 = sys::UFFD_FEATURE_EXACT_ADDRESS;
    /// Write protection of hugetlb and shared memory (5.19).
    pub const WP_HUGETLBFS_SHMEM: u64 = sys::UFFD_FEATURE_WP_HUGETLBFS_SHMEM;
    pub use super::newer::features::*;
}

/// `UFFD_PAGEFAULT_FLAG_*`: why a thread faulted.
pub mod fault {
    use userfaultfd_sys as sys;

    /// It wanted to write.
    pub const WRITE: u64 = sys::UFFD_PAGEFAULT_FLAG_WRITE;
    /// The page is write-protected.
    pub const WP: u64 = sys::UFFD_PAGEFAULT_FLAG_WP;
    /// The page is in the page cache and not mapped.
    pub const MINOR: u64 = sys::UFFD_PAGEFAULT_FLAG_MINOR;
    /// The page is protected against all access (7.3).
    pub const RWP: u64 = 1 << 3;
}

/// What a result field holds before the call, so that "not written" is seen.
pub const SENTINEL: i64 = 0x5e5e_5e5e_5e5e_5e5e;

/// A range of addresses: start and length in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// First byte.
    pub start: usize,
    /// Length in bytes.
    pub len: usize,
}

impl Range {
    /// The first byte behind the range.
    pub const fn end(self) -> usize {
        self.start + self.len
    }

    fn to_abi(self) -> sys::uffdio_range {
        sys::uffdio_range { start: self.start as u64, len: self.len as u64 }
    }
}

/// What a system call returned: 0 or the errno.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rc(pub Option<Errno>);

impl Rc {
    /// Success.
    pub const OK: Self = Self(None);

    /// Whether the call succeeded.
    pub const fn is_ok(self) -> bool {
        self.0.is_none()
    }

    /// Reads errno if `ret` says that the call failed; must follow the call at once.
    pub fn of(ret: libc::c_long) -> Self {
        Self((ret == -1).then(Errno::last))
    }
}

impl fmt::Display for Rc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            None => f.write_str("0"),
            Some(errno) => write!(f, "{errno:?}"),
        }
    }
}

/// The signed result field of COPY and its siblings: bytes done, or a negative errno.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field(pub i64);

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == SENTINEL { f.write_str("untouched") } else { write!(f, "{}", self.0) }
    }
}

/// How a userfaultfd was made; each way has its own permission rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// `userfaultfd(2)`: CAP_SYS_PTRACE or `vm.unprivileged_userfaultfd=1` (userfaultfd(2)).
    Syscall,
    /// `USERFAULTFD_IOC_NEW` on `/dev/userfaultfd`: the mode of the device node decides (6.1).
    Device,
    /// `userfaultfd(2)` with `UFFD_USER_MODE_ONLY`: anyone, but kernel-mode faults fail (5.11).
    UserModeOnly,
}

impl Way {
    /// The word used in records.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Syscall => "syscall",
            Self::Device => "device",
            Self::UserModeOnly => "user-mode-only",
        }
    }
}

/// A userfaultfd. Each method is one system call and returns what the kernel returned.
#[derive(Debug)]
pub struct Uffd(OwnedFd);

impl Uffd {
    /// Leaves it open to the end of the process, which ends those who wait first: before 6.9 the last close
    /// leaves one at a protected huge page faulting for ever, in a system call beyond any signal
    /// (c88033efe9a3).
    pub fn leave_open(self) {
        std::mem::forget(self.0);
    }

    /// Makes one, non-blocking (poll(2) reports POLLERR for a blocking one) and close-on-exec.
    pub fn open(way: Way) -> Result<Self, Errno> {
        Self::open_with(way, libc::O_CLOEXEC | libc::O_NONBLOCK)
    }

    /// Makes one with `flags` as they are; for [`Way::UserModeOnly`] its flag is added.
    pub fn open_with(way: Way, flags: i32) -> Result<Self, Errno> {
        match way {
            Way::Syscall => Self::by_syscall(flags),
            Way::UserModeOnly => {
                Self::by_syscall(flags | i32::try_from(sys::UFFD_USER_MODE_ONLY).unwrap_or(1))
            }
            Way::Device => {
                let dev = nix::fcntl::open(
                    "/dev/userfaultfd",
                    nix::fcntl::OFlag::O_RDWR | nix::fcntl::OFlag::O_CLOEXEC,
                    nix::sys::stat::Mode::empty(),
                )?;
                // SAFETY: the ioctl takes flags by value and returns a new descriptor.
                let fd = unsafe { libc::ioctl(dev.as_raw_fd(), newer::USERFAULTFD_IOC_NEW, flags) };
                Self::owned(fd.into())
            }
        }
    }

    fn by_syscall(flags: i32) -> Result<Self, Errno> {
        // SAFETY: userfaultfd(2) takes flags by value and returns a new descriptor.
        Self::owned(unsafe { libc::syscall(libc::SYS_userfaultfd, flags) })
    }

    fn owned(ret: libc::c_long) -> Result<Self, Errno> {
        if ret < 0 {
            return Err(Errno::last());
        }
        let fd = i32::try_from(ret).map_err(|_| Errno::EBADF)?;
        // SAFETY: the kernel has just handed out this descriptor; nobody else owns it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Takes over a descriptor, such as one that a fork event brought.
    pub fn from_fd(fd: OwnedFd) -> Self {
        Self(fd)
    }

    /// A second descriptor of the same context, by dup(2).
    pub fn duplicate(&self) -> Result<Self, Errno> {
        nix::unistd::dup(&self.0).map(Self)
    }

    /// read(2) of one message; `EAGAIN` if there is none.
    pub fn read(&self) -> Result<Message, Errno> {
        let mut raw = [0_u8; size_of::<sys::uffd_msg>()];
        let n = nix::unistd::read(&self.0, &mut raw)?;
        if n == raw.len() { Message::parse(&raw) } else { Err(Errno::EIO) }
    }

    /// Any ioctl with any argument: the kernel checks both. `at` must not lie in memory that Rust
    /// owns: an address of the arena, or one that is nobody's.
    pub fn raw(&self, request: u64, at: usize) -> Rc {
        // SAFETY: the kernel reaches user memory only through checked copies, and the caller's
        // address is not Rust's.
        Rc::of(unsafe { libc::ioctl(self.0.as_raw_fd(), request, at) }.into())
    }

    fn ioctl<T>(&self, request: u64, arg: &mut T) -> Rc {
        // SAFETY: `request` encodes a size no larger than T's (asserted below), and `arg` is valid
        // for that.
        Rc::of(unsafe { libc::ioctl(self.0.as_raw_fd(), request, std::ptr::from_mut(arg)) }.into())
    }
}

impl AsFd for Uffd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// `_IOC(dir, 0xAA, nr, size)` as asm-generic/ioctl.h builds it; 1 is write, 2 is read.
const fn ioc(dir: u64, nr: u64, size: usize) -> u64 {
    (dir << 30) | ((size as u64) << 16) | (0xAA << 8) | nr
}

const _: () = {
    assert!(sys::UFFDIO_API as u64 == ioc(3, 0x3F, 24));
    assert!(sys::UFFDIO_REGISTER as u64 == ioc(3, 0x00, 32));
    // The uapi header notes that these two should have been _IOW.
    assert!(sys::UFFDIO_UNREGISTER as u64 == ioc(2, 0x01, 16));
    assert!(sys::UFFDIO_WAKE as u64 == ioc(2, 0x02, 16));
    assert!(sys::UFFDIO_COPY as u64 == ioc(3, 0x03, 40));
    assert!(sys::UFFDIO_ZEROPAGE as u64 == ioc(3, 0x04, 32));
    assert!(sys::UFFDIO_WRITEPROTECT as u64 == ioc(3, 0x06, 24));
    assert!(sys::UFFDIO_CONTINUE as u64 == ioc(3, 0x07, 32));
    assert!(size_of::<sys::uffd_msg>() == 32);
    assert!(size_of::<sys::uffdio_api>() == 24);
    assert!(size_of::<sys::uffdio_range>() == 16);
    assert!(size_of::<sys::uffdio_register>() == 32);
    assert!(size_of::<sys::uffdio_copy>() == 40);
    assert!(size_of::<sys::uffdio_zeropage>() == 32);
    assert!(size_of::<sys::uffdio_writeprotect>() == 24);
    assert!(size_of::<sys::uffdio_continue>() == 32);
    assert!(sys::UFFD_API == 0xAA);
    assert!(sys::UFFD_USER_MODE_ONLY == 1);
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_untouched_field_is_named() {
        assert_eq!(Field(SENTINEL).to_string(), "untouched");
        assert_eq!(Field(-2).to_string(), "-2");
    }

    #[test]
    fn rc_names_the_errno() {
        assert_eq!(Rc::OK.to_string(), "0");
        assert_eq!(Rc(Some(Errno::ENOENT)).to_string(), "ENOENT");
    }
}
