//! The arena and what backs a block.
//!
//! The arena is a fixed range of addresses far below where the kernel places anything on its own (the
//! program is position-independent), so a hole in it stays a hole: no malloc and no thread stack can
//! land there. Being lowest, its mappings are the first of /proc/self/smaps, which is costly to read
//! further. Each place in it is followed by more empty space than any change can use. [`FAR`] is for the
//! few cases that need more room, or distance.

use crate::abi::{Range, Rc};
use crate::outcome::Stop;
use crate::point::{Backing, Discard, PAGES};
use nix::errno::Errno;
use nix::sys::memfd::{MFdFlags, memfd_create};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

/// Size of a base page, in bytes. It has one value on x86-64; for arm64 the program is built for one of three,
/// which `UFFD_CONFORM_PAGE_KIB` names.
pub const PAGE: usize = match option_env!("UFFD_CONFORM_PAGE_KIB") {
    None => 4096,
    Some(kib) => match kib.as_bytes() {
        b"4" => 4096,
        b"16" => 16 << 10,
        b"64" => 64 << 10,
        _ => panic!("UFFD_CONFORM_PAGE_KIB is 4, 16 or 64"),
    },
};
/// Bytes of one page, as a result field says them.
pub const ONE_PAGE: &str = decimal(PAGE);
/// Bytes of two pages, the same.
pub const TWO_PAGES: &str = decimal(2 * PAGE);
/// Size of a huge page, in bytes.
pub const HUGE: usize = 2 << 20;

const MIB: usize = 1 << 20;
/// All addresses that cases use: start and length. One GiB-aligned piece, so one page directory.
pub const ARENA: Range = Range { start: 0x4000_0000, len: 1 << 30 };
/// Where the block stands.
pub const BLOCK: usize = ARENA.start + 128 * MIB;
/// Where mremap(2) moves it.
pub const ELSEWHERE: usize = ARENA.start + 384 * MIB;
/// Where memory stands that is to be moved onto the block.
pub const OTHER: usize = ARENA.start + 640 * MIB;
/// Where a page stands that UFFDIO_MOVE takes, and whatever else a case needs beside the block.
pub const SPARE: usize = ARENA.start + 896 * MIB;
/// Addresses for memory that is longer than the arena, or that no page directory of the arena covers:
/// above the arena, and below everything that the kernel places by itself.
pub const FAR: Range = Range { start: 1 << 40, len: 1 << 44 };

/// Contents that a page can show; the tag is what its first eight bytes hold.
pub mod tag {
    /// Nothing was ever written.
    pub const ZERO: u64 = 0;
    /// The block's own data from before the change.
    pub const KEPT: u64 = u64::from_ne_bytes(*b"kept....");
    /// What COPY brings.
    pub const COPIED: u64 = u64::from_ne_bytes(*b"copied..");
    /// Data of the mapping that took the block's place.
    pub const NEW: u64 = u64::from_ne_bytes(*b"new.....");
    /// What a waiter stores.
    pub const WROTE: u64 = u64::from_ne_bytes(*b"wrote...");
}

/// Readable and writable.
pub const RW: i32 = libc::PROT_READ | libc::PROT_WRITE;

/// The numbers of bytes that expectations name, in digits.
const fn decimal(bytes: usize) -> &'static str {
    match bytes {
        4096 => "4096",
        8192 => "8192",
        16384 => "16384",
        32768 => "32768",
        65536 => "65536",
        131_072 => "131072",
        _ => panic!("no page or two have this size"),
    }
}

/// Stops a case that would reach memory outside of the arena, where it could break the process.
pub(crate) fn guard(at: Range) {
    let holds = |all: Range| at.start >= all.start && at.end() <= all.end();
    assert!(holds(ARENA) || holds(FAR), "outside of the arena: {at:x?}");
}

/// `mmap(2)` with MAP_FIXED, or MAP_FIXED_NOREPLACE if `flags` has it; never touches other memory
/// of the process, since only addresses of the arena are accepted.
pub fn map(at: Range, prot: i32, flags: i32, fd: Option<BorrowedFd<'_>>, offset: usize) -> Rc {
    guard(at);
    let fixed = if flags & libc::MAP_FIXED_NOREPLACE == 0 { libc::MAP_FIXED } else { 0 };
    let fd = fd.map_or(-1, |fd| fd.as_raw_fd());
    let offset = libc::off_t::try_from(offset).unwrap_or(libc::off_t::MAX);
    // SAFETY: the range lies in the arena, where Rust places nothing; its memory is only reached
    // through `touch`, which survives whatever it meets.
    let ret = unsafe { libc::mmap(at.start as *mut _, at.len, prot, flags | fixed, fd, offset) };
    let rc = Rc::of(ret as libc::c_long);
    crate::withheld::mapping(flags, rc.0);
    rc
}

/// `munmap(2)` in the arena.
pub fn unmap(at: Range) -> Rc {
    guard(at);
    // SAFETY: as for `map`.
    Rc::of(unsafe { libc::munmap(at.start as *mut _, at.len) }.into())
}

/// `mremap(2)` in the arena; `to` is used with MREMAP_FIXED only.
pub fn remap(from: Range, new_len: usize, flags: i32, to: usize) -> Rc {
    guard(from);
    guard(Range { start: if to == 0 { from.start } else { to }, len: new_len });
    // SAFETY: as for `map`.
    let ret = unsafe {
        libc::mremap(from.start as *mut _, from.len, new_len, flags, to as *mut libc::c_void)
    };
    Rc::of(ret as libc::c_long)
}

/// `madvise(2)` in the arena.
pub fn advise(at: Range, advice: i32) -> Rc {
    guard(at);
    // SAFETY: the range lies in the arena, where Rust keeps nothing.
    Rc::of(unsafe { libc::madvise(at.start as *mut _, at.len, advice) }.into())
}

/// `mprotect(2)` in the arena.
pub fn protect(at: Range, prot: i32) -> Rc {
    guard(at);
    // SAFETY: the range lies in the arena, where Rust keeps nothing.
    Rc::of(unsafe { libc::mprotect(at.start as *mut _, at.len, prot) }.into())
}

/// `madvise(MADV_DONTNEED)` in the arena.
pub fn dontneed(at: Range) -> Rc {
    advise(at, libc::MADV_DONTNEED)
}

/// A block of memory to be registered.
#[derive(Debug)]
pub struct Block {
    /// What backs it.
    pub backing: Backing,
    /// Size of its pages, in bytes.
    pub page: usize,
    /// Its memfd, for the backings that have one.
    pub file: Option<OwnedFd>,
}

impl Block {
    /// Maps a block of [`PAGES`] pages at `at`. The file behind it is longer, so that it can grow.
    pub fn map(backing: Backing, at: usize) -> Result<Self, Stop> {
        Self::map_many(backing, at, PAGES)
    }

    /// As [`Block::map`], of any number of pages.
    pub fn map_many(backing: Backing, at: usize, pages: usize) -> Result<Self, Stop> {
        let page = if backing.is_huge() { HUGE } else { PAGE };
        let len = 2 * pages * page;
        let file = match backing {
            Backing::Shmem | Backing::Private => Some(memfd("block", MFdFlags::empty(), len)?),
            Backing::HugetlbShared => {
                Some(memfd("block", MFdFlags::MFD_HUGETLB | MFdFlags::MFD_HUGE_2MB, len)?)
            }
            Backing::Anon | Backing::SharedAnon | Backing::HugetlbPrivate => None,
        };
        let block = Self { backing, page, file };
        let rc = block.map_pages(0..pages, at, libc::MAP_FIXED_NOREPLACE);
        match rc.0 {
            None => Ok(block),
            Some(Errno::ENOMEM) if backing.is_huge() => {
                Err(Stop::Precondition("no 2 MiB huge pages reserved (vm.nr_hugepages)".into()))
            }
            Some(errno) => Err(Stop::Broken(format!("mapping a {backing} block: {errno:?}"))),
        }
    }

    /// Maps `pages` of the block, or maps them again, where the block at `at` has them.
    pub fn map_pages(&self, pages: std::ops::Range<usize>, at: usize, flags: i32) -> Rc {
        let kind = match self.backing {
            Backing::Anon => libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            Backing::SharedAnon => libc::MAP_SHARED | libc::MAP_ANONYMOUS,
            Backing::Shmem | Backing::HugetlbShared => libc::MAP_SHARED,
            Backing::Private => libc::MAP_PRIVATE,
            Backing::HugetlbPrivate => {
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_HUGETLB | libc::MAP_HUGE_2MB
            }
        };
        let offset = if self.file.is_some() { pages.start * self.page } else { 0 };
        let range = self.at(at, pages);
        map(range, RW, kind | flags, self.file.as_ref().map(std::os::fd::AsFd::as_fd), offset)
    }

    /// The range of `pages` if the block stands at `base`.
    pub fn at(&self, base: usize, pages: std::ops::Range<usize>) -> Range {
        Range { start: base + pages.start * self.page, len: pages.len() * self.page }
    }

    /// The range of `pages` where the block was registered.
    pub fn range(&self, pages: std::ops::Range<usize>) -> Range {
        self.at(BLOCK, pages)
    }

    /// Puts [`tag::KEPT`] at `page` of the file behind the block without mapping it there: through a
    /// second mapping, which is gone afterwards.
    pub fn fill_cache(&self, page: usize) -> Result<(), Stop> {
        if self.file.is_none() {
            return Err(Stop::Broken(format!("a {} block has no page cache", self.backing)));
        }
        let at = self.at(SPARE, page..page + 1);
        let file = self.file.as_ref().map(std::os::fd::AsFd::as_fd);
        let rc = map(at, RW, libc::MAP_SHARED, file, page * self.page);
        if !rc.is_ok() {
            return Err(Stop::Broken(format!("a second mapping of the block: {rc}")));
        }
        let stored = crate::touch::store(at.start, tag::KEPT);
        let rc = unmap(at);
        match stored {
            Ok(()) if rc.is_ok() => Ok(()),
            Ok(()) => Err(Stop::Broken(format!("unmapping the second mapping: {rc}"))),
            Err(signal) => Err(Stop::Broken(format!("writing to the page cache: {signal}"))),
        }
    }

    /// Discards `pages` without a change of the mapping.
    pub fn discard(&self, how: Discard, pages: std::ops::Range<usize>) -> Result<Rc, Stop> {
        let advice = match how {
            Discard::DontNeed => libc::MADV_DONTNEED,
            Discard::Remove => libc::MADV_REMOVE,
            Discard::Punch => return self.punch(pages),
        };
        Ok(advise(self.range(pages), advice))
    }

    fn punch(&self, pages: std::ops::Range<usize>) -> Result<Rc, Stop> {
        use nix::fcntl::{FallocateFlags, fallocate};
        let Some(file) = &self.file else {
            return Err(Stop::Broken(format!("a {} block has no file to punch", self.backing)));
        };
        let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        let offset = |n: usize| i64::try_from(n * self.page).unwrap_or(i64::MAX);
        Ok(Rc(fallocate(file, flags, offset(pages.start), offset(pages.len())).err()))
    }
}

impl Block {
    /// The same block by a second descriptor of its file, opened anew.
    pub(crate) fn reopened(&self) -> Result<Self, Stop> {
        let Some(file) = &self.file else {
            return Err(Stop::Broken(format!("a {} block has no file to open", self.backing)));
        };
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        let file = std::fs::File::options().read(true).write(true).open(&path);
        let file = file.map_err(|e| Stop::Broken(format!("opening {path}: {e}")))?;
        Ok(Self { file: Some(file.into()), ..*self })
    }

    /// Makes the file as long as `pages` pages, with ftruncate(2).
    pub(crate) fn cut(&self, pages: usize) -> Result<Rc, Stop> {
        let Some(file) = &self.file else {
            return Err(Stop::Broken(format!("a {} block has no file to cut", self.backing)));
        };
        let to = i64::try_from(pages * self.page).unwrap_or(i64::MAX);
        Ok(Rc(nix::unistd::ftruncate(file, to).err()))
    }

    /// Cuts the file off behind `pages` pages and makes it as long as it was.
    pub(crate) fn truncate(&self, pages: usize) -> Result<Rc, Stop> {
        let rc = self.cut(pages)?;
        if rc.is_ok() { self.cut(2 * PAGES) } else { Ok(rc) }
    }
}

/// A memfd for a block's place whose pages all begin with [`tag::NEW`].
pub fn new_data(page: usize) -> Result<OwnedFd, Stop> {
    let file = memfd("new", MFdFlags::empty(), 2 * PAGES * page)?;
    for n in 0..PAGES {
        let offset = i64::try_from(n * page).unwrap_or(i64::MAX);
        nix::sys::uio::pwrite(&file, &tag::NEW.to_ne_bytes(), offset)
            .map_err(|e| Stop::Broken(format!("writing to a memfd: {e:?}")))?;
    }
    Ok(file)
}

/// A memfd of `len` bytes.
fn memfd(name: &str, flags: MFdFlags, len: usize) -> Result<OwnedFd, Stop> {
    let fd = memfd_create(name, flags | MFdFlags::MFD_CLOEXEC)
        .map_err(|e| Stop::Precondition(format!("memfd_create: {e:?}")))?;
    let len = i64::try_from(len).unwrap_or(i64::MAX);
    nix::unistd::ftruncate(&fd, len).map_err(|e| Stop::Broken(format!("ftruncate: {e:?}")))?;
    Ok(fd)
}
