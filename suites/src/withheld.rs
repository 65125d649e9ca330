//! What a case needs beside userfaultfd and is refused by whoever runs the machine: a seccomp filter, a
//! limit. The call's wrapper notes it; the case ends as denied then, whatever it made of the refusal.

use crate::outcome::Stop;
use nix::errno::Errno;
use std::sync::atomic::{AtomicU8, Ordering};

/// What was refused in this process: 0 for nothing.
static REFUSED: AtomicU8 = AtomicU8::new(0);

const MEMORY: u8 = 1;
const LOCK: u8 = 2;

/// Looks at how process_vm_readv(2) or process_vm_writev(2) of a process that is ours ended. Its own memory
/// and that of its children a process may always reach: EPERM is a filter's.
pub(crate) fn reaching(ended: Option<Errno>) {
    if ended == Some(Errno::EPERM) {
        REFUSED.store(MEMORY, Ordering::Release);
    }
}

/// Looks at how mlock(2) or mlock2(2) ended.
pub(crate) fn locking(ended: Option<Errno>) {
    if ended == Some(Errno::EPERM) {
        REFUSED.store(LOCK, Ordering::Release);
    }
}

/// Looks at how mmap(2) ended, which locks by its flags or, for memfd_secret(2), always: EAGAIN is the limit's.
pub(crate) fn mapping(flags: i32, ended: Option<Errno>) {
    let locks = flags & libc::MAP_LOCKED != 0;
    if ended == Some(Errno::EAGAIN) || (locks && ended == Some(Errno::EPERM)) {
        REFUSED.store(LOCK, Ordering::Release);
    }
}

/// Ends a case by what it was refused, or as it would have ended.
pub(crate) fn or(ended: Result<(), Stop>) -> Result<(), Stop> {
    match REFUSED.load(Ordering::Acquire) {
        MEMORY => Err(Stop::Denied(
            "process_vm_readv(2) or process_vm_writev(2): EPERM (a seccomp filter)".into(),
        )),
        LOCK => Err(Stop::Denied(
            "locking memory: over RLIMIT_MEMLOCK (ulimit -l) without CAP_IPC_LOCK".into(),
        )),
        _ => ended,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::isolated;

    #[test]
    fn an_answer_of_the_kernel_ends_no_case() {
        isolated(|_| {
            reaching(Some(Errno::EFAULT));
            locking(Some(Errno::ENOMEM));
            mapping(0, Some(Errno::EPERM));
            assert_eq!(or(Ok(())), Ok(()));
            let broken = Err(Stop::Broken("x".into()));
            assert_eq!(or(broken.clone()), broken);
        });
    }

    #[test]
    fn a_refusal_ends_a_case_whatever_it_made_of_it() {
        isolated(|_| {
            mapping(libc::MAP_LOCKED, Some(Errno::EPERM));
            assert!(matches!(or(Ok(())), Err(Stop::Denied(why)) if why.contains("RLIMIT_MEMLOCK")));
            reaching(Some(Errno::EPERM));
            let broken = Err(Stop::Broken("x".into()));
            assert!(matches!(or(broken), Err(Stop::Denied(why)) if why.contains("seccomp")));
        });
    }
}
