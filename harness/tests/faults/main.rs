//! Injects faults into whole commands: they are killed, told to stop, starved and given bad files, and must
//! lose no answer, give no false one, and leave nothing behind.
//!
//! Sweeps run with this program in QEMU's place, which answers from committed records; with
//! `UFFD_TEST_KERNEL` real VMs are disturbed as well. `UFFD_FAULTS=N` injects N times as many.

mod download;
mod machine;
mod memory;
mod native;
mod room;
mod scene;
#[path = "../shared/mod.rs"]
mod shared;
mod sweep;
mod vm;

use libtest_mimic::{Arguments, Trial};
use nix::sys::signal::{SigHandler, Signal, signal};
use std::panic::catch_unwind;

fn main() {
    if machine::is_machine() {
        machine::run();
        return;
    }
    // nohup and a shell's `&` ignore signals, and the command goes on ignoring what it finds ignored.
    for heard in [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM] {
        // SAFETY: the default runs no code of this process.
        unsafe { signal(heard, SigHandler::SigDfl) }.expect("the default");
    }
    let mut arguments = Arguments::from_args();
    // Faults come at moments that are spread over a run: with others beside it, it has no known length.
    arguments.test_threads.get_or_insert(1);
    let has_kernel = std::env::var_os("UFFD_TEST_KERNEL").is_some();
    if !has_kernel {
        eprintln!("UFFD_TEST_KERNEL names no vmlinuz: no kernel is booted");
    }
    let trial = |(name, test): (&'static str, fn())| {
        Trial::test(name, move || {
            catch_unwind(test).map_err(|panic| {
                let text = panic.downcast_ref::<String>().map(String::as_str);
                text.or_else(|| panic.downcast_ref::<&str>().copied())
                    .unwrap_or("it panicked")
                    .into()
            })
        })
    };
    let mut trials: Vec<Trial> = Vec::new();
    for tests in [sweep::TESTS, native::TESTS, room::TESTS, memory::TESTS, download::TESTS] {
        trials.extend(tests.iter().copied().map(trial));
    }
    trials.extend(vm::TESTS.iter().copied().map(|t| trial(t).with_ignored_flag(!has_kernel)));
    libtest_mimic::run(&arguments, trials).exit();
}
