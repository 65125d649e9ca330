//! The suite `claims`: what was said about QEMU's "Tolerate partially changed mappings in postcopy
//! code", each sentence held against what the kernel does.
//!
//! Every case performs a point of the grid and adds the fact `claim`: `true`, `false`, or `moot`
//! where the kernel refused the change that the claim speaks of, or the change has left nothing that
//! the claim could be wrong about.

use crate::expect::Expected;
use crate::growth;
use crate::model;
use crate::outcome::{Seen, Sink, Stop};
use crate::point::{
    Backing, Change, Discard, Mode, Msg, Op, Over, PAGES, Part, Point, Remap, SHRUNK, Waiter,
};
use crate::probe::{Case, Claim, Probe};
use crate::scenario;
use crate::stage::Stage;
use uffd_results::KernelVersion;

const QEMU: &str = "QEMU postcopy: migration/postcopy-ram.c and migration/ram.c";

static CHANGE_WAKES: Probe = Probe {
    suite: "claims",
    name: "change-wakes",
    statement: "Claim of the patch: when the mapping is changed, any waiters are woken up.",
    consumers: &[QEMU],
};
static WAKE_IS_ENOUGH: Probe = Probe {
    suite: "claims",
    name: "wake-is-enough",
    statement: "Claim of the answer: UFFDIO_WAKE works without a registered handler and frees the \
                waiter of a changed mapping.",
    consumers: &[QEMU],
};
static PLACING_FAILS: Probe = Probe {
    suite: "claims",
    name: "placing-fails",
    statement: "Claim of the patch: placing a page into a changed mapping fails.",
    consumers: &[QEMU],
};
static UNREGISTER_WORKS: Probe = Probe {
    suite: "claims",
    name: "unregister-works",
    statement: "Claim of the patch: UNREGISTER still works and ignores mappings without a handler.",
    consumers: &[QEMU],
};
static CLEANUP_FREES: Probe = Probe {
    suite: "claims",
    name: "cleanup-frees",
    statement: "What the patch builds on: after UNREGISTER of the block nobody is left waiting.",
    consumers: &[QEMU],
};
static HANDLER_GOES: Probe = Probe {
    suite: "claims",
    name: "handler-goes",
    statement: "Claim of the answer: userfaultfd disappears from a mapping that is unmapped or \
                replaced: what is mapped there afterwards has none, nor has what was moved away. It \
                is moot where nothing is mapped.",
    consumers: &[QEMU],
};
static GROWTH: Probe = Probe {
    suite: "claims",
    name: "growth-has-no-handler",
    statement: "Claim of the patch: where a block grows, the new memory has no handler.",
    consumers: &[QEMU],
};
static WAITS_FOR_EVER: Probe = Probe {
    suite: "claims",
    name: "waits-for-ever",
    statement: "Claim of the answer: it could happen that the thread simply waits for ever; not even \
                UNREGISTER of the block frees it.",
    consumers: &[QEMU],
};

/// The changes that the claims speak of: RAM remapped, shrunk, grown, moved, discarded.
fn changes() -> Vec<Change> {
    let mut changes: Vec<Change> =
        [Part::Whole, Part::Middle, Part::Tail].map(Change::Munmap).into();
    changes.extend([Part::Whole, Part::Middle].map(|part| Change::MmapOver(part, Over::Anon)));
    for over in [Over::Shared, Over::ProtNone, Over::File, Over::Same] {
        changes.push(Change::MmapOver(Part::Middle, over));
    }
    changes.extend(Remap::ALL.iter().map(|how| Change::Mremap(*how)));
    changes.extend(Discard::ALL.iter().map(|how| Change::Discard(*how)));
    changes
}

/// The suite's cases.
pub(crate) fn cases() -> Vec<Case> {
    // Two claims are about memory that has lost its handler, the others about every change.
    let questions: [(&'static Probe, Op, &[Waiter], Claim); 7] = [
        (&CHANGE_WAKES, Op::Look, &[Waiter::UserRead, Waiter::SysWrite], waiter_is_free),
        (&WAKE_IS_ENOUGH, Op::Wake, &[Waiter::UserRead], waiter_is_free),
        (&PLACING_FAILS, Op::Copy, &[Waiter::None], copy_fails),
        (&UNREGISTER_WORKS, Op::Unregister, &[Waiter::None], unregister_works),
        (&CLEANUP_FREES, Op::Unregister, &[Waiter::UserRead, Waiter::SysWrite], waiter_is_free),
        (&HANDLER_GOES, Op::Look, &[Waiter::None], handler_is_gone),
        (&WAITS_FOR_EVER, Op::Unregister, &[Waiter::UserWrite], waiter_is_stuck),
    ];
    let mut cases = Vec::new();
    for (probe, op, waiters, claim) in questions {
        for backing in Backing::ALL {
            for change in changes() {
                if matches!(change, Change::Discard(how) if !model::can_discard(*backing, how)) {
                    continue;
                }
                let about_loss =
                    [&WAKE_IS_ENOUGH, &HANDLER_GOES].iter().any(|p| std::ptr::eq(*p, probe));
                if about_loss && keeps_handler(change) {
                    continue;
                }
                for waiter in waiters {
                    let point = Point {
                        backing: *backing,
                        mode: Mode::Missing,
                        change,
                        waiter: *waiter,
                        msg: Msg::Read,
                        op,
                    };
                    let by_default = is_default(point);
                    cases.push(Case::claim(probe, point, claim, by_default));
                }
            }
        }
    }
    cases.extend(growth::cases(&GROWTH));
    cases
}

/// Changes that leave the block's own mapping, and so its registration, where it was.
fn keeps_handler(change: Change) -> bool {
    matches!(change, Change::Discard(_) | Change::Mremap(Remap::Grow | Remap::DontUnmap))
}

/// QEMU's RAM blocks are anonymous memory, shared memfds or shared hugetlbfs.
fn is_default(point: Point) -> bool {
    match point.backing {
        Backing::Anon => true,
        Backing::Shmem => {
            let remapped = matches!(
                point.change,
                Change::Munmap(_)
                    | Change::MmapOver(_, Over::Anon | Over::Same)
                    | Change::Mremap(Remap::Move | Remap::Grow)
                    | Change::Discard(_)
            );
            remapped && point.waiter != Waiter::SysWrite
        }
        Backing::HugetlbShared => {
            let remapped = matches!(
                point.change,
                Change::Munmap(_) | Change::MmapOver(_, Over::Same) | Change::Discard(_)
            );
            remapped && point.waiter != Waiter::SysWrite
        }
        _ => false,
    }
}

type Facts<'a> = &'a dyn Fn(&str) -> Option<String>;

fn is_moot(facts: Facts<'_>) -> bool {
    facts("change").is_some_and(|rc| rc != "0")
}

fn waiter_is_free(facts: Facts<'_>) -> Option<bool> {
    let fate = facts("waiter").filter(|_| !is_moot(facts))?;
    Some(fate != "asleep" && fate != "again")
}

fn waiter_is_stuck(facts: Facts<'_>) -> Option<bool> {
    waiter_is_free(facts).map(|free| !free)
}

fn copy_fails(facts: Facts<'_>) -> Option<bool> {
    facts("copy").filter(|_| !is_moot(facts)).map(|rc| rc != "0")
}

fn unregister_works(facts: Facts<'_>) -> Option<bool> {
    facts("unregister").filter(|_| !is_moot(facts)).map(|rc| rc == "0")
}

/// What is mapped where the change was made, and at the place that it moved the block to, must all be
/// unregistered. A hole has no mapping that could be registered, so it says nothing.
fn handler_is_gone(facts: Facts<'_>) -> Option<bool> {
    let changed = facts(CHANGED).filter(|_| !is_moot(facts))?;
    let moved = facts("new-reg").unwrap_or_default();
    let mut mapped =
        changed.chars().chain(moved.chars()).filter(|letter| *letter != '-').peekable();
    mapped.peek()?;
    Some(mapped.all(|letter| letter == '.'))
}

/// The part of the fact `reg` that is about the pages that the change replaces or takes away.
const CHANGED: &str = "reg of what was changed";

/// The facts of a point as a claim sees them.
fn look(point: Point, name: &str, facts: Facts<'_>) -> Option<String> {
    if name != CHANGED {
        return facts(name);
    }
    let pages = match point.change {
        Change::Munmap(part) | Change::MmapOver(part, _) => part.pages(),
        Change::Mremap(Remap::MovePart) | Change::Discard(_) => Part::Middle.pages(),
        Change::Mremap(Remap::Shrink) => SHRUNK..PAGES,
        Change::Mremap(_) => 0..PAGES,
        Change::None => 0..0,
    };
    facts("reg")?.get(pages).map(ToOwned::to_owned)
}

fn word(claim: Option<bool>) -> &'static str {
    match claim {
        Some(true) => "true",
        Some(false) => "false",
        None => "moot",
    }
}

/// Passes facts on and keeps them.
struct Tee<'a, 'b> {
    seen: &'a mut Seen<'b>,
    kept: Vec<(&'static str, String)>,
}

impl Sink for Tee<'_, '_> {
    fn fact(&mut self, name: &'static str, value: &str) {
        self.kept.push((name, value.to_owned()));
        self.seen.fact(name, value);
    }

    fn step(&mut self, name: &'static str) {
        self.seen.step(name);
    }
}

/// Performs a point and holds its facts against the claim.
pub(crate) fn perform(
    stage: &Stage,
    point: Point,
    claim: Claim,
    seen: &mut Seen<'_>,
) -> Result<(), Stop> {
    let mut tee = Tee { seen, kept: Vec::new() };
    scenario::perform(stage, point, &mut Seen::new(&mut tee))?;
    let Tee { seen, kept } = tee;
    let get = |name: &str| kept.iter().find(|(n, _)| *n == name).map(|(_, v)| v.clone());
    seen.fact("claim", word(claim(&|name| look(point, name, &get))));
    Ok(())
}

/// The facts of the point, and what follows from them for the claim.
pub(crate) fn expect(point: Point, claim: Claim, kernel: KernelVersion) -> Vec<Expected> {
    let mut facts = model::expect(point, kernel);
    let get = |name: &str| facts.iter().find(|e| e.fact == name).map(|e| e.value.to_string());
    let says = "follows from the facts before it";
    let claimed = word(claim(&|name| look(point, name, &get)));
    let expected = Expected::new("claim", claimed, says);
    facts.push(expected);
    facts
}
