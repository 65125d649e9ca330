//! Which mappings can give and take pages, and what stands at the destination.

use super::{
    ART, NEEDS, block, fate, look, map_block, map_source, open, park, relocate, returned, says,
    source_area,
};
use crate::abi::{
    REGISTER_MODE_MISSING, REGISTER_MODE_WP, WRITEPROTECT_MODE_WP, features,
    newer::MOVE_MODE_ALLOW_SRC_HOLES,
};
use crate::expect::Expected;
use crate::memory::{HUGE, PAGE, RW, tag};
use crate::point::{Backing, PAGES, Waiter};
use crate::probe::{Case, Probe};
use crate::script::{Call, Ctx, GUARD, Memory, Place, Script, Span, Step, Treat};

static MEMORY: Probe = Probe {
    suite: "move",
    name: "memory",
    statement: "MOVE works between private anonymous mappings that are writable and alike in \
                protection and locks; any other pair gives EINVAL, moves nothing and wakes nobody.",
    consumers: &[ART],
};
static DESTINATION: Probe = Probe {
    suite: "move",
    name: "destination",
    statement: "MOVE onto anything but an empty entry of a mapping that the caller's context owns is \
                refused, leaves the source as it was and wakes nobody.",
    consumers: &[ART],
};
static EDGE: Probe = Probe {
    suite: "move",
    name: "edge",
    statement: "MOVE of a range that leaves its mapping on either side gives EINVAL, of one that \
                begins in a hole ENOENT, and nothing is moved.",
    consumers: &[ART],
};

/// A mapping to move from or to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Of(Backing),
    Locked,
    ReadOnly,
    NoAccess,
    GrowsDown,
    NoFork,
    File,
}

const KINDS: [(Kind, &str); 12] = [
    (Kind::Of(Backing::Anon), "anon"),
    (Kind::Of(Backing::Shmem), "shmem"),
    (Kind::Of(Backing::Private), "private-memfd"),
    (Kind::Of(Backing::SharedAnon), "shared-anon"),
    (Kind::Of(Backing::HugetlbShared), "hugetlb-shared"),
    (Kind::Of(Backing::HugetlbPrivate), "hugetlb-private"),
    (Kind::Locked, "locked"),
    (Kind::ReadOnly, "read-only"),
    (Kind::NoAccess, "no-access"),
    (Kind::GrowsDown, "grows-down"),
    (Kind::NoFork, "dontfork"),
    (Kind::File, "file"),
];

impl Kind {
    const fn is_huge(self) -> bool {
        matches!(self, Self::Of(backing) if backing.is_huge())
    }

    /// Pages of this kind.
    const fn span(self, place: Place, first: usize, count: usize) -> Span {
        let span = Span::new(place, first, count);
        if self.is_huge() { span.huge() } else { span }
    }

    fn map(self, place: Place) -> Vec<Step> {
        let all = self.span(place, 0, PAGES);
        let (memory, treat) = match self {
            Self::Of(backing) => (Memory::Of(backing), None),
            Self::Locked => (Memory::Anon(RW), Some(Treat::LockOnFault)),
            Self::ReadOnly => (Memory::Anon(RW), Some(Treat::Protect(libc::PROT_READ))),
            Self::NoAccess => (Memory::Anon(RW), Some(Treat::Protect(libc::PROT_NONE))),
            Self::GrowsDown => (Memory::GrowsDown, None),
            Self::NoFork => {
                (Memory::Anon(RW), Some(Treat::Advise(libc::MADV_DONTFORK, "MADV_DONTFORK")))
            }
            Self::File => (Memory::File, None),
        };
        let mut steps = vec![Step::Map(all, memory)];
        let page = self.span(place, 2, 1);
        match place {
            _ if self == Self::File => {}
            Place::Spare => steps.push(Step::Fill(page, tag::NEW)),
            _ => steps.push(Step::Fill(self.span(place, 5, 1), tag::KEPT)),
        }
        steps.extend(treat.map(|treat| Step::Prepare(treat, all)));
        steps
    }

    /// What it shares with mappings that it can move from or to; nothing if it can't.
    const fn class(self) -> Option<u8> {
        match self {
            Self::Of(Backing::Anon) | Self::GrowsDown | Self::NoFork => Some(0),
            Self::Locked => Some(1),
            _ => None,
        }
    }
}

/// The suite's cases about mappings.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (to, to_word) in KINDS {
        for (from, from_word) in KINDS {
            if to == Kind::File {
                continue;
            }
            let huge = to.is_huge() || from.is_huge();
            let anon = Kind::Of(Backing::Anon);
            let by_default =
                !huge || (to == Kind::Of(Backing::HugetlbPrivate) && (from == to || from == anon));
            let axes = format!("to={to_word},from={from_word}");
            if !huge || to == anon || from == anon || from == to {
                cases.push(Case::trial(&MEMORY, between(axes, to, from), by_default));
            }
        }
    }
    for (what, word) in STATES {
        for holes in [false, true] {
            cases.push(Case::trial(&DESTINATION, onto(what, word, holes), true));
        }
    }
    for (edge, word) in EDGES {
        for holes in [false, true] {
            cases.push(Case::trial(&EDGE, leaving(edge, word, holes), true));
        }
    }
    cases
}

fn between(axes: String, to: Kind, from: Kind) -> Script {
    let all = to.span(Place::Block, 0, PAGES);
    let mut steps = to.map(Place::Block);
    steps.extend(from.map(Place::Spare));
    steps.extend([
        Step::Open(Ctx::First, 0),
        Step::Set(Ctx::First, Call::Register(all, REGISTER_MODE_MISSING)),
    ]);
    let waits = to != Kind::NoAccess;
    if waits {
        steps.push(Step::Park(Ctx::First, Waiter::UserRead, to.span(Place::Block, 2, 1)));
    }
    // A base page where the two differ in size, so that the range stays within both.
    let page = |kind: Kind, place| {
        let first = if kind.is_huge() { 2 * HUGE / PAGE } else { 2 };
        if to.is_huge() && from.is_huge() {
            kind.span(place, 2, 1)
        } else {
            Span::new(place, first, 1)
        }
    };
    steps.extend([
        relocate(page(to, Place::Block), page(from, Place::Spare), 0),
        Step::Look(Ctx::First),
        Step::Survey(all, "reg", "pages"),
        Step::Bits(from.span(Place::Spare, 2, 1), "src-bits"),
        Step::Rescue(Ctx::First),
    ]);
    Script::new(axes, NEEDS, steps, move |_| {
        let waiter = if waits { Waiter::UserRead } else { Waiter::None };
        let works = to.class().is_some() && to.class() == from.class();
        let mut facts = if works {
            let mut facts = returned("0", PAGE, says::MOVED);
            facts.extend(fate(waiter, "ran:new", says::MOVED));
            facts
        } else {
            let mut facts = returned("EINVAL", -22, says::EINVAL);
            facts.extend(fate(waiter, "asleep", says::EINVAL));
            facts
        };
        let letter = if works { 'n' } else { '-' };
        // Without access nothing can be loaded from the page that is present.
        let kept = if to == Kind::NoAccess { '!' } else { 'k' };
        facts.push(Expected::new("pages", format!("--{letter}--{kept}"), says::EINVAL));
        let stays = if works || from == Kind::File { "-" } else { "p" };
        facts.push(Expected::new("src-bits", stays, says::EINVAL));
        facts
    })
}

/// What stands at the destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Present,
    Zero,
    Marker,
    Poisoned,
    Guard,
    Unregistered,
    Hole,
    Others,
    BothModes,
    OnlyProtection,
}

const STATES: [(State, &str); 10] = [
    (State::Present, "present"),
    (State::Zero, "zero-page"),
    (State::Marker, "protection-marker"),
    (State::Poisoned, "poisoned"),
    (State::Guard, "guard"),
    (State::Unregistered, "unregistered"),
    (State::Hole, "unmapped"),
    (State::Others, "registered-elsewhere"),
    (State::BothModes, "missing-and-protection"),
    (State::OnlyProtection, "protection-only"),
];

fn onto(state: State, word: &str, holes: bool) -> Script {
    let (page, all) = (block(2, 1), block(0, PAGES));
    let mut steps = map_block();
    match state {
        State::Present => steps.push(Step::Fill(page, tag::KEPT)),
        State::Zero => steps.push(Step::Load(page)),
        State::Guard => steps.push(Step::Prepare(GUARD, page)),
        _ => {}
    }
    steps.extend(map_source());
    steps.push(Step::Fill(source_area(2, 1), tag::NEW));
    let offer = if state == State::Marker { features::WP_UNPOPULATED } else { 0 };
    let mode = match state {
        State::Marker | State::BothModes => REGISTER_MODE_MISSING | REGISTER_MODE_WP,
        State::OnlyProtection => REGISTER_MODE_WP,
        _ => REGISTER_MODE_MISSING,
    };
    steps.push(Step::Open(Ctx::First, offer));
    match state {
        State::Others => steps.extend([
            Step::Open(Ctx::Second, 0),
            Step::Set(Ctx::Second, Call::Register(all, mode)),
        ]),
        _ => steps.push(Step::Set(Ctx::First, Call::Register(all, mode))),
    }
    match state {
        State::Marker => steps.push(Step::Set(Ctx::First, Call::Wp(page, WRITEPROTECT_MODE_WP))),
        State::Poisoned => steps.push(Step::Set(Ctx::First, Call::Poison(page, 0))),
        _ => {}
    }
    // The waiter waits for the page before: none can wait for one that is there.
    let owner = if state == State::Others { Ctx::Second } else { Ctx::First };
    let waits = state != State::OnlyProtection;
    if waits {
        steps.push(Step::Park(owner, Waiter::UserRead, block(1, 1)));
    }
    match state {
        State::Unregistered => {
            steps.push(Step::Set(Ctx::First, Call::Unregister(page)));
        }
        State::Hole => steps.push(Step::Prepare(Treat::Unmap, page)),
        _ => {}
    }
    let flags = if holes { MOVE_MODE_ALLOW_SRC_HOLES } else { 0 };
    steps.extend([
        relocate(page, source_area(2, 1), flags),
        Step::Look(owner),
        Step::Bits(page, "bits"),
        Step::Survey(source_area(0, PAGES), "src-reg", "src-pages"),
        Step::Rescue(owner),
        Step::Touch(owner, Waiter::UserRead, page, "touch"),
    ]);
    let axes = format!("state={word},holes={}", if holes { "allowed" } else { "no" });
    let needs = NEEDS
        | match state {
            State::Marker => features::WP_UNPOPULATED,
            State::Poisoned => features::POISON,
            _ => 0,
        };
    Script::new(axes, needs, steps, move |_| expect_onto(state, waits))
}

fn expect_onto(state: State, waits: bool) -> Vec<Expected> {
    let waiter = if waits { Waiter::UserRead } else { Waiter::None };
    let (mut facts, says, moves) = match state {
        State::BothModes | State::OnlyProtection => {
            (returned("0", PAGE, says::MOVED), says::MOVED, true)
        }
        State::Unregistered | State::Others => {
            (returned("EINVAL", -22, says::EINVAL), says::EINVAL, false)
        }
        State::Hole => (returned("ENOENT", -2, says::NO_VMA), says::NO_VMA, false),
        _ => (returned("EEXIST", -17, says::EEXIST), says::EEXIST, false),
    };
    facts.extend(fate(waiter, "asleep", says));
    let source = if moves { "-----k" } else { "--n--k" };
    facts.push(Expected::new("src-pages", source, says));
    let bits = match state {
        State::Present | State::Zero | State::BothModes | State::OnlyProtection => Some("p"),
        State::Unregistered | State::Hole | State::Others => Some("-"),
        State::Poisoned => Some("s"),
        // What pagemap shows of markers differs between versions: not the subject here.
        State::Marker | State::Guard => None,
    };
    facts.extend(bits.map(|bits| Expected::new("bits", bits, says)));
    let touch = match state {
        State::Present => "ran:kept",
        State::BothModes | State::OnlyProtection => "ran:new",
        State::Zero | State::Unregistered => "ran:zero",
        State::Marker | State::Others => "parks:read",
        State::Poisoned => crate::poison::SIGBUS,
        State::Guard | State::Hole => "SEGV_MAPERR",
    };
    facts.push(Expected::new("touch", touch, says));
    facts
}

/// How a range leaves its mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Edge {
    ToEnd,
    FromEnd,
    ToHole,
    FromHole,
    ToSplit,
    FromSplit,
    ToPartUnregistered,
}

const EDGES: [(Edge, &str); 7] = [
    (Edge::ToEnd, "destination-ends"),
    (Edge::FromEnd, "source-ends"),
    (Edge::ToHole, "destination-begins-in-hole"),
    (Edge::FromHole, "source-begins-in-hole"),
    (Edge::ToSplit, "destination-in-two-mappings"),
    (Edge::FromSplit, "source-in-two-mappings"),
    (Edge::ToPartUnregistered, "destination-half-registered"),
];

fn leaving(edge: Edge, word: &str, holes: bool) -> Script {
    // A mapping that is not to be inherited differs from its neighbour, so the two don't merge.
    let split = Treat::Advise(libc::MADV_DONTFORK, "MADV_DONTFORK");
    let mut steps = map_block();
    steps.extend(map_source());
    steps.push(Step::Fill(source_area(2, 2), tag::NEW));
    steps.extend(match edge {
        Edge::ToSplit => Some(Step::Prepare(split, block(3, 3))),
        Edge::FromSplit => Some(Step::Prepare(split, source_area(3, 3))),
        _ => None,
    });
    steps.extend(open());
    steps.extend(park(Waiter::UserRead, 2));
    steps.extend(match edge {
        Edge::ToEnd => Some(Step::Prepare(Treat::Unmap, block(3, 3))),
        Edge::FromEnd => Some(Step::Prepare(Treat::Unmap, source_area(3, 3))),
        Edge::ToHole => Some(Step::Prepare(Treat::Unmap, block(0, 2))),
        Edge::FromHole => Some(Step::Prepare(Treat::Unmap, source_area(0, 2))),
        Edge::ToPartUnregistered => Some(Step::Set(Ctx::First, Call::Unregister(block(3, 3)))),
        _ => None,
    });
    let flags = if holes { MOVE_MODE_ALLOW_SRC_HOLES } else { 0 };
    let (to, from) = match edge {
        Edge::ToHole => (block(1, 2), source_area(2, 2)),
        Edge::FromHole => (block(2, 2), source_area(1, 2)),
        _ => (block(2, 2), source_area(2, 2)),
    };
    steps.push(relocate(to, from, flags));
    steps.extend(look());
    let axes = format!("edge={word},holes={}", if holes { "allowed" } else { "no" });
    Script::new(axes, NEEDS, steps, move |_| {
        let (mut facts, says) = match edge {
            Edge::ToHole | Edge::FromHole => (returned("ENOENT", -2, says::NO_VMA), says::NO_VMA),
            _ => (returned("EINVAL", -22, says::EINVAL), says::EINVAL),
        };
        facts.extend(fate(Waiter::UserRead, "asleep", says));
        let blocks = if edge == Edge::ToEnd { "------" } else { "-----k" };
        facts.push(Expected::new("pages", blocks, says));
        let source = if edge == Edge::FromEnd { "--n---" } else { "--nn-k" };
        facts.push(Expected::new("src-pages", source, says));
        facts
    })
}
