//! The allocator of a case's process: it only moves a pointer through memory that was mapped before.
//!
//! A case must not map, unmap or grow anything of its own between set-up and evidence: that would
//! raise events, or land in a hole under test. Besides, a forked child that takes memory from its
//! parent's heap copies a page for nearly every piece. Before [`enter`] it is the system's allocator.

use std::alloc::{GlobalAlloc, Layout, System};
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Bytes for one case: many times what one takes.
pub const SIZE: usize = 1 << 20;

static START: AtomicUsize = AtomicUsize::new(0);
static NEXT: AtomicUsize = AtomicUsize::new(0);

/// The program's allocator.
#[derive(Debug)]
pub struct Bump;

/// From now on this process allocates in `start..start + SIZE`, which is mapped and unused, and
/// never frees. For a process that ends soon.
///
/// # Safety
/// The range must be mapped, writable, and nobody else's for as long as the process lives.
pub unsafe fn enter(start: usize) {
    START.store(start, Ordering::Relaxed);
    NEXT.store(start, Ordering::Release);
}

/// Room for what is kept, in bytes; only what is used takes memory.
const KEPT: usize = 512 << 20;

static KEEPS: AtomicBool = AtomicBool::new(false);
static KEEP: OnceLock<Option<usize>> = OnceLock::new();
static KEEP_NEXT: AtomicUsize = AtomicUsize::new(0);

/// Runs `make`, and keeps all memory that it takes for as long as the process lives, where fork(2)
/// does not copy it page by page: a process that forks for each of its cases would copy thousands of
/// pages each time. For a process with one thread.
pub fn keeping<T>(make: impl FnOnce() -> T) -> T {
    let start = *KEEP.get_or_init(map_shared);
    let before = KEEPS.swap(start.is_some(), Ordering::Relaxed);
    let value = make();
    KEEPS.store(before, Ordering::Relaxed);
    value
}

fn kept(layout: Layout) -> Option<*mut u8> {
    if !KEEPS.load(Ordering::Relaxed) {
        return None;
    }
    let start = (*KEEP.get()?)?;
    let room = layout.size() + layout.align();
    let used = KEEP_NEXT.fetch_add(room, Ordering::Relaxed);
    let at = (start + used).next_multiple_of(layout.align());
    (used + room <= KEPT).then(|| ptr::with_exposed_provenance_mut(at))
}

fn is_kept(piece: *mut u8) -> bool {
    let start = KEEP.get().copied().flatten();
    start.is_some_and(|start| (start..start + KEPT).contains(&piece.addr()))
}

fn map_shared() -> Option<usize> {
    let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    let prot = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: a fresh mapping at an address that the kernel chooses; never unmapped.
    let at = unsafe { libc::mmap(ptr::null_mut(), KEPT, prot, flags, -1, 0) };
    (at != libc::MAP_FAILED).then(|| at.expose_provenance())
}

fn take(layout: Layout) -> Option<*mut u8> {
    let start = START.load(Ordering::Relaxed);
    if start == 0 {
        return None;
    }
    let mut next = NEXT.load(Ordering::Relaxed);
    loop {
        let at = next.next_multiple_of(layout.align());
        let end = at.checked_add(layout.size())?;
        if end > start + SIZE {
            return None;
        }
        match NEXT.compare_exchange_weak(next, end, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => return Some(ptr::with_exposed_provenance_mut(at)),
            Err(seen) => next = seen,
        }
    }
}

// SAFETY: pieces are disjoint, aligned and as long as asked for; what does not fit, and everything
// before `enter`, is the system allocator's.
unsafe impl GlobalAlloc for Bump {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: passed on as it came.
        kept(layout).or_else(|| take(layout)).unwrap_or_else(|| unsafe { System.alloc(layout) })
    }

    unsafe fn dealloc(&self, piece: *mut u8, layout: Layout) {
        let start = START.load(Ordering::Relaxed);
        let is_bumped = start != 0 && (start..start + SIZE).contains(&piece.addr());
        if !is_bumped && !is_kept(piece) {
            // SAFETY: not a piece of ours, so the system allocator's.
            unsafe { System.dealloc(piece, layout) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_shared_with_children() {
        crate::testing::isolated(|_| {
            let layout = Layout::from_size_align(8, 8).expect("layout");
            assert!(kept(layout).is_none());
            let piece = keeping(|| kept(layout)).expect("room");
            assert!(piece.addr().is_multiple_of(8) && is_kept(piece) && kept(layout).is_none());
            // SAFETY: the piece has room for a byte and is nobody else's.
            unsafe { piece.write(7) };
            let child = crate::process::fork(|| {
                // SAFETY: as above; the parent waits meanwhile.
                unsafe { piece.write(8) };
                0
            });
            nix::sys::wait::waitpid(child.expect("fork"), None).expect("waitpid");
            // SAFETY: as above.
            assert_eq!(unsafe { piece.read() }, 8);
        });
    }

    #[test]
    fn pieces_are_aligned_disjoint_and_end_with_the_memory() {
        let memory = vec![0_u8; SIZE];
        crate::testing::isolated(|_| {
            // SAFETY: the vector lives to the end of the process and is used by nobody else.
            unsafe { enter(memory.as_ptr().expose_provenance()) };
            let layout = |size, align| Layout::from_size_align(size, align).expect("layout");
            let one = take(layout(3, 1)).expect("room");
            let two = take(layout(8, 64)).expect("room");
            assert!(two.addr().is_multiple_of(64) && two.addr() >= one.addr() + 3);
            assert!(take(layout(SIZE, 1)).is_none());
        });
    }
}
