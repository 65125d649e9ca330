//! /proc/self/smaps: what the kernel says of each mapping of this process.
//!
//! The kernel makes the text of a mapping when it is read, and walks the mapping's page tables for it: a small
//! buffer, and no read behind the last mapping that is wanted, leave the costly rest unmade.

use super::parse_head;
use crate::abi::Range;
use crate::outcome::Stop;
use std::fs::File;
use std::io::Read;
use std::ops::ControlFlow;

/// Goes through the file a line at a time, for as long as `each` goes on.
fn lines(mut each: impl FnMut(&[u8]) -> ControlFlow<()>) -> Result<(), Stop> {
    let fail = |e| Stop::Broken(format!("reading /proc/self/smaps: {e}"));
    let mut file = File::open("/proc/self/smaps").map_err(fail)?;
    let mut text = Vec::with_capacity(1024);
    let mut chunk = [0; 512];
    loop {
        let n = file.read(&mut chunk).map_err(fail)?;
        text.extend_from_slice(&chunk[..n]);
        let mut start = 0;
        while let Some(len) = text[start..].iter().position(|b| *b == b'\n') {
            if each(&text[start..start + len]).is_break() {
                return Ok(());
            }
            start += len + 1;
        }
        text.drain(..start);
        if n == 0 {
            return Ok(());
        }
    }
}

/// The addresses of the mapping whose first line this is; each other line begins with a capital letter.
fn head(line: &[u8]) -> Option<(usize, usize)> {
    let first = line.first()?;
    if !first.is_ascii_digit() && !(b'a'..=b'f').contains(first) {
        return None;
    }
    parse_head(std::str::from_utf8(line).ok()?)
}

/// How the mapping of each page looks to userfaultfd, one letter a page: `m` registered for missing
/// pages, `w` for write protection, `i` for minor faults, `r` for protection against all access (a
/// capital letter for two modes and more: `W` m+w, `I` m+i, `R` m+r, `X` any other), `.` mapped
/// without, `-` a hole.
pub fn registration(windows: &[(Range, usize)]) -> Result<Vec<String>, Stop> {
    let end = windows.iter().map(|(range, _)| range.end()).max().unwrap_or(0);
    let mut rows = Rows::new(windows);
    lines(|line| {
        rows.line(line);
        if rows.current.0 >= end { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    Ok(rows.finish())
}

/// The lines of one mapping.
#[derive(Debug)]
pub struct Mapping(String);

impl Mapping {
    /// Of the mapping that holds `address`, if there is one.
    pub fn at(address: usize) -> Result<Option<Self>, Stop> {
        let mut found = None;
        lines(|line| {
            if let Some((start, end)) = head(line) {
                // They stand in order.
                if found.is_some() || start > address {
                    return ControlFlow::Break(());
                }
                found = (address < end).then(String::new);
            } else if let Some(text) = &mut found {
                text.push_str(&String::from_utf8_lossy(line));
                text.push('\n');
            }
            ControlFlow::Continue(())
        })?;
        Ok(found.map(Self))
    }

    fn value(&self, field: &str) -> Option<&str> {
        self.0.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':')).map(str::trim)
    }

    /// The kilobytes that `field` says.
    pub fn kilobytes(&self, field: &str) -> Option<u64> {
        self.value(field)?.split_whitespace().next()?.parse().ok()
    }

    /// The flags that are userfaultfd's: `um+uw`, or `none`.
    pub fn flags(&self) -> Option<String> {
        let flags = self.value("VmFlags")?.split(' ');
        let ours: Vec<_> = flags.filter(|flag| flag.starts_with('u')).collect();
        Some(if ours.is_empty() { "none".to_owned() } else { ours.join("+") })
    }
}

/// The letters of windows, from one line after the other.
struct Rows<'a> {
    windows: &'a [(Range, usize)],
    letters: Vec<Vec<u8>>,
    current: (usize, usize),
}

impl<'a> Rows<'a> {
    fn new(windows: &'a [(Range, usize)]) -> Self {
        let letters = windows.iter().map(|(range, page)| vec![b'-'; range.len / page]).collect();
        Self { windows, letters, current: (0, 0) }
    }

    fn line(&mut self, line: &[u8]) {
        if let Some(flags) = line.strip_prefix(b"VmFlags:") {
            let letter = letter(flags);
            for ((range, page), letters) in self.windows.iter().zip(&mut self.letters) {
                for (i, slot) in letters.iter_mut().enumerate() {
                    let at = range.start + i * page;
                    if self.current.0 <= at && at < self.current.1 {
                        *slot = letter;
                    }
                }
            }
        } else if let Some(current) = head(line) {
            self.current = current;
        }
    }

    fn finish(self) -> Vec<String> {
        self.letters.into_iter().map(|l| String::from_utf8_lossy(&l).into_owned()).collect()
    }
}

fn letter(flags: &[u8]) -> u8 {
    let has = |flag: &[u8]| flags.split(|b| *b == b' ').any(|f| f == flag);
    match (has(b"um"), has(b"uw"), has(b"ui"), has(b"ur")) {
        (false, false, false, false) => b'.',
        (true, false, false, false) => b'm',
        (false, true, false, false) => b'w',
        (false, false, true, false) => b'i',
        (false, false, false, true) => b'r',
        (true, true, false, false) => b'W',
        (true, false, true, false) => b'I',
        (true, false, false, true) => b'R',
        _ => b'X',
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(" rd wr mr mw me ac um sd", b'm')]
    #[case(" rd wr um uw", b'W')]
    #[case(" rd wr ui", b'i')]
    #[case(" rd wr ur", b'r')]
    #[case(" rd wr um ur", b'R')]
    #[case(" rd wr", b'.')]
    fn reads_vm_flags(#[case] flags: &str, #[case] expected: u8) {
        assert_eq!(letter(flags.as_bytes()), expected);
    }

    #[test]
    fn registration_is_read_page_by_page() {
        let smaps = "10000-12000 rw-p 00000000 00:00 0 \nSize: 8 kB\nVmFlags: rd wr um \n\
                     13000-14000 rw-p 00000000 00:00 0 \nVmFlags: rd wr \n";
        let window = Range { start: 0x10000, len: 0x5000 };
        let windows = [(window, 0x1000)];
        let mut rows = Rows::new(&windows);
        smaps.lines().for_each(|line| rows.line(line.as_bytes()));
        assert_eq!(rows.finish(), ["mm-.-"]);
    }

    #[test]
    fn a_mapping_says_what_is_asked() {
        let text = "Size:   8 kB\nAnonHugePages:  2048 kB\nVmFlags: rd wr um uw \n";
        let mapping = Mapping(text.to_owned());
        assert_eq!(mapping.kilobytes("AnonHugePages"), Some(2048));
        assert_eq!((mapping.kilobytes("Anon"), mapping.kilobytes("Rss")), (None, None));
        assert_eq!(mapping.flags().as_deref(), Some("um+uw"));
        assert_eq!(Mapping("VmFlags: rd \n".to_owned()).flags().as_deref(), Some("none"));
    }

    #[test]
    fn the_mapping_of_an_address_is_found() {
        let here = std::ptr::from_ref(&BYTE).addr();
        let mapping = Mapping::at(here).expect("smaps").expect("a mapping");
        assert!(mapping.kilobytes("Size").is_some_and(|size| size > 0), "{mapping:?}");
        assert_eq!(mapping.flags().as_deref(), Some("none"));
        assert!(Mapping::at(16).expect("smaps").is_none());
    }

    static BYTE: u8 = 1;
}
