//! What can happen to the block's mapping: one system call each, as a migration program or the
//! allocator under it would make it.

use crate::abi::{Range, Rc};
use crate::memory::{BLOCK, Block, ELSEWHERE, OTHER, RW, map, new_data, remap, tag, unmap};
use crate::outcome::Stop;
use crate::point::{Backing, Change, GROWN, Over, PAGES, Part, Remap, SHRUNK};
use crate::stage::Stage;
use crate::touch;
use std::os::fd::{AsFd, OwnedFd};

/// Everything a change needs, made before the waiter parks.
#[derive(Debug)]
pub struct Prepared {
    change: Change,
    /// A second block, to be moved onto the first.
    other: Option<Block>,
    /// A file with data, to be mapped over the block.
    data: Option<OwnedFd>,
}

impl Prepared {
    /// Makes what the change needs beside the block.
    pub fn new(stage: &Stage, change: Change, block: &Block) -> Result<Self, Stop> {
        let leaks =
            block.backing == Backing::HugetlbPrivate && change == Change::Mremap(Remap::MovePart);
        if leaks && !stage.disposable {
            return Err(Stop::Precondition(
                "moving a part of private hugetlb memory leaks reserved huge pages (6.1 to 7.3): \
                 only asked in a VM"
                    .into(),
            ));
        }
        let other = match change {
            Change::Mremap(Remap::Onto) => Some(filled(block)?),
            _ => None,
        };
        let data = match change {
            Change::MmapOver(_, Over::Shared) => Some(new_data(block.page)?),
            _ => None,
        };
        Ok(Self { change, other, data })
    }

    /// Applies the change; its return value.
    pub fn apply(&self, stage: &Stage, block: &Block) -> Result<Rc, Stop> {
        match self.change {
            Change::None => Ok(Rc::OK),
            Change::Munmap(part) => Ok(unmap(block.range(part.pages()))),
            Change::MmapOver(part, over) => self.map_over(stage, block, part, over),
            Change::Mremap(how) => Ok(self.remap(block, how)),
            Change::Discard(how) => block.discard(how, Part::Middle.pages()),
        }
    }

    fn map_over(&self, stage: &Stage, block: &Block, part: Part, over: Over) -> Result<Rc, Stop> {
        let range = block.range(part.pages());
        let anon = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        Ok(match over {
            Over::Anon => map(range, RW, anon, None, 0),
            Over::ProtNone => map(range, libc::PROT_NONE, anon, None, 0),
            Over::Shared => {
                let offset = part.pages().start * block.page;
                map(range, RW, libc::MAP_SHARED, self.data.as_ref().map(AsFd::as_fd), offset)
            }
            Over::File => {
                // A mapping a page, so that each page shows the head of the file.
                let file = stage.plain_fd()?;
                for page in part.pages() {
                    let head = Range { start: block.range(page..page + 1).start, len: block.page };
                    let rc = map(head, RW, libc::MAP_PRIVATE, Some(file), 0);
                    if !rc.is_ok() {
                        return Ok(rc);
                    }
                }
                Rc::OK
            }
            Over::Same => block.map_pages(part.pages(), BLOCK, 0),
        })
    }

    fn remap(&self, block: &Block, how: Remap) -> Rc {
        let moving = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
        let bytes = |pages: usize| pages * block.page;
        let all = block.range(0..PAGES);
        match how {
            Remap::Move => remap(all, all.len, moving, ELSEWHERE),
            Remap::MovePart => {
                let middle = block.range(Part::Middle.pages());
                remap(middle, middle.len, moving, ELSEWHERE)
            }
            Remap::Grow => remap(all, bytes(GROWN), 0, 0),
            Remap::Shrink => remap(all, bytes(SHRUNK), 0, 0),
            Remap::MoveGrow => remap(all, bytes(GROWN), moving, ELSEWHERE),
            Remap::MoveShrink => remap(all, bytes(SHRUNK), moving, ELSEWHERE),
            Remap::Onto => {
                let page = self.other.as_ref().map_or(block.page, |other| other.page);
                let from = Range { start: OTHER, len: PAGES * page };
                remap(from, from.len, moving, BLOCK)
            }
            Remap::DontUnmap => remap(all, all.len, moving | libc::MREMAP_DONTUNMAP, ELSEWHERE),
        }
    }
}

/// A second block of the same kind, every page of which holds [`tag::NEW`].
fn filled(block: &Block) -> Result<Block, Stop> {
    let other = Block::map(block.backing, OTHER)?;
    for page in 0..PAGES {
        touch::store(other.at(OTHER, page..page + 1).start, tag::NEW)
            .map_err(|signal| Stop::Broken(format!("filling the other block: {signal}")))?;
    }
    Ok(other)
}

/// Maps fresh memory of the block's kind directly behind it, where nothing was.
pub fn map_behind(block: &Block) -> Rc {
    block.map_pages(PAGES..GROWN, BLOCK, libc::MAP_FIXED_NOREPLACE)
}
