//! Pages that the machine has lost: MADV_HWPOISON, as for an uncorrectable error of the memory. Only
//! in a VM of ours, since each case takes a page away from it.

use crate::abi::{
    REGISTER_MODE_MINOR, REGISTER_MODE_MISSING, REGISTER_MODE_WP, WRITEPROTECT_MODE_WP, features,
};
use crate::expect::{Expected, OBSERVED};
use crate::memory::{ONE_PAGE, RW, tag};
use crate::point::{Backing, PAGES, Waiter, axis};
use crate::probe::{Case, Probe};
use crate::script::{Call, Ctx, DONTNEED, Memory, Place, REMOVE, Script, Span, Step, Treat};
use uffd_results::KernelVersion;

const MIGRATION: &str = "QEMU: UFFDIO_POISON carries such pages over in postcopy, RAM_SAVE_FLAG";

static LOST: Probe = Probe {
    suite: "kinds",
    name: "hwpoison",
    statement: "A page that memory failure took raises no message: who touches it gets SIGBUS, nothing is \
                placed over it, and it is missing again once it is discarded.",
    consumers: &[MIGRATION, "Cloud Hypervisor, Firecracker: hosts with memory errors"],
};

axis! {
    /// What is done to a lost page.
    Act {
        /// Nothing.
        Nothing = "none",
        /// UFFDIO_COPY.
        Copy = "copy",
        /// UFFDIO_ZEROPAGE.
        Zeropage = "zeropage",
        /// UFFDIO_CONTINUE.
        Continue = "continue",
        /// UFFDIO_POISON.
        Poison = "poison",
        /// UFFDIO_WRITEPROTECT.
        Protect = "protect",
        /// UFFDIO_MOVE out of it.
        MoveFrom = "move-from",
        /// UFFDIO_MOVE onto it.
        MoveTo = "move-to",
        /// UFFDIO_UNREGISTER.
        Unregister = "unregister",
        /// MADV_DONTNEED.
        Dontneed = "dontneed",
        /// MADV_DONTNEED, then UFFDIO_COPY.
        DontneedCopy = "dontneed-and-copy",
        /// MADV_REMOVE.
        Remove = "remove",
    }
}

/// The cases.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for backing in [Backing::Anon, Backing::Shmem] {
        for act in Act::ALL {
            let anon = backing == Backing::Anon;
            let fits = match act {
                Act::MoveFrom | Act::MoveTo => anon,
                Act::Continue | Act::Remove => !anon,
                _ => true,
            };
            for waiter in [Waiter::UserRead, Waiter::UserWrite, Waiter::SysWrite] {
                if fits {
                    let by_default = waiter == Waiter::UserRead
                        || (waiter == Waiter::SysWrite && *act == Act::Nothing);
                    cases.push(Case::trial(&LOST, script(backing, *act, waiter), by_default));
                }
            }
        }
    }
    cases
}

const fn at(first: usize, count: usize) -> Span {
    Span::new(Place::Block, first, count)
}

const ALL: Span = at(0, PAGES);

fn script(backing: Backing, act: Act, waiter: Waiter) -> Script {
    let page = at(2, 1);
    let from = Span::new(Place::Spare, 0, 1);
    let mut steps = vec![Step::Map(ALL, Memory::Of(backing)), Step::Fill(at(2, 2), tag::KEPT)];
    if act == Act::MoveTo {
        steps.extend([Step::Map(from, Memory::Anon(RW)), Step::Fill(from, tag::NEW)]);
    }
    let mode = match act {
        Act::Continue => REGISTER_MODE_MISSING | REGISTER_MODE_MINOR,
        Act::Protect => REGISTER_MODE_MISSING | REGISTER_MODE_WP,
        _ => REGISTER_MODE_MISSING,
    };
    steps.extend([
        Step::Open(Ctx::First, 0),
        Step::Set(Ctx::First, Call::Register(ALL, mode)),
        Step::Prepare(Treat::HwPoison, page),
        Step::Bits(at(2, 2), "lost"),
    ]);
    let call = |call| Step::Do(Ctx::First, call, "op", "field");
    match act {
        Act::Nothing => {}
        Act::Copy => steps.push(call(Call::Copy(page, 0))),
        Act::Zeropage => steps.push(call(Call::Zeropage(page, 0))),
        Act::Continue => steps.push(call(Call::Continue(page, 0))),
        Act::Poison => steps.push(call(Call::Poison(page, 0))),
        Act::Protect => steps.push(call(Call::Wp(page, WRITEPROTECT_MODE_WP))),
        Act::MoveFrom => steps.push(call(Call::Move(at(4, 1), page, 0))),
        Act::MoveTo => steps.push(call(Call::Move(page, from, 0))),
        Act::Unregister => steps.push(call(Call::Unregister(ALL))),
        Act::Dontneed => steps.push(Step::Treat(DONTNEED, page, "op")),
        Act::DontneedCopy => {
            steps.push(Step::Treat(DONTNEED, page, "change"));
            steps.push(call(Call::Copy(page, 0)));
        }
        Act::Remove => steps.push(Step::Treat(REMOVE, page, "op")),
    }
    steps.extend([
        Step::Bits(at(2, 2), "bits"),
        Step::Touch(Ctx::First, waiter, page, "touch"),
        Step::Touch(Ctx::First, Waiter::UserRead, at(3, 1), "touch-next"),
    ]);
    let needs = match act {
        Act::Poison => features::POISON,
        Act::MoveFrom | Act::MoveTo => features::MOVE,
        _ => 0,
    };
    let axes = format!("backing={backing},op={act},access={waiter}");
    Script::new(axes, needs, steps, move |kernel| expect(backing, act, waiter, kernel))
}

fn expect(backing: Backing, act: Act, waiter: Waiter, _: KernelVersion) -> Vec<Expected> {
    let says = "memory_failure() in mm/memory-failure.c leaves an entry that is not empty in every page \
                table; do_swap_page(): VM_FAULT_HWPOISON";
    let anon = backing == Backing::Anon;
    let mut facts = vec![Expected::new("lost", "sp", says)];
    let (op, field) = match act {
        Act::Nothing => ("", ""),
        Act::DontneedCopy if anon => ("0", ONE_PAGE),
        Act::Copy | Act::Zeropage | Act::Poison | Act::MoveTo | Act::DontneedCopy => {
            ("EEXIST", "-17")
        }
        Act::Continue => ("EIO", "-5"),
        Act::MoveFrom => ("EFAULT", "-14"),
        _ => ("0", ""),
    };
    if !op.is_empty() {
        facts.push(Expected::new("op", op, says));
    }
    if !field.is_empty() {
        facts.push(Expected::new("field", field, says));
    }
    let killed = if waiter.in_kernel() { "EFAULT" } else { "BUS_MCEERR_AR" };
    let parks = if waiter.stores() { "parks:write" } else { "parks:read" };
    let touch = match act {
        Act::Dontneed if anon => parks,
        Act::DontneedCopy if anon => {
            if waiter.loads() {
                "ran:copied"
            } else {
                "ran"
            }
        }
        _ => killed,
    };
    facts.push(Expected::new("touch", touch, says));
    facts.push(Expected::new("touch-next", "ran:kept", OBSERVED));
    facts
}
