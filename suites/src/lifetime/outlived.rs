//! The process that made a userfaultfd ends, and another one that shares its memory goes on.

use super::fork::OWNER;
use crate::abi::{Message, REGISTER_MODE_MISSING, Uffd};
use crate::evidence::{QueueFile, ThreadFile};
use crate::expect::{Expected, OBSERVED};
use crate::memory::{BLOCK, Block, ONE_PAGE, PAGE, tag};
use crate::model::source;
use crate::outcome::{Seen, Stop};
use crate::point::{Backing, PAGES, axis};
use crate::probe::{Case, Probe, Trial};
use crate::process::{Child, Link, Twin};
use crate::scenario::fault_word;
use crate::stage::Stage;
use crate::touch;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use std::os::fd::AsFd;
use std::time::Instant;
use uffd_results::KernelVersion;

static OUTLIVED: Probe = Probe {
    suite: "lifetime",
    name: "clone-vm-owner-ends",
    statement: "When the process that made the userfaultfd ends before one that shares its memory (CLONE_VM), the \
                other's fault waits on and is served as before; ESRCH comes once the last of them has ended.",
    consumers: &[
        "vfork(2) callers in QEMU and CRIU",
        "handlers that watch the process that sent the descriptor",
    ],
};

axis! {
    /// How the first process ends.
    Ends {
        /// It exits.
        Exits = "exit",
        /// SIGKILL.
        Killed = "kill",
    }
}

axis! {
    /// What ends the other one's wait.
    Serve {
        /// UFFDIO_COPY.
        Copy = "copy",
        /// UFFDIO_ZEROPAGE.
        Zeropage = "zeropage",
        /// SIGKILL.
        Kill = "kill",
    }
}

#[derive(Debug)]
struct Outlived {
    stores: bool,
    ends: Ends,
    serve: Serve,
}

/// The page that the other process waits for.
const TARGET: usize = 2;

fn broken(what: &str, e: Errno) -> Stop {
    Stop::Broken(format!("{what}: {e:?}"))
}

impl Outlived {
    /// The life of the first process.
    fn live(&self, stage: &Stage, link: &Link) -> Result<(), Stop> {
        let block = Block::map(Backing::Anon, BLOCK)?;
        let uffd = stage.uffd(0)?;
        uffd.register(block.range(0..PAGES), REGISTER_MODE_MISSING)
            .map_err(|e| Stop::Broken(format!("REGISTER: {e:?}")))?;
        link.say("made")?;
        link.pass(uffd.as_fd())?;
        link.must_hear("taken")?;
        // The other process gets a table of its own: who holds the descriptor now is the case alone, whose
        // end is then the last close, whatever happens.
        drop(uffd);
        let page = block.range(TARGET..TARGET + 1).start;
        let stores = self.stores;
        let twin = Twin::start(stage, move || {
            // It is to outlive this process.
            if nix::sys::prctl::set_pdeathsig(None::<nix::sys::signal::Signal>).is_err() {
                return false;
            }
            if stores {
                touch::store(page, tag::WROTE).is_ok()
            } else {
                touch::load(page) == Ok(tag::COPIED)
            }
        })?;
        link.say(twin.pid())?;
        link.must_hear("end")?;
        std::mem::forget(twin);
        Ok(())
    }
}

/// The process that goes on, a child of the case's once its own parent has ended.
struct Other<'a> {
    pid: Pid,
    stage: &'a Stage,
    ended: bool,
}

impl Other<'_> {
    fn wait(&mut self) -> Result<String, Stop> {
        let deadline = Instant::now() + self.stage.patience;
        loop {
            match waitpid(self.pid, Some(nix::sys::wait::WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::StillAlive) => {
                    crate::crowd::pause(deadline, "the other process did not end")?;
                }
                Ok(WaitStatus::Exited(_, code)) => {
                    self.ended = true;
                    return Ok(format!("exit:{code}"));
                }
                Ok(WaitStatus::Signaled(_, signal, _)) => {
                    self.ended = true;
                    return Ok(format!("killed:{signal}"));
                }
                other => return Err(Stop::Broken(format!("waitpid: {other:?}"))),
            }
        }
    }

    fn kill(&self) -> Result<(), Stop> {
        nix::sys::signal::kill(self.pid, nix::sys::signal::Signal::SIGKILL)
            .map_err(|e| broken("kill", e))
    }
}

impl Drop for Other<'_> {
    fn drop(&mut self) {
        if !self.ended {
            let _ = self.kill();
        }
    }
}

/// Waits until the other process waits in its fault, and reads its message.
fn parked(
    stage: &Stage,
    (uffd, queue): (&Uffd, &QueueFile),
    thread: &ThreadFile,
) -> Result<String, Stop> {
    let mut fds = [PollFd::new(uffd.as_fd(), PollFlags::POLLIN)];
    let patience = PollTimeout::try_from(stage.patience).unwrap_or(PollTimeout::MAX);
    match poll(&mut fds, patience) {
        Ok(0) => return Err(Stop::Hang("the other process did not fault".into())),
        Ok(_) => {}
        Err(e) => return Err(broken("poll", e)),
    }
    let deadline = Instant::now() + stage.patience;
    while queue.read()?.total != 1 || thread.asleep()?.is_none() {
        crate::crowd::pause(deadline, "the other process queued a message and never slept")?;
    }
    match uffd.read() {
        Ok(Message::Pagefault { flags, .. }) => Ok(fault_word(flags)),
        other => Err(Stop::Broken(format!("reading the message: {other:?}"))),
    }
}

impl Trial for Outlived {
    fn axes(&self) -> String {
        let access = if self.stores { "store" } else { "load" };
        format!("access={access},ends={},serve={}", self.ends, self.serve)
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        seen.step("set-up");
        nix::sys::prctl::set_child_subreaper(true)
            .map_err(|e| broken("PR_SET_CHILD_SUBREAPER", e))?;
        let mut owner = Child::fork(stage, |link| self.live(stage, link))?;
        owner.link().must_hear("made")?;
        let uffd = Uffd::from_fd(owner.link().take()?);
        let queue = QueueFile::open(&uffd)?;
        owner.link().say("taken")?;
        let word = owner.link().hear()?;
        let pid = word.parse().map_err(|_| Stop::Broken(format!("heard {word:?}")))?;
        let mut other = Other { pid: Pid::from_raw(pid), stage, ended: false };
        seen.step("park");
        let thread = ThreadFile::of_process(pid)?;
        seen.fact("fault", parked(stage, (&uffd, &queue), &thread)?);
        let before = thread.read()?;
        seen.step("end");
        match self.ends {
            Ends::Exits => owner.link().say("end")?,
            Ends::Killed => owner.kill()?,
        }
        seen.fact("owner", owner.wait()?);
        seen.fact("waiter", if thread.asleep()? == Some(before) { "asleep" } else { "ran" });
        seen.fact("queue", queue.read()?);
        seen.step("serve");
        let at = |page| crate::abi::Range { start: BLOCK + page * PAGE, len: PAGE };
        seen.fact("neighbour", uffd.copy(at(TARGET + 2), stage.source, 0).0);
        let served = match self.serve {
            Serve::Copy => Some(uffd.copy(at(TARGET), stage.source, 0)),
            Serve::Zeropage => Some(uffd.zeropage(at(TARGET), 0)),
            Serve::Kill => None,
        };
        match served {
            Some((rc, field)) => {
                seen.fact("serve", rc);
                seen.fact("field", field);
            }
            None => other.kill()?,
        }
        seen.fact("last", other.wait()?);
        seen.fact("queue-then", queue.read()?);
        let (rc, field) = uffd.copy(at(TARGET + 1), stage.source, 0);
        seen.fact("late", rc);
        seen.fact("late-field", field);
        Ok(())
    }

    fn expect(&self, _: KernelVersion) -> Vec<Expected> {
        let holds = "userfaultfd_copy() takes the memory by mmget_not_zero(): it is there as long as any process \
                     has it";
        let owner = match self.ends {
            Ends::Exits => "exit:0",
            Ends::Killed => "killed:SIGKILL",
        };
        let last = match self.serve {
            Serve::Kill => "killed:SIGKILL",
            Serve::Zeropage if !self.stores => "exit:1",
            _ => "exit:0",
        };
        let mut facts = vec![
            Expected::new("fault", if self.stores { "write" } else { "read" }, source::QUEUE),
            Expected::new("owner", owner, OBSERVED),
            Expected::new("waiter", "asleep", holds),
            Expected::new("queue", "1/0", source::QUEUE),
            Expected::new("neighbour", "0", OWNER),
        ];
        if self.serve != Serve::Kill {
            facts.push(Expected::new("serve", "0", holds));
            facts.push(Expected::new("field", ONE_PAGE, holds));
        }
        facts.extend([
            Expected::new("last", last, source::COPY),
            Expected::new("queue-then", "0/0", source::QUEUE),
            Expected::new(
                "late",
                "ESRCH",
                "userfaultfd_copy(): ESRCH once nobody has the memory (4.13)",
            ),
            Expected::new("late-field", "untouched", holds),
        ]);
        facts
    }

    fn recipe(&self) -> Vec<String> {
        let access = if self.stores { "store to" } else { "load from" };
        let ends = match self.ends {
            Ends::Exits => "let the first process exit",
            Ends::Killed => "SIGKILL to the first process",
        };
        vec![
            format!(
                "a child maps a block of {PAGES} pages, registers it, passes the userfaultfd and closes its own"
            ),
            format!(
                "it makes a process with CLONE_VM, not CLONE_FILES: a {access} page {TARGET}, which parks"
            ),
            format!("read its message; {ends}, and wait for its end; look at the waiter"),
            format!("UFFDIO_COPY of page {}", TARGET + 2),
            match self.serve {
                Serve::Kill => "SIGKILL to the second process".to_owned(),
                serve => format!("UFFDIO_{} of page {TARGET}", serve.to_string().to_uppercase()),
            },
            format!("wait for the end of the second process; UFFDIO_COPY of page {}", TARGET + 1),
        ]
    }
}

/// The cases.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for stores in [false, true] {
        for ends in Ends::ALL {
            for serve in Serve::ALL {
                let by_default = matches!(
                    (stores, ends, serve),
                    (false, Ends::Exits, Serve::Copy | Serve::Kill)
                        | (true, Ends::Killed, Serve::Copy)
                        | (true, Ends::Exits, Serve::Zeropage)
                );
                let trial = Outlived { stores, ends: *ends, serve: *serve };
                cases.push(Case::trial(&OUTLIVED, trial, by_default));
            }
        }
    }
    cases
}
