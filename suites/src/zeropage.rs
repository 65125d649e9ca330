//! The suite `zeropage`: what `UFFDIO_ZEROPAGE` of one page returns, stores and wakes.

use crate::grid;
use crate::point::{Mode, Op};
use crate::probe::{Case, Probe};

const PLACE: &str = "QEMU postcopy: postcopy_place_page_zero(), migration/postcopy-ram.c";
const CRIU: &str = "CRIU lazy-pages: uffd_zero(), criu/uffd.c";

static UNCHANGED: Probe = Probe {
    suite: "zeropage",
    name: "unchanged",
    statement: "ZEROPAGE of a missing page of a registered block maps zeros and wakes its waiter; on \
                hugetlb it fails with EINVAL.",
    consumers: &[PLACE, CRIU, "crosvm: vmm-swap"],
};
static MUNMAP: Probe = Probe {
    suite: "zeropage",
    name: "munmap",
    statement: "ZEROPAGE of an unmapped page fails with ENOENT, stores -2 and wakes nobody.",
    consumers: &[PLACE, CRIU],
};
static MMAP_OVER: Probe = Probe {
    suite: "zeropage",
    name: "mmap-over",
    statement: "ZEROPAGE of a page whose mapping was replaced fails with ENOENT, stores -2 and wakes \
                nobody.",
    consumers: &[PLACE, "Android ART: mark_compact.cc"],
};
static MREMAP: Probe = Probe {
    suite: "zeropage",
    name: "mremap",
    statement: "ZEROPAGE at the old place of moved or cut memory fails with ENOENT and wakes nobody; \
                in one that grew in place or kept its mapping it works.",
    consumers: &[PLACE, CRIU],
};

/// The suite's cases.
pub(crate) fn cases() -> Vec<Case> {
    grid::cases(Op::Zeropage, Mode::Missing, &[&UNCHANGED, &MUNMAP, &MMAP_OVER, &MREMAP])
}
