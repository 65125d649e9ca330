//! The claim about blocks that grow: does touching the new memory park the thread?

use crate::abi::Rc;
use crate::change::{Prepared, map_behind};
use crate::expect::Expected;
use crate::model::source;
use crate::outcome::{Seen, Stop};
use crate::point::{Backing, Change, Mode, Msg, Op, PAGES, Point, Remap, Waiter as Kind};
use crate::probe::{Case, Probe, Routine};
use crate::scenario::Scene;
use crate::stage::Stage;
use crate::waiter::{Fate, Waiter};
use uffd_results::KernelVersion;

/// The cases: growth by a new mapping behind the block, and by mremap(2) in place.
pub(crate) fn cases(probe: &'static Probe) -> Vec<Case> {
    let ways: [(&str, Routine); 2] = [
        ("how=mmap-behind", Routine { run: behind, expect: expect_behind, recipe: BEHIND_RECIPE }),
        (
            "how=mremap-grow",
            Routine { run: in_place, expect: expect_in_place, recipe: GROW_RECIPE },
        ),
    ];
    let mut cases = Vec::new();
    for (how, routine) in ways {
        for backing in Backing::ALL {
            cases.push(Case::with_axis(probe, routine, *backing, how));
        }
    }
    cases
}

fn grow(
    stage: &Stage,
    backing: Backing,
    seen: &mut Seen<'_>,
    how: impl FnOnce(&Scene<'_>) -> Result<Rc, Stop>,
) -> Result<(), Stop> {
    let change = Change::Mremap(Remap::Grow);
    let point = Point {
        backing,
        mode: Mode::Missing,
        change,
        waiter: Kind::UserWrite,
        msg: Msg::Read,
        op: Op::Look,
    };
    let scene = Scene::set(stage, point)?;
    seen.step("change");
    let rc = how(&scene)?;
    seen.fact("change", rc);
    if !rc.is_ok() {
        seen.fact("claim", "moot");
        return Ok(());
    }
    seen.step("touch");
    let new = scene.block.range(PAGES..PAGES + 1);
    let mut waiter = Waiter::start(stage, point.waiter, new)?;
    let fate = waiter.settle(&scene.uffd, &scene.queue)?;
    let touched = if fate == Fate::Again { "parks".to_owned() } else { stage.word(fate) };
    seen.fact("touch", touched);
    if fate == Fate::Again {
        seen.fact("fault", scene.read_fault()?);
    }
    scene.survey(change, seen)?;
    seen.fact("claim", fate != Fate::Again);
    Ok(())
}

const BEHIND_RECIPE: &[&str] = &[
    "map and register a block of 6 pages",
    "mmap of 2 more pages of the same kind directly behind it",
    "a thread stores to the first new page: does it park?",
];

fn behind(stage: &Stage, backing: Backing, seen: &mut Seen<'_>) -> Result<(), Stop> {
    grow(stage, backing, seen, |scene| Ok(map_behind(&scene.block)))
}

fn expect_behind(_: Backing, _: KernelVersion) -> Vec<Expected> {
    let says = "ioctl_userfaultfd(2), UFFDIO_REGISTER: a registration belongs to the mappings of its range";
    vec![
        Expected::new("change", "0", "mmap(2)"),
        Expected::new("touch", "ran", says),
        Expected::new("reg", "mmmmmm..", says),
        Expected::new("claim", "true", says),
    ]
}

const GROW_RECIPE: &[&str] = &[
    "map and register a block of 6 pages",
    "mremap in place from 6 to 8 pages",
    "a thread stores to the first new page: does it park?",
];

fn in_place(stage: &Stage, backing: Backing, seen: &mut Seen<'_>) -> Result<(), Stop> {
    grow(stage, backing, seen, |scene| {
        Prepared::new(stage, Change::Mremap(Remap::Grow), &scene.block)?.apply(stage, &scene.block)
    })
}

fn expect_in_place(backing: Backing, _: KernelVersion) -> Vec<Expected> {
    if backing.is_huge() {
        return vec![
            Expected::new("change", "EINVAL", source::MREMAP_HUGE),
            Expected::new("claim", "moot", source::MREMAP_HUGE),
        ];
    }
    if backing == Backing::SharedAnon {
        // The file behind shared anonymous memory keeps its size: beyond it is SIGBUS.
        let says = "mmap(2): SIGBUS beyond the end of the object";
        return vec![
            Expected::new("change", "0", source::REMAP),
            Expected::new("touch", "BUS_ADRERR", says),
            Expected::new("reg", "mmmmmmmm", source::REMAP),
        ];
    }
    vec![
        Expected::new("change", "0", source::REMAP),
        Expected::new("touch", "parks", source::REMAP),
        Expected::new("reg", "mmmmmmmm", source::REMAP),
        Expected::new("claim", "false", source::REMAP),
    ]
}
