//! COPY whose source page is missing and belongs to another userfaultfd: it drops its locks, parks
//! on the source, and finds the target changed when it goes on.

mod expect;

use super::stopped::{Copying, GATE, Gate, leak, map_page, shut};
use crate::abi::{REGISTER_MODE_MISSING, REGISTER_MODE_WP, Range, Rc, Uffd};
use crate::events::ground::{self, Ground, MISSING, queues_behind};
use crate::events::raiser::Raiser;
use crate::expect::Expected;
use crate::memory::{self, ELSEWHERE, RW, map, remap, tag};
use crate::mover::Mover;
use crate::outcome::{Seen, Stop};
use crate::point::{Backing, PAGES, Waiter as Kind, axis};
use crate::probe::{Case, Probe, Trial};
use crate::stage::Stage;
use crate::touch;
use crate::waiter::{Fate, Waiter};
use uffd_results::KernelVersion;

static SOURCE: Probe = Probe {
    suite: "races",
    name: "copy-source",
    statement: "A COPY that waits for its source looks at the target again when it goes on: what was \
                unmapped, replaced or unregistered meanwhile is ENOENT, what was filled EEXIST, an \
                unread event EAGAIN; what was replaced and registered again is filled, or from 7.1 on \
                EAGAIN, if mode, kind or file is another, or if a mapping with a file begins elsewhere \
                now, since it was cut in front of the target.",
    consumers: &[
        "QEMU postcopy: qemu_ufd_copy_ioctl(), migration/postcopy-ram.c",
        "CRIU lazy-pages: uffd_copy(), criu/uffd.c",
        "E2B orchestrator: TestNoMadviseDeadlockWithInflightCopy",
    ],
};

static HUGE: Probe = Probe {
    suite: "races",
    name: "copy-source-huge",
    statement: "A COPY of a hugetlb page that waits for its source looks at the target again when it goes \
                on, as one of a small page does; what is no hugetlb any more is ENOENT.",
    consumers: &[
        "QEMU postcopy: place_page() of huge pages, migration/postcopy-ram.c",
        "Firecracker UFFD handlers: huge pages, populate_from_file()",
    ],
};

axis! {
    /// What happens to the target meanwhile.
    Upset {
        /// Nothing: the control.
        None = "none",
        /// It is unmapped.
        Unmap = "munmap",
        /// Another page of the block is unmapped.
        UnmapBeside = "munmap-beside",
        /// The first page of the block is unmapped.
        UnmapBefore = "munmap-before",
        /// The first page of the block may not be written to.
        ReadOnlyBefore = "mprotect-before",
        /// The first page of the block is not for children.
        DontForkBefore = "dontfork-before",
        /// Private anonymous memory is mapped over it.
        OverAnon = "mmap-over",
        /// The same memory is mapped over it again.
        OverSame = "mmap-over-same",
        /// Private anonymous memory is mapped over it and registered.
        OverRegistered = "mmap-over-registered",
        /// The same memory is mapped over it and registered.
        SameRegistered = "mmap-over-same-registered",
        /// The block moves.
        Move = "mremap",
        /// Its pages move, the mapping stays.
        DontUnmap = "mremap-dontunmap",
        /// The block is unregistered.
        Unregister = "unregister",
        /// The block is unregistered and registered again.
        Reregister = "register-again",
        /// The block is unregistered and registered with another userfaultfd.
        OtherContext = "register-other",
        /// Another COPY fills the page.
        Filled = "copy",
        /// The page is discarded.
        Discard = "dontneed",
        /// The page may not be accessed.
        ProtNone = "mprotect-none",
        /// The userfaultfd is closed.
        Close = "close",
        /// The block is unregistered and registered for write protection too.
        OtherMode = "register-both-modes",
        /// The same memory is mapped over it through a second descriptor, and registered.
        OtherOpen = "mmap-over-reopened-registered",
        /// A REMOVE of another page is unread.
        RemoveUnread = "remove-unread",
        /// An UNMAP of another page is unread.
        UnmapUnread = "unmap-unread",
        /// A REMAP of another page is unread.
        RemapUnread = "remap-unread",
        /// A REMOVE of another page was read.
        RemoveRead = "remove-read",
        /// A REMOVE of the target is unread.
        TargetUnread = "remove-target-unread",
        /// A REMOVE of the target was read.
        TargetRead = "remove-target-read",
        /// Two REMOVEs of other pages are unread.
        TwoUnread = "two-unread",
        /// Of two REMOVEs of other pages the first was read.
        OneOfTwo = "one-of-two-unread",
        /// The block shrinks to two pages.
        Shrink = "mremap-shrink",
        /// The block shrinks to three pages, the last of which is the target.
        ShrinkBehind = "mremap-shrink-behind",
    }
}

impl Upset {
    /// Whether it is a default for a huge page, which costs as much as three small ones: one upset of each
    /// kind, of those that are all asked of small pages, and the one that leaves a target that could be filled and is
    /// no hugetlb any more.
    const fn is_first_of_huge(self) -> bool {
        matches!(
            self,
            Self::None
                | Self::Unmap
                | Self::OverAnon
                | Self::OverSame
                | Self::OverRegistered
                | Self::Move
                | Self::Unregister
                | Self::Filled
                | Self::Discard
                | Self::ProtNone
                | Self::Close
                | Self::RemoveUnread
                | Self::RemoveRead
        )
    }

    /// The event that it raises.
    const fn event(self) -> Option<Raiser> {
        match self {
            Self::RemoveUnread
            | Self::RemoveRead
            | Self::TargetUnread
            | Self::TargetRead
            | Self::TwoUnread
            | Self::OneOfTwo => Some(Raiser::Remove),
            Self::UnmapUnread => Some(Raiser::Unmap),
            Self::RemapUnread => Some(Raiser::Remap),
            _ => None,
        }
    }

    /// Whether a waiter of the target keeps waiting while it happens.
    const fn leaves_waiters(self) -> bool {
        !matches!(
            self,
            Self::Unregister | Self::Reregister | Self::OtherContext | Self::Filled | Self::Close
        ) && !matches!(self, Self::OtherMode)
    }

    /// The events that are unread when the COPY goes on.
    fn unread(self) -> Vec<String> {
        let event = |slot| self.event().map(|event| event.event(slot));
        let words = match self {
            Self::RemoveUnread | Self::UnmapUnread | Self::RemapUnread => vec![event(0)],
            Self::TargetUnread => vec![Some(format!("remove({MISSING}..{})", MISSING + 1))],
            Self::TwoUnread => vec![event(0), event(1)],
            Self::OneOfTwo => vec![event(1)],
            _ => Vec::new(),
        };
        words.into_iter().flatten().collect()
    }

    /// Makes the calls that raise its events, and reads and joins those that are read already; the
    /// others in their order.
    fn raise(self, ground: &Ground<'_>) -> Result<Vec<Mover>, Stop> {
        let (Some(event), stage) = (self.event(), ground.stage) else { return Ok(Vec::new()) };
        let mut calls = Vec::new();
        if matches!(self, Self::TargetUnread | Self::TargetRead) {
            let call = Mover::discard(stage, ground.target())?;
            if !call.blocks_on_event(&ground.uffd)? {
                let rc = call.join()?;
                return Err(Stop::Unsupported(format!("the call raised no event: {rc}")));
            }
            calls.push(call);
        } else {
            calls.push(event.raise(ground)?.mover);
        }
        if matches!(self, Self::TwoUnread | Self::OneOfTwo) {
            let call = event.start(ground, 1)?.mover;
            if !queues_behind(stage, &call)? {
                return Err(Stop::Unsupported("the second call raised no event".into()));
            }
            calls.push(call);
        }
        if matches!(self, Self::RemoveRead | Self::TargetRead | Self::OneOfTwo) {
            ground.read();
            calls.remove(0).join()?;
        }
        Ok(calls)
    }
}

/// Maps a source as long as the target, whose first page is the gate. What lies behind it is there already.
fn map_source(whole: Range) -> Result<(), Stop> {
    map_page(whole)?;
    (whole.start + GATE.len..whole.end()).step_by(GATE.len).try_for_each(|at| {
        touch::store(at, tag::COPIED)
            .map_err(|signal| Stop::Broken(format!("writing a source: {signal}")))
    })
}

/// The facts of unread events and of the calls that raised them.
const EVENTS: [(&str, &str); 2] = [("event", "call"), ("event-two", "call-two")];

#[derive(Debug)]
struct Source {
    backing: Backing,
    upset: Upset,
}

impl Source {
    fn change(&self, ground: &Ground<'_>, uffd: &'static Uffd, third: &Uffd) -> Result<Rc, Stop> {
        let block = &ground.block;
        let (target, all) = (ground.target(), block.range(0..PAGES));
        let anon = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let moving = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
        Ok(match self.upset {
            Upset::None
            | Upset::Close
            | Upset::RemoveUnread
            | Upset::UnmapUnread
            | Upset::RemapUnread
            | Upset::RemoveRead
            | Upset::TargetUnread
            | Upset::TargetRead
            | Upset::TwoUnread
            | Upset::OneOfTwo => Rc::OK,
            Upset::Unmap => memory::unmap(target),
            Upset::UnmapBeside => memory::unmap(block.range(5..6)),
            Upset::UnmapBefore => memory::unmap(block.range(0..1)),
            Upset::ReadOnlyBefore => memory::protect(block.range(0..1), libc::PROT_READ),
            Upset::DontForkBefore => memory::advise(block.range(0..1), libc::MADV_DONTFORK),
            Upset::OverAnon => map(target, RW, anon, None, 0),
            Upset::OverSame => block.map_pages(MISSING..MISSING + 1, memory::BLOCK, 0),
            Upset::OverRegistered => {
                map(target, RW, anon, None, 0);
                ground::register(uffd, target)?;
                Rc::OK
            }
            Upset::SameRegistered => {
                block.map_pages(MISSING..MISSING + 1, memory::BLOCK, 0);
                ground::register(uffd, target)?;
                Rc::OK
            }
            Upset::Move => remap(all, all.len, moving, ELSEWHERE),
            Upset::DontUnmap => remap(all, all.len, moving | libc::MREMAP_DONTUNMAP, ELSEWHERE),
            Upset::Shrink => remap(all, 2 * block.page, 0, 0),
            Upset::ShrinkBehind => remap(all, 3 * block.page, 0, 0),
            Upset::Unregister => uffd.unregister(all),
            Upset::Reregister => {
                let rc = uffd.unregister(all);
                ground::register(uffd, all)?;
                rc
            }
            Upset::OtherContext => {
                let rc = uffd.unregister(all);
                ground::register(third, all)?;
                rc
            }
            Upset::OtherMode => {
                let rc = uffd.unregister(all);
                uffd.register(all, REGISTER_MODE_MISSING | REGISTER_MODE_WP)
                    .map_err(|e| Stop::Unsupported(format!("REGISTER for both modes: {e:?}")))?;
                rc
            }
            Upset::OtherOpen => {
                let again = block.reopened()?;
                again.map_pages(MISSING..MISSING + 1, memory::BLOCK, 0);
                ground::register(uffd, target)?;
                Rc::OK
            }
            Upset::Filled => uffd.copy(target, ground.stage.source, 0).0,
            Upset::Discard => memory::dontneed(target),
            Upset::ProtNone => memory::protect(target, libc::PROT_NONE),
        })
    }
}

impl Trial for Source {
    fn axes(&self) -> String {
        format!("backing={},meanwhile={}", self.backing, self.upset)
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        seen.step("set-up");
        let feature = self.upset.event().map_or(0, Raiser::feature);
        let ground = Ground::set(stage, self.backing, feature)?;
        // Never dropped: one case closes the descriptor itself.
        let uffd = leak(&ground.uffd)?;
        let third = stage.uffd(0)?;
        let (target, all): (Range, Range) = (ground.target(), ground.block.range(0..PAGES));
        map_source(Range { start: GATE.start, len: target.len })?;
        let gate = Gate::shut(stage, REGISTER_MODE_MISSING)?;
        let mut waiter = None;
        if self.upset.leaves_waiters() {
            seen.step("park");
            waiter = Some(Waiter::park(stage, Kind::UserRead, target, uffd, &ground.queue)?);
            ground.read();
        }
        seen.step("copy");
        let at = (GATE.start, (&gate.uffd, &gate.queue));
        let copying = Copying::start(stage, at, uffd, (target, GATE.start))?;
        seen.step("meanwhile");
        let mut ground = Some(ground);
        if self.upset == Upset::Close {
            // The one that the COPY does not use.
            let Some(Ground { uffd: first, .. }) = ground.take() else { return Ok(()) };
            drop(first);
            seen.fact("meanwhile", shut(uffd));
        } else if let Some(ground) = &ground {
            seen.fact("meanwhile", self.change(ground, uffd, &third)?);
        }
        let calls = match &ground {
            Some(ground) => self.upset.raise(ground)?,
            None => Vec::new(),
        };
        seen.step("resolve");
        seen.fact("source", gate.uffd.copy(GATE, stage.source, 0).0);
        let (copy, field) = copying.end()?;
        seen.fact("copy", copy);
        seen.fact("field", field);
        let Some(ground) = ground else {
            let letter = |value| stage.letter(value);
            let pages = crate::evidence::pages(all, target.len, &letter)?;
            seen.fact("pages", pages);
            return Ok(());
        };
        if let Some(waiter) = &mut waiter {
            let fate = waiter.look_by_queue(&ground.queue)?;
            seen.fact("waiter", stage.word(fate));
            // Before a fault that would be read first.
            for (call, names) in calls.iter().zip(EVENTS) {
                seen.fact(names.0, ground.read());
                seen.fact(names.1, call.join()?);
            }
            if fate == Fate::Asleep {
                uffd.wake(target);
                let fate = waiter.look_by_queue(&ground.queue)?;
                seen.fact("woken", stage.word(fate));
            }
        }
        ground.survey(["reg", "pages", "new-reg", "new-pages"], seen)
    }

    fn expect(&self, kernel: KernelVersion) -> Vec<Expected> {
        expect::expect(self.backing, self.upset, kernel)
    }

    fn uses_huge_pages(&self) -> bool {
        self.backing.is_huge()
    }

    fn recipe(&self) -> Vec<String> {
        vec![
            format!("map and register a block of 6 pages ({}), page 2 missing", self.backing),
            "register a page of other memory with a second userfaultfd".to_owned(),
            "a thread loads from page 2 and parks (not where what follows would wake it)".to_owned(),
            "another thread calls UFFDIO_COPY to page 2 from the page of the second userfaultfd, and \
             parks there"
                .to_owned(),
            format!("meanwhile: {}", self.upset),
            "UFFDIO_COPY to the source through the second userfaultfd; wait for the first COPY's \
             return; look at the waiter and at every page"
                .to_owned(),
        ]
    }
}

/// The cases.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for backing in Backing::ALL {
        let probe = if backing.is_huge() { &HUGE } else { &SOURCE };
        for upset in Upset::ALL {
            let has_file = matches!(backing, Backing::Shmem | Backing::Private);
            if *upset == Upset::OtherOpen && !has_file {
                continue;
            }
            let same = matches!(upset, Upset::OverSame | Upset::SameRegistered);
            if same && *backing == Backing::Anon {
                continue;
            }
            let by_default = !backing.is_huge() || upset.is_first_of_huge();
            let source = Source { backing: *backing, upset: *upset };
            cases.push(Case::trial(probe, source, by_default));
        }
    }
    cases
}
