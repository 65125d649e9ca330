//! FEATURE_SIGBUS: nobody waits; and WAKE without resolution, after which everybody does again.

use crate::abi::{REGISTER_MODE_MINOR, REGISTER_MODE_MISSING, REGISTER_MODE_WP, features};
use crate::evidence::QueueFile;
use crate::expect::{Expected, OBSERVED};
use crate::memory::{BLOCK, Block, HUGE, PAGE, tag};
use crate::model::source;
use crate::outcome::{Seen, Stop};
use crate::point::{Backing, Change, Mode, Msg, Op, PAGES, Point, Waiter as Kind};
use crate::probe::{Case, Probe, Trial};
use crate::scenario::Scene;
use crate::stage::Stage;
use crate::touch;
use crate::waiter::{Access, Fate, Waiter};
use uffd_results::KernelVersion;

static SIGBUS: Probe = Probe {
    suite: "waiters",
    name: "sigbus",
    statement: "With FEATURE_SIGBUS nobody parks: user-mode access gets SIGBUS, system calls an error; \
                once the fault is resolved the access works. Without it (feature=none) the same \
                access parks.",
    consumers: &["Android ART: mark_compact.cc", "faabric: snapshots by SIGBUS"],
};
static REFAULT: Probe = Probe {
    suite: "waiters",
    name: "refault",
    statement: "Each WAKE without resolution makes the waiter fault again with a new message, any \
                number of times.",
    consumers: &[
        "Android ART: gKernelHasFaultRetry",
        "QEMU: postcopy requests",
        "E2B orchestrator: resolveWriteProtect()",
        "Lucet, umap: one retry before 5.7",
    ],
};

#[derive(Debug)]
struct NoWait {
    backing: Backing,
    mode: Mode,
    kind: Kind,
    /// The feature, or the control without.
    feature: bool,
}

impl Trial for NoWait {
    fn axes(&self) -> String {
        let Self { backing, mode, kind, feature } = self;
        let feature = if *feature { "sigbus" } else { "none" };
        format!("backing={backing},mode={mode},access={kind},feature={feature}")
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        seen.step("set-up");
        let feature = if self.feature { features::SIGBUS } else { 0 };
        stage.must_offer(feature)?;
        let block = Block::map(self.backing, BLOCK)?;
        let target = block.range(2..3);
        let mode = match self.mode {
            Mode::Missing => REGISTER_MODE_MISSING,
            Mode::Wp => {
                touch::store(target.start, tag::KEPT)
                    .map_err(|signal| Stop::Broken(format!("writing to the block: {signal}")))?;
                REGISTER_MODE_WP
            }
            Mode::Minor => {
                block.fill_cache(2)?;
                REGISTER_MODE_MINOR
            }
        };
        let uffd = stage.uffd(feature)?;
        let all = block.range(0..PAGES);
        uffd.register(all, mode).map_err(|e| {
            Stop::Unsupported(format!("REGISTER of {} for {}: {e:?}", self.backing, self.mode))
        })?;
        if self.mode == Mode::Wp {
            let rc = uffd.writeprotect(all, crate::abi::WRITEPROTECT_MODE_WP);
            if !rc.is_ok() {
                return Err(Stop::Broken(format!("WRITEPROTECT of the block: {rc}")));
            }
        }
        let queue = QueueFile::open(&uffd)?;
        seen.step("access");
        let mut first = Waiter::start(stage, self.kind, target)?;
        let fate = first.settle(&uffd, &queue)?;
        if let Fate::Ended(Access::Failed(nix::errno::Errno::EINVAL)) = fate {
            return Err(Stop::Unsupported("madvise(MADV_POPULATE_*): EINVAL (5.14)".into()));
        }
        seen.fact("access", stage.word(fate));
        seen.fact("queue", queue.read()?);
        seen.step("resolve");
        let resolved = match self.mode {
            Mode::Missing => uffd.copy(target, stage.source, 0).0,
            Mode::Wp => uffd.writeprotect(target, 0),
            Mode::Minor => uffd.resume(target, 0).0,
        };
        seen.fact("resolve", resolved);
        if fate == Fate::Again {
            seen.fact("ended", stage.word(first.end()?));
        } else {
            let mut again = Waiter::start(stage, self.kind, target)?;
            seen.fact("ended", stage.word(again.settle(&uffd, &queue)?));
        }
        seen.fact("queue-after", queue.read()?);
        Ok(())
    }

    fn expect(&self, _: KernelVersion) -> Vec<Expected> {
        let says = "userfaultfd(2), UFFD_FEATURE_SIGBUS (4.14)";
        let (fate, queue) = match self.kind {
            _ if !self.feature => ("again", "1/1"),
            Kind::UserRead | Kind::UserWrite => ("BUS_ADRERR", "0/0"),
            Kind::Mlock => ("ENOMEM", "0/0"),
            _ => ("EFAULT", "0/0"),
        };
        let content = if self.mode == Mode::Missing { "ran:copied" } else { "ran:kept" };
        let ended = if self.kind.loads() { content } else { "ran" };
        vec![
            Expected::new("access", fate, says),
            Expected::new("queue", queue, says),
            Expected::new("resolve", "0", says),
            Expected::new("ended", ended, OBSERVED),
            Expected::new("queue-after", "0/0", source::QUEUE),
        ]
    }

    fn recipe(&self) -> Vec<String> {
        vec![
            format!(
                "UFFDIO_API with {}; map and register a block for {} faults",
                if self.feature { "FEATURE_SIGBUS" } else { "no feature" },
                self.mode
            ),
            format!("a thread accesses page 2 ({}); did it park, or how did it end?", self.kind),
            "resolve the fault (COPY, WRITEPROTECT without MODE_WP, or CONTINUE)".into(),
            "if it had ended, access again".into(),
        ]
    }

    fn uses_huge_pages(&self) -> bool {
        self.backing.is_huge()
    }
}

#[derive(Debug)]
struct Refault {
    backing: Backing,
    kind: Kind,
    times: usize,
}

impl Trial for Refault {
    fn axes(&self) -> String {
        format!("backing={},waiter={},wakes={}", self.backing, self.kind, self.times)
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        seen.step("set-up");
        let point = Point {
            backing: self.backing,
            mode: Mode::Missing,
            change: Change::None,
            waiter: self.kind,
            msg: Msg::Read,
            op: Op::Copy,
        };
        let scene = Scene::set(stage, point)?;
        let Some(mut waiter) = scene.park(point, seen)? else {
            return Err(Stop::Broken("nobody to wait".into()));
        };
        seen.step("wake");
        let mut messages = 0;
        for _ in 0..self.times {
            let rc = scene.uffd.wake(scene.target());
            if !rc.is_ok() || waiter.look(&scene.uffd, &scene.queue)? != Fate::Again {
                break;
            }
            scene.read_fault()?;
            messages += 1;
        }
        seen.fact("messages", messages);
        scene.act(Op::Copy, seen);
        seen.fact("waiter", stage.word(waiter.look(&scene.uffd, &scene.queue)?));
        seen.fact("queue", scene.queue.read()?);
        Ok(())
    }

    fn expect(&self, _: KernelVersion) -> Vec<Expected> {
        let kind = if self.kind.write_faults(self.backing) { "write@2" } else { "read@2" };
        let bytes = if self.backing.is_huge() { HUGE } else { PAGE };
        let fate = if self.kind.loads() { "ran:copied" } else { "ran" };
        vec![
            Expected::new("fault", kind, source::QUEUE),
            Expected::new("messages", self.times.to_string(), source::RERUN),
            Expected::new("copy", "0", source::COPY),
            Expected::new("field", bytes.to_string(), source::COPY),
            Expected::new("waiter", fate, source::COPY),
            Expected::new("queue", "0/0", source::QUEUE),
        ]
    }

    fn recipe(&self) -> Vec<String> {
        vec![
            "map and register a block of 6 pages".into(),
            format!("a thread ({}) accesses page 2 and parks; read its message", self.kind),
            format!("{} times: UFFDIO_WAKE of page 2, and read the new message", self.times),
            "UFFDIO_COPY to page 2".into(),
        ]
    }

    fn uses_huge_pages(&self) -> bool {
        self.backing.is_huge()
    }
}

/// The cases.
pub(super) fn cases(cases: &mut Vec<Case>) {
    for backing in Backing::ALL {
        for kind in Kind::TASKS.iter().filter(|kind| **kind != Kind::None) {
            for mode in Mode::ALL {
                let possible = match mode {
                    Mode::Missing => true,
                    Mode::Wp => kind.write_faults(*backing),
                    Mode::Minor => matches!(backing, Backing::Shmem | Backing::HugetlbShared),
                };
                // mlock(2) and populating look at protection and cache in ways of their own.
                let plain = !matches!(kind, Kind::Mlock | Kind::PopulateWrite | Kind::PopulateRead);
                if !possible || *mode != Mode::Missing && !plain {
                    continue;
                }
                for feature in [true, false] {
                    let by_default = matches!(backing, Backing::Anon | Backing::Shmem)
                        && (feature || *mode == Mode::Missing);
                    let trial = NoWait { backing: *backing, mode: *mode, kind: *kind, feature };
                    cases.push(Case::trial(&SIGBUS, trial, by_default));
                }
            }
            for times in [1, 2, 5, 20] {
                let by_default = match backing {
                    Backing::Anon => times != 1,
                    Backing::Shmem | Backing::Private => times == 5,
                    _ => false,
                };
                let trial = Refault { backing: *backing, kind: *kind, times };
                cases.push(Case::trial(&REFAULT, trial, by_default));
            }
        }
    }
}
