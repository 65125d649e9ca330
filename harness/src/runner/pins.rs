//! Pages that nearly every case writes to, pinned in a VM's runner.
//!
//! A page that fork(2) shares costs a fault where the case writes to it, and another one where its runner does. One
//! that is pinned for I/O is copied by fork itself (Linux commit 70e806e4e645, 5.9), which is cheaper: a case of a VM
//! has 12 faults in place of 23, and takes a fifteenth less time. The case's own pages are pinned by nobody.

use super::pages::{self, PAGE};
use super::wait::wait;
use nix::errno::Errno;
use nix::sys::eventfd::EventFd;
use std::time::Duration;
use uffd_suites::abi::Range;
use uffd_suites::abi::uring::Instance;
use uffd_suites::evidence;
use uffd_suites::outcome::Stop;
use uffd_suites::process::fork_with;
use uffd_suites::stage::{NOTES, Stage};
use uffd_suites::thread;

/// Pages of the heap that can be written to: its first ones, with the first thread's own variables.
const HEAP: usize = 4;

/// Pins them: the page of the stack that `local` lies on with its neighbours, and what a case in a trial has written
/// to of the program's variables and the heap. They stay pinned for as long as the process lives. For a process with
/// one thread.
pub(super) fn pin(stage: &Stage, local: &u8) -> Result<(), Stop> {
    let failed = |what: &str, e: Errno| Stop::Broken(format!("{what}: {e:?}"));
    let stack = page(std::ptr::from_ref(local).addr());
    // SAFETY: returns the address of a variable of this thread's.
    let own = page(unsafe { libc::__errno_location() }.addr());
    let heap = Range { start: own, len: HEAP * PAGE };
    let mut ranges = vec![Range { start: stack - PAGE, len: 3 * PAGE }];
    for range in pages::variables().into_iter().chain([heap]) {
        ranges.extend(written(stage, range)?);
    }
    let ring = Instance::new(0).map_err(|e| failed("io_uring_setup", e))?;
    ring.register_buffers(&ranges).0.map_or(Ok(()), |e| Err(failed("pinning pages", e)))?;
    // Closed, it would let go of them.
    let _ = ring.into_fd();
    Ok(())
}

/// The pages of `range` that a case writes to.
fn written(stage: &Stage, range: Range) -> Result<Vec<Range>, Stop> {
    let broken = |what: &str| Stop::Broken(format!("a trial for pins: {what}"));
    let count = range.len / PAGE;
    if count > NOTES {
        return Err(broken("too many pages"));
    }
    let notes = std::ptr::with_exposed_provenance_mut::<u8>(stage.notes);
    let child = fork_with(0, || {
        stage.enter_case();
        let alone = with_a_thread(stage).and_then(|()| evidence::alone(range));
        let Ok(alone) = alone else { return 1 };
        for (n, alone) in alone.into_iter().enumerate() {
            // SAFETY: within the notes, which only this process writes to now.
            unsafe { notes.add(n).write(alone.into()) };
        }
        0
    });
    let child = child.map_err(|e| broken(&format!("fork: {e:?}")))?;
    let ended = wait(child, Duration::from_secs(10)).map_err(|e| broken(&format!("{e:?}")))?;
    if !ended.is_some_and(|status| status.success()) {
        return Err(broken(&format!("it ended with {ended:?}")));
    }
    // SAFETY: the child has ended, and nobody else uses the notes.
    let alone = unsafe { std::slice::from_raw_parts(notes, count) };
    let at = |n: usize| Range { start: range.start + n * PAGE, len: PAGE };
    Ok(alone.iter().enumerate().filter(|(_, alone)| **alone != 0).map(|(n, _)| at(n)).collect())
}

/// What nearly every case does.
fn with_a_thread(stage: &Stage) -> Result<(), Stop> {
    let failed = |e| Stop::Broken(format!("an eventfd: {e:?}"));
    let done: &'static EventFd = Box::leak(Box::new(EventFd::new().map_err(failed)?));
    thread::spawn(stage, || {
        // Can't fail: the counter is far from its end.
        let _ = done.write(1);
    })?;
    done.read().map(drop).map_err(failed)
}

const fn page(address: usize) -> usize {
    address / PAGE * PAGE
}
