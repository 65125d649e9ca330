//! Programs that are run for us, and that must not outlive us.
//!
//! A child dies with the thread that started it, however that ends, and has a process group of its own:
//! what a terminal sends to all it gets from us, in the order that suits us.

use crate::interrupt;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::unix::process::CommandExt;
use std::process::{Command, Output};
use std::time::Duration;

/// How often a child is looked after.
const POLL: Duration = Duration::from_millis(5);

/// Makes what `command` starts die with this thread.
pub(crate) fn bind(command: &mut Command) -> &mut Command {
    let parent = nix::unistd::getpid();
    command.process_group(0);
    // SAFETY: the closure runs between fork and exec and makes two system calls; it takes no lock
    // and allocates nothing.
    unsafe {
        command.pre_exec(move || {
            set_pdeathsig(Signal::SIGKILL)?;
            // The parent may have died before the request.
            if nix::unistd::getppid() == parent {
                Ok(())
            } else {
                Err(io::ErrorKind::NotFound.into())
            }
        })
    }
}

/// Runs a command to its end and returns what it wrote; ends it if this process is told to stop.
pub(crate) fn output(mut command: Command) -> io::Result<Output> {
    let _guard = interrupt::guard();
    // Memory: pipes would have to be read while the child runs.
    let memory = || memfd_create(c"output", MFdFlags::MFD_CLOEXEC).map(File::from);
    let (mut stdout, mut stderr) = (memory()?, memory()?);
    command.stdout(stdout.try_clone()?).stderr(stderr.try_clone()?);
    let mut child = bind(&mut command).spawn()?;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if let Err(interrupted) = interrupt::check() {
            // Fails only if it has ended, which is what is wanted.
            let _ = child.kill();
            child.wait()?;
            return Err(io::Error::other(interrupted));
        }
        std::thread::sleep(POLL);
    };
    let read = |file: &mut File| {
        let mut bytes = Vec::new();
        file.rewind()?;
        file.read_to_end(&mut bytes)?;
        Ok::<_, io::Error>(bytes)
    };
    Ok(Output { status, stdout: read(&mut stdout)?, stderr: read(&mut stderr)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_a_child_writes_is_read() {
        let mut command = Command::new("sh");
        command.args(["-c", "head -c 200000 /dev/zero; echo trouble >&2; exit 3"]);
        let output = output(command).expect("it runs");
        assert_eq!((output.status.code(), output.stdout.len()), (Some(3), 200_000));
        assert_eq!(output.stderr, b"trouble\n");
    }
}
