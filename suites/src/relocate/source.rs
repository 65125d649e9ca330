//! The state of the source page: what can be moved, and what refuses.

use super::{
    ART, NEEDS, block, fate, map_block, map_source, open, park, ran, relocate, returned, says,
    source_area,
};
use crate::abi::{
    REGISTER_MODE_MISSING, REGISTER_MODE_WP, WRITEPROTECT_MODE_WP, features,
    newer::MOVE_MODE_ALLOW_SRC_HOLES,
};
use crate::expect::{Expected, OBSERVED};
use crate::memory::{PAGE, RW, tag};
use crate::point::{PAGES, Waiter};
use crate::probe::{Case, Probe};
use crate::script::{Call, Ctx, DONTNEED, FREE, GUARD, Memory, Place, Script, Span, Step, Treat};

static SOURCE: Probe = Probe {
    suite: "move",
    name: "source",
    statement: "MOVE takes a page that is present and exclusive, or the zero page, and wakes its \
                destination's waiter; a hole gives ENOENT, a shared or pinned page EBUSY, a marker \
                EFAULT, and nobody is woken.",
    consumers: &[ART],
};

static WAITER: Probe = Probe {
    suite: "move",
    name: "source-waiter",
    statement: "MOVE wakes nobody who waits for the source, whether the page is moved from under \
                them or not.",
    consumers: &[ART],
};

/// States of the source page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Present,
    Missing,
    NoTable,
    NoDirectory,
    Discarded,
    Zero,
    Freed,
    Shared,
    SharedZero,
    ChildGone,
    WrittenAgain,
    Pinned,
    Spliced,
    RegisteredSame,
    RegisteredOther,
    Protected,
    Marker,
    Poisoned,
    Guard,
}

const STATES: [(State, &str); 19] = [
    (State::Present, "present"),
    (State::Missing, "missing"),
    (State::NoTable, "no-page-table"),
    (State::NoDirectory, "no-page-directory"),
    (State::Discarded, "discarded"),
    (State::Zero, "zero-page"),
    (State::Freed, "madv-free"),
    (State::Shared, "shared-by-fork"),
    (State::SharedZero, "zero-page-shared-by-fork"),
    (State::ChildGone, "child-gone"),
    (State::WrittenAgain, "child-gone-and-written"),
    (State::Pinned, "pinned"),
    (State::Spliced, "vmspliced"),
    (State::RegisteredSame, "registered"),
    (State::RegisteredOther, "registered-elsewhere"),
    (State::Protected, "write-protected"),
    (State::Marker, "protection-marker"),
    (State::Poisoned, "poisoned"),
    (State::Guard, "guard"),
];

impl State {
    const fn is_hole(self) -> bool {
        matches!(self, Self::Missing | Self::NoTable | Self::NoDirectory | Self::Discarded)
    }

    /// Whether nothing of the source area was ever touched.
    const fn is_untouched(self) -> bool {
        matches!(self, Self::NoTable | Self::NoDirectory)
    }

    /// Pages of the source area.
    const fn area(self, first: usize, count: usize) -> Span {
        match self {
            Self::NoDirectory => Span::new(Place::Far, first, count),
            _ => source_area(first, count),
        }
    }
}

/// What comes of it.
enum Outcome {
    Moves(&'static str),
    Hole,
    Refused(&'static str, i32, &'static str),
}

fn outcome(state: State, holes: bool) -> Outcome {
    match state {
        _ if state.is_hole() && holes => Outcome::Hole,
        _ if state.is_hole() => Outcome::Refused("ENOENT", -2, says::ENOENT),
        State::Zero | State::SharedZero => Outcome::Moves("zero"),
        State::Shared | State::ChildGone | State::Pinned => {
            Outcome::Refused("EBUSY", -16, says::EBUSY)
        }
        State::Marker | State::Poisoned | State::Guard => {
            Outcome::Refused("EFAULT", -14, says::EFAULT)
        }
        _ => Outcome::Moves("new"),
    }
}

/// The suite's cases about source pages.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (state, word) in STATES {
        for holes in [false, true] {
            for waiter in Waiter::THREADS {
                let by_default = matches!(waiter, Waiter::None | Waiter::UserRead)
                    || (!holes && matches!(waiter, Waiter::UserWrite | Waiter::SysWrite));
                let script = about(state, word, holes, *waiter);
                cases.push(Case::trial(&SOURCE, script, by_default));
            }
        }
    }
    cases.extend(waiters());
    cases
}

/// The steps that bring page 2 of the source area into the state, after both areas are mapped:
/// before the contexts are made, and after.
fn bring(state: State) -> (Vec<Step>, Vec<Step>) {
    let page = source_area(2, 1);
    let all = source_area(0, PAGES);
    let fill = Step::Fill(page, tag::NEW);
    let prepare = |what| Step::Prepare(what, page);
    let register = |ctx, mode| Step::Set(ctx, Call::Register(all, mode));
    match state {
        State::Missing | State::NoTable | State::NoDirectory => (vec![], vec![]),
        State::Present => (vec![fill], vec![]),
        State::Discarded => (vec![fill, prepare(DONTNEED)], vec![]),
        State::Zero => (vec![Step::Load(page)], vec![]),
        State::Freed => (vec![fill, prepare(FREE)], vec![]),
        State::Shared => (vec![fill, prepare(Treat::Fork)], vec![]),
        State::SharedZero => (vec![Step::Load(page), prepare(Treat::Fork)], vec![]),
        State::ChildGone => (vec![fill, prepare(Treat::ForkGone)], vec![]),
        State::WrittenAgain => (vec![fill, prepare(Treat::ForkGone), fill], vec![]),
        State::Pinned => (vec![fill, prepare(Treat::Pin)], vec![]),
        State::Spliced => (vec![fill, prepare(Treat::Splice)], vec![]),
        State::RegisteredSame => (vec![fill], vec![register(Ctx::First, REGISTER_MODE_MISSING)]),
        State::RegisteredOther => (
            vec![fill],
            vec![Step::Open(Ctx::Second, 0), register(Ctx::Second, REGISTER_MODE_MISSING)],
        ),
        State::Protected => (
            vec![fill],
            vec![
                register(Ctx::First, REGISTER_MODE_WP),
                Step::Set(Ctx::First, Call::Wp(page, WRITEPROTECT_MODE_WP)),
            ],
        ),
        State::Marker => (
            vec![],
            vec![
                Step::Open(Ctx::Second, features::WP_UNPOPULATED),
                register(Ctx::Second, REGISTER_MODE_WP),
                Step::Set(Ctx::Second, Call::Wp(page, WRITEPROTECT_MODE_WP)),
            ],
        ),
        State::Poisoned => (
            vec![],
            vec![
                register(Ctx::First, REGISTER_MODE_MISSING),
                Step::Set(Ctx::First, Call::Poison(page, 0)),
            ],
        ),
        State::Guard => (vec![prepare(GUARD)], vec![]),
    }
}

/// Whether a touch of the source page is seen by a context afterwards.
fn watcher(state: State) -> Ctx {
    if state == State::RegisteredOther { Ctx::Second } else { Ctx::First }
}

fn about(state: State, word: &str, holes: bool, waiter: Waiter) -> Script {
    let (before, after) = bring(state);
    let mut steps = map_block();
    steps.push(Step::Map(state.area(0, PAGES), Memory::Anon(RW)));
    if !state.is_untouched() {
        // So that it has a page table.
        steps.push(Step::Fill(state.area(5, 1), tag::KEPT));
    }
    steps.extend(before);
    steps.extend(open());
    steps.extend(after);
    steps.extend(park(waiter, 2));
    let mode = if holes { MOVE_MODE_ALLOW_SRC_HOLES } else { 0 };
    steps.extend([
        relocate(block(2, 1), state.area(2, 1), mode),
        Step::Look(Ctx::First),
        Step::Survey(block(0, PAGES), "reg", "pages"),
        Step::Survey(state.area(0, PAGES), "src-reg", "src-pages"),
        Step::Rescue(Ctx::First),
        Step::Bits(block(2, 1), "bits"),
        Step::Touch(watcher(state), Waiter::UserRead, state.area(2, 1), "src-touch"),
    ]);
    let axes =
        format!("source={word},holes={},waiter={waiter}", if holes { "allowed" } else { "no" });
    let needs = NEEDS
        | match state {
            State::Marker => features::WP_UNPOPULATED,
            State::Poisoned => features::POISON,
            _ => 0,
        };
    Script::new(axes, needs, steps, move |_| expect(state, holes, waiter))
}

fn expect(state: State, holes: bool, waiter: Waiter) -> Vec<Expected> {
    if waiter == Waiter::Mlock {
        // mlock(2) marks the mapping as locked before it faults its pages in.
        let mut facts = returned("EINVAL", -22, says::EINVAL);
        facts.extend(fate(waiter, "asleep", says::EINVAL));
        return facts;
    }
    let mut facts;
    let kept = if state.is_untouched() { "-" } else { "k" };
    match outcome(state, holes) {
        Outcome::Moves(content) => {
            let says = says::MOVED;
            facts = returned("0", PAGE, says);
            facts.extend(fate(waiter, ran(waiter, content), says));
            let letter = match content {
                _ if waiter.stores() => 'w',
                "new" => 'n',
                _ => '0',
            };
            facts.push(Expected::new("pages", format!("--{letter}--k"), says));
            facts.push(Expected::new("src-pages", format!("-----{kept}"), says::SOURCE));
            facts.push(Expected::new("bits", "p", says));
            let touch = match state {
                State::RegisteredSame | State::RegisteredOther => "parks:read",
                _ => "ran:zero",
            };
            facts.push(Expected::new("src-touch", touch, says::SOURCE));
        }
        Outcome::Hole => {
            let says = says::HOLES;
            facts = returned("0", PAGE, says);
            facts.extend(fate(waiter, "again", says));
            facts.push(Expected::new("pages", "-----k", says));
            facts.push(Expected::new("src-pages", format!("-----{kept}"), says));
            facts.push(Expected::new("src-touch", "ran:zero", says));
        }
        Outcome::Refused(errno, number, says) => {
            facts = returned(errno, number, says);
            facts.extend(fate(waiter, "asleep", says));
            facts.push(Expected::new("pages", "-----k", says));
            let left = match state {
                State::Shared | State::ChildGone | State::Pinned => 'n',
                _ => '-',
            };
            facts.push(Expected::new("src-pages", format!("--{left}--{kept}"), says));
            let (touch, says) = match state {
                State::Poisoned => (crate::poison::SIGBUS, crate::poison::CODE),
                State::Guard => ("SEGV_MAPERR", OBSERVED),
                State::Shared | State::ChildGone | State::Pinned => ("ran:new", says),
                _ => ("ran:zero", says),
            };
            facts.push(Expected::new("src-touch", touch, says));
        }
    }
    facts
}

/// For what the source is registered, and what its waiter waits for.
const WAITERS: [(&str, u64, Waiter); 4] = [
    ("missing", REGISTER_MODE_MISSING, Waiter::UserRead),
    ("missing-write", REGISTER_MODE_MISSING, Waiter::UserWrite),
    ("protected", REGISTER_MODE_WP, Waiter::UserWrite),
    ("protected-read-into", REGISTER_MODE_WP, Waiter::SysRead),
];

fn waiters() -> Vec<Case> {
    let mut cases = Vec::new();
    for (word, mode, waiter) in WAITERS {
        for ctx in [Ctx::First, Ctx::Second] {
            for from in [2, 3] {
                for holes in [false, true] {
                    let script = waits(word, mode, waiter, ctx, from, holes);
                    cases.push(Case::trial(&WAITER, script, true));
                }
            }
        }
    }
    cases
}

fn waits(word: &str, mode: u64, waiter: Waiter, ctx: Ctx, from: usize, holes: bool) -> Script {
    let protects = mode == REGISTER_MODE_WP;
    let mut steps = map_block();
    steps.extend(map_source());
    steps.push(Step::Fill(source_area(3, 1), tag::NEW));
    if protects {
        steps.push(Step::Fill(source_area(2, 1), tag::NEW));
    }
    steps.extend(open());
    if ctx == Ctx::Second {
        steps.push(Step::Open(ctx, 0));
    }
    let all = source_area(0, PAGES);
    steps.push(Step::Set(ctx, Call::Register(all, mode)));
    if protects {
        steps.push(Step::Set(ctx, Call::Wp(all, WRITEPROTECT_MODE_WP)));
    }
    let flags = if holes { MOVE_MODE_ALLOW_SRC_HOLES } else { 0 };
    steps.extend([
        Step::Park(ctx, waiter, source_area(2, 1)),
        relocate(block(2, 1), source_area(from, 1), flags),
        Step::Look(ctx),
        Step::Survey(block(0, PAGES), "reg", "pages"),
        Step::Survey(source_area(0, PAGES), "src-reg", "src-pages"),
        Step::Rescue(ctx),
        Step::Survey(source_area(0, PAGES), "end-reg", "end-pages"),
    ]);
    let owner = if ctx == Ctx::First { "same" } else { "other" };
    let page = if from == 2 { "its" } else { "next" };
    let holes_word = if holes { "allowed" } else { "no" };
    let axes = format!("waits={word},context={owner},page={page},holes={holes_word}");
    Script::new(axes, NEEDS, steps, move |_| expect_waits(protects, from, holes))
}

fn expect_waits(protects: bool, from: usize, holes: bool) -> Vec<Expected> {
    let missing = !protects && from == 2;
    let says = match (missing, holes) {
        (true, false) => says::ENOENT,
        (true, true) => says::HOLES,
        _ => says::MOVED,
    };
    let mut facts = match (missing, holes) {
        (true, false) => returned("ENOENT", -2, says),
        _ => returned("0", PAGE, says),
    };
    facts.push(Expected::new("waiter", "asleep", says::SOURCE));
    facts.push(Expected::new("queue", "1/0", says::SOURCE));
    let dst = if missing { '-' } else { 'n' };
    facts.push(Expected::new("pages", format!("--{dst}--k"), says));
    let here = if protects && from == 3 { 'n' } else { '-' };
    let next = if from == 3 { '-' } else { 'n' };
    facts.push(Expected::new("src-pages", format!("--{here}{next}-k"), says::SOURCE));
    // A protected page that has moved left a hole without protection: the store makes a new page.
    let moved_away = protects && from == 2;
    facts.push(Expected::new(
        "rescued",
        if moved_away { "ran" } else { "again" },
        crate::model::source::RERUN,
    ));
    facts
}
