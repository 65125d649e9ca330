//! The memory of a script: what its areas are made of, and the files behind them.

use super::{Memory, Place, Span};
use crate::abi::{Range, Rc};
use crate::evidence::Mapping;
use crate::files;
use crate::memory::{Block, HUGE, PAGE, RW, map, unmap};
use crate::outcome::Stop;
use crate::point::{Backing, PAGES};
use crate::stage::Stage;
use crate::treat;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use std::os::fd::{AsFd, OwnedFd};

/// What is behind the area of each place, and the size of its pages.
pub(super) struct Areas<'a> {
    stage: &'a Stage,
    blocks: [Option<Block>; Place::ALL.len()],
}

impl<'a> Areas<'a> {
    pub(super) const fn new(stage: &'a Stage) -> Self {
        Self { stage, blocks: [const { None }; Place::ALL.len()] }
    }

    /// What is behind a span.
    pub(super) fn at(&self, span: Span) -> Result<&Block, Stop> {
        let block = self.blocks[span.place as usize].as_ref();
        block.ok_or_else(|| Stop::Broken(format!("nothing is mapped at {}", span.place.word())))
    }

    /// Maps memory of a kind where nothing is mapped.
    pub(super) fn map(&mut self, span: Span, memory: Memory) -> Result<(), Stop> {
        let at = span.range();
        let anon = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let fixed = libc::MAP_FIXED_NOREPLACE;
        let mut block = Block { backing: Backing::Anon, page: span.unit, file: None };
        let rc = match memory {
            Memory::Of(backing) => {
                block = Block::map(backing, at.start)?;
                let rest = Range { start: at.end(), len: PAGES * block.page - at.len };
                if rest.len == 0 { Rc::OK } else { unmap(rest) }
            }
            Memory::Anon(prot) => map(at, prot, anon | fixed, None, 0),
            Memory::ThpShmem => {
                allow_huge_pages(true)?;
                block = Block::map_many(Backing::Shmem, at.start, at.len / PAGE)?;
                Rc::OK
            }
            Memory::Thp => {
                allow_huge_pages(true)?;
                match map(at, RW, anon | fixed, None, 0) {
                    Rc(None) => crate::memory::advise(at, libc::MADV_HUGEPAGE),
                    rc => rc,
                }
            }
            Memory::GrowsDown => map(at, RW, anon | fixed | libc::MAP_GROWSDOWN, None, 0),
            Memory::File => map(at, RW, libc::MAP_PRIVATE | fixed, Some(self.stage.plain_fd()?), 0),
            Memory::BlockAgain => {
                let Some(Block { file: Some(file), .. }) = &self.blocks[Place::Block as usize]
                else {
                    return Err(Stop::Broken("the block has no file to map again".into()));
                };
                map(at, RW, libc::MAP_SHARED | fixed, Some(file.as_fd()), 0)
            }
            Memory::HugeFile | Memory::LongFile | Memory::Secret | Memory::Sealable(_) => {
                let file = file(memory)?;
                let private = memory == Memory::Sealable(Backing::Private);
                let kind = if private { libc::MAP_PRIVATE } else { libc::MAP_SHARED };
                let rc = map(at, RW, kind | fixed, Some(file.as_fd()), 0);
                block = Block { backing: Backing::Shmem, page: PAGE, file: Some(file) };
                rc
            }
        };
        if !rc.is_ok() {
            return Err(Stop::Broken(format!("mapping {memory:?}: {rc}")));
        }
        self.blocks[span.place as usize] = Some(block);
        Ok(())
    }

    /// fcntl(2), F_ADD_SEALS.
    pub(super) fn seal_file(&self, span: Span, seal: i32) -> Result<Rc, Stop> {
        let Some(file) = &self.at(span)?.file else {
            return Err(Stop::Broken("no file to seal".into()));
        };
        let seal = FcntlArg::F_ADD_SEALS(SealFlag::from_bits_retain(seal));
        Ok(Rc(fcntl(file, seal).err()))
    }

    /// ftruncate(2) to `len` bytes.
    pub(super) fn truncate(&self, span: Span, len: usize) -> Result<Rc, Stop> {
        let Some(file) = &self.at(span)?.file else {
            return Err(Stop::Broken("no file to truncate".into()));
        };
        let len = i64::try_from(len).unwrap_or(i64::MAX);
        Ok(Rc(nix::unistd::ftruncate(file, len).err()))
    }
}

/// The file of a kind of memory that has one of its own.
fn file(memory: Memory) -> Result<OwnedFd, Stop> {
    match memory {
        Memory::HugeFile | Memory::LongFile => {
            allow_huge_pages(true)?;
            if memory == Memory::LongFile { files::memfd(2 * HUGE) } else { files::huge(2 * HUGE) }
        }
        Memory::Secret => files::secret(2 * PAGES * PAGE),
        _ => files::memfd(2 * PAGES * PAGE),
    }
}

/// Stops a case whose memory the kernel has not mapped by huge pages.
pub(super) fn must_be_huge(span: Span) -> Result<(), Stop> {
    let bytes = huge_bytes(span)?;
    if bytes < span.range().len as u64 {
        return Err(Stop::Precondition(format!(
            "no transparent huge page was mapped ({bytes} bytes): \
             /sys/kernel/mm/transparent_hugepage/enabled, or memory is fragmented"
        )));
    }
    Ok(())
}

/// How much of a span's first mapping is mapped by huge pages, of anonymous or of shared memory.
pub(super) fn huge_bytes(span: Span) -> Result<u64, Stop> {
    let mapping = Mapping::at(span.range().start)?;
    let kilobytes = |field| mapping.as_ref().and_then(|m| m.kilobytes(field)).unwrap_or(0);
    Ok((kilobytes("AnonHugePages") + kilobytes("ShmemPmdMapped")) * 1024)
}

/// Whether this process may have transparent huge pages, which cases else go without.
pub(super) fn allow_huge_pages(allow: bool) -> Result<(), Stop> {
    match treat::allow_huge_pages(allow) {
        Rc(None) => Ok(()),
        rc => Err(Stop::Broken(format!("PR_SET_THP_DISABLE: {rc}"))),
    }
}
