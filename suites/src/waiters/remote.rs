//! A process that waits in another one's memory, and the death of either.

use super::owner::{Owner, TARGET, Way};
use crate::crowd::pause;
use crate::evidence::ThreadFile;
use crate::expect::{Expected, OBSERVED};
use crate::memory::ONE_PAGE;
use crate::model::source;
use crate::outcome::{Seen, Stop};
use crate::point::{Backing, Mode, axis};
use crate::probe::{Case, Probe, Trial};
use crate::process::Child;
use crate::stage::Stage;
use crate::waiter::{Access, Fate, user_mode_only};
use nix::errno::Errno;
use std::time::Instant;
use uffd_results::KernelVersion;

static REMOTE: Probe = Probe {
    suite: "waiters",
    name: "remote",
    statement: "SIGKILL ends a process that waits in process_vm_readv(2) of another one, whose memory \
                stays; the death of that other one does not: who waits holds the memory, which can be \
                filled until it is let go.",
    consumers: &["CRIU: dumping a task that is restored lazily", "gdb", "UCX, Open MPI: CMA"],
};

axis! {
    /// Who is killed.
    Killed {
        /// Nobody: the control, which COPY ends.
        Nobody = "nobody",
        /// The process that waits.
        Waiter = "waiter",
        /// The process whose memory it waits for.
        Owner = "owner",
    }
}

#[derive(Debug)]
struct Remote {
    backing: Backing,
    way: Way,
    killed: Killed,
}

impl Trial for Remote {
    fn axes(&self) -> String {
        format!("backing={},access={},killed={}", self.backing, self.way, self.killed)
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        seen.step("set-up");
        let mut owner = Owner::start(stage, self.backing, Mode::Missing, false)?;
        let (way, pid) = (self.way, owner.pid());
        seen.step("park");
        let mut waiter = Child::fork(stage, |link| {
            link.say(stage.word(Fate::Ended(way.reach(pid, TARGET.start))))
        })?;
        if !waiter.link().faults_first(&owner.uffd)? {
            return Err(match waiter.link().hear()?.as_str() {
                word if word == Access::Failed(Errno::EPERM).to_string() => {
                    Stop::Denied("process_vm_readv(2): EPERM".into())
                }
                word if word == Access::Failed(Errno::EFAULT).to_string() => user_mode_only(),
                word => Stop::Broken(format!("the waiter did not park: {word}")),
            });
        }
        let thread = ThreadFile::of_process(waiter.pid())?;
        let deadline = Instant::now() + stage.patience;
        while !thread.is_off_cpu()? {
            pause(deadline, "the waiter queued a message and never slept")?;
        }
        if owner.uffd.read().is_err() {
            return Err(Stop::Broken("no message of the waiter".into()));
        }
        seen.fact("queue", owner.queue.read()?);
        seen.step("kill");
        match self.killed {
            Killed::Nobody => {}
            Killed::Waiter => {
                waiter.kill()?;
                seen.fact("ended", waiter.wait()?);
            }
            Killed::Owner => {
                owner.child.kill()?;
                seen.fact("ended", owner.child.wait()?);
            }
        }
        seen.fact("queue-after", owner.queue.read()?);
        seen.step("copy");
        let (rc, field) = owner.uffd.copy(TARGET, stage.source, 0);
        seen.fact("copy", rc);
        seen.fact("field", field);
        if self.killed != Killed::Waiter {
            seen.fact("waiter", waiter.link().hear()?);
            waiter.finish()?;
        }
        seen.fact("copy-late", owner.uffd.copy(TARGET, stage.source, 0).0);
        Ok(())
    }

    fn expect(&self, _: KernelVersion) -> Vec<Expected> {
        let mut facts = vec![Expected::new("queue", "1/0", source::QUEUE)];
        let mut say =
            |name, value: &'static str, says| facts.push(Expected::new(name, value, says));
        let (ended, after) = match self.killed {
            Killed::Nobody => (None, "1/0"),
            Killed::Waiter => (Some("killed:SIGKILL"), "0/0"),
            Killed::Owner => (Some("killed:SIGKILL"), "1/0"),
        };
        if let Some(ended) = ended {
            say("ended", ended, "signal(7)");
        }
        say("queue-after", after, HOLDS);
        say("copy", "0", HOLDS);
        say("field", ONE_PAGE, HOLDS);
        if self.killed != Killed::Waiter {
            say("waiter", if self.way.stores() { "ran" } else { "ran:copied" }, source::COPY);
        }
        let late = if self.killed == Killed::Owner { "ESRCH" } else { "EEXIST" };
        say("copy-late", late, OBSERVED);
        facts
    }

    fn recipe(&self) -> Vec<String> {
        vec![
            "a child maps a block of 6 pages, registers it and passes the userfaultfd".into(),
            format!("a second child reaches page 2 of the first ({}) and parks", self.way),
            format!("SIGKILL to: {}; look at the queue", self.killed),
            "UFFDIO_COPY to page 2; what did the waiter return? UFFDIO_COPY again".into(),
        ]
    }
}

const HOLDS: &str = "process_vm_rw_core() in mm/process_vm_access.c holds the memory (mm_access()) until it \
    returns; every wait of userfaultfd is killable";

/// The cases.
pub(super) fn cases(cases: &mut Vec<Case>) {
    for backing in [Backing::Anon, Backing::Shmem, Backing::Private] {
        for way in [Way::VmRead, Way::VmWrite] {
            for killed in Killed::ALL {
                let by_default = backing != Backing::Private;
                let trial = Remote { backing, way, killed: *killed };
                cases.push(Case::trial(&REMOTE, trial, by_default));
            }
        }
    }
}
