//! A COPY that waits for its source while the process whose memory it fills goes.

use super::own::page;
use super::stopped::{Copying, GATE, Gate, map_page, word};
use crate::abi::{REGISTER_MODE_MISSING, Uffd};
use crate::events::ground::{self, MISSING};
use crate::expect::Expected;
use crate::memory::{BLOCK, Block, ONE_PAGE};
use crate::model::source as says;
use crate::mover;
use crate::outcome::{Seen, Stop};
use crate::point::{Backing, PAGES, axis};
use crate::probe::{Case, Probe, Trial};
use crate::process::{self, Child};
use crate::stage::Stage;
use std::os::fd::AsFd;
use uffd_results::KernelVersion;

static OWNER: Probe = Probe {
    suite: "races",
    name: "copy-owner-ends",
    statement: "A COPY that waits for its source keeps the memory of the process that it fills: it is done \
                after that process has ended or runs another program, and only the next one is ESRCH.",
    consumers: &["Firecracker UFFD handlers: a guest that ends while a fault is served"],
};

axis! {
    /// How the process goes whose memory is filled.
    Goes {
        /// It stays: the control.
        Stays = "lives",
        /// It is killed.
        Killed = "sigkill",
        /// It ends by itself.
        Exits = "exit",
        /// It runs another program.
        Execs = "execve",
    }
}

#[derive(Debug)]
struct Owner {
    backing: Backing,
    goes: Goes,
}

impl Trial for Owner {
    fn axes(&self) -> String {
        format!("backing={},how={}", self.backing, self.goes)
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        seen.step("set-up");
        let program = process::program()?;
        let goes = self.goes;
        let mut child = Child::fork(stage, |link| {
            let block = Block::map(self.backing, BLOCK)?;
            let uffd = stage.uffd(0)?;
            ground::register(&uffd, block.range(0..PAGES))?;
            link.pass(uffd.as_fd())?;
            link.hear()?;
            if goes == Goes::Execs {
                return Err(process::exec(program.as_fd()));
            }
            Ok(())
        })?;
        let uffd: &'static Uffd = Box::leak(Box::new(Uffd::from_fd(child.link().take()?)));
        map_page(GATE)?;
        let gate = Gate::shut(stage, REGISTER_MODE_MISSING)?;
        seen.step("copy");
        let at = (GATE.start, (&gate.uffd, &gate.queue));
        let mut copying = Copying::start(stage, at, uffd, (page(MISSING), GATE.start))?;
        seen.step("end");
        match goes {
            Goes::Stays => {}
            Goes::Killed => {
                child.kill()?;
                child.wait()?;
            }
            Goes::Exits => {
                child.link().say("end")?;
                child.wait()?;
            }
            Goes::Execs => {
                child.link().say("end")?;
                child.link().must_hear("end")?;
            }
        }
        seen.fact("waits", word(copying.stopped.thread().look_alone()?));
        let other = page(MISSING + 1);
        let (rc, field) = uffd.copy(other, stage.source, 0);
        seen.fact("beside", rc);
        seen.fact("beside-field", field);
        seen.fact("source", gate.uffd.copy(GATE, stage.source, 0).0);
        let (rc, field) = copying.end()?;
        seen.fact("copy", rc);
        seen.fact("field", field);
        let (rc, field) = uffd.copy(page(MISSING + 2), stage.source, 0);
        seen.fact("after", rc);
        seen.fact("after-field", field);
        seen.fact("read", mover::word(uffd.read()));
        Ok(())
    }

    fn expect(&self, _: KernelVersion) -> Vec<Expected> {
        let keeps = "userfaultfd_copy(): mmget_not_zero() holds the memory until the COPY has returned, \
                     mappings and all";
        let gone = self.goes != Goes::Stays;
        vec![
            Expected::new("waits", "asleep", says::QUEUE),
            Expected::new("beside", "0", keeps),
            Expected::new("beside-field", ONE_PAGE, keeps),
            Expected::new("source", "0", says::COPY),
            Expected::new("copy", "0", keeps),
            Expected::new("field", ONE_PAGE, keeps),
            Expected::new("after", if gone { "ESRCH" } else { "0" }, keeps),
            Expected::new("after-field", if gone { "untouched" } else { ONE_PAGE }, keeps),
            Expected::new("read", "EAGAIN", says::QUEUE),
        ]
    }

    fn recipe(&self) -> Vec<String> {
        vec![
            format!("a child registers a block of 6 pages ({}) and passes its userfaultfd", self.backing),
            "register a page of own memory with a second userfaultfd; a thread copies it to page 2 of \
             the child, and parks on it"
                .to_owned(),
            format!("the child: {}", self.goes),
            "UFFDIO_COPY to page 3 of the child; serve the source; what the first COPY returned".to_owned(),
            "UFFDIO_COPY to page 4; read once".to_owned(),
        ]
    }
}

/// The cases.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for backing in [Backing::Anon, Backing::Shmem, Backing::Private] {
        for goes in Goes::ALL {
            let trial = Owner { backing, goes: *goes };
            cases.push(Case::trial(&OWNER, trial, backing != Backing::Private));
        }
    }
    cases
}
