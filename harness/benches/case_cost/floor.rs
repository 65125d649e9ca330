//! The floor: what a case can't do without, written in the plainest way.

use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, fork};
use std::hint::black_box;
use uffd_suites::abi::{REGISTER_MODE_MISSING, Range, Uffd, Way};
use uffd_suites::memory::PAGE;

/// The floor, once.
pub(super) fn bare(way: Way, source: usize) {
    // SAFETY: the process has one thread, so the child may use everything.
    match unsafe { fork() }.expect("fork") {
        ForkResult::Parent { child } => {
            waitpid(child, None).expect("waitpid");
        }
        ForkResult::Child => {
            bare_child(way, source);
            // SAFETY: ends the child without its parent's destructors.
            unsafe { libc::_exit(0) }
        }
    }
}

fn bare_child(way: Way, source: usize) {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    let access = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: a fresh mapping at an address that the kernel chooses.
    let at = unsafe { libc::mmap(std::ptr::null_mut(), 6 * PAGE, access, flags, -1, 0) };
    let block = Range { start: at as usize, len: 6 * PAGE };
    let uffd = Uffd::open(way).expect("userfaultfd");
    uffd.api(0).expect("UFFDIO_API");
    uffd.register(block, REGISTER_MODE_MISSING).expect("UFFDIO_REGISTER");
    let mut thread = 0;
    // SAFETY: `load` only reads the byte at its argument, which is mapped for as long as it runs.
    let made = unsafe { libc::pthread_create(&raw mut thread, std::ptr::null(), load, at) };
    assert_eq!(made, 0);
    while uffd.read().is_err() {
        let fd =
            nix::poll::PollFd::new(std::os::fd::AsFd::as_fd(&uffd), nix::poll::PollFlags::POLLIN);
        nix::poll::poll(&mut [fd], nix::poll::PollTimeout::NONE).expect("poll");
    }
    let page = Range { start: block.start, len: PAGE };
    assert!(uffd.copy(page, source, 0).0.is_ok());
    // SAFETY: the thread was made above and is joined once.
    unsafe { libc::pthread_join(thread, std::ptr::null_mut()) };
}

extern "C" fn load(at: *mut libc::c_void) -> *mut libc::c_void {
    // SAFETY: see `bare_child`.
    black_box(unsafe { at.cast::<u8>().read_volatile() });
    std::ptr::null_mut()
}
