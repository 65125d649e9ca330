//! Tests of the foundations run in a child process each, as cases do: the arena is one per process.

use crate::outcome::Sink;
use crate::stage::Stage;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Held while a child is forked and while a failure is reported: a child that is forked in the
/// middle of a report inherits the locks of the panic hook, which nobody will ever release there.
static REPORT: Mutex<()> = Mutex::new(());

fn no_report() -> MutexGuard<'static, ()> {
    REPORT.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Facts in memory.
#[derive(Debug, Default)]
pub(crate) struct Facts(pub(crate) Vec<(&'static str, String)>);

impl Sink for Facts {
    fn fact(&mut self, name: &'static str, value: &str) {
        self.0.push((name, value.to_owned()));
    }

    fn step(&mut self, _name: &'static str) {}
}

impl Facts {
    /// The value of a fact; empty if it was not seen.
    pub(crate) fn get(&self, name: &str) -> &str {
        self.0.iter().find(|(n, _)| *n == name).map_or("", |(_, v)| v)
    }
}

/// Runs `test` in a child process with a stage of its own; panics if it panics or dies.
pub(crate) fn isolated(test: impl FnOnce(&Stage)) {
    let quiet = no_report();
    // SAFETY: glibc makes its allocator usable in the child; the child takes no other lock that a
    // thread of the test runner could hold, since its panic hook writes directly.
    match unsafe { fork() }.expect("fork") {
        ForkResult::Parent { child } => {
            drop(quiet);
            let status = waitpid(child, None).expect("waitpid");
            let _reporting = no_report();
            assert!(matches!(status, WaitStatus::Exited(_, 0)), "in the child: {status:?}");
        }
        ForkResult::Child => {
            std::panic::set_hook(Box::new(|info| {
                let _ = nix::unistd::write(std::io::stderr(), format!("{info}\n").as_bytes());
            }));
            let ran = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                test(&Stage::prepare(Duration::from_secs(20)).expect("stage"));
            }));
            // SAFETY: leaves at once, without the runner's destructors and exit handlers.
            unsafe { libc::_exit(i32::from(ran.is_err())) }
        }
    }
}
