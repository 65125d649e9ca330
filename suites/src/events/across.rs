//! One munmap across the memory of two userfaultfds that both follow it.

use super::ground::{Ground, register, word};
use crate::abi::features;
use crate::expect::Expected;
use crate::memory;
use crate::mover::Mover;
use crate::outcome::{Seen, Stop};
use crate::point::{Backing, PAGES};
use crate::probe::{Case, Probe, Trial};
use crate::stage::Stage;
use uffd_results::KernelVersion;

static ACROSS: Probe = Probe {
    suite: "events",
    name: "unmap-across",
    statement: "A munmap across the memory of two userfaultfds raises an event at each, one after the other: \
                both name the whole range, and the call returns when both are read.",
    consumers: &["libfabric and others that follow a heap beside another user of userfaultfd"],
};

#[derive(Debug)]
struct Across(Backing);

impl Trial for Across {
    fn axes(&self) -> String {
        format!("backing={}", self.0)
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        seen.step("set-up");
        let ground = Ground::set(stage, self.0, features::EVENT_UNMAP)?;
        let (block, page) = (&ground.block, ground.block.page);
        let second = stage.uffd(features::EVENT_UNMAP)?;
        ground.uffd.unregister(block.range(4..PAGES));
        register(&second, block.range(4..PAGES))?;
        let all = block.range(0..PAGES);
        seen.step("munmap");
        let mover = Mover::start(stage, move || memory::unmap(all))?;
        let raised = |raised| if raised { "yes" } else { "no" };
        seen.fact("first", raised(mover.blocks_on_event(&ground.uffd)?));
        seen.fact("early", word(&second, page));
        seen.fact("first-event", ground.read());
        seen.fact("second", raised(mover.blocks_on_event(&second)?));
        seen.fact("second-event", word(&second, page));
        seen.fact("munmap", mover.join()?);
        seen.fact("left", ground.read());
        seen.fact("second-left", word(&second, page));
        Ok(())
    }

    fn expect(&self, _: KernelVersion) -> Vec<Expected> {
        let says = "userfaultfd_unmap_prep() notes a context once for each range; userfaultfd_unmap_complete() \
                    waits for one event after the other";
        let facts = [
            ("first", "yes"),
            ("early", "EAGAIN"),
            ("first-event", "unmap(0..6)"),
            ("second", "yes"),
            ("second-event", "unmap(0..6)"),
            ("munmap", "0"),
            ("left", "EAGAIN"),
            ("second-left", "EAGAIN"),
        ];
        crate::lab::want(says, &facts)
    }

    fn recipe(&self) -> Vec<String> {
        vec![
            format!(
                "map a block of {PAGES} pages ({}); register pages 0..4 with one userfaultfd and the others with \
                 another, both with EVENT_UNMAP",
                self.0
            ),
            "a thread calls munmap of the block; read from the second userfaultfd, then from the first, \
             then from the second; wait for the call"
                .to_owned(),
        ]
    }
}

/// The cases.
pub(super) fn cases() -> Vec<Case> {
    [Backing::Anon, Backing::Shmem].map(|b| Case::trial(&ACROSS, Across(b), true)).to_vec()
}
