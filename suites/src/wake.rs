//! The suite `wake`: whom `UFFDIO_WAKE` wakes, and what the woken then meet.

use crate::abi::{Range, Rc, Uffd};
use crate::expect::Expected;
use crate::grid;
use crate::memory::{ARENA, PAGE};
use crate::model::source;
use crate::outcome::{Seen, Stop};
use crate::point::{Backing, Change, Mode, Msg, Op, Over, Part, Point, Waiter};
use crate::probe::{Case, Probe, Routine};
use crate::scenario::Scene;
use crate::stage::Stage;
use uffd_results::KernelVersion;

const CLEANUP: &str = "QEMU postcopy: the way out for waiters on changed mappings";
const SHARED: &str = "QEMU: postcopy_wake_shared(), migration/postcopy-ram.c";
const ART: &str = "Android ART: mark_compact.cc";

static UNCHANGED: Probe = Probe {
    suite: "wake",
    name: "unchanged",
    statement: "WAKE of a page that is still missing returns 0 and wakes its waiter, who parks again \
                with a new message.",
    consumers: &[SHARED, ART, "E2B orchestrator: resolveWriteProtect()"],
};
static MUNMAP: Probe = Probe {
    suite: "wake",
    name: "munmap",
    statement: "WAKE of an unmapped page returns 0 and wakes its waiter, who gets SEGV_MAPERR or, in \
                kernel mode, EFAULT (MADV_POPULATE_*: ENOMEM; mlock(2) returns 0).",
    consumers: &[CLEANUP],
};
static MMAP_OVER: Probe = Probe {
    suite: "wake",
    name: "mmap-over",
    statement: "WAKE of a page whose mapping was replaced returns 0 and wakes its waiter, who meets \
                the new mapping.",
    consumers: &[CLEANUP, "QEMU: qemu_ram_remap(), system/physmem.c"],
};
static MREMAP: Probe = Probe {
    suite: "wake",
    name: "mremap",
    statement: "WAKE of the old place of moved or cut memory returns 0 and wakes its waiter, who \
                meets what is there now.",
    consumers: &[CLEANUP, ART],
};
static WIDE: Probe = Probe {
    suite: "wake",
    name: "wide",
    statement: "WAKE of a range far larger than the block, mostly unmapped, returns 0 and wakes.",
    consumers: &[CLEANUP],
};
static OTHER_PAGE: Probe = Probe {
    suite: "wake",
    name: "other-page",
    statement: "WAKE of the page behind the waiter's wakes nobody.",
    consumers: &[SHARED],
};
static OTHER_UFFD: Probe = Probe {
    suite: "wake",
    name: "other-uffd",
    statement: "WAKE through another userfaultfd returns 0 and wakes nobody.",
    consumers: &[SHARED, "crosvm: one userfaultfd a process"],
};
static EMPTY: Probe = Probe {
    suite: "wake",
    name: "length-zero",
    statement: "WAKE of an empty range fails with EINVAL and wakes nobody.",
    consumers: &["Cloud Hypervisor: vmm/src/userfaultfd.rs"],
};
static MISALIGNED: Probe = Probe {
    suite: "wake",
    name: "misaligned",
    statement: "WAKE of a range that is not aligned to pages fails with EINVAL and wakes nobody.",
    consumers: &["Cloud Hypervisor: vmm/src/userfaultfd.rs"],
};

/// The suite's cases.
pub(crate) fn cases() -> Vec<Case> {
    let mut cases =
        grid::cases(Op::Wake, Mode::Missing, &[&UNCHANGED, &MUNMAP, &MMAP_OVER, &MREMAP]);
    let own: [(&'static Probe, Routine); 5] = [
        (&WIDE, Routine { run: wide, expect: expect_wide, recipe: WIDE_RECIPE }),
        (&OTHER_PAGE, Routine { run: next, expect: expect_nobody, recipe: NEXT_RECIPE }),
        (&OTHER_UFFD, Routine { run: other, expect: expect_nobody, recipe: OTHER_RECIPE }),
        (&EMPTY, Routine { run: empty, expect: expect_einval, recipe: EMPTY_RECIPE }),
        (&MISALIGNED, Routine { run: misaligned, expect: expect_einval, recipe: MIS_RECIPE }),
    ];
    for (probe, routine) in own {
        cases.extend(Backing::ALL.iter().map(|backing| Case::own(probe, routine, *backing)));
    }
    cases
}

/// Parks a reader on page 2 of a block whose middle is then replaced, wakes as `how` does, and
/// records what that did.
fn wake(
    stage: &Stage,
    backing: Backing,
    seen: &mut Seen<'_>,
    how: impl FnOnce(&Uffd, Range) -> Result<Rc, Stop>,
) -> Result<(), Stop> {
    let change = Change::MmapOver(Part::Middle, Over::Anon);
    let point = Point {
        backing,
        mode: Mode::Missing,
        change,
        waiter: Waiter::UserRead,
        msg: Msg::Read,
        op: Op::Look,
    };
    let scene = Scene::set(stage, point)?;
    let mut waiter = scene.park(point, seen)?;
    let rc =
        crate::change::Prepared::new(stage, change, &scene.block)?.apply(stage, &scene.block)?;
    seen.fact("change", rc);
    seen.step("wake");
    seen.fact("wake", how(&scene.uffd, scene.target())?);
    scene.conclude(point, waiter.as_mut(), seen)
}

const WIDE_RECIPE: &[&str] = &[
    "map and register a block of 6 pages; a thread loads from page 2 and parks",
    "mmap(MAP_FIXED) of private anonymous memory over pages 2..4",
    "UFFDIO_WAKE of 1 GiB of addresses around the block",
    "look at the waiter",
];

fn wide(stage: &Stage, backing: Backing, seen: &mut Seen<'_>) -> Result<(), Stop> {
    wake(stage, backing, seen, |uffd, _| Ok(uffd.wake(ARENA)))
}

fn expect_wide(_: Backing, _: KernelVersion) -> Vec<Expected> {
    vec![
        Expected::new("wake", "0", source::WAKE),
        Expected::new("waiter", "ran:zero", source::WAKE),
    ]
}

const NEXT_RECIPE: &[&str] = &[
    "map and register a block of 6 pages; a thread loads from page 2 and parks",
    "mmap(MAP_FIXED) of private anonymous memory over pages 2..4",
    "UFFDIO_WAKE of page 3; look at the waiter; then UFFDIO_WAKE of page 2",
];

fn next(stage: &Stage, backing: Backing, seen: &mut Seen<'_>) -> Result<(), Stop> {
    wake(stage, backing, seen, |uffd, page| Ok(uffd.wake(Range { start: page.end(), ..page })))
}

const OTHER_RECIPE: &[&str] = &[
    "map and register a block of 6 pages; a thread loads from page 2 and parks",
    "mmap(MAP_FIXED) of private anonymous memory over pages 2..4",
    "UFFDIO_WAKE of page 2 through a second userfaultfd; look at the waiter; then through the first",
];

fn other(stage: &Stage, backing: Backing, seen: &mut Seen<'_>) -> Result<(), Stop> {
    wake(stage, backing, seen, |_, page| Ok(stage.uffd(0)?.wake(page)))
}

fn expect_nobody(_: Backing, _: KernelVersion) -> Vec<Expected> {
    vec![
        Expected::new("wake", "0", source::WAKE),
        Expected::new("waiter", "asleep", source::WAKE),
        Expected::new("rescued", "ran:zero", source::RERUN),
    ]
}

const EMPTY_RECIPE: &[&str] = &[
    "map and register a block of 6 pages; a thread loads from page 2 and parks",
    "mmap(MAP_FIXED) of private anonymous memory over pages 2..4",
    "UFFDIO_WAKE of length 0 at page 2; look at the waiter; then UFFDIO_WAKE of page 2",
];

fn empty(stage: &Stage, backing: Backing, seen: &mut Seen<'_>) -> Result<(), Stop> {
    wake(stage, backing, seen, |uffd, page| Ok(uffd.wake(Range { len: 0, ..page })))
}

const MIS_RECIPE: &[&str] = &[
    "map and register a block of 6 pages; a thread loads from page 2 and parks",
    "mmap(MAP_FIXED) of private anonymous memory over pages 2..4",
    "UFFDIO_WAKE of a page's length from half a page before page 2; look at the waiter; then \
     UFFDIO_WAKE of page 2",
];

fn misaligned(stage: &Stage, backing: Backing, seen: &mut Seen<'_>) -> Result<(), Stop> {
    wake(stage, backing, seen, |uffd, page| {
        Ok(uffd.wake(Range { start: page.start - PAGE / 2, ..page }))
    })
}

fn expect_einval(_: Backing, _: KernelVersion) -> Vec<Expected> {
    let says = "ioctl_userfaultfd(2), UFFDIO_WAKE, EINVAL";
    vec![
        Expected::new("wake", "EINVAL", says),
        Expected::new("waiter", "asleep", says),
        Expected::new("rescued", "ran:zero", source::RERUN),
    ]
}
