//! Pages that are swapped out: present for userfaultfd, though no memory holds them.

use crate::abi::{
    REGISTER_MODE_MISSING, REGISTER_MODE_WP, Range, Rc, WRITEPROTECT_MODE_WP, features,
};
use crate::evidence::QueueFile;
use crate::expect::Expected;
use crate::memory::{self, BLOCK, Block, ONE_PAGE, RW, SPARE, tag};
use crate::outcome::{Seen, Stop};
use crate::point::{Backing, PAGES, Waiter as Kind, axis};
use crate::probe::{Case, Probe, Trial};
use crate::process::Offspring;
use crate::stage::Stage;
use crate::swap::Swap;
use crate::touch;
use crate::treat;
use crate::waiter::{Fate, Waiter};
use uffd_results::KernelVersion;

static SWAPPED: Probe = Probe {
    suite: "kinds",
    name: "swapped",
    statement: "A page that is swapped out counts as present: nothing is placed over it, it can be \
                protected, moved and loaded, and raises no missing fault.",
    consumers: &["every handler on a host that swaps", "Android ART: mark_compact.cc with zram"],
};

axis! {
    /// What is done to the swapped page.
    Deed {
        /// A load.
        Load = "load",
        /// UFFDIO_COPY.
        Copy = "copy",
        /// UFFDIO_ZEROPAGE.
        Zeropage = "zeropage",
        /// UFFDIO_POISON.
        Poison = "poison",
        /// UFFDIO_WRITEPROTECT, then a store.
        Protect = "protect",
        /// UFFDIO_MOVE to a missing page.
        Move = "move",
        /// UFFDIO_MOVE to a missing page while a forked child shares it.
        MoveShared = "move-shared",
        /// UFFDIO_MOVE to a missing page while the page is still in memory: somebody has a reference to
        /// it, so that it stays in the swap cache.
        MoveCached = "move-in-swap-cache",
    }
}

#[derive(Debug)]
struct Swapped(Deed);

/// The cases.
pub(super) fn cases() -> Vec<Case> {
    Deed::ALL.iter().map(|deed| Case::trial(&SWAPPED, Swapped(*deed), true)).collect()
}

impl Deed {
    fn moves(self) -> bool {
        matches!(self, Self::Move | Self::MoveShared | Self::MoveCached)
    }
}

impl Trial for Swapped {
    fn axes(&self) -> String {
        format!("backing=anon,deed={}", self.0)
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        seen.step("set-up");
        stage.must_offer(match self.0 {
            _ if self.0.moves() => features::MOVE,
            Deed::Poison => features::POISON,
            _ => 0,
        })?;
        let block = Block::map(Backing::Anon, BLOCK)?;
        let target = block.range(2..3);
        let spare = Range { start: SPARE, len: block.page };
        let rc = memory::map(spare, RW, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, None, 0);
        let swapped = if self.0.moves() { spare } else { target };
        if !rc.is_ok() || touch::store(swapped.start, tag::KEPT).is_err() {
            return Err(Stop::Broken(format!("making the page to be swapped: {rc}")));
        }
        let swap = Swap::on(stage.disposable)?;
        let end = self.ask(stage, &block, swapped, seen);
        seen.step("swapoff");
        drop(swap);
        end
    }

    fn expect(&self, _: KernelVersion) -> Vec<Expected> {
        let says = "mfill_atomic_install_pte() and move_pages_ptes() in mm/userfaultfd.c: only an empty \
                    entry is free; MOVE takes a swap entry along if it is exclusive";
        let (rc, bits, content) = match self.0 {
            Deed::Load => (None, "s", "kept"),
            Deed::Copy => (Some(("copy", "EEXIST", "-17")), "s", "kept"),
            Deed::Zeropage => (Some(("zeropage", "EEXIST", "-17")), "s", "kept"),
            Deed::Poison => (Some(("poison", "EEXIST", "-17")), "s", "kept"),
            Deed::Move | Deed::MoveCached => (Some(("move", "0", ONE_PAGE)), "s", "kept"),
            Deed::MoveShared => (Some(("move", "EBUSY", "-16")), "-", ""),
            Deed::Protect => {
                return vec![
                    Expected::new("swapped", "s", says),
                    Expected::new("writeprotect", "0", says),
                    Expected::new("store", "again", says),
                    Expected::new("unprotect", "0", says),
                    Expected::new("stored", "ran", says),
                ];
            }
        };
        let mut facts = vec![Expected::new("swapped", "s", says)];
        if let Some((name, rc, field)) = rc {
            facts.push(Expected::new(name, rc, says));
            facts.push(Expected::new("field", field, says));
        }
        facts.push(Expected::new("bits", bits, says));
        if !content.is_empty() {
            facts.push(Expected::new("loaded", content, says));
        }
        facts
    }

    fn recipe(&self) -> Vec<String> {
        vec![
            "map a block of 6 pages of private anonymous memory; write to one page".to_owned(),
            "turn swap on (zram); madvise(MADV_PAGEOUT) until pagemap says that the page is swapped"
                .to_owned(),
            format!("register the block; {} of the swapped page", self.0),
            "look at the page's bits in pagemap; load from it".to_owned(),
        ]
    }
}

impl Swapped {
    fn ask(
        &self,
        stage: &Stage,
        block: &Block,
        swapped: Range,
        seen: &mut Seen<'_>,
    ) -> Result<(), Stop> {
        let target = block.range(2..3);
        seen.step("swap");
        if self.0 == Deed::MoveCached {
            let rc = treat::splice(swapped)?;
            if !rc.is_ok() {
                return Err(Stop::Broken(format!("vmsplice: {rc}")));
            }
        }
        // Reclaim may pass over a page that was just touched; the second time it is old.
        for _ in 0..64 {
            let rc = memory::advise(swapped, libc::MADV_PAGEOUT);
            if !rc.is_ok() {
                return Err(Stop::Unsupported(format!("madvise(MADV_PAGEOUT): {rc}")));
            }
            if treat::bits(swapped, block.page)? == "s" {
                break;
            }
        }
        let bits = treat::bits(swapped, block.page)?;
        if bits != "s" {
            return Err(Stop::Precondition(format!("the page is not swapped out: {bits}")));
        }
        seen.fact("swapped", bits);
        // A page that two processes map is not paged out; an entry that they share is not exclusive.
        let shares = self.0 == Deed::MoveShared;
        let _child = shares.then(|| Offspring::idle(stage)).transpose()?;
        let uffd = stage.uffd(0)?;
        let mode = if self.0 == Deed::Protect { REGISTER_MODE_WP } else { REGISTER_MODE_MISSING };
        uffd.register(block.range(0..PAGES), mode)
            .map_err(|e| Stop::Unsupported(format!("REGISTER: {e:?}")))?;
        seen.step("deed");
        let mut said = |name: &'static str, (rc, field): (Rc, crate::abi::Field)| {
            seen.fact(name, rc);
            seen.fact("field", field);
        };
        match self.0 {
            Deed::Load => {}
            Deed::Copy => said("copy", uffd.copy(target, stage.source, 0)),
            Deed::Zeropage => said("zeropage", uffd.zeropage(target, 0)),
            Deed::Poison => said("poison", uffd.poison(target, 0)),
            Deed::Move | Deed::MoveShared | Deed::MoveCached => {
                said("move", uffd.relocate(target, SPARE, 0));
            }
            Deed::Protect => {
                seen.fact("writeprotect", uffd.writeprotect(target, WRITEPROTECT_MODE_WP));
                let queue = QueueFile::open(&uffd)?;
                let mut writer = Waiter::start(stage, Kind::UserWrite, target)?;
                let fate = writer.settle(&uffd, &queue)?;
                seen.fact("store", stage.word(fate));
                if fate == Fate::Again {
                    while uffd.read().is_ok() {}
                    seen.fact("unprotect", uffd.writeprotect(target, 0));
                    seen.fact("stored", stage.word(writer.look(&uffd, &queue)?));
                }
                return Ok(());
            }
        }
        seen.fact("bits", treat::bits(target, block.page)?);
        if self.0 != Deed::MoveShared {
            let loaded = touch::load(target.start)
                .map_err(|signal| Stop::Broken(format!("loading the page: {signal}")))?;
            seen.fact("loaded", crate::waiter::content(loaded));
        }
        Ok(())
    }
}
