//! The documented rules as a pure function: from a point of the grid to the facts it should show.
//!
//! Belongs here: what man pages, kernel documents and sources say. Where a kernel shows something
//! else, the case differs; the model is changed only with a reason in the fact's source.

use crate::expect::Expected;
use crate::point::{
    Backing, Change, Discard, GROWN, Mode, Msg, Op, Over, PAGES, Point, Remap, SHRUNK, Waiter,
};
use uffd_results::KernelVersion;

pub mod source;

mod act;

/// What stands at a page after the change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ground {
    /// The block's own memory, still registered; its page is as it was.
    Registered,
    /// The block's own mapping, still registered, whose page has moved away.
    Emptied,
    /// No mapping.
    Hole,
    /// Memory without a registration that reads as zero.
    Zero,
    /// Memory without a registration that holds new data.
    New,
    /// Memory without access.
    Forbidden,
    /// A regular file with new data.
    File,
}

/// What the documents say that the change returns.
fn change(point: Point, kernel: KernelVersion) -> (&'static str, &'static str) {
    let before = |major, minor| kernel < KernelVersion::new(major, minor, 0);
    match point.change {
        Change::Mremap(how) if point.backing.is_huge() => match how {
            Remap::Grow | Remap::MoveGrow => ("EINVAL", source::MREMAP_HUGE),
            Remap::DontUnmap => ("EINVAL", source::MREMAP),
            Remap::Shrink => ("0", source::MREMAP),
            _ if before(5, 16) => ("EINVAL", source::MREMAP_HUGE),
            _ => ("0", source::MREMAP_HUGE),
        },
        Change::Mremap(Remap::DontUnmap) if !point.backing.is_anon() && before(5, 13) => {
            ("EINVAL", source::DONTUNMAP)
        }
        Change::Mremap(Remap::DontUnmap) => ("0", source::DONTUNMAP),
        Change::Mremap(_) => ("0", source::MREMAP),
        Change::Discard(Discard::DontNeed) if point.backing.is_huge() && before(5, 18) => {
            ("EINVAL", source::DONTNEED_HUGE)
        }
        Change::Discard(_) => ("0", "madvise(2), fallocate(2)"),
        _ => ("0", "mmap(2)"),
    }
}

/// What stands at each page of the block's place after the change.
pub fn ground(point: Point, kernel: KernelVersion) -> Vec<Ground> {
    let mut ground = vec![Ground::Hole; point.change.window()];
    ground[..PAGES].fill(Ground::Registered);
    let done = change(point, kernel).0 == "0";
    match point.change {
        Change::None | Change::Discard(_) => {}
        Change::Munmap(part) => ground[part.pages()].fill(Ground::Hole),
        Change::MmapOver(part, over) => ground[part.pages()].fill(match over {
            Over::Anon | Over::Same => Ground::Zero,
            Over::Shared => Ground::New,
            Over::ProtNone => Ground::Forbidden,
            Over::File => Ground::File,
        }),
        Change::Mremap(how) => match (how, done) {
            // Refused or not, what is moved onto or cut off is unmapped first.
            (Remap::Move | Remap::MoveGrow | Remap::MoveShrink, true) | (Remap::Onto, false) => {
                ground.fill(Ground::Hole);
            }
            (Remap::MovePart, true) => ground[2..4].fill(Ground::Hole),
            (Remap::Grow, true) => ground.fill(Ground::Registered),
            (Remap::Shrink, true) | (Remap::MoveShrink, false) => {
                ground[SHRUNK..].fill(Ground::Hole);
            }
            (Remap::Onto, true) => ground.fill(Ground::New),
            (Remap::DontUnmap, true) if point.mode == Mode::Wp => ground.fill(Ground::Emptied),
            (Remap::DontUnmap, true) | (_, false) => {}
        },
    }
    ground
}

/// What a woken waiter's access then does; `None` where it parks again.
fn rerun(point: Point, ground: Ground) -> Option<&'static str> {
    let waiter = point.waiter;
    let failed = |signal| match waiter {
        Waiter::UserRead | Waiter::UserWrite => signal,
        Waiter::PopulateRead | Waiter::PopulateWrite if ground == Ground::Hole => "ENOMEM",
        Waiter::PopulateRead | Waiter::PopulateWrite => "EINVAL",
        // __mm_populate() passes over what is not mapped any more.
        Waiter::Mlock if ground == Ground::Hole => "ran",
        Waiter::Mlock => "ENOMEM",
        _ => "EFAULT",
    };
    let ran = |read| if waiter.loads() { read } else { "ran" };
    Some(match ground {
        Ground::Registered => return None,
        Ground::Hole => failed("SEGV_MAPERR"),
        Ground::Forbidden => failed("SEGV_ACCERR"),
        Ground::Zero | Ground::Emptied => ran("ran:zero"),
        Ground::New | Ground::File => ran("ran:new"),
    })
}

/// What a waiter of a page that nobody catches any more finds in it.
fn free(point: Point) -> &'static str {
    match point.mode {
        _ if !point.waiter.loads() => "ran",
        Mode::Missing => "ran:zero",
        Mode::Wp | Mode::Minor => "ran:kept",
    }
}

/// What a page shows after an access of this kind found `there` in it.
fn letter(waiter: Waiter, there: char) -> char {
    if waiter.stores() { 'w' } else { there }
}

/// The facts that a point should show on a kernel.
pub fn expect(point: Point, kernel: KernelVersion) -> Vec<Expected> {
    let mut facts = Vec::new();
    let waits = point.waiter != Waiter::None;
    let page = point.change.page();
    if waits && point.msg == Msg::Read {
        facts.push(Expected::new("fault", fault(point), source::QUEUE));
    }
    let ground = ground(point, kernel);
    let (returned, says) = change(point, kernel);
    if point.change != Change::None {
        facts.push(Expected::new("change", returned, says));
    }
    let here = ground[page];
    let acted = act::act(point, &ground);
    facts.extend(acted.facts);
    let (fate, says) = acted.fate;
    if waits {
        facts.push(Expected::new("waiter", fate, says));
        facts.push(Expected::new("queue", queue(fate, point), source::QUEUE));
    }
    let letters = registration(point, &ground, acted.unregistered);
    facts.push(Expected::new("reg", letters, reg_source(point)));
    let mut row = vec!['?'; point.change.window()];
    row[page] = acted.page;
    facts.push(Expected::new("pages", String::from_iter(row), says));
    if let Some(pages) = point.change.new_window() {
        let letter = if returned == "0" { "." } else { "-" };
        facts.push(Expected::new("new-reg", letter.repeat(pages), source::REMAP));
    }
    if waits && matches!(fate, "asleep" | "again") {
        let caught = !(acted.unregistered && here == Ground::Registered);
        let meets = if caught { rerun(point, here) } else { Some(free(point)) };
        let rescued = meets.unwrap_or("again");
        if point.op != Op::Wake {
            facts.push(Expected::new("rescue", "0", source::WAKE));
            facts.push(Expected::new("rescued", rescued, source::RERUN));
        }
        if rescued == "again" && point.mode == Mode::Wp && point.backing.is_huge() {
            facts.push(Expected::new("unprotect", "0", source::WRITEPROTECT));
            facts.push(Expected::new("unprotected", free(point), source::WRITEPROTECT));
        } else if rescued == "again" {
            facts.push(Expected::new("closed", free(point), source::CLOSE));
        }
    }
    facts
}

/// The waiter's message in words.
fn fault(point: Point) -> String {
    let kind = if point.waiter.write_faults(point.backing) { "write" } else { "read" };
    let why = match point.mode {
        Mode::Missing => "",
        Mode::Wp => "wp-",
        Mode::Minor => "minor-",
    };
    format!("{why}{kind}@{}", point.change.page())
}

fn queue(fate: &str, point: Point) -> &'static str {
    match (fate, point.msg) {
        ("asleep", Msg::Read) => "1/0",
        ("asleep", Msg::Unread) | ("again", _) => "1/1",
        _ => "0/0",
    }
}

fn registration(point: Point, ground: &[Ground], unregistered: bool) -> String {
    let registered = match point.mode {
        Mode::Missing => 'm',
        Mode::Wp => 'w',
        Mode::Minor => 'i',
    };
    // UNREGISTER is of the block as it was registered: memory that it grew by stays registered.
    let letter = |(page, ground): (usize, &Ground)| match ground {
        Ground::Hole => '-',
        Ground::Registered | Ground::Emptied if !unregistered || page >= PAGES => registered,
        _ => '.',
    };
    ground.iter().enumerate().map(letter).collect()
}

fn reg_source(point: Point) -> &'static str {
    match point.change {
        Change::Mremap(Remap::DontUnmap) => source::DONTUNMAP,
        Change::Mremap(Remap::Onto | Remap::MoveShrink) if point.backing.is_huge() => {
            source::MREMAP_UNMAPS
        }
        Change::Mremap(_) => source::REMAP,
        _ => source::UNREGISTER,
    }
}

/// Backings whose memory a discard of this kind can concern at all.
pub fn can_discard(backing: Backing, how: Discard) -> bool {
    match how {
        Discard::DontNeed => true,
        Discard::Remove => {
            !matches!(backing, Backing::Anon | Backing::HugetlbPrivate | Backing::Private)
        }
        Discard::Punch => matches!(backing, Backing::Shmem | Backing::HugetlbShared),
    }
}

const _: () = assert!(GROWN > PAGES && SHRUNK < PAGES);
