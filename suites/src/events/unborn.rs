//! A fork that fails when the registered memory has been copied already.

use super::fork::child_of;
use super::ground::Ground;
use crate::abi::{Range, features};
use crate::evidence;
use crate::expect::Expected;
use crate::memory::{FAR, HUGE, RW, map};
use crate::mover::Mover;
use crate::outcome::{Seen, Stop};
use crate::point::{Backing, PAGES, axis};
use crate::probe::{Case, Probe, Trial};
use crate::process::{Offspring, refused};
use crate::stage::Stage;
use uffd_results::KernelVersion;

static UNBORN: Probe = Probe {
    suite: "events",
    name: "fork-fails",
    statement: "A fork that fails leaves the parent's memory registered and served; it raises its event \
                only if all memory could be copied, and the userfaultfd of the child that was never born \
                then answers ESRCH.",
    consumers: &["CRIU lazy-pages: handle_fork(), criu/uffd.c, on a host that runs out of memory"],
};

axis! {
    /// What the fork fails by.
    Failing {
        /// A mapping behind the block that is longer than memory and swap.
        Memory = "memory",
        /// The id that the child shall have, for which the kernel looks after it has copied the memory.
        Id = "child-id",
    }
}

#[derive(Debug)]
struct Unborn {
    backing: Backing,
    failing: Failing,
    /// Whether EVENT_FORK was asked for.
    event: bool,
}

/// What /proc/meminfo says of `field`, in bytes.
fn meminfo(text: &str, field: &str) -> Option<usize> {
    let rest = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    rest.split_whitespace().next()?.parse::<usize>().ok().map(|kilobytes| kilobytes * 1024)
}

/// Maps memory that fork(2) can't account for: two pieces that the kernel accepts, one after the other,
/// make one mapping that is longer than memory and swap.
fn map_too_much() -> Result<(), Stop> {
    let read = |path: &str| {
        std::fs::read_to_string(path).map_err(|e| Stop::Precondition(format!("{path}: {e}")))
    };
    let policy = read("/proc/sys/vm/overcommit_memory")?;
    if policy.trim() != "0" {
        return Err(Stop::Precondition(format!("vm.overcommit_memory is {}", policy.trim())));
    }
    let text = read("/proc/meminfo")?;
    let (Some(memory), Some(swap)) = (meminfo(&text, "MemTotal"), meminfo(&text, "SwapTotal"))
    else {
        return Err(Stop::Broken("/proc/meminfo has no total".into()));
    };
    let piece = (memory + swap) / HUGE * 3 / 4 * HUGE;
    let pieces = [FAR.start, FAR.start + piece].map(|start| Range { start, len: piece });
    for piece in pieces {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE;
        let rc = map(piece, RW, flags, None, 0);
        if !rc.is_ok() {
            return Err(Stop::Precondition(format!("mapping {} bytes: {rc}", piece.len)));
        }
    }
    match evidence::mappings_in(Range { start: FAR.start, len: 2 * piece })? {
        1 => Ok(()),
        n => Err(Stop::Broken(format!("{n} mappings in place of one"))),
    }
}

impl Trial for Unborn {
    fn axes(&self) -> String {
        let feature = if self.event { "event-fork" } else { "none" };
        format!("backing={},fails-by={},features={feature}", self.backing, self.failing)
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        seen.step("set-up");
        let wants = if self.event { features::EVENT_FORK } else { 0 };
        let ground = Ground::set(stage, self.backing, wants)?;
        if self.failing == Failing::Memory {
            map_too_much()?;
        }
        seen.step("fork");
        let (mover, child) = match self.failing {
            Failing::Id => (Mover::start(stage, refused)?, None),
            Failing::Memory => {
                let (mover, child) = Offspring::fork(stage, || "born".to_owned())?;
                (mover, Some(child))
            }
        };
        let raised = mover.blocks_on_event(&ground.uffd)?;
        seen.fact("event", if raised { "yes" } else { "no" });
        let mut unborns = None;
        if raised {
            seen.fact("unread-copy", ground.uffd.copy(ground.target(), stage.source, 0).0);
            unborns = Some(child_of(&ground.uffd).map_err(Stop::Broken)?);
        }
        seen.fact("fork", mover.join()?);
        drop(child);
        if let Some(uffd) = unborns {
            let (rc, field) = uffd.copy(ground.target(), stage.source, 0);
            seen.fact("unborns-copy", rc);
            seen.fact("unborns-field", field);
        }
        seen.fact("copy", ground.uffd.copy(ground.target(), stage.source, 0).0);
        seen.fact("pages", ground.pages()?);
        seen.fact("reg", ground.registration()?);
        seen.fact("left", ground.read());
        Ok(())
    }

    fn expect(&self, kernel: KernelVersion) -> Vec<Expected> {
        let says = "copy_process(): dup_mmap() copies mapping after mapping, and only then raises the event; \
                    what fails behind it comes too late";
        let early = "dup_userfaultfd_fail(), commit f64e67e5d3a4 (6.12): a fork that fails while memory is \
                     copied raises no event; before, it did";
        let (errno, raises, why) = match self.failing {
            Failing::Memory => ("ENOMEM", kernel < KernelVersion::new(6, 12, 0), early),
            Failing::Id => ("EINVAL", true, says),
        };
        let raises = raises && self.event;
        let mut facts = vec![Expected::new("event", if raises { "yes" } else { "no" }, why)];
        if raises {
            facts.push(Expected::new("unread-copy", "EAGAIN", "userfaultfd(2), UFFD_EVENT_FORK"));
        }
        facts.push(Expected::new("fork", errno, "fork(2), clone(2)"));
        if raises {
            let dead = "ioctl_userfaultfd(2), ESRCH: the process is gone";
            facts.push(Expected::new("unborns-copy", "ESRCH", dead));
            facts.push(Expected::new("unborns-field", "untouched", dead));
        }
        facts.extend([
            Expected::new("copy", "0", why),
            Expected::new("pages", "kkckkk", why),
            Expected::new("reg", "m".repeat(PAGES), why),
            Expected::new("left", "EAGAIN", why),
        ]);
        facts
    }

    fn recipe(&self) -> Vec<String> {
        let fails = match self.failing {
            Failing::Memory => {
                "behind it map twice three quarters of memory and swap, which makes one mapping that is \
                 longer than both (vm.overcommit_memory is 0); a thread calls fork(2)"
            }
            Failing::Id => "a thread calls clone3(2) with a set_tid that no process can have",
        };
        vec![
            format!("map a block of 6 pages ({}), page 2 missing; register it", self.backing),
            fails.to_owned(),
            "is an event there? Read it; UFFDIO_COPY to page 2 through the userfaultfd that it brings"
                .to_owned(),
            "UFFDIO_COPY to page 2 through the parent's; look at every page".to_owned(),
        ]
    }
}

/// The cases.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for backing in [Backing::Anon, Backing::Shmem] {
        for failing in Failing::ALL {
            for event in [true, false] {
                let trial = Unborn { backing, failing: *failing, event };
                cases.push(Case::trial(&UNBORN, trial, event || backing == Backing::Anon));
            }
        }
    }
    cases
}
