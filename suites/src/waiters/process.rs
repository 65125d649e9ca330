//! A waiter that is a process of its own, killed or stopped while it waits.

use super::signal::{Sleep, admit, sleep};
use super::uring::{Io, Submitted};
use crate::abi::{REGISTER_MODE_MISSING, Range, Uffd};
use crate::access::{Access, Accessor};
use crate::crowd::pause;
use crate::evidence::{QueueFile, ThreadFile};
use crate::expect::{Expected, OBSERVED};
use crate::memory::{BLOCK, Block, ONE_PAGE};
use crate::model::source;
use crate::outcome::{Seen, Stop};
use crate::point::{Backing, PAGES, Waiter as Kind};
use crate::probe::{Case, Probe, Trial};
use crate::process;
use crate::scenario::fault_word;
use crate::stage::Stage;
use nix::errno::Errno;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Instant;
use uffd_results::KernelVersion;

static FATAL: Probe = Probe {
    suite: "waiters",
    name: "process",
    statement: "A fatal signal ends a process that waits, in whatever way, and its memory can then no \
                longer be filled; SIGSTOP stops only one that faulted in user mode, which parks anew \
                when it goes on.",
    consumers: &["CRIU: tasks killed during lazy restore", "QEMU: vhost-user backends", "gdb"],
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    /// None: the control, which COPY ends.
    Copy,
    Kill,
    /// A signal whose default action ends the process.
    Terminate,
    /// SIGSTOP, and later SIGCONT.
    Stop,
}

impl Act {
    const ALL: [Self; 4] = [Self::Copy, Self::Kill, Self::Terminate, Self::Stop];

    const fn word(self) -> &'static str {
        match self {
            Self::Copy => "copy",
            Self::Kill => "sigkill",
            Self::Terminate => "sigterm",
            Self::Stop => "sigstop",
        }
    }

    const fn signal(self) -> i32 {
        match self {
            Self::Copy => 0,
            Self::Kill => libc::SIGKILL,
            Self::Terminate => libc::SIGTERM,
            Self::Stop => libc::SIGSTOP,
        }
    }
}

/// How the child reaches the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    /// As a waiter of the grid.
    Kind(Kind),
    /// In a request of io_uring.
    Request(Submitted),
}

impl Who {
    fn word(self) -> String {
        match self {
            Self::Kind(kind) => kind.to_string(),
            Self::Request(what) => format!("uring-{what}"),
        }
    }

    /// Makes the access of `page`, which is returned to be made later.
    fn prepare(self, stage: &Stage, page: Range) -> Result<Box<dyn Fn() -> Access>, Stop> {
        Ok(match self {
            Self::Kind(kind) => {
                let accessor = Accessor::new(stage, kind, page)?;
                Box::new(move || accessor.go())
            }
            Self::Request(what) => {
                let io = Io::new(what, page)?;
                Box::new(move || io.go())
            }
        })
    }

    fn write_faults(self, backing: Backing) -> bool {
        match self {
            Self::Kind(kind) => kind.write_faults(backing),
            Self::Request(what) => what.stores(),
        }
    }

    fn in_kernel(self) -> bool {
        match self {
            Self::Kind(kind) => kind.in_kernel(),
            Self::Request(_) => true,
        }
    }

    fn sleep(self) -> Sleep {
        match self {
            Self::Kind(kind) => sleep(kind),
            Self::Request(_) => Sleep::Spins,
        }
    }
}

#[derive(Debug)]
struct Process {
    backing: Backing,
    who: Who,
    act: Act,
}

/// The child, as its parent sees it.
struct Child<'a> {
    pid: Pid,
    uffd: Uffd,
    queue: QueueFile,
    thread: ThreadFile,
    stage: &'a Stage,
}

/// The exit code of a child that could not set its scene.
const fn code(stop: &Stop) -> i32 {
    match stop {
        Stop::Unsupported(_) => 5,
        Stop::Denied(_) => 6,
        Stop::Precondition(_) => 4,
        Stop::Hang(_) | Stop::Broken(_) => 2,
    }
}

/// What a child's exit code says of why it has not parked.
fn why(code: i32) -> Stop {
    match code {
        1 => Stop::Denied("kernel-mode faults fail on this userfaultfd".into()),
        3 => Stop::Unsupported("madvise(MADV_POPULATE_*): EINVAL (5.14)".into()),
        4 => Stop::Precondition("no storage for O_DIRECT (in a VM: zram, a module)".into()),
        5 => Stop::Unsupported("io_uring_setup: ENOSYS".into()),
        6 => Stop::Denied("io_uring_setup: EPERM, or ENOMEM (over RLIMIT_MEMLOCK)".into()),
        _ => Stop::Broken(format!("the child ended with {code}")),
    }
}

fn send(pid: Pid, signal: i32) -> Result<(), Stop> {
    // SAFETY: takes plain numbers; the process is this one's child.
    let ret = unsafe { libc::kill(pid.as_raw(), signal) };
    if ret == 0 { Ok(()) } else { Err(Stop::Broken(format!("kill: {:?}", Errno::last()))) }
}

impl Process {
    /// What the child does; its exit code.
    fn be_child(&self, parent: Pid, stage: &Stage, say: &OwnedFd) -> i32 {
        process::die_with(parent);
        admit(libc::SIGTERM);
        let ready = || -> Result<_, Stop> {
            let block = Block::map(self.backing, BLOCK)?;
            let access = self.who.prepare(stage, block.range(2..3))?;
            let uffd = stage.uffd(0)?;
            uffd.register(block.range(0..PAGES), REGISTER_MODE_MISSING)
                .map_err(|e| Stop::Broken(format!("REGISTER: {e:?}")))?;
            Ok((access, uffd))
        };
        let (access, uffd) = match ready() {
            Ok(ready) => ready,
            Err(stop) => {
                let code = code(&stop);
                // In place of a descriptor's number. The pipe stays open with the shared descriptors.
                let _ = nix::unistd::write(say, &(-code).to_ne_bytes());
                return code;
            }
        };
        let number = std::os::fd::AsFd::as_fd(&uffd).as_raw_fd();
        // The parent closes it.
        std::mem::forget(uffd);
        if nix::unistd::write(say, &number.to_ne_bytes()).is_err() {
            return 2;
        }
        match access() {
            Access::Ran(_) => 0,
            Access::Failed(Errno::EINVAL) => 3,
            _ => 1,
        }
    }

    fn start<'a>(&self, stage: &'a Stage) -> Result<Child<'a>, Stop> {
        use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
        let (hear, say) = nix::unistd::pipe().map_err(|e| Stop::Broken(format!("pipe: {e:?}")))?;
        let parent = Pid::this();
        // Both see its userfaultfd.
        let pid = process::fork_with(libc::CLONE_FILES, || self.be_child(parent, stage, &say))
            .map_err(|e| Stop::Broken(format!("clone: {e:?}")))?;
        let mut fds = [PollFd::new(std::os::fd::AsFd::as_fd(&hear), PollFlags::POLLIN)];
        let timeout = PollTimeout::try_from(stage.patience).unwrap_or(PollTimeout::MAX);
        if poll(&mut fds, timeout) != Ok(1) {
            return Err(Stop::Broken("the child said nothing".into()));
        }
        let mut number = [0; 4];
        nix::unistd::read(&hear, &mut number).map_err(|e| Stop::Broken(format!("read: {e:?}")))?;
        let number = i32::from_ne_bytes(number);
        if number < 0 {
            let _ = waitpid(pid, None);
            return Err(why(-number));
        }
        let uffd = Uffd::from_fd(process::adopt(number));
        let (queue, thread) = (QueueFile::open(&uffd)?, ThreadFile::of_process(pid.as_raw())?);
        Ok(Child { pid, uffd, queue, thread, stage })
    }
}

impl Child<'_> {
    /// Waits until it has parked with an unread message.
    fn parked(&self) -> Result<(), Stop> {
        let deadline = Instant::now() + self.stage.patience;
        while self.queue.read()?.pending == 0 || !self.thread.is_off_cpu()? {
            if let Ok(WaitStatus::Exited(_, code)) = waitpid(self.pid, Some(WaitPidFlag::WNOHANG)) {
                return Err(why(code));
            }
            pause(deadline, "the child did not park")?;
        }
        Ok(())
    }

    /// What SIGSTOP did to it.
    fn stop(&self, in_kernel: bool) -> Result<&'static str, Stop> {
        let before = self.thread.read()?;
        send(self.pid, libc::SIGSTOP)?;
        let deadline = Instant::now() + self.stage.patience;
        let mut messages = 0;
        loop {
            if self.has_stopped(Some(WaitPidFlag::WNOHANG))? {
                return Ok("stopped");
            }
            if messages == 0 && self.thread.is_off_cpu()? && self.thread.read()? == before {
                let queue = self.queue.read()?;
                if (queue.total, queue.pending) == (1, 0) {
                    return Ok("asleep");
                }
            }
            if in_kernel && self.uffd.read().is_ok() {
                messages += 1;
                if messages == 3 {
                    return Ok("spins");
                }
            }
            pause(deadline, "SIGSTOP had no end")?;
        }
    }

    fn has_stopped(&self, flag: Option<WaitPidFlag>) -> Result<bool, Stop> {
        let flags = WaitPidFlag::WUNTRACED | flag.unwrap_or(WaitPidFlag::empty());
        match waitpid(self.pid, Some(flags)) {
            Ok(WaitStatus::Stopped(..)) => Ok(true),
            Ok(WaitStatus::StillAlive) => Ok(false),
            other => Err(Stop::Broken(format!("waiting for the child to stop: {other:?}"))),
        }
    }

    /// Waits for its end.
    fn end(&self) -> String {
        match waitpid(self.pid, None) {
            Ok(WaitStatus::Exited(_, code)) => format!("exited:{code}"),
            Ok(WaitStatus::Signaled(_, signal, _)) => signal.to_string(),
            other => format!("{other:?}"),
        }
    }
}

impl Trial for Process {
    fn axes(&self) -> String {
        format!("backing={},waiter={},op={}", self.backing, self.who.word(), self.act.word())
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        seen.step("set-up");
        let child = self.start(stage)?;
        let target = Range { start: BLOCK + 2 * crate::memory::PAGE, len: crate::memory::PAGE };
        seen.step("park");
        child.parked()?;
        match child.uffd.read() {
            Ok(crate::abi::Message::Pagefault { flags, .. }) => {
                seen.fact("fault", fault_word(flags));
            }
            other => return Err(Stop::Broken(format!("reading the message: {other:?}"))),
        }
        seen.fact("queue", child.queue.read()?);
        seen.step("signal");
        let stopped = match self.act {
            Act::Copy => None,
            Act::Kill | Act::Terminate => {
                send(child.pid, self.act.signal())?;
                seen.fact("ended", child.end());
                seen.fact("queue-after", child.queue.read()?);
                None
            }
            Act::Stop => {
                let effect = child.stop(self.who.in_kernel())?;
                seen.fact("stop", effect);
                if effect == "stopped" {
                    seen.fact("queue-stopped", child.queue.read()?);
                    send(child.pid, libc::SIGCONT)?;
                    child.parked()?;
                    seen.fact("queue-continued", child.queue.read()?);
                }
                Some(effect)
            }
        };
        seen.step("copy");
        let (rc, field) = child.uffd.copy(target, stage.source, 0);
        seen.fact("copy", rc);
        seen.fact("field", field);
        if stopped.is_some_and(|effect| effect != "stopped") {
            let late = child.has_stopped(None)?;
            seen.fact("then", if late { "stopped" } else { "runs" });
            send(child.pid, libc::SIGCONT)?;
        }
        if matches!(self.act, Act::Copy | Act::Stop) {
            seen.fact("ended", child.end());
        }
        Ok(())
    }

    fn expect(&self, _: KernelVersion) -> Vec<Expected> {
        let Self { backing, who, act } = *self;
        let fault = if who.write_faults(backing) { "write" } else { "read" };
        let mut facts = vec![
            Expected::new("fault", fault, source::QUEUE),
            Expected::new("queue", "1/0", source::QUEUE),
        ];
        let mut say =
            |name, value: &'static str, says| facts.push(Expected::new(name, value, says));
        let dead = match act {
            Act::Copy | Act::Stop => None,
            Act::Kill => Some("SIGKILL"),
            Act::Terminate => Some("SIGTERM"),
        };
        if let Some(signal) = dead {
            say("ended", signal, FATALLY);
            say("queue-after", "0/0", FATALLY);
            say("copy", "ESRCH", GONE);
            say("field", "untouched", GONE);
            return facts;
        }
        if act == Act::Stop {
            match who.sleep() {
                Sleep::User => {
                    say("stop", "stopped", STOPS);
                    say("queue-stopped", "0/0", STOPS);
                    say("queue-continued", "1/1", source::RERUN);
                }
                Sleep::Killable => say("stop", "asleep", STOPS),
                Sleep::Spins => say("stop", "spins", STOPS),
            }
        }
        say("copy", "0", source::COPY);
        say("field", ONE_PAGE, source::COPY);
        if act == Act::Stop && who.sleep() != Sleep::User {
            say("then", "stopped", OBSERVED);
        }
        say("ended", "exited:0", source::COPY);
        facts
    }

    fn recipe(&self) -> Vec<String> {
        vec![
            "fork a child (CLONE_FILES) that maps a block, registers it with its own userfaultfd and \
             accesses page 2"
                .into(),
            format!("it parks ({}); read its message", self.who.word()),
            format!("{} of the child", self.act.word()),
            "UFFDIO_COPY to page 2; SIGCONT if it was stopped; wait for its end".into(),
        ]
    }
}

const FATALLY: &str =
    "userfaultfd_get_blocking_state() in fs/userfaultfd.c: every wait is killable";
const GONE: &str = "ioctl_userfaultfd(2), UFFDIO_COPY, ESRCH: the process has exited";
const STOPS: &str = "userfaultfd_get_blocking_state(), fault_signal_pending(): a stop is no fatal \
    signal, and a process stops where it returns to user mode";

/// The cases.
pub(super) fn cases(cases: &mut Vec<Case>) {
    for backing in [Backing::Anon, Backing::Shmem, Backing::Private, Backing::SharedAnon] {
        for kind in Kind::TASKS.iter().filter(|kind| **kind != Kind::None) {
            for act in Act::ALL {
                let by_default = backing == Backing::Anon;
                let trial = Process { backing, who: Who::Kind(*kind), act };
                cases.push(Case::trial(&FATAL, trial, by_default));
            }
        }
        for what in Submitted::ALL {
            for act in [Act::Copy, Act::Kill] {
                let by_default = backing == Backing::Anon;
                let trial = Process { backing, who: Who::Request(*what), act };
                cases.push(Case::trial(&FATAL, trial, by_default));
            }
        }
    }
}
