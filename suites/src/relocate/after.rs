//! DONTWAKE, whose context moves, and what can be done with pages that were moved.

use super::{
    ART, NEEDS, block, fate, look, map_block, map_source, open, park, ran, relocate, returned,
    says, source_area,
};
use crate::abi::{
    COPY_MODE_DONTWAKE, REGISTER_MODE_MISSING, features, newer::MOVE_MODE_ALLOW_SRC_HOLES,
};
use crate::expect::Expected;
use crate::memory::{ONE_PAGE, PAGE, tag};
use crate::model::source;
use crate::point::{PAGES, Waiter};
use crate::probe::{Case, Probe};
use crate::script::{Call, Ctx, DONTNEED, Script, Step, Treat};

static DONTWAKE: Probe = Probe {
    suite: "move",
    name: "dontwake",
    statement: "MOVE with MODE_DONTWAKE moves the page and leaves the waiter asleep until WAKE.",
    consumers: &[ART],
};
static CONTROL: Probe = Probe {
    suite: "move",
    name: "dontwake-control",
    statement: "The same MOVE without MODE_DONTWAKE wakes the waiter.",
    consumers: &[ART],
};
static OWNER: Probe = Probe {
    suite: "move",
    name: "owner",
    statement: "MOVE works only through the context that the destination is registered with, whoever \
                owns the source.",
    consumers: &[ART, "crosvm: one userfaultfd a process"],
};
static THEN: Probe = Probe {
    suite: "move",
    name: "then",
    statement: "What was moved is an ordinary page at its new place and a hole at the old one: it can \
                be moved on or back, discarded, copied to, poisoned and shared.",
    consumers: &[ART],
};

/// The suite's cases about what surrounds a move.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (state, holes) in [("present", false), ("zero-page", false), ("hole", true)] {
        for waiter in &Waiter::THREADS[1..] {
            let by_default = state == "present"
                || matches!(waiter, Waiter::UserRead | Waiter::UserWrite | Waiter::SysWrite);
            for (probe, mode) in [(&DONTWAKE, COPY_MODE_DONTWAKE), (&CONTROL, 0)] {
                let script = dontwake(state, holes, *waiter, mode);
                cases.push(Case::trial(probe, script, by_default));
            }
        }
    }
    for to in OWNERS {
        for from in OWNERS {
            for through in [Ctx::First, Ctx::Second] {
                cases.push(Case::trial(&OWNER, owner(to, from, through), true));
            }
        }
    }
    cases.extend(NEXT.iter().map(|(next, word)| Case::trial(&THEN, then(*next, word), true)));
    cases
}

fn dontwake(state: &'static str, holes: bool, waiter: Waiter, mode: u64) -> Script {
    let mut steps = map_block();
    steps.extend(map_source());
    steps.extend(match state {
        "present" => Some(Step::Fill(source_area(2, 1), tag::NEW)),
        "zero-page" => Some(Step::Load(source_area(2, 1))),
        _ => None,
    });
    steps.extend(open());
    steps.extend(park(waiter, 2));
    let holes = if holes { MOVE_MODE_ALLOW_SRC_HOLES } else { 0 };
    steps.push(relocate(block(2, 1), source_area(2, 1), mode | holes));
    steps.extend(look());
    let axes = format!("source={state},waiter={waiter}");
    Script::new(axes, NEEDS, steps, move |_| {
        if waiter == Waiter::Mlock {
            // mlock(2) marks the mapping as locked before it faults its pages in.
            let mut facts = returned("EINVAL", -22, says::EINVAL);
            facts.extend(fate(waiter, "asleep", says::EINVAL));
            return facts;
        }
        let says = if mode == 0 { says::MOVED } else { says::DONTWAKE };
        let mut facts = returned("0", PAGE, says);
        let (word, letter) = match state {
            "present" => (ran(waiter, "new"), 'n'),
            "zero-page" => (ran(waiter, "zero"), '0'),
            _ => ("again", '-'),
        };
        if mode == 0 {
            facts.extend(fate(waiter, word, says));
        } else {
            facts.push(Expected::new("waiter", "asleep", says));
            facts.push(Expected::new("queue", "1/0", says));
            facts.push(Expected::new("rescued", word, source::RERUN));
        }
        // A waiter that mode 0 woke has stored by now.
        let letter = if mode == 0 && waiter.stores() && letter != '-' { 'w' } else { letter };
        facts.push(Expected::new("pages", format!("--{letter}--k"), says));
        facts.push(Expected::new("src-pages", "-----k", says::SOURCE));
        facts
    })
}

/// Who owns an area: nobody, or one of the contexts.
const OWNERS: [Option<Ctx>; 3] = [None, Some(Ctx::First), Some(Ctx::Second)];

fn name(owner: Option<Ctx>) -> &'static str {
    match owner {
        None => "nobody",
        Some(Ctx::First) => "first",
        Some(Ctx::Second) => "second",
    }
}

fn owner(to: Option<Ctx>, from: Option<Ctx>, through: Ctx) -> Script {
    let mut steps = map_block();
    steps.extend(map_source());
    steps.extend([
        Step::Fill(source_area(2, 1), tag::NEW),
        Step::Open(Ctx::First, 0),
        Step::Open(Ctx::Second, 0),
    ]);
    for (owner, all) in [(to, block(0, PAGES)), (from, source_area(0, PAGES))] {
        steps.extend(owner.map(|ctx| Step::Set(ctx, Call::Register(all, REGISTER_MODE_MISSING))));
    }
    if let Some(ctx) = to {
        steps.push(Step::Park(ctx, Waiter::UserRead, block(2, 1)));
    }
    let call = Call::Move(block(2, 1), source_area(2, 1), 0);
    steps.push(Step::Do(through, call, "move", "field"));
    let watcher = to.unwrap_or(Ctx::First);
    steps.extend([
        Step::Look(watcher),
        Step::Survey(block(0, PAGES), "reg", "pages"),
        Step::Survey(source_area(0, PAGES), "src-reg", "src-pages"),
        Step::Rescue(watcher),
        Step::Touch(from.unwrap_or(Ctx::First), Waiter::UserRead, source_area(2, 1), "src-touch"),
    ]);
    let axes = format!("to={},from={},through={}", name(to), name(from), name(Some(through)));
    Script::new(axes, NEEDS, steps, move |_| {
        let waiter = if to.is_some() { Waiter::UserRead } else { Waiter::None };
        let works = to == Some(through);
        let mut facts;
        if works {
            facts = returned("0", PAGE, says::MOVED);
            facts.extend(fate(waiter, "ran:new", says::MOVED));
        } else {
            facts = returned("EINVAL", -22, says::EINVAL);
            facts.extend(fate(waiter, "asleep", says::EINVAL));
        }
        let (there, here) = if works { ("--n--k", "-----k") } else { ("-----k", "--n--k") };
        facts.push(Expected::new("pages", there, says::EINVAL));
        facts.push(Expected::new("src-pages", here, says::EINVAL));
        let touch = match (works, from) {
            (false, _) => "ran:new",
            (true, None) => "ran:zero",
            (true, Some(_)) => "parks:read",
        };
        facts.push(Expected::new("src-touch", touch, says::SOURCE));
        facts
    })
}

/// What is done after a move of page 2 of the source area to page 2 of the block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Again,
    On,
    Back,
    CopyThere,
    CopyHere,
    ZeroHere,
    PoisonThere,
    PoisonHere,
    DiscardThere,
    ForkAndBack,
    UnregisterThere,
    RemapThere,
}

const NEXT: [(Next, &str); 12] = [
    (Next::Again, "move-again"),
    (Next::On, "move-on"),
    (Next::Back, "move-back"),
    (Next::CopyThere, "copy-to-destination"),
    (Next::CopyHere, "copy-to-source"),
    (Next::ZeroHere, "zeropage-of-source"),
    (Next::PoisonThere, "poison-destination"),
    (Next::PoisonHere, "poison-source"),
    (Next::DiscardThere, "discard-destination"),
    (Next::ForkAndBack, "fork-and-move-back"),
    (Next::UnregisterThere, "unregister-destination"),
    (Next::RemapThere, "mremap-destination"),
];

fn then(next: Next, word: &str) -> Script {
    let (there, here) = (block(2, 1), source_area(2, 1));
    let mut steps = map_block();
    steps.extend(map_source());
    steps.push(Step::Fill(here, tag::NEW));
    steps.extend(open());
    let all = source_area(0, PAGES);
    steps.extend([
        Step::Set(Ctx::First, Call::Register(all, REGISTER_MODE_MISSING)),
        relocate(there, here, 0),
    ]);
    let call = |call| Step::Do(Ctx::First, call, "then", "then-field");
    let back = Call::Move(here, there, 0);
    match next {
        Next::Again => steps.push(call(Call::Move(block(3, 1), here, 0))),
        Next::On => steps.push(call(Call::Move(block(3, 1), there, 0))),
        Next::Back => steps.push(call(back)),
        Next::CopyThere => steps.push(call(Call::Copy(there, 0))),
        Next::CopyHere => steps.push(call(Call::Copy(here, 0))),
        Next::ZeroHere => steps.push(call(Call::Zeropage(here, 0))),
        Next::PoisonThere => steps.push(call(Call::Poison(there, 0))),
        Next::PoisonHere => steps.push(call(Call::Poison(here, 0))),
        Next::DiscardThere => steps.push(Step::Treat(DONTNEED, there, "then")),
        Next::ForkAndBack => steps.extend([Step::Prepare(Treat::Fork, there), call(back)]),
        Next::UnregisterThere => steps.push(call(Call::Unregister(there))),
        Next::RemapThere => steps.push(Step::Treat(
            Treat::MoveTo(crate::script::Place::Elsewhere),
            block(0, PAGES),
            "then",
        )),
    }
    steps.extend([
        Step::Survey(block(0, PAGES), "reg", "pages"),
        Step::Survey(all, "src-reg", "src-pages"),
    ]);
    if next == Next::RemapThere {
        let new = crate::script::Span::new(crate::script::Place::Elsewhere, 0, PAGES);
        steps.push(Step::Survey(new, "new-reg", "new-pages"));
    }
    steps.push(Step::Touch(Ctx::First, Waiter::UserRead, there, "touch"));
    let poisons = matches!(next, Next::PoisonThere | Next::PoisonHere);
    let needs = NEEDS | if poisons { features::POISON } else { 0 };
    Script::new(format!("then={word}"), needs, steps, move |_| expect_then(next))
}

fn expect_then(next: Next) -> Vec<Expected> {
    let (rc, field, says) = match next {
        Next::Again => ("ENOENT", Some("-2"), says::ENOENT),
        Next::On | Next::Back => ("0", Some(ONE_PAGE), says::MOVED),
        Next::CopyThere => ("EEXIST", Some("-17"), source::COPY),
        Next::CopyHere => ("0", Some(ONE_PAGE), source::COPY),
        Next::ZeroHere => ("0", Some(ONE_PAGE), source::ZEROPAGE),
        Next::PoisonThere => ("EEXIST", Some("-17"), source::POISON),
        Next::PoisonHere => ("0", Some(ONE_PAGE), source::POISON),
        Next::ForkAndBack => ("EBUSY", Some("-16"), says::EBUSY),
        Next::DiscardThere => ("0", None, "madvise(2)"),
        Next::UnregisterThere => ("0", None, source::UNREGISTER),
        Next::RemapThere => ("0", None, source::MREMAP),
    };
    let mut facts = returned("0", PAGE, says::MOVED);
    facts.push(Expected::new("then", rc, says));
    facts.extend(field.map(|field| Expected::new("then-field", field, says)));
    let (there, here) = match next {
        Next::On => ("---n-k", "-----k"),
        Next::Back => ("-----k", "--n--k"),
        Next::CopyHere => ("--n--k", "--c--k"),
        Next::ZeroHere => ("--n--k", "--0--k"),
        Next::DiscardThere => ("-----k", "-----k"),
        Next::RemapThere => ("------", "-----k"),
        _ => ("--n--k", "-----k"),
    };
    facts.push(Expected::new("pages", there, says));
    facts.push(Expected::new("src-pages", here, says));
    if next == Next::RemapThere {
        facts.push(Expected::new("new-pages", "--n--k", source::REMAP));
        facts.push(Expected::new("new-reg", "......", source::REMAP));
    }
    let touch = match next {
        Next::On | Next::Back | Next::DiscardThere => "parks:read",
        Next::RemapThere => "SEGV_MAPERR",
        _ => "ran:new",
    };
    facts.push(Expected::new("touch", touch, says));
    facts
}
