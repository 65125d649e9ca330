//! Reads a guest's console: what the kernel complains of, whether it went down, and the last lines.

use uffd_results::is_plain;

/// How much of the console is kept for messages.
const TAIL: usize = 8 << 10;

/// A longer line is looked at in pieces.
const LINE: usize = 4 << 10;

/// What was seen on a console.
#[derive(Debug, Default)]
pub(super) struct Console {
    line: Vec<u8>,
    tail: Vec<u8>,
    panic: Option<String>,
}

/// What ends a kernel under `oops=panic`.
const PANIC: &str = "Kernel panic - not syncing";

/// What the kernel says of itself when something is wrong, whether it goes on or not.
const COMPLAINTS: [&str; 11] = [
    PANIC,
    "BUG: ",
    "kernel BUG at ",
    "Oops: ",
    "general protection fault",
    "WARNING: ",
    "UBSAN: ",
    "KASAN: ",
    "blocked for more than",
    "detected stall",
    "PANIC: double fault",
];

impl Console {
    /// Takes the next bytes and returns the kernel's complaints in them, made printable.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Vec<String> {
        self.tail.extend(bytes);
        let spare = self.tail.len().saturating_sub(TAIL);
        self.tail.drain(..spare);
        let mut complaints = Vec::new();
        for &byte in bytes {
            if byte != b'\n' && self.line.len() < LINE {
                self.line.push(byte);
                continue;
            }
            let line = printable(&std::mem::take(&mut self.line));
            if let Some(complaint) = complaint(&line) {
                if complaint.contains(PANIC) && self.panic.is_none() {
                    self.panic = Some(complaint.clone());
                }
                complaints.push(complaint);
            }
        }
        complaints
    }

    /// The line with which the kernel went down.
    pub(super) fn panic(&self) -> Option<&str> {
        self.panic.as_deref()
    }

    /// The last lines, printable.
    pub(super) fn tail(&self) -> String {
        let lines: Vec<_> = self.tail.split(|&b| b == b'\n').map(printable).collect();
        lines.join("\n").trim().to_owned()
    }
}

/// Whether the panic says that PID 1 died: that is this program, and no fact of the kernel.
pub(super) fn is_own_fault(panic: &str) -> bool {
    panic.contains("Attempted to kill init") || panic.contains("No working init found")
}

fn complaint(line: &str) -> Option<String> {
    let at = COMPLAINTS.iter().any(|pattern| line.contains(pattern));
    at.then(|| without_addresses(without_stamp(line)))
}

/// One line without what a terminal would act upon; what is no UTF-8 is replaced.
fn printable(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    text.trim().replace(|c: char| !is_plain(c), " ")
}

/// Drops the time in front, `[    1.234567] `, and the process with `printk.caller=1`.
fn without_stamp(line: &str) -> &str {
    let mut rest = line;
    while let Some((_, behind)) = rest.strip_prefix('[').and_then(|r| r.split_once(']')) {
        rest = behind.trim_start();
    }
    rest
}

/// Addresses differ from boot to boot: with the layout's randomness taken out, equal ends read alike.
fn without_addresses(line: &str) -> String {
    let is_address = |word: &str| {
        let digits = word.strip_prefix("0x").unwrap_or(word);
        digits.len() >= 12 && digits.bytes().all(|b| b.is_ascii_hexdigit())
    };
    let mut out = String::new();
    for piece in line.split_inclusive(|c: char| !c.is_ascii_alphanumeric()) {
        let word = piece.trim_end_matches(|c: char| !c.is_ascii_alphanumeric());
        out.push_str(if is_address(word) { "ADDRESS" } else { word });
        out.push_str(&piece[word.len()..]);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("[    1.5] Kernel panic - not syncing: Fatal exception", true)]
    #[case("[    1.5] BUG: unable to handle page fault for address: ffff8880deadbeef", false)]
    #[case("[    1.5][  T31] kernel BUG at mm/userfaultfd.c:42!", false)]
    #[case("Oops: 0002 [#1] PREEMPT SMP NOPTI", false)]
    #[case("[    1.5] WARNING: CPU: 0 PID: 31 at mm/memory.c:77 x+0x1/0x2", false)]
    #[case("watchdog: BUG: soft lockup - CPU#0 stuck for 22s! [init:31]", false)]
    #[case("INFO: task init:31 blocked for more than 120 seconds.", false)]
    #[case("rcu: INFO: rcu_preempt self-detected stall on CPU", false)]
    fn complaints_are_found(#[case] line: &str, #[case] panic: bool) {
        let mut console = Console::default();
        let found = console.feed(format!("\u{1b}[2Jquiet\r\n{line}\r\nmore").as_bytes());
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(!found[0].starts_with('[') && !found[0].contains(char::is_control), "{found:?}");
        assert_eq!(console.panic().is_some(), panic);
    }

    #[rstest]
    #[case("[    0.1] Linux version 6.12 (debian) BUGS, WARNINGS")]
    #[case("systemd says: all is well")]
    #[case("")]
    fn other_lines_are_not(#[case] line: &str) {
        let mut console = Console::default();
        assert_eq!(console.feed(format!("{line}\n").as_bytes()), Vec::<String>::new());
    }

    #[test]
    fn lines_come_in_pieces() {
        let mut console = Console::default();
        assert!(console.feed(b"[ 1.0] Kernel pan").is_empty());
        assert!(console.panic().is_none());
        assert_eq!(console.feed(b"ic - not syncing: x\n"), ["Kernel panic - not syncing: x"]);
        assert_eq!(console.panic(), Some("Kernel panic - not syncing: x"));
    }

    #[rstest]
    #[case("address: ffff8880deadbeef", "address: ADDRESS")]
    #[case("RIP: 0010:0xffffffff81234567", "RIP: 0010:ADDRESS")]
    #[case("exitcode=0x0000000b", "exitcode=0x0000000b")]
    #[case("at mm/userfaultfd.c:42!", "at mm/userfaultfd.c:42!")]
    fn addresses_are_masked(#[case] line: &str, #[case] masked: &str) {
        assert_eq!(without_addresses(line), masked);
    }

    #[test]
    fn the_tail_is_bounded_and_printable() {
        let mut console = Console::default();
        for n in 0..5000 {
            console.feed(format!("line {n} \u{1b}[31m\u{202e}\u{0}\n").as_bytes());
        }
        let tail = console.tail();
        assert!(tail.len() <= TAIL && tail.ends_with("line 4999  [31m"), "{tail}");
        assert!(tail.chars().all(|c| c == '\n' || is_plain(c)));
        console.feed(&vec![b'x'; 1 << 20]);
        assert!(console.line.len() <= LINE);
    }
}
