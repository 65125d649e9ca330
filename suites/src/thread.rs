//! Threads of a case, on stacks that were there before any mapping changes.

use crate::abi::Range;
use crate::outcome::Stop;
use crate::stage::Stage;
use nix::errno::Errno;

/// Starts a thread on a stack of the stage's. It ends with the process at the latest; nobody joins it.
pub fn spawn(stage: &Stage, job: impl FnOnce() + Send + 'static) -> Result<(), Stop> {
    let stack = stage.take_stack()?;
    let job: Box<Box<dyn FnOnce() + Send>> = Box::new(Box::new(job));
    start(Box::into_raw(job).cast(), stack).map_err(|e| Stop::Broken(format!("a thread: {e:?}")))
}

fn start(job: *mut libc::c_void, stack: Range) -> Result<(), Errno> {
    let check = |ret: i32| if ret == 0 { Ok(()) } else { Err(Errno::from_raw(ret)) };
    // SAFETY: the attribute object is initialised before use; nobody else uses the stack, which
    // is never unmapped; `run` gets the only pointer to the job.
    unsafe {
        let mut attr: libc::pthread_attr_t = std::mem::zeroed();
        check(libc::pthread_attr_init(&raw mut attr))?;
        let base = stack.start as *mut libc::c_void;
        check(libc::pthread_attr_setstack(&raw mut attr, base, stack.len))?;
        let mut thread = 0;
        check(libc::pthread_create(&raw mut thread, &raw const attr, run, job))
    }
}

extern "C" fn run(job: *mut libc::c_void) -> *mut libc::c_void {
    // SAFETY: `spawn` passes a box of this type that it has given up.
    let job = unsafe { Box::from_raw(job.cast::<Box<dyn FnOnce() + Send>>()) };
    job();
    std::ptr::null_mut()
}
