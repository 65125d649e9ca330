//! One access that needs two missing pages.

use crate::abi::Range;
use crate::access::Accessor;
use crate::expect::{Expected, OBSERVED};
use crate::model::source;
use crate::outcome::{Seen, Stop};
use crate::point::{Backing, Change, Mode, Msg, Op, Point, Waiter as Kind};
use crate::probe::{Case, Probe, Trial};
use crate::scenario::Scene;
use crate::stage::Stage;
use crate::waiter::{Fate, Waiter};
use uffd_results::KernelVersion;

static TWO_PAGES: Probe = Probe {
    suite: "waiters",
    name: "two-pages",
    statement: "An access that lies on two missing pages faults on one after the other: the message \
                for the second comes only when the first is there, and not at all if one COPY has \
                brought both.",
    consumers: &["QEMU: duplicates of requests, b63a2e9e4b", "E2B orchestrator: faultPage()"],
};

#[derive(Debug)]
struct Cross {
    backing: Backing,
    kind: Kind,
    /// One COPY brings both pages.
    both: bool,
}

impl Trial for Cross {
    fn axes(&self) -> String {
        let copies = if self.both { "both-at-once" } else { "one-by-one" };
        format!("backing={},waiter={},copy={copies}", self.backing, self.kind)
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        seen.step("set-up");
        let point = Point {
            backing: self.backing,
            mode: Mode::Missing,
            change: Change::None,
            waiter: Kind::None,
            msg: Msg::Read,
            op: Op::Copy,
        };
        let scene = Scene::set(stage, point)?;
        let pages = scene.block.range(4..6);
        let half = Range { start: pages.start + scene.block.page - 4, len: scene.block.page };
        let accessor = Accessor::new(stage, self.kind, half)?;
        seen.step("park");
        let mut waiter = Waiter::begin(stage, move || accessor.go())?;
        match waiter.settle(&scene.uffd, &scene.queue)? {
            Fate::Again => {}
            other => return Err(Stop::Broken(format!("the waiter did not park: {other}"))),
        }
        let names = [("fault", "copy", "then"), ("fault-2", "copy-2", "then-2")];
        for (n, (fault, copy, then)) in names.iter().enumerate() {
            seen.fact(fault, scene.read_fault()?);
            let page = scene.block.range(4 + n..5 + n);
            let range = if self.both { pages } else { page };
            seen.fact(copy, scene.uffd.copy(range, stage.source, 0).0);
            let fate = waiter.look(&scene.uffd, &scene.queue)?;
            let word = if fate.waits() { "again" } else { "ended" };
            seen.fact(then, word);
            seen.step("second");
            if !fate.waits() {
                break;
            }
        }
        seen.fact("queue", scene.queue.read()?);
        Ok(())
    }

    fn expect(&self, _: KernelVersion) -> Vec<Expected> {
        let word = if self.kind.stores() { "write" } else { "read" };
        let mut facts = vec![
            Expected::new("fault", format!("{word}@4"), OBSERVED),
            Expected::new("copy", "0", source::COPY),
        ];
        if self.both {
            facts.push(Expected::new("then", "ended", source::COPY));
        } else {
            facts.extend([
                Expected::new("then", "again", source::RERUN),
                Expected::new("fault-2", format!("{word}@5"), source::RERUN),
                Expected::new("copy-2", "0", source::COPY),
                Expected::new("then-2", "ended", source::COPY),
            ]);
        }
        facts.push(Expected::new("queue", "0/0", source::QUEUE));
        facts
    }

    fn recipe(&self) -> Vec<String> {
        vec![
            "map and register a block of 6 pages".into(),
            format!("a thread ({}) accesses the last 4 bytes of page 4 and the first 4 of page 5", self.kind),
            "read the message; UFFDIO_COPY to that page, or of both pages; is there a second message?".into(),
        ]
    }
}

/// The cases.
pub(super) fn cases(cases: &mut Vec<Case>) {
    for backing in [Backing::Anon, Backing::Shmem, Backing::Private] {
        for kind in [
            Kind::UserRead,
            Kind::UserWrite,
            Kind::SysRead,
            Kind::SysWrite,
            Kind::VmRead,
            Kind::VmWrite,
        ] {
            for both in [false, true] {
                let by_default = backing != Backing::Private;
                cases.push(Case::trial(&TWO_PAGES, Cross { backing, kind, both }, by_default));
            }
        }
    }
}
