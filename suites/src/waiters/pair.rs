//! Two contexts in one process, each with a waiter: what one does never reaches the other's.

use crate::crowd::Crowd;
use crate::evidence::QueueFile;
use crate::expect::Expected;
use crate::memory::{ARENA, Block, ONE_PAGE, OTHER};
use crate::model::source;
use crate::outcome::{Seen, Stop};
use crate::point::{Backing, Op, PAGES, Point, Waiter};
use crate::probe::{Case, Probe, Trial};
use crate::scenario::Scene;
use crate::stage::Stage;
use uffd_results::KernelVersion;

static TWO: Probe = Probe {
    suite: "waiters",
    name: "two-contexts",
    statement: "What is done through one context wakes no waiter of another, not even when the page \
                that it waits for is filled through a second mapping of the same file; its own WAKE \
                then lets it go on.",
    consumers: &[
        "QEMU with vhost-user: postcopy_wake_shared(), migration/postcopy-ram.c",
        "crosvm: one userfaultfd a process on shared guest memory",
        "KVM selftests: one userfaultfd a region",
    ],
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    CopyFirst,
    CopySecond,
    WakeFirst,
    WakeArenaFirst,
    CloseFirst,
    UnregisterFirst,
    UnmapFirst,
}

impl Act {
    const ALL: [Self; 7] = [
        Self::CopyFirst,
        Self::CopySecond,
        Self::WakeFirst,
        Self::WakeArenaFirst,
        Self::CloseFirst,
        Self::UnregisterFirst,
        Self::UnmapFirst,
    ];

    const fn word(self) -> &'static str {
        match self {
            Self::CopyFirst => "copy",
            Self::CopySecond => "copy-through-second-to-first",
            Self::WakeFirst => "wake",
            Self::WakeArenaFirst => "wake-everything",
            Self::CloseFirst => "close",
            Self::UnregisterFirst => "unregister",
            Self::UnmapFirst => "munmap",
        }
    }
}

#[derive(Debug)]
struct Two {
    backing: Backing,
    /// Both blocks map the same memory.
    same: bool,
    waiter: Waiter,
    act: Act,
}

impl Trial for Two {
    fn axes(&self) -> String {
        let Self { backing, same, waiter, act } = self;
        let memory = if *same { "same" } else { "own" };
        format!("backing={backing},memory={memory},waiter={waiter},op={}", act.word())
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        seen.step("set-up");
        let scene = Scene::set(stage, Point::missing(self.backing, Waiter::None))?;
        let second = if self.same {
            let rc = scene.block.map_pages(0..PAGES, OTHER, libc::MAP_FIXED_NOREPLACE);
            if !rc.is_ok() {
                return Err(Stop::Broken(format!("a second mapping of the block: {rc}")));
            }
            None
        } else {
            Some(Block::map(self.backing, OTHER)?)
        };
        let there = second.as_ref().unwrap_or(&scene.block).at(OTHER, 0..PAGES);
        let page = scene.block.at(OTHER, 2..3);
        let other = stage.uffd(0)?;
        other
            .register(there, crate::abi::REGISTER_MODE_MISSING)
            .map_err(|e| Stop::Broken(format!("REGISTER of the second block: {e:?}")))?;
        let other_queue = QueueFile::open(&other)?;
        let (mut first_crowd, mut second_crowd) = (Crowd::new(stage), Crowd::new(stage));
        seen.step("park");
        first_crowd.park(stage, self.waiter, scene.target(), &scene.queue)?;
        second_crowd.park(stage, self.waiter, page, &other_queue)?;
        let read = scene.uffd.read().is_ok() && other.read().is_ok();
        seen.fact("read", if read { "both" } else { "not-both" });
        seen.step("act");
        let mut open = Some(scene);
        if let Some(scene) = &open {
            match self.act {
                Act::CopyFirst => scene.act(Op::Copy, seen),
                Act::CopySecond => {
                    let (rc, field) = other.copy(scene.target(), stage.source, 0);
                    seen.fact("copy", rc);
                    seen.fact("field", field);
                }
                Act::WakeFirst | Act::WakeArenaFirst => {
                    let all = self.act == Act::WakeArenaFirst;
                    let range = if all { ARENA } else { scene.target() };
                    seen.fact("wake", scene.uffd.wake(range));
                    seen.fact("again", first_crowd.await_again(&scene.queue, 1)?);
                }
                Act::UnregisterFirst => scene.act(Op::Unregister, seen),
                Act::UnmapFirst => {
                    seen.fact("change", crate::memory::unmap(scene.block.range(0..PAGES)));
                }
                Act::CloseFirst => {}
            }
        }
        if self.act == Act::CloseFirst {
            open = None;
        }
        seen.fact("second-queue", other_queue.read()?);
        seen.fact("second", second_crowd.summary()?);
        if let Some(scene) = &open {
            let queue = scene.queue.read()?;
            seen.fact("first-queue", queue);
            if queue.total == 0 {
                first_crowd.await_all()?;
            }
        } else {
            first_crowd.await_all()?;
        }
        seen.fact("first", first_crowd.summary()?);
        seen.step("wake-second");
        seen.fact("second-wake", other.wake(page));
        if self.fills_second() {
            second_crowd.await_all()?;
            seen.fact("second-queue-after", other_queue.read()?);
        }
        drop(other);
        drop(open);
        second_crowd.await_all()?;
        first_crowd.await_all()?;
        seen.fact("second-ended", second_crowd.summary()?);
        seen.fact("first-ended", first_crowd.summary()?);
        Ok(())
    }

    fn expect(&self, _: KernelVersion) -> Vec<Expected> {
        let mut facts = vec![Expected::new("read", "both", source::QUEUE)];
        let mut say = |name, value: &str, says| {
            facts.push(Expected::new(name, value.to_owned(), says));
        };
        let loads = self.waiter.loads();
        let saw = |content: &str| {
            if loads { format!("1*ran:{content}") } else { "1*ran".to_owned() }
        };
        let asleep = "1*asleep".to_owned();
        let (queue, first, ended) = match self.act {
            Act::CopyFirst => ("0/0", saw("copied"), saw("copied")),
            Act::CopySecond => ("1/0", asleep, saw("copied")),
            Act::WakeFirst | Act::WakeArenaFirst => ("1/1", "1*moved".to_owned(), saw("zero")),
            Act::CloseFirst | Act::UnregisterFirst => ("0/0", saw("zero"), saw("zero")),
            Act::UnmapFirst => {
                let failed = if self.waiter.in_kernel() { "1*EFAULT" } else { "1*SEGV_MAPERR" };
                ("1/0", asleep, failed.to_owned())
            }
        };
        match self.act {
            Act::CopyFirst | Act::CopySecond => {
                say("copy", "0", source::COPY);
                say("field", ONE_PAGE, source::COPY);
            }
            Act::WakeFirst | Act::WakeArenaFirst => {
                say("wake", "0", source::WAKE);
                say("again", "1/1", source::RERUN);
            }
            Act::UnregisterFirst => say("unregister", "0", source::UNREGISTER),
            Act::UnmapFirst => say("change", "0", "munmap(2)"),
            Act::CloseFirst => {}
        }
        say("second-queue", "1/0", source::QUEUE);
        say("second", "1*asleep", source::QUEUE);
        if self.act != Act::CloseFirst {
            say("first-queue", queue, source::QUEUE);
        }
        say("first", &first, source::RERUN);
        say("second-wake", "0", source::WAKE);
        if self.fills_second() {
            say("second-queue-after", "0/0", CACHED);
        }
        let second = match self.act {
            Act::CopyFirst | Act::CopySecond if self.same => saw("copied"),
            _ => saw("zero"),
        };
        say("second-ended", &second, CACHED);
        say("first-ended", &ended, source::CLOSE);
        facts
    }

    fn recipe(&self) -> Vec<String> {
        vec![
            "map two blocks, of the same file or not; register each with a userfaultfd of its own"
                .into(),
            format!("a thread ({}) parks on page 2 of each; read both messages", self.waiter),
            format!("{} of the first", self.act.word()),
            "look at both; WAKE the second through its own; close both".into(),
        ]
    }
}

impl Two {
    /// Whether the first's operation has put a page into the file that the second shows.
    fn fills_second(&self) -> bool {
        self.same
            && matches!(
                self.act,
                Act::CopyFirst | Act::CopySecond | Act::CloseFirst | Act::UnregisterFirst
            )
    }
}

const CACHED: &str = "shmem_get_folio_gfp() in mm/shmem.c: what the page cache holds is no missing \
    page, so the woken waiter sends no second message";

/// The cases.
pub(super) fn cases(cases: &mut Vec<Case>) {
    for (backing, same) in [
        (Backing::Anon, false),
        (Backing::Shmem, false),
        (Backing::Shmem, true),
        (Backing::Private, false),
    ] {
        for waiter in [Waiter::UserRead, Waiter::SysWrite] {
            for act in Act::ALL {
                let trial = Two { backing, same, waiter, act };
                cases.push(Case::trial(&TWO, trial, backing != Backing::Private));
            }
        }
    }
}
