//! The guest's way out: where it writes its frames.
//!
//! The first choice is a piece of memory that guest and host share (QEMU's ivshmem device): 200 bytes
//! cost 0.6 us, are on the host's side at once and stay there when the guest dies. Driving the second
//! UART's ports directly costs 280 us (each byte is a system call of QEMU), writing to its tty with
//! tcdrain 390 us; a case costs 1 to 3 ms. A kernel without PCI gets the tty.

use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap};
use nix::sys::termios::{self, SetArg};
use std::fs::File;
use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::ptr::NonNull;
use std::sync::atomic::{Ordering, compiler_fence};

/// Bytes of the shared memory. Nothing is written twice: enough for 50,000 cases a boot.
pub(super) const SHARED_SIZE: u64 = 16 << 20;

/// The serial port of kernels without PCI; the first is the console.
const TTY: &str = "/dev/ttyS1";

/// A way out.
pub(super) enum Wire {
    /// Shared memory, with the place of the next byte.
    Shared {
        /// Start of the mapping of [`SHARED_SIZE`] bytes.
        start: NonNull<u8>,
        /// Bytes written.
        at: usize,
    },
    /// A serial port.
    Tty(File),
}

impl Wire {
    /// Opens the best way that there is; needs /sys and /dev.
    pub(super) fn open() -> io::Result<Self> {
        match shared_memory() {
            Ok(wire) => Ok(wire),
            Err(why) => tty().map_err(|error| {
                io::Error::new(
                    error.kind(),
                    format!("no shared memory ({why}), no {TTY} ({error})"),
                )
            }),
        }
    }
}

fn shared_memory() -> io::Result<Wire> {
    let device = find_device(Path::new("/sys/bus/pci/devices"))?;
    std::fs::write(device.join("enable"), "1")?;
    // Where devices' memory takes aligned accesses only, the same memory is to be had as plain one.
    let memory = if cfg!(target_arch = "x86_64") { "resource2" } else { "resource2_wc" };
    let file = File::options().read(true).write(true).open(device.join(memory))?;
    let size = usize::try_from(SHARED_SIZE).ok().and_then(NonZeroUsize::new);
    let size = size.ok_or(io::ErrorKind::InvalidInput)?;
    let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
    // SAFETY: a new mapping at an address of the kernel's choice changes no memory in use.
    let start = unsafe { mmap(None, size, access, MapFlags::MAP_SHARED, file, 0) }?;
    // SAFETY: the range is the mapping just made. The children of this process don't get it: a case
    // that goes astray can't write into the record.
    unsafe { madvise(start, size.get(), MmapAdvise::MADV_DONTFORK) }?;
    Ok(Wire::Shared { start: start.cast(), at: 0 })
}

/// The directory of QEMU's shared-memory device.
fn find_device(devices: &Path) -> io::Result<PathBuf> {
    let is = |directory: &Path, file: &str, id: &str| {
        std::fs::read_to_string(directory.join(file)).is_ok_and(|text| text.trim() == id)
    };
    for entry in std::fs::read_dir(devices)? {
        let path = entry?.path();
        if is(&path, "vendor", "0x1af4") && is(&path, "device", "0x1110") {
            return Ok(path);
        }
    }
    Err(io::Error::new(io::ErrorKind::NotFound, "no such PCI device"))
}

fn tty() -> io::Result<Wire> {
    let file = File::options().write(true).open(TTY)?;
    let mut mode = termios::tcgetattr(&file)?;
    termios::cfmakeraw(&mut mode);
    termios::tcsetattr(&file, SetArg::TCSANOW, &mode)?;
    Ok(Wire::Tty(file))
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Shared { start, at } => {
                let size = usize::try_from(SHARED_SIZE).unwrap_or(usize::MAX);
                // One byte is left: the reader takes a NUL for the end.
                if bytes.len() >= size - *at {
                    return Err(io::Error::new(
                        io::ErrorKind::StorageFull,
                        "the wire's memory is full",
                    ));
                }
                // SAFETY: `at + bytes.len()` is less than the mapping's size, nothing in this process
                // refers to the mapping, and `bytes` is not in it.
                unsafe {
                    start
                        .add(*at)
                        .copy_from_nonoverlapping(NonNull::from(bytes).cast(), bytes.len());
                }
                *at += bytes.len();
                Ok(bytes.len())
            }
            Self::Tty(file) => file.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Shared { .. } => compiler_fence(Ordering::SeqCst),
            Self::Tty(file) => termios::tcdrain(file)?,
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_device_is_found_by_its_ids() {
        let devices = tempfile::tempdir().expect("a directory");
        let add = |slot: &str, vendor: &str, device: &str| {
            let path = devices.path().join(slot);
            std::fs::create_dir(&path).expect("a device");
            std::fs::write(path.join("vendor"), format!("{vendor}\n")).expect("an id");
            std::fs::write(path.join("device"), format!("{device}\n")).expect("an id");
            path
        };
        add("0000:00:00.0", "0x8086", "0x1237");
        add("0000:00:01.0", "0x1af4", "0x1000");
        std::fs::create_dir(devices.path().join("0000:00:03.0")).expect("a device without ids");
        assert!(find_device(devices.path()).is_err());
        let path = add("0000:00:02.0", "0x1af4", "0x1110");
        assert_eq!(find_device(devices.path()).expect("found"), path);
    }
}
