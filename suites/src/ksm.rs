//! KSM's merging for one case, in a VM of ours: it is one switch of the whole machine.

use crate::abi::Range;
use crate::memory::PAGE;
use crate::outcome::Stop;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

/// Merging that is on until this is dropped.
#[derive(Debug)]
pub(crate) struct Merging {
    /// The number of scans when it was turned on.
    first: u64,
}

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
    /// Turns merging on, without pauses and without leaving pages out that did not merge the last time;
    /// a precondition where there is none. Memory should be mergeable before, so that every scan
    /// sees all of it.
    pub(crate) fn on() -> Result<Self, Stop> {
        set("sleep_millisecs", "0")?;
        set("pages_to_scan", "1000")?;
        // Since 6.7.
        let _ = set("smart_scan", "0");
        let first = scans()?;
        set("run", "1")?;
        Ok(Self { first })
    }

    /// Waits until two pages are one, or everything was looked at so often that they won't be. Two scans
    /// do it where nothing is in the way: a page's checksum is taken in one, and compared in the next.
    pub(crate) fn settle(&self, pages: [Range; 2], patience: Duration) -> Result<bool, Stop> {
        const ENOUGH: u64 = 100;
        let deadline = Instant::now() + patience;
        loop {
            // Read before the pages are, so that the last look comes after the last scan.
            let done = scans()? >= self.first + ENOUGH;
            if let [Some(one), Some(two)] = [merged(pages[0])?, merged(pages[1])?]
                && one == two
            {
                return Ok(true);
            }
            if done {
                return Ok(false);
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

/// The frame of the page at the start of `at`, if KSM has merged it: /proc/kpageflags.
fn merged(at: Range) -> Result<Option<usize>, Stop> {
    const KSM: u32 = 21;
    let entry = word("/proc/self/pagemap", at.start / PAGE)?;
    let present = entry >> 63 & 1 == 1;
    let frame = usize::try_from(entry & ((1 << 55) - 1)).unwrap_or(0);
    let is_merged = present && word("/proc/kpageflags", frame)? >> KSM & 1 == 1;
    Ok(is_merged.then_some(frame))
}

/// The entry number `n` of a file of 8-byte entries.
fn word(path: &str, n: usize) -> Result<u64, Stop> {
    let fail = |e: std::io::Error| Stop::Broken(format!("reading {path}: {e}"));
    let mut entry = [0; 8];
    File::open(path).map_err(fail)?.read_exact_at(&mut entry, n as u64 * 8).map_err(fail)?;
    Ok(u64::from_ne_bytes(entry))
}
