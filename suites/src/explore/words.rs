//! The steps in sentences, so that a reader can repeat them with a program of their own.

use super::axes::{Ctx, Extra, Feature, Memory, Op, Prot, Treat};
use super::pages::Pages;
use super::step::Step;
use crate::point::Waiter;

impl Step {
    /// What is done, in one sentence.
    pub fn sentence(self) -> String {
        match self {
            Self::Open(ctx, feature) => {
                let asks = match feature {
                    Feature::Nothing => "no features",
                    Feature::Events => {
                        "EVENT_REMAP, EVENT_REMOVE and EVENT_UNMAP, and read each event at once"
                    }
                    Feature::Sigbus => "SIGBUS",
                    Feature::WpAsync => "WP_ASYNC",
                    Feature::WpUnpopulated => "WP_UNPOPULATED",
                };
                format!("make {}: userfaultfd(2), UFFDIO_API with {asks}", name(ctx))
            }
            Self::Close(ctx) => format!("close {}", name(ctx)),
            Self::Read(ctx) => format!("read every message of {}", name(ctx)),
            Self::Map(memory, pages) => {
                let what = match memory {
                    Memory::Anon => "private anonymous memory",
                    Memory::SharedAnon => "shared anonymous memory",
                    Memory::Shmem => "a memfd, MAP_SHARED, each page at its own offset",
                    Memory::Private => "a memfd, MAP_PRIVATE, each page at its own offset",
                    Memory::File => "a regular file, MAP_PRIVATE",
                    Memory::None => "private anonymous memory, PROT_NONE",
                    Memory::Droppable => "MAP_DROPPABLE|MAP_ANONYMOUS memory",
                };
                format!("mmap(MAP_FIXED) of {what} at {}", place(pages))
            }
            Self::Treat(treat, pages) => {
                let call = match treat {
                    Treat::Unmap => "munmap",
                    Treat::DontNeed => "madvise(MADV_DONTNEED)",
                    Treat::Remove => "madvise(MADV_REMOVE)",
                    Treat::DontFork => "madvise(MADV_DONTFORK)",
                    Treat::WipeOnFork => "madvise(MADV_WIPEONFORK)",
                    Treat::Lock => "mlock2(MLOCK_ONFAULT)",
                    Treat::Unlock => "munlock",
                    Treat::Guard => "madvise(MADV_GUARD_INSTALL)",
                    Treat::Unguard => "madvise(MADV_GUARD_REMOVE)",
                    Treat::Seal => "mseal",
                };
                format!("{call} of {}", place(pages))
            }
            Self::Protect(prot, pages) => {
                let prot = match prot {
                    Prot::None => "PROT_NONE",
                    Prot::Read => "PROT_READ",
                    Prot::Write => "PROT_READ|PROT_WRITE",
                };
                format!("mprotect({prot}) of {}", place(pages))
            }
            Self::Move(from, to, keeps) => {
                let keep = if keeps { "|MREMAP_DONTUNMAP" } else { "" };
                let (from, to) = (place(from), place(to));
                format!("mremap(MREMAP_MAYMOVE|MREMAP_FIXED{keep}) of {from} to {to}")
            }
            Self::Resize(pages, count) => {
                format!("mremap in place of {} to {count} pages", place(pages))
            }
            Self::Fork(page) => format!("fork; the child loads from {} and ends", place(page)),
            Self::Access(kind, page) => {
                let what = match kind {
                    Waiter::UserRead => "load from",
                    Waiter::UserWrite => "store to",
                    Waiter::SysWrite => "write(2) to a pipe from",
                    _ => "read(2) from a pipe into",
                };
                format!("let a thread {what} {}", place(page))
            }
            Self::Register(ctx, mode, pages) => {
                let mode = mode.word().replace('+', " and ");
                format!("UFFDIO_REGISTER of {} for {mode} faults with {}", place(pages), name(ctx))
            }
            Self::Call(ctx, op, pages, extra) => {
                let call = match op {
                    Op::Copy => "UFFDIO_COPY",
                    Op::Zeropage => "UFFDIO_ZEROPAGE",
                    Op::Continue => "UFFDIO_CONTINUE",
                    Op::Poison => "UFFDIO_POISON",
                    Op::Protect => "UFFDIO_WRITEPROTECT (MODE_WP)",
                    Op::Lift => "UFFDIO_WRITEPROTECT (no MODE_WP)",
                    Op::Unregister => "UFFDIO_UNREGISTER",
                    Op::Wake => "UFFDIO_WAKE",
                };
                format!("{call}{} of {} with {}", option(extra), place(pages), name(ctx))
            }
            Self::Relocate(ctx, to, from, extra) => {
                let (to, from) = (place(to), place(from));
                format!("UFFDIO_MOVE{} of {from} to {to} with {}", option(extra), name(ctx))
            }
        }
    }
}

const fn name(ctx: Ctx) -> &'static str {
    match ctx {
        Ctx::First => "the first userfaultfd",
        Ctx::Second => "the second userfaultfd",
    }
}

const fn option(extra: Extra) -> &'static str {
    match extra {
        Extra::Nothing => "",
        Extra::DontWake => " (DONTWAKE)",
        Extra::Wp => " (MODE_WP)",
        Extra::Holes => " (ALLOW_SRC_HOLES)",
    }
}

fn place(pages: Pages) -> String {
    let Pages { place, first, count } = pages;
    let letter = place.letter();
    if count == 1 {
        format!("page {first} of {letter}")
    } else {
        format!("pages {first}..{} of {letter}", pages.end())
    }
}
