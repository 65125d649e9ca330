//! System calls that reach a page in some way: those that fault it in, and so may wait, and those
//! that never do.

use crate::abi::{Range, Uffd};
use crate::access::Access;
use crate::memory::{PAGE, guard};
use crate::outcome::Stop;
use nix::errno::Errno;
use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;

/// A way to reach the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Call {
    // Those that wait: the kernel stores to the page.
    GetRandom,
    Uname,
    ClockGetTime,
    Pipe,
    MincoreVector,
    GetCwd,
    PreadFile,
    EpollWait,
    // The kernel loads from the page.
    Stat,
    Nanosleep,
    SigMask,
    PwriteFile,
    Send,
    SendfileOffset,
    IovecArray,
    // get_user_pages() and its kin.
    Vmsplice,
    FutexRequeue,
    CopySource,
    // Those that never wait.
    Mincore,
    Pagemap,
    Smaps,
    WillNeed,
    Cold,
    Msync,
    LockOnFault,
    MovePages,
    FutexWake,
    FutexWakeOp,
    FutexLockPi,
    Prefetch,
    ProcMemRead,
    ProcMemWrite,
    ClearRefs,
    ExitWithRobustList,
    ExitWithClearTid,
}

use Call::{
    ClearRefs, ClockGetTime, Cold, CopySource, EpollWait, ExitWithClearTid, ExitWithRobustList,
    FutexLockPi, FutexRequeue, FutexWake, FutexWakeOp, GetCwd, GetRandom, IovecArray, LockOnFault,
    Mincore, MincoreVector, MovePages, Msync, Nanosleep, Pagemap, Pipe, PreadFile, Prefetch,
    ProcMemRead, ProcMemWrite, PwriteFile, Send, SendfileOffset, SigMask, Smaps, Stat, Uname,
    Vmsplice, WillNeed,
};

impl Call {
    /// Those that wait, with what they return once the page is there and whether they store.
    pub(super) const WAIT: &'static [(Self, &'static str, bool)] = &[
        (GetRandom, "ran", true),
        (Uname, "ran", true),
        (ClockGetTime, "ran", true),
        (Pipe, "ran", true),
        (MincoreVector, "ran", true),
        (GetCwd, "ran", true),
        (PreadFile, "ran", true),
        (EpollWait, "ran", true),
        (Stat, "ENOENT", false),
        (Nanosleep, "ran", false),
        (SigMask, "ran", false),
        (PwriteFile, "ran", false),
        (Send, "ran", false),
        (SendfileOffset, "ran", false),
        (IovecArray, "ran", false),
        (Vmsplice, "ran", false),
        (FutexRequeue, "EAGAIN", false),
        (CopySource, "ran", false),
    ];

    /// Those that never wait, with what they return.
    pub(super) const NEVER: &'static [(Self, &'static str)] = &[
        (Mincore, "ran"),
        (Pagemap, "ran"),
        (Smaps, "ran"),
        (WillNeed, "ran"),
        (Cold, "ran"),
        (Msync, "ran"),
        (LockOnFault, "ran"),
        (MovePages, "ran"),
        (FutexWake, "ran"),
        (FutexWakeOp, "EFAULT"),
        (FutexLockPi, "EFAULT"),
        (Prefetch, "ran"),
        (ProcMemRead, "EIO"),
        (ProcMemWrite, "EIO"),
        (ClearRefs, "ran"),
        (ExitWithRobustList, "ran"),
        (ExitWithClearTid, "ran"),
    ];

    /// The word used in case ids.
    pub(super) const fn word(self) -> &'static str {
        match self {
            GetRandom => "getrandom",
            Uname => "uname",
            ClockGetTime => "clock-gettime",
            Pipe => "pipe",
            MincoreVector => "mincore-vector",
            GetCwd => "getcwd",
            PreadFile => "pread-file",
            EpollWait => "epoll-wait",
            Stat => "stat-path",
            Nanosleep => "nanosleep",
            SigMask => "sigprocmask",
            PwriteFile => "pwrite-file",
            Send => "send",
            SendfileOffset => "sendfile-offset",
            IovecArray => "iovec-array",
            Vmsplice => "vmsplice",
            FutexWakeOp => "futex-wake-op",
            FutexLockPi => "futex-lock-pi",
            FutexRequeue => "futex-cmp-requeue",
            CopySource => "copy-source",
            Mincore => "mincore",
            Pagemap => "pagemap",
            Smaps => "smaps",
            WillNeed => "willneed",
            Cold => "cold",
            Msync => "msync",
            LockOnFault => "lock-on-fault",
            MovePages => "move-pages-query",
            FutexWake => "futex-wake",
            Prefetch => "prefetch",
            ProcMemRead => "proc-mem-read",
            ProcMemWrite => "proc-mem-write",
            ClearRefs => "clear-refs",
            ExitWithRobustList => "thread-exit-robust-list",
            ExitWithClearTid => "thread-exit-clear-tid",
        }
    }
}

/// A call with what it needs, made before.
#[derive(Debug)]
pub(super) struct Ready {
    call: Call,
    page: Range,
    /// A second page of the block that is present, or missing for COPY's destination.
    other: Range,
    one: Option<OwnedFd>,
    two: Option<OwnedFd>,
    uffd: Option<Uffd>,
}

fn fail(what: &str, e: impl std::fmt::Debug) -> Stop {
    Stop::Broken(format!("{what} for the call: {e:?}"))
}

impl Ready {
    /// Makes what the call needs. `other` is a page that COPY may fill.
    pub(super) fn new(call: Call, page: Range, other: Range, uffd: &Uffd) -> Result<Self, Stop> {
        guard(page);
        let mut ready = Self { call, page, other, one: None, two: None, uffd: None };
        let proc_file = |path: &str, write: bool| {
            File::options()
                .read(!write)
                .write(write)
                .open(path)
                .map(OwnedFd::from)
                .map_err(|e| fail(path, e))
        };
        match call {
            PreadFile | PwriteFile | SendfileOffset => {
                let flags = nix::sys::memfd::MFdFlags::MFD_CLOEXEC;
                let file =
                    nix::sys::memfd::memfd_create("call", flags).map_err(|e| fail("memfd", e))?;
                nix::sys::uio::pwrite(&file, &[7; 64], 0).map_err(|e| fail("pwrite", e))?;
                ready.one = Some(file);
                let (read, write) = nix::unistd::pipe().map_err(|e| fail("a pipe", e))?;
                ready.two = Some(write);
                // Its other end must stay open.
                std::mem::forget(read);
            }
            IovecArray | Vmsplice | Send => {
                let (read, write) = nix::unistd::pipe().map_err(|e| fail("a pipe", e))?;
                (ready.one, ready.two) = (Some(read), Some(write));
            }
            EpollWait => {
                let (read, write) = nix::unistd::pipe().map_err(|e| fail("a pipe", e))?;
                // SAFETY: plain numbers, and an event that lives through the call.
                let epoll = unsafe {
                    let epoll = libc::epoll_create1(libc::EPOLL_CLOEXEC);
                    let mut event =
                        libc::epoll_event { events: libc::EPOLLOUT.cast_unsigned(), u64: 0 };
                    libc::epoll_ctl(epoll, libc::EPOLL_CTL_ADD, write.as_raw_fd(), &raw mut event);
                    epoll
                };
                if epoll < 0 {
                    return Err(fail("epoll", Errno::last()));
                }
                // SAFETY: the kernel has just handed out this descriptor.
                ready.one = Some(unsafe { std::os::fd::FromRawFd::from_raw_fd(epoll) });
                ready.two = Some(write);
                // Its other end must stay open.
                std::mem::forget(read);
            }
            CopySource => ready.uffd = Some(uffd.duplicate().map_err(|e| fail("dup", e))?),
            Pagemap => ready.one = Some(proc_file("/proc/self/pagemap", false)?),
            Smaps => ready.one = Some(proc_file("/proc/self/smaps", false)?),
            ProcMemRead => ready.one = Some(proc_file("/proc/self/mem", false)?),
            ProcMemWrite => ready.one = Some(proc_file("/proc/self/mem", true)?),
            ClearRefs => ready.one = Some(proc_file("/proc/self/clear_refs", true)?),
            _ => {}
        }
        Ok(ready)
    }

    fn fd(&self) -> i32 {
        self.one.as_ref().map_or(-1, AsRawFd::as_raw_fd)
    }

    fn fd2(&self) -> i32 {
        self.two.as_ref().map_or(-1, AsRawFd::as_raw_fd)
    }

    /// A read or write of a file of /proc through an ordinary buffer.
    fn through_file(&self) -> Access {
        let Some(fd) = self.one.as_ref().and_then(|fd| fd.try_clone().ok()) else {
            return Access::Failed(Errno::EBADF);
        };
        let file = File::from(fd);
        let mut buffer = [0_u8; 512];
        let at = self.page.start as u64;
        let done = match self.call {
            Pagemap => file.read_at(&mut buffer[..8], at / PAGE as u64 * 8),
            ProcMemRead => file.read_at(&mut buffer[..8], at),
            ProcMemWrite => file.write_at(&buffer[..8], at),
            ClearRefs => file.write_at(b"1", 0),
            // The block's mapping is among the first.
            _ => file.read_at(&mut buffer, 0),
        };
        match done {
            Ok(_) => Access::Ran(None),
            Err(e) => Access::Failed(Errno::from_raw(e.raw_os_error().unwrap_or(libc::EIO))),
        }
    }

    /// Makes the call; the last thing that its thread does.
    pub(super) fn go(&self) -> Access {
        let Self { call, page, other, .. } = self;
        let (at, len) = (page.start, page.len);
        let (fd, fd2) = (self.fd(), self.fd2());
        let null = std::ptr::null::<u8>();
        // What COPY brings begins with a tag of eight bytes; zeros follow.
        let zeros = at + 8;
        if let (CopySource, Some(uffd)) = (call, &self.uffd) {
            return match uffd.copy(*other, at, 0).0.0 {
                None => Access::Ran(None),
                Some(errno) => Access::Failed(errno),
            };
        }
        // SAFETY: every address that the kernel may store to lies in the arena, where Rust keeps
        // nothing; the rest are plain numbers and vectors that live through the call.
        let ret: libc::c_long = unsafe {
            match call {
                GetRandom => libc::syscall(libc::SYS_getrandom, at, 8, 0),
                Uname => libc::syscall(libc::SYS_uname, at),
                ClockGetTime => libc::syscall(libc::SYS_clock_gettime, libc::CLOCK_MONOTONIC, at),
                Pipe => libc::syscall(libc::SYS_pipe2, at, libc::O_CLOEXEC),
                MincoreVector => libc::syscall(libc::SYS_mincore, other.start, other.len, at),
                GetCwd => libc::syscall(libc::SYS_getcwd, at, len),
                PreadFile => libc::syscall(libc::SYS_pread64, fd, at, 64, 0),
                EpollWait => epoll_wait(fd, at),
                Stat => access(at),
                Nanosleep => libc::syscall(libc::SYS_nanosleep, zeros, null),
                SigMask => libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_BLOCK, at, null, 8),
                PwriteFile => libc::syscall(libc::SYS_pwrite64, fd, at, 64, 0),
                Send => libc::syscall(libc::SYS_write, fd2, at, 64),
                SendfileOffset => libc::syscall(libc::SYS_sendfile, fd2, fd, zeros, 8),
                IovecArray => libc::syscall(libc::SYS_writev, fd2, zeros, 1),
                Vmsplice => {
                    let vector = libc::iovec { iov_base: at as *mut _, iov_len: 8 };
                    libc::syscall(libc::SYS_vmsplice, fd2, &raw const vector, 1, 0)
                }
                // FUTEX_WAKE_OP that adds 0 to the second word, which is the page's.
                FutexWakeOp => libc::syscall(
                    libc::SYS_futex,
                    other.start,
                    libc::FUTEX_WAKE_OP | libc::FUTEX_PRIVATE_FLAG,
                    0,
                    0,
                    at,
                    libc::FUTEX_OP_ADD << 28,
                ),
                FutexLockPi => libc::syscall(
                    libc::SYS_futex,
                    at,
                    libc::FUTEX_LOCK_PI | libc::FUTEX_PRIVATE_FLAG,
                    0,
                    null,
                ),
                FutexRequeue => libc::syscall(
                    libc::SYS_futex,
                    at,
                    libc::FUTEX_CMP_REQUEUE | libc::FUTEX_PRIVATE_FLAG,
                    0,
                    0,
                    other.start,
                    0x7e7e_7e7e_u32,
                ),
                Mincore => {
                    let mut vector = [0_u8; 8];
                    libc::syscall(libc::SYS_mincore, at, len, vector.as_mut_ptr())
                }
                WillNeed => libc::syscall(libc::SYS_madvise, at, len, libc::MADV_WILLNEED),
                Cold => libc::syscall(libc::SYS_madvise, at, len, libc::MADV_COLD),
                Msync => libc::syscall(libc::SYS_msync, at, len, libc::MS_SYNC),
                LockOnFault => {
                    let rc = crate::treat::lock(*page, libc::MLOCK_ONFAULT as libc::c_uint);
                    return rc.0.map_or(Access::Ran(None), Access::Failed);
                }
                MovePages => {
                    let (pages, mut status) = ([at], [0_i32]);
                    libc::syscall(
                        libc::SYS_move_pages,
                        0,
                        1,
                        pages.as_ptr(),
                        null,
                        status.as_mut_ptr(),
                        0,
                    )
                }
                FutexWake => libc::syscall(
                    libc::SYS_futex,
                    at,
                    libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG,
                    1,
                ),
                Prefetch => {
                    prefetch(at);
                    0
                }
                // A thread that ends walks its robust list, and clears the word of its id.
                ExitWithRobustList => libc::syscall(libc::SYS_set_robust_list, at, 24),
                ExitWithClearTid => libc::syscall(libc::SYS_set_tid_address, at),
                CopySource | Pagemap | Smaps | ProcMemRead | ProcMemWrite | ClearRefs => {
                    return self.through_file();
                }
            }
        };
        if ret == -1 { Access::Failed(Errno::last()) } else { Access::Ran(None) }
    }

    /// Whether the thread's end is part of the question.
    pub(super) const fn ends_thread(&self) -> bool {
        matches!(self.call, ExitWithRobustList | ExitWithClearTid)
    }
}

/// `epoll_wait(2)`, whose events the kernel stores to `at`.
unsafe fn epoll_wait(fd: i32, at: usize) -> libc::c_long {
    // SAFETY: for the caller to see to.
    unsafe {
        #[cfg(target_arch = "x86_64")]
        return libc::syscall(libc::SYS_epoll_wait, fd, at, 1, 0);
        #[cfg(not(target_arch = "x86_64"))]
        return libc::syscall(libc::SYS_epoll_pwait, fd, at, 1, 0, 0, 8);
    }
}

/// `access(2)` of the path at `at`.
unsafe fn access(at: usize) -> libc::c_long {
    // SAFETY: for the caller to see to.
    unsafe {
        #[cfg(target_arch = "x86_64")]
        return libc::syscall(libc::SYS_access, at, libc::F_OK);
        #[cfg(not(target_arch = "x86_64"))]
        return libc::syscall(libc::SYS_faccessat, libc::AT_FDCWD, at, libc::F_OK);
    }
}

/// Hints at a load from `at`.
unsafe fn prefetch(at: usize) {
    // SAFETY: a hint loads nothing that can be seen, and never faults.
    unsafe {
        #[cfg(target_arch = "x86_64")]
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(at as *const i8);
        #[cfg(target_arch = "aarch64")]
        std::arch::asm!("prfm pldl1keep, [{0}]", in(reg) at, options(nostack, readonly));
    }
}
