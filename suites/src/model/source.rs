//! Sources of expectations, so that each stands once.

/// Waiters hang on the context.
pub const QUEUE: &str = "handle_userfault() in fs/userfaultfd.c: a waiter hangs on the context's \
    queue, which no change of a mapping touches";
/// COPY that succeeds.
pub const COPY: &str =
    "ioctl_userfaultfd(2), UFFDIO_COPY: copies and wakes the waiters of the range";
/// COPY to what is not registered.
pub const COPY_ENOENT: &str = "ioctl_userfaultfd(2), UFFDIO_COPY, ENOENT (4.11): the virtual \
    memory layout has changed; nobody is woken";
/// ZEROPAGE.
pub const ZEROPAGE: &str = "ioctl_userfaultfd(2), UFFDIO_ZEROPAGE: zeroes and wakes";
/// ZEROPAGE to what is not registered.
pub const ZEROPAGE_ENOENT: &str = "ioctl_userfaultfd(2), UFFDIO_ZEROPAGE; validate_dst_vma() in \
    mm/userfaultfd.c (find_dst_vma() in 5.10 and 6.1): ENOENT without a registered mapping";
/// A range that no mapping holds alone.
pub const ONE_MAPPING: &str = "validate_dst_vma() in mm/userfaultfd.c (find_dst_vma() in 5.10 and 6.1): \
    the range must lie within one mapping";
/// ZEROPAGE on hugetlb.
pub const ZEROPAGE_HUGE: &str = "Documentation/admin-guide/mm/userfaultfd.rst: no UFFDIO_ZEROPAGE \
    on hugetlb; mfill_atomic_hugetlb(): EINVAL";
/// UNREGISTER.
pub const UNREGISTER: &str = "ioctl_userfaultfd(2), UFFDIO_UNREGISTER; userfaultfd_unregister(): \
    mappings without a context are skipped";
/// UNREGISTER that is refused.
pub const UNREGISTER_EINVAL: &str = "ioctl_userfaultfd(2), UFFDIO_UNREGISTER, EINVAL: no mapping \
    in the range, or one that userfaultfd does not handle";
/// Whom UNREGISTER wakes.
pub const UNREGISTER_WAKES: &str = "userfaultfd_unregister(): wakes per mapping that still has \
    the context in missing mode, and no other waiter";
/// WAKE.
pub const WAKE: &str = "ioctl_userfaultfd(2), UFFDIO_WAKE; userfaultfd_wake(): compares queue \
    entries with the range and looks up no mapping";
/// A woken thread.
pub const RERUN: &str = "handle_userfault() returns VM_FAULT_RETRY: the woken thread runs its \
    fault again (5.7 for more than once) and meets what is there now";
/// Registration and mremap.
pub const REMAP: &str = "mremap_userfaultfd_prep() in fs/userfaultfd.c: without EVENT_REMAP a \
    moved mapping loses its registration (5.0); one that grows in place keeps it";
/// mremap itself.
pub const MREMAP: &str = "mremap(2)";
/// mremap of hugetlb.
pub const MREMAP_HUGE: &str = "commit 550a7d60bd5e (5.16): hugetlb mappings move; mremap() refuses \
    to grow them, as reservations can't be split";
/// A refused mremap has still unmapped.
pub const MREMAP_UNMAPS: &str = "mremap_to() in mm/mremap.c unmaps the target, and the tail that \
    is cut off, before it looks at the kind of mapping";
/// Discarding hugetlb pages.
pub const DONTNEED_HUGE: &str = "commit 90e7e7f5ef3f (5.18): MADV_DONTNEED works on hugetlb";
/// MREMAP_DONTUNMAP.
pub const DONTUNMAP: &str = "mremap(2), MREMAP_DONTUNMAP (5.7 for private anonymous memory, \
    commit a4609387859f (5.13) for others): the old range stays mapped and registered, without its pages";
/// CONTINUE.
pub const CONTINUE: &str = "ioctl_userfaultfd(2), UFFDIO_CONTINUE (5.13): maps the page of the page \
    cache and wakes";
/// CONTINUE of what is not registered.
pub const CONTINUE_ENOENT: &str = "ioctl_userfaultfd(2), UFFDIO_CONTINUE, ENOENT: the virtual memory \
    layout has changed; nobody is woken";
/// CONTINUE of anonymous memory.
pub const CONTINUE_ANON: &str =
    "mfill_atomic() in mm/userfaultfd.c: CONTINUE only of shared memory";
/// WRITEPROTECT.
pub const WRITEPROTECT: &str = "ioctl_userfaultfd(2), UFFDIO_WRITEPROTECT (5.7): without MODE_WP it \
    removes the protection and wakes";
/// WRITEPROTECT of what is not registered.
pub const WRITEPROTECT_ENOENT: &str = "ioctl_userfaultfd(2), UFFDIO_WRITEPROTECT, ENOENT: no mapping, \
    or one that is not registered for write protection";
/// Write protection reaches pages that are present.
pub const PROTECTED: &str = "Documentation/admin-guide/mm/pagemap.rst: bit 57 of a page's entry says \
    that it is write-protected through userfaultfd (commit fb8e37f35a2f, 5.14)";
/// POISON.
pub const POISON: &str = "ioctl_userfaultfd(2), UFFDIO_POISON (6.6): installs a marker and wakes; who \
    then accesses the page gets SIGBUS";
/// POISON of what is not registered.
pub const POISON_ENOENT: &str = "ioctl_userfaultfd(2), UFFDIO_POISON, ENOENT: the virtual memory layout \
    has changed";
/// MOVE.
pub const MOVE: &str = "ioctl_userfaultfd(2), UFFDIO_MOVE (6.8): moves the page and wakes";
/// MOVE to what is not registered.
pub const MOVE_REFUSED: &str = "validate_move_areas() and find_vmas_mm_locked() in mm/userfaultfd.c: \
    the destination must be anonymous and registered with the caller's context";
/// MOVE to where nothing is mapped.
pub const MOVE_ENOENT: &str = "ioctl_userfaultfd(2), UFFDIO_MOVE, ENOENT; find_vmas_mm_locked() in \
    mm/userfaultfd.c: no mapping at the destination";
/// Closing.
pub const CLOSE: &str = "userfaultfd_release(): the last close wakes every waiter of the context";
