//! Who touches a poisoned page, and the waiter that POISON wakes.

use super::{
    CODE, NEEDS, QEMU, SIGBUS, block, length, map_block, meets, open, poison, poisoned, returned,
};
use crate::abi::COPY_MODE_DONTWAKE;
use crate::expect::{Expected, OBSERVED};
use crate::model::source;
use crate::point::{Backing, PAGES, Waiter};
use crate::probe::{Case, Probe};
use crate::script::{Ctx, Script, Step};

static ACCESS: Probe = Probe {
    suite: "poison",
    name: "access",
    statement: "Who touches a poisoned page gets SIGBUS, or an error in kernel mode, again and again, \
                and raises no message.",
    consumers: &[QEMU],
};
static CHILD: Probe = Probe {
    suite: "poison",
    name: "child",
    statement: "A child inherits the poison of private memory.",
    consumers: &[QEMU],
};
static DONTWAKE: Probe = Probe {
    suite: "poison",
    name: "dontwake",
    statement: "POISON with MODE_DONTWAKE poisons the page and leaves the waiter asleep until WAKE.",
    consumers: &[QEMU],
};
static CONTROL: Probe = Probe {
    suite: "poison",
    name: "dontwake-control",
    statement: "The same POISON without MODE_DONTWAKE wakes the waiter.",
    consumers: &[QEMU],
};

/// What pagemap shows.
const BITS: &str = "pte_to_pagemap_entry() in fs/proc/task_mmu.c shows a marker as swapped out; \
    pagemap_hugetlb_range() shows nothing";

/// Whether a case is asked by default: all but most on huge pages, which are slow.
fn by_default(backing: Backing, waiter: Waiter) -> bool {
    !backing.is_huge() || matches!(waiter, Waiter::UserRead | Waiter::SysWrite)
}

/// The suite's cases about accesses.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for backing in Backing::ALL {
        for waiter in &Waiter::THREADS[1..] {
            let default = by_default(*backing, *waiter);
            cases.push(Case::trial(&ACCESS, access(*backing, *waiter), default));
            for (probe, mode) in [(&DONTWAKE, COPY_MODE_DONTWAKE), (&CONTROL, 0)] {
                cases.push(Case::trial(probe, dontwake(*backing, *waiter, mode), default));
            }
        }
        cases.push(Case::trial(&CHILD, child(*backing), true));
    }
    cases
}

fn access(backing: Backing, waiter: Waiter) -> Script {
    let page = block(backing, 2, 1);
    let mut steps = map_block(backing);
    steps.extend(open(backing));
    steps.extend([
        poison(page, 0),
        Step::Bits(page, "bits"),
        Step::Touch(Ctx::First, waiter, page, "touch"),
        Step::Touch(Ctx::First, waiter, page, "touch-again"),
        Step::Survey(block(backing, 0, PAGES), "reg", "pages"),
        Step::Bits(page, "end-bits"),
    ]);
    let axes = format!("backing={backing},access={waiter}");
    Script::new(axes, NEEDS, steps, move |_| {
        let (word, says) = meets(waiter);
        let mut facts = returned("0", length(backing), source::POISON);
        let shown = if backing.is_huge() { "-" } else { "s" };
        facts.push(Expected::new("bits", shown, BITS));
        facts.push(Expected::new("touch", word, says));
        facts.push(Expected::new("touch-again", word, says));
        facts.push(Expected::new("pages", "-----k", source::POISON));
        facts.push(Expected::new("end-bits", shown, BITS));
        facts
    })
}

fn dontwake(backing: Backing, waiter: Waiter, mode: u64) -> Script {
    let page = block(backing, 2, 1);
    let mut steps = map_block(backing);
    steps.extend(open(backing));
    steps.extend([
        Step::Park(Ctx::First, waiter, page),
        poison(page, mode),
        Step::Look(Ctx::First),
        Step::Survey(block(backing, 0, PAGES), "reg", "pages"),
        Step::Rescue(Ctx::First),
    ]);
    let axes = format!("backing={backing},waiter={waiter}");
    Script::new(axes, NEEDS, steps, move |_| {
        let mut facts = returned("0", length(backing), source::POISON);
        let (word, says) = meets(waiter);
        if mode == 0 {
            facts.push(Expected::new("waiter", word, says));
            facts.push(Expected::new("queue", "0/0", source::POISON));
        } else {
            let flag = "include/uapi/linux/userfaultfd.h, UFFDIO_POISON_MODE_DONTWAKE";
            facts.push(Expected::new("waiter", "asleep", flag));
            facts.push(Expected::new("queue", "1/0", flag));
            facts.push(Expected::new("rescued", word, says));
        }
        facts.push(Expected::new("pages", "-----k", source::POISON));
        facts
    })
}

fn child(backing: Backing) -> Script {
    let page = block(backing, 2, 1);
    let mut steps = map_block(backing);
    steps.extend(open(backing));
    steps.extend([
        poisoned(page),
        Step::ChildLoads(page, "child"),
        Step::Touch(Ctx::First, Waiter::UserRead, page, "touch"),
    ]);
    Script::new(format!("backing={backing}"), NEEDS, steps, move |_| {
        let says =
            "copy_page_range() in mm/memory.c: a mapping that faults can fill anew is not copied";
        let child = match backing {
            Backing::Shmem | Backing::SharedAnon | Backing::HugetlbShared => {
                Expected::new("child", "zero", says)
            }
            _ => Expected::new("child", SIGBUS, OBSERVED),
        };
        vec![child, Expected::new("touch", SIGBUS, CODE)]
    })
}
