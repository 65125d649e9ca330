//! The one routine that performs any point of the grid: set the scene, park the waiter, apply the
//! change, issue the operation, read the facts.
//!
//! Its facts, in order (those that do not apply are left out):
//! `fault` the waiter's message as read · `change` what the change returned · `copy`, `zeropage`,
//! `continue`, `writeprotect`, `poison`, `move`, `unregister` or `wake` what the operation returned · `field` its result field · `waiter` what
//! became of the waiter · `queue` waiters on the context: all/unread · `reg` and `pages`
//! registration and content of each page of the block's place · `new-reg` and `new-pages` the same
//! of the place where mremap moved it · then, for a waiter that still waits, how it comes free:
//! `rescue` what `UFFDIO_WAKE` of its page returned and `rescued` what it then did; `closed` what
//! it did after the last close (for protected hugetlb pages `unprotect` and `unprotected`: what
//! `UFFDIO_WRITEPROTECT` returned and what it then did).

use crate::abi::{
    Message, REGISTER_MODE_MINOR, REGISTER_MODE_MISSING, REGISTER_MODE_WP, Range, Rc, Uffd,
    WRITEPROTECT_MODE_WP, fault, features,
};
use crate::change::Prepared;
use crate::evidence::{self, QueueFile};
use crate::memory::{BLOCK, Block, ELSEWHERE, RW, SPARE, map, tag};
use crate::outcome::{Seen, Stop};
use crate::point::{Change, Mode, Msg, Op, PAGES, Point, Waiter as Kind};
use crate::stage::Stage;
use crate::touch;
use crate::waiter::{Fate, Waiter};

/// A registered block, ready for a waiter.
#[derive(Debug)]
pub struct Scene<'a> {
    /// The shared ground.
    pub stage: &'a Stage,
    /// The block.
    pub block: Block,
    /// The context that the block is registered with.
    pub uffd: Uffd,
    /// Its fault queue.
    pub queue: QueueFile,
    /// The page that things happen to.
    pub page: usize,
}

impl<'a> Scene<'a> {
    /// Maps a block, writes to the page behind `page`, and registers all for the point's mode. For
    /// write protection `page` is written to and all pages are protected; for minor faults its
    /// content is in the page cache.
    pub fn set(stage: &'a Stage, point: Point) -> Result<Self, Stop> {
        let block = Block::map(point.backing, BLOCK)?;
        let page = point.change.page();
        let write = |page: usize| {
            touch::store(block.range(page..page + 1).start, tag::KEPT)
                .map_err(|signal| Stop::Broken(format!("writing to the block: {signal}")))
        };
        write(page + 1)?;
        let mode = match point.mode {
            Mode::Missing => REGISTER_MODE_MISSING,
            Mode::Wp => {
                write(page)?;
                REGISTER_MODE_WP
            }
            Mode::Minor => {
                block.fill_cache(page)?;
                REGISTER_MODE_MINOR
            }
        };
        let uffd = stage.uffd(0)?;
        let all = block.range(0..PAGES);
        uffd.register(all, mode).map_err(|e| {
            let Point { backing, mode, .. } = point;
            Stop::Unsupported(format!("REGISTER of a {backing} block for {mode} faults: {e:?}"))
        })?;
        if point.mode == Mode::Wp {
            let rc = uffd.writeprotect(all, WRITEPROTECT_MODE_WP);
            if !rc.is_ok() {
                return Err(Stop::Broken(format!("WRITEPROTECT of the block: {rc}")));
            }
        }
        if point.op == Op::Move {
            let range = Range { start: SPARE, len: block.page };
            let rc = map(range, RW, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, None, 0);
            if !rc.is_ok() {
                return Err(Stop::Broken(format!("mapping the page to be moved: {rc}")));
            }
            touch::store(SPARE, tag::NEW).map_err(|signal| {
                Stop::Broken(format!("writing the page to be moved: {signal}"))
            })?;
        }
        let queue = QueueFile::open(&uffd)?;
        Ok(Self { stage, block, uffd, queue, page })
    }

    /// The range of the page that things happen to.
    pub fn target(&self) -> Range {
        self.block.range(self.page..self.page + 1)
    }

    /// Parks the point's waiter, reads its message if the point says so, and records it.
    pub fn park(&self, point: Point, seen: &mut Seen<'_>) -> Result<Option<Waiter>, Stop> {
        if point.waiter == Kind::None {
            return Ok(None);
        }
        seen.step("park");
        let waiter =
            Waiter::park(self.stage, point.waiter, self.target(), &self.uffd, &self.queue)?;
        if point.msg == Msg::Read {
            seen.fact("fault", self.read_fault()?);
        }
        Ok(Some(waiter))
    }

    /// Reads one message; `read@2` or `wp-write@2` for a fault on page 2.
    pub fn read_fault(&self) -> Result<String, Stop> {
        match self.uffd.read() {
            Ok(Message::Pagefault { address, flags, .. }) => {
                let kind = fault_word(flags);
                let offset = address.wrapping_sub(BLOCK);
                Ok(format!("{kind}@{}", offset / self.block.page))
            }
            other => Err(Stop::Broken(format!("reading the waiter's message: {other:?}"))),
        }
    }

    /// Issues the operation and records what it returned.
    pub fn act(&self, op: Op, seen: &mut Seen<'_>) {
        let Self { stage, block, uffd, .. } = self;
        match op {
            Op::Look => {}
            Op::Copy => {
                let (rc, field) = uffd.copy(self.target(), stage.source, 0);
                seen.fact("copy", rc);
                seen.fact("field", field);
            }
            Op::Zeropage => {
                let (rc, field) = uffd.zeropage(self.target(), 0);
                seen.fact("zeropage", rc);
                seen.fact("field", field);
            }
            Op::Continue => {
                let (rc, field) = uffd.resume(self.target(), 0);
                seen.fact("continue", rc);
                seen.fact("field", field);
            }
            Op::Unprotect => seen.fact("writeprotect", uffd.writeprotect(self.target(), 0)),
            Op::Poison => {
                let (rc, field) = uffd.poison(self.target(), 0);
                seen.fact("poison", rc);
                seen.fact("field", field);
            }
            Op::Move => {
                let (rc, field) = uffd.relocate(self.target(), SPARE, 0);
                seen.fact("move", rc);
                seen.fact("field", field);
            }
            Op::Unregister => seen.fact("unregister", uffd.unregister(block.range(0..PAGES))),
            Op::Wake => seen.fact("wake", uffd.wake(self.target())),
        }
    }

    /// Records registration and content of every page of the old and the new place.
    pub fn survey(&self, change: Change, seen: &mut Seen<'_>) -> Result<(), Stop> {
        let page = self.block.page;
        let mut windows = vec![(self.block.range(0..change.window()), page)];
        if let Some(pages) = change.new_window() {
            windows.push((self.block.at(ELSEWHERE, 0..pages), page));
        }
        let letter = |value| self.stage.letter(value);
        let names = [("reg", "pages"), ("new-reg", "new-pages")];
        let registered = evidence::registration(&windows)?;
        for (((range, page), reg), (reg_name, pages_name)) in
            windows.into_iter().zip(registered).zip(names)
        {
            seen.fact(reg_name, reg);
            seen.fact(pages_name, evidence::pages(range, page, &letter)?);
        }
        Ok(())
    }

    /// Reads the facts that follow an operation, and frees the waiter if it still waits.
    pub fn conclude(
        self,
        point: Point,
        mut waiter: Option<&mut Waiter>,
        seen: &mut Seen<'_>,
    ) -> Result<(), Stop> {
        let mut waits = false;
        if let Some(waiter) = &mut waiter {
            let fate = waiter.look(&self.uffd, &self.queue)?;
            seen.fact("waiter", self.stage.word(fate));
            seen.fact("queue", self.queue.read()?);
            waits = fate.waits();
        }
        seen.step("survey");
        self.survey(point.change, seen)?;
        match waiter {
            Some(waiter) if waits => self.free(waiter, point, seen),
            _ => Ok(()),
        }
    }

    /// Frees a waiter that still waits and records how; consumes the context.
    fn free(self, waiter: &mut Waiter, point: Point, seen: &mut Seen<'_>) -> Result<(), Stop> {
        let mut fate = Fate::Asleep;
        if point.op != Op::Wake {
            seen.step("rescue");
            // A message of its own would be taken for the unread old one.
            while self.uffd.read().is_ok() {}
            seen.fact("rescue", self.uffd.wake(self.target()));
            fate = waiter.look(&self.uffd, &self.queue)?;
            seen.fact("rescued", self.stage.word(fate));
        }
        if fate.waits() && point.mode == Mode::Wp && self.block.backing.is_huge() {
            // Before 6.9 close leaves the protection of hugetlb pages behind, and the writer would
            // fault for ever, in kernel mode beyond the reach of any signal.
            seen.step("unprotect");
            while self.uffd.read().is_ok() {}
            let rc = self.uffd.writeprotect(self.target(), 0);
            let fate = waiter.look(&self.uffd, &self.queue)?;
            seen.fact("unprotect", rc);
            seen.fact("unprotected", self.stage.word(fate));
        } else if fate.waits() {
            seen.step("close");
            drop(self.uffd);
            seen.fact("closed", self.stage.word(waiter.end()?));
        }
        Ok(())
    }
}

/// Why a thread faulted, in words: `read`, `write`, `wp-write`, `minor-read`, `rwp-read`.
pub fn fault_word(flags: u64) -> String {
    let reasons = [(fault::WP, "wp-"), (fault::MINOR, "minor-"), (fault::RWP, "rwp-")];
    let reason: String =
        reasons.iter().filter(|(flag, _)| flags & flag != 0).map(|(_, word)| *word).collect();
    format!("{reason}{}", if flags & fault::WRITE == 0 { "read" } else { "write" })
}

/// Features that a kernel must offer for the point's operation.
pub(crate) const fn needs(op: Op) -> u64 {
    match op {
        Op::Poison => features::POISON,
        Op::Move => features::MOVE,
        _ => 0,
    }
}

/// Performs a point.
pub fn perform(stage: &Stage, point: Point, seen: &mut Seen<'_>) -> Result<(), Stop> {
    seen.step("set-up");
    stage.must_offer(needs(point.op))?;
    let scene = Scene::set(stage, point)?;
    let change = Prepared::new(stage, point.change, &scene.block)?;
    let mut waiter = scene.park(point, seen)?;
    seen.step("change");
    let rc: Rc = change.apply(stage, &scene.block)?;
    if point.change != Change::None {
        seen.fact("change", rc);
    }
    seen.step(match point.op {
        Op::Look => "look",
        Op::Copy => "copy",
        Op::Zeropage => "zeropage",
        Op::Continue => "continue",
        Op::Unprotect => "writeprotect",
        Op::Poison => "poison",
        Op::Move => "move",
        Op::Unregister => "unregister",
        Op::Wake => "wake",
    });
    scene.act(point.op, seen);
    scene.conclude(point, waiter.as_mut(), seen)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::point::{Backing, Over, Part, Remap};
    use crate::testing::{Facts, isolated};
    use rstest::rstest;

    fn facts(stage: &Stage, point: Point) -> Facts {
        let mut facts = Facts::default();
        let ran = perform(stage, point, &mut Seen::new(&mut facts));
        assert!(ran.is_ok(), "{ran:?} after {facts:?}");
        eprintln!("{} {:?}", point.axes(), facts.0);
        facts
    }

    #[rstest]
    fn copy_wakes_the_waiter_of_an_unchanged_block(
        #[values(Backing::Anon, Backing::Shmem, Backing::Private, Backing::SharedAnon)]
        backing: Backing,
        #[values(Kind::UserRead, Kind::UserWrite, Kind::SysRead, Kind::SysWrite)] waiter: Kind,
        #[values(Msg::Read, Msg::Unread)] msg: Msg,
    ) {
        isolated(|stage| {
            let point = Point {
                backing,
                mode: Mode::Missing,
                change: Change::None,
                waiter,
                msg,
                op: Op::Copy,
            };
            let facts = facts(stage, point);
            assert_eq!((facts.get("copy"), facts.get("field")), ("0", "4096"));
            let expected = if waiter.stores() { "ran" } else { "ran:copied" };
            assert_eq!((facts.get("waiter"), facts.get("queue")), (expected, "0/0"));
        });
    }

    #[rstest]
    #[case(Change::Munmap(Part::Middle), "mm--mm", "SEGV_MAPERR")]
    #[case(Change::MmapOver(Part::Tail, Over::Anon), "mmmm..", "ran:zero")]
    #[case(Change::MmapOver(Part::Head, Over::Shared), "..mmmm", "ran:new")]
    #[case(Change::MmapOver(Part::Whole, Over::ProtNone), "......", "SEGV_ACCERR")]
    #[case(Change::Mremap(Remap::Move), "------", "SEGV_MAPERR")]
    #[case(Change::Mremap(Remap::Onto), "......", "ran:new")]
    fn no_change_wakes_and_wake_does(
        #[case] change: Change,
        #[case] reg: &str,
        #[case] rescued: &str,
        #[values(Msg::Read, Msg::Unread)] msg: Msg,
    ) {
        isolated(|stage| {
            let (backing, waiter) = (Backing::Anon, Kind::UserRead);
            let facts = facts(
                stage,
                Point { backing, mode: Mode::Missing, change, waiter, msg, op: Op::Look },
            );
            assert_eq!((facts.get("change"), facts.get("waiter")), ("0", "asleep"));
            assert_eq!((facts.get("reg"), facts.get("rescue")), (reg, "0"));
            assert_eq!(facts.get("rescued"), rescued);
        });
    }
}
