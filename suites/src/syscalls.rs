//! System calls on memory that some cases make beside those of [`crate::memory`], and signals that
//! are to be survived.

use crate::abi::{Range, Rc};
use crate::memory::{PAGE, guard};
use std::sync::atomic::{AtomicU32, Ordering};

/// `MADV_DONTNEED_LOCKED` (5.18), which libc does not name for every target.
pub const MADV_DONTNEED_LOCKED: i32 = 24;
/// `MADV_GUARD_INSTALL` (6.13).
pub const MADV_GUARD_INSTALL: i32 = 102;

/// `mlock(2)` in the arena.
pub fn lock(at: Range) -> Rc {
    guard(at);
    // SAFETY: locks memory of the arena; changes no content.
    Rc::of(unsafe { libc::mlock(at.start as *const _, at.len) }.into())
}

/// Moves the end of the heap by whole pages. A case's process allocates elsewhere
/// ([`crate::bump`]), so what a case adds is the case's to take away again. The pages added, or the
/// errno.
pub fn grow_heap(pages: usize) -> Result<Range, nix::errno::Errno> {
    let len = pages * PAGE;
    // SAFETY: only reads the heap's end.
    let end = unsafe { libc::sbrk(0) } as usize;
    let start = end.next_multiple_of(PAGE);
    let by = isize::try_from(start + len - end).unwrap_or(0);
    // SAFETY: adds memory behind the heap's end, which nobody uses.
    let old = unsafe { libc::sbrk(by) };
    if old as isize == -1 { Err(nix::errno::Errno::last()) } else { Ok(Range { start, len }) }
}

/// Takes away the last pages of what [`grow_heap`] has added.
pub fn shrink_heap(by: usize) -> Rc {
    let by = isize::try_from(by * PAGE).unwrap_or(0);
    // SAFETY: takes away memory that `grow_heap` added and that holds nothing of Rust's.
    let old = unsafe { libc::sbrk(-by) };
    Rc::of(if old as isize == -1 { -1 } else { 0 })
}

static NOTED: AtomicU32 = AtomicU32::new(0);

extern "C" fn note(_: i32) {
    NOTED.fetch_add(1, Ordering::SeqCst);
}

/// The signal that [`take_signals`] makes harmless.
pub const HARMLESS: i32 = libc::SIGUSR1;

/// Lets the calling thread take [`HARMLESS`], which then only counts.
pub fn take_signals() -> Rc {
    // SAFETY: an all-zero sigaction is valid; the handler is async-signal-safe. The sets live on
    // the stack.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = note as *const () as usize;
        let ret = libc::sigaction(HARMLESS, &raw const action, std::ptr::null_mut());
        if ret != 0 {
            return Rc::of(-1);
        }
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, HARMLESS);
        Rc::of(libc::sigprocmask(libc::SIG_UNBLOCK, &raw const set, std::ptr::null_mut()).into())
    }
}

/// Sends [`HARMLESS`] to a thread of this process.
pub fn signal_thread(tid: i32) -> Rc {
    // SAFETY: plain numbers; the signal is handled or blocked in every thread.
    Rc::of(unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), tid, HARMLESS) })
}

/// How often the handler ran.
pub fn signals_taken() -> u32 {
    NOTED.load(Ordering::SeqCst)
}
