//! Loads and stores that survive whatever they meet.
//!
//! Each is one instruction with a known address. A handler for SIGSEGV and SIGBUS sends the thread
//! from there to a common exit that returns the signal; at any other address the default action
//! follows, so a bug of ours still kills the case.

use crate::abi::Range;
use std::arch::global_asm;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};

#[cfg(target_arch = "x86_64")]
global_asm!(
    ".globl uffd_touch_load",
    "uffd_touch_load:",
    "mov rax, [rdi]",
    "mov [rsi], rax",
    "xor eax, eax",
    "ret",
    ".globl uffd_touch_store",
    "uffd_touch_store:",
    "mov [rdi], rsi",
    "xor eax, eax",
    "ret",
    ".globl uffd_touch_exit",
    "uffd_touch_exit:",
    "mov rax, rdx",
    "ret",
);

#[cfg(target_arch = "aarch64")]
global_asm!(
    ".globl uffd_touch_load",
    "uffd_touch_load:",
    "ldr x2, [x0]",
    "str x2, [x1]",
    "mov x0, #0",
    "ret",
    ".globl uffd_touch_store",
    "uffd_touch_store:",
    "str x1, [x0]",
    "mov x0, #0",
    "ret",
    ".globl uffd_touch_exit",
    "uffd_touch_exit:",
    "mov x0, x2",
    "ret",
);

unsafe extern "C" {
    fn uffd_touch_load(from: usize, into: *mut u64) -> u64;
    fn uffd_touch_store(to: usize, value: u64) -> u64;
    fn uffd_touch_exit();
}

/// The signal that an access got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signal {
    /// SIGSEGV or SIGBUS.
    pub number: i32,
    /// `si_code`.
    pub code: i32,
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match (self.number, self.code) {
            (libc::SIGSEGV, 1) => "SEGV_MAPERR",
            (libc::SIGSEGV, 2) => "SEGV_ACCERR",
            (libc::SIGBUS, 1) => "BUS_ADRALN",
            (libc::SIGBUS, 2) => "BUS_ADRERR",
            (libc::SIGBUS, 4) => "BUS_MCEERR_AR",
            (libc::SIGSEGV, code) => return write!(f, "SEGV:{code}"),
            (number, code) => return write!(f, "signal:{number}:{code}"),
        };
        f.write_str(name)
    }
}

fn result(raw: u64) -> Result<(), Signal> {
    if raw == 0 {
        return Ok(());
    }
    let bytes = raw.to_ne_bytes();
    let half =
        |at: usize| i32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    Err(Signal { number: half(4), code: half(0) })
}

/// Loads eight bytes from `address`.
pub fn load(address: usize) -> Result<u64, Signal> {
    let mut value = 0;
    // SAFETY: the only foreign access is the load, whose faults the handler turns into a result.
    result(unsafe { uffd_touch_load(address, &raw mut value) }).map(|()| value)
}

/// Stores eight bytes at `address`, which must lie in the arena.
pub fn store(address: usize, value: u64) -> Result<(), Signal> {
    crate::memory::guard(Range { start: address, len: 8 });
    // SAFETY: the arena holds nothing of Rust's, and the handler turns faults into a result.
    result(unsafe { uffd_touch_store(address, value) })
}

/// Loads from address 0 at an instruction that the handler does not know: kills the process.
pub(crate) fn die() {
    // SAFETY: not sound on purpose; the process is to die of SIGSEGV here.
    unsafe {
        #[cfg(target_arch = "x86_64")]
        std::arch::asm!("mov {0}, [{0}]", inout(reg) 0_usize => _);
        #[cfg(target_arch = "aarch64")]
        std::arch::asm!("ldr {0}, [{0}]", inout(reg) 0_usize => _);
    };
}

/// Installs the handler; children inherit it.
pub fn install() -> std::io::Result<()> {
    for signal in [libc::SIGSEGV, libc::SIGBUS] {
        // SAFETY: an all-zero sigaction is valid; the handler is async-signal-safe.
        let ret = unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = on_fault as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO;
            libc::sigaction(signal, &raw const action, std::ptr::null_mut())
        };
        if ret != 0 {
            return Err(std::io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Whether a machine check's signal is expected, which concerns no access of ours.
static MACHINE_CHECK: AtomicBool = AtomicBool::new(false);

/// Makes a call that may have the kernel report lost memory to the caller, which is then no fault.
pub(crate) fn amid_machine_check<T>(call: impl FnOnce() -> T) -> T {
    MACHINE_CHECK.store(true, Ordering::Relaxed);
    let done = call();
    MACHINE_CHECK.store(false, Ordering::Relaxed);
    done
}

extern "C" fn on_fault(signal: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel passes a siginfo and a ucontext that are valid during the handler.
    let (info, context) = unsafe { (&*info, &mut *context.cast::<libc::ucontext_t>()) };
    let (at, result) = registers(&mut context.uc_mcontext);
    if *at == place(uffd_touch_load as *const ()) || *at == place(uffd_touch_store as *const ()) {
        *result = (word(signal) << 32) | Word::from(info.si_code.cast_unsigned());
        *at = place(uffd_touch_exit as *const ());
    } else if !(signal == libc::SIGBUS && MACHINE_CHECK.load(Ordering::Relaxed)) {
        // SAFETY: restoring the default action is async-signal-safe; the access then repeats.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
}

/// A register as libc has it.
#[cfg(target_arch = "x86_64")]
type Word = i64;
#[cfg(target_arch = "aarch64")]
type Word = u64;

/// A signal's number in a register.
fn word(signal: i32) -> Word {
    Word::from(signal.cast_unsigned())
}

/// The address of an instruction, as a register holds it.
fn place(instruction: *const ()) -> Word {
    instruction as Word
}

/// The instruction pointer, and the register that [`uffd_touch_exit`] returns.
#[cfg(target_arch = "x86_64")]
fn registers(context: &mut libc::mcontext_t) -> (&mut Word, &mut Word) {
    // Two places of an array: RDX is before RIP.
    let (before, from) = context.gregs.split_at_mut(libc::REG_RIP as usize);
    (&mut from[0], &mut before[libc::REG_RDX as usize])
}

#[cfg(target_arch = "aarch64")]
fn registers(context: &mut libc::mcontext_t) -> (&mut Word, &mut Word) {
    (&mut context.pc, &mut context.regs[2])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::{ARENA, PAGE, map, unmap};

    #[test]
    fn faults_become_results() {
        crate::testing::isolated(|_| check());
    }

    fn check() {
        let at = Range { start: ARENA.start + (1000 << 20), len: PAGE };
        assert_eq!(load(at.start).map_err(|s| s.to_string()), Err("SEGV_MAPERR".into()));
        let anon = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        assert!(map(at, libc::PROT_READ, anon, None, 0).is_ok());
        assert_eq!(load(at.start), Ok(0));
        assert_eq!(store(at.start, 7).map_err(|s| s.to_string()), Err("SEGV_ACCERR".into()));
        assert!(map(at, crate::memory::RW, anon, None, 0).is_ok());
        assert_eq!(store(at.start, 7), Ok(()));
        assert_eq!(load(at.start), Ok(7));
        assert!(unmap(at).is_ok());
    }
}
