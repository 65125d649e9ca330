//! A command that may not make userfaultfds or some other call, as in a container with a strict seccomp filter.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;
use uffd_suites::abi::newer::USERFAULTFD_IOC_NEW;

/// Offsets of the call's number and of the lower half of its second argument in `seccomp_data`.
const NUMBER: u32 = 0;
const SECOND: u32 = 24;

fn step(code: u32, jt: u8, jf: u8, k: u32) -> libc::sock_filter {
    libc::sock_filter { code: u16::try_from(code).expect("a code"), jt, jf, k }
}

fn load(at: u32) -> libc::sock_filter {
    step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, at)
}

fn equal(k: libc::c_long, jt: u8, jf: u8) -> libc::sock_filter {
    step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, jt, jf, u32::try_from(k).expect("fits"))
}

fn end(k: u32) -> libc::sock_filter {
    step(libc::BPF_RET | libc::BPF_K, 0, 0, k)
}

fn eperm() -> libc::sock_filter {
    end(libc::SECCOMP_RET_ERRNO | u32::try_from(libc::EPERM).expect("an errno"))
}

/// Makes userfaultfd(2) fail with EPERM in the command, with `device` also /dev/userfaultfd's ioctl.
pub(crate) fn refuse(command: &mut Command, device: bool) -> &mut Command {
    let ioctl = if device { libc::SYS_ioctl } else { libc::c_long::from(i32::MAX) };
    let filter = [
        load(NUMBER),
        equal(libc::SYS_userfaultfd, 4, 0),
        equal(ioctl, 0, 2),
        load(SECOND),
        equal(libc::c_long::try_from(USERFAULTFD_IOC_NEW).expect("a number"), 1, 0),
        end(libc::SECCOMP_RET_ALLOW),
        eperm(),
    ];
    install(command, filter)
}

/// Makes one system call fail with EPERM in the command.
pub(crate) fn refuse_call(command: &mut Command, call: libc::c_long) -> &mut Command {
    install(command, [load(NUMBER), equal(call, 1, 0), end(libc::SECCOMP_RET_ALLOW), eperm()])
}

fn install<const N: usize>(
    command: &mut Command,
    mut filter: [libc::sock_filter; N],
) -> &mut Command {
    let install = move || {
        let len = u16::try_from(filter.len()).map_err(io::Error::other)?;
        let program = libc::sock_fprog { len, filter: filter.as_mut_ptr() };
        // SAFETY: the first call takes numbers, the second a filter that lives until it returns.
        let failed = unsafe {
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0
                || libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program)
                    != 0
        };
        if failed { Err(io::Error::last_os_error()) } else { Ok(()) }
    };
    // SAFETY: the closure makes system calls only, with memory that was there before the fork.
    unsafe { command.pre_exec(install) }
}
