//! What the tests of the command share.

#![allow(dead_code, reason = "each test program uses its own part of it")]

pub(crate) mod frame;
pub(crate) mod releases;
pub(crate) mod seccomp;

use serde_json::Value;
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

pub(crate) fn conform() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_uffd-conform"));
    command.env_remove("UFFD_CONFORM_RESULTS").env("NO_COLOR", "1");
    command
}

/// The boot image that tests of VMs boot. Such tests are shown as ignored unless they are asked for: none may pass
/// without having asked.
pub(crate) fn kernel() -> PathBuf {
    let named = std::env::var_os("UFFD_TEST_KERNEL").map(PathBuf::from);
    named.expect(
        "UFFD_TEST_KERNEL names a vmlinuz, as `uffd-conform kernels --fetch 6.12` prints it",
    )
}

pub(crate) fn run(arguments: &[&str]) -> Output {
    conform().args(arguments).output().expect("the command starts")
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Checks the exit code and that standard error says `words`, and not by a panic.
pub(crate) fn refused(output: &Output, words: &[&str]) {
    let error = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{error}");
    assert!(!error.contains("panicked"), "{error}");
    for word in words {
        assert!(error.contains(word), "{word:?} is not in: {error}");
    }
}

/// The outcomes of a JSON Lines run by case id.
pub(crate) fn outcomes(output: &Output) -> BTreeMap<String, Value> {
    let lines = text(&output.stdout);
    let lines = lines.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let cases = lines.filter(|line| line["type"] == "case");
    cases.map(|case| (case["id"].as_str().expect("an id").to_owned(), case)).collect()
}

/// A copy of the program in `folder` that every user may execute: nobody may not read the place
/// of the build.
pub(crate) fn program_for_everybody(folder: &Path) -> PathBuf {
    let program = folder.join("uffd-conform");
    // By another process: a child of a neighbouring test would inherit the open copy, and a program
    // that is open for writing can't be executed.
    let mut copy = Command::new("cp");
    let copied = copy.arg(env!("CARGO_BIN_EXE_uffd-conform")).arg(&program).status();
    assert!(copied.is_ok_and(|status| status.success()), "copying to {}", program.display());
    set_mode(&program, 0o755);
    set_mode(folder, 0o755);
    program
}

/// Lets root's command run as nobody, without groups and so without capabilities.
pub(crate) fn nobody(command: &mut Command) -> &mut Command {
    if nix::unistd::geteuid().is_root() {
        command.gid(65534).uid(65534);
    }
    command.current_dir("/").env_remove("UFFD_CONFORM_RESULTS").env("NO_COLOR", "1")
}

pub(crate) fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).expect("its mode");
}
