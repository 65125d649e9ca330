//! The calls that change memory, one system call each, and which of them raise events.

use super::ground::Ground;
use crate::abi::{Range, Rc};
use crate::memory::{self, BLOCK, Block, ELSEWHERE, OTHER, RW, map, new_data, remap, tag};
use crate::outcome::Stop;
use crate::point::{Backing, Discard, PAGES, axis};
use crate::treat;
use std::fmt;
use std::os::fd::{AsFd, OwnedFd};

axis! {
    /// Which addresses a call names.
    What {
        /// The block.
        Whole = "whole",
        /// Its first third.
        Head = "head",
        /// Its second third.
        Middle = "middle",
        /// Its last third.
        Tail = "tail",
        /// One page that was written to.
        Page = "page",
        /// The block and an unmapped page on each side.
        Around = "around",
        /// One byte of a page.
        Byte = "byte",
        /// The block, which mprotect has cut into three mappings.
        Split = "split",
        /// The block, of which only the first half is registered.
        HalfRegistered = "half-registered",
        /// Other memory, which is not registered.
        Unregistered = "unregistered",
    }
}

axis! {
    /// What mmap(MAP_FIXED) puts over the block.
    Fresh {
        /// Private anonymous memory.
        Anon = "anon",
        /// The same without access.
        ProtNone = "prot-none",
        /// Another memfd, shared.
        Shared = "shared",
        /// The same memory again.
        Same = "same",
    }
}

axis! {
    /// What mremap(2) does.
    How {
        /// The block moves.
        Move = "move",
        /// Its middle moves.
        MovePart = "move-part",
        /// It grows in place.
        Grow = "grow",
        /// It shrinks in place.
        Shrink = "shrink",
        /// It moves and grows.
        MoveGrow = "move-grow",
        /// It moves and shrinks.
        MoveShrink = "move-shrink",
        /// Other, unregistered memory moves onto it.
        Onto = "onto",
        /// It moves onto other, unregistered memory.
        OntoOther = "onto-other",
        /// Its head moves onto its tail.
        OntoSelf = "onto-self",
        /// Its pages move, its mapping stays.
        DontUnmap = "dontunmap",
        /// The length ends within a page.
        ShortLength = "short-length",
        /// Three mappings at once.
        Split = "split",
        /// Old length 0: a second mapping of the same shared memory.
        Duplicate = "duplicate",
        /// A target that is not aligned to a page.
        Misaligned = "misaligned",
    }
}

axis! {
    /// Advice of madvise(2), and the like.
    Advice {
        /// `MADV_DONTNEED`.
        DontNeed = "dontneed",
        /// `MADV_FREE`.
        Free = "free",
        /// `MADV_REMOVE`.
        Remove = "remove",
        /// `MADV_DONTNEED_LOCKED` (5.18).
        DontNeedLocked = "dontneed-locked",
        /// `MADV_COLD`.
        Cold = "cold",
        /// `MADV_GUARD_INSTALL` (6.13).
        Guard = "guard",
        /// `fallocate(FALLOC_FL_PUNCH_HOLE)` of the file behind the block.
        Punch = "punch-hole",
    }
}

/// A call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    /// `munmap(2)`.
    Unmap(What),
    /// `mmap(2)` with MAP_FIXED.
    Over(What, Fresh),
    /// `mremap(2)`.
    Remap(How),
    /// `madvise(2)` and the like.
    Advise(Advice, What),
}

impl Call {
    /// Its axes in case ids.
    pub(crate) fn axes(self) -> String {
        match self {
            Self::Unmap(what) => format!("what={what}"),
            Self::Over(what, fresh) => format!("what={what},over={fresh}"),
            Self::Remap(how) => format!("how={how}"),
            Self::Advise(advice, what) => format!("advice={advice},what={what}"),
        }
    }

    /// Which part of the block is registered.
    pub(crate) const fn registered(self) -> std::ops::Range<usize> {
        match self {
            Self::Unmap(What::HalfRegistered)
            | Self::Over(What::HalfRegistered, _)
            | Self::Advise(_, What::HalfRegistered) => 0..PAGES / 2,
            _ => 0..PAGES,
        }
    }
}

impl What {
    /// The pages of the block's place concerned; for [`What::Unregistered`] of the other place.
    pub(crate) const fn pages(self) -> std::ops::Range<usize> {
        match self {
            Self::Head => 0..2,
            Self::Middle => 2..4,
            Self::Tail => 4..PAGES,
            Self::Page | Self::Byte => 3..4,
            _ => 0..PAGES,
        }
    }

    fn range(self, block: &Block) -> Range {
        let pages = self.pages();
        match self {
            Self::Unregistered => block.at(OTHER, pages),
            Self::Around => Range { start: BLOCK - block.page, len: (PAGES + 2) * block.page },
            Self::Byte => Range { start: block.range(pages).start, len: 1 },
            _ => block.range(pages),
        }
    }
}

/// What a call needs, made before the events are asked for.
#[derive(Debug)]
pub(crate) struct Ready {
    other: Option<Block>,
    data: Option<OwnedFd>,
    copy: Option<OwnedFd>,
}

impl Ready {
    /// Makes it.
    pub(crate) fn new(ground: &Ground<'_>, call: Call) -> Result<Self, Stop> {
        let block = &ground.block;
        let needs_other = matches!(
            call,
            Call::Remap(How::Onto | How::OntoOther)
                | Call::Unmap(What::Unregistered)
                | Call::Over(What::Unregistered, _)
                | Call::Advise(_, What::Unregistered)
        );
        let other = if needs_other { Some(filled(block.backing)?) } else { None };
        let is_split = matches!(
            call,
            Call::Remap(How::Split)
                | Call::Unmap(What::Split)
                | Call::Over(What::Split, _)
                | Call::Advise(_, What::Split)
        );
        if is_split {
            let rc = memory::protect(block.range(2..4), libc::PROT_READ);
            if !rc.is_ok() {
                return Err(Stop::Broken(format!("mprotect of the middle: {rc}")));
            }
        }
        let data = match call {
            Call::Over(_, Fresh::Shared) => Some(new_data(block.page)?),
            _ => None,
        };
        let copy = match &block.file {
            Some(file) => Some(
                file.try_clone().map_err(|e| Stop::Broken(format!("a second descriptor: {e}")))?,
            ),
            None => None,
        };
        Ok(Self { other, data, copy })
    }

    /// The call, for a thread of its own.
    pub(crate) fn call(self, block: &Block, call: Call) -> Box<dyn FnOnce() -> Rc + Send> {
        let (backing, page) = (block.backing, block.page);
        Box::new(move || {
            let block = Block { backing, page, file: self.copy };
            match call {
                Call::Unmap(what) => memory::unmap(what.range(&block)),
                Call::Over(what, fresh) => over(&block, what, fresh, self.data.as_ref()),
                Call::Remap(how) => mremap(&block, how, self.other.as_ref()),
                Call::Advise(advice, what) => advise(&block, advice, what),
            }
        })
    }
}

fn over(block: &Block, what: What, fresh: Fresh, data: Option<&OwnedFd>) -> Rc {
    let range = what.range(block);
    let anon = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    match fresh {
        Fresh::Anon => map(range, RW, anon, None, 0),
        Fresh::ProtNone => map(range, libc::PROT_NONE, anon, None, 0),
        Fresh::Shared => map(range, RW, libc::MAP_SHARED, data.map(AsFd::as_fd), 0),
        Fresh::Same => block.map_pages(what.pages(), BLOCK, 0),
    }
}

fn mremap(block: &Block, how: How, other: Option<&Block>) -> Rc {
    let moving = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
    let bytes = |pages: usize| pages * block.page;
    let all = block.range(0..PAGES);
    match how {
        How::Move | How::Split => remap(all, all.len, moving, ELSEWHERE),
        How::MovePart => remap(block.range(2..4), bytes(2), moving, ELSEWHERE),
        How::Grow => remap(all, bytes(8), 0, 0),
        How::Shrink => remap(all, bytes(4), 0, 0),
        How::MoveGrow => remap(all, bytes(8), moving, ELSEWHERE),
        How::MoveShrink => remap(all, bytes(4), moving, ELSEWHERE),
        How::Onto => {
            let page = other.map_or(block.page, |other| other.page);
            let from = Range { start: OTHER, len: PAGES * page };
            remap(from, from.len, moving, BLOCK)
        }
        How::OntoOther => remap(all, all.len, moving, OTHER),
        How::OntoSelf => remap(block.range(0..2), bytes(2), moving, block.range(4..6).start),
        How::DontUnmap => remap(all, all.len, moving | libc::MREMAP_DONTUNMAP, ELSEWHERE),
        How::ShortLength => {
            let short = Range { len: all.len - 1, ..all };
            remap(short, short.len, moving, ELSEWHERE)
        }
        How::Duplicate => remap(Range { len: 0, ..all }, all.len, moving, ELSEWHERE),
        How::Misaligned => remap(all, all.len, moving, ELSEWHERE + block.page / 2),
    }
}

fn advise(block: &Block, advice: Advice, what: What) -> Rc {
    let number = match advice {
        Advice::DontNeed => libc::MADV_DONTNEED,
        Advice::Free => libc::MADV_FREE,
        Advice::Remove => libc::MADV_REMOVE,
        Advice::DontNeedLocked => treat::DONTNEED_LOCKED,
        Advice::Cold => libc::MADV_COLD,
        Advice::Guard => treat::GUARD_INSTALL,
        Advice::Punch => return block.discard(Discard::Punch, what.pages()).unwrap_or(Rc::OK),
    };
    memory::advise(what.range(block), number)
}

/// A second block of the same kind, every page of which is written to.
fn filled(backing: Backing) -> Result<Block, Stop> {
    let other = Block::map(backing, OTHER)?;
    for page in 0..PAGES {
        super::ground::write(&other, OTHER, page, tag::NEW)?;
    }
    Ok(other)
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unmap(what) => write!(f, "munmap of {what}"),
            Self::Over(what, fresh) => write!(f, "mmap(MAP_FIXED) of {fresh} over {what}"),
            Self::Remap(how) => write!(f, "mremap: {how}"),
            Self::Advise(advice, what) => write!(f, "{advice} of {what}"),
        }
    }
}
