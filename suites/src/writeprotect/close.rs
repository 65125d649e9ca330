//! The last close with a writer waiting for protection to go: does the writer come free?

use crate::abi::Rc;
use crate::edge::CLOSE_LIFTS;
use crate::expect::Expected;
use crate::memory::tag;
use crate::mover::Mover;
use crate::outcome::{Seen, Stop};
use crate::point::{Backing, Change, Mode, Msg, Op, Point, Waiter};
use crate::probe::{Case, Probe, Routine};
use crate::scenario::Scene;
use crate::stage::Stage;
use crate::touch;
use uffd_results::KernelVersion;

static CLOSE: Probe = Probe {
    suite: "writeprotect",
    name: "close",
    statement: "The last close frees a writer that waits for its page's protection to go; before 6.9 \
                (6.8.10, 6.6.31, 6.1.192) the writer of a hugetlb page then faults for ever.",
    consumers: &[
        "QEMU background snapshot: ram_write_tracking_stop() closes after UNREGISTER",
        "whoever write-protects hugetlb and dies",
    ],
};

/// CPU time in the kernel, in clock ticks, that no single fault takes: 0.2 s.
const FOR_EVER: u64 = 20;

const RECIPE: &[&str] = &[
    "map a block of 6 pages, write to page 2, register all for write protection, protect all",
    "a thread stores to page 2 and parks",
    "close the userfaultfd, without UNREGISTER",
    "does the store end, or does the thread use CPU time in the kernel without an end?",
];

/// The cases.
pub(super) fn cases() -> Vec<Case> {
    let routine = Routine { run, expect, recipe: RECIPE };
    Backing::ALL.iter().map(|backing| Case::own(&CLOSE, routine, *backing)).collect()
}

fn run(stage: &Stage, backing: Backing, seen: &mut Seen<'_>) -> Result<(), Stop> {
    if backing.is_huge() && !stage.disposable {
        return Err(Stop::Precondition(
            "before 6.9 it leaves a thread that faults for ever: only asked in a VM".into(),
        ));
    }
    seen.step("set-up");
    let (change, msg, op) = (Change::None, Msg::Unread, Op::Look);
    let point = Point { backing, mode: Mode::Wp, change, waiter: Waiter::None, msg, op };
    let scene = Scene::set(stage, point)?;
    let page = scene.target();
    seen.step("park");
    let writer = Mover::start(stage, move || {
        Rc(touch::store(page.start, tag::WROTE).is_err().then_some(nix::errno::Errno::EFAULT))
    })?;
    seen.fact("parked", writer.blocks_on_event(&scene.uffd)?);
    seen.step("close");
    let Scene { uffd, .. } = scene;
    drop(uffd);
    seen.fact("closed", if writer.spins(FOR_EVER)? { "spins" } else { "ran" });
    Ok(())
}

fn expect(backing: Backing, kernel: KernelVersion) -> Vec<Expected> {
    let closed = if backing.is_huge() {
        CLOSE_LIFTS.value(kernel, "spins", "ran")
    } else {
        "ran".to_owned()
    };
    vec![
        Expected::new("parked", "true", crate::model::source::QUEUE),
        Expected::new("closed", closed, CLOSE_LIFTS.source),
    ]
}
