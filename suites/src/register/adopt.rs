//! A waiter whose mapping was replaced, and a REGISTER of what came in its place.

use super::words::MODE;
use crate::abi::REGISTER_MODE_MISSING;
use crate::change::Prepared;
use crate::evidence;
use crate::expect::Expected;
use crate::model::source;
use crate::outcome::{Seen, Stop};
use crate::point::{
    Backing, Change, Mode, Msg, Op, Over, PAGES, Part, Point, Waiter as Kind, axis,
};
use crate::probe::{Case, Probe, Trial};
use crate::scenario::Scene;
use crate::stage::Stage;
use uffd_results::KernelVersion;

static ADOPT: Probe = Probe {
    suite: "register",
    name: "adopt",
    statement: "REGISTER of memory that was mapped over a waiter's page leaves the waiter asleep and \
                adopts it: COPY through the waiter's userfaultfd then fills the page and wakes it, \
                whoever owns the mapping.",
    consumers: &["libfabric psm3: REGISTER again after an unmap event", "QEMU: qemu_ram_remap()"],
};

axis! {
    /// Who registers the new memory.
    By {
        /// The waiter's own userfaultfd.
        Own = "own",
        /// Another one.
        Other = "other",
    }
}

/// REGISTER over a stuck waiter.
#[derive(Clone, Copy, Debug)]
struct Adopt {
    point: Point,
    by: By,
    /// Through whom COPY is called.
    copy: By,
}

impl Trial for Adopt {
    fn axes(&self) -> String {
        let Self { point: Point { backing, waiter, msg, change, .. }, by, copy } = self;
        let over = change.axes();
        format!("backing={backing},{over}waiter={waiter},msg={msg},register={by},copy={copy}")
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        seen.step("set-up");
        let scene = Scene::set(stage, self.point)?;
        let change = Prepared::new(stage, self.point.change, &scene.block)?;
        let other = stage.uffd(0)?;
        let mut waiter = scene
            .park(self.point, seen)?
            .ok_or_else(|| Stop::Broken("a point without a waiter".into()))?;
        seen.step("change");
        seen.fact("change", change.apply(stage, &scene.block)?);
        seen.fact("early", scene.uffd.copy(scene.target(), stage.source, 0).0);
        let who = |by| if by == By::Own { &scene.uffd } else { &other };
        seen.step("register");
        let part = scene.block.range(Part::Middle.pages());
        let rc = who(self.by).register(part, REGISTER_MODE_MISSING);
        seen.fact("register", rc.map_or_else(|e| format!("{e:?}"), |_| "0".to_owned()));
        let all = scene.block.range(0..PAGES);
        seen.fact("armed", evidence::registration(&[(all, scene.block.page)])?.concat());
        seen.fact("registered", stage.word(waiter.look(&scene.uffd, &scene.queue)?));
        seen.step("copy");
        let (rc, field) = who(self.copy).copy(scene.target(), stage.source, 0);
        seen.fact("copy", rc);
        seen.fact("field", field);
        scene.conclude(self.point, Some(&mut waiter), seen)
    }

    fn expect(&self, _: KernelVersion) -> Vec<Expected> {
        let waiter = self.point.waiter;
        let ran = if waiter.loads() { "ran:copied" } else { "ran" };
        let mut facts = vec![
            Expected::new("change", "0", "mmap(2)"),
            Expected::new("early", "ENOENT", source::COPY_ENOENT),
            Expected::new("register", "0", MODE),
            Expected::new("armed", "mmmmmm", MODE),
            Expected::new("registered", "asleep", source::QUEUE),
        ];
        if self.point.change == Change::MmapOver(Part::Middle, Over::Shared) {
            let says = "ioctl_userfaultfd(2), UFFDIO_COPY, EEXIST: the page is there";
            facts.push(Expected::new("copy", "EEXIST", says));
            facts.push(Expected::new("waiter", "asleep", says));
            facts.push(Expected::new("rescue", "0", source::WAKE));
            let ran = if waiter.loads() { "ran:new" } else { "ran" };
            facts.push(Expected::new("rescued", ran, source::RERUN));
            return facts;
        }
        facts.push(Expected::new("copy", "0", source::COPY));
        if self.copy == By::Own {
            facts.push(Expected::new("waiter", ran, source::COPY));
        } else {
            let says = "userfaultfd_copy() wakes only waiters of its own context";
            facts.push(Expected::new("waiter", "asleep", says));
            facts.push(Expected::new("rescue", "0", source::WAKE));
            facts.push(Expected::new("rescued", ran, source::RERUN));
        }
        facts
    }

    fn recipe(&self) -> Vec<String> {
        let Self { point, by, copy } = self;
        vec![
            format!("map and register a {} block; a {} thread parks", point.backing, point.waiter),
            "mmap other memory over its middle, where the thread waits".into(),
            format!("UFFDIO_REGISTER of the new memory, through this userfaultfd: {by}"),
            format!("UFFDIO_COPY to the thread's page, through this userfaultfd: {copy}"),
        ]
    }

    fn uses_huge_pages(&self) -> bool {
        self.point.backing.is_huge()
    }
}

/// The cases.
pub(super) fn cases() -> Vec<Case> {
    let waiters = [
        (Kind::UserRead, Msg::Read),
        (Kind::UserWrite, Msg::Unread),
        (Kind::SysWrite, Msg::Read),
        (Kind::VmRead, Msg::Unread),
    ];
    let mut cases = Vec::new();
    for backing in Backing::ALL.iter().filter(|backing| !backing.is_huge()) {
        for over in [Over::Anon, Over::Shared, Over::Same] {
            for (waiter, msg) in waiters {
                for (by, copy) in
                    By::ALL.iter().flat_map(|by| By::ALL.iter().map(move |copy| (*by, *copy)))
                {
                    let change = Change::MmapOver(Part::Middle, over);
                    // The same memory of a file has its pages still; only their content is `kept`.
                    if over == Over::Same && !backing.is_anon() {
                        continue;
                    }
                    let point = Point {
                        backing: *backing,
                        mode: Mode::Missing,
                        change,
                        waiter,
                        msg,
                        op: Op::Look,
                    };
                    let telling = match backing {
                        Backing::Anon => waiter != Kind::VmRead,
                        Backing::Shmem => waiter == Kind::UserRead && over == Over::Anon,
                        _ => false,
                    };
                    cases.push(Case::trial(&ADOPT, Adopt { point, by, copy }, telling));
                }
            }
        }
    }
    cases
}
