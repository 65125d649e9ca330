//! The documented rules as a pure function: from a point of the grid to the facts it should show.
//!
//! Belongs here: what man pages, kernel documents and sources say. Where a kernel shows something
//! else, the case differs; the model is changed only with a reason in the fact's source.

use crate::expect::Expected;
use crate::memory::{HUGE, PAGE};
use crate::point::{
    Backing, Change, Discard, GROWN, Msg, Op, Over, PAGES, Point, Remap, SHRUNK, Waiter,
};
use uffd_results::KernelVersion;

/// Sources, so that each stands once.
pub mod source {
    /// Waiters hang on the context.
    pub const QUEUE: &str = "handle_userfault() in fs/userfaultfd.c: a waiter hangs on the context's \
        queue, which no change of a mapping touches";
    /// COPY that succeeds.
    pub const COPY: &str =
        "ioctl_userfaultfd(2), UFFDIO_COPY: copies and wakes the waiters of the range";
    /// COPY to what is not registered.
    pub const COPY_ENOENT: &str = "ioctl_userfaultfd(2), UFFDIO_COPY, ENOENT (4.11): the virtual \
        memory layout has changed; nobody is woken";
    /// ZEROPAGE.
    pub const ZEROPAGE: &str = "ioctl_userfaultfd(2), UFFDIO_ZEROPAGE: zeroes and wakes";
    /// ZEROPAGE to what is not registered.
    pub const ZEROPAGE_ENOENT: &str = "ioctl_userfaultfd(2), UFFDIO_ZEROPAGE; find_dst_vma() in \
        mm/userfaultfd.c: ENOENT without a registered mapping";
    /// ZEROPAGE on hugetlb.
    pub const ZEROPAGE_HUGE: &str = "Documentation/admin-guide/mm/userfaultfd.rst: no UFFDIO_ZEROPAGE \
        on hugetlb; mfill_atomic_hugetlb(): EINVAL";
    /// UNREGISTER.
    pub const UNREGISTER: &str = "ioctl_userfaultfd(2), UFFDIO_UNREGISTER; userfaultfd_unregister(): \
        mappings without a context are skipped";
    /// UNREGISTER that is refused.
    pub const UNREGISTER_EINVAL: &str = "ioctl_userfaultfd(2), UFFDIO_UNREGISTER, EINVAL: no mapping \
        in the range, or one that userfaultfd does not handle";
    /// Whom UNREGISTER wakes.
    pub const UNREGISTER_WAKES: &str = "userfaultfd_unregister(): wakes per mapping that still has \
        the context in missing mode, and no other waiter";
    /// WAKE.
    pub const WAKE: &str = "ioctl_userfaultfd(2), UFFDIO_WAKE; userfaultfd_wake(): compares queue \
        entries with the range and looks up no mapping";
    /// A woken thread.
    pub const RERUN: &str = "handle_userfault() returns VM_FAULT_RETRY: the woken thread runs its \
        fault again (5.7 for more than once) and meets what is there now";
    /// Registration and mremap.
    pub const REMAP: &str = "mremap_userfaultfd_prep() in fs/userfaultfd.c: without EVENT_REMAP a \
        moved mapping loses its registration (5.0); one that grows in place keeps it";
    /// mremap itself.
    pub const MREMAP: &str = "mremap(2)";
    /// mremap of hugetlb.
    pub const MREMAP_HUGE: &str = "commit 550a7d60bd5e (5.16): hugetlb mappings move; mremap() refuses \
        to grow them, as reservations can't be split";
    /// A refused mremap has still unmapped.
    pub const MREMAP_UNMAPS: &str = "mremap_to() in mm/mremap.c unmaps the target, and the tail that \
        is cut off, before it looks at the kind of mapping";
    /// Discarding hugetlb pages.
    pub const DONTNEED_HUGE: &str = "commit 90e7e7f5ef3f (5.18): MADV_DONTNEED works on hugetlb";
    /// MREMAP_DONTUNMAP.
    pub const DONTUNMAP: &str = "mremap(2), MREMAP_DONTUNMAP (5.7 for private anonymous memory, \
        commit a4609387859f (5.13) for others): the old range stays mapped and registered, without its pages";
    /// Closing.
    pub const CLOSE: &str =
        "userfaultfd_release(): the last close wakes every waiter of the context";
}

/// What stands at a page after the change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ground {
    /// The block's own memory, still registered.
    Registered,
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
            (Remap::DontUnmap, true) | (_, false) => {}
        },
    }
    ground
}

/// What a woken waiter's access then does; `None` where it parks again.
fn rerun(waiter: Waiter, ground: Ground) -> Option<&'static str> {
    let failed = |signal| if waiter.in_kernel() { "EFAULT" } else { signal };
    let ran = |read| if waiter.writes() { "ran" } else { read };
    Some(match ground {
        Ground::Registered => return None,
        Ground::Hole => failed("SEGV_MAPERR"),
        Ground::Forbidden => failed("SEGV_ACCERR"),
        Ground::Zero => ran("ran:zero"),
        Ground::New | Ground::File => ran("ran:new"),
    })
}

/// What a page shows after an access of this kind found `there` in it.
fn letter(waiter: Waiter, there: char) -> char {
    if waiter.writes() { 'w' } else { there }
}

/// The outcome of the operation: its facts, the waiter's fate and the page's content.
struct Acted {
    facts: Vec<Expected>,
    fate: (&'static str, &'static str),
    page: char,
    unregistered: bool,
}

/// The facts that a point should show on a kernel.
pub fn expect(point: Point, kernel: KernelVersion) -> Vec<Expected> {
    let mut facts = Vec::new();
    let waits = point.waiter != Waiter::None;
    let page = point.change.page();
    if waits && point.msg == Msg::Read {
        let kind = if point.waiter.writes() { "write" } else { "read" };
        facts.push(Expected::new("fault", format!("{kind}@{page}"), source::QUEUE));
    }
    let ground = ground(point, kernel);
    let (returned, says) = change(point, kernel);
    if point.change != Change::None {
        facts.push(Expected::new("change", returned, says));
    }
    let here = ground[page];
    let acted = act(point, &ground);
    facts.extend(acted.facts);
    let (fate, says) = acted.fate;
    if waits {
        facts.push(Expected::new("waiter", fate, says));
        facts.push(Expected::new("queue", queue(fate, point), source::QUEUE));
    }
    facts.push(Expected::new("reg", registration(&ground, acted.unregistered), reg_source(point)));
    let mut row = vec!['?'; point.change.window()];
    row[page] = acted.page;
    facts.push(Expected::new("pages", String::from_iter(row), says));
    if let Some(pages) = point.change.new_window() {
        let letter = if returned == "0" { "." } else { "-" };
        facts.push(Expected::new("new-reg", letter.repeat(pages), source::REMAP));
    }
    if waits && matches!(fate, "asleep" | "again") {
        // After a refused or failed UNREGISTER and the like the ground is what it was.
        let rescued = rerun(point.waiter, here).unwrap_or("again");
        if point.op != Op::Wake {
            facts.push(Expected::new("rescue", "0", source::WAKE));
            facts.push(Expected::new("rescued", rescued, source::RERUN));
        }
        if rescued == "again" {
            let closed = rerun(point.waiter, Ground::Zero).unwrap_or("ran");
            facts.push(Expected::new("closed", closed, source::CLOSE));
        }
    }
    facts
}

fn queue(fate: &str, point: Point) -> &'static str {
    match (fate, point.msg) {
        ("asleep", Msg::Read) => "1/0",
        ("asleep", Msg::Unread) | ("again", _) => "1/1",
        _ => "0/0",
    }
}

fn registration(ground: &[Ground], unregistered: bool) -> String {
    // UNREGISTER is of the block as it was registered: memory that it grew by stays registered.
    let letter = |(page, ground): (usize, &Ground)| match ground {
        Ground::Hole => '-',
        Ground::Registered if !unregistered || page >= PAGES => 'm',
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

fn act(point: Point, ground: &[Ground]) -> Acted {
    let here = ground[point.change.page()];
    let waiter = point.waiter;
    // What the untouched page shows: `onto` brings its pages along, all else is empty.
    let untouched =
        if here == Ground::New && point.change == Change::Mremap(Remap::Onto) { 'n' } else { '-' };
    let fail =
        |facts, says| Acted { facts, fate: ("asleep", says), page: untouched, unregistered: false };
    let ran = |read| if waiter.writes() { "ran" } else { read };
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
        Op::Copy if here == Ground::Registered => filled("copy", source::COPY, "ran:copied", 'c'),
        Op::Copy => refused("copy", "ENOENT", "-2", source::COPY_ENOENT),
        Op::Zeropage if here != Ground::Registered => {
            refused("zeropage", "ENOENT", "-2", source::ZEROPAGE_ENOENT)
        }
        Op::Zeropage if point.backing.is_huge() => {
            refused("zeropage", "EINVAL", "-22", source::ZEROPAGE_HUGE)
        }
        Op::Zeropage => filled("zeropage", source::ZEROPAGE, "ran:zero", '0'),
        Op::Unregister => {
            let window = &ground[..PAGES];
            let gone = window.iter().all(|g| *g == Ground::Hole);
            if gone || window.contains(&Ground::File) {
                let says = source::UNREGISTER_EINVAL;
                return fail(vec![Expected::new("unregister", "EINVAL", says)], says);
            }
            let facts = vec![Expected::new("unregister", "0", source::UNREGISTER)];
            if here == Ground::Registered {
                let page = if waiter == Waiter::None { '-' } else { letter(waiter, '0') };
                let fate = (ran("ran:zero"), source::UNREGISTER_WAKES);
                return Acted { facts, fate, page, unregistered: true };
            }
            Acted { unregistered: true, ..fail(facts, source::UNREGISTER_WAKES) }
        }
        Op::Wake => {
            let facts = vec![Expected::new("wake", "0", source::WAKE)];
            if waiter == Waiter::None {
                return fail(facts, source::WAKE);
            }
            let page = match here {
                Ground::Zero => letter(waiter, '0'),
                Ground::New | Ground::File => letter(waiter, 'n'),
                Ground::Registered | Ground::Hole | Ground::Forbidden => '-',
            };
            let fate = (rerun(waiter, here).unwrap_or("again"), source::RERUN);
            Acted { facts, fate, page, unregistered: false }
        }
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
