//! One call on memory of two contexts: each is told, one after the other.

use super::ground::{ALL, Ground, NONE, Wants, register, word, write};
use crate::abi::{Range, Rc, Uffd};
use crate::expect::Expected;
use crate::memory::{self, BLOCK, Block, OTHER, RW, remap, tag};
use crate::mover::Mover;
use crate::outcome::{Seen, Stop};
use crate::point::{Backing, PAGES, axis};
use crate::probe::{Case, Probe, Trial};
use crate::stage::Stage;
use uffd_results::KernelVersion;

static SEVERAL: Probe = Probe {
    suite: "events",
    name: "several-contexts",
    statement: "A call on mappings of two contexts tells the second only once the first's event was read; \
                an UNMAP has the range of the call for both, and stops the ioctls of both until then; a \
                REMOVE has the range of one mapping and stops its own context only.",
    consumers: &[
        "crosvm: one userfaultfd a process",
        "CRIU lazy-pages: one userfaultfd a process",
        "KVM selftests: one userfaultfd a region",
    ],
};

axis! {
    /// The call on the whole block, whose halves belong to two contexts.
    How {
        /// munmap(2).
        Unmap = "munmap",
        /// mmap(2) with MAP_FIXED.
        Over = "mmap-over",
        /// mremap(2) of other memory onto it.
        Onto = "mremap-onto",
        /// MADV_DONTNEED.
        Discard = "dontneed",
        /// mremap(2) to an empty place, which is refused.
        Move = "mremap",
    }
}

#[derive(Clone, Copy, Debug)]
struct Several {
    backing: Backing,
    how: How,
    second: Wants,
}

/// The first context's half.
const FIRST: std::ops::Range<usize> = 0..3;
const SECOND: std::ops::Range<usize> = 3..PAGES;

impl How {
    fn call(self, all: Range, from: Range) -> Rc {
        let moving = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
        match self {
            Self::Unmap => memory::unmap(all),
            Self::Over => memory::map(all, RW, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, None, 0),
            Self::Onto => remap(from, from.len, moving, BLOCK),
            Self::Discard => memory::dontneed(all),
            Self::Move => remap(all, all.len, moving, memory::ELSEWHERE),
        }
    }
}

impl Trial for Several {
    fn axes(&self) -> String {
        let Self { backing, how, second } = self;
        format!("backing={backing},how={how},second={}", second.word)
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        let Self { backing, how, second } = *self;
        seen.step("set-up");
        let ground = Ground::set_part(stage, backing, ALL.bits, FIRST)?;
        let Ground { block, uffd: first, .. } = &ground;
        let second = stage.uffd(second.bits)?;
        register(&second, block.range(SECOND))?;
        if how == How::Onto {
            // A mapping keeps its file.
            let other = Block::map(backing, OTHER)?;
            write(&other, OTHER, 0, tag::NEW)?;
        }
        // Both present: EEXIST where nothing stops the call and the page is still there.
        let copy =
            |uffd: &Uffd, page: usize| uffd.copy(block.range(page..page + 1), stage.source, 0).0;
        let (all, from, page) = (block.range(0..PAGES), block.at(OTHER, 0..PAGES), block.page);
        let both = [first, &second];
        seen.step("call");
        let mover = Mover::start(stage, move || how.call(all, from))?;
        if mover.blocks_on_one_of(&both)?.is_some() {
            seen.fact("early-second", word(&second, page));
            seen.fact("copy-first", copy(first, 0));
            seen.fact("copy-second", copy(&second, 4));
            seen.fact("event-first", word(first, page));
            if mover.blocks_on_one_of(&both)?.is_some() {
                seen.fact("then-first", copy(first, 0));
                seen.fact("then-second", copy(&second, 4));
                seen.fact("event-second", word(&second, page));
            }
        }
        seen.fact("call", mover.join()?);
        seen.fact("left", format!("{}+{}", word(first, page), word(&second, page)));
        seen.fact("reg", ground.registration()?);
        seen.fact("pages", ground.pages()?);
        Ok(())
    }

    fn expect(&self, _: KernelVersion) -> Vec<Expected> {
        let Self { backing, how, second } = *self;
        let one = "userfaultfd_unmap_complete() and userfaultfd_remove() wait for one event after the \
                   other";
        let changing = "userfaultfd_unmap_prep(): mmap_changing of every context counts from before the \
                        change on; userfaultfd_remove(): from the event of the mapping on";
        let mut facts = Vec::new();
        let mut say = |name, value: &str, says| {
            facts.push(Expected::new(name, value.to_owned(), says));
        };
        let told = second.bits != 0;
        if how != How::Move {
            let (event, next) = match how {
                How::Discard => ("remove(0..3)", "remove(3..6)"),
                _ => ("unmap(0..6)", "unmap(0..6)"),
            };
            let discards = how == How::Discard;
            let free = if discards { "EEXIST" } else { "ENOENT" };
            let filled = match (discards, backing) {
                (true, Backing::Shmem) => "EEXIST",
                (true, _) => "0",
                (false, _) => "ENOENT",
            };
            say("early-second", "EAGAIN", one);
            say("copy-first", "EAGAIN", changing);
            say("copy-second", if told && !discards { "EAGAIN" } else { free }, changing);
            say("event-first", event, one);
            if told {
                // The first's half is discarded before the second is told; a file keeps its page.
                say("then-first", filled, changing);
                say("then-second", "EAGAIN", changing);
                say("event-second", next, one);
            }
        }
        let says = "mremap(2), EFAULT: several mappings that userfaultfd holds";
        say("call", if how == How::Move { "EFAULT" } else { "0" }, says);
        say("left", "EAGAIN+EAGAIN", one);
        let (reg, pages) = match how {
            How::Discard if told && backing == Backing::Shmem => ("mmmmmm", "------"),
            How::Unmap => ("------", "------"),
            How::Over => ("......", "------"),
            How::Onto => ("......", "n-----"),
            How::Discard if told => ("mmmmmm", "c-----"),
            How::Discard => ("mmmmmm", "------"),
            How::Move => ("mmmmmm", "kk-kkk"),
        };
        say("reg", reg, one);
        say("pages", pages, one);
        facts
    }

    fn recipe(&self) -> Vec<String> {
        let Self { backing, how, second } = self;
        vec![
            format!("map a block of 6 pages ({backing}); write to all but page 2"),
            format!(
                "register pages 0..3 with a userfaultfd that wants the events remap, remove and unmap, \
                 pages 3..6 with one that wants {}",
                second.word
            ),
            format!("a thread calls {how} of the whole block"),
            "at each event: read from the second, UFFDIO_COPY to page 0 through the first and to page 4 \
             through the second; then read the event"
                .to_owned(),
            "when it has returned: read from both; look at registration and content".to_owned(),
        ]
    }
}

/// The cases.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for backing in [Backing::Anon, Backing::Shmem, Backing::Private] {
        for how in How::ALL {
            for second in [ALL, NONE] {
                let trial = Several { backing, how: *how, second };
                cases.push(Case::trial(&SEVERAL, trial, backing != Backing::Private));
            }
        }
    }
    cases
}
