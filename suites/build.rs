//! Gives the crate the hash of its own sources, which records carry as the suite's revision; and that of
//! the benchmarks', which ask nothing.

use std::fs;
use std::path::{Path, PathBuf};

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs" || e == "txt") && !is_test(&path) {
            found.push(path);
        }
    }
}

/// Tests ask the kernel nothing that a record holds.
fn is_test(path: &Path) -> bool {
    let is =
        |part: &Path| part.file_stem().is_some_and(|stem| stem == "tests" || stem == "testing");
    path.ancestors().any(is)
}

fn is_bench(path: &Path) -> bool {
    path.starts_with("src/bench") || path == Path::new("src/bench.rs")
}

/// FNV-1a, 64 bits: an identity, not a protection.
fn hash(files: &[&PathBuf]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for file in files {
        let name = file.to_string_lossy().into_owned().into_bytes();
        for byte in name.into_iter().chain(fs::read(file).unwrap_or_default()) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    hash
}

fn main() {
    let mut files = Vec::new();
    sources(Path::new("src"), &mut files);
    files.sort();
    let (benches, questions): (Vec<_>, Vec<_>) = files.iter().partition(|path| is_bench(path));
    println!("cargo::rustc-env=UFFD_SUITES_REVISION={:016x}", hash(&questions));
    println!("cargo::rustc-env=UFFD_BENCH_REVISION={:016x}", hash(&benches));
    println!("cargo::rerun-if-changed=src");
}
