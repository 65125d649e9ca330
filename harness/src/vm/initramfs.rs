//! The guest's file system: this program as `/init`, and the plan.

use super::cpio::Archive;
use super::error::VmError;
use super::plan::Plan;
use crate::arch::Arch;
use std::path::{Path, PathBuf};

/// Where a guest finds its plan.
pub(super) const PLAN: &str = "/plan";

/// A program that can be PID 1, without what only debuggers read.
pub(super) struct Program(Vec<u8>);

impl Program {
    /// Reads a program; without a path, the one that is running, even where its file was replaced.
    pub(super) fn load(path: Option<&Path>, arch: Arch) -> Result<Self, VmError> {
        if path.is_none() && !arch.is_own() {
            return Err(VmError::Foreign { arch: arch.word(), page_kib: arch.page_kib() });
        }
        let path = path.map_or_else(|| PathBuf::from("/proc/self/exe"), Path::to_path_buf);
        let bytes = std::fs::read(&path)
            .map_err(VmError::file(format!("reading the program {}", path.display())))?;
        match loadable_part(bytes, arch) {
            Ok(bytes) => Ok(Self(bytes)),
            Err(why) => {
                let program = std::fs::read_link(&path).unwrap_or(path);
                Err(VmError::Program { program, why: why.to_owned() })
            }
        }
    }

    /// The whole initramfs: the program, the plan and files of the caller's, by path.
    pub(super) fn initramfs(&self, plan: &Plan, files: &[(String, Vec<u8>)]) -> Vec<u8> {
        let mut archive = Archive::default();
        for directory in ["dev", "proc", "sys", "tmp"] {
            archive.directory(directory);
        }
        // The kernel opens the console for PID 1 before anything is mounted, and Rust's start-up
        // code opens null for any of the first three descriptors that is missing then.
        archive.device("dev/console", 5, 1);
        archive.device("dev/null", 1, 3);
        archive.file("init", 0o755, &self.0);
        for (path, data) in files {
            let path = path.trim_start_matches('/');
            for (end, _) in path.match_indices('/') {
                archive.directory(&path[..end]);
            }
            archive.file(path, 0o644, data);
        }
        archive.file(PLAN.trim_start_matches('/'), 0o644, plan.to_text().as_bytes());
        archive.finish()
    }
}

/// The part of a static ELF program that is ever loaded: symbols and debug information lie behind
/// it and make most of the file. Everything of the initramfs is copied twice in the guest.
fn loadable_part(mut elf: Vec<u8>, arch: Arch) -> Result<Vec<u8>, &'static str> {
    const LOAD: u32 = 1;
    const INTERPRETER: u32 = 3;
    const SHORT: &str = "its ELF headers are cut short";
    if !elf.starts_with(b"\x7fELF\x02\x01") {
        return Err("it is no 64-bit little-endian ELF file");
    }
    let size = |bytes: &[u8]| {
        let mut word = [0; 8];
        word[..bytes.len()].copy_from_slice(bytes);
        usize::try_from(u64::from_le_bytes(word)).ok()
    };
    let field = |at: usize, len: usize| elf.get(at..at.checked_add(len)?).and_then(size);
    if field(18, 2).ok_or(SHORT)? != usize::from(arch.elf()) {
        return Err("it is built for another architecture than the kernel");
    }
    let table = field(32, 8).ok_or(SHORT)?;
    let (entry_size, entries) = (field(54, 2).ok_or(SHORT)?, field(56, 2).ok_or(SHORT)?);
    let mut end = table.checked_add(entry_size * entries).ok_or(SHORT)?;
    if end > elf.len() || elf.len() < 64 || entry_size != 56 {
        return Err(SHORT);
    }
    for n in 0..entries {
        let header = table + n * entry_size;
        let kind = field(header, 4).ok_or(SHORT)?;
        if kind == INTERPRETER as usize {
            return Err("it is dynamically linked");
        }
        let (offset, len) =
            (field(header + 8, 8).ok_or(SHORT)?, field(header + 32, 8).ok_or(SHORT)?);
        if kind == LOAD as usize {
            end = end.max(offset.checked_add(len).ok_or(SHORT)?);
        }
    }
    if end > elf.len() {
        return Err(SHORT);
    }
    elf.truncate(end);
    // The section table is gone: its offset, entry count and name index must not point behind the end.
    elf[40..48].fill(0);
    elf[60..64].fill(0);
    Ok(elf)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    /// A file with the given program headers (kind, offset, size), `len` bytes long.
    fn elf(headers: &[(u32, u64, u64)], len: usize) -> Vec<u8> {
        let mut bytes = b"\x7fELF\x02\x01".to_vec();
        bytes.resize(64, 0);
        bytes[18] = 62;
        bytes[32..40].copy_from_slice(&64u64.to_le_bytes());
        bytes[40..48].copy_from_slice(&9999u64.to_le_bytes());
        bytes[54..56].copy_from_slice(&56u16.to_le_bytes());
        bytes[56..58].copy_from_slice(&u16::try_from(headers.len()).expect("few").to_le_bytes());
        for (kind, offset, size) in headers {
            let mut header = [0; 56];
            header[..4].copy_from_slice(&kind.to_le_bytes());
            header[8..16].copy_from_slice(&offset.to_le_bytes());
            header[32..40].copy_from_slice(&size.to_le_bytes());
            bytes.extend(header);
        }
        bytes.resize(len.max(bytes.len()), 7);
        bytes
    }

    #[test]
    fn what_lies_behind_the_segments_is_dropped() {
        let kept =
            loadable_part(elf(&[(1, 0, 300), (1, 300, 100)], 1000), Arch::X86).expect("static");
        assert_eq!((kept.len(), &kept[40..48], kept[399]), (400, &[0; 8][..], 7));
    }

    #[rstest]
    #[case(b"#!/bin/sh\n".to_vec(), "no 64-bit")]
    #[case({ let mut elf = elf(&[(1, 0, 300)], 300); elf[18] = 183; elf }, "another architecture")]
    #[case(elf(&[(1, 0, 300), (3, 10, 10)], 1000), "dynamically linked")]
    #[case(elf(&[(1, 0, 300)], 200), "cut short")]
    #[case(elf(&[(1, u64::MAX, 300)], 200), "cut short")]
    #[case(elf(&[], 0)[..40].to_vec(), "cut short")]
    fn an_unfit_program_is_refused(#[case] bytes: Vec<u8>, #[case] why: &str) {
        let error = loadable_part(bytes, Arch::X86).expect_err("refused");
        assert!(error.contains(why), "{error}");
    }

    #[test]
    fn every_cut_of_a_program_is_refused() {
        let whole = elf(&[(1, 0, 300)], 300);
        for cut in 0..whole.len() {
            assert!(loadable_part(whole[..cut].to_vec(), Arch::X86).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn a_kernel_of_another_architecture_needs_a_program() {
        let error = Program::load(None, Arch::Arm64 { page_kib: 16 }).err().expect("refused");
        let error = error.to_string();
        assert!(error.contains("arm64-program 16") && error.contains("--program"), "{error}");
    }

    #[test]
    fn this_program_is_fit() {
        let program = Program::load(None, Arch::X86).expect("tests are linked statically, too");
        let files = [("/lib/modules/kvm.ko".to_owned(), b"module".to_vec())];
        let image = program.initramfs(&Plan::default(), &files);
        assert!(image.len() > program.0.len());
        for name in [&b"lib/modules\0"[..], b"lib/modules/kvm.ko\0", b"plan\0", b"TRAILER!!!\0"] {
            assert!(image.windows(name.len()).any(|w| w == name));
        }
    }
}
