//! Files that the grid does not have: on a tmpfs that makes huge pages or has few, secret memory, a memfd
//! that takes seals, one of huge pages that promises none. Each is one file of a given length.
//!
//! The tmpfs is mounted nowhere: it has no place in the file system and ends with its last file, so no
//! setting of the machine is touched.

use crate::memory::PAGE;
use crate::outcome::Stop;
use nix::errno::Errno;
use nix::sys::memfd::{MFdFlags, memfd_create};
use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// A descriptor that a system call has just handed out, or why it has none.
fn made(what: &str, ret: libc::c_long) -> Result<OwnedFd, Stop> {
    match (i32::try_from(ret), Errno::last()) {
        // SAFETY: a new descriptor that nobody else owns.
        (Ok(fd), _) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        (_, Errno::ENOSYS) => Err(Stop::Unsupported(format!("{what}: ENOSYS"))),
        (_, Errno::EPERM) => Err(Stop::Denied(format!("{what}: EPERM (it takes CAP_SYS_ADMIN)"))),
        (_, errno) => Err(Stop::Precondition(format!("{what}: {errno:?}"))),
    }
}

fn sized(file: OwnedFd, len: usize) -> Result<OwnedFd, Stop> {
    let len = i64::try_from(len).unwrap_or(i64::MAX);
    nix::unistd::ftruncate(&file, len).map_err(|e| Stop::Broken(format!("ftruncate: {e:?}")))?;
    Ok(file)
}

/// A file on a tmpfs of its own with the option `huge=always`.
pub(crate) fn huge(len: usize) -> Result<OwnedFd, Stop> {
    on_tmpfs(c"huge", c"always", len)
}

/// A file on a tmpfs of its own that has room for as many base pages.
pub(crate) fn limited(pages: usize, len: usize) -> Result<OwnedFd, Stop> {
    let size = CString::new((pages * PAGE).to_string());
    let size = size.map_err(|_| Stop::Broken("a zero in a number".into()))?;
    on_tmpfs(c"size", &size, len)
}

fn on_tmpfs(key: &CStr, value: &CStr, len: usize) -> Result<OwnedFd, Stop> {
    const SET_STRING: libc::c_uint = 1;
    const CREATE: libc::c_uint = 6;
    const NONE: *const libc::c_char = std::ptr::null();
    // SAFETY: the calls read strings that end with a zero, and numbers.
    unsafe {
        let open = libc::syscall(libc::SYS_fsopen, c"tmpfs".as_ptr(), 0);
        let tmpfs = made("fsopen(tmpfs)", open)?;
        let fd = tmpfs.as_raw_fd();
        let (at, to) = (key.as_ptr(), value.as_ptr());
        let set = libc::syscall(libc::SYS_fsconfig, fd, SET_STRING, at, to, 0);
        let created = libc::syscall(libc::SYS_fsconfig, fd, CREATE, NONE, NONE, 0);
        if set != 0 || created != 0 {
            let why = format!("tmpfs with {key:?}={value:?}: {:?}", Errno::last());
            return Err(Stop::Precondition(why));
        }
        let mount = made("fsmount", libc::syscall(libc::SYS_fsmount, fd, 0, 0))?;
        let flags = libc::O_TMPFILE | libc::O_RDWR | libc::O_CLOEXEC;
        let file = libc::openat(mount.as_raw_fd(), c".".as_ptr(), flags, 0o600);
        sized(made("a file of the tmpfs", file.into())?, len)
    }
}

/// Secret memory: memfd_secret(2), 5.14; before 6.5 it takes the boot option secretmem.enable=1.
pub(crate) fn secret(len: usize) -> Result<OwnedFd, Stop> {
    // SAFETY: takes a number.
    let ret = unsafe { libc::syscall(libc::SYS_memfd_secret, libc::O_CLOEXEC) };
    sized(made("memfd_secret(2)", ret)?, len)
}

/// A memfd that takes seals, or need not.
pub(crate) fn memfd(len: usize) -> Result<OwnedFd, Stop> {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let file = memfd_create("sealable", flags)
        .map_err(|e| Stop::Precondition(format!("memfd_create: {e:?}")))?;
    sized(file, len)
}

/// A memfd of 2 MiB pages. It has no page of the pool promised before it is mapped with a reservation.
pub(crate) fn hugetlb(len: usize) -> Result<OwnedFd, Stop> {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_HUGETLB | MFdFlags::MFD_HUGE_2MB;
    let file = memfd_create("huge", flags)
        .map_err(|e| Stop::Precondition(format!("memfd_create(MFD_HUGETLB): {e:?}")))?;
    sized(file, len)
}
