//! A program to run in place of this one: it waits until it is killed.

use super::broken;
use crate::outcome::Stop;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

/// Where [`program`] begins: behind the two headers of its file.
const ENTRY: u64 = 0x0040_0078;

/// The machine's number in ELF files, and code for it: `mov eax, 34 (pause); syscall`, and again.
#[cfg(target_arch = "x86_64")]
const MACHINE: u8 = 62;
#[cfg(target_arch = "x86_64")]
const CODE: &[u8] = &[0xb8, 34, 0, 0, 0, 0x0f, 0x05, 0xeb, 0xf7];

/// The same for arm64, which has no pause: `ppoll` of nothing and for ever, with `x0` to `x3` zero.
#[cfg(target_arch = "aarch64")]
const MACHINE: u8 = 183;
#[cfg(target_arch = "aarch64")]
const CODE: &[u8] = &[
    0x00, 0x00, 0x80, 0xd2, 0x01, 0x00, 0x80, 0xd2, 0x02, 0x00, 0x80, 0xd2, 0x03, 0x00, 0x80, 0xd2,
    0x28, 0x09, 0x80, 0xd2, 0x01, 0x00, 0x00, 0xd4, 0xfa, 0xff, 0xff, 0x17,
];

/// A program that waits until it is killed, in memory.
pub fn program() -> Result<OwnedFd, Stop> {
    let mut image = Vec::with_capacity(0xa0);
    image.extend(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    // An executable, its entry, the program header behind this header, no sections.
    image.extend([2, 0, MACHINE, 0, 1, 0, 0, 0]);
    for word in [ENTRY, 64, 0] {
        image.extend(word.to_le_bytes());
    }
    image.extend([0, 0, 0, 0, 64, 0, 56, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    // One segment to load, readable and executable: the whole file.
    image.extend([1, 0, 0, 0, 5, 0, 0, 0]);
    let size = 0x78 + CODE.len() as u64;
    for word in [0, ENTRY - 0x78, ENTRY - 0x78, size, size, 0x1000_u64] {
        image.extend(word.to_le_bytes());
    }
    image.extend(CODE);
    let flags = nix::sys::memfd::MFdFlags::MFD_CLOEXEC;
    let fd = nix::sys::memfd::memfd_create("program", flags)
        .map_err(|e| Stop::Precondition(format!("memfd_create: {e:?}")))?;
    nix::unistd::write(&fd, &image).map_err(|e| broken("writing a program", e))?;
    Ok(fd)
}

/// Runs [`program`] in place of this one. Comes back only if that fails.
pub fn exec(program: BorrowedFd<'_>) -> Stop {
    let none: [&std::ffi::CStr; 0] = [];
    // By its path: TOMOYO looks up what execveat(2) calls it, which need not be there.
    let path = format!("/proc/self/fd/{}\0", program.as_raw_fd());
    let Ok(path) = std::ffi::CStr::from_bytes_with_nul(path.as_bytes()) else {
        return Stop::Broken("a path with a zero byte".into());
    };
    match nix::unistd::execve(path, &[c"program"], &none) {
        Err(e) => broken("execve", e),
        Ok(never) => match never {},
    }
}
