//! A page of storage that is reached past the page cache (O_DIRECT): the kernel pins the caller's
//! page and hands it to a device.
//!
//! In a VM of ours a compressed RAM disk, whose block is a page; elsewhere a nameless file on a file
//! system that is known to pin, and not to copy after all (tmpfs) or to fault the buffer in first
//! (btrfs).

use crate::abi::Range;
use crate::memory::PAGE;
use crate::outcome::Stop;
use crate::stage::Stage;
use crate::swap;
use nix::errno::Errno;
use nix::sys::statfs::{EXT4_SUPER_MAGIC, XFS_SUPER_MAGIC, fstatfs};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// The storage.
#[derive(Debug)]
pub(crate) struct Storage(File);

/// A buffer that a block device takes.
#[repr(C, align(4096))]
struct Buffer([u64; PAGE / 8]);

impl Storage {
    /// Makes one; a precondition where nothing is known to take O_DIRECT as asked for.
    pub(crate) fn new(stage: &Stage) -> Result<Self, Stop> {
        let (path, flags) = if stage.disposable {
            swap::make_disk()?;
            (PathBuf::from("/dev/zram0"), 0)
        } else {
            (std::env::temp_dir(), libc::O_TMPFILE)
        };
        let file = File::options()
            .read(true)
            .write(true)
            .custom_flags(flags | libc::O_DIRECT | libc::O_CLOEXEC)
            .open(&path)
            .map_err(|e| missing(&path, &e))?;
        if !stage.disposable {
            let kind = fstatfs(&file).map_err(|e| missing(&path, &e))?.filesystem_type();
            if ![EXT4_SUPER_MAGIC, XFS_SUPER_MAGIC].contains(&kind) {
                return Err(missing(&path, &"neither ext4 nor XFS"));
            }
        }
        Ok(Self(file))
    }

    /// Stores a page that begins with `value`.
    ///
    /// Not inlined: whoever starts a waiter of another kind would have this page on its stack, too, and each
    /// case fault it in.
    #[inline(never)]
    pub(crate) fn fill(&self, value: u64) -> Result<(), Errno> {
        let mut buffer = Buffer([0; PAGE / 8]);
        buffer.0[0] = value;
        self.write_from(Range { start: (&raw const buffer) as usize, len: PAGE })
    }

    /// What the stored page begins with.
    #[inline(never)]
    pub(crate) fn value(&self) -> Result<u64, Errno> {
        let mut buffer = Buffer([0; PAGE / 8]);
        self.read_into(Range { start: (&raw mut buffer) as usize, len: PAGE })?;
        Ok(buffer.0[0])
    }

    /// pread(2) of the stored page to the head of `page`: the caller's, or of the arena.
    pub(crate) fn read_into(&self, page: Range) -> Result<(), Errno> {
        // SAFETY: the kernel checks the buffer, which is the caller's own or lies in the arena, where
        // Rust keeps nothing.
        whole(unsafe { libc::pread(self.0.as_raw_fd(), page.start as *mut _, PAGE, 0) })
    }

    /// pwrite(2) of the head of `page`.
    pub(crate) fn write_from(&self, page: Range) -> Result<(), Errno> {
        // SAFETY: as above; the kernel only reads.
        whole(unsafe { libc::pwrite(self.0.as_raw_fd(), page.start as *const _, PAGE, 0) })
    }
}

fn whole(ret: isize) -> Result<(), Errno> {
    match Errno::result(ret)? {
        n if n.cast_unsigned() == PAGE => Ok(()),
        _ => Err(Errno::EIO),
    }
}

fn missing(path: &Path, why: &dyn std::fmt::Display) -> Stop {
    Stop::Precondition(format!("no storage for O_DIRECT in {}: {why}", path.display()))
}
