//! A thousand records that are wrong in as many ways, made from a stored one: each is refused with a
//! message or read correctly, none costs more than a second of CPU or 200 MB.
//!
//! What must hold of each stands in `uffd_results::holds`, which `fuzz/` calls too.

#[path = "shared/dice.rs"]
mod dice;

use dice::Dice;
use serde_json::{Value, json};
use std::alloc::{GlobalAlloc, Layout, System};
use std::fmt::{self, Write as _};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// The system's allocator, which also knows how much it gave at most.
struct Counting;

static NOW: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

fn took(bytes: usize) {
    let now = NOW.fetch_add(bytes, Ordering::Relaxed) + bytes;
    PEAK.fetch_max(now, Ordering::Relaxed);
}

// SAFETY: every call is passed on to the system's allocator as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        took(layout.size());
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// A way to spoil a record's text.
type Spoil = fn(&str, &mut Dice) -> Vec<u8>;

const SPOILS: [Spoil; 11] = [
    cut,
    bytes,
    lines_twice,
    lines_swapped,
    value,
    value,
    value,
    long,
    many,
    schema,
    repeated_case,
];

fn cut(text: &str, dice: &mut Dice) -> Vec<u8> {
    text.as_bytes()[..dice.below(text.len())].to_vec()
}

fn bytes(text: &str, dice: &mut Dice) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    for _ in 0..=dice.below(4) {
        let at = dice.below(bytes.len());
        let byte = *dice.one(b"\"\\{}[],:0e-\x00\x1b\x7f\x80\xff\n ");
        match dice.below(3) {
            0 => bytes[at] = byte,
            1 => bytes.insert(at, byte),
            _ => drop(bytes.remove(at)),
        }
    }
    bytes
}

fn lines_twice(text: &str, dice: &mut Dice) -> Vec<u8> {
    let mut lines: Vec<&str> = text.lines().collect();
    let from = dice.below(lines.len());
    let to = (from + 1 + dice.below(5)).min(lines.len());
    let copy = lines[from..to].to_vec();
    lines.splice(to..to, copy);
    lines.join("\n").into_bytes()
}

fn lines_swapped(text: &str, dice: &mut Dice) -> Vec<u8> {
    let mut lines: Vec<&str> = text.lines().collect();
    let (a, b) = (dice.below(lines.len()), dice.below(lines.len()));
    lines.swap(a, b);
    lines.join("\n").into_bytes()
}

/// Some value anywhere in it becomes one of another type, or one that should not be there.
fn value(text: &str, dice: &mut Dice) -> Vec<u8> {
    let mut root: Value = serde_json::from_str(text).expect("a stored record");
    let mut at = &mut root;
    loop {
        let members = match at {
            Value::Object(map) => map.len(),
            Value::Array(array) => array.len(),
            _ => 0,
        };
        if members == 0 || dice.below(5) == 0 {
            break;
        }
        let n = dice.below(members);
        at = match at {
            Value::Object(map) => map.values_mut().nth(n).expect("counted"),
            Value::Array(array) => &mut array[n],
            _ => break,
        };
    }
    *at = match dice.below(12) {
        0 => Value::Null,
        1 => json!(true),
        2 => json!(-1),
        3 => json!(u64::MAX),
        4 => json!(1e300),
        5 => json!([]),
        6 => json!({}),
        7 => json!("../../../etc/passwd"),
        8 => json!("\u{1b}]0;x\u{7}\u{202e}\u{9b}2J"),
        9 => json!("<script>alert(1)</script>"),
        10 => json!({"end": "hang", "detail": "\u{1b}[2J<b>"}),
        _ => json!("copy=0 copy=1"),
    };
    let text = root.to_string();
    let huge = ["9".repeat(4000), "1e999999999".into(), format!("-0.{}", "0".repeat(4000))];
    match dice.below(6) {
        0 => text.replacen(":1", &format!(":{}", dice.one(&huge)), 1).into_bytes(),
        _ => text.into_bytes(),
    }
}

fn long(text: &str, dice: &mut Dice) -> Vec<u8> {
    let words = ["x".repeat(1 << 20), "[".repeat(100_000), "{\"a\":".repeat(100_000)];
    let long = match dice.below(5) {
        0 => format!("\"{}\"", words[0]),
        1 => format!("\"{}\"", "\\u001b".repeat(600)),
        2 => format!("\"{}\"", joined(1500, |n| format!("a{n}=1 "))),
        3 => words[1].clone(),
        _ => words[2].clone(),
    };
    let quotes: Vec<usize> = text.match_indices('"').map(|(at, _)| at).collect();
    let at = dice.below(quotes.len() - 1);
    let (from, to) = (quotes[at], quotes[at + 1] + 1);
    format!("{}{long}{}", &text[..from], &text[to..]).into_bytes()
}

/// The texts of some numbers, one behind the other.
fn joined<T: fmt::Display>(n: usize, text: impl Fn(usize) -> T) -> String {
    let mut all = String::new();
    (0..n).try_for_each(|n| write!(all, "{}", text(n))).expect("memory");
    all
}

/// Many short things, of which each takes more memory than it has bytes.
fn many(text: &str, dice: &mut Dice) -> Vec<u8> {
    let n = *dice.one(&[20_000, 90_000, 180_000, 850_000]);
    let (head, tail) = text.split_once("\"cases\": {").expect("cases");
    let more = match dice.below(5) {
        0 => {
            let (before, after) = head.split_once("\"uffd_features\": [").expect("features");
            let features = "\"A\",".repeat(n);
            return format!("{before}\"uffd_features\": [{features}{after}\"cases\": {{{tail}")
                .into_bytes();
        }
        // One large outcome under many cases.
        1 => {
            let facts = joined(60, |n| format!("f{n}={} ", "v".repeat(60)));
            let cases = joined(n, |n| format!("\"a={n}\","));
            format!("\"x/y\": [{{\"outcome\": \"{facts}\", \"cases\": [{cases}\"a=last\"]}}],")
        }
        // Many outcomes of one probe.
        2 => {
            let cases = joined(n / 2, |n| format!("\"a={n}\":\"b={n}\","));
            format!("\"x/y\": {{{cases}\"a=last\": \"b=1\"}},")
        }
        // Many probes.
        3 => joined(n / 3, |n| format!("\"x/y{n}\":{{\"\":\"a=1\"}},")),
        // Many outcomes, each of as many facts as there may be.
        _ => {
            let facts = joined(64, |n| format!("{n}=1 "));
            let group = |n| format!("{{\"outcome\": \"{facts}x={n}\", \"cases\": [\"a={n}\"]}},");
            let last = "{\"outcome\": \"a=1\", \"cases\": [\"a=last\"]}";
            format!("\"x/y\": [{}{last}],", joined(n / 80, group))
        }
    };
    format!("{head}\"cases\": {{{more}{tail}").into_bytes()
}

fn schema(text: &str, dice: &mut Dice) -> Vec<u8> {
    let schema =
        dice.one(&["0", "1", "3", "99", "4294967296", "-1", "2.5", "\"2\"", "null", "[2]"]);
    text.replacen("\"schema\": 2", &format!("\"schema\": {schema}"), 1).into_bytes()
}

fn repeated_case(text: &str, dice: &mut Dice) -> Vec<u8> {
    let lines: Vec<&str> = text.lines().collect();
    let cases: Vec<usize> = (0..lines.len()).filter(|n| lines[*n].starts_with("  \"")).collect();
    let cases: Vec<usize> = cases.into_iter().filter(|n| lines[*n].contains('=')).collect();
    let (from, to) = (*dice.one(&cases), *dice.one(&cases));
    let id = lines[from].trim().trim_end_matches(['}', ']', ',']);
    let mut lines: Vec<String> = lines.into_iter().map(str::to_owned).collect();
    lines[to] = format!("  {id},\n{}", lines[to]);
    lines.join("\n").into_bytes()
}

/// CPU time of this thread: unlike a clock it does not count the work of others.
fn cpu() -> Option<Duration> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    Some(Duration::from_nanos(text.split(' ').next()?.parse().ok()?))
}

#[test]
fn a_thousand_wrong_records() {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../harness/tests/golden/records/x86_64/6.12/6.12.118+deb13-cloud-amd64.json"
    );
    let stored = std::fs::read_to_string(path).expect("a stored record");
    uffd_results::holds(stored.as_bytes()).expect("holds").expect("a record");
    let (mut dice, mut refused, mut read) = (Dice(0x5eed), 0, 0);
    for n in 0..1_000 {
        let kind = n % SPOILS.len();
        let spoilt = SPOILS[kind](&stored, &mut dice);
        let before = NOW.load(Ordering::Relaxed);
        PEAK.store(before, Ordering::Relaxed);
        let (clock, start) = (Instant::now(), cpu());
        let held = uffd_results::holds(&spoilt);
        let took = cpu()
            .zip(start)
            .map_or_else(|| clock.elapsed(), |(now, then)| now.saturating_sub(then));
        // What was there before is the file itself.
        let memory = spoilt.len() + PEAK.load(Ordering::Relaxed) - before;
        match held.unwrap_or_else(|why| panic!("number {n}, kind {kind}: {why}")) {
            Ok(_) => read += 1,
            Err(_) => refused += 1,
        }
        assert!(took < Duration::from_secs(1), "number {n}, kind {kind}: {took:?}");
        assert!(memory < 200_000_000, "number {n}, kind {kind}: {memory} bytes");
    }
    // Both ways are taken: a test that only refuses would pass with a reader that reads nothing.
    assert!(refused > 500 && read > 50, "{refused} refused, {read} read");
}
