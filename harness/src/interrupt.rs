//! Being told to stop (SIGINT, SIGTERM, SIGHUP) while there is something to end or to keep first.
//!
//! While somebody holds a [`Guard`], such a signal is only noted. Whoever waits for something asks with
//! [`check`], and the error takes down what was started: VMs and children end, temporary files go. At
//! the end of `main` the process dies of the signal as it would have done at once. A second signal of
//! the kind is not noted any more. Without a guard nothing is other than in any program: what runs on
//! this kernel ends with its parent, and the cases of it must not meet a handler of ours.

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, raise, sigaction};
use std::io::{self, Read, Write};
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Mutex, PoisonError};

/// The signals that ask a process to end.
const SIGNALS: [Signal; 3] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP];

/// The signal that came, or 0.
static CAUGHT: AtomicI32 = AtomicI32::new(0);

/// How many guards there are, and what the signals did before the first.
static GUARDS: Mutex<(usize, Vec<(Signal, SigAction)>)> = Mutex::new((0, Vec::new()));

/// This process was told to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("interrupted by {0}")]
pub struct Interrupted(pub(crate) Signal);

/// As long as there is one, signals that ask this process to end are noted in place of ending it.
#[derive(Debug)]
pub(crate) struct Guard(());

/// Sees to it that the ends of children can be waited for: who was started with SIGCHLD ignored, as by a shell's
/// `trap '' CHLD`, would be told that there is no such child. To be called first of all.
pub(crate) fn hear_of_children() {
    // SAFETY: the default action runs nothing of ours.
    // It fails for no signal that there is.
    let _ = unsafe { nix::sys::signal::signal(Signal::SIGCHLD, SigHandler::SigDfl) };
}

/// Begins to note signals.
pub(crate) fn guard() -> Guard {
    let mut guards = GUARDS.lock().unwrap_or_else(PoisonError::into_inner);
    guards.0 += 1;
    if guards.0 == 1 {
        // Once: a second signal means that it takes too long.
        let flags = SaFlags::SA_RESETHAND | SaFlags::SA_RESTART;
        let action = SigAction::new(SigHandler::Handler(note), flags, SigSet::empty());
        for signal in SIGNALS {
            // SAFETY: the handler stores a number and does nothing else.
            let Ok(old) = (unsafe { sigaction(signal, &action) }) else { continue };
            if matches!(old.handler(), SigHandler::SigIgn) {
                // As under nohup.
                // SAFETY: what was in force before.
                let _ = unsafe { sigaction(signal, &old) };
            } else {
                guards.1.push((signal, old));
            }
        }
    }
    Guard(())
}

impl Drop for Guard {
    fn drop(&mut self) {
        let mut guards = GUARDS.lock().unwrap_or_else(PoisonError::into_inner);
        guards.0 -= 1;
        if guards.0 == 0 {
            for (signal, old) in std::mem::take(&mut guards.1) {
                // SAFETY: what was in force before.
                let _ = unsafe { sigaction(signal, &old) };
            }
        }
    }
}

extern "C" fn note(signal: libc::c_int) {
    CAUGHT.store(signal, Ordering::Relaxed);
}

/// The signal that came, if one did.
pub(crate) fn caught() -> Option<Signal> {
    Signal::try_from(CAUGHT.load(Ordering::Relaxed)).ok()
}

/// Fails if this process was told to stop.
pub(crate) fn check() -> Result<(), Interrupted> {
    caught().map_or(Ok(()), |signal| Err(Interrupted(signal)))
}

/// A reader that ends with an error when this process was told to stop.
pub(crate) struct Checked<R>(pub(crate) R);

impl<R: Read> Read for Checked<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        check().map_err(io::Error::other)?;
        self.0.read(buffer)
    }
}

/// Dies of a signal, so that a shell or service manager sees what ended this process.
pub(crate) fn die(signal: Signal) -> ! {
    let _ = io::stdout().flush();
    let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    // SAFETY: the default action runs no code of ours.
    let _ = unsafe { sigaction(signal, &default) };
    let _ = raise(signal);
    // Only where the signal is blocked.
    std::process::exit(128 + signal as i32)
}
