//! Performs the steps: one system call each, on addresses of the arena.

use super::step::{Child, Over, Span, Step};
use crate::abi::{REGISTER_MODE_MISSING, Range, Rc};
use crate::memory::{self, BLOCK, ELSEWHERE, RW, guard, map, remap, tag, unmap};
use crate::outcome::{Seen, Stop};
use crate::point::{GROWN, PAGES};
use crate::process;
use crate::scenario::Scene;
use crate::{touch, treat};
use nix::errno::Errno;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;

/// Names of the facts of the steps of a change.
const NAMES: [&str; 6] = ["change", "change-2", "change-3", "change-4", "change-5", "change-6"];

/// The name of the fact of the `n`th step.
pub(super) fn name(n: usize) -> &'static str {
    NAMES.get(n).copied().unwrap_or("change-7")
}

/// Performs all steps and records what each returned.
pub(super) fn perform(scene: &Scene<'_>, steps: &[Step], seen: &mut Seen<'_>) -> Result<(), Stop> {
    for (n, step) in steps.iter().enumerate() {
        if let Step::Fork(child) = step {
            seen.fact(name(n), fork_child(scene, *child)?);
        } else {
            seen.fact(name(n), call(scene, *step)?);
        }
    }
    Ok(())
}

fn call(scene: &Scene<'_>, step: Step) -> Result<Rc, Stop> {
    let block = &scene.block;
    let range = |span: Span| block.range(span.pages());
    let file = || block.file.as_ref().ok_or_else(|| Stop::Broken(format!("no file for {step:?}")));
    let bytes = |pages: usize| i64::try_from(pages * block.page).unwrap_or(i64::MAX);
    let nix = |result: nix::Result<()>| Rc(result.err());
    let moving = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
    Ok(match step {
        Step::Advise(span, advice) => {
            let rc = advise(range(span), advice.of().0);
            if advice.harms() && rc.0 == Some(Errno::EINVAL) {
                return Err(Stop::Unsupported(format!(
                    "madvise(MADV_{}): EINVAL (CONFIG_MEMORY_FAILURE)",
                    advice.of().1
                )));
            }
            rc
        }
        Step::ProcessAdvise(span, advice) => process_advise(range(span), advice.of().0)?,
        Step::Protect(span, prot) => protect(range(span), prot.bits()),
        Step::PkeyProtect(span, prot) => pkey_protect(range(span), prot.bits()),
        Step::Truncate(pages) => nix(nix::unistd::ftruncate(file()?, bytes(pages))),
        Step::Allocate(span) | Step::Punch(span) => {
            use nix::fcntl::{FallocateFlags, fallocate};
            let flags = match step {
                Step::Punch(_) => {
                    FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE
                }
                _ => FallocateFlags::empty(),
            };
            nix(fallocate(file()?, flags, bytes(span.0), bytes(span.1 - span.0)))
        }
        Step::Write(page) => {
            let data = tag::NEW.to_ne_bytes();
            Rc(nix::sys::uio::pwrite(file()?, &data, bytes(page)).err())
        }
        Step::Seal(span) => treat::must_seal(range(span))?,
        Step::Unmap(span) => unmap(range(span)),
        Step::Map(span, Over::Same) => block.map_pages(span.pages(), BLOCK, 0),
        Step::MapOnceMore(span) => block.map_pages(span.pages(), BLOCK, libc::MAP_FIXED_NOREPLACE),
        Step::Map(span, over) => {
            let prot = if over == Over::NoAccess { libc::PROT_NONE } else { RW };
            map(range(span), prot, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, None, 0)
        }
        Step::Register(span) => Rc(scene.uffd.register(range(span), REGISTER_MODE_MISSING).err()),
        Step::Unregister(span) => scene.uffd.unregister(range(span)),
        Step::Fork(_) => Rc::OK,
        Step::Move(span) => {
            let (from, to) = (range(span), block.at(ELSEWHERE, span.pages()));
            remap(from, from.len, moving, to.start)
        }
        Step::MoveBack(span) => {
            let (from, to) = (block.at(ELSEWHERE, span.pages()), range(span));
            remap(from, from.len, moving, to.start)
        }
        Step::MoveOverlapping => {
            let all = block.range(0..PAGES);
            remap(all, all.len, moving, block.range(1..2).start)
        }
        Step::GrowBeyondLimit => {
            treat::without_room(|| remap(block.range(0..PAGES), GROWN * block.page, 0, 0))?
        }
        Step::MoveKeeping(span) => {
            let (from, to) = (range(span), block.at(ELSEWHERE, span.pages()));
            remap(from, from.len, moving | libc::MREMAP_DONTUNMAP, to.start)
        }
        Step::Shrink(pages) => remap(block.range(0..PAGES), pages * block.page, 0, 0),
        Step::LockOnFault(span) => treat::lock(range(span), libc::MLOCK_ONFAULT),
        Step::Unlock(span) => treat::unlock(range(span)),
        Step::Munlockall => nix(nix::sys::mman::munlockall()),
        Step::Bind(span) => bind(range(span))?,
        Step::Msync(span) => sync(range(span)),
        Step::RemapFilePages(span) => treat::remap_file_pages(range(span), 0),
    })
}

/// `madvise(2)` in the arena.
pub(super) fn advise(at: Range, advice: i32) -> Rc {
    guard(at);
    // SAFETY: the range lies in the arena, where Rust keeps nothing.
    Rc::of(unsafe { libc::madvise(at.start as *mut _, at.len, advice) }.into())
}

/// `process_madvise(2)` of this process (5.10).
fn process_advise(at: Range, advice: i32) -> Result<Rc, Stop> {
    guard(at);
    // SAFETY: pidfd_open takes plain numbers.
    let pidfd = unsafe { libc::syscall(libc::SYS_pidfd_open, libc::getpid(), 0) };
    if pidfd < 0 {
        return Err(Stop::Broken(format!("pidfd_open: {:?}", Errno::last())));
    }
    let vector = libc::iovec { iov_base: at.start as *mut _, iov_len: at.len };
    // SAFETY: the vector names a range of the arena, where Rust keeps nothing.
    let ret = unsafe {
        libc::syscall(libc::SYS_process_madvise, pidfd, &raw const vector, 1_usize, advice, 0)
    };
    Ok(Rc::of(ret))
}

/// `mprotect(2)` in the arena.
pub(super) fn protect(at: Range, prot: i32) -> Rc {
    guard(at);
    // SAFETY: as above; access that is no longer allowed ends in `touch`.
    Rc::of(unsafe { libc::mprotect(at.start as *mut _, at.len, prot) }.into())
}

fn pkey_protect(at: Range, prot: i32) -> Rc {
    guard(at);
    // SAFETY: as above.
    Rc::of(unsafe { libc::syscall(libc::SYS_pkey_mprotect, at.start, at.len, prot, -1) })
}

fn bind(at: Range) -> Result<Rc, Stop> {
    guard(at);
    // MPOL_PREFERRED with an empty mask: any node, but a policy of its own.
    // SAFETY: changes no content; the empty mask is a null pointer.
    let rc = Rc::of(unsafe {
        libc::syscall(libc::SYS_mbind, at.start, at.len, 1, std::ptr::null::<u64>(), 0, 0)
    });
    if rc.0 == Some(Errno::ENOSYS) {
        return Err(Stop::Unsupported("mbind(2): ENOSYS (CONFIG_NUMA)".into()));
    }
    Ok(rc)
}

fn sync(at: Range) -> Rc {
    guard(at);
    // SAFETY: changes no content.
    Rc::of(unsafe { libc::msync(at.start as *mut _, at.len, libc::MS_SYNC) }.into())
}

/// Forks a child that does what `child` says; how it ended, or what it saw.
fn fork_child(scene: &Scene<'_>, child: Child) -> Result<&'static str, Stop> {
    let pid = if child == Child::VforkExit {
        let stack = scene.stage.take_stack()?;
        let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
        let top = stack.end() as *mut libc::c_void;
        // SAFETY: as vfork(2) does it, on a stack of the child's own; the child only ends.
        let pid = unsafe { libc::clone(end_at_once, top, flags, std::ptr::null_mut()) };
        if pid < 0 {
            return Err(Stop::Broken(format!("clone: {:?}", Errno::last())));
        }
        Pid::from_raw(pid)
    } else {
        process::fork(|| in_child(scene, child))?
    };
    match waitpid(pid, None) {
        Ok(WaitStatus::Exited(_, code)) => Ok(word(code)),
        other => Err(Stop::Broken(format!("waiting for the child: {other:?}"))),
    }
}

/// What a child does that shares its parent's memory.
extern "C" fn end_at_once(_: *mut libc::c_void) -> libc::c_int {
    0
}

/// Exit codes of the child and their words.
const WORDS: [(i32, &str); 7] = [
    (0, "0"),
    (1, "failed"),
    (2, "zero"),
    (3, "kept"),
    (4, "other"),
    (5, "SEGV_MAPERR"),
    (6, "signal"),
];

fn word(code: i32) -> &'static str {
    WORDS.iter().find(|(c, _)| *c == code).map_or("unknown", |(_, word)| word)
}

/// What the child does; its exit code.
fn in_child(scene: &Scene<'_>, child: Child) -> i32 {
    let done = |rc: Rc| i32::from(!rc.is_ok());
    let load = |page: usize| match touch::load(scene.block.range(page..page + 1).start) {
        Ok(tag::ZERO) => 2,
        Ok(tag::KEPT) => 3,
        Ok(_) => 4,
        Err(signal) if signal.to_string() == "SEGV_MAPERR" => 5,
        Err(_) => 6,
    };
    match child {
        Child::Exit | Child::VforkExit => 0,
        Child::Exec => {
            let argv = [c"child".as_ptr(), c"--version".as_ptr(), std::ptr::null()];
            let environment = [std::ptr::null::<libc::c_char>()];
            // SAFETY: path and vectors live through the call; what the program says goes nowhere.
            unsafe {
                for fd in 0..3 {
                    libc::close(fd);
                }
                libc::execve(c"/proc/self/exe".as_ptr(), argv.as_ptr(), environment.as_ptr());
            }
            1
        }
        Child::Unmap => done(unmap(scene.block.range(0..PAGES))),
        Child::Discard => done(memory::dontneed(scene.block.range(2..4))),
        Child::Load => load(2),
        Child::LoadBehind => load(3),
        Child::Fork => {
            let grandchild = process::fork(|| 0);
            i32::from(grandchild.is_err() || waitpid(grandchild.ok(), None).is_err())
        }
    }
}
