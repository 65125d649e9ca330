//! The file of a core dump: where it goes, and what it has of the block.

use crate::memory::{BLOCK, PAGE};
use crate::outcome::{Seen, Stop};
use crate::point::PAGES;
use crate::stage::Stage;
use nix::unistd::{Whence, lseek};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

/// Where core dumps go. The setting is the machine's: it is put back when this is dropped.
#[derive(Debug)]
pub(super) struct Pattern(String);

const PATTERN: &str = "/proc/sys/kernel/core_pattern";

impl Pattern {
    /// Sets it to files that are named by their processes.
    pub(super) fn set(stage: &Stage) -> Result<Self, Stop> {
        if !stage.disposable {
            let why = "sets kernel.core_pattern: only asked in a VM";
            return Err(Stop::Precondition(why.into()));
        }
        let fail = |e| Stop::Precondition(format!("{PATTERN}: {e}"));
        let before = std::fs::read_to_string(PATTERN).map_err(fail)?;
        std::fs::write(PATTERN, "/tmp/core-%p").map_err(fail)?;
        Ok(Self(before))
    }
}

impl Drop for Pattern {
    fn drop(&mut self) {
        // The VM is the case's alone; nothing is to be done where this fails.
        let _ = std::fs::write(PATTERN, &self.0);
    }
}

/// The file of a core dump, which goes with this.
#[derive(Debug)]
pub(super) struct Core(PathBuf);

impl Core {
    /// Of a process that may leave one.
    pub(super) fn of(pid: i32) -> Self {
        Self(format!("/tmp/core-{pid}").into())
    }

    /// What it has of the block.
    pub(super) fn inspect(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        let fail = |e| Stop::Broken(format!("reading {}: {e}", self.0.display()));
        let file = File::open(&self.0).map_err(fail)?;
        match segment(&file).map_err(fail)? {
            None => seen.fact("segment", "absent"),
            Some((offset, in_file, len)) => {
                seen.fact("segment", format!("{}/{}", in_file / PAGE, len / PAGE));
                let letter = |value| stage.letter(value);
                seen.fact("core-pages", pages(&file, offset, letter).map_err(fail)?);
            }
        }
        Ok(())
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// A number at an offset of a header.
fn number<const N: usize>(header: &[u8], at: usize) -> usize {
    let mut raw = [0; 8];
    raw[..N].copy_from_slice(&header[at..at + N]);
    usize::try_from(u64::from_le_bytes(raw)).unwrap_or(usize::MAX)
}

/// Where a core has the block: offset, bytes in the file, bytes of memory.
fn segment(core: &File) -> std::io::Result<Option<(usize, usize, usize)>> {
    const LOAD: usize = 1;
    let mut head = [0; 64];
    core.read_exact_at(&mut head, 0)?;
    let (table, size, count) =
        (number::<8>(&head, 32), number::<2>(&head, 54), number::<2>(&head, 56));
    for n in 0..count {
        let mut entry = [0; 56];
        core.read_exact_at(&mut entry, (table + n * size) as u64)?;
        let word = |at| number::<8>(&entry, at);
        let (offset, start, in_file, len) = (word(8), word(16), word(32), word(40));
        if number::<4>(&entry, 0) == LOAD && (start..start + len).contains(&BLOCK) {
            return Ok(Some((offset + BLOCK - start, in_file, len)));
        }
    }
    Ok(None)
}

/// What a core has of each page: `-` for a hole, else the letter of its content.
fn pages(core: &File, offset: usize, letter: impl Fn(u64) -> char) -> std::io::Result<String> {
    let mut row = String::new();
    for page in 0..PAGES {
        let at = offset + page * PAGE;
        let begin = i64::try_from(at).unwrap_or(i64::MAX);
        // ENXIO: there is no data from here on.
        let data = lseek(core, begin, Whence::SeekData).unwrap_or(i64::MAX);
        let is_hole = data >= begin + i64::try_from(PAGE).unwrap_or(0);
        let mut raw = [0; 8];
        core.read_at(&mut raw, at as u64)?;
        row.push(if is_hole { '-' } else { letter(u64::from_ne_bytes(raw)) });
    }
    Ok(row)
}
