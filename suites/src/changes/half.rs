//! Calls on several mappings that fail at one of them: what is done by then, and what remains.

use crate::abi::{REGISTER_MODE_MISSING, Range, Rc, Uffd};
use crate::events::ground::{FOLLOW, NONE, Wants, follow, write};
use crate::evidence::{self, QueueFile};
use crate::expect::Expected;
use crate::memory::{self, BLOCK, Block, ELSEWHERE, OTHER, RW, remap, tag};
use crate::mover::Mover;
use crate::outcome::{Seen, Stop};
use crate::point::{Backing, PAGES, Waiter as Kind, axis};
use crate::probe::{Case, Probe, Trial};
use crate::register::limit::Lowered;
use crate::stage::Stage;
use crate::treat;
use crate::waiter::Waiter;
use uffd_results::KernelVersion;

mod model;

static HALF: Probe = Probe {
    suite: "changes",
    name: "half-way",
    statement: "A call that fails at one of several mappings has changed those before it where the \
                kernel takes them one by one, wakes no waiter, and leaves the registration of the rest; \
                COPY works wherever the mapping is still registered.",
    consumers: &[
        "Android ART: mremap of several mappings fails, mark_compact.cc",
        "CRIU: moves of restored mappings, criu/pie/restorer.c",
        "libfabric: ofi_uffd_handler() (an UNMAP event of memory that is still there)",
    ],
};

axis! {
    /// The call, and at what it fails. The block is registered where nothing else is said.
    How {
        /// The block moves; its first third is registered.
        MoveFirst = "move-registered-first",
        /// The block moves; its second third is registered.
        MoveMiddle = "move-registered-middle",
        /// The block moves; its last third is registered.
        MoveLast = "move-registered-last",
        /// Three other, unregistered mappings move onto the block: the control.
        OntoSeveral = "several-onto",
        /// The same with a hole in place of the second.
        OntoHole = "several-with-hole-onto",
        /// The same; the first is sealed.
        OntoSealedFirst = "sealed-first-onto",
        /// The same; the last is sealed.
        OntoSealedLast = "sealed-last-onto",
        /// The same; the last is registered.
        OntoRegisteredLast = "registered-last-onto",
        /// One other mapping moves onto the block, of which page 3 is sealed.
        OntoSealed = "onto-sealed",
        /// The pages of another mapping move onto the block (MREMAP_DONTUNMAP) while RLIMIT_AS allows
        /// no new mapping.
        OntoLimited = "onto-beyond-limit",
        /// munmap of the block; its first third is sealed.
        UnmapSealedFirst = "munmap-sealed-first",
        /// munmap of the block; its last third is sealed.
        UnmapSealedLast = "munmap-sealed-last",
        /// mmap(MAP_FIXED) over the block; its last third is sealed.
        OverSealedLast = "mmap-over-sealed-last",
        /// munmap of page 2 while the process may have no more mappings.
        UnmapCounted = "munmap-beyond-map-count",
        /// mremap of page 2 in the same place of things.
        MoveCounted = "move-beyond-map-count",
        /// mmap(MAP_FIXED) over page 2 in the same.
        OverCounted = "mmap-over-beyond-map-count",
        /// mprotect of page 2 in the same.
        ProtectCounted = "mprotect-beyond-map-count",
    }
}

impl How {
    /// The part of the block that is registered.
    const fn registered(self) -> std::ops::Range<usize> {
        match self {
            Self::MoveFirst => 0..2,
            Self::MoveMiddle => 2..4,
            Self::MoveLast => 4..6,
            _ => 0..PAGES,
        }
    }

    /// The page that the waiter waits for: one that is registered, and missing.
    const fn page(self) -> usize {
        match self {
            Self::MoveFirst => 0,
            Self::MoveLast => 4,
            _ => 2,
        }
    }

    /// What is sealed, and where.
    const fn sealed(self) -> Option<(usize, std::ops::Range<usize>)> {
        match self {
            Self::OntoSealedFirst => Some((OTHER, 0..2)),
            Self::OntoSealedLast => Some((OTHER, 4..6)),
            Self::OntoSealed => Some((BLOCK, 3..4)),
            Self::UnmapSealedFirst => Some((BLOCK, 0..2)),
            Self::UnmapSealedLast | Self::OverSealedLast => Some((BLOCK, 4..6)),
            _ => None,
        }
    }

    /// Whether other memory comes to the block's place.
    const fn is_onto(self) -> bool {
        matches!(
            self,
            Self::OntoSeveral
                | Self::OntoHole
                | Self::OntoSealedFirst
                | Self::OntoSealedLast
                | Self::OntoRegisteredLast
                | Self::OntoSealed
                | Self::OntoLimited
        )
    }

    const fn is_counted(self) -> bool {
        matches!(
            self,
            Self::UnmapCounted | Self::MoveCounted | Self::OverCounted | Self::ProtectCounted
        )
    }

    /// The call.
    fn call(self, block: &Block, from: Range) -> Result<Rc, Stop> {
        let moving = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
        let anon = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let (all, page) = (block.range(0..PAGES), block.range(2..3));
        Ok(match self {
            Self::MoveFirst | Self::MoveMiddle | Self::MoveLast => {
                remap(all, all.len, moving, ELSEWHERE)
            }
            Self::OntoLimited => treat::without_room(|| {
                remap(from, from.len, moving | libc::MREMAP_DONTUNMAP, BLOCK)
            })?,
            _ if self.is_onto() => remap(from, from.len, moving, BLOCK),
            Self::OverSealedLast => memory::map(all, RW, anon, None, 0),
            Self::UnmapCounted => memory::unmap(page),
            Self::MoveCounted => remap(page, page.len, moving, ELSEWHERE),
            Self::OverCounted => memory::map(page, RW, anon, None, 0),
            Self::ProtectCounted => memory::protect(page, libc::PROT_READ),
            _ => memory::unmap(all),
        })
    }
}

#[derive(Clone, Copy, Debug)]
struct Half {
    backing: Backing,
    how: How,
    events: Wants,
}

/// The other memory, all pages written to, laid out as the question wants it.
fn lay(how: How, backing: Backing, uffd: &Uffd) -> Result<(), Stop> {
    let broken = |what: &str, rc: Rc| match rc {
        Rc(None) => Ok(()),
        rc => Err(Stop::Broken(format!("{what} of the other memory: {rc}"))),
    };
    let other = Block::map(backing, OTHER)?;
    for page in 0..PAGES {
        write(&other, OTHER, page, tag::NEW)?;
    }
    let middle = other.at(OTHER, 2..4);
    match how {
        How::OntoHole => broken("munmap", memory::unmap(middle)),
        How::OntoSealed | How::OntoLimited => Ok(()),
        How::OntoRegisteredLast => {
            let last = uffd.register(other.at(OTHER, 4..6), REGISTER_MODE_MISSING);
            last.map(drop).map_err(|e| Stop::Unsupported(format!("REGISTER: {e:?}")))?;
            broken("mprotect", memory::protect(middle, libc::PROT_READ))
        }
        _ => broken("mprotect", memory::protect(middle, libc::PROT_READ)),
    }
}

impl Trial for Half {
    fn axes(&self) -> String {
        let Self { backing, how, events } = self;
        format!("backing={backing},how={how},events={}", events.word)
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        let Self { backing, how, events } = *self;
        seen.step("set-up");
        let block = Block::map(backing, BLOCK)?;
        for page in (0..PAGES).filter(|page| *page != how.page()) {
            write(&block, BLOCK, page, tag::KEPT)?;
        }
        let uffd = stage.uffd(events.bits)?;
        uffd.register(block.range(how.registered()), REGISTER_MODE_MISSING)
            .map_err(|e| Stop::Unsupported(format!("REGISTER of a block: {e:?}")))?;
        if how.is_onto() {
            lay(how, backing, &uffd)?;
        }
        if let Some((at, pages)) = how.sealed() {
            let rc = treat::must_seal(block.at(at, pages))?;
            if !rc.is_ok() {
                return Err(Stop::Broken(format!("mseal: {rc}")));
            }
        }
        let queue = QueueFile::open(&uffd)?;
        let target = block.range(how.page()..how.page() + 1);
        seen.step("park");
        let mut waiter = Waiter::park(stage, Kind::UserRead, target, &uffd, &queue)?;
        uffd.read().map_err(|e| Stop::Broken(format!("reading the fault: {e:?}")))?;
        let lowered = if how.is_counted() { Some(Lowered::here(stage)?) } else { None };
        seen.step("call");
        let page = block.page;
        let from = block.at(OTHER, 0..PAGES);
        let place = Block { backing, page, file: None };
        let mover = Mover::start(stage, move || {
            how.call(&place, from).unwrap_or(Rc(Some(nix::errno::Errno::ENOTRECOVERABLE)))
        })?;
        seen.fact("events", follow(&mover, &[&uffd], page)?);
        seen.fact("call", mover.join()?);
        drop(lowered);
        seen.fact("waiter", stage.word(waiter.look(&uffd, &queue)?));
        seen.step("survey");
        let places = [BLOCK, OTHER, ELSEWHERE].map(|at| (block.at(at, 0..PAGES), page));
        let rows = evidence::registration(&places)?;
        let letter = |value| stage.letter(value);
        let names = [("reg", "pages"), ("other-reg", "other-pages"), ("new-reg", "new-pages")];
        for (((range, page), reg), (reg_name, pages_name)) in
            places.into_iter().zip(rows).zip(names)
        {
            seen.fact(reg_name, reg);
            seen.fact(pages_name, evidence::pages(range, page, &letter)?);
        }
        seen.step("copy");
        let (rc, field) = uffd.copy(target, stage.source, 0);
        seen.fact("copy", rc);
        seen.fact("field", field);
        let fate = waiter.look(&uffd, &queue)?;
        seen.fact("copied", stage.word(fate));
        if fate.waits() {
            seen.step("rescue");
            uffd.wake(target);
            let fate = waiter.look(&uffd, &queue)?;
            seen.fact("rescued", stage.word(fate));
        }
        Ok(())
    }

    fn expect(&self, kernel: KernelVersion) -> Vec<Expected> {
        model::expect(self.how, self.backing, self.events, kernel)
    }

    fn recipe(&self) -> Vec<String> {
        let Self { backing, how, events } = self;
        let pages = how.registered();
        vec![
            format!("map a block of 6 pages ({backing}); write to all but page {}", how.page()),
            format!(
                "UFFDIO_API with the event features {}; UFFDIO_REGISTER of pages {}..{}; a thread \
                 loads from the missing page and parks; its message is read",
                events.word, pages.start, pages.end
            ),
            format!(
                "{how}: other memory is one mapping of 6 pages, all written to, cut in three by \
                 mprotect(PROT_READ) of its middle where it is said to be several"
            ),
            "a thread makes the call; read the events; look at the waiter and at every page".into(),
            "UFFDIO_COPY to the waiter's page; if it still waits: UFFDIO_WAKE".into(),
        ]
    }
}

/// The cases.
pub(super) fn cases(cases: &mut Vec<Case>) {
    for backing in [Backing::Anon, Backing::Shmem, Backing::Private] {
        for events in [NONE, FOLLOW] {
            for how in How::ALL {
                let trial = Half { backing, how: *how, events };
                cases.push(Case::trial(&HALF, trial, backing == Backing::Anon));
            }
        }
    }
}
