//! Points of the grid on memory that was treated before: locked, sealed, mergeable and so on. The
//! documented rules are the grid's; what a treatment changes stands here.

use crate::change::Prepared;
use crate::expect::Expected;
use crate::model;
use crate::outcome::{Seen, Stop};
use crate::point::{Backing, Change, Mode, Msg, Op, Over, PAGES, Part, Point, Waiter};
use crate::probe::{Case, Probe, Trial};
use crate::scenario::{self, Scene};
use crate::stage::Stage;
use crate::treat;
use uffd_results::KernelVersion;

const RAM: &str = "QEMU: memory backends with merge, dump and prealloc options, mem-lock";

static LOCKED: Probe = Probe {
    suite: "kinds",
    name: "locked",
    statement: "Memory locked by mlock2(MLOCK_ONFAULT) faults, is placed and wakes as any other, but \
                takes no page by MOVE from memory that is not locked.",
    consumers: &[
        "QEMU: -overcommit mem-lock=on-fault",
        "QEMU postcopy: munlockall before postcopy",
    ],
};
static MERGEABLE: Probe = Probe {
    suite: "kinds",
    name: "mergeable",
    statement: "Memory with MADV_MERGEABLE faults, is placed and wakes as any other.",
    consumers: &[RAM],
};
static DONTFORK: Probe = Probe {
    suite: "kinds",
    name: "dontfork",
    statement: "Memory with MADV_DONTFORK faults, is placed and wakes as any other.",
    consumers: &[RAM, "QEMU postcopy: ram_block_enable_notify()"],
};
static DONTDUMP: Probe = Probe {
    suite: "kinds",
    name: "dontdump",
    statement: "Memory with MADV_DONTDUMP faults, is placed and wakes as any other.",
    consumers: &[RAM],
};
static RANDOM: Probe = Probe {
    suite: "kinds",
    name: "random",
    statement: "Memory with MADV_RANDOM faults, is placed and wakes as any other.",
    consumers: &["CRIU lazy-pages: madvise flags are restored, criu/mem.c"],
};
static SEALED: Probe = Probe {
    suite: "kinds",
    name: "sealed",
    statement: "munmap and mmap over memory sealed by mseal(2) fail with EPERM and leave waiter and \
                registration as they were; all userfaultfd operations work on it.",
    consumers: &["allocators that seal their ranges (mseal(2), 6.10)"],
};

/// How memory was treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Locked,
    Advised(i32, &'static str),
    Sealed,
}

fn kinds() -> [(&'static Probe, Kind); 6] {
    [
        (&LOCKED, Kind::Locked),
        (&MERGEABLE, Kind::Advised(libc::MADV_MERGEABLE, "MADV_MERGEABLE")),
        (&DONTFORK, Kind::Advised(libc::MADV_DONTFORK, "MADV_DONTFORK")),
        (&DONTDUMP, Kind::Advised(libc::MADV_DONTDUMP, "MADV_DONTDUMP")),
        (&RANDOM, Kind::Advised(libc::MADV_RANDOM, "MADV_RANDOM")),
        (&SEALED, Kind::Sealed),
    ]
}

/// Operations by the mode in which they say something.
const ASKED: [(Mode, Waiter, &[Op]); 3] = [
    (
        Mode::Missing,
        Waiter::UserRead,
        &[Op::Look, Op::Copy, Op::Zeropage, Op::Poison, Op::Move, Op::Unregister, Op::Wake],
    ),
    (Mode::Missing, Waiter::SysRead, &[Op::Copy, Op::Unregister, Op::Wake]),
    (Mode::Wp, Waiter::UserWrite, &[Op::Unprotect, Op::Wake]),
];

/// The suite's cases about treated memory.
pub(super) fn cases() -> Vec<Case> {
    let changes =
        [Change::None, Change::Munmap(Part::Middle), Change::MmapOver(Part::Middle, Over::Anon)];
    let mut cases = Vec::new();
    for (probe, kind) in kinds() {
        for backing in [Backing::Anon, Backing::Shmem, Backing::Private] {
            for (mode, waiter, ops) in ASKED {
                for op in ops {
                    for change in changes {
                        // Files took no write protection before 5.19, and need more than one page's
                        // facts to be told apart: the grid has them.
                        if mode == Mode::Wp && backing != Backing::Anon {
                            continue;
                        }
                        let point =
                            Point { backing, mode, change, waiter, msg: Msg::Read, op: *op };
                        // What says most: every operation on the plain kinds, one waiter.
                        let by_default = backing != Backing::Private
                            && (waiter != Waiter::SysRead || kind == Kind::Sealed)
                            && (change == Change::None
                                || matches!(kind, Kind::Locked | Kind::Sealed)
                                || *op == Op::Copy);
                        cases.push(Case::trial(probe, Treated { kind, point }, by_default));
                    }
                }
            }
        }
    }
    cases
}

/// A point of the grid on treated memory.
#[derive(Debug)]
struct Treated {
    kind: Kind,
    point: Point,
}

impl Trial for Treated {
    fn axes(&self) -> String {
        let Point { mode, op, .. } = self.point;
        // The point's own axes leave out the mode where ids of older operations did.
        let change = self.point.change.name();
        let Point { backing, waiter, .. } = self.point;
        format!("backing={backing},mode={mode},change={change},op={},waiter={waiter}", word(op))
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        let point = self.point;
        seen.step("set-up");
        stage.must_offer(scenario::needs(point.op))?;
        let scene = Scene::set(stage, point)?;
        let all = scene.block.range(0..PAGES);
        let rc = match self.kind {
            Kind::Locked => treat::lock(all, libc::MLOCK_ONFAULT),
            Kind::Advised(advice, _) => crate::memory::advise(all, advice),
            Kind::Sealed => treat::seal(all),
        };
        if !rc.is_ok() {
            return Err(Stop::Unsupported(format!("{}: {rc}", self.call())));
        }
        let change = Prepared::new(stage, point.change, &scene.block)?;
        let mut waiter = scene.park(point, seen)?;
        seen.step("change");
        let rc = change.apply(stage, &scene.block)?;
        if point.change != Change::None {
            seen.fact("change", rc);
        }
        seen.step(word(point.op));
        scene.act(point.op, seen);
        scene.conclude(point, waiter.as_mut(), seen)
    }

    fn expect(&self, kernel: KernelVersion) -> Vec<Expected> {
        let Self { kind, point } = *self;
        if kind == Kind::Sealed && point.change != Change::None {
            // As if nothing had happened, which is what is asked.
            let unchanged = Point { change: Change::None, ..point };
            let mut facts = model::expect(unchanged, kernel);
            facts.push(Expected::new(
                "change",
                "EPERM",
                "Documentation/userspace-api/mseal.rst (6.10): munmap(2) and mmap(MAP_FIXED) of \
                 sealed memory are refused",
            ));
            return poisoned_either_way(facts);
        }
        let mut facts = model::expect(point, kernel);
        if kind == Kind::Locked && point.op == Op::Move && point.change == Change::None {
            let says = crate::relocate::says::EINVAL;
            facts.retain(|fact| matches!(fact.fact, "fault" | "reg"));
            facts.extend([
                Expected::new("move", "EINVAL", says),
                Expected::new("field", "-22", says),
                Expected::new("waiter", "asleep", says),
                Expected::new("queue", "1/0", says),
                Expected::new("rescued", "again", model::source::RERUN),
            ]);
        }
        if matches!(point.op, Op::Move) && point.change == Change::Munmap(Part::Middle) {
            // A hole is told from a mapping without a context: see move/edge.
            for fact in &mut facts {
                match fact.fact {
                    "move" => fact.value = "ENOENT".into(),
                    "field" => fact.value = "-2".into(),
                    _ => {}
                }
            }
        }
        poisoned_either_way(facts)
    }

    fn recipe(&self) -> Vec<String> {
        let mut steps = crate::recipe::of(self.point);
        // After the mapping and the registration, before anybody waits.
        steps.insert(2, format!("{} of the whole block", self.call()));
        steps
    }
}

impl Treated {
    fn call(&self) -> String {
        match self.kind {
            Kind::Locked => "mlock2(MLOCK_ONFAULT)".into(),
            Kind::Advised(_, name) => format!("madvise({name})"),
            Kind::Sealed => "mseal".into(),
        }
    }
}

/// The signal's code depends on the kernel's configuration.
fn poisoned_either_way(mut facts: Vec<Expected>) -> Vec<Expected> {
    for fact in &mut facts {
        if fact.value == "BUS_MCEERR_AR" {
            fact.value = crate::poison::SIGBUS.into();
        }
    }
    facts
}

const fn word(op: Op) -> &'static str {
    match op {
        Op::Look => "look",
        Op::Copy => "copy",
        Op::Zeropage => "zeropage",
        Op::Continue => "continue",
        Op::Unprotect => "unprotect",
        Op::Poison => "poison",
        Op::Move => "move",
        Op::Unregister => "unregister",
        Op::Wake => "wake",
    }
}
