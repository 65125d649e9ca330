//! What can go wrong around a VM that is no statement about its kernel.

use crate::interrupt::Interrupted;
use std::io;
use std::path::PathBuf;
use uffd_results::printable;

/// Why no VM could be run.
#[derive(Debug, thiserror::Error)]
pub enum VmError {
    /// No QEMU on this machine.
    #[error(
        "no {0} was found in PATH, and kernels are booted in it: install it \
         (Debian: apt install {1}), or add its folder to PATH"
    )]
    NoQemu(String, &'static str),
    /// QEMU is there and does not run.
    #[error("{0} can't be started ({1}): check that it is QEMU and may be executed")]
    QemuStart(PathBuf, io::Error),
    /// The boot image can't be read.
    #[error("the kernel image {0} can't be read ({1}): give a readable vmlinuz")]
    Image(PathBuf, io::Error),
    /// The program that is to be PID 1 is not fit for it.
    #[error(
        "{program} can't be PID 1 of a VM: {why}; build uffd-conform statically, as the project's \
         .cargo/config.toml does, or for arm64 by scripts/arm64-program"
    )]
    Program {
        /// Which program.
        program: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The kernel is for another architecture than this program.
    #[error(
        "the kernel is for {arch} with pages of {page_kib} KiB, and this program is not: build it by \
         `scripts/arm64-program {page_kib}` and name what that has built with --program"
    )]
    Foreign {
        /// The kernel's architecture, as `uname -m` has it.
        arch: &'static str,
        /// The size of its pages.
        page_kib: u32,
    },
    /// A file of the VM can't be made or read.
    #[error(
        "{what} failed ({error}): a VM keeps its files there, see that it is writable and not full"
    )]
    File {
        /// What was tried, and on which file.
        what: String,
        /// Why it failed.
        error: io::Error,
    },
    /// The plan can't be written down.
    #[error("the list of cases can't be handed to a VM: {0}")]
    Plan(String),
    /// The boot image is not the one any more that was identified.
    #[error(
        "{image} has changed since the run began (its SHA-256 was {was} and is {now}), and what another kernel says \
         would be taken for its answers: ask again when nothing writes to it"
    )]
    Changed {
        /// The kernel image.
        image: PathBuf,
        /// Its SHA-256 when it was identified.
        was: String,
        /// That of what is there now.
        now: String,
    },
    /// Two VMs of one kernel don't say the same of themselves, so their answers make no record.
    #[error(
        "two VMs of one kernel say different things of themselves ({0}), so their answers make no record: see that \
         neither the kernel's image nor uffd-conform is replaced meanwhile, and ask again"
    )]
    Unlike(String),
    /// Another VM of the same run has failed in a way that leaves nothing to be asked.
    #[error("another VM of this run has failed")]
    Stopped,
    /// Not one of several boots got as far as the guest's first word.
    #[error(
        "{image} did not come up in {boots} boots; the last one: {why}. If the machine is busy, try \
         again; a kernel of your own needs initramfs, devtmpfs and the 8250 console built in, and every \
         kernel memory to come up in. {}", last_words(.console)
    )]
    NoBoot {
        /// The kernel image.
        image: PathBuf,
        /// How often it was tried.
        boots: u32,
        /// What became of the last one.
        why: String,
        /// What its console said last.
        console: String,
    },
    /// This process was told to stop.
    #[error(transparent)]
    Interrupted(#[from] Interrupted),
    /// KVM was asked for and is not to be had.
    #[error(
        "KVM was asked for, but {0}: use `--accelerator tcg`, or `auto`, which takes KVM only where it works"
    )]
    Kvm(String),
}

/// The end of a console, of which there may be none.
fn last_words(console: &str) -> String {
    match console.trim_end() {
        "" => "Its console said nothing".to_owned(),
        said => format!("The console's end:\n{said}"),
    }
}

impl VmError {
    /// In a line that can stand with a case that was not run.
    pub(super) fn brief(&self) -> String {
        match self {
            Self::NoBoot { boots, why, .. } => {
                printable(&format!("no VM came up in {boots} boots; the last one: {why}"))
            }
            error => printable(&error.to_string()),
        }
    }

    pub(super) fn file(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |error| Self::File { what, error }
    }
}
