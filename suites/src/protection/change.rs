//! What can happen to a protected block, and what is then left of the protection.

use super::{PAGE, Protection};
use crate::abi::{Range, Rc, features};
use crate::evidence;
use crate::lab::Lab;
use crate::memory::{ELSEWHERE, RW, advise, dontneed, protect, remap};
use crate::mover::{self, Mover};
use crate::outcome::{Seen, Stop};
use crate::point::{Backing, Discard, PAGES, Waiter as Kind, axis};
use crate::process::Offspring;
use crate::waiter::Waiter;

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

const CHANGED: std::ops::Range<usize> = 2..4;

/// Where the block stands after the change.
fn place(lab: &Lab<'_>, change: Change) -> Range {
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
    fn apply(
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

impl Protection {
    /// Makes the change to a protected block and records what is left: entries `before`, what the
    /// `change` returned, registration and entries where the block then stands, a `child`'s entries, and
    /// whether the access that the protection forbids parks at page 2: `write` or `read`.
    pub(crate) fn outlives(
        self,
        change: Change,
        lab: &Lab<'_>,
        seen: &mut Seen<'_>,
    ) -> Result<(), Stop> {
        lab.entries("before", seen)?;
        seen.step("change");
        let (rc, child) = change.apply(lab, self.mode(), seen)?;
        seen.fact("change", rc);
        if !rc.is_ok() {
            return Ok(());
        }
        let place = place(lab, change);
        let page = lab.block.page;
        seen.fact("reg", evidence::registration(&[(place, page)])?.concat());
        seen.fact("entries", evidence::entries("self", place, page)?);
        if let Some(child) = &child {
            seen.fact("child", evidence::entries(&child.pid().to_string(), place, page)?);
        }
        let (name, kind) = match self {
            Self::Writes => ("write", Kind::UserWrite),
            Self::All => ("read", Kind::UserRead),
        };
        seen.step(name);
        let start = place.start + PAGE * page;
        let mut waiter = Waiter::start(lab.stage, kind, Range { start, len: page })?;
        let fate = waiter.settle(&lab.uffd, &lab.queue)?;
        seen.fact(name, if fate.waits() { "parks".to_owned() } else { lab.stage.word(fate) });
        Ok(())
    }
}
