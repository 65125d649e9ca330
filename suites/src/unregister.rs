//! The suite `unregister`: what `UFFDIO_UNREGISTER` of the block returns, ends and wakes.

use crate::edge::UNREGISTER_OWN;
use crate::evidence;
use crate::expect::Expected;
use crate::grid;
use crate::memory::{Block, OTHER};
use crate::model::source;
use crate::outcome::{Seen, Stop};
use crate::point::{Backing, Change, Mode, Msg, Op, PAGES, Point, Waiter};
use crate::probe::{Case, Probe, Routine};
use crate::scenario::Scene;
use crate::stage::Stage;
use uffd_results::KernelVersion;

const CLEANUP: &str = "QEMU postcopy: cleanup_range(), migration/postcopy-ram.c";
const LIBFABRIC: &str = "libfabric: uffd_mem_monitor.c";

static UNCHANGED: Probe = Probe {
    suite: "unregister",
    name: "unchanged",
    statement: "UNREGISTER of a registered block returns 0, ends its registration and wakes its \
                waiter, who then reads zeros.",
    consumers: &[CLEANUP, "crosvm: vmm-swap", "Android ART: mark_compact.cc"],
};
static MUNMAP: Probe = Probe {
    suite: "unregister",
    name: "munmap",
    statement: "UNREGISTER over unmapped parts returns 0 and leaves the waiters of those parts \
                asleep; if nothing of the block is mapped it fails with EINVAL.",
    consumers: &[CLEANUP, LIBFABRIC, "CRIU lazy-pages: handle_remove()"],
};
static MMAP_OVER: Probe = Probe {
    suite: "unregister",
    name: "mmap-over",
    statement: "UNREGISTER over replaced parts returns 0 and leaves the waiters of those parts \
                asleep; over a regular file it fails with EINVAL and ends no registration.",
    consumers: &[CLEANUP, LIBFABRIC],
};
static MREMAP: Probe = Probe {
    suite: "unregister",
    name: "mremap",
    statement: "UNREGISTER of the old place returns 0 while some of it is mapped and EINVAL if \
                nothing is; waiters of what moved away stay asleep.",
    consumers: &[CLEANUP, "Android ART: mark_compact.cc (DONTUNMAP)"],
};
static NEVER: Probe = Probe {
    suite: "unregister",
    name: "never-registered",
    statement: "UNREGISTER of mapped memory that was never registered returns 0.",
    consumers: &[LIBFABRIC, CLEANUP],
};
static TWICE: Probe = Probe {
    suite: "unregister",
    name: "twice",
    statement: "A second UNREGISTER of the same block returns 0.",
    consumers: &[LIBFABRIC, CLEANUP],
};
static OTHER_UFFD: Probe = Probe {
    suite: "unregister",
    name: "other-uffd",
    statement: "UNREGISTER through a userfaultfd that does not own the block is refused with EINVAL \
                from 6.17 on; before, it ends the owner's registration and wakes the owner's waiter.",
    consumers: &["programs with several userfaultfds: vhost-user backends, nested handlers"],
};

/// The suite's cases.
pub(crate) fn cases() -> Vec<Case> {
    let mut cases =
        grid::cases(Op::Unregister, Mode::Missing, &[&UNCHANGED, &MUNMAP, &MMAP_OVER, &MREMAP]);
    let own: [(&'static Probe, Routine); 3] = [
        (&NEVER, Routine { run: never, expect: expect_never, recipe: NEVER_RECIPE }),
        (&TWICE, Routine { run: twice, expect: expect_twice, recipe: TWICE_RECIPE }),
        (&OTHER_UFFD, Routine { run: other, expect: expect_other, recipe: OTHER_RECIPE }),
    ];
    for (probe, routine) in own {
        cases.extend(Backing::ALL.iter().map(|backing| Case::own(probe, routine, *backing)));
    }
    cases
}

fn start(backing: Backing) -> Point {
    let (change, waiter, msg) = (Change::None, Waiter::UserRead, Msg::Read);
    Point { backing, mode: Mode::Missing, change, waiter, msg, op: Op::Unregister }
}

const NEVER_RECIPE: &[&str] =
    &["map a block of 6 pages and register nothing", "UFFDIO_UNREGISTER of it"];

fn never(stage: &Stage, backing: Backing, seen: &mut Seen<'_>) -> Result<(), Stop> {
    let block = Block::map(backing, OTHER)?;
    let uffd = stage.uffd(0)?;
    seen.step("unregister");
    seen.fact("unregister", uffd.unregister(block.at(OTHER, 0..PAGES)));
    Ok(())
}

fn expect_never(_: Backing, _: KernelVersion) -> Vec<Expected> {
    vec![Expected::new("unregister", "0", source::UNREGISTER)]
}

const TWICE_RECIPE: &[&str] = &[
    "map and register a block of 6 pages",
    "UFFDIO_UNREGISTER of the block, twice; read the registration of every page",
];

fn twice(stage: &Stage, backing: Backing, seen: &mut Seen<'_>) -> Result<(), Stop> {
    let point = Point { waiter: Waiter::None, ..start(backing) };
    let scene = Scene::set(stage, point)?;
    let range = scene.block.range(0..PAGES);
    seen.step("unregister");
    seen.fact("first", scene.uffd.unregister(range));
    seen.fact("unregister", scene.uffd.unregister(range));
    let registered = evidence::registration(&[(range, scene.block.page)])?;
    seen.fact("reg", registered.concat());
    Ok(())
}

fn expect_twice(_: Backing, _: KernelVersion) -> Vec<Expected> {
    vec![
        Expected::new("first", "0", source::UNREGISTER),
        Expected::new("unregister", "0", source::UNREGISTER),
        Expected::new("reg", "......", source::UNREGISTER),
    ]
}

const OTHER_RECIPE: &[&str] = &[
    "map and register a block of 6 pages, page 3 written to before",
    "a thread loads from page 2 and parks; its message is read",
    "make a second userfaultfd of the same process, with nothing registered",
    "UFFDIO_UNREGISTER of the block through the second one",
    "look at the waiter and at every page",
];

fn other(stage: &Stage, backing: Backing, seen: &mut Seen<'_>) -> Result<(), Stop> {
    let point = start(backing);
    let scene = Scene::set(stage, point)?;
    let mut waiter = scene.park(point, seen)?;
    let second = stage.uffd(0)?;
    seen.step("unregister");
    seen.fact("unregister", second.unregister(scene.block.range(0..PAGES)));
    scene.conclude(point, waiter.as_mut(), seen)
}

fn expect_other(_: Backing, kernel: KernelVersion) -> Vec<Expected> {
    let (unregister, waiter, reg) = if UNREGISTER_OWN.is_known_in(kernel) {
        ("EINVAL", "asleep", "mmmmmm")
    } else {
        ("0", "ran:zero", "......")
    };
    let says = UNREGISTER_OWN.source;
    vec![
        Expected::new("unregister", unregister, says),
        Expected::new("waiter", waiter, says),
        Expected::new("reg", reg, says),
    ]
}
