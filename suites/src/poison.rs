//! The suite `poison`: what `UFFDIO_POISON` returns, stores and wakes, and what the poisoned page does.

mod access;
mod range;
mod state;

use crate::abi::{REGISTER_MODE_MISSING, features};
use crate::expect::Expected;
use crate::memory::{HUGE, PAGE, tag};
use crate::model::source;
use crate::point::{Backing, PAGES, Waiter};
use crate::probe::Case;
use crate::script::{Call, Ctx, Memory, Place, Span, Step};

/// Who poisons pages.
pub(crate) const QEMU: &str = "QEMU and other migration programs: pages lost to a memory error are poisoned at the destination";

/// What a load or store of a poisoned page gets.
pub(crate) const SIGBUS: &str = "BUS_MCEERR_AR|BUS_ADRERR";
/// Which of the two it is.
pub(crate) const CODE: &str = "do_sigbus() in arch/x86/mm/fault.c: BUS_MCEERR_AR with \
    CONFIG_MEMORY_FAILURE, else BUS_ADRERR";

/// What every case of the suite needs.
const NEEDS: u64 = features::POISON;

/// The suite's cases.
pub(crate) fn cases() -> Vec<Case> {
    let mut cases = access::cases();
    cases.extend(state::cases());
    cases.extend(range::cases());
    cases
}

/// Pages of the block.
const fn block(backing: Backing, first: usize, count: usize) -> Span {
    Span::of(backing, Place::Block, first, count)
}

/// Maps the block, its page 5 written to.
fn map_block(backing: Backing) -> Vec<Step> {
    vec![
        Step::Map(block(backing, 0, PAGES), Memory::Of(backing)),
        Step::Fill(block(backing, 5, 1), tag::KEPT),
    ]
}

/// Opens the context and registers the block for missing pages.
fn open(backing: Backing) -> Vec<Step> {
    vec![
        Step::Open(Ctx::First, 0),
        Step::Set(Ctx::First, Call::Register(block(backing, 0, PAGES), REGISTER_MODE_MISSING)),
    ]
}

/// The operation that the question is about.
fn poison(span: Span, mode: u64) -> Step {
    Step::Do(Ctx::First, Call::Poison(span, mode), "poison", "field")
}

/// Poisons `span` as a part of the set-up.
fn poisoned(span: Span) -> Step {
    Step::Set(Ctx::First, Call::Poison(span, 0))
}

fn length(backing: Backing) -> usize {
    if backing.is_huge() { HUGE } else { PAGE }
}

/// What POISON returned.
fn returned(rc: &'static str, field: impl ToString + Copy, says: &'static str) -> Vec<Expected> {
    vec![Expected::new("poison", rc, says), Expected::new("field", field.to_string(), says)]
}

/// A waiter that was not woken.
fn asleep(says: &'static str) -> Vec<Expected> {
    vec![
        Expected::new("waiter", "asleep", says),
        Expected::new("queue", "1/0", says),
        Expected::new("rescued", "again", source::RERUN),
    ]
}

/// What an access of this kind to a poisoned page comes to.
fn meets(waiter: Waiter) -> (&'static str, &'static str) {
    match waiter {
        Waiter::UserRead | Waiter::UserWrite => (SIGBUS, CODE),
        Waiter::PopulateRead | Waiter::PopulateWrite => {
            ("EHWPOISON", "madvise(2), MADV_POPULATE_READ: EHWPOISON")
        }
        Waiter::Mlock => {
            ("ENOMEM", "__mlock_posix_error_return() in mm/mlock.c: EFAULT becomes ENOMEM")
        }
        _ => ("EFAULT", "faultin_page() in mm/gup.c and the exception tables: EFAULT"),
    }
}
