//! The suite `copy`: what `UFFDIO_COPY` of one page returns, writes to its result field and wakes.

use crate::abi::{COPY_MODE_DONTWAKE, REGISTER_MODE_MISSING, Range, features};
use crate::edge::EAGAIN_FIELD;
use crate::evidence;
use crate::expect::Expected;
use crate::grid;
use crate::memory::{BLOCK, Block, HUGE, OTHER, PAGE};
use crate::model::source;
use crate::outcome::{Seen, Stop};
use crate::point::{Backing, Change, Mode, Op, Over, PAGES, Part, Point, Waiter};
use crate::probe::{Case, Probe, Routine};
use crate::scenario::Scene;
use crate::stage::Stage;
use uffd_results::KernelVersion;

const PLACE: &str = "QEMU postcopy: qemu_ufd_copy_ioctl(), migration/postcopy-ram.c";
const CRIU: &str = "CRIU lazy-pages: uffd_copy(), criu/uffd.c";
const FIRECRACKER: &str = "Firecracker UFFD handlers: populate_from_file()";

static UNCHANGED: Probe = Probe {
    suite: "copy",
    name: "unchanged",
    statement: "COPY to a missing page of a registered block places the page and wakes its waiter.",
    consumers: &[PLACE, CRIU, FIRECRACKER, "Cloud Hypervisor: vmm/src/uffd.rs"],
};
static MUNMAP: Probe = Probe {
    suite: "copy",
    name: "munmap",
    statement: "COPY to an unmapped page fails with ENOENT, stores -2 and wakes nobody.",
    consumers: &[PLACE, CRIU],
};
static MMAP_OVER: Probe = Probe {
    suite: "copy",
    name: "mmap-over",
    statement: "COPY to a page whose mapping was replaced fails with ENOENT, stores -2, places \
                nothing and wakes nobody.",
    consumers: &[PLACE, "QEMU: qemu_ram_remap(), system/physmem.c", CRIU],
};
static MREMAP: Probe = Probe {
    suite: "copy",
    name: "mremap",
    statement: "COPY to the old place of moved or cut memory fails with ENOENT and wakes nobody; \
                to one that grew in place or kept its mapping it works.",
    consumers: &[PLACE, CRIU, "Android ART: mark_compact.cc (DONTUNMAP)"],
};
static PRESENT: Probe = Probe {
    suite: "copy",
    name: "present",
    statement: "COPY to a page that is present fails with EEXIST, stores -17, changes nothing and \
                wakes nobody.",
    consumers: &[PLACE, FIRECRACKER, "crosvm: vmm-swap"],
};
static PART_PRESENT: Probe = Probe {
    suite: "copy",
    name: "part-present",
    statement: "COPY of two pages, the second present, fails with EAGAIN, stores one page's length, \
                places the first page and wakes its waiter.",
    consumers: &[CRIU, "userfaultfd-rs: PartiallyCopied", "crosvm: uffd_copy_all()"],
};
static SPAN_REPLACED: Probe = Probe {
    suite: "copy",
    name: "span-replaced",
    statement: "COPY of two pages, the second replaced by mmap, fails with ENOENT, stores -2 and \
                does not place the first page.",
    consumers: &[CRIU],
};
static SPAN_SPLIT: Probe = Probe {
    suite: "copy",
    name: "span-split",
    statement: "COPY of two pages that lie in two mappings, both registered, fails with ENOENT, stores \
                -2, places nothing and wakes nobody.",
    consumers: &["CRIU lazy-pages: collect_iovs(), criu/uffd.c", FIRECRACKER],
};
static DONTWAKE: Probe = Probe {
    suite: "copy",
    name: "dontwake",
    statement: "COPY with MODE_DONTWAKE places the page and leaves the waiter asleep until WAKE.",
    consumers: &["E2B orchestrator: faultPage()"],
};
static SOURCE_UNMAPPED: Probe = Probe {
    suite: "copy",
    name: "source-unmapped",
    statement: "COPY from an unmapped source fails with EFAULT, stores -14 and wakes nobody.",
    consumers: &[PLACE],
};
static OTHER_UFFD: Probe = Probe {
    suite: "copy",
    name: "other-uffd",
    statement: "COPY through a userfaultfd that does not own the block places the page and leaves \
                the owner's waiter asleep.",
    consumers: &["QEMU: postcopy_wake_shared()", "crosvm: one userfaultfd a process"],
};
static EVENT_UNREAD: Probe = Probe {
    suite: "copy",
    name: "event-unread",
    statement: "While an event of the context is unread, COPY fails with EAGAIN; the result field is \
                untouched before 6.15 and holds -11 from then on, and in 6.12.y from 6.12.29 on.",
    consumers: &[CRIU, FIRECRACKER, "E2B orchestrator: classifyCopyResult()", "crosvm: vmm-swap"],
};

mod long;

/// The suite's cases.
pub(crate) fn cases() -> Vec<Case> {
    let mut cases =
        grid::cases(Op::Copy, Mode::Missing, &[&UNCHANGED, &MUNMAP, &MMAP_OVER, &MREMAP]);
    let own: [(&'static Probe, Routine); 8] = [
        (&PRESENT, Routine { run: present, expect: expect_present, recipe: PRESENT_RECIPE }),
        (&PART_PRESENT, Routine { run: part_present, expect: expect_part, recipe: PART_RECIPE }),
        (&SPAN_REPLACED, Routine { run: span, expect: expect_span, recipe: SPAN_RECIPE }),
        (&SPAN_SPLIT, Routine { run: split, expect: expect_split, recipe: SPLIT_RECIPE }),
        (&DONTWAKE, Routine { run: dontwake, expect: expect_dontwake, recipe: DONTWAKE_RECIPE }),
        (&SOURCE_UNMAPPED, Routine { run: source, expect: expect_source, recipe: SOURCE_RECIPE }),
        (&OTHER_UFFD, Routine { run: other, expect: expect_other, recipe: OTHER_RECIPE }),
        (&EVENT_UNREAD, Routine { run: event, expect: expect_event, recipe: EVENT_RECIPE }),
    ];
    for (probe, routine) in own {
        cases.extend(Backing::ALL.iter().map(|backing| Case::own(probe, routine, *backing)));
    }
    cases.extend(long::cases());
    cases
}

/// The point that the suite's own routines start from: page 2 missing, page 3 present, a thread
/// that loads from page 2.
fn start(backing: Backing) -> Point {
    Point { op: Op::Copy, ..Point::missing(backing, Waiter::UserRead) }
}

fn length(backing: Backing) -> String {
    (if backing.is_huge() { HUGE } else { PAGE }).to_string()
}

/// Copies to `dst` and records everything that a COPY shows.
fn copy(
    stage: &Stage,
    backing: Backing,
    seen: &mut Seen<'_>,
    how: impl FnOnce(&Scene<'_>) -> Result<(Range, usize, u64), Stop>,
) -> Result<(), Stop> {
    let point = start(backing);
    let scene = Scene::set(stage, point)?;
    let mut waiter = scene.park(point, seen)?;
    let (dst, src, mode) = how(&scene)?;
    seen.step("copy");
    let (rc, field) = scene.uffd.copy(dst, src, mode);
    seen.fact("copy", rc);
    seen.fact("field", field);
    scene.conclude(point, waiter.as_mut(), seen)
}

const PRESENT_RECIPE: &[&str] = &[
    "map and register a block of 6 pages, page 3 written to before",
    "a thread loads from page 2 and parks; its message is read",
    "UFFDIO_COPY of one page to page 3",
    "look at the waiter of page 2 and at every page",
];

fn present(stage: &Stage, backing: Backing, seen: &mut Seen<'_>) -> Result<(), Stop> {
    copy(stage, backing, seen, |scene| Ok((scene.block.range(3..4), stage.source, 0)))
}

fn asleep(copy: &'static str, field: &'static str, says: &'static str) -> Vec<Expected> {
    vec![
        Expected::new("copy", copy, says),
        Expected::new("field", field, says),
        Expected::new("waiter", "asleep", says),
        Expected::new("queue", "1/0", says),
    ]
}

fn expect_present(_: Backing, _: KernelVersion) -> Vec<Expected> {
    let says = "ioctl_userfaultfd(2), UFFDIO_COPY, EEXIST";
    let mut facts = asleep("EEXIST", "-17", says);
    facts.push(Expected::new("pages", "---k--", says));
    facts
}

const PART_RECIPE: &[&str] = &[
    "map and register a block of 6 pages, page 3 written to before",
    "a thread loads from page 2 and parks; its message is read",
    "UFFDIO_COPY of two pages to pages 2 and 3",
    "look at the waiter of page 2 and at every page",
];

fn part_present(stage: &Stage, backing: Backing, seen: &mut Seen<'_>) -> Result<(), Stop> {
    let src = if backing.is_huge() { stage.long_source()? } else { stage.source };
    copy(stage, backing, seen, |scene| Ok((scene.block.range(2..4), src, 0)))
}

fn expect_part(backing: Backing, _: KernelVersion) -> Vec<Expected> {
    let says = "ioctl_userfaultfd(2), UFFDIO_COPY: a partial copy fails with EAGAIN and stores the \
                bytes copied, whose waiters are woken";
    vec![
        Expected::new("copy", "EAGAIN", says),
        Expected::new("field", length(backing), says),
        Expected::new("waiter", "ran:copied", says),
        Expected::new("pages", "--ck--", says),
    ]
}

const SPAN_RECIPE: &[&str] = &[
    "map and register a block of 6 pages, page 3 written to before",
    "a thread loads from page 2 and parks; its message is read",
    "mmap(MAP_FIXED) of private anonymous memory over pages 2..4",
    "UFFDIO_COPY of two pages to pages 1 and 2",
    "look at the waiter of page 2 and at every page",
];

fn span(stage: &Stage, backing: Backing, seen: &mut Seen<'_>) -> Result<(), Stop> {
    let src = if backing.is_huge() { stage.long_source()? } else { stage.source };
    copy(stage, backing, seen, |scene| {
        let change = Change::MmapOver(Part::Middle, Over::Anon);
        let rc = crate::change::Prepared::new(stage, change, &scene.block)?
            .apply(stage, &scene.block)?;
        if !rc.is_ok() {
            return Err(Stop::Broken(format!("mmap over pages 2..4: {rc}")));
        }
        Ok((scene.block.range(1..3), src, 0))
    })
}

fn expect_span(_: Backing, _: KernelVersion) -> Vec<Expected> {
    let mut facts = asleep("ENOENT", "-2", source::COPY_ENOENT);
    facts.push(Expected::new("pages", "------", source::COPY_ENOENT));
    facts.push(Expected::new("rescued", "ran:zero", source::RERUN));
    facts
}

const SPLIT_RECIPE: &[&str] = &[
    "map and register a block of 6 pages, page 3 written to before",
    "a thread loads from page 2 and parks; its message is read",
    "mprotect(PROT_READ) of pages 2..4, which makes three mappings of the block",
    "UFFDIO_COPY of two pages to pages 1 and 2",
    "look at the waiter of page 2 and at every page",
];

fn split(stage: &Stage, backing: Backing, seen: &mut Seen<'_>) -> Result<(), Stop> {
    let src = if backing.is_huge() { stage.long_source()? } else { stage.source };
    copy(stage, backing, seen, |scene| {
        let rc = crate::memory::protect(scene.block.range(2..4), libc::PROT_READ);
        if !rc.is_ok() {
            return Err(Stop::Broken(format!("mprotect of pages 2..4: {rc}")));
        }
        Ok((scene.block.range(1..3), src, 0))
    })
}

fn expect_split(_: Backing, _: KernelVersion) -> Vec<Expected> {
    let says = source::ONE_MAPPING;
    let mut facts = asleep("ENOENT", "-2", says);
    facts.push(Expected::new("reg", "mmmmmm", says));
    facts.push(Expected::new("pages", "---k--", says));
    facts.push(Expected::new("rescued", "again", source::RERUN));
    facts
}

const DONTWAKE_RECIPE: &[&str] = &[
    "map and register a block of 6 pages, page 3 written to before",
    "a thread loads from page 2 and parks; its message is read",
    "UFFDIO_COPY of one page to page 2 with UFFDIO_COPY_MODE_DONTWAKE",
    "look at the waiter of page 2 and at every page; then UFFDIO_WAKE",
];

fn dontwake(stage: &Stage, backing: Backing, seen: &mut Seen<'_>) -> Result<(), Stop> {
    copy(stage, backing, seen, |scene| Ok((scene.target(), stage.source, COPY_MODE_DONTWAKE)))
}

fn expect_dontwake(backing: Backing, _: KernelVersion) -> Vec<Expected> {
    placed_asleep(backing, "ioctl_userfaultfd(2), UFFDIO_COPY_MODE_DONTWAKE")
}

/// The page is placed, and its waiter sleeps until it is woken.
fn placed_asleep(backing: Backing, says: &'static str) -> Vec<Expected> {
    vec![
        Expected::new("copy", "0", says),
        Expected::new("field", length(backing), says),
        Expected::new("waiter", "asleep", says),
        Expected::new("pages", "--ck--", says),
        Expected::new("rescued", "ran:copied", source::RERUN),
    ]
}

const SOURCE_RECIPE: &[&str] = &[
    "map and register a block of 6 pages, page 3 written to before",
    "a thread loads from page 2 and parks; its message is read",
    "UFFDIO_COPY of one page to page 2 from addresses where nothing is mapped",
    "look at the waiter of page 2 and at every page",
];

fn source(stage: &Stage, backing: Backing, seen: &mut Seen<'_>) -> Result<(), Stop> {
    copy(stage, backing, seen, |scene| Ok((scene.target(), OTHER, 0)))
}

fn expect_source(_: Backing, _: KernelVersion) -> Vec<Expected> {
    let says =
        "ioctl_userfaultfd(2), UFFDIO_COPY: the source must be readable; mfill_atomic(): EFAULT";
    let mut facts = asleep("EFAULT", "-14", says);
    facts.push(Expected::new("pages", "---k--", says));
    facts
}

const OTHER_RECIPE: &[&str] = &[
    "map and register a block of 6 pages, page 3 written to before",
    "a thread loads from page 2 and parks; its message is read",
    "make a second userfaultfd of the same process, with nothing registered",
    "UFFDIO_COPY of one page to page 2 through the second one",
    "look at the waiter of page 2 and at every page; then UFFDIO_WAKE through the first",
];

fn other(stage: &Stage, backing: Backing, seen: &mut Seen<'_>) -> Result<(), Stop> {
    let point = start(backing);
    let scene = Scene::set(stage, point)?;
    let mut waiter = scene.park(point, seen)?;
    let second = stage.uffd(0)?;
    seen.step("copy");
    let (rc, field) = second.copy(scene.target(), stage.source, 0);
    seen.fact("copy", rc);
    seen.fact("field", field);
    scene.conclude(point, waiter.as_mut(), seen)
}

fn expect_other(backing: Backing, _: KernelVersion) -> Vec<Expected> {
    let says = "validate_dst_vma() in mm/userfaultfd.c (find_dst_vma() in 5.10 and 6.1) asks for some context, not for \
                the caller's; the wake-up goes to the caller's context";
    placed_asleep(backing, says)
}

const EVENT_RECIPE: &[&str] = &[
    "map and register a block of 6 pages with UFFD_FEATURE_EVENT_REMOVE",
    "a thread calls madvise(MADV_DONTNEED) on page 3 and waits for its event to be read",
    "UFFDIO_COPY of one page to page 2",
    "read the event; the thread's madvise returns",
];

fn event(stage: &Stage, backing: Backing, seen: &mut Seen<'_>) -> Result<(), Stop> {
    seen.step("set-up");
    let block = Block::map(backing, BLOCK)?;
    let uffd = stage.uffd(features::EVENT_REMOVE)?;
    uffd.register(block.range(0..PAGES), REGISTER_MODE_MISSING)
        .map_err(|e| Stop::Unsupported(format!("REGISTER of a {backing} block: {e:?}")))?;
    seen.step("event");
    let mover = crate::mover::Mover::discard(stage, block.range(3..4))?;
    if !mover.blocks_on_event(&uffd)? {
        return Err(Stop::Unsupported(format!("madvise(MADV_DONTNEED): {}", mover.join()?)));
    }
    let (rc, field) = uffd.copy(block.range(2..3), stage.source, 0);
    seen.fact("copy", rc);
    seen.fact("field", field);
    seen.fact("pages", {
        let letter = |value| stage.letter(value);
        evidence::pages(block.range(0..PAGES), block.page, &letter)?
    });
    seen.step("read");
    let message = uffd.read();
    seen.fact("event", crate::mover::word(message));
    seen.fact("madvise", mover.join()?);
    Ok(())
}

fn expect_event(backing: Backing, kernel: KernelVersion) -> Vec<Expected> {
    let says = "userfaultfd_copy() in fs/userfaultfd.c: EAGAIN while mmap_changing (4.18)";
    if backing.is_huge() && kernel < KernelVersion::new(5, 18, 0) {
        return Vec::new();
    }
    let field = EAGAIN_FIELD.value(kernel, "untouched", "-11");
    vec![
        Expected::new("copy", "EAGAIN", says),
        Expected::new("field", field, EAGAIN_FIELD.source),
        Expected::new("pages", "------", says),
        Expected::new("event", "remove", "ioctl_userfaultfd(2), UFFD_EVENT_REMOVE"),
        Expected::new("madvise", "0", "madvise(2)"),
    ]
}
