//! COPY whose source is a missing page of its own userfaultfd: it waits for a page that only another
//! handler can bring.

use super::stopped::{Copying, leak, shut, word};
use crate::abi::{Field, Range, Rc};
use crate::events::ground::{self, Ground, MISSING};
use crate::evidence;
use crate::expect::Expected;
use crate::memory::{self, Block, ONE_PAGE, TWO_PAGES};
use crate::model::source as says;
use crate::outcome::{Seen, Stop};
use crate::point::{Backing, Discard, PAGES, axis};
use crate::probe::{Case, Probe, Trial};
use crate::process;
use crate::stage::Stage;
use uffd_results::KernelVersion;

static OWN: Probe = Probe {
    suite: "races",
    name: "copy-own",
    statement: "A COPY whose source is a missing page of its own context waits in its own queue: another \
                handler that serves the fault frees it; the last close does not, since the ioctl holds \
                the context.",
    consumers: &[
        "QEMU postcopy: the page that is received must not lie in guest RAM, migration/postcopy-ram.c",
        "umap: src/umap/Buffer.cpp, which copies between buffers of its own",
    ],
};
/// The page beside the missing one, which a case can empty as well.
const BESIDE: usize = MISSING + 1;

axis! {
    /// Which pages are copied to where; pages 2 and 3 are missing.
    Shape {
        /// Page 3 to page 2.
        Beside = "beside",
        /// Page 2 to page 2.
        Itself = "itself",
        /// Pages 3 and 4 to pages 2 and 3: the second target is the first source.
        Behind = "overlap-behind",
        /// Pages 1 and 2 to pages 2 and 3: the second source is the first target.
        Before = "overlap-before",
    }
}

axis! {
    /// What another thread does for the COPY that waits.
    By {
        /// COPY to the source.
        Copy = "copy",
        /// ZEROPAGE of the source.
        Zeropage = "zeropage",
        /// WAKE of the source, after which it is missing still; then COPY.
        Wake = "wake-copy",
        /// UNREGISTER of the source's page.
        UnregisterSource = "unregister-source",
        /// UNREGISTER of the block.
        Unregister = "unregister",
        /// The source is unmapped, then WAKE.
        Unmap = "munmap-wake",
        /// The descriptor is closed; then the source is unmapped and a signal sent.
        Close = "close-munmap-signal",
    }
}

#[derive(Debug)]
struct Own {
    backing: Backing,
    shape: Shape,
    by: By,
}

impl Shape {
    const fn pages(self) -> (usize, usize, usize) {
        match self {
            Self::Beside => (MISSING, BESIDE, 1),
            Self::Itself => (MISSING, MISSING, 1),
            Self::Behind => (MISSING, BESIDE, 2),
            Self::Before => (MISSING, MISSING - 1, 2),
        }
    }
}

/// Empties the page beside the missing one, in the file behind it as well.
pub(super) fn empty(block: &Block) -> Result<(), Stop> {
    let pages = BESIDE..BESIDE + 1;
    let rc = match block.backing {
        Backing::SharedAnon => block.discard(Discard::Remove, pages.clone())?,
        _ => block.discard(Discard::DontNeed, pages.clone())?,
    };
    let punched = if block.file.is_some() { block.discard(Discard::Punch, pages)? } else { Rc::OK };
    if rc.is_ok() && punched.is_ok() {
        return Ok(());
    }
    Err(Stop::Broken(format!("emptying a page: {rc}, {punched}")))
}

/// A page of the block.
pub(super) fn page(n: usize) -> Range {
    Range { start: memory::BLOCK + n * memory::PAGE, len: memory::PAGE }
}

impl Own {
    fn wait(&self, ground: Ground<'_>, seen: &mut Seen<'_>) -> Result<(), Stop> {
        let stage = ground.stage;
        let (to, from, count) = self.shape.pages();
        let target = ground.block.range(to..to + count);
        let at = page(from);
        let (uffd, other) = (leak(&ground.uffd)?, leak(&ground.uffd)?);
        let Ground { uffd: first, queue, block, .. } = ground;
        let mut copying =
            Copying::start(stage, (at.start, (other, &queue)), uffd, (target, at.start))?;
        seen.fact("parked", queue.read()?);
        seen.step("act");
        match self.by {
            By::Copy => seen.fact("act", other.copy(at, stage.source, 0).0),
            By::Zeropage => seen.fact("act", other.zeropage(at, 0).0),
            By::Wake => {
                seen.fact("act", other.wake(at));
                let fate = copying.stopped.thread().look(other, &queue)?;
                seen.fact("woken", word(fate));
                seen.fact("message", ground::word(other, memory::PAGE));
                seen.fact("act-again", other.copy(at, stage.source, 0).0);
            }
            By::UnregisterSource => seen.fact("act", other.unregister(at)),
            By::Unregister => seen.fact("act", other.unregister(block.range(0..PAGES))),
            By::Unmap => {
                seen.fact("act", memory::unmap(at));
                let fate = copying.stopped.thread().look(other, &queue)?;
                seen.fact("unmapped", word(fate));
                other.wake(at);
            }
            By::Close => {
                drop(first);
                shut(other);
                seen.fact("act", shut(uffd));
                seen.fact("closed", word(copying.stopped.thread().look_alone()?));
                let reg = evidence::registration(&[(block.range(0..PAGES), block.page)])?;
                seen.fact("closed-reg", reg.concat());
                memory::unmap(at);
                process::signal_thread(copying.stopped.thread().tid())?;
            }
        }
        Self::tell(copying.end()?, &block, stage, seen)
    }

    fn tell(
        (rc, field): (String, Field),
        block: &Block,
        stage: &Stage,
        seen: &mut Seen<'_>,
    ) -> Result<(), Stop> {
        seen.fact("copy", rc);
        seen.fact("field", field);
        let all = block.range(0..PAGES);
        seen.fact("reg", evidence::registration(&[(all, block.page)])?.concat());
        seen.fact("pages", evidence::pages(all, block.page, &|value| stage.letter(value))?);
        Ok(())
    }
}

impl Trial for Own {
    fn axes(&self) -> String {
        let Self { backing, shape, by } = self;
        format!("backing={backing},shape={shape},by={by}")
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        seen.step("set-up");
        process::catch(false)?;
        let ground = Ground::set(stage, self.backing, 0)?;
        empty(&ground.block)?;
        seen.step("copy");
        if self.shape == Shape::Before {
            let (to, from, count) = self.shape.pages();
            let target = ground.block.range(to..to + count);
            let (rc, field) = ground.uffd.copy(target, page(from).start, 0);
            return Self::tell((rc.to_string(), field), &ground.block, stage, seen);
        }
        self.wait(ground, seen)
    }

    fn expect(&self, _: KernelVersion) -> Vec<Expected> {
        let Self { shape, by, .. } = *self;
        let waits = "mfill_atomic(): the fault on the source comes with all locks dropped, as any fault; \
                     afterwards the target is looked up again";
        let holds = "ioctl(2) holds the open file: userfaultfd_release() comes when the ioctl has \
                     returned";
        let hole =
            "handle_userfault() returns VM_FAULT_RETRY: the fault runs again, and finds no mapping";
        if shape == Shape::Before {
            let why =
                "mfill_atomic(): a page at a time, so the second source is the page just placed";
            return vec![
                Expected::new("copy", "0", why),
                Expected::new("field", TWO_PAGES, why),
                Expected::new("reg", "mmmmmm", why),
                Expected::new("pages", "kkkkkk", why),
            ];
        }
        let mut facts =
            vec![Expected::new("parked", "1/0", waits), Expected::new("act", "0", says::COPY)];
        match by {
            By::Wake => facts.extend([
                Expected::new("woken", "again", says::RERUN),
                Expected::new("message", format!("pagefault@{}", shape.pages().1), says::RERUN),
                Expected::new("act-again", "0", says::COPY),
            ]),
            By::Unmap => facts.push(Expected::new("unmapped", "asleep", says::QUEUE)),
            By::Close => facts.extend([
                Expected::new("closed", "asleep", holds),
                Expected::new("closed-reg", "mmmmmm", holds),
            ]),
            _ => {}
        }
        let itself = shape == Shape::Itself;
        let content = match by {
            By::Copy | By::Wake => "c",
            _ => "0",
        };
        let (rc, field, why) = match (by, shape) {
            (By::Unmap | By::Close, _) => ("EFAULT", "-14", hole),
            (By::Unregister, _) | (By::UnregisterSource, Shape::Itself | Shape::Behind) => {
                ("ENOENT", "-2", waits)
            }
            (_, Shape::Itself) => ("EEXIST", "-17", waits),
            (_, Shape::Behind) => ("EAGAIN", ONE_PAGE, waits),
            _ => ("0", ONE_PAGE, waits),
        };
        facts.push(Expected::new("copy", rc, why));
        facts.push(Expected::new("field", field, why));
        let reg = match by {
            By::UnregisterSource if itself => "mm.mmm",
            By::UnregisterSource => "mmm.mm",
            By::Unregister | By::Close if itself && by == By::Close => "..-...",
            By::Close => "...-..",
            By::Unregister => "......",
            By::Unmap if itself => "mm-mmm",
            By::Unmap => "mmm-mm",
            _ => "mmmmmm",
        };
        facts.push(Expected::new("reg", reg, why));
        let placed = matches!(rc, "0" | "EAGAIN");
        // A source that was read holds zeros; one that was unmapped, nothing.
        let gone = matches!(by, By::Unmap | By::Close);
        let pages = match (itself, gone) {
            (true, false) => format!("kk{content}-kk"),
            (_, true) => "kk--kk".to_owned(),
            (false, false) => format!("kk{}{content}kk", if placed { content } else { "-" }),
        };
        facts.push(Expected::new("pages", pages, why));
        facts
    }

    fn recipe(&self) -> Vec<String> {
        let (to, from, count) = self.shape.pages();
        let mut steps = vec![
            format!(
                "map and register a block of 6 pages ({}), pages 2 and 3 missing",
                self.backing
            ),
            format!("a thread calls UFFDIO_COPY of {count} pages, from page {from} to page {to}"),
        ];
        if self.shape != Shape::Before {
            steps.push("it parks on its source; read its message".to_owned());
            steps.push(format!("another thread: {}", self.by));
        }
        steps.push("what the COPY returned; look at every page".to_owned());
        steps
    }
}

/// The cases.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for backing in [Backing::Anon, Backing::Shmem, Backing::Private, Backing::SharedAnon] {
        let by_default = matches!(backing, Backing::Anon | Backing::Shmem);
        for shape in Shape::ALL {
            for by in By::ALL {
                // Nothing waits.
                if *shape == Shape::Before && *by != By::Copy {
                    continue;
                }
                let trial = Own { backing, shape: *shape, by: *by };
                cases.push(Case::trial(&OWN, trial, by_default));
            }
        }
    }
    cases
}
