//! Every parser of what comes from elsewhere, over its seeds and thousands of cheap changes of them: the
//! functions that the fuzz targets call, so that what was mended stays so without a fuzzer.

#[path = "../../results/tests/shared/dice.rs"]
mod dice;

use dice::Dice;
use std::collections::BTreeSet;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use uffd_harness::foreign::{PARSERS, Parser};

/// Changed seeds a parser.
const CHANGES: usize = 10_000;

/// The longest that is tried.
const LONGEST: usize = 32 << 10;

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz")
}

/// The files of a folder by name, with what they hold.
fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut files: Vec<_> = entries
        .map(|entry| entry.expect("an entry").path())
        .map(|path| {
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            (name, fs::read(path).expect("readable"))
        })
        .collect();
    files.sort();
    files
}

impl Dice {
    /// A range of some bytes.
    fn range(&mut self, bytes: &[u8]) -> std::ops::Range<usize> {
        let (a, b) = (self.below(bytes.len() + 1), self.below(bytes.len() + 1));
        a.min(b)..a.max(b)
    }
}

/// What is put between other bytes: what readers take for marks, and what terminals act upon.
const PIECES: [&[u8]; 22] = [
    b"\0",
    b"\x01",
    b"\n",
    b"\r\n",
    b" ",
    b"\t",
    b"\"",
    b"\\",
    b"..",
    b"../",
    b"/",
    b"[",
    b"{",
    b"=",
    b"-1",
    b"0",
    b"99999999999999999999",
    b"\x1b[2J",
    b"\xe2\x80\xae",
    b"\xff\xff\xff\xff",
    b"*",
    b"(",
];

fn changed(seeds: &[(String, Vec<u8>)], dice: &mut Dice) -> Vec<u8> {
    let mut bytes = dice.one(seeds).1.clone();
    for _ in 0..=dice.below(4) {
        let at = dice.below(bytes.len() + 1);
        match dice.below(7) {
            0 if at < bytes.len() => bytes[at] ^= 1 << dice.below(8),
            1 if at < bytes.len() => bytes[at] = u8::try_from(dice.below(256)).expect("a byte"),
            2 => bytes.truncate(at),
            3 => drop(bytes.drain(dice.range(&bytes.clone()))),
            4 => {
                let piece = *dice.one(&PIECES);
                bytes.splice(at..at, piece.iter().copied());
            }
            5 => {
                let piece = bytes[dice.range(&bytes)].to_vec();
                bytes.splice(at..at, piece);
            }
            _ => {
                let other = &dice.one(seeds).1;
                let piece = other[dice.range(other)].to_vec();
                bytes.splice(at..at, piece);
            }
        }
        bytes.truncate(LONGEST);
    }
    bytes
}

/// CPU time of this thread: unlike a clock it does not count the work of others.
fn cpu() -> Option<Duration> {
    let text = fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    Some(Duration::from_nanos(text.split(' ').next()?.parse().ok()?))
}

/// Whether the bytes were taken; a panic tells which they were.
fn look(parser: &Parser, name: &str, bytes: &[u8]) -> bool {
    let (clock, start) = (Instant::now(), cpu());
    let held = catch_unwind(AssertUnwindSafe(|| (parser.holds)(bytes)));
    let took =
        cpu().zip(start).map_or_else(|| clock.elapsed(), |(now, then)| now.saturating_sub(then));
    let shown = || format!("{}, {name}: {}", parser.name, bytes.escape_ascii());
    // Many times what it takes.
    assert!(took < Duration::from_secs(10), "{took:?} for {}", shown());
    match held {
        Ok(Ok(taken)) => taken,
        Ok(Err(why)) => panic!("{why}\nof {}", shown()),
        Err(panic) => {
            eprintln!("it panicked on {}", shown());
            resume_unwind(panic)
        }
    }
}

#[test]
fn spoilt_seeds_are_refused_or_read_right_by_every_parser() {
    for parser in PARSERS {
        let seeds = files(&fuzz().join("corpus-seeds").join(parser.name));
        let found = files(&fuzz().join("found").join(parser.name));
        assert!(!seeds.is_empty(), "{} has no seeds", parser.name);
        for (name, bytes) in &seeds {
            assert!(look(parser, name, bytes), "{} does not take {name}", parser.name);
        }
        for (name, bytes) in &found {
            look(parser, name, bytes);
        }
        let (mut dice, mut taken) = (Dice(0x5eed), 0);
        for n in 0..CHANGES {
            taken += usize::from(look(parser, &n.to_string(), &changed(&seeds, &mut dice)));
        }
        // Both ways are taken: a test that only refuses would pass with a reader that reads nothing.
        let refused = CHANGES - taken;
        println!("{}: {taken} taken, {refused} refused", parser.name);
        assert!(taken > 20 && refused > 20, "{}: {taken} taken, {refused} refused", parser.name);
    }
    let status = fs::read_to_string("/proc/self/status").expect("own status");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
    let peak: u64 = peak.trim().trim_end_matches(" kB").parse().expect("a number");
    assert!(peak < 1 << 20, "{peak} kB at most");
}

#[test]
fn every_parser_has_a_fuzz_target() {
    let names: BTreeSet<&str> = PARSERS.iter().map(|parser| parser.name).collect();
    let manifest = fs::read_to_string(fuzz().join("Cargo.toml")).expect("readable");
    let manifest: toml::Table = toml::from_str(&manifest).expect("a manifest");
    let targets = manifest["bin"].as_array().expect("targets");
    let targets: BTreeSet<&str> =
        targets.iter().map(|target| target["name"].as_str().expect("a name")).collect();
    assert_eq!(targets, names);
    for name in names {
        let path = fuzz().join("fuzz_targets").join(format!("{name}.rs"));
        let text = fs::read_to_string(&path).expect("a target");
        assert!(text.contains(&format!("uffd_fuzz::target!(\"{name}\");")), "{}", path.display());
    }
}
