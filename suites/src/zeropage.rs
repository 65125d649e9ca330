//! The suite `zeropage`: what `UFFDIO_ZEROPAGE` of one page returns, stores and wakes.

use crate::abi::REGISTER_MODE_MISSING;
use crate::expect::Expected;
use crate::grid;
use crate::lab::SMALL;
use crate::memory::tag;
use crate::model::source;
use crate::point::{Backing, Mode, Op, PAGES, Waiter};
use crate::probe::{Case, Probe};
use crate::script::{Call, Ctx, Memory, Place, Script, Span, Step};

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

static PART_PRESENT: Probe = Probe {
    suite: "zeropage",
    name: "part-present",
    statement: "ZEROPAGE of two pages, the second present, fails with EAGAIN, stores one page's length, \
                maps the first page and wakes its waiter.",
    consumers: &[CRIU, "crosvm: vmm-swap"],
};

/// The suite's cases.
pub(crate) fn cases() -> Vec<Case> {
    let mut cases =
        grid::cases(Op::Zeropage, Mode::Missing, &[&UNCHANGED, &MUNMAP, &MMAP_OVER, &MREMAP]);
    cases.extend(SMALL.map(|backing| Case::trial(&PART_PRESENT, part_present(backing), true)));
    cases
}

fn part_present(backing: Backing) -> Script {
    let block = |first, count| Span::new(Place::Block, first, count);
    let all = block(0, PAGES);
    let steps = vec![
        Step::Map(all, Memory::Of(backing)),
        Step::Fill(block(3, 1), tag::KEPT),
        Step::Open(Ctx::First, 0),
        Step::Set(Ctx::First, Call::Register(all, REGISTER_MODE_MISSING)),
        Step::Park(Ctx::First, Waiter::UserRead, block(2, 1)),
        Step::Do(Ctx::First, Call::Zeropage(block(2, 2), 0), "zeropage", "field"),
        Step::Look(Ctx::First),
        Step::Survey(all, "reg", "pages"),
        Step::Rescue(Ctx::First),
    ];
    Script::new(format!("backing={backing}"), 0, steps, |_| {
        let says = "userfaultfd_zeropage(): what was mapped before an error is kept and woken, and EAGAIN \
                    says so";
        vec![
            Expected::new("zeropage", "EAGAIN", says),
            Expected::new("field", "4096", says),
            Expected::new("waiter", "ran:zero", source::ZEROPAGE),
            Expected::new("queue", "0/0", source::QUEUE),
            Expected::new("pages", "--0k--", says),
        ]
    })
}
