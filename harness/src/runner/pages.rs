//! The runner's program on huge pages.
//!
//! fork(2) leaves out the page tables of mapped files, so each case would fault in what it uses of the
//! program, 64 KiB a time, and its end would take hundreds of entries down again: a quarter of what a
//! case costs, under emulation and without. Of anonymous huge pages fork copies an entry for 2 MiB, and the
//! case faults for none of it.

use libc::{c_void, size_t};
use nix::errno::Errno;
use std::num::NonZeroUsize;
use std::ptr;
use uffd_suites::abi::Range;
use uffd_suites::evidence::Mapping;

/// Size of a page and of a huge page.
const PAGE: usize = 4096;
const HUGE: usize = 2 << 20;

/// Moves the program's code and constants to huge pages, at the addresses where they are. A part that
/// shares a huge page's addresses with anything else stays, and so does what the kernel has no huge
/// pages for; the program works all the same. For a process with one thread.
pub(super) fn enlarge() {
    // Elsewhere the caches would have to be told of code that has moved.
    if !cfg!(target_arch = "x86_64") {
        return;
    }
    for part in never_written() {
        // What can't be had costs time and nothing else.
        let _ = part.enlarge();
    }
}

/// Gives back the stack that Rust's runtime has for the signal of an overflowing stack: the suites have a handler of
/// their own, and each mapping costs each case its copying. For a process that ends by `_exit`.
pub(super) fn drop_signal_stack() {
    // SAFETY: an all-zero structure is valid, and is filled in.
    let mut old: libc::stack_t = unsafe { std::mem::zeroed() };
    let off = libc::stack_t { ss_flags: libc::SS_DISABLE, ..old };
    // SAFETY: no handler runs, so nobody uses the stack; the page below it is its guard.
    unsafe {
        if libc::sigaltstack(&raw const off, &raw mut old) == 0
            && old.ss_flags & libc::SS_DISABLE == 0
        {
            libc::munmap(old.ss_sp.byte_sub(PAGE), old.ss_size + PAGE);
        }
    }
}

/// A part of the program that nobody writes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Part {
    start: usize,
    end: usize,
    executable: bool,
}

/// The parts that nobody writes to. What is written to once, by the start-up code, is read-only afterwards.
fn never_written() -> impl Iterator<Item = Part> {
    let never = |(kind, flags): &(u32, u32)| match *kind {
        libc::PT_LOAD => flags & libc::PF_W == 0,
        kind => kind == libc::PT_GNU_RELRO,
    };
    parts().into_iter().filter(move |(header, _)| never(header)).map(|(_, part)| part)
}

/// The program's variables: the last part of it that is loaded.
pub(super) fn variables() -> Option<Range> {
    let loaded = parts().into_iter().rfind(|((kind, _), _)| *kind == libc::PT_LOAD);
    loaded.map(|(_, part)| Range { start: part.start, len: part.end - part.start })
}

/// What the program's headers say of it, each with its kind and flags.
fn parts() -> Vec<((u32, u32), Part)> {
    // SAFETY: these read numbers that the kernel has left for the process.
    let (table, count) =
        unsafe { (libc::getauxval(libc::AT_PHDR), libc::getauxval(libc::AT_PHNUM)) };
    let (Ok(table), Ok(count)) = (usize::try_from(table), usize::try_from(count)) else {
        return Vec::new();
    };
    if table == 0 {
        return Vec::new();
    }
    // SAFETY: the kernel says that so many headers lie there, in memory that is never unmapped.
    let headers = unsafe {
        std::slice::from_raw_parts(ptr::with_exposed_provenance::<libc::Elf64_Phdr>(table), count)
    };
    let address = |header: &libc::Elf64_Phdr| usize::try_from(header.p_vaddr).unwrap_or(0);
    let Some(own) = headers.iter().find(|header| header.p_type == libc::PT_PHDR) else {
        return Vec::new();
    };
    let base = table.wrapping_sub(address(own));
    let part = |header: &libc::Elf64_Phdr| {
        let start = base.wrapping_add(address(header));
        let len = usize::try_from(header.p_memsz).unwrap_or(0);
        Part {
            start: start / PAGE * PAGE,
            end: (start + len).next_multiple_of(PAGE),
            executable: header.p_flags & libc::PF_X != 0,
        }
    };
    headers.iter().map(|header| ((header.p_type, header.p_flags), part(header))).collect()
}

impl Part {
    /// Puts a copy on huge pages in its place.
    fn enlarge(self) -> Result<(), Errno> {
        let (start, end) = (self.start / HUGE * HUGE, self.end.next_multiple_of(HUGE));
        claim(start, self.start)?;
        claim(self.end, end)?;
        let prot = libc::PROT_READ | if self.executable { libc::PROT_EXEC } else { 0 };
        let len = end - start;
        let room = map(None, len + HUGE, libc::PROT_READ | libc::PROT_WRITE, 0)?;
        let copy = room.next_multiple_of(HUGE);
        let at = |address: usize| ptr::with_exposed_provenance_mut::<c_void>(address);
        let check = |ret: i32| if ret == 0 { Ok(()) } else { Err(Errno::last()) };
        // SAFETY: `copy..copy + len` lies within the new room and `self` in the program; the program's
        // place gets, in one call, the same bytes with the same access as before. Around them lies only
        // what `claim` has made.
        unsafe {
            check(libc::madvise(at(copy), len, libc::MADV_HUGEPAGE))?;
            at(copy + (self.start - start))
                .cast::<u8>()
                .copy_from_nonoverlapping(at(self.start).cast(), self.end - self.start);
            // In small pages it would cost each case more than the file does.
            let mapping = Mapping::at(copy).ok().flatten();
            if mapping.and_then(|m| m.kilobytes("AnonHugePages")) != Some(len as u64 / 1024) {
                check(libc::munmap(at(room), len + HUGE))?;
                return Err(Errno::ENOMEM);
            }
            check(libc::mprotect(at(copy), len, prot))?;
            let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
            if libc::mremap(at(copy), len, len, flags, at(start)) == libc::MAP_FAILED {
                return Err(Errno::last());
            }
            // Every mapping that is left costs each case its copying.
            for (from, to) in [(room, copy), (copy + len, room + len + HUGE)] {
                check(if from < to { libc::munmap(at(from), to - from) } else { 0 })?;
            }
        }
        Ok(())
    }
}

/// Takes the addresses `start..end`, where nothing may be yet.
fn claim(start: usize, end: usize) -> Result<(), Errno> {
    match NonZeroUsize::new(start) {
        Some(at) if start < end => {
            map(Some(at), end - start, libc::PROT_NONE, libc::MAP_FIXED_NOREPLACE).map(|_| ())
        }
        _ => Ok(()),
    }
}

fn map(at: Option<NonZeroUsize>, len: size_t, prot: i32, flags: i32) -> Result<usize, Errno> {
    let flags = flags | libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    let at = ptr::with_exposed_provenance_mut(at.map_or(0, NonZeroUsize::get));
    // SAFETY: a new mapping where the kernel has nothing yet.
    let at = unsafe { libc::mmap(at, len, prot, flags, -1, 0) };
    if at == libc::MAP_FAILED { Err(Errno::last()) } else { Ok(at.expose_provenance()) }
}
