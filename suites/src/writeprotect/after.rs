//! What is left of the protection after a change.

use super::{Asks, BACKGROUND, SHOWN, TRACKERS, row};
use crate::abi::{REGISTER_MODE_WP, Range, Rc, WRITEPROTECT_MODE_WP, features};
use crate::evidence;
use crate::expect::{Expected, OBSERVED};
use crate::lab::{Lab, SMALL, Who, want};
use crate::memory::{ELSEWHERE, RW, advise, dontneed, protect, remap};
use crate::mover::{self, Mover};
use crate::offspring::Offspring;
use crate::outcome::{Seen, Stop};
use crate::point::{Backing, Discard, PAGES, axis};
use crate::probe::{Case, Probe, Trial};
use crate::stage::Stage;
use uffd_results::KernelVersion;

static AFTER: Probe = Probe {
    suite: "writeprotect",
    name: "after",
    statement: "Protection stays with its page through mprotect, and with the marker of a file's page \
                that is dropped; UNREGISTER ends it (6.0), a move without EVENT_REMAP and a child \
                without EVENT_FORK do not take it along (6.13 and before).",
    consumers: &[BACKGROUND, TRACKERS],
};

axis! {
    /// What happens to the protected block.
    Change {
        /// Nothing: the control.
        None = "none",
        /// UNREGISTER, then REGISTER as before.
        Rearm = "unregister-register",
        /// REGISTER again without a change.
        Register = "register-again",
        /// MADV_DONTNEED of pages 2 and 3.
        DontNeed = "dontneed",
        /// MADV_FREE of pages 2 and 3.
        Free = "free",
        /// MADV_REMOVE of pages 2 and 3.
        Remove = "remove",
        /// FALLOC_FL_PUNCH_HOLE of pages 2 and 3.
        Punch = "punch-hole",
        /// ftruncate(2) to two pages and back.
        Truncate = "truncate",
        /// mprotect(2) to read-only and back.
        ReadOnly = "mprotect-read",
        /// mprotect(2) to no access and back.
        NoAccess = "mprotect-none",
        /// The same memory mapped over pages 2 and 3 again.
        Over = "mmap-over-same",
        /// mremap(2) elsewhere.
        Move = "mremap",
        /// mremap(2) elsewhere with EVENT_REMAP.
        MoveEvent = "mremap-event",
        /// mremap(2) elsewhere and back, with EVENT_REMAP.
        MoveBack = "mremap-event-and-back",
        /// fork(2).
        Fork = "fork",
        /// fork(2) with EVENT_FORK.
        ForkEvent = "fork-event",
        /// MADV_COLD of pages 2 and 3.
        Cold = "cold",
    }
}

impl Change {
    /// Whether a block of this backing can change so.
    pub(crate) fn fits(self, backing: Backing) -> bool {
        let file = matches!(backing, Backing::Shmem | Backing::Private | Backing::HugetlbShared);
        match self {
            Self::Free => backing.is_anon(),
            Self::Remove => {
                matches!(backing, Backing::Shmem | Backing::SharedAnon | Backing::HugetlbShared)
            }
            Self::Punch | Self::Truncate => file,
            Self::Over => backing != Backing::SharedAnon && backing != Backing::HugetlbPrivate,
            Self::Fork | Self::ForkEvent | Self::Cold => !backing.is_huge(),
            // mremap(2) of huge pages came in 5.16.
            _ => true,
        }
    }

    /// Features that the change needs.
    pub(crate) const fn features(self) -> u64 {
        match self {
            Self::MoveEvent | Self::MoveBack => features::EVENT_REMAP,
            Self::ForkEvent => features::EVENT_FORK,
            _ => 0,
        }
    }

    const fn moves(self) -> bool {
        matches!(self, Self::Move | Self::MoveEvent)
    }
}

/// The question.
#[derive(Clone, Copy, Debug)]
struct After {
    backing: Backing,
    change: Change,
    asks: Asks,
}

/// The cases.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for backing in Backing::ALL.iter().copied() {
        for change in Change::ALL.iter().copied().filter(|change| change.fits(backing)) {
            for asks in [Asks::None, Asks::Unpopulated] {
                let by_default = SMALL.contains(&backing);
                cases.push(Case::trial(&AFTER, After { backing, change, asks }, by_default));
            }
        }
    }
    cases
}

/// The end of the registration.
const UNREGISTERED: &str =
    "commit f369b07c8614 (6.0): UNREGISTER takes the protection off the pages";
/// Moved without EVENT_REMAP.
const MOVED: &str = "mremap_userfaultfd_prep(): without EVENT_REMAP moved memory is not registered; commit \
    'mm: clear uffd-wp PTE/PMD state on mremap()' (6.13, later in stable series) takes the protection off";
/// Pages that are dropped.
const MARKERS: &str = "pte_install_uffd_wp_if_needed(): a marker stays where a protected page of a file \
    is dropped; anonymous memory keeps none";
/// The child.
const FORKED: &str = "dup_userfaultfd(), copy_present_ptes(): the child keeps the protection only if \
    EVENT_FORK keeps it registered";

/// Whether moved pages keep a protection that nobody can lift any more: seen with 6.1.170, not with
/// 6.1.192.
fn keeps_moved(kernel: KernelVersion) -> bool {
    kernel < KernelVersion::new(6, 1, 171)
}

const PAGE: usize = 2;
const CHANGED: std::ops::Range<usize> = 2..4;

/// Where the block stands after the change.
pub(crate) fn place(lab: &Lab<'_>, change: Change) -> Range {
    if change.moves() { lab.block.at(ELSEWHERE, 0..PAGES) } else { lab.all() }
}

/// Moves the block with EVENT_REMAP, reading the event.
fn follow(lab: &Lab<'_>, to: usize, from: Range, seen: &mut Seen<'_>) -> Result<Rc, Stop> {
    let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
    let mover = Mover::start(lab.stage, move || remap(from, from.len, flags, to))?;
    if mover.blocks_on_event(&lab.uffd)? {
        seen.step("read-event");
        let word = mover::word(lab.uffd.read());
        if word != "remap" {
            return Err(Stop::Broken(format!("mremap raised {word}")));
        }
    }
    mover.join()
}

impl Change {
    /// Makes the change to a block that is registered for `mode`; the child, if it has made one.
    pub(crate) fn apply(
        self,
        lab: &Lab<'_>,
        mode: u64,
        seen: &mut Seen<'_>,
    ) -> Result<(Rc, Option<Offspring>), Stop> {
        let changed = lab.range(CHANGED);
        let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
        let rc = match self {
            Change::None => Rc::OK,
            Change::Rearm => {
                let rc = lab.uffd.unregister(lab.all());
                if !rc.is_ok() {
                    return Ok((rc, None));
                }
                lab.entries("unregistered", seen)?;
                Rc(lab.uffd.register(lab.all(), mode).err())
            }
            Change::Register => Rc(lab.uffd.register(lab.all(), mode).err()),
            Change::DontNeed => dontneed(changed),
            Change::Free => advise(changed, libc::MADV_FREE),
            Change::Remove => lab.block.discard(Discard::Remove, CHANGED)?,
            Change::Punch => lab.block.discard(Discard::Punch, CHANGED)?,
            Change::Truncate => lab.block.truncate(CHANGED.start)?,
            Change::ReadOnly | Change::NoAccess => {
                let to = if self == Change::ReadOnly { libc::PROT_READ } else { libc::PROT_NONE };
                let rc = protect(lab.all(), to);
                if rc.is_ok() { protect(lab.all(), RW) } else { rc }
            }
            Change::Over => lab.block.map_pages(CHANGED, crate::memory::BLOCK, 0),
            Change::Move => remap(lab.all(), lab.all().len, flags, ELSEWHERE),
            Change::MoveEvent => follow(lab, ELSEWHERE, lab.all(), seen)?,
            Change::MoveBack => {
                let there = lab.block.at(ELSEWHERE, 0..PAGES);
                let rc = follow(lab, there.start, lab.all(), seen)?;
                if rc.is_ok() { follow(lab, lab.all().start, there, seen)? } else { rc }
            }
            Change::Fork => return Offspring::idle(lab.stage).map(|child| (Rc::OK, Some(child))),
            Change::ForkEvent => return fork_with_event(lab).map(|child| (Rc::OK, Some(child))),
            Change::Cold => advise(changed, libc::MADV_COLD),
        };
        Ok((rc, None))
    }
}

/// Forks on another thread and reads the event.
fn fork_with_event(lab: &Lab<'_>) -> Result<Offspring, Stop> {
    let (mover, child) = Offspring::fork_idle(lab.stage)?;
    if mover.blocks_on_event(&lab.uffd)? {
        let word = mover::word(lab.uffd.read());
        if word != "fork" {
            return Err(Stop::Broken(format!("fork raised {word}")));
        }
    }
    let rc = mover.join()?;
    if rc.is_ok() { Ok(child) } else { Err(Stop::Broken(format!("fork on another thread: {rc}"))) }
}

impl Trial for After {
    fn axes(&self) -> String {
        let Self { backing, change, asks } = self;
        format!("backing={backing},change={change},asks={asks}")
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        let lab = Lab::new(stage, self.backing, self.asks.bits() | self.change.features())?;
        lab.fill(0..PAGES - 1)?;
        lab.register(0..PAGES, REGISTER_MODE_WP)?;
        let rc = lab.uffd.writeprotect(lab.all(), WRITEPROTECT_MODE_WP);
        if !rc.is_ok() {
            return Err(Stop::Broken(format!("WRITEPROTECT of the block: {rc}")));
        }
        lab.entries("before", seen)?;
        seen.step("change");
        let (rc, child) = self.change.apply(&lab, REGISTER_MODE_WP, seen)?;
        seen.fact("change", rc);
        if !rc.is_ok() {
            return Ok(());
        }
        let place = place(&lab, self.change);
        let page = lab.block.page;
        seen.fact("reg", evidence::registration(&[(place, page)])?.concat());
        seen.fact("entries", evidence::entries("self", place, page)?);
        if let Some(child) = &child {
            seen.fact("child", evidence::entries(&child.pid().to_string(), place, page)?);
        }
        seen.step("write");
        let start = place.start + PAGE * page;
        let mut waiter = lab.begin(Who::UserWrite, Range { start, len: page })?;
        let fate = waiter.settle(&lab.uffd, &lab.queue)?;
        seen.fact("write", if fate.waits() { "parks".to_owned() } else { stage.word(fate) });
        Ok(())
    }

    fn expect(&self, kernel: KernelVersion) -> Vec<Expected> {
        let Self { backing, change, asks } = *self;
        let last = if super::marks(backing, asks) { "n" } else { "-" };
        let full = format!("wwwww{last}");
        let mut facts = want(SHOWN, &[("before", &row(&full, kernel))]);
        let cleared = kernel >= KernelVersion::new(6, 0, 0);
        if change == Change::Rearm {
            let entries = if cleared { "ppppp-" } else { &full };
            facts.extend(want(UNREGISTERED, &[("unregistered", &row(entries, kernel))]));
        }
        let gone = if backing.is_anon() { format!("ww--w{last}") } else { "wwnnwn".to_owned() };
        let (reg, entries, caught, says) = match change {
            Change::DontNeed => ("wwwwww", gone, !backing.is_anon(), MARKERS),
            // A private copy outlives its page of the file.
            Change::Punch if backing == Backing::Private => ("wwwwww", full.clone(), true, SHOWN),
            Change::Remove | Change::Punch => ("wwwwww", gone, true, MARKERS),
            Change::Truncate if backing.is_huge() => {
                ("wwwwww", "ww----".to_owned(), false, OBSERVED)
            }
            Change::Truncate => ("wwwwww", "wwnnnn".to_owned(), true, MARKERS),
            Change::Over => ("ww..ww", format!("ww--w{last}"), false, "mmap(2)"),
            Change::Move if keeps_moved(kernel) => ("......", full.clone(), false, MOVED),
            Change::Move => ("......", "ppppp-".to_owned(), false, MOVED),
            Change::Rearm if cleared => ("wwwwww", "ppppp-".to_owned(), false, UNREGISTERED),
            Change::Rearm => ("wwwwww", full.clone(), true, UNREGISTERED),
            _ => ("wwwwww", full.clone(), true, OBSERVED),
        };
        facts.extend(want(says, &[("change", "0"), ("reg", reg)]));
        facts.extend(want(says, &[("entries", &row(&entries, kernel))]));
        let child = match change {
            Change::ForkEvent => Some(full.as_str()),
            Change::Fork if backing.is_private() => Some("ppppp-"),
            Change::Fork => Some("------"),
            _ => None,
        };
        if let Some(child) = child {
            facts.extend(want(FORKED, &[("child", &row(child, kernel))]));
        }
        facts.extend(want(says, &[("write", if caught { "parks" } else { "ran" })]));
        facts
    }

    fn recipe(&self) -> Vec<String> {
        let Self { backing, change, asks } = self;
        vec![
            format!("write to pages 0 to 4 of a {backing} block; features: {asks}"),
            "register it for write protection and protect it all".into(),
            format!("then: {change}"),
            "look at registration and page table where the block stands now".into(),
            "a thread stores to page 2: does it park?".into(),
        ]
    }

    fn uses_huge_pages(&self) -> bool {
        self.backing.is_huge()
    }
}
