//! What MOVE takes from: every kind of memory that it refuses, and ranges that meet each other.

use super::ground::{Did, Ground, TARGET, Verdict};
use super::range::TASK_SIZE;
use super::twist::{Called, Twist, Twisted, grounds};
use crate::abi::command::Command;
use crate::abi::newer::MOVE_MODE_ALLOW_SRC_HOLES;
use crate::abi::{Range, Rc};
use crate::expect::Expected;
use crate::memory::{BLOCK, PAGE, RW, SPARE, map, new_data, tag};
use crate::outcome::{Seen, Stop};
use crate::point::axis;
use crate::probe::{Case, Probe};
use crate::scenario::Scene;
use crate::touch;
use std::os::fd::AsFd;
use uffd_results::KernelVersion;

static SOURCE: Probe = Probe {
    suite: "arguments",
    name: "move-source",
    statement: "MOVE takes pages only from private anonymous memory with the destination's protection; \
                anything else is EINVAL, nothing there is ENOENT, and nobody is woken.",
    consumers: &["Android ART: UFFDIO_MOVE in mark_compact.cc"],
};

/// Where sources stand.
const FROM: usize = SPARE + (32 << 20);

axis! {
    /// What MOVE is to take.
    From {
        /// A page of other anonymous memory: the control.
        Good = "good",
        /// The block's own present page, which is registered.
        Block = "own-block",
        /// The destination itself.
        Itself = "destination",
        /// No mapping.
        Unmapped = "unmapped",
        /// No mapping, with ALLOW_SRC_HOLES.
        UnmappedHoles = "unmapped-allowing-holes",
        /// Anonymous memory that was never touched.
        Missing = "missing",
        /// The same with ALLOW_SRC_HOLES.
        MissingHoles = "missing-allowing-holes",
        /// Anonymous memory whose page table was never made.
        Untouched = "untouched",
        /// The same with ALLOW_SRC_HOLES.
        UntouchedHoles = "untouched-allowing-holes",
        /// The zero page.
        Zero = "zero-page",
        /// Memory without access.
        ProtNone = "prot-none",
        /// Memory that can only be read.
        ReadOnly = "read-only",
        /// Memory that can be executed.
        Exec = "executable",
        /// Locked memory.
        Locked = "locked",
        /// A memfd, shared.
        Shmem = "shmem",
        /// A memfd, private, without a copy of its own.
        Private = "private-memfd",
        /// A regular file.
        File = "file",
        /// Not the start of a page.
        Odd = "odd",
        /// Address 0.
        Null = "null",
        /// The last page of user memory.
        LastUser = "last-user-page",
        /// The first address behind user memory.
        TaskSize = "task-size",
        /// The kernel's memory.
        Kernel = "kernel",
    }
}

impl From {
    const fn mode(self) -> u64 {
        match self {
            Self::UnmappedHoles | Self::MissingHoles | Self::UntouchedHoles => {
                MOVE_MODE_ALLOW_SRC_HOLES
            }
            _ => 0,
        }
    }

    /// Makes the memory; its address.
    fn make(self, scene: &Scene<'_>) -> Result<usize, Stop> {
        let page = Range { start: FROM, len: PAGE };
        let anon = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let rc = match self {
            Self::Good => return Ok(SPARE),
            Self::Odd => return Ok(SPARE + PAGE / 2),
            Self::Block => return Ok(BLOCK + (TARGET + 1) * PAGE),
            Self::Itself => return Ok(scene.target().start),
            Self::Null => return Ok(0),
            Self::LastUser => return Ok(TASK_SIZE - PAGE),
            Self::TaskSize => return Ok(TASK_SIZE),
            Self::Kernel => return Ok(0xffff_8880_0000_0000),
            Self::Unmapped | Self::UnmappedHoles => Rc::OK,
            Self::Untouched | Self::UntouchedHoles => map(page, RW, anon, None, 0),
            Self::Missing | Self::MissingHoles => {
                // The page behind brings the page table.
                let rc = map(Range { len: 2 * PAGE, ..page }, RW, anon, None, 0);
                touch::store(FROM + PAGE, tag::NEW)
                    .map_err(|signal| Stop::Broken(format!("writing to a source: {signal}")))?;
                rc
            }
            Self::Zero => {
                let rc = map(page, RW, anon, None, 0);
                touch::load(FROM)
                    .map_err(|signal| Stop::Broken(format!("reading a source: {signal}")))?;
                rc
            }
            Self::ProtNone => map(page, libc::PROT_NONE, anon, None, 0),
            Self::ReadOnly => map(page, libc::PROT_READ, anon, None, 0),
            Self::Exec => map(page, RW | libc::PROT_EXEC, anon, None, 0),
            Self::Locked => map(page, RW, anon | libc::MAP_LOCKED, None, 0),
            Self::File => {
                let fd = scene.stage.plain_fd()?;
                map(page, RW, libc::MAP_PRIVATE, Some(fd), 0)
            }
            Self::Shmem | Self::Private => {
                let kind = if self == Self::Shmem { libc::MAP_SHARED } else { libc::MAP_PRIVATE };
                map(page, RW, kind, Some(new_data(PAGE)?.as_fd()), 0)
            }
        };
        if rc.is_ok() { Ok(FROM) } else { Err(Stop::Broken(format!("mapping a source: {rc}"))) }
    }
}

impl Twist for From {
    fn axis(&self) -> String {
        format!("source={self}")
    }

    fn applies(&self, ground: Ground) -> bool {
        ground.command == Command::Move
    }

    fn call(&self, _: Ground, scene: &Scene<'_>, seen: &mut Seen<'_>) -> Result<Called, Stop> {
        let from = self.make(scene)?;
        seen.step("call");
        let (rc, field) = scene.uffd.relocate(scene.target(), from, self.mode());
        Ok(Called { rc, field: Some(field.to_string()) })
    }

    fn verdict(&self, ground: Ground, kernel: KernelVersion) -> Verdict {
        let says = "ioctl_userfaultfd(2), UFFDIO_MOVE (6.8)";
        let kind = "validate_move_areas(): EINVAL for other protection, locking or memory";
        let range = "validate_range() of the source: EINVAL before anything is looked up";
        let refused_low = *self == Self::Null && super::range::refuses_low(kernel);
        match self {
            _ if refused_low => Verdict::refused("EINVAL", range),
            Self::Good | Self::Block | Self::Zero | Self::MissingHoles | Self::UntouchedHoles => {
                Verdict::done(ground, says)
            }
            Self::Odd | Self::TaskSize | Self::Kernel => Verdict::refused("EINVAL", range),
            Self::Itself
            | Self::Unmapped
            | Self::UnmappedHoles
            | Self::Missing
            | Self::Untouched
            | Self::Null
            | Self::LastUser => Verdict::failed("ENOENT", -2, says),
            _ => Verdict::failed("EINVAL", -22, kind),
        }
    }

    fn adjust(&self, facts: &mut [Expected], _: KernelVersion) {
        let set = |facts: &mut [Expected], name: &str, value: &'static str| {
            for fact in facts.iter_mut().filter(|fact| fact.fact == name) {
                fact.value = value.into();
            }
        };
        match self {
            Self::Block => {
                set(facts, "waiter", "ran:kept");
                set(facts, "pages", "--k---");
            }
            Self::Zero => {
                set(facts, "waiter", "ran:zero");
                set(facts, "pages", "--0k--");
            }
            // Woken, it finds nothing and parks again.
            Self::MissingHoles | Self::UntouchedHoles => {
                set(facts, "waiter", "again");
                set(facts, "queue", "1/1");
                set(facts, "pages", "---k--");
            }
            _ => {}
        }
    }

    fn says(&self, _: Ground) -> String {
        format!("UFFDIO_MOVE of a page from a source of this kind: {self}")
    }
}

/// MOVE of two pages: source and destination meet, or only one page is there.
#[derive(Clone, Copy, Debug)]
enum Two {
    /// The source starts a page behind the destination's start.
    Ahead,
    /// The source starts a page in front of it.
    Behind,
    /// Only the source's first page is mapped.
    Cut,
}

impl Twist for Two {
    fn axis(&self) -> String {
        let word = match self {
            Self::Ahead => "overlap-ahead",
            Self::Behind => "overlap-behind",
            Self::Cut => "half-unmapped",
        };
        format!("source={word}")
    }

    fn applies(&self, ground: Ground) -> bool {
        ground.command == Command::Move
    }

    fn call(&self, _: Ground, scene: &Scene<'_>, seen: &mut Seen<'_>) -> Result<Called, Stop> {
        seen.step("call");
        let page = |n: usize| scene.block.range(n..n + 2);
        let (to, from) = match self {
            // Page 3 is the one that is there.
            Self::Ahead => (page(2), page(3).start),
            Self::Behind => (page(4), page(3).start),
            Self::Cut => (page(1), SPARE + PAGE),
        };
        let (rc, field) = scene.uffd.relocate(to, from, 0);
        Ok(Called { rc, field: Some(field.to_string()) })
    }

    fn verdict(&self, _: Ground, _: KernelVersion) -> Verdict {
        let says = "move_pages() goes page by page and knows no overlap: EAGAIN after the first page, \
                    since the second one's source is missing";
        let through = "move_pages() goes page by page and knows no overlap: what the first step brought \
                       to the second step's source moves on";
        let cut = "move_pages(): EINVAL where the range leaves the source's mapping; nothing moves";
        match self {
            Self::Ahead => {
                Verdict { rc: "EAGAIN", field: Some(PAGE.to_string()), did: Did::Wholly, says }
            }
            Self::Behind => {
                let field = Some((2 * PAGE).to_string());
                Verdict { rc: "0", field, did: Did::Nothing, says: through }
            }
            Self::Cut => Verdict::failed("EINVAL", -22, cut),
        }
    }

    fn adjust(&self, facts: &mut [Expected], _: KernelVersion) {
        for fact in facts {
            match (self, fact.fact) {
                (Self::Ahead, "waiter") => fact.value = "ran:kept".into(),
                (Self::Ahead, "pages") => fact.value = "--k---".into(),
                (Self::Behind, "pages") => fact.value = "-----k".into(),
                _ => {}
            }
        }
    }

    fn says(&self, _: Ground) -> String {
        format!("UFFDIO_MOVE of two pages, with {}", self.axis().replacen('=', " ", 1))
    }
}

/// The cases.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (ground, plain) in grounds() {
        for from in From::ALL {
            let telling = plain || ground.in_kernel;
            cases.extend(Twisted::case(&SOURCE, ground, *from, telling));
        }
        for two in [Two::Ahead, Two::Behind, Two::Cut] {
            cases.extend(Twisted::case(&SOURCE, ground, two, plain));
        }
    }
    cases
}
