//! Guard regions (MADV_GUARD_INSTALL, 6.13; on files 6.15) in registered memory.

use crate::abi::{REGISTER_MODE_MISSING, REGISTER_MODE_WP, WRITEPROTECT_MODE_WP, features};
use crate::expect::{Expected, OBSERVED};
use crate::memory::{ONE_PAGE, RW, tag};
use crate::model::source;
use crate::point::{Backing, PAGES, Waiter};
use crate::probe::{Case, Probe};
use crate::script::{Call, Ctx, DONTNEED, GUARD, Memory, Place, Script, Span, Step, UNGUARD};
use uffd_results::KernelVersion;

const STACKS: &str = "thread libraries that use MADV_GUARD_INSTALL for stack guards (glibc 2.42)";

static GUARDED: Probe = Probe {
    suite: "kinds",
    name: "guard",
    statement: "A guard page takes no page by POISON, MOVE, and ZEROPAGE of private memory, nor, from \
                6.19 on, by COPY and ZEROPAGE of shared memory; who touches it gets SIGSEGV and raises \
                no message, until the guard is removed.",
    consumers: &[STACKS],
};
static WAITER: Probe = Probe {
    suite: "kinds",
    name: "guard-waiter",
    statement: "A guard put under a waiter wakes nobody; woken, the waiter gets SIGSEGV or EFAULT.",
    consumers: &[STACKS],
};
static CONTROL: Probe = Probe {
    suite: "kinds",
    name: "guard-control",
    statement: "The same without a guard: COPY places the page and wakes the waiter.",
    consumers: &[STACKS],
};

/// What COPY does to a guard in some versions.
const FILLS: &str = "pte_none_mostly() in mfill_atomic_install_pte(), before 6.19, takes any marker for \
    an empty entry: the page replaces the guard";

/// Whether COPY takes a guard for an empty entry.
fn fills(kernel: KernelVersion) -> bool {
    kernel < KernelVersion::new(6, 19, 0)
}

const OPS: [&str; 9] =
    ["copy", "zeropage", "poison", "move", "protect", "unregister", "wake", "remove", "dontneed"];

/// The suite's cases about guard regions.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for backing in [Backing::Anon, Backing::Shmem, Backing::Private, Backing::SharedAnon] {
        for op in OPS {
            if op != "move" || backing == Backing::Anon {
                let by_default = matches!(backing, Backing::Anon | Backing::Shmem);
                cases.push(Case::trial(&GUARDED, guarded(backing, op), by_default));
            }
        }
        for waiter in &Waiter::THREADS[1..] {
            let common = matches!(waiter, Waiter::UserRead | Waiter::UserWrite | Waiter::SysWrite);
            let by_default = backing == Backing::Anon || common;
            cases.push(Case::trial(&WAITER, waits(backing, *waiter, true), by_default));
            cases.push(Case::trial(&CONTROL, waits(backing, *waiter, false), by_default));
        }
    }
    cases
}

const fn block(first: usize, count: usize) -> Span {
    Span::new(Place::Block, first, count)
}

fn map(backing: Backing) -> Vec<Step> {
    vec![Step::Map(block(0, PAGES), Memory::Of(backing)), Step::Fill(block(5, 1), tag::KEPT)]
}

fn guarded(backing: Backing, op: &'static str) -> Script {
    let page = block(2, 1);
    let from = Span::new(Place::Spare, 0, 1);
    let mut steps = map(backing);
    if op == "move" {
        steps.extend([Step::Map(from, Memory::Anon(RW)), Step::Fill(from, tag::NEW)]);
    }
    steps.push(Step::Prepare(GUARD, page));
    let protects = op == "protect";
    let mode = REGISTER_MODE_MISSING | if protects { REGISTER_MODE_WP } else { 0 };
    steps.extend([
        Step::Open(Ctx::First, 0),
        Step::Set(Ctx::First, Call::Register(block(0, PAGES), mode)),
        Step::Bits(page, "guard-bits"),
    ]);
    let call = |call| Step::Do(Ctx::First, call, "op", "field");
    steps.push(match op {
        "copy" => call(Call::Copy(page, 0)),
        "zeropage" => call(Call::Zeropage(page, 0)),
        "poison" => call(Call::Poison(page, 0)),
        "move" => call(Call::Move(page, from, 0)),
        "protect" => call(Call::Wp(page, WRITEPROTECT_MODE_WP)),
        "unregister" => call(Call::Unregister(block(0, PAGES))),
        "wake" => call(Call::Wake(page)),
        "remove" => Step::Treat(UNGUARD, page, "op"),
        _ => Step::Treat(DONTNEED, page, "op"),
    });
    steps.extend([
        Step::Survey(block(0, PAGES), "reg", "pages"),
        Step::Touch(Ctx::First, Waiter::UserRead, page, "touch"),
    ]);
    let needs = match op {
        "poison" => features::POISON,
        "move" => features::MOVE,
        _ => 0,
    };
    Script::new(format!("backing={backing},op={op}"), needs, steps, move |kernel| {
        let shared = matches!(backing, Backing::Shmem | Backing::SharedAnon);
        if fills(kernel) && (op == "copy" || (op == "zeropage" && shared)) {
            let (letter, read) = if op == "copy" { ('c', "ran:copied") } else { ('0', "ran:zero") };
            return vec![
                Expected::new("op", "0", FILLS),
                Expected::new("field", ONE_PAGE, FILLS),
                Expected::new("pages", format!("--{letter}--k"), FILLS),
                Expected::new("touch", read, FILLS),
            ];
        }
        let says = "madvise(2), MADV_GUARD_INSTALL (6.13): a fatal signal for any access";
        let filled = "mfill_atomic_install_pte() and move_pages_ptes() in mm/userfaultfd.c: a guard \
                      marker is not an empty entry";
        let (rc, field) = match op {
            "copy" | "zeropage" | "poison" | "move" => ("EEXIST", Some("-17")),
            _ => ("0", None),
        };
        let mut facts = vec![Expected::new("op", rc, filled)];
        facts.extend(field.map(|field| Expected::new("field", field, filled)));
        facts.push(Expected::new("pages", "-----k", filled));
        let touch = if op == "remove" { "parks:read" } else { "SEGV_MAPERR" };
        facts.push(Expected::new("touch", touch, says));
        facts
    })
}

fn waits(backing: Backing, waiter: Waiter, guard: bool) -> Script {
    let page = block(2, 1);
    let mut steps = map(backing);
    steps.extend([
        Step::Open(Ctx::First, 0),
        Step::Set(Ctx::First, Call::Register(block(0, PAGES), REGISTER_MODE_MISSING)),
        Step::Park(Ctx::First, waiter, page),
    ]);
    if guard {
        steps.push(Step::Treat(GUARD, page, "change"));
    }
    steps.extend([
        Step::Do(Ctx::First, Call::Copy(page, 0), "copy", "field"),
        Step::Look(Ctx::First),
        Step::Survey(block(0, PAGES), "reg", "pages"),
        Step::Rescue(Ctx::First),
    ]);
    Script::new(format!("backing={backing},waiter={waiter}"), 0, steps, move |kernel| {
        if !guard {
            let ran = if waiter.loads() { "ran:copied" } else { "ran" };
            return vec![
                Expected::new("copy", "0", source::COPY),
                Expected::new("field", ONE_PAGE, source::COPY),
                Expected::new("waiter", ran, source::COPY),
            ];
        }
        let since = KernelVersion::new(6, 13, 0);
        let files = KernelVersion::new(6, 15, 0);
        let edge = if backing == Backing::Anon { since } else { files };
        if kernel < edge {
            return vec![
                Expected::new(
                    "change",
                    "EINVAL",
                    "madvise(2), MADV_GUARD_INSTALL: 6.13, files 6.15",
                ),
                Expected::new("copy", "0", source::COPY),
            ];
        }
        if fills(kernel) && waiter != Waiter::Mlock {
            let ran = if waiter.loads() { "ran:copied" } else { "ran" };
            return vec![
                Expected::new("change", "0", "madvise(2), MADV_GUARD_INSTALL"),
                Expected::new("copy", "0", FILLS),
                Expected::new("field", ONE_PAGE, FILLS),
                Expected::new("waiter", ran, FILLS),
                Expected::new("queue", "0/0", FILLS),
            ];
        }
        // Locked memory takes no guard, and mlock(2) has marked it by now.
        if waiter == Waiter::Mlock {
            return vec![
                Expected::new(
                    "change",
                    "EINVAL",
                    "madvise(2), MADV_GUARD_INSTALL: EINVAL on locked memory",
                ),
                Expected::new("copy", "0", source::COPY),
                Expected::new("waiter", "ran", source::COPY),
            ];
        }
        let word = if waiter.in_kernel() { "EFAULT" } else { "SEGV_MAPERR" };
        vec![
            Expected::new("change", "0", "madvise(2), MADV_GUARD_INSTALL"),
            Expected::new("copy", "EEXIST", OBSERVED),
            Expected::new("field", "-17", OBSERVED),
            Expected::new("waiter", "asleep", source::QUEUE),
            Expected::new("queue", "1/0", source::QUEUE),
            Expected::new("pages", "-----k", OBSERVED),
            Expected::new("rescued", word, source::RERUN),
        ]
    })
}
