//! The suite `changes`: changes beside the grid's: madvise, truncation, mprotect, fork, several
//! mappings at once.
//!
//! A change is a list of steps (`step`); `state` simulates what each leaves behind, and `expect`
//! derives the facts from that. What a list of steps on one block can't express has a file of its own:
//! `adopt` (a second context), `exchange` (two blocks), `half` (calls that fail at one of several
//! mappings), `collapse` (huge pages), `merge` and `adjacent` (mappings that become one).

use crate::expect::Expected;
use crate::outcome::{Seen, Stop};
use crate::point::{Backing, Op, Point, Waiter};
use crate::probe::{Case, Trial};
use crate::scenario::Scene;
use crate::stage::Stage;
use list::sequence::SEQUENCES;
use list::{CHANGES, Change};
use step::Step;
use uffd_results::KernelVersion;

mod adjacent;
mod adopt;
mod call;
mod collapse;
mod exchange;
mod expect;
mod half;
mod list;
mod merge;
mod state;
mod step;

/// A change, who waits meanwhile, and what is asked afterwards.
#[derive(Debug)]
struct Changed {
    backing: Backing,
    change: &'static Change,
    waiter: Waiter,
    op: Op,
}

/// Operations and waiters, with whether they are asked by default: of anonymous memory, of shared
/// memory, of a private file, of huge pages. The first is what is asked of every change.
const ASKED: &[(Waiter, Op, [bool; 4])] = &[
    (Waiter::UserRead, Op::Look, [true, true, false, false]),
    (Waiter::None, Op::Look, [true, false, false, false]),
    (Waiter::None, Op::Copy, [false; 4]),
    (Waiter::None, Op::Zeropage, [false; 4]),
    (Waiter::None, Op::Unregister, [false; 4]),
    (Waiter::UserRead, Op::Copy, [true, true, true, true]),
    (Waiter::UserRead, Op::Zeropage, [false; 4]),
    (Waiter::UserRead, Op::Unregister, [true, true, false, false]),
    (Waiter::UserRead, Op::Wake, [false; 4]),
    (Waiter::UserWrite, Op::Look, [false; 4]),
    (Waiter::UserWrite, Op::Copy, [true, false, false, false]),
    (Waiter::UserWrite, Op::Zeropage, [false; 4]),
    (Waiter::UserWrite, Op::Unregister, [false; 4]),
    (Waiter::UserWrite, Op::Wake, [false; 4]),
    (Waiter::SysWrite, Op::Look, [true, false, false, false]),
    (Waiter::SysWrite, Op::Copy, [false; 4]),
    (Waiter::SysWrite, Op::Unregister, [false; 4]),
    (Waiter::SysWrite, Op::Wake, [false; 4]),
];

const fn word(op: Op) -> &'static str {
    match op {
        Op::Copy => "copy",
        Op::Zeropage => "zeropage",
        Op::Unregister => "unregister",
        Op::Wake => "wake",
        _ => "look",
    }
}

impl Changed {
    const fn point(&self) -> Point {
        Point { op: self.op, ..Point::missing(self.backing, self.waiter) }
    }
}

impl Trial for Changed {
    fn axes(&self) -> String {
        let Self { backing, change, waiter, op } = self;
        format!("backing={backing},how={},waiter={waiter},op={}", change.how, word(*op))
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        seen.step("set-up");
        if self.change.steps.iter().any(harms) && !stage.disposable {
            return Err(Stop::Precondition(
                "takes memory away from the machine: only asked in a VM".into(),
            ));
        }
        let point = self.point();
        let scene = Scene::set(stage, point)?;
        let mut waiter = scene.park(point, seen)?;
        seen.step("change");
        call::perform(&scene, self.change.steps, seen)?;
        seen.step(word(self.op));
        scene.act(self.op, seen);
        scene.conclude(point, waiter.as_mut(), seen)
    }

    fn expect(&self, kernel: KernelVersion) -> Vec<Expected> {
        expect::expect(self.backing, self.change.steps, self.waiter, self.op, kernel)
    }

    fn recipe(&self) -> Vec<String> {
        let mut steps = crate::recipe::of(Point { op: Op::Look, ..self.point() });
        let parked = if self.waiter == Waiter::None { 2 } else { 4 };
        let mut tail = steps.split_off(parked);
        steps.extend(self.change.steps.iter().map(|step| step.words()));
        match self.op {
            Op::Copy => steps.push("UFFDIO_COPY of one page to page 2".into()),
            Op::Zeropage => steps.push("UFFDIO_ZEROPAGE of page 2".into()),
            Op::Unregister => steps.push("UFFDIO_UNREGISTER of pages 0..6".into()),
            Op::Wake => steps.push("UFFDIO_WAKE of page 2".into()),
            _ => {}
        }
        steps.append(&mut tail);
        steps
    }

    fn uses_huge_pages(&self) -> bool {
        self.backing.is_huge()
    }
}

const fn harms(step: &Step) -> bool {
    matches!(step, Step::Advise(_, advice) if advice.harms())
}

/// The suite's cases.
pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for change in CHANGES.iter().chain(SEQUENCES) {
        for backing in Backing::ALL {
            if !change.steps.iter().all(|step| step.applies(*backing)) {
                continue;
            }
            let harms = change.steps.iter().any(harms);
            for (waiter, op, by_default) in ASKED {
                let by_default = match backing {
                    _ if harms => false,
                    Backing::Anon => by_default[0],
                    Backing::Shmem => by_default[1],
                    Backing::Private => by_default[2],
                    Backing::HugetlbShared => by_default[3] && change.huge,
                    Backing::SharedAnon | Backing::HugetlbPrivate => false,
                };
                let trial = Changed { backing: *backing, change, waiter: *waiter, op: *op };
                cases.push(Case::trial(change.probe, trial, by_default));
            }
        }
    }
    adopt::cases(&mut cases);
    exchange::cases(&mut cases);
    half::cases(&mut cases);
    collapse::cases(&mut cases);
    merge::cases(&mut cases);
    adjacent::cases(&mut cases);
    cases
}
