//! Huge pages of a mapping without reservations, filled when the pool has none left.

use crate::abi::{REGISTER_MODE_MISSING, Range, Uffd};
use crate::edge;
use crate::evidence::{self, QueueFile};
use crate::expect::Expected;
use crate::files;
use crate::memory::{BLOCK, Block, ELSEWHERE, HUGE, RW, map, unmap};
use crate::model::source;
use crate::outcome::{Seen, Stop};
use crate::point::{Backing, PAGES, Waiter as Kind, axis};
use crate::probe::{Case, Probe, Trial};
use crate::scenario::fault_word;
use crate::stage::Stage;
use crate::waiter::Waiter;
use uffd_results::KernelVersion;

static EMPTY: Probe = Probe {
    suite: "kinds",
    name: "hugetlb-empty",
    statement: "COPY of a huge page that the pool does not have (MAP_NORESERVE) places nothing and wakes nobody: \
                it fails with ENOMEM up to 6.17, and with EEXIST from 6.18 on, as if the page were there; once the \
                pool has a page the same COPY places it and wakes the waiter.",
    consumers: &[
        "Firecracker, Cloud Hypervisor: EEXIST counts as served",
        "E2B: EEXIST is answered with a WAKE, after which the vCPU faults again",
        "QEMU: postcopy_place_page() of hugetlb RAM",
    ],
};

axis! {
    /// Which page the pool does not have.
    Which {
        /// The only one of a COPY.
        Only = "only",
        /// The second one of a COPY of two.
        Second = "second",
    }
}

#[derive(Debug)]
struct Empty {
    backing: Backing,
    which: Which,
    waiter: Kind,
}

/// The page that the pool does not have, and that is waited for.
const TARGET: usize = 3;

/// A number of the pool's.
pub(super) fn pool(name: &str) -> Result<usize, Stop> {
    let path = format!("/sys/kernel/mm/hugepages/hugepages-2048kB/{name}");
    let no = |why: &str| Stop::Precondition(format!("{path}: {why}"));
    let text = std::fs::read_to_string(&path).map_err(|e| no(&e.to_string()))?;
    text.trim().parse().map_err(|_| no("no number"))
}

/// Promises all pages of the pool but `left` to a mapping that never touches them; they are given back by its end.
pub(super) fn take_all_but(left: usize) -> Result<Range, Stop> {
    if pool("nr_overcommit_hugepages")? != 0 {
        return Err(Stop::Precondition("the pool may grow (nr_overcommit_hugepages)".into()));
    }
    let unpromised = pool("free_hugepages")?.saturating_sub(pool("resv_hugepages")?);
    if unpromised <= left {
        let why = format!("no 2 MiB huge pages left to promise ({unpromised} free)");
        return Err(Stop::Precondition(why));
    }
    let taken = Range { start: ELSEWHERE, len: (unpromised - left) * HUGE };
    let kind = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_HUGETLB | libc::MAP_HUGE_2MB;
    let rc = map(taken, RW, kind | libc::MAP_FIXED_NOREPLACE, None, 0);
    if rc.is_ok() { Ok(taken) } else { Err(Stop::Broken(format!("taking the pool: {rc}"))) }
}

/// A block, mapped with `flags` beside the usual ones: MAP_NORESERVE has no page of the pool promised to it.
pub(super) fn block(backing: Backing, flags: i32) -> Result<Block, Stop> {
    let shared = backing == Backing::HugetlbShared;
    let file = if shared { Some(files::hugetlb(2 * PAGES * HUGE)?) } else { None };
    let block = Block { backing, page: HUGE, file };
    match block.map_pages(0..PAGES, BLOCK, libc::MAP_FIXED_NOREPLACE | flags) {
        rc if rc.is_ok() => Ok(block),
        rc => Err(Stop::Broken(format!("mapping {backing} with flags {flags:#x}: {rc}"))),
    }
}

impl Empty {
    fn park(
        &self,
        stage: &Stage,
        page: Range,
        (uffd, queue): (&Uffd, &QueueFile),
        seen: &mut Seen<'_>,
    ) -> Result<Option<Waiter>, Stop> {
        if self.waiter == Kind::None {
            return Ok(None);
        }
        seen.step("park");
        let waiter = Waiter::park(stage, self.waiter, page, uffd, queue)?;
        seen.fact("fault", read_fault(uffd)?);
        Ok(Some(waiter))
    }
}

fn read_fault(uffd: &Uffd) -> Result<String, Stop> {
    match uffd.read() {
        Ok(crate::abi::Message::Pagefault { flags, .. }) => Ok(fault_word(flags)),
        other => Err(Stop::Broken(format!("reading the waiter's message: {other:?}"))),
    }
}

impl Trial for Empty {
    fn axes(&self) -> String {
        format!("backing={},page={},waiter={}", self.backing, self.which, self.waiter)
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        seen.step("set-up");
        if !stage.disposable {
            let why = "takes all huge pages of the machine: only asked in a VM";
            return Err(Stop::Precondition(why.into()));
        }
        let block = block(self.backing, libc::MAP_NORESERVE)?;
        let source = stage.long_source()?;
        let uffd = stage.uffd(0)?;
        uffd.register(block.range(0..PAGES), REGISTER_MODE_MISSING)
            .map_err(|e| Stop::Unsupported(format!("REGISTER: {e:?}")))?;
        let queue = QueueFile::open(&uffd)?;
        let target = block.range(TARGET..TARGET + 1);
        let mut waiter = self.park(stage, target, (&uffd, &queue), seen)?;
        let second = self.which == Which::Second;
        let taken = take_all_but(usize::from(second))?;
        let letter = |value| stage.letter(value);
        let pages = || evidence::pages(block.range(0..PAGES), HUGE, &letter);
        if second {
            seen.step("both");
            let (rc, field) = uffd.copy(block.range(TARGET - 1..TARGET + 1), source, 0);
            seen.fact("both", rc);
            seen.fact("both-field", field);
        }
        seen.step("copy");
        let (rc, field) = uffd.copy(target, source, 0);
        seen.fact("copy", rc);
        seen.fact("field", field);
        if let Some(waiter) = &mut waiter {
            seen.fact("waiter", stage.word(waiter.look(&uffd, &queue)?));
            seen.fact("queue", queue.read()?);
        }
        seen.fact("pages", pages()?);
        if let Some(waiter) = &mut waiter {
            seen.step("wake");
            seen.fact("wake", uffd.wake(target));
            seen.fact("woken", stage.word(waiter.look(&uffd, &queue)?));
            read_fault(&uffd)?;
        }
        seen.step("free");
        let rc = unmap(taken);
        if !rc.is_ok() {
            return Err(Stop::Broken(format!("giving the pool back: {rc}")));
        }
        let (rc, field) = uffd.copy(target, source, 0);
        seen.fact("later", rc);
        seen.fact("later-field", field);
        if let Some(waiter) = &mut waiter {
            seen.fact("last", stage.word(waiter.look(&uffd, &queue)?));
        }
        seen.fact("later-pages", pages()?);
        Ok(())
    }

    fn expect(&self, kernel: KernelVersion) -> Vec<Expected> {
        let edge = edge::HUGETLB_EMPTY;
        let waits = self.waiter != Kind::None;
        let second = self.which == Which::Second;
        let part = "hugetlb_mfill_atomic_pte() fails at the second page: userfaultfd_copy() stores the length of \
                    the first and returns EAGAIN";
        let mut facts = Vec::new();
        if waits {
            let fault = if self.waiter.stores() { "write" } else { "read" };
            facts.push(Expected::new("fault", fault, source::QUEUE));
        }
        if second {
            facts.push(Expected::new("both", "EAGAIN", part));
            facts.push(Expected::new("both-field", HUGE.to_string(), part));
        }
        facts.push(Expected::new("copy", edge.value(kernel, "ENOMEM", "EEXIST"), edge.source));
        facts.push(Expected::new("field", edge.value(kernel, "-12", "-17"), edge.source));
        if waits {
            facts.push(Expected::new("waiter", "asleep", edge.source));
            facts.push(Expected::new("queue", "1/0", edge.source));
        }
        let row = if second { "--c---" } else { "------" };
        facts.push(Expected::new("pages", row, edge.source));
        if waits {
            facts.push(Expected::new("wake", "0", source::WAKE));
            facts.push(Expected::new("woken", "again", source::RERUN));
        }
        facts.push(Expected::new("later", "0", source::COPY));
        facts.push(Expected::new("later-field", HUGE.to_string(), source::COPY));
        if waits {
            facts.push(Expected::new("last", self.waiter.ran("copied"), source::COPY));
        }
        let letter = if self.waiter.stores() { 'w' } else { 'c' };
        let row = if second { format!("--c{letter}--") } else { format!("---{letter}--") };
        facts.push(Expected::new("later-pages", row, source::COPY));
        facts
    }

    fn recipe(&self) -> Vec<String> {
        let Self { backing, which, waiter } = self;
        let left =
            if *which == Which::Second { "all 2 MiB pages but one" } else { "all 2 MiB pages" };
        let mut recipe = vec![
            format!(
                "map a {backing} block of {PAGES} pages with MAP_NORESERVE and register it (missing)"
            ),
            format!("a thread accesses page {TARGET} ({waiter}) and parks; read its message"),
            format!("map private huge pages elsewhere, with a reservation of {left} that are free"),
        ];
        if *which == Which::Second {
            recipe.push(format!("UFFDIO_COPY of pages {} and {TARGET} in one call", TARGET - 1));
        }
        recipe.extend([
            format!("UFFDIO_COPY of page {TARGET}; is the waiter asleep, and is the page there?"),
            "UFFDIO_WAKE of the page, and read the new message".to_owned(),
            "unmap what has the reservation; the same UFFDIO_COPY again".to_owned(),
        ]);
        recipe
    }

    fn uses_huge_pages(&self) -> bool {
        true
    }
}

/// The cases.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for backing in [Backing::HugetlbShared, Backing::HugetlbPrivate] {
        for which in Which::ALL {
            for waiter in [Kind::None, Kind::UserRead, Kind::UserWrite, Kind::SysWrite] {
                let by_default = matches!(waiter, Kind::None | Kind::UserRead);
                let trial = Empty { backing, which: *which, waiter };
                cases.push(Case::trial(&EMPTY, trial, by_default));
            }
        }
    }
    cases
}
