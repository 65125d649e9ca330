//! Ground of the questions about other processes' memory: a process that owns a registered block, and
//! the ways in which another one reaches it.

use crate::abi::{
    REGISTER_MODE_MINOR, REGISTER_MODE_MISSING, REGISTER_MODE_WP, Range, Rc, Uffd,
    WRITEPROTECT_MODE_WP,
};
use crate::access::Access;
use crate::crowd::pause;
use crate::evidence::{Queue, QueueFile, ThreadFile};
use crate::memory::{BLOCK, Block, PAGE, tag};
use crate::outcome::Stop;
use crate::point::{Backing, Mode, PAGES, axis};
use crate::process::Child;
use crate::stage::Stage;
use crate::touch;
use nix::errno::Errno;
use nix::sys::ptrace;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::time::Instant;

axis! {
    /// How another process's page is reached.
    Way {
        /// PTRACE_PEEKDATA.
        Peek = "ptrace-peek",
        /// PTRACE_POKEDATA.
        Poke = "ptrace-poke",
        /// pread(2) of /proc/PID/mem.
        MemRead = "proc-mem-read",
        /// pwrite(2) of /proc/PID/mem.
        MemWrite = "proc-mem-write",
        /// process_vm_readv(2).
        VmRead = "process-vm-readv",
        /// process_vm_writev(2).
        VmWrite = "process-vm-writev",
    }
}

impl Way {
    pub(super) const fn stores(self) -> bool {
        matches!(self, Self::Poke | Self::MemWrite | Self::VmWrite)
    }

    pub(super) const fn stops_owner(self) -> bool {
        matches!(self, Self::Peek | Self::Poke)
    }

    /// Whether a fault of it may wait.
    pub(super) const fn parks(self) -> bool {
        matches!(self, Self::VmRead | Self::VmWrite)
    }

    /// Reaches the word at `address`. A thread that traces lets go of the owner when it ends.
    pub(super) fn reach(self, pid: Pid, address: usize) -> Access {
        let done = match self {
            Self::Peek | Self::Poke => self.trace(pid, address),
            Self::MemRead | Self::MemWrite => self.through_file(pid, address),
            Self::VmRead => return crate::access::remote_read(pid, address),
            Self::VmWrite => return crate::access::remote_write(pid, address),
        };
        done.map_or_else(Access::Failed, Access::Ran)
    }

    fn trace(self, pid: Pid, address: usize) -> Result<Option<u64>, Errno> {
        ptrace::seize(pid, ptrace::Options::empty())?;
        ptrace::interrupt(pid)?;
        match waitpid(pid, None)? {
            WaitStatus::PtraceEvent(..) | WaitStatus::Stopped(..) => {}
            _ => return Err(Errno::ECHILD),
        }
        let at = address as *mut libc::c_void;
        if self == Self::Peek {
            return ptrace::read(pid, at).map(|word| Some(word.cast_unsigned()));
        }
        ptrace::write(pid, at, tag::WROTE.cast_signed()).map(|()| None)
    }

    fn through_file(self, pid: Pid, address: usize) -> Result<Option<u64>, Errno> {
        let errno = |e: std::io::Error| Errno::from_raw(e.raw_os_error().unwrap_or(libc::EPIPE));
        let stores = self.stores();
        let path = format!("/proc/{pid}/mem");
        let file = File::options().read(!stores).write(stores).open(path).map_err(errno)?;
        if stores {
            file.write_at(&tag::WROTE.to_ne_bytes(), address as u64).map_err(errno)?;
            return Ok(None);
        }
        let mut word = [0; 8];
        file.read_at(&mut word, address as u64).map_err(errno)?;
        Ok(Some(u64::from_ne_bytes(word)))
    }
}

/// A process that owns a registered block; page 2 is missing, protected, or only in the page cache.
#[derive(Debug)]
pub(super) struct Owner {
    pub(super) child: Child,
    pub(super) uffd: Uffd,
    pub(super) queue: QueueFile,
}

/// Page 2 of the owner's block.
pub(super) const TARGET: Range = Range { start: BLOCK + 2 * PAGE, len: PAGE };

fn block(stage: &Stage, backing: Backing, mode: Mode) -> Result<Uffd, Stop> {
    let block = Block::map(backing, BLOCK)?;
    let bits = match mode {
        Mode::Missing => REGISTER_MODE_MISSING,
        Mode::Wp => {
            touch::store(TARGET.start, tag::KEPT)
                .map_err(|signal| Stop::Broken(format!("writing to the block: {signal}")))?;
            REGISTER_MODE_WP
        }
        Mode::Minor => {
            block.fill_cache(2)?;
            REGISTER_MODE_MINOR
        }
    };
    let uffd = stage.uffd(0)?;
    let all = block.range(0..PAGES);
    uffd.register(all, bits).map_err(|e| {
        Stop::Unsupported(format!("REGISTER of a {backing} block for {mode} faults: {e:?}"))
    })?;
    if mode == Mode::Wp {
        let rc = uffd.writeprotect(all, WRITEPROTECT_MODE_WP);
        if !rc.is_ok() {
            return Err(Stop::Broken(format!("WRITEPROTECT of the block: {rc}")));
        }
    }
    Ok(uffd)
}

impl Owner {
    /// Starts it. It then waits for a word or, with `loads`, loads from page 2 and says what it saw.
    pub(super) fn start(
        stage: &Stage,
        backing: Backing,
        mode: Mode,
        loads: bool,
    ) -> Result<Self, Stop> {
        let child = Child::fork(stage, |link| {
            let uffd = block(stage, backing, mode)?;
            link.say("made")?;
            link.pass(uffd.as_fd())?;
            if loads {
                let word = touch::load(TARGET.start).map_or_else(
                    |signal| signal.to_string(),
                    |value| crate::waiter::content(value).to_owned(),
                );
                link.say(word)?;
            }
            // Until the other side goes away.
            link.hear().map(drop)
        })?;
        // What the owner could not make becomes this side's failure.
        child.link().must_hear("made")?;
        let uffd = Uffd::from_fd(child.link().take()?);
        let queue = QueueFile::open(&uffd)?;
        let owner = Self { child, uffd, queue };
        if loads {
            owner.waits(stage)?;
            if owner.uffd.read().is_err() {
                return Err(Stop::Broken("no message of the owner".into()));
            }
        }
        Ok(owner)
    }

    pub(super) fn pid(&self) -> Pid {
        Pid::from_raw(self.child.pid())
    }

    /// Waits until the owner waits in its fault.
    pub(super) fn waits(&self, stage: &Stage) -> Result<Queue, Stop> {
        let thread = ThreadFile::of_process(self.child.pid())?;
        let deadline = Instant::now() + stage.patience;
        loop {
            let queue = self.queue.read()?;
            if queue.total == 1 && thread.is_off_cpu()? {
                return Ok(queue);
            }
            pause(deadline, "the owner does not wait in a fault")?;
        }
    }

    /// Does what resolves a fault of this mode at page 2.
    pub(super) fn resolve(&self, stage: &Stage, mode: Mode) -> Rc {
        match mode {
            Mode::Missing => self.uffd.copy(TARGET, stage.source, 0).0,
            Mode::Wp => self.uffd.writeprotect(TARGET, 0),
            Mode::Minor => self.uffd.resume(TARGET, 0).0,
        }
    }
}
