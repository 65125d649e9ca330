//! What a case does to memory of the arena beside what [`crate::memory`] has: advice, locks, seals,
//! pins, references; and what /proc says of it. One system call each where it is one.

use crate::abi::{Range, Rc, uring};
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
    let rc = Rc::of(unsafe { libc::syscall(libc::SYS_mlock2, at.start, at.len, flags) });
    crate::withheld::locking(rc.0);
    rc
}

/// `munlock(2)`.
pub(crate) fn unlock(at: Range) -> Rc {
    guard(at);
    // SAFETY: unlocks memory of the arena; changes no content.
    Rc::of(unsafe { libc::munlock(at.start as *const _, at.len) }.into())
}

/// `mseal(2)` (6.10): its number is one on all architectures.
pub fn seal(at: Range) -> Rc {
    const MSEAL: libc::c_long = 462;
    guard(at);
    // SAFETY: takes plain numbers; the arena is nobody's but the case's.
    Rc::of(unsafe { libc::syscall(MSEAL, at.start, at.len, 0) })
}

/// `brk(2)`: the end of the heap, which so moves to `to` if the kernel agrees; 0 only asks. Never
/// below where the heap ended when the process began to ask: what malloc has there must stay.
pub(crate) fn brk(to: usize) -> usize {
    static FIRST: std::sync::OnceLock<usize> = std::sync::OnceLock::new();
    // SAFETY: the kernel only tells where the heap ends.
    let ask = || usize::try_from(unsafe { libc::syscall(libc::SYS_brk, 0_usize) }).unwrap_or(0);
    let first = *FIRST.get_or_init(ask);
    if to == 0 {
        return ask();
    }
    assert!(to >= first, "brk below what malloc may use: {to:#x}");
    // SAFETY: only memory behind the heap's end of before comes and goes, which nobody uses.
    usize::try_from(unsafe { libc::syscall(libc::SYS_brk, to) }).unwrap_or(0)
}

/// A System V segment. It goes with its last detach once this is gone.
#[derive(Debug)]
pub(crate) struct Segment(i32);

impl Segment {
    /// Of `len` bytes, of 2 MiB pages or small ones.
    pub(crate) fn new(len: usize, huge: bool) -> Result<Self, Stop> {
        let kind = if huge { libc::SHM_HUGETLB } else { 0 };
        // SAFETY: takes plain numbers.
        let id = unsafe { libc::shmget(libc::IPC_PRIVATE, len, libc::IPC_CREAT | 0o600 | kind) };
        if id >= 0 {
            return Ok(Self(id));
        }
        let what = if huge { "a segment of huge pages" } else { "a System V segment" };
        Err(match Errno::last() {
            Errno::ENOSYS => Stop::Unsupported(format!("{what}: ENOSYS (CONFIG_SYSVIPC)")),
            errno => Stop::Precondition(format!("{what}: {errno:?}")),
        })
    }

    /// `shmat(2)`.
    pub(crate) fn attach(&self, at: Range, flags: i32) -> Rc {
        guard(at);
        // SAFETY: the range lies in the arena, where Rust keeps nothing.
        let ret = unsafe { libc::shmat(self.0, at.start as *const _, flags) };
        if ret as isize == -1 { Rc(Some(Errno::last())) } else { Rc::OK }
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        // SAFETY: takes plain numbers; the segment stays for as long as it is attached.
        unsafe { libc::shmctl(self.0, libc::IPC_RMID, std::ptr::null_mut()) };
    }
}

/// `shmdt(2)`.
pub(crate) fn detach(at: Range) -> Rc {
    guard(at);
    // SAFETY: as for `attach`.
    Rc::of(unsafe { libc::shmdt(at.start as *const _) }.into())
}

/// `remap_file_pages(2)`: the pages show the file from its page `pgoff` on.
pub(crate) fn remap_file_pages(at: Range, pgoff: usize) -> Rc {
    guard(at);
    // SAFETY: replaces mappings of the arena, where Rust keeps nothing.
    Rc::of(unsafe { libc::remap_file_pages(at.start as *mut _, at.len, 0, pgoff, 0) }.into())
}

/// As [`seal`], on kernels that have it.
pub(crate) fn must_seal(at: Range) -> Result<Rc, Stop> {
    match seal(at) {
        Rc(Some(Errno::ENOSYS)) => {
            Err(Stop::Unsupported("mseal(2): ENOSYS (6.10 brought it)".into()))
        }
        rc => Ok(rc),
    }
}

/// Makes `call` while RLIMIT_AS allows no more memory than there is.
pub(crate) fn without_room(call: impl FnOnce() -> Rc) -> Result<Rc, Stop> {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let fail = |e: Errno| Stop::Broken(format!("RLIMIT_AS: {e:?}"));
    let (soft, hard) = getrlimit(Resource::RLIMIT_AS).map_err(fail)?;
    setrlimit(Resource::RLIMIT_AS, crate::memory::PAGE as u64, hard).map_err(fail)?;
    let rc = call();
    setrlimit(Resource::RLIMIT_AS, soft, hard).map_err(fail)?;
    Ok(rc)
}

/// `MADV_HWPOISON`: takes pages away from the machine until it boots again, as if it had met an error of
/// its memory. The kernel reports that to the caller as if it had touched them.
pub fn poison(at: Range) -> Rc {
    const HWPOISON: i32 = 100;
    crate::touch::amid_machine_check(|| crate::memory::advise(at, HWPOISON))
}

/// `MADV_COLLAPSE`, on machines that have memory for it: `SCAN_ALLOC_HUGE_PAGE_FAIL` says nothing of userfaultfd.
pub(crate) fn collapse(at: Range) -> Result<Rc, Stop> {
    match crate::memory::advise(at, COLLAPSE) {
        Rc(Some(Errno::ENOMEM)) => Err(Stop::Precondition(
            "MADV_COLLAPSE: ENOMEM: no 2 MiB of memory in one piece are free".into(),
        )),
        rc => Ok(rc),
    }
}

/// Whether this process may get transparent huge pages.
pub fn allow_huge_pages(allow: bool) -> Rc {
    // SAFETY: this prctl takes plain numbers and concerns only this process.
    Rc::of(
        unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, libc::c_ulong::from(!allow), 0, 0, 0) }
            .into(),
    )
}

/// Pins the pages of `at` for good, as a driver does before DMA: io_uring's registered buffers.
pub fn pin(at: Range) -> Result<Rc, Stop> {
    guard(at);
    let ring = uring::Instance::new(0)
        .map_err(|e| Stop::Precondition(format!("no io_uring to pin with: {e:?}")))?;
    let rc = ring.register_buffer(at);
    // The descriptor stays open for as long as the case, or until `unpin`.
    RING.store(ring.into_fd(), Ordering::Relaxed);
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
