//! A question as a list of steps: data, from which the routine and the recipe both follow.
//!
//! For what the grid can't express: two areas, two contexts, several operations. Belongs here: what
//! the steps are. [`run`] performs them, [`words`] puts them into sentences.

mod areas;
mod run;
mod words;

use crate::abi::Range;
use crate::expect::Expected;
use crate::memory::{BLOCK, ELSEWHERE, FAR, HUGE, OTHER, PAGE, SPARE};
use crate::outcome::ASKED_AT_MOST;
use crate::outcome::{Seen, Stop};
use crate::point::{Backing, Waiter};
use crate::probe::Trial;
use crate::stage::Stage;
use std::fmt;
use uffd_results::KernelVersion;

/// A place of the arena where an area can be mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Where the registered block stands.
    Block,
    /// Where the source of a MOVE stands.
    Spare,
    /// Where mremap(2) moves the block.
    Elsewhere,
    /// One more.
    Other,
    /// One under a page directory that nothing else uses.
    Far,
}

impl Place {
    const ALL: [Self; 5] = [Self::Block, Self::Spare, Self::Elsewhere, Self::Other, Self::Far];

    /// The address of its first page.
    const fn base(self) -> usize {
        match self {
            Self::Block => BLOCK,
            Self::Spare => SPARE,
            Self::Elsewhere => ELSEWHERE,
            Self::Other => OTHER,
            Self::Far => FAR.start,
        }
    }

    const fn word(self) -> &'static str {
        match self {
            Self::Block => "the block",
            Self::Spare => "the source area",
            Self::Elsewhere => "the new place",
            Self::Other => "a third area",
            Self::Far => "a source area far from anything else",
        }
    }
}

/// Pages of a place, `unit` bytes each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    place: Place,
    first: usize,
    count: usize,
    unit: usize,
}

impl Span {
    /// Base pages.
    pub(crate) const fn new(place: Place, first: usize, count: usize) -> Self {
        Self { place, first, count, unit: PAGE }
    }

    /// The same numbers of 2 MiB pages.
    pub(crate) const fn huge(self) -> Self {
        Self { unit: HUGE, ..self }
    }

    /// Pages of the size that the backing has.
    pub(crate) const fn of(backing: Backing, place: Place, first: usize, count: usize) -> Self {
        let span = Self::new(place, first, count);
        if backing.is_huge() { span.huge() } else { span }
    }

    /// Its addresses.
    const fn range(self) -> Range {
        Range { start: self.place.base() + self.first * self.unit, len: self.count * self.unit }
    }
}

/// What is mapped at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Memory {
    /// What the grid has.
    Of(Backing),
    /// Private anonymous memory with this protection.
    Anon(i32),
    /// Private anonymous memory that may have transparent huge pages, which the process is allowed.
    Thp,
    /// A memfd, shared, of which MADV_COLLAPSE may make huge pages, which the process is allowed.
    ThpShmem,
    /// Private anonymous memory with MAP_GROWSDOWN.
    GrowsDown,
    /// A regular file, private.
    File,
    /// The file behind the block once more, shared.
    BlockAgain,
    /// A file of two huge pages on a tmpfs that makes them, shared, by a process that may have them.
    HugeFile,
    /// A memfd of two huge pages' length, shared, by a process that may have huge pages.
    LongFile,
    /// memfd_secret(2), shared.
    Secret,
    /// A memfd that takes seals, shared or private.
    Sealable(Backing),
}

/// One of two contexts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ctx {
    /// The one that the question is about.
    First,
    /// Another of the same process.
    Second,
}

/// What is done to memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Treat {
    /// `madvise(2)`: its number and its name.
    Advise(i32, &'static str),
    /// `fallocate(FALLOC_FL_PUNCH_HOLE)` of the file behind it.
    Punch,
    /// `munmap(2)`.
    Unmap,
    /// `mmap(MAP_FIXED)` of something over it.
    MapOver(Memory),
    /// `mremap(2)` to another place.
    MoveTo(Place),
    /// `mremap(MREMAP_DONTUNMAP)` to another place.
    DontUnmapTo(Place),
    /// `mprotect(2)`.
    Protect(i32),
    /// `mlock2(MLOCK_ONFAULT)`.
    LockOnFault,
    /// `mlock(2)`.
    Lock,
    /// `mseal(2)`.
    Seal,
    /// `fcntl(F_ADD_SEALS)` of the file behind it: the seal and its name.
    SealFile(i32, &'static str),
    /// `madvise(MADV_HWPOISON)`: the page is lost until the machine boots again.
    HwPoison,
    /// A child that shares it, and stays.
    Fork,
    /// A child that shared it, and is gone.
    ForkGone,
    /// A pin, as for DMA.
    Pin,
    /// A reference by vmsplice(2).
    Splice,
    /// `ftruncate(2)` of the file behind it to its start and then to its whole length again.
    TruncateAndGrow,
}

/// `MADV_DONTNEED`.
pub(crate) const DONTNEED: Treat = Treat::Advise(libc::MADV_DONTNEED, "MADV_DONTNEED");
/// `MADV_FREE`.
pub(crate) const FREE: Treat = Treat::Advise(libc::MADV_FREE, "MADV_FREE");
/// `MADV_REMOVE`.
pub(crate) const REMOVE: Treat = Treat::Advise(libc::MADV_REMOVE, "MADV_REMOVE");
/// `MADV_GUARD_INSTALL`.
pub(crate) const GUARD: Treat = Treat::Advise(crate::treat::GUARD_INSTALL, "MADV_GUARD_INSTALL");
/// `MADV_GUARD_REMOVE`.
pub(crate) const UNGUARD: Treat = Treat::Advise(crate::treat::GUARD_REMOVE, "MADV_GUARD_REMOVE");
/// `MADV_COLLAPSE`.
pub(crate) const COLLAPSE: Treat = Treat::Advise(crate::treat::COLLAPSE, "MADV_COLLAPSE");

/// An operation of userfaultfd. `mode` is its flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    /// `UFFDIO_COPY`.
    Copy(Span, u64),
    /// `UFFDIO_COPY` out of the arena: to, from.
    CopyFrom(Span, Span),
    /// `UFFDIO_ZEROPAGE`.
    Zeropage(Span, u64),
    /// `UFFDIO_CONTINUE`.
    Continue(Span, u64),
    /// `UFFDIO_WRITEPROTECT`.
    Wp(Span, u64),
    /// `UFFDIO_POISON`.
    Poison(Span, u64),
    /// `UFFDIO_MOVE`: to, from.
    Move(Span, Span, u64),
    /// `UFFDIO_REGISTER`.
    Register(Span, u64),
    /// `UFFDIO_UNREGISTER`.
    Unregister(Span),
    /// `UFFDIO_WAKE`.
    Wake(Span),
}

/// A step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Stops outside of a VM of ours, where what follows could bring the machine down.
    OnlyInVm,
    /// Maps an area at a place; the span's first page is 0.
    Map(Span, Memory),
    /// Stores a tag at the start of every page.
    Fill(Span, u64),
    /// Loads from every page.
    Load(Span),
    /// Puts the kept tag into the file behind the block, without mapping it there.
    Cache(Span),
    /// Proves that transparent huge pages are mapped there.
    MustBeHuge(Span),
    /// Takes the leave to have huge pages back: khugepaged then passes the process by, which else may
    /// change how its memory is mapped at any time. What is mapped stays.
    ForbidHuge,
    /// Makes a context and asks for features.
    Open(Ctx, u64),
    /// An operation that belongs to the set-up: it must succeed.
    Set(Ctx, Call),
    /// A treatment that belongs to the set-up: it must succeed.
    Prepare(Treat, Span),
    /// Parks a thread in a fault on the span's first page.
    Park(Ctx, Waiter, Span),
    /// An operation, with the names of the facts for what it returned and for its result field.
    Do(Ctx, Call, &'static str, &'static str),
    /// An operation by a thread of its own while pages are pinned, and the end of the pin once the
    /// operation has returned or gone round in circles: the facts `spins`, `move` and `field`.
    WhilePinned(Ctx, Call),
    /// A treatment, with the name of the fact for what it returned.
    Treat(Treat, Span, &'static str),
    /// What became of the parked thread: the facts `waiter` and `queue`.
    Look(Ctx),
    /// What became of the parked thread so far, for a script that looks twice: the name of the fact.
    Glance(Ctx, &'static str),
    /// Wakes the parked thread if it still waits: the fact `rescued`.
    Rescue(Ctx),
    /// Registration and content of each page.
    Survey(Span, &'static str, &'static str),
    /// How many huge pages the first mapping of a span has: smaps, AnonHugePages and
    /// ShmemPmdMapped.
    Huge(Span, &'static str),
    /// What pagemap says of each page.
    Bits(Span, &'static str),
    /// A new thread accesses the first page: what became of it.
    Touch(Ctx, Waiter, Span, &'static str),
    /// A new child loads from the first page: what it met.
    ChildLoads(Span, &'static str),
}

impl Step {
    /// Whether it takes memory away from the machine until it boots again.
    const fn harms(&self) -> bool {
        matches!(self, Self::Prepare(Treat::HwPoison, _) | Self::Treat(Treat::HwPoison, ..))
    }
}

/// The facts that a script should show on a kernel.
type Expect = Box<dyn Fn(KernelVersion) -> Vec<Expected> + Send + Sync>;

/// A question in steps.
pub(crate) struct Script {
    axes: String,
    needs: u64,
    steps: Vec<Step>,
    expect: Expect,
    /// Results of its calls that somebody else's hold on a page explains.
    transient: &'static [&'static str],
}

impl Script {
    /// A question with its axes, the features that it needs, and the facts that it should show.
    pub(crate) fn new(
        axes: String,
        needs: u64,
        steps: Vec<Step>,
        expect: impl Fn(KernelVersion) -> Vec<Expected> + Send + Sync + 'static,
    ) -> Self {
        Self { axes, needs, steps, expect: Box::new(expect), transient: &[] }
    }

    /// The same, and all of it again if a call of the question returns one of `results`, which the kernel gives
    /// when somebody else holds a page for a moment, as khugepaged or compaction may.
    pub(crate) fn again_on(self, results: &'static [&'static str]) -> Self {
        Self { transient: results, ..self }
    }
}

impl fmt::Debug for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Script").field("axes", &self.axes).finish_non_exhaustive()
    }
}

impl Trial for Script {
    fn axes(&self) -> String {
        self.axes.clone()
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        seen.step("set-up");
        stage.must_offer(self.needs)?;
        if self.steps.iter().any(Step::harms) && !stage.disposable {
            return Err(Stop::Precondition(
                "takes memory away from the machine: only asked in a VM".into(),
            ));
        }
        let mut act = run::Act::new(stage, self.transient);
        self.steps.iter().try_for_each(|step| act.step(*step, seen))
    }

    fn expect(&self, kernel: KernelVersion) -> Vec<Expected> {
        (self.expect)(kernel)
    }

    fn recipe(&self) -> Vec<String> {
        let mut recipe: Vec<String> = self.steps.iter().map(|step| words::step(*step)).collect();
        if !self.transient.is_empty() {
            recipe.push(format!(
                "If it returned {}, somebody else may have held a page for a moment: all of it again, up to \
                 {ASKED_AT_MOST} times in all",
                self.transient.join(" or ")
            ));
        }
        recipe
    }

    fn uses_huge_pages(&self) -> bool {
        self.steps
            .iter()
            .any(|step| matches!(step, Step::Map(_, Memory::Of(backing)) if backing.is_huge()))
    }
}
