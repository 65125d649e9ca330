//! Threads of a case, on stacks that were there before any mapping changes.

use crate::abi::Range;
use crate::bump::map;
use crate::memory::RW;
use crate::outcome::Stop;
use crate::stage::{STACK, Stage};
use nix::errno::Errno;

/// Starts a thread on a stack of the stage's. It ends with the process at the latest; nobody joins it.
pub fn spawn(stage: &Stage, job: impl FnOnce() + Send + 'static) -> Result<(), Stop> {
    let stack = stage.take_stack()?;
    let job: Box<Box<dyn FnOnce() + Send>> = Box::new(Box::new(job));
    let started = start(Box::into_raw(job).cast(), stack);
    started.map(drop).map_err(|e| Stop::Broken(format!("a thread: {e:?}")))
}

/// Starts a thread and waits for its end, so that the C library has prepared itself for threads before any case
/// is forked: each would do that again, on pages that it has to copy for it.
pub(crate) fn prepare() -> Result<(), Stop> {
    let broken = |e| Stop::Broken(format!("the first thread: {e:?}"));
    let at = map(None, STACK, RW, libc::MAP_PRIVATE).map_err(broken)?;
    let job: Box<Box<dyn FnOnce() + Send>> = Box::new(Box::new(|| {}));
    let thread =
        start(Box::into_raw(job).cast(), Range { start: at, len: STACK }).map_err(broken)?;
    // SAFETY: the thread was made above and is joined once; the stack is nobody's then.
    unsafe {
        libc::pthread_join(thread, std::ptr::null_mut());
        libc::munmap(at as *mut _, STACK);
    }
    Ok(())
}

fn start(job: *mut libc::c_void, stack: Range) -> Result<libc::pthread_t, Errno> {
    let check = |ret: i32| if ret == 0 { Ok(()) } else { Err(Errno::from_raw(ret)) };
    // SAFETY: the attribute object is initialised before use; nobody else uses the stack, which
    // is never unmapped; `run` gets the only pointer to the job.
    unsafe {
        let mut attr: libc::pthread_attr_t = std::mem::zeroed();
        check(libc::pthread_attr_init(&raw mut attr))?;
        let base = stack.start as *mut libc::c_void;
        check(libc::pthread_attr_setstack(&raw mut attr, base, stack.len))?;
        let mut thread = 0;
        check(libc::pthread_create(&raw mut thread, &raw const attr, run, job))?;
        Ok(thread)
    }
}

extern "C" fn run(job: *mut libc::c_void) -> *mut libc::c_void {
    // SAFETY: `spawn` passes a box of this type that it has given up.
    let job = unsafe { Box::from_raw(job.cast::<Box<dyn FnOnce() + Send>>()) };
    job();
    std::ptr::null_mut()
}

/// Binds this thread, and the threads that it starts from now on, to the CPU that it is on.
pub fn stay_on_cpu() -> Result<(), Stop> {
    use nix::sched::{CpuSet, sched_getcpu, sched_setaffinity};
    let this = nix::unistd::Pid::from_raw(0);
    let mut cpus = CpuSet::new();
    sched_getcpu()
        .and_then(|cpu| cpus.set(cpu))
        .and_then(|()| sched_setaffinity(this, &cpus))
        .map_err(|e| Stop::Precondition(format!("binding a thread to its CPU: {e:?}")))
}

/// Has this process, and those that it forks, leave the CPU to whoever has it when they wake (SCHED_BATCH): a
/// case's process that took it at once would give it back when its parent has not come to its wait yet, and each
/// time the CPU would begin with an empty TLB.
pub fn yield_on_wake_up() -> Result<(), Errno> {
    schedule(libc::SCHED_BATCH, 0)
}

/// While it lives, this thread goes before every ordinary one (SCHED_FIFO): what it wakes on its own
/// CPU does not run before this thread sleeps.
#[derive(Debug)]
pub struct First(());

impl First {
    /// Begins it; needs CAP_SYS_NICE, or RLIMIT_RTPRIO.
    pub fn begin() -> Result<Self, Stop> {
        match schedule(libc::SCHED_FIFO, 1) {
            Ok(()) => Ok(Self(())),
            Err(Errno::EPERM) => Err(Stop::Precondition(
                "a thread that goes before others (SCHED_FIFO) needs CAP_SYS_NICE or RLIMIT_RTPRIO, \
                 and real-time runtime in its cgroup"
                    .into(),
            )),
            Err(e) => Err(Stop::Precondition(format!("sched_setscheduler: {e:?}"))),
        }
    }
}

impl Drop for First {
    fn drop(&mut self) {
        // Giving a privilege up never fails.
        let _ = schedule(libc::SCHED_OTHER, 0);
    }
}

fn schedule(policy: i32, priority: i32) -> Result<(), Errno> {
    // SAFETY: an all-zero parameter block is valid; the call reads it and concerns this thread alone.
    let ret = unsafe {
        let mut param: libc::sched_param = std::mem::zeroed();
        param.sched_priority = priority;
        libc::sched_setscheduler(0, policy, &raw const param)
    };
    Errno::result(ret).map(drop)
}
