//! CONTINUE of several pages, one of which is different.

use super::{CLONES, FILES, Modes, Page, REFUSES};
use crate::expect::Expected;
use crate::lab::{Lab, outcome, want};
use crate::memory::{HUGE, PAGE, protect, unmap};
use crate::model::source;
use crate::outcome::{Seen, Stop};
use crate::point::{Backing, PAGES, Waiter as Kind, axis};
use crate::probe::{Case, Probe, Trial};
use crate::stage::Stage;
use uffd_results::KernelVersion;

static SPAN: Probe = Probe {
    suite: "continue",
    name: "span",
    statement: "CONTINUE of several pages maps those before the first that it can't map, returns EAGAIN and \
                their length, and wakes only their waiters; if it can't map the first it returns the \
                reason and wakes nobody.",
    consumers: &[CLONES],
};
static WHOLE: Probe = Probe {
    suite: "continue",
    name: "span-control",
    statement: "CONTINUE of several pages that are all in the page cache maps them and wakes every waiter \
                among them.",
    consumers: &[CLONES],
};

axis! {
    /// Which of pages 1 to 3 is not simply in the page cache.
    Odd {
        /// None: the control.
        None = "none",
        /// The first is mapped.
        FirstMapped = "first-mapped",
        /// The second is mapped.
        MiddleMapped = "middle-mapped",
        /// The third is mapped.
        LastMapped = "last-mapped",
        /// The first is not in the page cache.
        FirstMissing = "first-missing",
        /// The second is not in the page cache.
        MiddleMissing = "middle-missing",
        /// The third is not in the page cache.
        LastMissing = "last-missing",
        /// The third is unmapped.
        LastHole = "last-hole",
        /// The third is in another registered mapping.
        LastSplit = "last-split",
    }
}

impl Odd {
    /// The page concerned and its state; pages 1 to 3 are in the page cache else.
    const fn page(self) -> Option<(usize, Page)> {
        Some(match self {
            Self::None | Self::LastHole | Self::LastSplit => return None,
            Self::FirstMapped => (1, Page::Mapped),
            Self::MiddleMapped => (2, Page::Mapped),
            Self::LastMapped => (3, Page::Mapped),
            Self::FirstMissing => (1, Page::Missing),
            Self::MiddleMissing => (2, Page::Missing),
            Self::LastMissing => (3, Page::Missing),
        })
    }
}

axis! {
    /// Which page somebody waits for.
    Waits {
        /// None.
        Nobody = "nobody",
        /// The first.
        First = "first",
        /// The third.
        Last = "last",
    }
}

impl Waits {
    const fn page(self) -> Option<usize> {
        match self {
            Self::Nobody => None,
            Self::First => Some(1),
            Self::Last => Some(3),
        }
    }
}

/// The question.
#[derive(Clone, Copy, Debug)]
struct Span {
    backing: Backing,
    odd: Odd,
    waits: Waits,
    who: Kind,
}

/// The cases.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for backing in [Backing::Shmem, Backing::Private, Backing::HugetlbShared] {
        for odd in Odd::ALL.iter().copied() {
            for waits in Waits::ALL.iter().copied() {
                let busy = odd.page().is_some_and(|(page, _)| waits.page() == Some(page));
                if busy || odd == Odd::LastHole && waits == Waits::Last {
                    continue;
                }
                for who in [Kind::UserRead, Kind::UserWrite, Kind::SysRead] {
                    if waits == Waits::Nobody && who != Kind::UserRead {
                        continue;
                    }
                    let probe = if odd == Odd::None { &WHOLE } else { &SPAN };
                    let by_default = FILES.contains(&backing) && who != Kind::SysRead;
                    let trial = Span { backing, odd, waits, who };
                    cases.push(Case::trial(probe, trial, by_default));
                }
            }
        }
    }
    cases
}

impl Trial for Span {
    fn axes(&self) -> String {
        let Self { backing, odd, waits, who } = self;
        if *waits == Waits::Nobody {
            return format!("backing={backing},odd={odd},waits={waits}");
        }
        format!("backing={backing},odd={odd},waits={waits},who={who}")
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        let lab = Lab::new(stage, self.backing, 0)?;
        // First, since a load also maps the neighbours that the page cache has.
        if let Some((page, state)) = self.odd.page() {
            state.make(&lab, page)?;
        }
        for page in (1..4).filter(|page| self.odd.page().is_none_or(|(odd, _)| odd != *page)) {
            Page::Cached.make(&lab, page)?;
        }
        lab.register(0..PAGES, Modes::Minor.bits())?;
        let rc = match self.odd {
            Odd::LastHole => unmap(lab.page(3)),
            Odd::LastSplit => protect(lab.range(3..PAGES), libc::PROT_READ | libc::PROT_EXEC),
            _ => crate::abi::Rc::OK,
        };
        if !rc.is_ok() {
            return Err(Stop::Broken(format!("changing page 3: {rc}")));
        }
        let mut waiter = None;
        if let Some(page) = self.waits.page() {
            waiter = lab.meet(("access", "fault"), self.who, page, seen)?;
        }
        seen.step("continue");
        outcome(("continue", "field"), lab.uffd.resume(lab.range(1..4), 0), seen);
        if let Some(waiter) = &mut waiter {
            lab.look("waiter", waiter, seen)?;
        }
        lab.entries("after", seen)
    }

    fn expect(&self, _kernel: KernelVersion) -> Vec<Expected> {
        let Self { backing, odd, waits, who } = *self;
        let size = if backing.is_huge() { HUGE } else { PAGE };
        let mut facts = Vec::new();
        let refused = odd == Odd::LastSplit && waits == Waits::Last && who != Kind::UserRead;
        if let Some(page) = waits.page() {
            if refused {
                let ends = if who == Kind::SysRead { "EFAULT" } else { "SEGV_ACCERR" };
                facts.extend(want("mprotect(2)", &[("access", ends)]));
            } else {
                let kind = if who.write_faults(backing) { "write" } else { "read" };
                let fault = format!("minor-{kind}@{page}");
                facts.extend(want(super::MINOR, &[("access", "parks"), ("fault", &fault)]));
            }
        }
        let (done, failed) = match (odd, odd.page()) {
            (Odd::LastHole | Odd::LastSplit, _) => (0, Some(("ENOENT", "-2"))),
            (_, None) => (3, None),
            (_, Some((page, Page::Mapped))) => (page - 1, Some(("EEXIST", "-17"))),
            (_, Some((page, _))) => (page - 1, Some(("EFAULT", "-14"))),
        };
        let bytes = (done * size).to_string();
        let (rc, field) = match failed {
            None => ("0", bytes.as_str()),
            Some(reason) if done == 0 => reason,
            Some(_) => ("EAGAIN", bytes.as_str()),
        };
        let says = if failed.is_some() { REFUSES } else { source::CONTINUE };
        facts.extend(want(says, &[("continue", rc), ("field", field)]));
        if let Some(page) = waits.page().filter(|_| !refused) {
            let fate = if page <= done { who.ran("kept") } else { "asleep".to_owned() };
            facts.extend(want(says, &[("waiter", &fate)]));
        }
        let entries: String = (0..PAGES)
            .map(|page| {
                let mapped = odd.page().is_some_and(|(at, s)| at == page && s == Page::Mapped);
                if mapped || (1..=done).contains(&page) { 'p' } else { '-' }
            })
            .collect();
        facts.extend(want(says, &[("after", &entries)]));
        facts
    }

    fn recipe(&self) -> Vec<String> {
        let Self { backing, odd, waits, who } = self;
        vec![
            format!("pages 1 to 3 of a {backing} block are in the page cache; but: {odd}"),
            format!("register for minor faults; who waits: {waits} ({who})"),
            "UFFDIO_CONTINUE of pages 1 to 3".into(),
            "look at the waiter and the page table".into(),
        ]
    }

    fn uses_huge_pages(&self) -> bool {
        self.backing.is_huge()
    }
}
