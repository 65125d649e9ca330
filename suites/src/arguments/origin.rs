//! What COPY reads from: memory of every kind that can't be read, and some that can.

use super::ground::{Did, Ground, Verdict};
use super::range::{TASK_SIZE, refuses_low};
use super::twist::{Called, Twist, Twisted, grounds};
use crate::abi::command::Command;
use crate::abi::{Range, Rc};
use crate::edge::SOURCE_CHECKED;
use crate::expect::Expected;
use crate::memory::{HUGE, PAGE, RW, SPARE, map, new_data, tag};
use crate::outcome::{Seen, Stop};
use crate::point::{Backing, PAGES, axis};
use crate::probe::{Case, Probe, Trial};
use crate::scenario::Scene;
use crate::stage::Stage;
use crate::touch;
use crate::waiter::{Access, Fate, Waiter};
use std::os::fd::AsFd;
use uffd_results::KernelVersion;

static SOURCE: Probe = Probe {
    suite: "arguments",
    name: "copy-source",
    statement: "COPY from memory that can't be read is EFAULT and wakes nobody; the kind and the \
                alignment of memory that can be read do not matter.",
    consumers: &["Firecracker and E2B handlers: COPY from a mapped snapshot file", "umap: buffers"],
};
static ITSELF: Probe = Probe {
    suite: "arguments",
    name: "copy-source-registered",
    statement: "COPY from a page that is missing and registered itself parks in its own fault; when \
                that is resolved it copies what was placed there.",
    consumers: &["handlers whose buffers lie in registered memory"],
};

/// Where sources stand.
const FROM: usize = SPARE + (32 << 20);

axis! {
    /// What COPY is to read from.
    From {
        /// The stage's buffer: the control.
        Good = "good",
        /// Private anonymous memory that was never touched.
        Untouched = "untouched",
        /// Memory that can only be read.
        ReadOnly = "read-only",
        /// Memory that can only be written, which x86-64 lets be read.
        WriteOnly = "write-only",
        /// A regular file.
        File = "file",
        /// A shared memfd.
        Memfd = "memfd",
        /// A byte behind the buffer's start.
        Odd = "odd",
        /// A byte short of a page behind the buffer's start.
        OddEnd = "odd-end",
        /// No mapping.
        Unmapped = "unmapped",
        /// Memory without access.
        ProtNone = "prot-none",
        /// A mapping of a file behind the file's end.
        BeyondEnd = "beyond-end-of-file",
        /// Good up to the last byte, behind which nothing is mapped.
        Cut = "cut-by-a-byte",
        /// Address 0.
        Null = "null",
        /// The last page of user memory.
        LastUser = "last-user-page",
        /// The first address behind user memory.
        TaskSize = "task-size",
        /// The kernel's memory.
        Kernel = "kernel",
        /// A page's length below 2^64.
        Wraps = "wraps",
    }
}

/// Why a source fails.
enum Ends {
    /// It does not.
    Reads(&'static str, char),
    /// It can't be read.
    Fault,
    /// Its range is refused.
    Refused,
}

impl From {
    fn ends(self, kernel: KernelVersion) -> Ends {
        match self {
            Self::Good => Ends::Reads("ran:copied", 'c'),
            Self::Untouched | Self::ReadOnly | Self::WriteOnly => Ends::Reads("ran:zero", '0'),
            Self::File | Self::Memfd => Ends::Reads("ran:new", 'n'),
            Self::Odd | Self::OddEnd => Ends::Reads("ran:other", 'x'),
            Self::Wraps => Ends::Refused,
            Self::Null if SOURCE_CHECKED.is_known_in(kernel) && refuses_low(kernel) => {
                Ends::Refused
            }
            Self::TaskSize | Self::Kernel if SOURCE_CHECKED.is_known_in(kernel) => Ends::Refused,
            _ => Ends::Fault,
        }
    }

    /// Makes the memory; its address.
    fn make(self, stage: &Stage) -> Result<usize, Stop> {
        let page = Range { start: FROM, len: PAGE };
        let two = Range { start: FROM, len: 2 * PAGE };
        let anon = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let checked = |rc: Rc| match rc {
            Rc(None) => Ok(()),
            rc => Err(Stop::Broken(format!("mapping a source: {rc}"))),
        };
        match self {
            Self::Good => return Ok(stage.source),
            Self::Odd => return Ok(stage.source + 1),
            Self::OddEnd => return Ok(stage.source + PAGE - 1),
            Self::Unmapped => {}
            Self::Untouched => checked(map(page, RW, anon, None, 0))?,
            Self::ReadOnly => checked(map(page, libc::PROT_READ, anon, None, 0))?,
            Self::WriteOnly => checked(map(page, libc::PROT_WRITE, anon, None, 0))?,
            Self::ProtNone => checked(map(page, libc::PROT_NONE, anon, None, 0))?,
            Self::Cut => {
                checked(map(page, RW, anon, None, 0))?;
                return Ok(FROM + 1);
            }
            Self::File => {
                let fd = Some(stage.plain_fd()?);
                checked(map(page, libc::PROT_READ, libc::MAP_PRIVATE, fd, 0))?;
            }
            Self::Memfd | Self::BeyondEnd => {
                let file = new_data(PAGE)?;
                let offset = if self == Self::Memfd { 0 } else { 64 * PAGE };
                checked(map(two, RW, libc::MAP_SHARED, Some(file.as_fd()), offset))?;
            }
            Self::Null => return Ok(0),
            Self::LastUser => return Ok(TASK_SIZE - PAGE),
            Self::TaskSize => return Ok(TASK_SIZE),
            Self::Kernel => return Ok(0xffff_8880_0000_0000),
            Self::Wraps => return Ok(PAGE.wrapping_neg() + 1),
        }
        Ok(FROM)
    }
}

impl Twist for From {
    fn axis(&self) -> String {
        format!("source={self}")
    }

    fn applies(&self, ground: Ground) -> bool {
        ground.command == Command::Copy
            && (!ground.backing.is_huge() || matches!(self, Self::Good | Self::Unmapped))
    }

    fn call(&self, _: Ground, scene: &Scene<'_>, seen: &mut Seen<'_>) -> Result<Called, Stop> {
        let from = self.make(scene.stage)?;
        seen.step("call");
        let (rc, field) = scene.uffd.copy(scene.target(), from, 0);
        Ok(Called { rc, field: Some(field.to_string()) })
    }

    fn verdict(&self, ground: Ground, kernel: KernelVersion) -> Verdict {
        let says =
            "ioctl_userfaultfd(2), UFFDIO_COPY: copies from memory of the caller at any address";
        let fault =
            "mfill_atomic_pte_copy() in mm/userfaultfd.c: EFAULT if the source can't be read";
        match self.ends(kernel) {
            Ends::Reads(..) => Verdict::done(ground, says),
            Ends::Fault => Verdict::failed("EFAULT", -14, fault),
            Ends::Refused => {
                Verdict::refused("EINVAL", "userfaultfd_copy() checks the source's range")
            }
        }
    }

    fn adjust(&self, facts: &mut [Expected], kernel: KernelVersion) {
        let Ends::Reads(fate, letter) = self.ends(kernel) else { return };
        for fact in facts {
            match fact.fact {
                "waiter" if fact.value.starts_with("ran") => fact.value = fate.into(),
                "pages" => fact.value = format!("--{letter}k--").into(),
                _ => {}
            }
        }
    }

    fn says(&self, _: Ground) -> String {
        format!("UFFDIO_COPY of a page from a source of this kind: {self}")
    }
}

/// COPY whose source is a missing page of the registered block.
#[derive(Clone, Copy, Debug)]
struct Itself {
    backing: Backing,
    /// Whether source and destination are the same page.
    same: bool,
}

impl Trial for Itself {
    fn axes(&self) -> String {
        let page = if self.same { "destination" } else { "other" };
        format!("backing={},page={page}", self.backing)
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        seen.step("set-up");
        let ground = Ground { command: Command::Copy, backing: self.backing, in_kernel: false };
        let scene = ground.scene(stage, 0)?;
        let from = if self.same { scene.page } else { 4 };
        let source = scene.block.range(from..from + 1);
        let (uffd, target) = (scene.uffd.duplicate(), scene.target());
        let uffd = uffd.map_err(|e| Stop::Broken(format!("dup: {e:?}")))?;
        seen.step("copy");
        let mut caller = Waiter::begin(stage, move || {
            let (rc, _) = uffd.copy(target, source.start, 0);
            rc.0.map_or(Access::Ran(None), Access::Failed)
        })?;
        let parked = caller.settle(&scene.uffd, &scene.queue)?;
        seen.fact(
            "caller",
            if parked == Fate::Again { "parks".into() } else { parked.to_string() },
        );
        if parked != Fate::Again {
            return Ok(());
        }
        seen.fact("fault", scene.read_fault()?);
        let (rc, field) = scene.uffd.copy(source, stage.source, 0);
        seen.fact("copy", rc);
        seen.fact("field", field);
        seen.step("end");
        seen.fact("copied", caller.end()?);
        let letter = |value| stage.letter(value);
        let all = scene.block.range(0..PAGES);
        seen.fact("pages", crate::evidence::pages(all, scene.block.page, &letter)?);
        Ok(())
    }

    fn expect(&self, _: KernelVersion) -> Vec<Expected> {
        let says = "mfill_atomic_pte_copy() tries without faults first, then copy_from_user() with no \
                    lock held, which faults like any other access of the kernel's";
        let (fault, copied, pages) =
            if self.same { ("read@2", "EEXIST", "--ck--") } else { ("read@4", "ran", "--ckc-") };
        let length = if self.backing.is_huge() { HUGE } else { PAGE };
        vec![
            Expected::new("caller", "parks", says),
            Expected::new("fault", fault, says),
            Expected::new("copy", "0", says),
            Expected::new("field", length.to_string(), says),
            Expected::new("copied", copied, says),
            Expected::new("pages", pages, says),
        ]
    }

    fn recipe(&self) -> Vec<String> {
        let page = if self.same { "page 2 itself" } else { "page 4, which is missing too" };
        vec![
            format!("map a {} block of {PAGES} pages and register it", self.backing),
            format!(
                "a thread calls UFFDIO_COPY to page 2 from {page}: it parks in that page's fault"
            ),
            "UFFDIO_COPY of good data to the source page; wait for the thread".into(),
        ]
    }

    fn uses_huge_pages(&self) -> bool {
        self.backing.is_huge()
    }
}

/// COPY of two pages whose second one can't be read.
#[derive(Clone, Copy, Debug)]
struct Half(From);

impl Twist for Half {
    fn axis(&self) -> String {
        format!("source=half-{}", self.0)
    }

    fn applies(&self, ground: Ground) -> bool {
        ground.command == Command::Copy && !ground.backing.is_huge()
    }

    fn call(&self, _: Ground, scene: &Scene<'_>, seen: &mut Seen<'_>) -> Result<Called, Stop> {
        let (first, second) = (FROM, Range { start: FROM + PAGE, len: PAGE });
        let anon = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let mut rc = map(Range { start: first, len: PAGE }, RW, anon, None, 0);
        if rc.is_ok() && self.0 == From::ProtNone {
            rc = map(second, libc::PROT_NONE, anon, None, 0);
        }
        if !rc.is_ok() {
            return Err(Stop::Broken(format!("mapping a source: {rc}")));
        }
        touch::store(first, tag::COPIED)
            .map_err(|signal| Stop::Broken(format!("writing a source: {signal}")))?;
        // Pages 1 and 2: the waiter's is the one that fails.
        let (rc, field) = scene.uffd.copy(scene.block.range(1..3), first, 0);
        seen.step("call");
        Ok(Called { rc, field: Some(field.to_string()) })
    }

    fn verdict(&self, _: Ground, _: KernelVersion) -> Verdict {
        let says = "ioctl_userfaultfd(2), UFFDIO_COPY, EAGAIN: the field says how much was copied; only \
                    that much is woken";
        Verdict { rc: "EAGAIN", field: Some(PAGE.to_string()), did: Did::Nothing, says }
    }

    fn adjust(&self, facts: &mut [Expected], _: KernelVersion) {
        for fact in facts.iter_mut().filter(|fact| fact.fact == "pages") {
            fact.value = "-c-k--".into();
        }
    }

    fn says(&self, _: Ground) -> String {
        format!("UFFDIO_COPY of pages 1 and 2; the source of page 2 is {}", self.0)
    }
}

/// The cases.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (ground, plain) in grounds() {
        for from in From::ALL {
            cases.extend(Twisted::case(&SOURCE, ground, *from, plain));
        }
        for from in [From::Unmapped, From::ProtNone] {
            cases.extend(Twisted::case(&SOURCE, ground, Half(from), plain));
        }
    }
    for backing in Backing::ALL {
        for same in [false, true] {
            let by_default = !backing.is_huge();
            cases.push(Case::trial(&ITSELF, Itself { backing: *backing, same }, by_default));
        }
    }
    cases
}
