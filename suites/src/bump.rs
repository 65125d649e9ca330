//! The allocator of a case's process: it only moves a pointer through memory that was mapped before.
//!
//! A case must not map, unmap or grow anything of its own between set-up and evidence: that would
//! raise events, or land in a hole under test. Besides, a forked child that takes memory from its
//! parent's heap copies a page for nearly every piece. Before [`enter`] it is the system's allocator.

use crate::memory::{HUGE, RW};
use nix::errno::Errno;
use std::alloc::{GlobalAlloc, Layout, System};
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Bytes for one case: many times what one takes.
pub const SIZE: usize = 1 << 20;

/// What a case's process has used. Together, since it copies each page that it writes to.
static CASE: Case =
    Case { start: AtomicUsize::new(0), next: AtomicUsize::new(0), stacks: AtomicUsize::new(0) };

#[derive(Debug)]
struct Case {
    start: AtomicUsize,
    next: AtomicUsize,
    stacks: AtomicUsize,
}

/// The program's allocator.
#[derive(Debug)]
pub struct Bump;

/// From now on this process allocates in `start..start + SIZE`, which is mapped and unused, and
/// never frees. For a process that ends soon.
///
/// # Safety
/// The range must be mapped, writable, and nobody else's for as long as the process lives.
pub unsafe fn enter(start: usize) {
    CASE.start.store(start, Ordering::Relaxed);
    CASE.next.store(start, Ordering::Release);
}

/// How many stacks this process has taken before.
pub(crate) fn next_stack() -> usize {
    CASE.stacks.fetch_add(1, Ordering::Relaxed)
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
    let start = *KEEP.get_or_init(map_kept);
    with(start.is_some(), make)
}

/// Runs `make` with memory of the system's allocator, as it is without [`keeping`]: fork(2) copies it, so a case's
/// process need not fault in what it reads there.
pub fn copying<T>(make: impl FnOnce() -> T) -> T {
    with(false, make)
}

fn with<T>(keeps: bool, make: impl FnOnce() -> T) -> T {
    let before = KEEPS.swap(keeps, Ordering::Relaxed);
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

/// Shared memory, whose page tables fork leaves out. In huge pages, where the kernel has them for it: a guest
/// would else fault in ten thousand pages before its first case.
fn map_kept() -> Option<usize> {
    let start = room(KEPT, 0).and_then(|at| map(Some(at), KEPT, RW, libc::MAP_SHARED)).ok()?;
    // SAFETY: advice on a mapping of our own; a kernel that does not take it makes do with small pages.
    unsafe { libc::madvise(ptr::with_exposed_provenance_mut(start), KEPT, libc::MADV_HUGEPAGE) };
    Some(start)
}

/// Leaves what outlives all cases out of a core dump of this process: the kernel would fault in each of its pages.
pub(crate) fn keep_out_of_dumps() {
    if let Some(start) = KEEP.get().copied().flatten() {
        let start = ptr::with_exposed_provenance_mut(start);
        // SAFETY: advice on a mapping of our own, which changes no content.
        unsafe { libc::madvise(start, KEPT, libc::MADV_DONTDUMP) };
    }
}

/// New anonymous memory that takes room only where it is used: at an address that the kernel chooses, or in place of
/// unused room of the caller's.
pub(crate) fn map(at: Option<usize>, len: usize, prot: i32, kind: i32) -> nix::Result<usize> {
    let fixed = at.map_or(0, |_| libc::MAP_FIXED);
    let flags = kind | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | fixed;
    let at = ptr::with_exposed_provenance_mut(at.unwrap_or(0));
    // SAFETY: replaces nothing but unused room.
    let at = unsafe { libc::mmap(at, len, prot, flags, -1, 0) };
    if at == libc::MAP_FAILED { Err(Errno::last()) } else { Ok(at.expose_provenance()) }
}

/// Room of `len` bytes that nobody can use yet, of which those from `head` on begin as a huge page does.
pub(crate) fn room(len: usize, head: usize) -> nix::Result<usize> {
    let whole = len + HUGE;
    let start = map(None, whole, libc::PROT_NONE, libc::MAP_PRIVATE)?;
    let begin = (start + head).next_multiple_of(HUGE) - head;
    for (from, to) in [(start, begin), (begin + len, start + whole)] {
        if from < to {
            let at = ptr::with_exposed_provenance_mut(from);
            // SAFETY: a part of the mapping made above that nobody has got.
            Errno::result(unsafe { libc::munmap(at, to - from) })?;
        }
    }
    Ok(begin)
}

/// Bytes for what passes.
pub(crate) const PASSING: usize = 1 << 20;

/// Address of the memory for what passes, once there is one.
static PASS: AtomicUsize = AtomicUsize::new(0);

/// How far it is used, in front of it: fork has whoever runs cases copy each page of its own that it writes to
/// between two of them.
#[derive(Debug)]
struct Passing {
    on: AtomicBool,
    used: AtomicUsize,
}

/// From now on [`passing`] takes its memory at `start`.
///
/// # Safety
/// [`PASSING`] bytes of zeros must be mapped there, shared with children, for as long as the process lives, and be
/// nobody else's.
pub(crate) unsafe fn pass_at(start: usize) {
    PASS.store(start, Ordering::Release);
}

/// Runs `work` with memory that is forgotten when it ends, and that fork(2) does not copy: what a process makes of
/// one case's outcome costs no other case anything. For a process with one thread.
///
/// # Safety
/// Nothing that `work` has taken memory for may be used afterwards.
pub unsafe fn passing(work: impl FnOnce()) {
    let Some(head) = head() else { return work() };
    head.on.store(true, Ordering::Relaxed);
    work();
    head.on.store(false, Ordering::Relaxed);
    head.used.store(size_of::<Passing>(), Ordering::Relaxed);
}

fn head() -> Option<&'static Passing> {
    let start = PASS.load(Ordering::Relaxed);
    // SAFETY: `pass_at` has been promised zeros that stay mapped, and these words are its head.
    (start != 0).then(|| unsafe { &*ptr::with_exposed_provenance::<Passing>(start) })
}

fn passed(layout: Layout) -> Option<*mut u8> {
    let head = head().filter(|head| head.on.load(Ordering::Relaxed))?;
    let start = PASS.load(Ordering::Relaxed);
    let used = head.used.load(Ordering::Relaxed).max(size_of::<Passing>());
    let at = (start + used).next_multiple_of(layout.align());
    let end = at.checked_add(layout.size())?;
    if end > start + PASSING {
        return None;
    }
    head.used.store(end - start, Ordering::Relaxed);
    Some(ptr::with_exposed_provenance_mut(at))
}

fn is_passed(piece: *mut u8) -> bool {
    let start = PASS.load(Ordering::Relaxed);
    start != 0 && (start..start + PASSING).contains(&piece.addr())
}

fn take(layout: Layout) -> Option<*mut u8> {
    let start = CASE.start.load(Ordering::Relaxed);
    if start == 0 {
        return None;
    }
    let mut next = CASE.next.load(Ordering::Relaxed);
    loop {
        let at = next.next_multiple_of(layout.align());
        let end = at.checked_add(layout.size())?;
        if end > start + SIZE {
            return None;
        }
        match CASE.next.compare_exchange_weak(next, end, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => return Some(ptr::with_exposed_provenance_mut(at)),
            Err(seen) => next = seen,
        }
    }
}

// SAFETY: pieces are disjoint, aligned and as long as asked for; what does not fit, and everything
// before `enter`, is the system allocator's.
unsafe impl GlobalAlloc for Bump {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // A case's process was forked amid what passes, and must leave that to its parent.
        let piece = if CASE.start.load(Ordering::Relaxed) == 0 {
            kept(layout).or_else(|| passed(layout))
        } else {
            take(layout)
        };
        // SAFETY: passed on as it came.
        piece.unwrap_or_else(|| unsafe { System.alloc(layout) })
    }

    unsafe fn dealloc(&self, piece: *mut u8, layout: Layout) {
        let start = CASE.start.load(Ordering::Relaxed);
        let is_bumped = start != 0 && (start..start + SIZE).contains(&piece.addr());
        if !is_bumped && !is_kept(piece) && !is_passed(piece) {
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
    fn what_passes_is_taken_anew_each_time_and_not_by_children() {
        crate::testing::isolated(|_| {
            let layout = Layout::from_size_align(8, 8).expect("layout");
            let mut pieces = [ptr::null_mut(); 2];
            for piece in &mut pieces {
                assert!(passed(layout).is_none());
                let work = || {
                    *piece = passed(layout).expect("room");
                    assert_ne!(*piece, passed(layout).expect("room for another"));
                };
                // SAFETY: the pieces are compared, and not used.
                unsafe { passing(work) };
            }
            assert_eq!(pieces[0], pieces[1]);
            assert!(is_passed(pieces[0]) && !is_kept(pieces[0]));
            let large = Layout::from_size_align(PASSING, 1).expect("layout");
            // SAFETY: nothing is taken that is used afterwards.
            unsafe { passing(|| assert!(passed(large).is_none())) };
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
