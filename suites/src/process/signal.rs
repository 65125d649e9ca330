//! A signal that a thread of the case handles: SIGUSR1, which else is blocked everywhere.

use super::broken;
use crate::abi::Rc;
use crate::outcome::Stop;
use nix::errno::Errno;
use nix::sys::signal::Signal;
use std::sync::atomic::{AtomicU32, Ordering};

/// How often [`catch`]'s handler ran.
static CAUGHT: AtomicU32 = AtomicU32::new(0);

extern "C" fn on_signal(_: i32) {
    CAUGHT.fetch_add(1, Ordering::Release);
}

/// Has SIGUSR1 handled, by a handler that counts; with or without SA_RESTART. Threads that shall
/// get it must unblock it.
pub fn catch(restart: bool) -> Result<(), Stop> {
    use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, sigaction};
    let flags = if restart { SaFlags::SA_RESTART } else { SaFlags::empty() };
    let action = SigAction::new(SigHandler::Handler(on_signal), flags, SigSet::empty());
    // SAFETY: the handler only adds to a number.
    unsafe { sigaction(Signal::SIGUSR1, &action) }.map(drop).map_err(|e| broken("sigaction", e))
}

/// Lets the calling thread take SIGUSR1.
pub fn unblock() -> Rc {
    use nix::sys::signal::SigSet;
    let mut set = SigSet::empty();
    set.add(Signal::SIGUSR1);
    Rc(set.thread_unblock().err())
}

/// How often the handler ran.
pub fn caught() -> u32 {
    CAUGHT.load(Ordering::Acquire)
}

/// Sends SIGUSR1 to a thread of this process.
pub fn signal_thread(tid: i32) -> Result<(), Stop> {
    // SAFETY: tgkill takes plain numbers; the signal is handled.
    let ret = unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), tid, libc::SIGUSR1) };
    Errno::result(ret).map(drop).map_err(|e| broken("tgkill", e))
}
