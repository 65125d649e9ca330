//! KSM's merging for one case, in a VM of ours: it is one switch of the whole machine.

use crate::abi::Range;
use crate::memory::PAGE;
use crate::outcome::Stop;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

/// Merging that is on until this is dropped.
#[derive(Debug)]
pub(crate) struct Merging(());

fn setting(name: &str) -> String {
    format!("/sys/kernel/mm/ksm/{name}")
}

fn set(name: &str, value: &str) -> Result<(), Stop> {
    fs::write(setting(name), value)
        .map_err(|e| Stop::Precondition(format!("no KSM: {}: {e}", setting(name))))
}

/// How often all mergeable memory was looked at.
fn scans() -> Result<u64, Stop> {
    let text = fs::read_to_string(setting("full_scans"))
        .map_err(|e| Stop::Broken(format!("{}: {e}", setting("full_scans"))))?;
    text.trim().parse().map_err(|e| Stop::Broken(format!("full_scans {text:?}: {e}")))
}

impl Merging {
    /// Turns merging on, without pauses; a precondition where there is none.
    pub(crate) fn on(disposable: bool) -> Result<Self, Stop> {
        if !disposable {
            return Err(Stop::Precondition("turns KSM on: only asked in a VM".into()));
        }
        set("sleep_millisecs", "0")?;
        set("pages_to_scan", "1000")?;
        set("run", "1")?;
        Ok(Self(()))
    }

    /// Waits until KSM has merged all of `pages`, or has looked at everything so often that it won't.
    /// Two scans do it where nothing is in the way: a page's checksum is taken in one, and compared in
    /// the next. How many pages are merged.
    pub(crate) fn settle(&self, pages: &[Range], patience: Duration) -> Result<usize, Stop> {
        const ENOUGH: u64 = 100;
        let deadline = Instant::now() + patience;
        let first = scans()?;
        loop {
            let mut merged = 0;
            for page in pages {
                merged += usize::from(is_merged(*page)?);
            }
            if merged == pages.len() || scans()? >= first + ENOUGH {
                return Ok(merged);
            }
            if Instant::now() > deadline {
                return Err(Stop::Hang("ksmd neither merges nor scans on".into()));
            }
            std::thread::yield_now();
        }
    }
}

impl Drop for Merging {
    fn drop(&mut self) {
        // What is merged stays so for as long as the case, which ends soon.
        let _ = set("run", "0");
    }
}

/// Whether the page at the start of `at` is one that KSM has merged: /proc/kpageflags.
fn is_merged(at: Range) -> Result<bool, Stop> {
    const KSM: u32 = 21;
    let entry = word("/proc/self/pagemap", at.start / PAGE)?;
    let present = entry >> 63 & 1 == 1;
    let frame = entry & ((1 << 55) - 1);
    let frame = usize::try_from(frame).unwrap_or(0);
    Ok(present && word("/proc/kpageflags", frame)? >> KSM & 1 == 1)
}

/// The entry number `n` of a file of 8-byte entries.
fn word(path: &str, n: usize) -> Result<u64, Stop> {
    let fail = |e: std::io::Error| Stop::Broken(format!("reading {path}: {e}"));
    let mut entry = [0; 8];
    File::open(path).map_err(fail)?.read_exact_at(&mut entry, n as u64 * 8).map_err(fail)?;
    Ok(u64::from_ne_bytes(entry))
}
