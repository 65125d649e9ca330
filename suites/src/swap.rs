//! A compressed RAM disk (zram) of a VM of ours for one case, and swap space on it.

use crate::memory::PAGE;
use crate::outcome::Stop;
use nix::errno::Errno;
use std::ffi::CStr;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;

/// The disk.
pub(crate) const DEVICE: &CStr = c"/dev/zram0";
const SIZE: usize = 16 << 20;

/// Makes the disk, empty; a precondition where there is no zram.
pub(crate) fn make_disk() -> Result<(), Stop> {
    // Refused on a disk in use. What a case before this one left there must not show.
    let _ = fs::write("/sys/block/zram0/reset", "1");
    fs::write("/sys/block/zram0/disksize", SIZE.to_string()).map_err(|e| no("zram0", &e))
}

fn no(what: &str, e: &dyn std::fmt::Display) -> Stop {
    Stop::Precondition(format!("no RAM disk: {what}: {e} (zram is a module of most kernels)"))
}

/// Swap that is on until this is dropped.
#[derive(Debug)]
pub(crate) struct Swap(());

impl Swap {
    /// Makes the disk and swaps to it; a precondition where there is no zram.
    pub(crate) fn on(disposable: bool) -> Result<Self, Stop> {
        if !disposable {
            return Err(Stop::Precondition("turns swap on: only asked in a VM".into()));
        }
        make_disk()?;
        let disk = File::options().write(true).open("/dev/zram0").map_err(|e| no("zram0", &e))?;
        disk.write_all_at(&header(), 0).map_err(|e| no("writing to zram0", &e))?;
        drop(disk);
        // SAFETY: swapon(2) reads a string that ends with a zero.
        let ret = unsafe { libc::syscall(libc::SYS_swapon, DEVICE.as_ptr(), 0) };
        Errno::result(ret).map_err(|e| no("swapon", &e))?;
        Ok(Self(()))
    }
}

impl Drop for Swap {
    fn drop(&mut self) {
        // SAFETY: swapoff(2) reads a string that ends with a zero.
        let _ = unsafe { libc::syscall(libc::SYS_swapoff, DEVICE.as_ptr()) };
        let _ = fs::write("/sys/block/zram0/reset", "1");
    }
}

/// The first page of a swap space, version 1: at 1024 the version, the last page and the number of
/// bad pages; the magic at the page's end.
fn header() -> Vec<u8> {
    let mut page = vec![0; PAGE];
    let last = u32::try_from(SIZE / PAGE - 1).unwrap_or(0);
    page[1024..1028].copy_from_slice(&1_u32.to_ne_bytes());
    page[1028..1032].copy_from_slice(&last.to_ne_bytes());
    page[PAGE - 10..].copy_from_slice(b"SWAPSPACE2");
    page
}
