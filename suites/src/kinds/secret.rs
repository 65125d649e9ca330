//! Secret memory: memfd_secret(2).

use crate::abi::{
    REGISTER_MODE_MINOR, REGISTER_MODE_MISSING, REGISTER_MODE_WP, WRITEPROTECT_MODE_WP, features,
};
use crate::expect::Expected;
use crate::memory::{ONE_PAGE, RW, tag};
use crate::model::source;
use crate::point::{Backing, PAGES, Waiter};
use crate::probe::{Case, Probe};
use crate::script::{Call, Ctx, Memory, Place, Script, Span, Step};

static REGISTERED: Probe = Probe {
    suite: "kinds",
    name: "secret",
    statement: "REGISTER of secret memory fails with EINVAL in every mode, but for write protection \
                alone with WP_ASYNC, which takes any memory.",
    consumers: &["monitors that keep keys in memfd_secret(2) beside registered memory"],
};
static SOURCE: Probe = Probe {
    suite: "kinds",
    name: "secret-source",
    statement: "Secret memory is a source of COPY as any other, and no source of MOVE.",
    consumers: &["monitors that keep keys in memfd_secret(2) beside registered memory"],
};

/// Modes and features with which secret memory is registered.
const MODES: [(&str, u64, u64); 6] = [
    ("missing", REGISTER_MODE_MISSING, 0),
    ("minor", REGISTER_MODE_MINOR, 0),
    ("protection", REGISTER_MODE_WP, 0),
    ("missing-and-protection", REGISTER_MODE_MISSING | REGISTER_MODE_WP, 0),
    ("protection-async", REGISTER_MODE_WP, features::WP_ASYNC),
    ("missing-and-protection-async", REGISTER_MODE_MISSING | REGISTER_MODE_WP, features::WP_ASYNC),
];

/// The cases.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (word, mode, needs) in MODES {
        cases.push(Case::trial(&REGISTERED, registered(word, mode, needs), true));
    }
    for page in ["written", "untouched", "unmapped"] {
        cases.push(Case::trial(&SOURCE, copied(page), true));
    }
    cases.push(Case::trial(&SOURCE, moved(), true));
    cases
}

const ALL: Span = Span::new(Place::Block, 0, PAGES);
const PAGE: Span = Span::new(Place::Block, 2, 1);

fn registered(word: &str, mode: u64, needs: u64) -> Script {
    let steps = vec![
        Step::Map(ALL, Memory::Secret),
        Step::Fill(PAGE, tag::KEPT),
        Step::Open(Ctx::First, needs),
        Step::Do(Ctx::First, Call::Register(ALL, mode), "register", ""),
        Step::Do(Ctx::First, Call::Wp(ALL, WRITEPROTECT_MODE_WP), "protect", ""),
        Step::Bits(ALL, "bits"),
        Step::Do(Ctx::First, Call::Copy(Span::new(Place::Block, 4, 1), 0), "copy", "field"),
        Step::Touch(Ctx::First, Waiter::UserWrite, PAGE, "touch"),
        Step::Touch(Ctx::First, Waiter::UserRead, Span::new(Place::Block, 3, 1), "touch-empty"),
        Step::Bits(ALL, "end-bits"),
    ];
    Script::new(format!("mode={word}"), needs, steps, move |_| {
        let says = "vma_can_userfault() (in a header up to 6.19, from 7.1 on in mm/userfaultfd.c): WP_ASYNC \
                    alone takes any memory (6.7)";
        let takes = needs != 0 && mode == REGISTER_MODE_WP;
        let (register, protect) = if takes { ("0", "0") } else { ("EINVAL", "ENOENT") };
        vec![
            Expected::new("register", register, says),
            Expected::new("protect", protect, says),
            Expected::new("copy", if takes { "EINVAL" } else { "ENOENT" }, NO_OPS),
            Expected::new("touch", "ran", says),
            Expected::new("touch-empty", "ran:zero", says),
        ]
    })
}

const NO_OPS: &str = "mfill_get_vma() in mm/userfaultfd.c: nothing is placed in memory that is neither \
    anonymous nor of shmem or hugetlb, registered or not";

fn copied(page: &'static str) -> Script {
    let from = Span::new(Place::Spare, 0, 1);
    let mut steps =
        vec![Step::Map(ALL, Memory::Of(Backing::Anon)), Step::Map(from, Memory::Secret)];
    match page {
        "written" => steps.push(Step::Fill(from, tag::NEW)),
        "unmapped" => steps.push(Step::Prepare(crate::script::Treat::Unmap, from)),
        _ => {}
    }
    steps.extend([
        Step::Open(Ctx::First, 0),
        Step::Set(Ctx::First, Call::Register(ALL, REGISTER_MODE_MISSING)),
        Step::Park(Ctx::First, Waiter::UserRead, PAGE),
        Step::Do(Ctx::First, Call::CopyFrom(PAGE, from), "op", "field"),
        Step::Look(Ctx::First),
        Step::Survey(ALL, "reg", "pages"),
        Step::Rescue(Ctx::First),
    ]);
    Script::new(format!("op=copy,page={page}"), 0, steps, move |_| {
        let (op, field, waiter) = match page {
            "written" => ("0", ONE_PAGE, "ran:new"),
            "untouched" => ("0", ONE_PAGE, "ran:zero"),
            _ => ("EFAULT", "-14", "asleep"),
        };
        vec![
            Expected::new("op", op, source::COPY),
            Expected::new("field", field, source::COPY),
            Expected::new("waiter", waiter, source::COPY),
        ]
    })
}

fn moved() -> Script {
    let from = Span::new(Place::Spare, 0, 1);
    let steps = vec![
        Step::Map(ALL, Memory::Anon(RW)),
        Step::Map(from, Memory::Secret),
        Step::Fill(from, tag::NEW),
        Step::Open(Ctx::First, 0),
        Step::Set(Ctx::First, Call::Register(ALL, REGISTER_MODE_MISSING)),
        Step::Park(Ctx::First, Waiter::UserRead, PAGE),
        Step::Do(Ctx::First, Call::Move(PAGE, from, 0), "op", "field"),
        Step::Look(Ctx::First),
        Step::Survey(ALL, "reg", "pages"),
        Step::Rescue(Ctx::First),
    ];
    Script::new("op=move,page=written".into(), features::MOVE, steps, |_| {
        let says = crate::relocate::says::EINVAL;
        vec![
            Expected::new("op", "EINVAL", says),
            Expected::new("field", "-22", says),
            Expected::new("waiter", "asleep", says),
            Expected::new("rescued", "again", says),
        ]
    })
}
