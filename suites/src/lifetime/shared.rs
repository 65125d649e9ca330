//! Processes that share the owner's memory without being its threads.

use super::fork::OWNER;
use crate::abi::features;
use crate::evidence;
use crate::expect::{Expected, OBSERVED};
use crate::memory::{BLOCK, Block, tag};
use crate::model::source;
use crate::outcome::{Seen, Stop};
use crate::point::{Backing, PAGES};
use crate::probe::{Case, Probe, Trial};
use crate::stage::Stage;
use crate::touch;
use uffd_results::KernelVersion;

/// Processes that share the memory, and so the registration.
#[derive(Debug)]
struct Shared {
    kind: &'static str,
    serve: &'static str,
}

static SHARED: Probe = Probe {
    suite: "lifetime",
    name: "clone-vm",
    statement: "A process that shares the memory (CLONE_VM) waits on the owner's userfaultfd like a thread, and \
                the memory lives until the last of them ends.",
    consumers: &["vfork(2) callers in QEMU and CRIU", "crosvm: minijail forks"],
};

impl Trial for Shared {
    fn axes(&self) -> String {
        format!("access={},serve={}", self.kind, self.serve)
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        let uffd = stage.uffd(features::THREAD_ID)?;
        let block = Block::map(Backing::Anon, BLOCK)?;
        uffd.register(block.range(0..PAGES), crate::abi::REGISTER_MODE_MISSING)
            .map_err(|e| Stop::Broken(format!("REGISTER: {e:?}")))?;
        let queue = evidence::QueueFile::open(&uffd)?;
        let page = block.range(2..3);
        let stores = self.kind == "store";
        seen.step("clone");
        let mut twin = crate::process::Twin::start(stage, move || {
            if stores {
                touch::store(page.start, tag::WROTE).is_ok()
            } else {
                touch::load(page.start) == Ok(tag::COPIED)
            }
        })?;
        twin.wait_until(stage, || Ok(queue.read()?.total == 1))?;
        let message = uffd.read();
        seen.fact(
            "tid",
            match message {
                Ok(crate::abi::Message::Pagefault { tid, .. }) => {
                    if i32::try_from(tid) == Ok(twin.pid()) { "twin" } else { "other" }
                }
                _ => "none",
            },
        );
        match self.serve {
            "copy" => seen.fact("serve", uffd.copy(page, stage.source, 0).0),
            "zeropage" => seen.fact("serve", uffd.zeropage(page, 0).0),
            _ => {
                twin.kill()?;
                seen.fact("serve", "kill");
            }
        }
        seen.fact("ended", twin.wait(stage)?);
        seen.fact("queue", queue.read()?);
        let letter = |value| stage.letter(value);
        seen.fact("pages", evidence::pages(block.range(0..PAGES), block.page, &letter)?);
        // The memory outlives the one that ended.
        seen.fact("copy", uffd.copy(block.range(4..5), stage.source, 0).0);
        Ok(())
    }

    fn expect(&self, _: KernelVersion) -> Vec<Expected> {
        let kill = self.serve == "kill";
        let stores = self.kind == "store";
        let right = self.serve == "copy" || stores;
        let ended = match (kill, right) {
            (true, _) => "killed:SIGKILL",
            (false, true) => "exit:0",
            (false, false) => "exit:1",
        };
        let page = match (self.serve, stores) {
            ("kill", _) => "-",
            (_, true) => "w",
            ("copy", false) => "c",
            _ => "0",
        };
        vec![
            Expected::new("tid", "twin", "userfault_msg(): task_pid_vnr() of who faults"),
            Expected::new("serve", if kill { "kill" } else { "0" }, OBSERVED),
            Expected::new("ended", ended, OBSERVED),
            Expected::new("queue", "0/0", source::QUEUE),
            Expected::new("pages", format!("--{page}---"), OBSERVED),
            Expected::new("copy", "0", OWNER),
        ]
    }

    fn recipe(&self) -> Vec<String> {
        vec![
            format!(
                "map and register a block; a process made with CLONE_VM: {} of page 2",
                self.kind
            ),
            format!("read its message; then {}; wait for its end", self.serve),
        ]
    }
}

/// The cases.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for kind in ["load", "store"] {
        for serve in ["copy", "zeropage", "kill"] {
            cases.push(Case::trial(&SHARED, Shared { kind, serve }, true));
        }
    }
    cases
}
