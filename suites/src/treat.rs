//! What a case does to memory of the arena beside what [`crate::memory`] has: advice, locks, seals,
//! pins, references; and what /proc says of it. One system call each where it is one.

use crate::abi::{Range, Rc};
use crate::memory::guard;
use crate::outcome::Stop;
use nix::errno::Errno;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicI32, Ordering};

/// `MADV_DONTNEED_LOCKED` (5.18).
pub const DONTNEED_LOCKED: i32 = 24;
/// `MADV_COLLAPSE` (6.1), which libc does not name everywhere.
pub const COLLAPSE: i32 = 25;
/// `MADV_GUARD_INSTALL` (6.13).
pub const GUARD_INSTALL: i32 = 102;
/// `MADV_GUARD_REMOVE` (6.13).
pub const GUARD_REMOVE: i32 = 103;

/// `mlock2(2)`; with `MLOCK_ONFAULT` nothing is populated.
pub fn lock(at: Range, flags: libc::c_uint) -> Rc {
    guard(at);
    // SAFETY: locks memory of the arena; changes no content.
    Rc::of(unsafe { libc::syscall(libc::SYS_mlock2, at.start, at.len, flags) })
}

/// `mseal(2)` (6.10): its number is one on all architectures.
pub fn seal(at: Range) -> Rc {
    const MSEAL: libc::c_long = 462;
    guard(at);
    // SAFETY: takes plain numbers; the arena is nobody's but the case's.
    Rc::of(unsafe { libc::syscall(MSEAL, at.start, at.len, 0) })
}

/// Whether this process may get transparent huge pages.
pub fn allow_huge_pages(allow: bool) -> Rc {
    // SAFETY: this prctl takes plain numbers and concerns only this process.
    Rc::of(
        unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, libc::c_ulong::from(!allow), 0, 0, 0) }
            .into(),
    )
}

/// Puts the memory under a protection key that allows everything (pkeys(7)), the same one each time.
pub fn key(at: Range) -> Rc {
    guard(at);
    let mut key = KEY.load(Ordering::Relaxed);
    if key < 0 {
        // SAFETY: takes plain numbers; the key has no restriction.
        let ret = unsafe { libc::syscall(libc::SYS_pkey_alloc, 0, 0) };
        let Ok(new) = i32::try_from(ret) else { return Rc(Some(Errno::EOVERFLOW)) };
        if new < 0 {
            return Rc(Some(Errno::last()));
        }
        KEY.store(new, Ordering::Relaxed);
        key = new;
    }
    // SAFETY: memory of the arena, which stays readable and writable.
    Rc::of(unsafe {
        libc::syscall(libc::SYS_pkey_mprotect, at.start, at.len, crate::memory::RW, key)
    })
}

/// The protection key of [`key`].
static KEY: AtomicI32 = AtomicI32::new(-1);

/// Pins the pages of `at` for good, as a driver does before DMA: io_uring's registered buffers.
pub fn pin(at: Range) -> Result<Rc, Stop> {
    const REGISTER_BUFFERS: libc::c_uint = 0;
    guard(at);
    let mut params = [0_u32; 30];
    // SAFETY: the parameter block is as long as the kernel's struct io_uring_params (120 bytes).
    let fd = unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, params.as_mut_ptr()) };
    let Ok(fd) = i32::try_from(fd) else { return Err(Stop::Broken("io_uring_setup".into())) };
    if fd < 0 {
        return Err(Stop::Precondition(format!("no io_uring to pin with: {:?}", Errno::last())));
    }
    let iov = libc::iovec { iov_base: at.start as *mut _, iov_len: at.len };
    // SAFETY: `iov` is read by the kernel during the call; it describes memory of the arena.
    let rc = Rc::of(unsafe {
        libc::syscall(libc::SYS_io_uring_register, fd, REGISTER_BUFFERS, &raw const iov, 1)
    });
    // The descriptor stays open for as long as the case, or until `unpin`.
    RING.store(fd, Ordering::Relaxed);
    Ok(rc)
}

/// The ring whose buffers are pinned.
static RING: AtomicI32 = AtomicI32::new(-1);

/// Releases what [`pin`] has pinned; the kernel does it a little later, by a thread of its own.
pub fn unpin() -> Rc {
    // SAFETY: the descriptor is this module's own; nobody uses it afterwards.
    Rc::of(unsafe { libc::close(RING.swap(-1, Ordering::Relaxed)) }.into())
}

/// Puts a reference to the pages of `at` into a pipe, where it stays: vmsplice(2).
pub fn splice(at: Range) -> Result<Rc, Stop> {
    guard(at);
    let pipe = nix::unistd::pipe().map_err(|e| Stop::Broken(format!("a pipe: {e:?}")))?;
    let iov = libc::iovec { iov_base: at.start as *mut _, iov_len: at.len };
    // SAFETY: `iov` is read by the kernel during the call; it describes memory of the arena.
    let ret = unsafe { libc::vmsplice(pipe.1.as_raw_fd(), &raw const iov, 1, 0) };
    let rc = if ret < 0 { Rc(Some(Errno::last())) } else { Rc::OK };
    std::mem::forget(pipe);
    Ok(rc)
}

/// What pagemap says of each page of `at`, one letter a page: `-` nothing, `p` present, `P` present
/// and write-protected through userfaultfd, `s` swapped out or a marker, `S` that with write
/// protection, `g` a guard region.
pub fn bits(at: Range, page: usize) -> Result<String, Stop> {
    use std::os::unix::fs::FileExt;
    let fail = |e: std::io::Error| Stop::Broken(format!("reading /proc/self/pagemap: {e}"));
    let file = std::fs::File::open("/proc/self/pagemap").map_err(fail)?;
    let mut out = String::with_capacity(at.len / page);
    for at in (at.start..at.end()).step_by(page) {
        let mut entry = [0; 8];
        file.read_exact_at(&mut entry, (at / crate::memory::PAGE * 8) as u64).map_err(fail)?;
        let entry = u64::from_ne_bytes(entry);
        let has = |bit: u32| entry >> bit & 1 == 1;
        out.push(match (has(63), has(62), has(57), has(58)) {
            (true, _, false, _) => 'p',
            (true, _, true, _) => 'P',
            (_, _, _, true) => 'g',
            (_, true, false, _) => 's',
            (_, true, true, _) => 'S',
            _ => '-',
        });
    }
    Ok(out)
}

/// The kilobytes that `field` of /proc/self/smaps says of the mapping that holds `address`.
pub fn smaps(address: usize, field: &str) -> Result<Option<u64>, Stop> {
    let text = std::fs::read_to_string("/proc/self/smaps")
        .map_err(|e| Stop::Broken(format!("reading /proc/self/smaps: {e}")))?;
    let mut inside = false;
    for line in text.lines() {
        if let Some((start, end)) = crate::evidence::parse_head(line) {
            inside = start <= address && address < end;
        } else if inside && let Some(rest) = line.strip_prefix(field) {
            return Ok(rest
                .trim_start_matches(':')
                .split_whitespace()
                .next()
                .and_then(|n| n.parse().ok()));
        }
    }
    Ok(None)
}
