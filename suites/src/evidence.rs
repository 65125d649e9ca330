//! What the kernel itself says of waiters and pages: fdinfo and /proc, never time.
//!
//! A wake-up takes the waiter off the context's queue inside the waking call, and fdinfo counts
//! that queue exactly. So one look after the call proves "woken" or "not woken".

mod smaps;

pub use smaps::{Mapping, registration};

use crate::abi::{Range, Uffd};
use crate::memory::{PAGE, tag};
use crate::outcome::Stop;
use crate::touch;
use std::fs::File;
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
    /// Whether it waits for something: nothing has woken it.
    pub asleep: bool,
    /// Times it was switched away from the CPU: it can't have run if this has not changed.
    pub runs: u64,
}

/// A file of /proc that is read again and again: its text is made anew at each read from its start.
#[derive(Debug)]
struct ProcFile {
    path: String,
    file: File,
}

impl ProcFile {
    fn open(path: String) -> Result<Self, Stop> {
        match File::open(&path) {
            Ok(file) => Ok(Self { path, file }),
            Err(e) if e.kind() == std::io::ErrorKind::PermissionDenied => {
                Err(Stop::Denied(format!("opening {path}: {e}: needs leave to trace its process")))
            }
            Err(e) => Err(Stop::Broken(format!("opening {path}: {e}"))),
        }
    }

    fn read<'a>(&self, buffer: &'a mut [u8]) -> Result<&'a str, Stop> {
        let fail = |e: &dyn std::fmt::Display| Stop::Broken(format!("reading {}: {e}", self.path));
        let n = self.file.read_at(buffer, 0).map_err(|e| fail(&e))?;
        std::str::from_utf8(&buffer[..n]).map_err(|e| fail(&e))
    }
}

/// The number behind `label` in a file with a `label: number` a line.
fn number(text: &str, label: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(label))?;
    line.trim().parse().ok()
}

/// The fault queue of a context, to be looked at several times. Holds no reference to the context.
#[derive(Debug)]
pub struct QueueFile(ProcFile);

impl QueueFile {
    /// Of `uffd`.
    pub fn open(uffd: &Uffd) -> Result<Self, Stop> {
        ProcFile::open(format!("/proc/self/fdinfo/{}", uffd.as_fd().as_raw_fd())).map(Self)
    }

    /// Of the context behind descriptor `fd` of the process `pid`.
    pub fn of_process(pid: i32, fd: i32) -> Result<Self, Stop> {
        ProcFile::open(format!("/proc/{pid}/fdinfo/{fd}")).map(Self)
    }

    /// A line of the file, without its label.
    pub fn line(&self, label: &str) -> Result<String, Stop> {
        let mut buffer = [0; 512];
        let text = self.0.read(&mut buffer)?;
        let line = text.lines().find_map(|line| line.strip_prefix(label));
        line.map(|value| value.trim().to_owned())
            .ok_or_else(|| Stop::Broken(format!("{} holds no {label}", self.0.path)))
    }

    /// One look.
    pub fn read(&self) -> Result<Queue, Stop> {
        let mut buffer = [0; 512];
        let queue = parse_queue(self.0.read(&mut buffer)?);
        queue.ok_or_else(|| Stop::Broken(format!("{} holds no pending and total", self.0.path)))
    }
}

fn parse_queue(text: &str) -> Option<Queue> {
    let get = |label| number(text, label).and_then(|n| u32::try_from(n).ok());
    Some(Queue { total: get("total:")?, pending: get("pending:")? })
}

/// What /proc says of one thread of this process, to be looked at several times.
#[derive(Debug)]
pub struct ThreadFile {
    status: ProcFile,
    syscall: ProcFile,
}

impl ThreadFile {
    /// Of the thread `tid`. A thread's directory can be had by its id alone, which spares the kernel
    /// making those above it, and taking them down again when the case ends.
    pub fn open(tid: i32) -> Result<Self, Stop> {
        Self::of_directory(&format!("/proc/{tid}"))
    }

    /// Of the first thread of another process.
    pub fn of_process(pid: i32) -> Result<Self, Stop> {
        Self::of_directory(&format!("/proc/{pid}/task/{pid}"))
    }

    fn of_directory(directory: &str) -> Result<Self, Stop> {
        let open = |name| ProcFile::open(format!("{directory}/{name}"));
        Ok(Self { status: open("status")?, syscall: open("syscall")? })
    }

    /// How often it ran, once it sleeps off the CPU; none while it does not. One that is being woken for
    /// another CPU is off its own, and only its state tells.
    pub fn asleep(&self) -> Result<Option<Thread>, Stop> {
        if !self.is_off_cpu()? {
            return Ok(None);
        }
        Ok(Some(self.read()?).filter(|thread| thread.asleep))
    }

    /// Whether it sleeps, and how often it ran.
    pub fn read(&self) -> Result<Thread, Stop> {
        self.status(parse_thread)
    }

    /// Its state's letter, as ps(1) shows it: `D` is a sleep that only a deadly signal ends.
    pub fn state(&self) -> Result<char, Stop> {
        self.status(parse_state)
    }

    fn status<T>(&self, parse: fn(&str) -> Option<T>) -> Result<T, Stop> {
        // A case faults in each page of its stack that it comes to.
        const SHORT: usize = 2048;
        let mut buffer = [0; SHORT];
        let text = self.status.read(&mut buffer)?;
        let parsed = if text.len() < SHORT { parse(text) } else { self.long_status(parse)? };
        parsed
            .ok_or_else(|| Stop::Broken(format!("{} lacks what it should hold", self.status.path)))
    }

    /// The same where there is more to say, as of thousands of CPUs.
    #[inline(never)]
    fn long_status<T>(&self, parse: fn(&str) -> Option<T>) -> Result<Option<T>, Stop> {
        let mut long = vec![0; 64 << 10];
        Ok(parse(self.status.read(&mut long)?))
    }

    /// The number of the system call that the thread is in, once it is off the CPU.
    pub fn call(&self) -> Result<Option<i64>, Stop> {
        let mut buffer = [0; 256];
        let text = self.syscall.read(&mut buffer)?;
        Ok(text.split_ascii_whitespace().next().and_then(|word| word.parse().ok()))
    }

    /// Whether the thread is off the CPU: the kernel answers this file only after it has seen the
    /// thread scheduled out (`wait_task_inactive`), and says `running` otherwise.
    pub fn is_off_cpu(&self) -> Result<bool, Stop> {
        let mut buffer = [0; 256];
        Ok(!self.syscall.read(&mut buffer)?.starts_with("running"))
    }
}

/// CPU time that a thread of this process has used in the kernel, in clock ticks.
pub(crate) fn system_time(tid: i32) -> Result<u64, Stop> {
    stat(tid, 12)
}

/// Page faults of a thread of this process that needed no I/O. The kernel counts each time round for one
/// that does not get past its fault, but not those that park.
pub(crate) fn minor_faults(tid: i32) -> Result<u64, Stop> {
    stat(tid, 7)
}

/// A number of `/proc/self/task/TID/stat`, counted from the state, which is 0 (`stime` is field 15 of proc(5)).
fn stat(tid: i32, number: usize) -> Result<u64, Stop> {
    let path = format!("/proc/self/task/{tid}/stat");
    let text =
        std::fs::read_to_string(&path).map_err(|e| Stop::Broken(format!("reading {path}: {e}")))?;
    // The name in brackets may hold spaces.
    let found =
        text.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(number)?.parse().ok());
    found.ok_or_else(|| Stop::Broken(format!("{path} holds no number {number} behind its name")))
}

/// The state stands near the head of the file, the switches near its end, with some fifty lines between them
/// that a case need not go through.
fn parse_thread(text: &str) -> Option<Thread> {
    let last = |label: &str| {
        let rest = &text[text.rfind(label)? + label.len()..];
        rest.split('\n').next()?.trim().parse::<u64>().ok()
    };
    let runs = last("\nvoluntary_ctxt_switches:")? + last("\nnonvoluntary_ctxt_switches:")?;
    Some(Thread { asleep: matches!(parse_state(text)?, 'S' | 'D'), runs })
}

fn parse_state(text: &str) -> Option<char> {
    text.lines().find_map(|line| line.strip_prefix("State:"))?.trim().chars().next()
}

/// How many mappings of this process overlap `range`.
pub fn mappings_in(range: Range) -> Result<usize, Stop> {
    let text = std::fs::read_to_string("/proc/self/maps")
        .map_err(|e| Stop::Broken(format!("reading /proc/self/maps: {e}")))?;
    let overlaps = |(start, end): &(usize, usize)| *start < range.end() && range.start < *end;
    Ok(text.lines().filter_map(parse_head).filter(overlaps).count())
}

/// `start-end` of a mapping's first line.
pub(crate) fn parse_head(line: &str) -> Option<(usize, usize)> {
    let (start, end) = line.split_ascii_whitespace().next()?.split_once('-')?;
    Some((usize::from_str_radix(start, 16).ok()?, usize::from_str_radix(end, 16).ok()?))
}

/// What each page holds, one letter a page: `-` no mapping or nothing present (see
/// [`registration`] for which), else the letter of its content, `!` if it can't be read, `x` if a huge page
/// begins so and does not go on as it should. Only present pages are loaded from, so the look never faults
/// into the kernel's queue.
pub fn pages(range: Range, page: usize, letter: &dyn Fn(u64) -> char) -> Result<String, Stop> {
    let entries = page_table("self", range, page)?;
    let show = |(n, entry): (usize, u64)| {
        if !is_present(entry) {
            return Ok('-');
        }
        let whole = Range { start: range.start + n * page, len: page };
        Ok(match touch::load(whole.start) {
            Err(_) => '!',
            Ok(head) if page == PAGE || goes_on(whole, head)? => letter(head),
            Ok(_) => 'x',
        })
    };
    entries.into_iter().enumerate().map(show).collect()
}

const fn is_present(entry: u64) -> bool {
    entry >> 63 == 1
}

/// Whether the base pages of a huge page behind its first, as far as they are present, go on as its head says: all
/// of a COPY's source begin alike, and what is else stored is stored to the first.
///
/// What no case stores comes from a file of another kind, whose pages are not alike.
fn goes_on(whole: Range, head: u64) -> Result<bool, Stop> {
    if !matches!(head, tag::ZERO | tag::COPIED | tag::KEPT | tag::NEW | tag::WROTE) {
        return Ok(true);
    }
    let rest = Range { start: whole.start + PAGE, len: whole.len - PAGE };
    let mut seen = None;
    for (n, entry) in page_table("self", rest, PAGE)?.into_iter().enumerate() {
        if is_present(entry) {
            match touch::load(rest.start + n * PAGE) {
                Ok(value) if seen.is_none_or(|before| before == value) => seen = Some(value),
                _ => return Ok(false),
            }
        }
    }
    Ok(follows(head, seen))
}

/// Whether `rest`, which all other base pages of a huge page begin with, can stand behind `head`. Whoever stores to
/// the head of a page leaves the rest as the page was brought.
const fn follows(head: u64, rest: Option<u64>) -> bool {
    match rest {
        None => true,
        Some(rest) => match head {
            tag::COPIED | tag::ZERO => rest == head,
            _ => rest == tag::ZERO || rest == tag::COPIED,
        },
    }
}

/// Pages whose entries are read in one call.
const AT_ONCE: usize = 16;

/// What /proc/PID/pagemap says of each page of `process` ("self" or a pid); the first entry of each if pages
/// are huge.
fn page_table(process: &str, range: Range, page: usize) -> Result<Vec<u64>, Stop> {
    let fail = |e| Stop::Broken(format!("reading /proc/{process}/pagemap: {e}"));
    let file = File::open(format!("/proc/{process}/pagemap")).map_err(fail)?;
    let pages = range.len / page;
    let mut entries = Vec::with_capacity(pages);
    let mut raw = [[0; 8]; AT_ONCE];
    while entries.len() < pages {
        let at = range.start + entries.len() * page;
        let wanted = if page == PAGE { AT_ONCE.min(pages - entries.len()) } else { 1 };
        let chunk = raw[..wanted].as_flattened_mut();
        file.read_exact_at(chunk, (at / PAGE * 8) as u64).map_err(fail)?;
        entries.extend(raw[..wanted].iter().map(|entry| u64::from_ne_bytes(*entry)));
    }
    Ok(entries)
}

/// How the page table of `process` ("self" or a pid) holds each page, one letter a page: `p` present,
/// `w` present and write-protected through userfaultfd (bit 57, shown since 5.14), `n` not present but marked
/// as protected, `s` any other entry of what is not present (swapped out, poisoned), `-` nothing.
pub fn entries(process: &str, range: Range, page: usize) -> Result<String, Stop> {
    Ok(page_table(process, range, page)?.into_iter().map(entry_letter).collect())
}

/// Whether each page of the range is this process's alone: bit 56 of /proc/self/pagemap (4.2 brought it).
pub fn alone(range: Range) -> Result<Vec<bool>, Stop> {
    Ok(page_table("self", range, PAGE)?.into_iter().map(|entry| entry >> 56 & 1 == 1).collect())
}

fn entry_letter(entry: u64) -> char {
    let bit = |n: u32| entry >> n & 1 == 1;
    match (bit(63), bit(57), bit(62)) {
        (true, true, _) => 'w',
        (true, false, _) => 'p',
        (false, true, _) => 'n',
        (false, false, true) => 's',
        (false, false, false) => '-',
    }
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

    #[rstest]
    #[case("S (sleeping)", true)]
    #[case("D (disk sleep)", true)]
    // What is being woken is shown as running.
    #[case("R (running)", false)]
    #[case("T (stopped)", false)]
    fn reads_status(#[case] state: &str, #[case] asleep: bool) {
        let text = format!(
            "Name:\tx\nState:\t{state}\nPid:\t3\nvoluntary_ctxt_switches:\t7\n\
             nonvoluntary_ctxt_switches:\t2\nx86_Thread_features:\t\n"
        );
        assert_eq!(parse_thread(&text), Some(Thread { asleep, runs: 9 }));
        assert_eq!(parse_thread("State:\tR (running)\n"), None);
    }

    #[rstest]
    #[case(0, '-')]
    #[case(1 << 63, 'p')]
    #[case(1 << 63 | 1 << 57, 'w')]
    #[case(1 << 62 | 1 << 57, 'n')]
    #[case(1 << 62, 's')]
    fn page_table_entries_have_letters(#[case] entry: u64, #[case] expected: char) {
        assert_eq!(entry_letter(entry), expected);
    }

    #[rstest]
    #[case(tag::COPIED, tag::COPIED, true)]
    #[case(tag::COPIED, tag::ZERO, false)]
    #[case(tag::ZERO, tag::COPIED, false)]
    #[case(tag::WROTE, tag::COPIED, true)]
    #[case(tag::KEPT, tag::ZERO, true)]
    #[case(tag::KEPT, tag::NEW, false)]
    fn a_huge_page_goes_on_as_it_begins(#[case] head: u64, #[case] rest: u64, #[case] ok: bool) {
        assert_eq!(follows(head, Some(rest)), ok);
        assert!(follows(head, None));
    }
}
