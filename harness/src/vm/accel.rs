//! The accelerator: KVM where it has proved itself, else emulation (TCG).
//!
//! That /dev/kvm opens says little: inside some virtual machines it does and guests die or hang. So a
//! guest must have run before records rely on it, first one of a few instructions, then the kernel
//! itself.

use super::error::VmError;
use super::plan::Plan;
use super::qemu::{self, Qemu};
use super::session::{self, Limits, Options};
use crate::scratch::Scratch;
use std::fs::File;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

/// What the caller wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// KVM if it works, else TCG.
    #[default]
    Auto,
    /// Emulation.
    Tcg,
    /// KVM or nothing.
    Kvm,
}

/// What guests are run with, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accelerator {
    kvm: bool,
    /// Why it is this one.
    pub why: String,
}

impl Accelerator {
    /// The word of QEMU and of records: `kvm` or `tcg`.
    pub fn word(&self) -> &'static str {
        if self.kvm { "kvm" } else { "tcg" }
    }

    /// Whether guests run on the CPU itself.
    pub(super) const fn is_kvm(&self) -> bool {
        self.kvm
    }

    /// The CPU model. Emulated boots fail more often with `max`; where KVM can't pass the host's CPU
    /// on, QEMU says so at once, while with a model a kernel may hang until the deadline.
    pub(super) fn cpu(&self) -> &'static str {
        if self.kvm { "host" } else { "qemu64" }
    }

    fn tcg(why: impl Into<String>) -> Self {
        Self { kvm: false, why: why.into() }
    }

    fn kvm(why: impl Into<String>) -> Self {
        Self { kvm: true, why: why.into() }
    }
}

/// Chooses, with a proof for KVM that is made once a process.
pub fn choose(image: &Path, options: &Options) -> Result<&'static Accelerator, VmError> {
    static TCG: OnceLock<Accelerator> = OnceLock::new();
    static KVM: OnceLock<Accelerator> = OnceLock::new();
    if !options.arch.is_own() && options.accelerator == Choice::Kvm {
        let why = "the kernel is for another architecture than this machine";
        return Err(VmError::Kvm(why.into()));
    }
    if options.accelerator == Choice::Tcg || !options.arch.is_own() {
        return Ok(TCG.get_or_init(|| Accelerator::tcg("asked for")));
    }
    let chosen = KVM.get_or_init(|| match proof(image, options) {
        Ok(()) => Accelerator::kvm("a kernel booted under it"),
        Err(why) => Accelerator::tcg(why),
    });
    if options.accelerator == Choice::Kvm && !chosen.kvm {
        return Err(VmError::Kvm(chosen.why.clone()));
    }
    Ok(chosen)
}

/// Why KVM can't be used, if so.
fn proof(image: &Path, options: &Options) -> Result<(), String> {
    File::options()
        .read(true)
        .write(true)
        .open("/dev/kvm")
        .map_err(|error| format!("/dev/kvm can't be opened ({error})"))?;
    let accelerator = Accelerator::kvm("to be proved");
    few_instructions(&accelerator, options)?;
    let limits =
        Limits { boot: Duration::from_secs(10), barren_boots: 1, boots: 1, ..options.limits };
    let mut launcher =
        Qemu::new(image, &accelerator, options).map_err(|error| error.to_string())?;
    let plan = Plan::default();
    match session::run(&mut launcher, image, &plan, limits, &AtomicBool::new(false), &mut |_| ()) {
        Ok(report) if report.lost.is_empty() => Ok(()),
        Ok(report) => Err(format!("under KVM a kernel came up and {}", report.lost[0].why)),
        Err(VmError::NoBoot { why, .. }) => Err(format!("under KVM a kernel does not boot: {why}")),
        Err(error) => Err(error.to_string()),
    }
}

/// What the first guest writes to its serial port.
const SIGN: u8 = b'K';

/// A firmware that writes [`SIGN`] to the first serial port and stops: it starts at its last 16
/// bytes, `mov dx, 0x3f8; mov al, SIGN; out dx, al; cli; hlt` and a jump back to the `hlt`.
fn firmware() -> Vec<u8> {
    let code = [0xba, 0xf8, 0x03, 0xb0, SIGN, 0xee, 0xfa, 0xf4, 0xeb, 0xfd];
    let mut rom = vec![0xf4; 64 << 10];
    let start = rom.len() - 16;
    rom[start..start + code.len()].copy_from_slice(&code);
    rom
}

/// Has a guest of a few instructions run, which takes no more than a second to refuse.
fn few_instructions(accelerator: &Accelerator, options: &Options) -> Result<(), String> {
    let error = |error: std::io::Error| format!("KVM can't be tried: {error}");
    let directory = Scratch::new(qemu::PREFIX, &std::env::temp_dir()).map_err(error)?;
    let path = |name: &str| directory.path().join(name);
    std::fs::write(path("firmware"), firmware()).map_err(error)?;
    let errors = File::create(path("errors")).map_err(error)?;
    let qemu = qemu::find(options.qemu.as_deref(), options.arch).map_err(|e| e.to_string())?;
    let mut command = qemu::machine(&qemu, options.arch, accelerator);
    command.current_dir(directory.path()).args(["-m", "16", "-bios", "firmware"]);
    command.args(["-serial", "file:serial"]);
    let mut child = qemu::start(command, errors).map_err(|e| e.to_string())?;
    // An emulator that a test asks for is not judged by how fast it is.
    let patience = Duration::from_secs(if accelerator.is_kvm() { 2 } else { 60 });
    let started = Instant::now();
    let result = loop {
        if std::fs::read(path("serial")).is_ok_and(|said| said.contains(&SIGN)) {
            break Ok(());
        }
        if let Ok(Some(status)) = child.try_wait() {
            let errors = std::fs::read_to_string(path("errors")).unwrap_or_default();
            let first = errors.lines().next().unwrap_or("no message").to_owned();
            break Err(format!("under KVM the smallest guest ends QEMU ({status}; {first})"));
        }
        if started.elapsed() > patience {
            let seconds = patience.as_secs();
            break Err(format!("under KVM the smallest guest does nothing for {seconds} s"));
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    // Both fail only if it has ended.
    let _ = child.kill();
    let _ = child.wait();
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arch::Arch;

    #[test]
    fn the_firmware_runs_under_emulation() {
        if qemu::find(None, Arch::X86).is_err() {
            eprintln!("not run: there is no QEMU here");
            return;
        }
        let options = Options::default();
        assert_eq!(few_instructions(&Accelerator::tcg("test"), &options), Ok(()));
    }

    #[test]
    fn what_is_asked_for_is_not_proved() {
        let options = Options { accelerator: Choice::Tcg, ..Options::default() };
        let chosen = choose(Path::new("/nowhere"), &options).expect("no machine is needed");
        assert_eq!((chosen.word(), chosen.why.as_str()), ("tcg", "asked for"));
    }
}
