//! QEMU: finds it, builds its command line, starts it, reads what its guest says.
//!
//! Console and frames come through files and not through pipes: the guest never waits for a reader,
//! and what it wrote is there however it ended.

use super::accel::Accelerator;
use super::error::VmError;
use super::image;
use super::initramfs::Program;
use super::machine::{Ending, Launcher, Machine};
use super::plan::Plan;
use super::session::Options;
use super::wire;
use crate::arch::Arch;
use crate::children;
use crate::files;
use crate::scratch::{self, Scratch};
use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, Once, PoisonError};

/// Beginning of the names of folders with a VM's files.
pub(super) const PREFIX: &str = "uffd-conform-machine-";

/// The kernel's command line. Quiet, no self-tests of ciphers (0.3 to 0.8 s) and no check of a timer
/// that is late under emulation; an oops ends the machine; the first file system is ramfs, so that a
/// mapping of the program is one of a plain file. Other options that were tried (nokaslr, acpi=off,
/// pci=off, tsc=reliable, lsm=, audit=0, nowatchdog, another machine type) stay within the noise, and
/// init_on_alloc=0 would make it another kernel than the one that is used.
const COMMAND_LINE: &str = "quiet panic=-1 oops=panic no_timer_check cryptomgr.notests \
                            rootfstype=ramfs";

/// More of it under emulation, which looks up each indirect jump and each repetition of a string
/// instruction: without return thunks and retpolines, and with pages cleared by plain stores (112 is
/// X86_FEATURE_REP_GOOD), a case runs a sixth fewer of the pieces that code is translated in. Noise and tests
/// for ciphers and names for tracing, which nobody asks for here, and taking out the lock prefixes that one
/// CPU does not need, are a sixth of a boot.
const EMULATED: &str = " mitigations=off clearcpuid=112 noreplace-smp \
                        initcall_blacklist=jent_mod_init,trace_eval_init,crypto_kdf108_init";

/// The same for arm64, whose command line knows none of x86's own words.
const EMULATED_ARM64: &str = " mitigations=off initcall_blacklist=jent_mod_init,trace_eval_init";

/// Finds QEMU: the given path, or the usual name in PATH.
pub(super) fn find(given: Option<&Path>, arch: Arch) -> Result<PathBuf, VmError> {
    let (usual, package) = arch.qemu();
    let name = given.unwrap_or_else(|| Path::new(usual));
    if name.components().count() > 1 {
        return Ok(name.to_owned());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|directory| directory.join(name))
        .find(|file| file.is_file())
        .ok_or_else(|| VmError::NoQemu(name.display().to_string(), package))
}

/// QEMU's version, for example `7.2.22`.
pub fn version(given: Option<&Path>) -> Result<String, VmError> {
    let qemu = find(given, Arch::X86)?;
    let start_error = |error| VmError::QemuStart(qemu.clone(), error);
    let output = Command::new(&qemu).arg("--version").output().map_err(start_error)?;
    let text = String::from_utf8_lossy(&output.stdout);
    let version =
        text.split_once("QEMU emulator version ").and_then(|(_, v)| v.split_whitespace().next());
    version.map(str::to_owned).ok_or_else(|| {
        start_error(io::Error::other(format!("--version said {:?}", text.lines().next())))
    })
}

/// The files of one VM.
struct Files {
    directory: Scratch,
}

impl Files {
    fn new() -> Result<Self, VmError> {
        static CLEANED: Once = Once::new();
        let parent = std::env::temp_dir();
        CLEANED.call_once(|| scratch::clean(&parent, PREFIX));
        let made = Scratch::new(PREFIX, &parent);
        let making = || format!("making a directory in {}", parent.display());
        Ok(Self { directory: made.map_err(VmError::file(making()))? })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<PathBuf, VmError> {
        let path = self.path(name);
        let written = std::fs::write(&path, bytes);
        written.map_err(VmError::file(format!("writing {}", path.display())))?;
        Ok(path)
    }

    fn create(&self, name: &str) -> Result<File, VmError> {
        let path = self.path(name);
        let made = File::options().read(true).write(true).create(true).truncate(true).open(&path);
        made.map_err(VmError::file(format!("making {}", path.display())))
    }

    /// The memory that guest and host share. Its room is taken at once: what a guest writes where there is
    /// none kills QEMU.
    fn shared(&self) -> Result<File, VmError> {
        let file = self.create("wire")?;
        let taken =
            match fallocate(&file, FallocateFlags::empty(), 0, wire::SHARED_SIZE.cast_signed()) {
                // Not every file system can.
                Err(Errno::EOPNOTSUPP) => file.set_len(wire::SHARED_SIZE),
                taken => taken.map_err(io::Error::from),
            };
        let place = self.path("wire");
        taken.map_err(VmError::file(format!("making room in {}", place.display())))?;
        Ok(file)
    }
}

/// Starts QEMU with one kernel.
pub(super) struct Qemu<'a> {
    binary: PathBuf,
    image: &'a Path,
    program: Program,
    accelerator: &'a Accelerator,
    options: &'a Options,
    /// Of what is booted, from the first boot on at the latest.
    image_sha256: Option<String>,
}

impl<'a> Qemu<'a> {
    pub(super) fn new(
        image: &'a Path,
        accelerator: &'a Accelerator,
        options: &'a Options,
    ) -> Result<Self, VmError> {
        let program = Program::load(options.program.as_deref(), options.arch)?;
        let binary = find(options.qemu.as_deref(), options.arch)?;
        let image_sha256 = options.image_sha256.clone();
        Ok(Self { binary, image, program, accelerator, options, image_sha256 })
    }

    /// The file to be booted: the kernel unpacked, where that works. One that does not come up this way gets
    /// the way that firmware takes.
    ///
    /// It is unpacked for each boot, and not kept for another that is rarely needed; with one at a time,
    /// so that VMs side by side don't take 70 MB each for it. What is booted is a file of the VM's own in any case:
    /// the image may be replaced at any moment, by whoever builds it.
    fn kernel(&mut self, files: &Files, barren: u32) -> Result<PathBuf, VmError> {
        static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
        let turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let image = std::fs::read(self.image)
            .map_err(|error| VmError::Image(self.image.to_owned(), error))?;
        self.check(&image)?;
        let unpacked = Some(&image).filter(|_| barren < 2).and_then(|i| image::unpacked(i));
        let kernel = files.write("kernel", unpacked.as_ref().unwrap_or(&image))?;
        drop(turn);
        Ok(kernel)
    }

    /// Checks that these bytes are the image that was identified.
    fn check(&mut self, image: &[u8]) -> Result<(), VmError> {
        let path = || self.image.to_owned();
        let (now, _) = files::sha256(image).map_err(|error| VmError::Image(path(), error))?;
        match &self.image_sha256 {
            Some(was) if *was != now => {
                Err(VmError::Changed { image: path(), was: was.clone(), now })
            }
            _ => {
                self.image_sha256 = Some(now);
                Ok(())
            }
        }
    }

    fn command(&self, files: &Files, kernel: &Path) -> Command {
        let Options { arch, memory_mib, cpus, huge_pages, counts_instructions, append, .. } =
            self.options;
        let (console, emulated, sizes) = match arch {
            Arch::X86 if self.accelerator.is_kvm() => ("ttyS0", "", ""),
            Arch::X86 => ("ttyS0", EMULATED, ""),
            // With larger base pages the usual huge page is larger as well.
            Arch::Arm64 { .. } => {
                ("ttyAMA0", EMULATED_ARM64, " default_hugepagesz=2M hugepagesz=2M")
            }
        };
        let mut kernel_line =
            format!("console={console} {COMMAND_LINE}{emulated}{sizes} hugepages={huge_pages}");
        for word in append {
            kernel_line.push(' ');
            kernel_line.push_str(word);
        }
        let mut command = machine(&self.binary, *arch, self.accelerator);
        if *counts_instructions {
            // Idle guests don't sleep: their clock goes to the next timer at once.
            command.args(["-icount", "shift=0,sleep=off"]);
        }
        command.args(["-smp", &cpus.to_string(), "-m", &memory_mib.to_string()]);
        command.arg("-kernel").arg(kernel).arg("-initrd").arg(files.path("initramfs"));
        command.args(["-append", &kernel_line]);
        command.arg("-chardev").arg(file_device("console", &files.path("console")));
        command.args(["-serial", "chardev:console"]);
        // The other machine has one port, and PCI in every kernel.
        if *arch == Arch::X86 {
            command.arg("-chardev").arg(file_device("serial", &files.path("serial")));
            command.args(["-serial", "chardev:serial"]);
        }
        let mut memory = std::ffi::OsString::from("memory-backend-file,id=wire,share=on,size=");
        memory.push(format!("{},mem-path=", wire::SHARED_SIZE));
        memory.push(doubled_commas(&files.path("wire")));
        command.arg("-object").arg(memory);
        command.args(["-device", "ivshmem-plain,memdev=wire"]);
        command
    }
}

/// QEMU without anything that a default or a user's file would add.
pub(super) fn machine(qemu: &Path, arch: Arch, accelerator: &Accelerator) -> Command {
    let mut command = Command::new(qemu);
    match arch {
        Arch::X86 => command.args(["-M", "pc", "-cpu", accelerator.cpu()]),
        // It has all three page sizes, and no signed pointers, which are slow to emulate.
        Arch::Arm64 { .. } => command.args(["-M", "virt", "-cpu", "cortex-a76"]),
    };
    command.args(["-accel", accelerator.word()]);
    command.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]);
    command
}

/// Starts `command` so that it can't outlive this thread.
pub(super) fn start(mut command: Command, errors: File) -> Result<Child, VmError> {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(errors);
    let program = PathBuf::from(command.get_program());
    children::bind(&mut command).spawn().map_err(|error| VmError::QemuStart(program, error))
}

/// A comma ends a value in QEMU's options, two stand for one.
fn doubled_commas(path: &Path) -> std::ffi::OsString {
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    let double = |&byte: &u8| std::iter::repeat_n(byte, if byte == b',' { 2 } else { 1 });
    std::ffi::OsString::from_vec(path.as_os_str().as_bytes().iter().flat_map(double).collect())
}

fn file_device(id: &str, path: &Path) -> std::ffi::OsString {
    let mut device = std::ffi::OsString::from(format!("file,id={id},path="));
    device.push(doubled_commas(path));
    device
}

impl Launcher for Qemu<'_> {
    fn launch(&mut self, plan: &Plan, barren: u32) -> Result<Box<dyn Machine>, VmError> {
        let files = Files::new()?;
        files.write("initramfs", &self.program.initramfs(plan, &self.options.files))?;
        let kernel = self.kernel(&files, barren)?;
        let (console, serial) = (files.create("console")?, files.create("serial")?);
        let (shared, errors) = (files.shared()?, files.create("errors")?);
        let own_errors = errors.try_clone().map_err(VmError::file("keeping QEMU's errors"))?;
        let child = start(self.command(&files, &kernel), own_errors)?;
        Ok(Box::new(Running {
            child,
            console: Reader::new(console),
            serial: Reader::new(serial),
            shared: Reader::new(shared),
            errors,
            files: Some(files),
        }))
    }
}

/// Reads a file that grows.
struct Reader {
    file: File,
    at: u64,
    buffer: Vec<u8>,
}

impl Reader {
    fn new(file: File) -> Self {
        // Small: the wire's file has its whole length from the start, so each look copies a buffer of it.
        Self { file, at: 0, buffer: vec![0; 4 << 10] }
    }

    /// Appends what is new. With `until_nul`, a NUL is where nothing was written yet.
    fn read(&mut self, out: &mut Vec<u8>, until_nul: bool) -> io::Result<()> {
        loop {
            let mut new = self.file.read_at(&mut self.buffer, self.at)?;
            let full = new == self.buffer.len();
            if until_nul {
                new = self.buffer[..new].iter().position(|&b| b == 0).unwrap_or(new);
            }
            out.extend_from_slice(&self.buffer[..new]);
            self.at += new as u64;
            if !full || new < self.buffer.len() {
                return Ok(());
            }
        }
    }
}

/// A running QEMU.
struct Running {
    child: Child,
    console: Reader,
    serial: Reader,
    shared: Reader,
    errors: File,
    /// Until the guest has spoken: QEMU has opened everything then.
    files: Option<Files>,
}

impl Machine for Running {
    fn poll(&mut self, console: &mut Vec<u8>, frames: &mut Vec<u8>) -> io::Result<Option<Ending>> {
        // The exit is asked for before the files are read: what was written before it is then seen.
        let exit = self.child.try_wait()?;
        self.console.read(console, false)?;
        self.serial.read(frames, false)?;
        self.shared.read(frames, true)?;
        if !(console.is_empty() && frames.is_empty()) {
            // Names are needed no longer, and nothing stays behind if this process is killed.
            self.files = None;
        }
        let Some(status) = exit else { return Ok(None) };
        // The end of them says why it ended.
        let mut errors = vec![0; 2000];
        let behind = self.errors.metadata()?.len().saturating_sub(errors.len() as u64);
        let len = self.errors.read_at(&mut errors, behind)?;
        Ok(Some(ending(status, &String::from_utf8_lossy(&errors[..len]))))
    }
}

/// How QEMU ended, by its status and the end of what it wrote to standard error.
fn ending(status: ExitStatus, errors: &str) -> Ending {
    let how = match status.signal() {
        Some(signal) => format!("QEMU died of signal {signal}"),
        None => format!("QEMU ended with status {}", status.code().unwrap_or_default()),
    };
    let errors = errors.trim().replace('\n', " / ");
    let how = if errors.is_empty() { how } else { format!("{how}: {errors}") };
    // Told to stop by SIGTERM, SIGINT or SIGHUP it says so, and ends as well as when its guest turns itself off.
    let told_to_stop = errors.contains("terminating on signal");
    Ending { how, by_guest: status.success() && !told_to_stop }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Fails only if it has ended, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
#[path = "qemu_tests.rs"]
mod tests;
