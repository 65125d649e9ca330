//! The allocator of a case's process: it only moves a pointer through memory that was mapped before.
//!
//! A case must not map, unmap or grow anything of its own between set-up and evidence: that would
//! raise events, or land in a hole under test. Besides, a forked child that takes memory from its
//! parent's heap copies a page for nearly every piece. Before [`enter`] it is the system's allocator.

use std::alloc::{GlobalAlloc, Layout, System};
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};

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
        take(layout).unwrap_or_else(|| unsafe { System.alloc(layout) })
    }

    unsafe fn dealloc(&self, piece: *mut u8, layout: Layout) {
        let start = START.load(Ordering::Relaxed);
        if start == 0 || !(start..start + SIZE).contains(&piece.addr()) {
            // SAFETY: not a piece of ours, so the system allocator's.
            unsafe { System.dealloc(piece, layout) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
