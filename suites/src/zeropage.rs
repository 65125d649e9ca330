//! The suite `zeropage`: what `UFFDIO_ZEROPAGE` of one page returns, stores and wakes, and what of two
//! pages in two mappings.

use crate::abi::REGISTER_MODE_MISSING;
use crate::expect::Expected;
use crate::grid;
use crate::lab::SMALL;
use crate::memory::{self, ONE_PAGE, TWO_PAGES, tag};
use crate::model::source;
use crate::outcome::{Seen, Stop};
use crate::point::{Backing, Mode, Op, PAGES, Point, Waiter, axis};
use crate::probe::{Case, Probe, Trial};
use crate::scenario::Scene;
use crate::script::{Call, Ctx, Memory, Place, Script, Span, Step};
use crate::stage::Stage;
use uffd_results::KernelVersion;

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

static SPAN_SPLIT: Probe = Probe {
    suite: "zeropage",
    name: "span-split",
    statement: "ZEROPAGE of two pages that lie in two mappings, both registered, fails with ENOENT, stores \
                -2, places nothing and wakes nobody.",
    consumers: &["CRIU lazy-pages: collect_iovs(), criu/uffd.c", "Android ART: mark_compact.cc"],
};

axis! {
    /// What has cut the mapping.
    By {
        /// mprotect(2).
        Protect = "mprotect",
        /// MADV_DONTFORK.
        Advice = "dontfork",
        /// mlock2(2) with MLOCK_ONFAULT.
        Lock = "mlock-onfault",
        /// UNREGISTER and REGISTER of a part: nothing, both sides are alike again.
        Again = "registered-again",
    }
}

/// ZEROPAGE of pages 1 and 2, between which a mapping ends.
#[derive(Clone, Copy, Debug)]
struct Split {
    backing: Backing,
    by: By,
    waiter: Waiter,
}

impl Trial for Split {
    fn axes(&self) -> String {
        let Self { backing, by, waiter } = self;
        format!("backing={backing},by={by},waiter={waiter}")
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        seen.step("set-up");
        let point = Point { op: Op::Zeropage, ..Point::missing(self.backing, self.waiter) };
        let scene = Scene::set(stage, point)?;
        let part = scene.block.range(2..4);
        if self.by == By::Again {
            // Before anybody waits, whom UNREGISTER would wake.
            let rc = scene.uffd.unregister(part);
            let again = scene.uffd.register(part, REGISTER_MODE_MISSING);
            if !rc.is_ok() || again.is_err() {
                return Err(Stop::Broken(format!("registering anew: {rc}, {again:?}")));
            }
        }
        let mut waiter = scene.park(point, seen)?;
        let rc = match self.by {
            By::Protect => memory::protect(part, libc::PROT_READ),
            By::Advice => memory::advise(part, libc::MADV_DONTFORK),
            By::Lock => crate::treat::lock(part, libc::MLOCK_ONFAULT),
            By::Again => crate::abi::Rc::OK,
        };
        if !rc.is_ok() {
            return Err(Stop::Broken(format!("cutting the mapping: {rc}")));
        }
        seen.step("zeropage");
        let (rc, field) = scene.uffd.zeropage(scene.block.range(1..3), 0);
        seen.fact("zeropage", rc);
        seen.fact("field", field);
        scene.conclude(point, waiter.as_mut(), seen)
    }

    fn expect(&self, _: KernelVersion) -> Vec<Expected> {
        let one = self.by == By::Again;
        let says = if one { source::ZEROPAGE } else { source::ONE_MAPPING };
        let reads = self.waiter.loads();
        let ran = if reads { "ran:zero" } else { "ran" };
        let (rc, field) = if one { ("0", TWO_PAGES) } else { ("ENOENT", "-2") };
        let mut facts = vec![
            Expected::new("zeropage", rc, says),
            Expected::new("field", field, says),
            Expected::new("waiter", if one { ran } else { "asleep" }, says),
            Expected::new("reg", "mmmmmm", says),
        ];
        let filled = if reads { "-00k--" } else { "-0wk--" };
        facts.push(Expected::new("pages", if one { filled } else { "---k--" }, says));
        if !one {
            let stopped = self.by == By::Protect && !reads;
            let met = if stopped { "SEGV_ACCERR" } else { "again" };
            facts.push(Expected::new("rescued", met, source::RERUN));
        }
        facts
    }

    fn recipe(&self) -> Vec<String> {
        let Self { backing, by, waiter } = self;
        vec![
            format!("map and register a block of 6 pages ({backing}), page 3 written to before"),
            format!("a thread ({waiter}) accesses page 2 and parks; its message is read"),
            format!("{by} of pages 2..4 (registering anew comes before the thread)"),
            "UFFDIO_ZEROPAGE of pages 1 and 2".to_owned(),
            "look at the waiter of page 2 and at every page".to_owned(),
        ]
    }
}

/// The suite's cases.
pub(crate) fn cases() -> Vec<Case> {
    let mut cases =
        grid::cases(Op::Zeropage, Mode::Missing, &[&UNCHANGED, &MUNMAP, &MMAP_OVER, &MREMAP]);
    for backing in [Backing::Anon, Backing::Shmem, Backing::Private, Backing::SharedAnon] {
        for by in By::ALL {
            for waiter in [Waiter::UserRead, Waiter::UserWrite] {
                let trial = Split { backing, by: *by, waiter };
                cases.push(Case::trial(&SPAN_SPLIT, trial, true));
            }
        }
    }
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
            Expected::new("field", ONE_PAGE, says),
            Expected::new("waiter", "ran:zero", source::ZEROPAGE),
            Expected::new("queue", "0/0", source::QUEUE),
            Expected::new("pages", "--0k--", says),
        ]
    })
}
