//! COPY whose source page is missing and belongs to another userfaultfd: it drops its locks, parks
//! on the source, and finds the target changed when it goes on.

use super::stopped::{GATE, Gate, map_page};
use crate::abi::{REGISTER_MODE_MISSING, REGISTER_MODE_WP, Range, Rc, SENTINEL, Uffd};
use crate::events::ground::{self, Ground, MISSING};
use crate::events::raiser::Raiser;
use crate::expect::Expected;
use crate::memory::{self, ELSEWHERE, RW, map, remap};
use crate::model::source as says;
use crate::outcome::{Seen, Stop};
use crate::point::{Backing, PAGES, Waiter as Kind, axis};
use crate::probe::{Case, Probe, Trial};
use crate::stage::Stage;
use crate::waiter::{Fate, Waiter};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::{AtomicI64, Ordering};
use uffd_results::KernelVersion;

static SOURCE: Probe = Probe {
    suite: "races",
    name: "copy-source",
    statement: "A COPY that waits for its source looks at the target again when it goes on: what was \
                unmapped, replaced or unregistered meanwhile is ENOENT, what was filled EEXIST, an \
                unread event EAGAIN.",
    consumers: &[
        "QEMU postcopy: qemu_ufd_copy_ioctl(), migration/postcopy-ram.c",
        "CRIU lazy-pages: uffd_copy(), criu/uffd.c",
        "E2B orchestrator: TestNoMadviseDeadlockWithInflightCopy",
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
    }
}

impl Upset {
    /// The event that it raises.
    const fn event(self) -> Option<Raiser> {
        match self {
            Self::RemoveUnread | Self::RemoveRead => Some(Raiser::Remove),
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

    const fn is_unread(self) -> bool {
        matches!(self, Self::RemoveUnread | Self::UnmapUnread | Self::RemapUnread)
    }
}

#[derive(Debug)]
struct Source {
    backing: Backing,
    upset: Upset,
}

/// What the COPY's thread leaves for the case.
static FIELD: AtomicI64 = AtomicI64::new(SENTINEL);

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
            | Upset::RemoveRead => Rc::OK,
            Upset::Unmap => memory::unmap(target),
            Upset::UnmapBeside => memory::unmap(block.range(5..6)),
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
        let uffd: &'static Uffd = Box::leak(Box::new(
            ground.uffd.duplicate().map_err(|e| Stop::Broken(format!("dup: {e:?}")))?,
        ));
        let third = stage.uffd(0)?;
        let target: Range = ground.target();
        map_page(GATE)?;
        let gate = Gate::shut(stage, REGISTER_MODE_MISSING)?;
        let mut waiter = None;
        if self.upset.leaves_waiters() {
            seen.step("park");
            waiter = Some(Waiter::park(stage, Kind::UserRead, target, uffd, &ground.queue)?);
            ground.read();
        }
        seen.step("copy");
        let stopped = gate.stop(stage, move || {
            let (rc, field) = uffd.copy(target, GATE.start, 0);
            FIELD.store(field.0, Ordering::Release);
            rc
        })?;
        seen.step("meanwhile");
        let mut ground = Some(ground);
        if self.upset == Upset::Close {
            // The one that the COPY does not use.
            let Some(Ground { uffd: first, .. }) = ground.take() else { return Ok(()) };
            drop(first);
            seen.fact("meanwhile", Rc(nix::unistd::close(uffd.as_fd().as_raw_fd()).err()));
        } else if let Some(ground) = &ground {
            seen.fact("meanwhile", self.change(ground, uffd, &third)?);
        }
        let mut raised = None;
        if let (Some(event), Some(ground)) = (self.upset.event(), &ground) {
            let call = event.raise(ground)?;
            if self.upset == Upset::RemoveRead {
                ground.read();
                call.join()?;
            }
            raised = Some(call);
        }
        seen.step("resolve");
        seen.fact("source", gate.uffd.copy(GATE, stage.source, 0).0);
        seen.fact("copy", stopped.end()?);
        seen.fact("field", crate::abi::Field(FIELD.load(Ordering::Acquire)));
        let Some(ground) = ground else {
            let range = Range { start: memory::BLOCK, len: PAGES * memory::PAGE };
            let letter = |value| stage.letter(value);
            let pages = crate::evidence::pages(range, memory::PAGE, &letter)?;
            seen.fact("pages", pages);
            return Ok(());
        };
        if let Some(waiter) = &mut waiter {
            let fate = waiter.look_by_queue(&ground.queue)?;
            seen.fact("waiter", stage.word(fate));
            // Before a fault that would be read first.
            if let (Some(call), true) = (&raised, self.upset.is_unread()) {
                seen.fact("event", ground.read());
                seen.fact("call", call.join()?);
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
        expect(self.backing, self.upset, kernel)
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

const RETRY: &str = "mfill_atomic(): a fault on the source drops the locks; afterwards the target is \
                     looked up and checked again";
const CHANGED: &str = "mfill_copy_folio_retry() compares the mapping with what it was before the locks \
                       were dropped (7.1): EAGAIN for one of another kind, registration, file or file offset";

fn expect(backing: Backing, upset: Upset, kernel: KernelVersion) -> Vec<Expected> {
    let since = |major, minor| kernel >= KernelVersion::new(major, minor, 0);
    let can_move = backing == Backing::Anon || since(5, 13);
    let changed = match upset {
        // Another kind of memory; or a mapping that was cut at the page, which changes its offset.
        Upset::OverRegistered | Upset::ProtNone => since(7, 1) && backing != Backing::Anon,
        // Another file than before.
        Upset::SameRegistered => since(7, 1) && backing == Backing::SharedAnon,
        // Another descriptor, or another registration.
        Upset::OtherOpen | Upset::OtherMode => since(7, 1),
        _ => false,
    };
    let (copy, field, why) = match upset {
        Upset::Unmap | Upset::OverAnon | Upset::OverSame | Upset::Move | Upset::Unregister => {
            ("ENOENT", "-2", RETRY)
        }
        Upset::Filled => ("EEXIST", "-17", RETRY),
        _ if upset.is_unread() => ("EAGAIN", "-11", RETRY),
        _ if changed => ("EAGAIN", "-11", CHANGED),
        _ => ("0", "4096", RETRY),
    };
    let refused = upset == Upset::DontUnmap && !can_move;
    let mut facts = vec![
        Expected::new("meanwhile", if refused { "EINVAL" } else { "0" }, says::DONTUNMAP),
        Expected::new("source", "0", says::COPY),
        Expected::new("copy", copy, why),
        Expected::new("field", field, why),
    ];
    if upset == Upset::Close {
        facts.push(Expected::new("pages", "kkckkk", RETRY));
        return facts;
    }
    if upset.leaves_waiters() {
        let placed = copy == "0";
        let waiter = match upset {
            Upset::ProtNone if placed => "SEGV_ACCERR",
            _ if placed => "ran:copied",
            _ => "asleep",
        };
        facts.push(Expected::new("waiter", waiter, why));
        if waiter == "asleep" {
            let woken = match upset {
                Upset::Unmap | Upset::Move => "SEGV_MAPERR",
                Upset::OverAnon | Upset::OverSame => "ran:zero",
                Upset::ProtNone => "SEGV_ACCERR",
                _ => "again",
            };
            facts.push(Expected::new("woken", woken, says::WAKE));
        }
    }
    if let (Some(event), true) = (upset.event(), upset.is_unread()) {
        facts.push(Expected::new("event", event.event(0), "userfaultfd(2)"));
        facts.push(Expected::new("call", "0", "userfaultfd(2)"));
    }
    facts
}

/// The cases.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for backing in [Backing::Anon, Backing::Shmem, Backing::Private, Backing::SharedAnon] {
        for upset in Upset::ALL {
            let has_file = matches!(backing, Backing::Shmem | Backing::Private);
            if *upset == Upset::OtherOpen && !has_file {
                continue;
            }
            let same = matches!(upset, Upset::OverSame | Upset::SameRegistered);
            if same && backing == Backing::Anon {
                continue;
            }
            cases.push(Case::trial(&SOURCE, Source { backing, upset: *upset }, true));
        }
    }
    cases
}
