//! What the operation of a point returns, whom it wakes and what it leaves in the page.

use super::{Ground, free, letter, rerun, source};
use crate::expect::Expected;
use crate::memory::{HUGE, PAGE};
use crate::point::{Change, Mode, Op, PAGES, Point, Remap, Waiter};

/// The outcome of the operation: its facts, the waiter's fate and the page's content.
pub(super) struct Acted {
    pub(super) facts: Vec<Expected>,
    pub(super) fate: (&'static str, &'static str),
    pub(super) page: char,
    pub(super) unregistered: bool,
}

/// What the page shows before anybody resolves the fault.
fn untouched(point: Point, here: Ground) -> char {
    match (point.mode, here) {
        // `onto` brings its pages along, all else is empty.
        (_, Ground::New) if point.change == Change::Mremap(Remap::Onto) => 'n',
        (Mode::Wp, Ground::Registered) => 'k',
        _ => '-',
    }
}

/// Whether the operation can reach the page at all.
fn reaches(here: Ground) -> bool {
    matches!(here, Ground::Registered | Ground::Emptied)
}

/// The operation's part of the facts.
pub(super) fn act(point: Point, ground: &[Ground]) -> Acted {
    let here = ground[point.change.page()];
    let waiter = point.waiter;
    let page = untouched(point, here);
    let fail = |facts, says| Acted { facts, fate: ("asleep", says), page, unregistered: false };
    let ran = |read| if waiter.loads() { read } else { "ran" };
    let length = if point.backing.is_huge() { HUGE } else { PAGE };
    let filled = |name, says, read, content| Acted {
        facts: vec![
            Expected::new(name, "0", says),
            Expected::new("field", length.to_string(), says),
        ],
        fate: (ran(read), says),
        page: letter(waiter, content),
        unregistered: false,
    };
    let refused = |name, errno, field, says| {
        fail(vec![Expected::new(name, errno, says), Expected::new("field", field, says)], says)
    };
    match point.op {
        Op::Look => fail(Vec::new(), source::QUEUE),
        Op::Copy if reaches(here) => filled("copy", source::COPY, "ran:copied", 'c'),
        Op::Copy => refused("copy", "ENOENT", "-2", source::COPY_ENOENT),
        Op::Zeropage if !reaches(here) => {
            refused("zeropage", "ENOENT", "-2", source::ZEROPAGE_ENOENT)
        }
        Op::Zeropage if point.backing.is_huge() => {
            refused("zeropage", "EINVAL", "-22", source::ZEROPAGE_HUGE)
        }
        Op::Zeropage => filled("zeropage", source::ZEROPAGE, "ran:zero", '0'),
        Op::Continue if reaches(here) => filled("continue", source::CONTINUE, "ran:kept", 'k'),
        Op::Continue => refused("continue", "ENOENT", "-2", source::CONTINUE_ENOENT),
        Op::Poison if reaches(here) => poison(point, length),
        Op::Poison => refused("poison", "ENOENT", "-2", source::POISON_ENOENT),
        // mlock(2) has locked the page's mapping; MOVE demands equal VM_LOCKED on both sides.
        Op::Move if waiter == Waiter::Mlock && here != Ground::Hole => {
            refused("move", "EINVAL", "-22", source::MOVE_REFUSED)
        }
        Op::Move if reaches(here) && point.backing.is_anon() => {
            filled("move", source::MOVE, "ran:new", 'n')
        }
        Op::Move if here == Ground::Hole => refused("move", "ENOENT", "-2", source::MOVE_ENOENT),
        Op::Move => refused("move", "EINVAL", "-22", source::MOVE_REFUSED),
        Op::Unprotect => unprotect(point, here, page),
        Op::Unregister => unregister(point, ground, page),
        Op::Wake => wake(point, here, page),
    }
}

fn poison(point: Point, length: usize) -> Acted {
    let says = source::POISON;
    let fate = match point.waiter {
        // Without CONFIG_MEMORY_FAILURE the marker is a plain SIGBUS.
        Waiter::UserRead | Waiter::UserWrite => "BUS_MCEERR_AR|BUS_ADRERR",
        Waiter::VmRead | Waiter::VmWrite => "EHWPOISON|EFAULT",
        Waiter::PopulateRead | Waiter::PopulateWrite => "EHWPOISON",
        Waiter::Mlock => "EHWPOISON|ENOMEM",
        // kvm_send_hwpoison_signal(): the thread gets SIGBUS, and KVM_RUN returns for it.
        Waiter::VcpuRead | Waiter::VcpuWrite | Waiter::VcpuFetch => "EINTR",
        _ => "EFAULT",
    };
    let facts =
        vec![Expected::new("poison", "0", says), Expected::new("field", length.to_string(), says)];
    Acted { facts, fate: (fate, says), page: '-', unregistered: false }
}

fn unprotect(point: Point, here: Ground, page: char) -> Acted {
    let waiter = point.waiter;
    if !reaches(here) {
        let says = source::WRITEPROTECT_ENOENT;
        let facts = vec![Expected::new("writeprotect", "ENOENT", says)];
        return Acted { facts, fate: ("asleep", says), page, unregistered: false };
    }
    let says = source::WRITEPROTECT;
    let there = match (here, waiter) {
        (Ground::Emptied, Waiter::None) => '-',
        // Not known before: the page cache's content, or zeros.
        (Ground::Emptied, _) => '?',
        _ => 'k',
    };
    let facts = vec![Expected::new("writeprotect", "0", says)];
    Acted { facts, fate: ("ran", says), page: letter(waiter, there), unregistered: false }
}

fn unregister(point: Point, ground: &[Ground], page: char) -> Acted {
    let here = ground[point.change.page()];
    let window = &ground[..PAGES];
    let gone = window.iter().all(|g| *g == Ground::Hole);
    if gone || window.contains(&Ground::File) {
        let says = source::UNREGISTER_EINVAL;
        let facts = vec![Expected::new("unregister", "EINVAL", says)];
        return Acted { facts, fate: ("asleep", says), page, unregistered: false };
    }
    let facts = vec![Expected::new("unregister", "0", source::UNREGISTER)];
    if here == Ground::Registered && point.mode == Mode::Missing {
        let page = if point.waiter == Waiter::None { '-' } else { letter(point.waiter, '0') };
        let fate = (free(point), source::UNREGISTER_WAKES);
        return Acted { facts, fate, page, unregistered: true };
    }
    Acted { facts, fate: ("asleep", source::UNREGISTER_WAKES), page, unregistered: true }
}

fn wake(point: Point, here: Ground, page: char) -> Acted {
    let facts = vec![Expected::new("wake", "0", source::WAKE)];
    if point.waiter == Waiter::None {
        return Acted { facts, fate: ("asleep", source::WAKE), page, unregistered: false };
    }
    let page = match here {
        Ground::Zero => letter(point.waiter, '0'),
        Ground::New | Ground::File => letter(point.waiter, 'n'),
        Ground::Emptied => letter(point.waiter, '?'),
        Ground::Registered | Ground::Hole | Ground::Forbidden => page,
    };
    let fate = (rerun(point, here).unwrap_or("again"), source::RERUN);
    Acted { facts, fate, page, unregistered: false }
}
