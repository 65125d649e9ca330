//! From what stands at the pages to the facts that an operation and the waiter then show.

use super::call::name;
use super::state::{Map, State};
use super::step::{Prot, Step};
use crate::expect::Expected;
use crate::memory::{HUGE, PAGE};
use crate::model::source;
use crate::point::{Backing, Op, Waiter};
use uffd_results::KernelVersion;

/// A fate and who says so.
type Fate = (&'static str, &'static str);

/// The waiter's page.
const HERE: usize = 2;

/// What an access to the waiter's page meets; `None` if it parks.
fn meets(state: &State, waiter: Waiter) -> Option<Fate> {
    let page = state.pages[HERE];
    let kernel = waiter == Waiter::SysWrite;
    let signal = |user| if kernel { "EFAULT" } else { user };
    let content = |letter| match letter {
        'c' => "ran:copied",
        'k' => "ran:kept",
        'n' => "ran:new",
        _ => "ran:zero",
    };
    let ran = |letter| if waiter.loads() { content(letter) } else { "ran" };
    if page.map == Map::Hole {
        return Some((signal("SEGV_MAPERR"), source::RERUN));
    }
    if page.prot == Prot::None || page.prot == Prot::Read && waiter.stores() {
        return Some((signal("SEGV_ACCERR"), source::RERUN));
    }
    if let Some(letter) = page.shown {
        return Some((ran(letter), source::RERUN));
    }
    if page.guard {
        return Some((signal("SEGV_MAPERR"), GUARDED));
    }
    if page.beyond {
        return Some((signal("BUS_ADRERR"), BEYOND));
    }
    if let Some(letter) = page.cached.filter(|_| page.map == Map::Own) {
        return Some((ran(letter), CACHED));
    }
    if page.registered { None } else { Some((ran('0'), source::RERUN)) }
}

const GUARDED: &str = "madvise(2), MADV_GUARD_INSTALL: an access of a guard page is a SIGSEGV; \
    do_swap_page() in mm/memory.c";
const BEYOND: &str = "mmap(2): SIGBUS behind the end of the file; shmem_fault(), hugetlb_no_page()";
const CACHED: &str = "shmem_get_folio_gfp() in mm/shmem.c: what the page cache holds is no missing \
    page";
const FILL_BEYOND: &str = "mfill_file_over_size() in mm/userfaultfd.c: EFAULT behind the end of the \
    file; nobody is woken";
const ALLOC_BEYOND: &str = "shmem_mfill_folio_alloc() in mm/shmem.c (7.1): no page behind the end of \
    the file, which COPY and ZEROPAGE report as ENOMEM; nobody is woken";
const FILL_PRESENT: &str = "ioctl_userfaultfd(2), UFFDIO_COPY, EEXIST; mfill_atomic_install_pte(): \
    something stands in the page table or in the page cache; nobody is woken";
const SPLIT: &str = "a waiter hangs on the context; a change of flags only splits the mapping, whose \
    parts stay registered";

/// What COPY or ZEROPAGE to the waiter's page returns and leaves: errno, field, source.
fn fill(state: &State, op: Op) -> (&'static str, String, &'static str) {
    let page = state.pages[HERE];
    let says = if op == Op::Copy { source::COPY } else { source::ZEROPAGE };
    let own = page.map == Map::Own;
    let (huge, shared) = (own && state.backing.is_huge(), own && state.shared());
    let failed = |errno, number: i32, says| (errno, (-number).to_string(), says);
    if !page.registered {
        return failed("ENOENT", libc::ENOENT, source::COPY_ENOENT);
    }
    if huge && op == Op::Zeropage {
        return failed("EINVAL", libc::EINVAL, source::ZEROPAGE_HUGE);
    }
    if page.beyond && shared && !huge && !state.before(7, 1) {
        return failed("ENOMEM", libc::ENOMEM, ALLOC_BEYOND);
    }
    if page.beyond {
        return failed("EFAULT", libc::EFAULT, FILL_BEYOND);
    }
    // Until 6.19 COPY overwrote every marker, also one that forbids all access. ZEROPAGE of private memory
    // never did: mfill_atomic_pte_zeropage() wants an empty entry.
    let zeroes = op == Op::Zeropage && !shared;
    let guarded = page.guard && (zeroes || !state.before(6, 19));
    let cached = shared && page.cached.is_some();
    if page.shown.is_some() || guarded || cached {
        return failed("EEXIST", libc::EEXIST, FILL_PRESENT);
    }
    // The caller gives the block's page as the length, whatever stands there now.
    ("0", (if state.backing.is_huge() { HUGE } else { PAGE }).to_string(), says)
}

/// The facts that a change, a waiter and an operation should show.
pub(super) fn expect(
    backing: Backing,
    steps: &[Step],
    waiter: Waiter,
    op: Op,
    kernel: KernelVersion,
) -> Vec<Expected> {
    let mut facts = Vec::new();
    let waits = waiter != Waiter::None;
    if waits {
        let kind = if waiter.stores() { "write@2" } else { "read@2" };
        facts.push(Expected::new("fault", kind, source::QUEUE));
    }
    let mut state = State::new(backing, kernel);
    for (n, step) in steps.iter().enumerate() {
        let (returned, says) = state.step(*step);
        facts.push(Expected::new(name(n), returned, says));
    }
    let mut fate: Fate = ("asleep", SPLIT);
    if state.woken {
        fate = meets(&state, waiter).unwrap_or(("again", source::RERUN));
        touch(&mut state, waiter, fate.0);
    }
    match op {
        Op::Copy | Op::Zeropage => {
            let (returned, field, says) = fill(&state, op);
            let name = if op == Op::Copy { "copy" } else { "zeropage" };
            facts.push(Expected::new(name, returned, says));
            facts.push(Expected::new("field", field, says));
            if returned == "0" {
                let letter = if op == Op::Copy { 'c' } else { '0' };
                state.pages[HERE].shown = Some(letter);
                state.pages[HERE].guard = false;
                if state.shared() {
                    state.pages[HERE].cached = Some(letter);
                }
                fate = meets(&state, waiter).unwrap_or(("again", source::RERUN));
                fate.1 = says;
            } else if !state.woken {
                fate.1 = says;
            }
        }
        Op::Unregister => {
            let gone = state.pages.iter().all(|page| page.map == Map::Hole);
            let (rc, says) = if gone {
                ("EINVAL", source::UNREGISTER_EINVAL)
            } else {
                ("0", source::UNREGISTER)
            };
            facts.push(Expected::new("unregister", rc, says));
            let woken = !gone && state.pages[HERE].registered;
            if !gone {
                state.pages.iter_mut().for_each(|page| page.registered = false);
            }
            if woken {
                fate = meets(&state, waiter).unwrap_or(("again", source::RERUN));
            }
            if !state.woken {
                fate.1 = source::UNREGISTER_WAKES;
            }
        }
        Op::Wake => {
            facts.push(Expected::new("wake", "0", source::WAKE));
            if !state.woken {
                fate = meets(&state, waiter).unwrap_or(("again", source::RERUN));
            }
        }
        _ => {}
    }
    if waits {
        facts.push(Expected::new("waiter", fate.0, fate.1));
        let queue = match fate.0 {
            "asleep" => "1/0",
            "again" => "1/1",
            _ => "0/0",
        };
        facts.push(Expected::new("queue", queue, source::QUEUE));
        touch(&mut state, waiter, fate.0);
    }
    let around = waiter.loads() && fate.0 != "asleep" && !backing.is_huge();
    survey(&state, around, fate.1, &mut facts);
    if waits && matches!(fate.0, "asleep" | "again") {
        let rescued = meets(&state, waiter).unwrap_or(("again", source::RERUN));
        if op != Op::Wake {
            facts.push(Expected::new("rescue", "0", source::WAKE));
            facts.push(Expected::new("rescued", rescued.0, rescued.1));
        }
        if rescued.0 == "again" {
            state.pages.iter_mut().for_each(|page| page.registered = false);
            let (end, _) = meets(&state, waiter).unwrap_or(("again", ""));
            facts.push(Expected::new("closed", end, source::CLOSE));
        }
    }
    facts
}

/// An access that has ended leaves something in the page.
fn touch(state: &mut State, waiter: Waiter, fate: &str) {
    if !fate.starts_with("ran") || waiter == Waiter::None {
        return;
    }
    let shared = state.shared();
    let page = &mut state.pages[HERE];
    let there = page.shown.or(page.cached.filter(|_| page.map == Map::Own)).unwrap_or('0');
    let letter = if waiter.stores() { 'w' } else { there };
    page.shown = Some(letter);
    if shared && page.map == Map::Own {
        page.cached = Some(letter);
    }
}

/// Registration and content of every page. A load that was woken, and has ended or parked again, may
/// have mapped pages around its own from the page cache (`do_fault_around()` in mm/memory.c), within
/// its mapping.
fn survey(state: &State, around: bool, says: &'static str, facts: &mut Vec<Expected>) {
    let reg = state.pages.iter().map(|page| match page.map {
        Map::Hole => '-',
        _ if page.registered => 'm',
        _ => '.',
    });
    facts.push(Expected::new("reg", reg.collect::<String>(), SPLIT));
    let pages = state.pages.iter().map(|page| match (page.shown, page.prot) {
        (Some(_), Prot::None) => '!',
        (Some(letter), _) => letter,
        (None, _) if around && page.cached.is_some() && page.map == Map::Own => '?',
        (None, _) => '-',
    });
    facts.push(Expected::new("pages", pages.collect::<String>(), says));
}
