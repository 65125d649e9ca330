//! What becomes of an unread event when its range is unregistered, and when a read of it fails.

use super::ground::Ground;
use super::raised::{self, Asked};
use super::raiser::Raiser;
use crate::expect::Expected;
use crate::memory::{ONE_PAGE, OTHER};
use crate::outcome::{Seen, Stop};
use crate::point::{Backing, PAGES, axis};
use crate::probe::{Case, Probe, Trial};
use crate::stage::Stage;
use uffd_results::KernelVersion;

static UNREGISTER: Probe = Probe {
    suite: "events",
    name: "unregister",
    statement: "UNREGISTER works while an event is unread and does not take the event away; of a range \
                that the call has unmapped or moved it fails with EINVAL.",
    consumers: &[
        "crosvm: vmm-swap (REMOVE read after UNREGISTER)",
        "CRIU lazy-pages: handle_remove(), criu/uffd.c",
        "Firecracker UFFD handlers: unregister_range()",
        "libfabric: ofi_uffd_unsubscribe(), prov/util/src/util_mem_monitor.c",
    ],
};
static LOST: Probe = Probe {
    suite: "events",
    name: "read-fault",
    statement: "A read whose buffer is not writable fails with EFAULT and loses the event: its caller \
                goes on, and no other read brings it.",
    consumers: &["every handler that reads into memory that it may have unmapped"],
};

axis! {
    /// What is unregistered.
    Range {
        /// The block.
        Block = "block",
        /// The event's range.
        Event = "event",
    }
}

impl Asked for Range {
    const AXIS: &'static str = "range";

    fn ask(self, event: Raiser, ground: Ground<'_>, seen: &mut Seen<'_>) -> Result<(), Stop> {
        let raised = event.raise(&ground)?;
        seen.step("unregister");
        let pages = if self == Self::Block { 0..PAGES } else { 0..1 };
        seen.fact("unregister", ground.uffd.unregister(ground.block.range(pages)));
        seen.fact("event", ground.read());
        seen.fact("call", raised.join()?);
        seen.fact("left", ground.read());
        seen.fact("reg", ground.registration()?);
        let (rc, field) = ground.uffd.copy(ground.target(), ground.stage.source, 0);
        seen.fact("copy", rc);
        seen.fact("field", field);
        Ok(())
    }

    fn expect(self, event: Raiser, _: KernelVersion) -> Vec<Expected> {
        use crate::model::source;
        let stays = "userfaultfd_unregister() wakes waiters of faults and touches no event";
        let is_hole = matches!(event, Raiser::Unmap | Raiser::Remap);
        let all = self == Self::Block;
        let refused = is_hole && !all;
        let reg = match (is_hole, all) {
            (true, true) => "-.....",
            (true, false) => "-mmmmm",
            (false, true) => "......",
            (false, false) => ".mmmmm",
        };
        let why = if refused { source::UNREGISTER_EINVAL } else { source::UNREGISTER };
        vec![
            Expected::new("unregister", if refused { "EINVAL" } else { "0" }, why),
            Expected::new("event", event.event(0), stays),
            Expected::new("call", "0", stays),
            Expected::new("left", "EAGAIN", stays),
            Expected::new("reg", reg, why),
            Expected::new("copy", if all { "ENOENT" } else { "0" }, source::COPY_ENOENT),
            Expected::new("field", if all { "-2" } else { ONE_PAGE }, source::COPY_ENOENT),
        ]
    }

    fn recipe(self, event: Raiser) -> Vec<String> {
        vec![
            "map and register a block of 6 pages, page 2 missing".to_owned(),
            event.recipe(0),
            format!(
                "UFFDIO_UNREGISTER of the {}",
                match self {
                    Self::Block => "block",
                    Self::Event => "page of the call",
                }
            ),
            "read twice, between them wait until the call has returned".to_owned(),
            "look at the registration; UFFDIO_COPY to page 2".to_owned(),
        ]
    }
}

#[derive(Debug)]
struct Lost {
    backing: Backing,
    event: Raiser,
}

impl Trial for Lost {
    fn axes(&self) -> String {
        format!("backing={},event={}", self.backing, self.event)
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        seen.step("set-up");
        let ground = Ground::set(stage, self.backing, self.event.feature())?;
        let raised = self.event.raise(&ground)?;
        seen.step("read");
        seen.fact("read", ground.uffd.read_to(OTHER));
        seen.fact("call", raised.join()?);
        seen.fact("left", ground.read());
        let (rc, field) = ground.uffd.copy(ground.target(), stage.source, 0);
        seen.fact("copy", rc);
        seen.fact("field", field);
        Ok(())
    }

    fn expect(&self, _: KernelVersion) -> Vec<Expected> {
        let says =
            "userfaultfd_read_iter(): the event is complete before its message is copied out";
        vec![
            Expected::new("read", "EFAULT", says),
            Expected::new("call", "0", says),
            Expected::new("left", "EAGAIN", says),
            Expected::new("copy", "0", says),
            Expected::new("field", ONE_PAGE, says),
        ]
    }

    fn recipe(&self) -> Vec<String> {
        vec![
            "map and register a block of 6 pages, page 2 missing".to_owned(),
            self.event.recipe(0),
            "read(2) into addresses where nothing is mapped".to_owned(),
            "wait until the call has returned; read again; UFFDIO_COPY to page 2".to_owned(),
        ]
    }
}

/// The cases.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for backing in [Backing::Anon, Backing::Shmem, Backing::Private] {
        let by_default = backing != Backing::Private;
        for event in Raiser::ALL {
            let event = *event;
            for range in Range::ALL {
                if event != Raiser::Fork || *range == Range::Block {
                    let asked = (backing, event, *range);
                    cases.push(raised::case(&UNREGISTER, asked, by_default));
                }
            }
            cases.push(Case::trial(&LOST, Lost { backing, event }, by_default));
        }
    }
    cases
}
