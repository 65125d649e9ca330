//! The heap: brk(2) gives registered memory back and takes more.

use super::ground::{NONE, UNMAP, Wants};
use crate::abi::{REGISTER_MODE_MISSING, Range};
use crate::evidence::{self, QueueFile};
use crate::expect::Expected;
use crate::memory::{ONE_PAGE, PAGE};
use crate::model::source;
use crate::mover::Mover;
use crate::outcome::{Seen, Stop};
use crate::point::{Waiter as Kind, axis};
use crate::probe::{Case, Probe, Trial};
use crate::stage::Stage;
use crate::treat;
use crate::waiter::Waiter;
use uffd_results::KernelVersion;

static BRK: Probe = Probe {
    suite: "events",
    name: "brk",
    statement: "With EVENT_UNMAP a heap that shrinks over registered memory raises UNMAP with what it gives \
                back; a registered heap that grows is not registered behind its old end, and nobody is \
                woken.",
    consumers: &["libfabric: ofi_uffd_handler() (free(3) shrinks the heap)", "psm3: mr cache"],
};

axis! {
    /// What brk(2) does to a heap of six pages more than before.
    How {
        /// It gives all six back.
        Whole = "shrink-whole",
        /// It gives the last three back.
        Half = "shrink-half",
        /// It gives a page that is not registered back.
        Beside = "shrink-beside",
        /// It takes two more.
        Grow = "grow",
        /// It gives three back and takes them again.
        Again = "shrink-and-grow",
    }
}

#[derive(Clone, Copy, Debug)]
struct Brk {
    how: How,
    events: Wants,
    waits: bool,
}

/// Pages that the heap has more, and pages looked at.
const PAGES: usize = 6;
const WINDOW: usize = 8;
/// The page that the waiter waits for.
const HERE: usize = 4;

impl Brk {
    /// The pages that are registered.
    const fn registered(self) -> std::ops::Range<usize> {
        if matches!(self.how, How::Beside) { 0..5 } else { 0..PAGES }
    }

    /// Where the heap ends after each call, in pages.
    const fn ends(self) -> &'static [usize] {
        match self.how {
            How::Whole => &[0],
            How::Half => &[3],
            How::Beside => &[5],
            How::Grow => &[8],
            How::Again => &[3, 6],
        }
    }
}

impl Trial for Brk {
    fn axes(&self) -> String {
        let Self { how, events, waits } = self;
        let waiter = if *waits { Kind::UserRead } else { Kind::None };
        format!("how={how},events={},waiter={waiter}", events.word)
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        seen.step("set-up");
        stage.must_offer(self.events.bits)?;
        let base = treat::brk(0).next_multiple_of(PAGE);
        let at = |page: usize| base + page * PAGE;
        let pages = |pages: std::ops::Range<usize>| Range {
            start: at(pages.start),
            len: pages.len() * PAGE,
        };
        if treat::brk(at(PAGES)) != at(PAGES) {
            return Err(Stop::Precondition("the heap can't grow".into()));
        }
        let uffd = stage.uffd(self.events.bits)?;
        let queue = QueueFile::open(&uffd)?;
        uffd.register(pages(self.registered()), REGISTER_MODE_MISSING)
            .map_err(|e| Stop::Unsupported(format!("REGISTER of the heap: {e:?}")))?;
        let mut waiter = None;
        let target = pages(HERE..HERE + 1);
        if self.waits {
            seen.step("park");
            waiter = Some(Waiter::park(stage, Kind::UserRead, target, &uffd, &queue)?);
            uffd.read().map_err(|e| Stop::Broken(format!("reading the fault: {e:?}")))?;
        }
        let names = [("events", "heap"), ("events-2", "heap-2")];
        for (end, (events, heap)) in self.ends().iter().zip(names) {
            seen.step(heap);
            let to = at(*end);
            let mover = Mover::start(stage, move || {
                treat::brk(to);
                crate::abi::Rc::OK
            })?;
            let mut raised = Vec::new();
            while mover.blocks_on_event(&uffd)? {
                raised.push(match uffd.read() {
                    Ok(crate::abi::Message::Unmap { start, end }) => {
                        format!("unmap({}..{})", (start - base) / PAGE, (end - base) / PAGE)
                    }
                    other => format!("{other:?}"),
                });
            }
            mover.join()?;
            seen.fact(events, if raised.is_empty() { "none".into() } else { raised.join(",") });
            seen.fact(heap, (treat::brk(0) - base) / PAGE);
        }
        seen.fact("reg", evidence::registration(&[(pages(0..WINDOW), PAGE)])?.concat());
        let (rc, field) = uffd.copy(target, stage.source, crate::abi::COPY_MODE_DONTWAKE);
        seen.fact("copy", rc);
        seen.fact("field", field);
        if let Some(mut waiter) = waiter {
            seen.fact("waiter", stage.word(waiter.look(&uffd, &queue)?));
            seen.step("rescue");
            uffd.wake(target);
            seen.fact("rescued", stage.word(waiter.look(&uffd, &queue)?));
        }
        Ok(())
    }

    fn expect(&self, _: KernelVersion) -> Vec<Expected> {
        let says = "brk(2) in mm/mmap.c: what it gives back is unmapped as by munmap(2), with its events; \
                    what it takes is a mapping without a context, which does not merge with one that has \
                    one";
        let mut rows = vec![b'-'; WINDOW];
        rows[..PAGES].fill(b'.');
        rows[self.registered()].fill(b'm');
        let mut facts = Vec::new();
        let mut end = PAGES;
        let names = [("events", "heap"), ("events-2", "heap-2")];
        for (to, (events, heap)) in self.ends().iter().zip(names) {
            let told = *to < end && self.events.bits != 0 && self.how != How::Beside;
            let raised = if told { format!("unmap({to}..{end})") } else { "none".to_owned() };
            facts.push(Expected::new(events, raised, says));
            facts.push(Expected::new(heap, to.to_string(), says));
            if *to < end {
                rows[*to..end].fill(b'-');
            } else {
                rows[end..*to].fill(b'.');
            }
            end = *to;
        }
        let registered = rows[HERE] == b'm';
        let here = rows[HERE];
        facts.push(Expected::new("reg", String::from_utf8_lossy(&rows).into_owned(), says));
        let copy = if registered { ("0", ONE_PAGE) } else { ("ENOENT", "-2") };
        facts.push(Expected::new("copy", copy.0, source::COPY_ENOENT));
        facts.push(Expected::new("field", copy.1, source::COPY_ENOENT));
        if self.waits {
            let met = match here {
                b'm' => "ran:copied",
                b'.' => "ran:zero",
                _ => "SEGV_MAPERR",
            };
            facts.push(Expected::new("waiter", "asleep", source::QUEUE));
            facts.push(Expected::new("rescued", met, source::RERUN));
        }
        facts
    }

    fn recipe(&self) -> Vec<String> {
        let Self { how, events, waits } = self;
        let pages = self.registered();
        vec![
            "brk(2): six pages more; nobody touches them".to_owned(),
            format!(
                "UFFDIO_API with the event features {}; UFFDIO_REGISTER of pages {}..{} of them{}",
                events.word,
                pages.start,
                pages.end,
                if *waits {
                    "; a thread loads from page 4 and parks; read its message"
                } else {
                    ""
                }
            ),
            format!("a thread calls brk(2): {how}; read its events"),
            "UFFDIO_COPY to page 4 with MODE_DONTWAKE; look at the waiter; UFFDIO_WAKE".to_owned(),
        ]
    }
}

/// The cases.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for how in How::ALL {
        for events in [NONE, UNMAP] {
            for waits in [true, false] {
                cases.push(Case::trial(&BRK, Brk { how: *how, events, waits }, true));
            }
        }
    }
    cases
}
