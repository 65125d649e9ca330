//! Signals to single threads, as a VMM kicks its vCPUs: handled, harmless, and not restarted.

use nix::errno::Errno;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

/// The signal.
const KICK: Signal = Signal::SIGUSR1;

extern "C" fn nothing(_: i32) {}

/// Gives the signal a handler that does nothing; system calls that it interrupts return.
pub fn install() -> Result<(), Errno> {
    let action = SigAction::new(SigHandler::Handler(nothing), SaFlags::empty(), SigSet::empty());
    // SAFETY: a handler that does nothing is async-signal-safe.
    unsafe { sigaction(KICK, &action) }.map(drop)
}

/// Lets the calling thread get the signal.
pub fn unblock() -> Result<(), Errno> {
    SigSet::from(KICK).thread_unblock()
}

/// Sends the signal to a thread of this process. What it wakes is runnable when this returns.
pub fn send(tid: i32) -> Result<(), Errno> {
    let pid = nix::unistd::getpid().as_raw();
    // SAFETY: tgkill takes plain numbers.
    Errno::result(unsafe { libc::syscall(libc::SYS_tgkill, pid, tid, KICK as i32) }).map(drop)
}
