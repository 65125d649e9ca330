//! Pages that nearly every case writes to, pinned in a VM's runner.
//!
//! A page that fork(2) shares costs a fault where the case writes to it, and another one where its runner does. One
//! that is pinned for I/O is copied by fork itself (Linux commit 70e806e4e645, 5.9), which is cheaper: a case of a VM
//! has 12 faults in place of 23, and takes a fifteenth less time. The case's own pages are pinned by nobody.

use super::pages;
use super::wait::{BURIAL, wait};
use nix::errno::Errno;
use nix::sys::eventfd::EventFd;
use nix::sys::signal::{Signal, kill};
use uffd_suites::abi::Range;
use uffd_suites::abi::uring::Instance;
use uffd_suites::evidence;
use uffd_suites::memory::PAGE;
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
    for Range { start, len } in pages::variables().into_iter().chain([heap]) {
        let end = (start + len).next_multiple_of(PAGE);
        ranges.extend(written(stage, Range { start: page(start), len: end - page(start) })?);
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
    let failed = |what: &str, e: Errno| broken(&format!("{what}: {e:?}"));
    let child = child.map_err(|e| failed("fork", e))?;
    let ended = wait(child, stage.patience).map_err(|e| failed("waiting", e))?;
    if ended.is_none() {
        let _ = kill(child, Signal::SIGKILL);
        let _ = wait(child, BURIAL);
    }
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

#[cfg(test)]
mod tests {
    use super::super::{attend_children, in_child};
    use super::*;
    use std::time::Duration;

    /// What a child finds of a page of the stack that it has not written to: whether it is the child's alone.
    fn copied_at_once(stage: &Stage, pins: bool) -> Result<bool, Stop> {
        let room = std::hint::black_box([1_u8; 3 * PAGE]);
        let local = &room[PAGE];
        if pins {
            pin(stage, local)?;
        }
        let own = Range { start: page(std::ptr::from_ref(local).addr()), len: PAGE };
        let child = fork_with(0, || match evidence::alone(own) {
            Ok(alone) => i32::from(alone[0]),
            Err(_) => 2,
        });
        let broken = |e: Errno| Stop::Broken(format!("{e:?}"));
        let ended = wait(child.map_err(broken)?, stage.patience).map_err(broken)?;
        match ended.and_then(|status| status.code()) {
            Some(0) => Ok(false),
            Some(1) => Ok(true),
            code => Err(Stop::Broken(format!("{code:?}"))),
        }
    }

    /// What `check` says in a process with one thread and a stage.
    fn on_stage(check: fn(&Stage) -> Result<String, Stop>) -> String {
        let check = || {
            attend_children().map_err(|e| Stop::Broken(format!("{e:?}")))?;
            check(&Stage::prepare(Duration::from_secs(60))?)
        };
        in_child(|| check().map_err(|stop| format!("{stop:?}"))).expect("an answer")
    }

    #[test]
    fn fork_copies_what_is_pinned() {
        let said = on_stage(|stage| {
            let before = copied_at_once(stage, false)?;
            if let Err(e) = Instance::new(0) {
                return Ok(format!("{before} no io_uring: {e:?}"));
            }
            Ok(format!("{before} {}", copied_at_once(stage, true)?))
        });
        eprintln!("{said}");
        assert!(said == "false true" || said.starts_with("false no io_uring"), "{said}");
    }

    #[test]
    fn a_trial_finds_what_a_case_writes_to() {
        let said = on_stage(|stage| {
            let none = Stop::Broken("a program without variables".to_owned());
            let all = pages::variables().ok_or(none)?;
            let found = written(stage, all)?;
            let within = found.iter().all(|r| all.start <= r.start && r.end() <= all.end());
            Ok(format!("{within} {}", !found.is_empty() && found.len() < all.len / PAGE))
        });
        assert_eq!(said, "true true");
    }
}
