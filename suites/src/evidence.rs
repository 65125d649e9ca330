//! What the kernel itself says of waiters and pages: fdinfo and /proc, never time.
//!
//! A wake-up takes the waiter off the context's queue inside the waking call, and fdinfo counts
//! that queue exactly. So one look after the call proves "woken" or "not woken".

use crate::abi::{Range, Uffd};
use crate::outcome::Stop;
use crate::touch;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::FileExt;

/// The fault queue of a context, from `/proc/self/fdinfo/<uffd>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queue {
    /// All waiters.
    pub total: u32,
    /// Waiters whose message nobody has read.
    pub pending: u32,
}

impl std::fmt::Display for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.total, self.pending)
    }
}

/// What /proc says of a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thread {
    /// State letter: `S` or `D` when it waits.
    pub state: u8,
    /// Times it was switched away from the CPU: it can't have run if this has not changed.
    pub switches: u64,
}

impl Thread {
    /// Whether it waits for something.
    pub const fn sleeps(self) -> bool {
        matches!(self.state, b'S' | b'D')
    }
}

/// Reads a file of /proc into `buffer`.
fn slurp<'a>(path: &str, buffer: &'a mut [u8]) -> Result<&'a str, Stop> {
    let fail = |e: &dyn std::fmt::Display| Stop::Broken(format!("reading {path}: {e}"));
    let n = File::open(path).and_then(|mut f| f.read(buffer)).map_err(|e| fail(&e))?;
    std::str::from_utf8(&buffer[..n]).map_err(|e| fail(&e))
}

/// The number behind `label` in a file with a `label: number` a line.
fn number(text: &str, label: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(label))?;
    line.trim().parse().ok()
}

/// The fault queue of `uffd`.
pub fn queue(uffd: &Uffd) -> Result<Queue, Stop> {
    let mut buffer = [0; 512];
    let path = format!("/proc/self/fdinfo/{}", uffd.as_fd().as_raw_fd());
    let text = slurp(&path, &mut buffer)?;
    parse_queue(text).ok_or_else(|| Stop::Broken(format!("{path} holds no pending and total")))
}

fn parse_queue(text: &str) -> Option<Queue> {
    let get = |label| number(text, label).and_then(|n| u32::try_from(n).ok());
    Some(Queue { total: get("total:")?, pending: get("pending:")? })
}

/// State and switches of a thread of this process.
pub fn thread(tid: i32) -> Result<Thread, Stop> {
    let mut buffer = [0; 4096];
    let path = format!("/proc/self/task/{tid}/status");
    let text = slurp(&path, &mut buffer)?;
    parse_thread(text).ok_or_else(|| Stop::Broken(format!("{path} holds no state and switches")))
}

fn parse_thread(text: &str) -> Option<Thread> {
    let state = text.lines().find_map(|line| line.strip_prefix("State:"))?;
    let switches =
        number(text, "voluntary_ctxt_switches:")? + number(text, "nonvoluntary_ctxt_switches:")?;
    Some(Thread { state: *state.trim().as_bytes().first()?, switches })
}

/// Whether a thread of this process is off the CPU: the kernel answers this file only after it has
/// seen the thread scheduled out (`wait_task_inactive`), and says `running` otherwise.
pub fn is_off_cpu(tid: i32) -> Result<bool, Stop> {
    let mut buffer = [0; 256];
    Ok(!slurp(&format!("/proc/self/task/{tid}/syscall"), &mut buffer)?.starts_with("running"))
}

/// How the mapping of each page looks to userfaultfd, one letter a page: `m` registered for missing
/// pages, `w` for write protection, `i` for minor faults (a capital letter for two modes and more:
/// `W` m+w, `I` m+i, `X` any other), `.` mapped without, `-` a hole.
pub fn registration(windows: &[(Range, usize)]) -> Result<Vec<String>, Stop> {
    let mut text = String::with_capacity(32 * 1024);
    let fail = |e| Stop::Broken(format!("reading /proc/self/smaps: {e}"));
    let mut file = File::open("/proc/self/smaps").map_err(fail)?;
    file.read_to_string(&mut text).map_err(fail)?;
    Ok(parse_registration(&text, windows))
}

fn parse_registration(smaps: &str, windows: &[(Range, usize)]) -> Vec<String> {
    let mut letters: Vec<Vec<u8>> =
        windows.iter().map(|(range, page)| vec![b'-'; range.len / page]).collect();
    let mut current = (0, 0);
    for line in smaps.lines() {
        if let Some(flags) = line.strip_prefix("VmFlags:") {
            let letter = letter(flags);
            for ((range, page), letters) in windows.iter().zip(&mut letters) {
                for (i, slot) in letters.iter_mut().enumerate() {
                    let at = range.start + i * page;
                    if current.0 <= at && at < current.1 {
                        *slot = letter;
                    }
                }
            }
        } else if line
            .as_bytes()
            .first()
            .is_some_and(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(b))
        {
            current = parse_head(line).unwrap_or(current);
        }
    }
    letters.into_iter().map(|l| String::from_utf8_lossy(&l).into_owned()).collect()
}

/// How many mappings of this process overlap `range`.
pub fn mappings_in(range: Range) -> Result<usize, Stop> {
    let text = std::fs::read_to_string("/proc/self/maps")
        .map_err(|e| Stop::Broken(format!("reading /proc/self/maps: {e}")))?;
    let overlaps = |(start, end): &(usize, usize)| *start < range.end() && range.start < *end;
    Ok(text.lines().filter_map(parse_head).filter(overlaps).count())
}

/// `start-end` of a mapping's first line.
fn parse_head(line: &str) -> Option<(usize, usize)> {
    let (start, end) = line.split_ascii_whitespace().next()?.split_once('-')?;
    Some((usize::from_str_radix(start, 16).ok()?, usize::from_str_radix(end, 16).ok()?))
}

fn letter(flags: &str) -> u8 {
    let has = |flag| flags.split_ascii_whitespace().any(|f| f == flag);
    match (has("um"), has("uw"), has("ui")) {
        (false, false, false) => b'.',
        (true, false, false) => b'm',
        (false, true, false) => b'w',
        (false, false, true) => b'i',
        (true, true, false) => b'W',
        (true, false, true) => b'I',
        _ => b'X',
    }
}

/// What each page holds, one letter a page: `-` no mapping or nothing present (see
/// [`registration`] for which), else the letter of its content, `!` if it can't be read. Only
/// present pages are loaded from, so the look never faults into the kernel's queue.
pub fn pages(range: Range, page: usize, letter: &dyn Fn(u64) -> char) -> Result<String, Stop> {
    let fail = |e| Stop::Broken(format!("reading /proc/self/pagemap: {e}"));
    let file = File::open("/proc/self/pagemap").map_err(fail)?;
    let mut out = String::with_capacity(range.len / page);
    for at in (range.start..range.end()).step_by(page) {
        let mut entry = [0; 8];
        file.read_exact_at(&mut entry, (at / crate::memory::PAGE * 8) as u64).map_err(fail)?;
        let present = u64::from_ne_bytes(entry) >> 63 == 1;
        out.push(if present { touch::load(at).map_or('!', letter) } else { '-' });
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[test]
    fn reads_fdinfo() {
        let text =
            "pos:\t0\nflags:\t02004002\nmnt_id:\t15\npending:\t1\ntotal:\t2\nAPI:\taa:1ffff:7f\n";
        assert_eq!(parse_queue(text), Some(Queue { total: 2, pending: 1 }));
        assert_eq!(parse_queue("pending:\t1\n"), None);
    }

    #[test]
    fn reads_status() {
        let text = "Name:\tx\nState:\tS (sleeping)\nvoluntary_ctxt_switches:\t7\nnonvoluntary_ctxt_switches:\t2\n";
        assert_eq!(parse_thread(text), Some(Thread { state: b'S', switches: 9 }));
        assert_eq!(parse_thread("State:\tR (running)\n"), None);
    }

    #[rstest]
    #[case(" rd wr mr mw me ac um sd", b'm')]
    #[case(" rd wr um uw", b'W')]
    #[case(" rd wr ui", b'i')]
    #[case(" rd wr", b'.')]
    fn reads_vm_flags(#[case] flags: &str, #[case] expected: u8) {
        assert_eq!(letter(flags), expected);
    }

    #[test]
    fn registration_is_read_page_by_page() {
        let smaps = "10000-12000 rw-p 00000000 00:00 0 \nSize: 8 kB\nVmFlags: rd wr um \n\
                     13000-14000 rw-p 00000000 00:00 0 \nVmFlags: rd wr \n";
        let window = Range { start: 0x10000, len: 0x5000 };
        assert_eq!(parse_registration(smaps, &[(window, 0x1000)]), ["mm-.-"]);
    }
}
