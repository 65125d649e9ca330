//! The userfaultfd ABI: numbers, structs, and a handle whose methods are one system call each.
//!
//! What userfaultfd-sys has is taken from there; newer things stand in [`newer`]. Every number and
//! size is asserted at compile time: a wrong direction bit makes an ioctl fail silently, as
//! cloud-hypervisor's `UFFDIO_WAKE` did. No other module issues a raw ioctl.

pub mod kick;
pub mod kvm;
pub mod newer;

use nix::errno::Errno;
use std::fmt;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use userfaultfd_sys as sys;

/// `REGISTER` mode: faults on missing pages.
pub const REGISTER_MODE_MISSING: u64 = sys::UFFDIO_REGISTER_MODE_MISSING;

/// `COPY` mode: fill the page, wake nobody.
pub const COPY_MODE_DONTWAKE: u64 = sys::UFFDIO_COPY_MODE_DONTWAKE;

/// Features to ask for in `UFFDIO_API`.
pub mod features {
    /// Discards raise an event.
    pub const EVENT_REMOVE: u64 = userfaultfd_sys::UFFD_FEATURE_EVENT_REMOVE;
}

/// The word for an event's number.
pub fn event_name(number: u8) -> String {
    match number {
        sys::UFFD_EVENT_PAGEFAULT => "pagefault".into(),
        sys::UFFD_EVENT_FORK => "fork".into(),
        sys::UFFD_EVENT_REMAP => "remap".into(),
        sys::UFFD_EVENT_REMOVE => "remove".into(),
        sys::UFFD_EVENT_UNMAP => "unmap".into(),
        other => format!("event:{other}"),
    }
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

/// A message read from a userfaultfd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// A thread waits for the page at `address`.
    Pagefault {
        /// Faulting address; page-aligned unless EXACT_ADDRESS was asked for.
        address: usize,
        /// `UFFD_PAGEFAULT_FLAG_*`.
        flags: u64,
    },
    /// Any other event, by its number.
    Other(u8),
}

/// A userfaultfd. Each method is one system call and returns what the kernel returned.
#[derive(Debug)]
pub struct Uffd(OwnedFd);

impl Uffd {
    /// Makes one, non-blocking (poll(2) reports POLLERR for a blocking one) and close-on-exec.
    pub fn open(way: Way) -> Result<Self, Errno> {
        let flags = libc::O_CLOEXEC | libc::O_NONBLOCK;
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

    /// `UFFDIO_API` with the wanted features; the offered features on success.
    pub fn api(&self, features: u64) -> Result<u64, Errno> {
        let mut arg = sys::uffdio_api { api: sys::UFFD_API, features, ioctls: 0 };
        self.ioctl(sys::UFFDIO_API.into(), &mut arg).0.map_or(Ok(arg.features), Err)
    }

    /// `UFFDIO_REGISTER`; the offered range ioctls on success.
    pub fn register(&self, range: Range, mode: u64) -> Result<u64, Errno> {
        let mut arg = sys::uffdio_register { range: range.to_abi(), mode, ioctls: 0 };
        self.ioctl(sys::UFFDIO_REGISTER.into(), &mut arg).0.map_or(Ok(arg.ioctls), Err)
    }

    /// `UFFDIO_UNREGISTER`.
    pub fn unregister(&self, range: Range) -> Rc {
        self.ioctl(sys::UFFDIO_UNREGISTER.into(), &mut range.to_abi())
    }

    /// `UFFDIO_WAKE`.
    pub fn wake(&self, range: Range) -> Rc {
        self.ioctl(sys::UFFDIO_WAKE.into(), &mut range.to_abi())
    }

    /// `UFFDIO_COPY` of `dst.len` bytes from `src`; also its result field.
    pub fn copy(&self, dst: Range, src: usize, mode: u64) -> (Rc, Field) {
        let mut arg = sys::uffdio_copy {
            dst: dst.start as u64,
            src: src as u64,
            len: dst.len as u64,
            mode,
            copy: SENTINEL,
        };
        let rc = self.ioctl(sys::UFFDIO_COPY.into(), &mut arg);
        (rc, Field(arg.copy))
    }

    /// `UFFDIO_ZEROPAGE`; also its result field.
    pub fn zeropage(&self, range: Range, mode: u64) -> (Rc, Field) {
        let mut arg = sys::uffdio_zeropage { range: range.to_abi(), mode, zeropage: SENTINEL };
        let rc = self.ioctl(sys::UFFDIO_ZEROPAGE.into(), &mut arg);
        (rc, Field(arg.zeropage))
    }

    /// read(2) of one message; `EAGAIN` if there is none.
    pub fn read(&self) -> Result<Message, Errno> {
        let mut raw = [0_u8; size_of::<sys::uffd_msg>()];
        let n = nix::unistd::read(&self.0, &mut raw)?;
        if n != raw.len() {
            return Err(Errno::EIO);
        }
        // SAFETY: uffd_msg is plain data of exactly this size, and the kernel has filled it.
        let msg: sys::uffd_msg = unsafe { std::ptr::read_unaligned(raw.as_ptr().cast()) };
        if msg.event != sys::UFFD_EVENT_PAGEFAULT {
            return Ok(Message::Other(msg.event));
        }
        // SAFETY: for UFFD_EVENT_PAGEFAULT the kernel fills the union's `pagefault`.
        let fault = unsafe { msg.arg.pagefault };
        let address = usize::try_from(fault.address).map_err(|_| Errno::EOVERFLOW)?;
        Ok(Message::Pagefault { address, flags: fault.flags })
    }

    fn ioctl<T>(&self, request: u64, arg: &mut T) -> Rc {
        // SAFETY: `request` encodes the size of T (asserted below) and `arg` is valid for it.
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
