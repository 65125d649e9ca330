//! Pages that KSM has merged.

use crate::abi::{
    Field, REGISTER_MODE_MISSING, REGISTER_MODE_WP, Range, Rc, WRITEPROTECT_MODE_WP, features,
};
use crate::evidence::QueueFile;
use crate::expect::Expected;
use crate::ksm::Merging;
use crate::memory::{self, BLOCK, Block, RW, SPARE, tag};
use crate::outcome::{Seen, Stop};
use crate::point::{Backing, PAGES, Waiter as Kind, axis};
use crate::probe::{Case, Probe, Trial};
use crate::stage::Stage;
use crate::touch;
use crate::treat;
use crate::waiter::{Fate, Waiter};
use uffd_results::KernelVersion;

static MERGED: Probe = Probe {
    suite: "kinds",
    name: "merged",
    statement: "A page that KSM has merged counts as present: nothing is placed over it, and it can be \
                protected; it can't be moved, as it is shared. Merging takes the protection away from \
                a page that was write-protected before.",
    consumers: &["QEMU: mem-merge=on, which is the default, with background-snapshot and postcopy"],
};

/// Who is protected loses it.
const LOST: &str = "replace_page() in mm/ksm.c makes the new entry of the mapping's protection alone, \
    without the bit that userfaultfd has set in the old one";

axis! {
    /// What is done to the merged page.
    Deed {
        /// A load and a store, registered for missing pages.
        Touch = "touch",
        /// UFFDIO_COPY.
        Copy = "copy",
        /// UFFDIO_ZEROPAGE.
        Zeropage = "zeropage",
        /// UFFDIO_POISON.
        Poison = "poison",
        /// UFFDIO_MOVE to a missing page.
        Move = "move",
        /// UFFDIO_WRITEPROTECT, then a store.
        Protect = "protect",
        /// UFFDIO_WRITEPROTECT of the page before it is merged, then a store.
        ProtectBefore = "protect-before",
        /// MADV_DONTNEED, then a load.
        Dontneed = "dontneed",
        /// MADV_UNMERGEABLE of the protected page, then a store.
        Unmerge = "protect-and-unmerge",
    }
}

#[derive(Debug)]
struct Merged(Deed);

/// The cases.
pub(super) fn cases() -> Vec<Case> {
    Deed::ALL.iter().map(|deed| Case::trial(&MERGED, Merged(*deed), true)).collect()
}

impl Deed {
    fn protects(self) -> bool {
        matches!(self, Self::Protect | Self::ProtectBefore | Self::Unmerge)
    }
}

impl Trial for Merged {
    fn axes(&self) -> String {
        format!("deed={}", self.0)
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        seen.step("set-up");
        stage.must_offer(match self.0 {
            Deed::Move => features::MOVE,
            Deed::Poison => features::POISON,
            _ => 0,
        })?;
        if !stage.disposable {
            return Err(Stop::Precondition("turns KSM on: only asked in a VM".into()));
        }
        let block = Block::map(Backing::Anon, BLOCK)?;
        let target = block.range(2..3);
        let spare = Range { start: SPARE, len: block.page };
        let rc = memory::map(spare, RW, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, None, 0);
        if !rc.is_ok()
            || [target, spare].iter().any(|at| touch::store(at.start, tag::KEPT).is_err())
        {
            return Err(Stop::Broken(format!("making the pages to be merged: {rc}")));
        }
        let uffd = stage.uffd(0)?;
        let mode = if self.0.protects() { REGISTER_MODE_WP } else { REGISTER_MODE_MISSING };
        uffd.register(block.range(0..PAGES), mode)
            .map_err(|e| Stop::Unsupported(format!("REGISTER: {e:?}")))?;
        if self.0 == Deed::ProtectBefore {
            seen.fact("writeprotect", uffd.writeprotect(target, WRITEPROTECT_MODE_WP));
        }
        for at in [target, spare] {
            let rc = memory::advise(at, libc::MADV_MERGEABLE);
            if !rc.is_ok() {
                return Err(Stop::Unsupported(format!("madvise(MADV_MERGEABLE): {rc}")));
            }
        }
        seen.step("merge");
        let merging = Merging::on()?;
        let merged = merging.settle([target, spare], stage.patience)?;
        seen.fact("merged", if merged { "yes" } else { "no" });
        drop(merging);
        self.ask(stage, &uffd, target, seen)
    }

    fn expect(&self, kernel: KernelVersion) -> Vec<Expected> {
        let says = "mm/ksm.c: a merged page is mapped as any other that is shared; \
                    mfill_atomic_install_pte() and move_pages_ptes() in mm/userfaultfd.c: only an \
                    empty entry is free, and MOVE takes exclusive pages only";
        let mut facts = vec![Expected::new("merged", "yes", says)];
        let filled = |name, errno, field| {
            vec![Expected::new(name, errno, says), Expected::new("field", field, says)]
        };
        facts.extend(match self.0 {
            Deed::Copy => filled("copy", "EEXIST", "-17"),
            Deed::Zeropage => filled("zeropage", "EEXIST", "-17"),
            Deed::Poison => filled("poison", "EEXIST", "-17"),
            Deed::Move => filled("move", "EBUSY", "-16"),
            Deed::Touch => vec![],
            Deed::Dontneed => vec![Expected::new("dontneed", "0", says)],
            Deed::ProtectBefore => {
                vec![Expected::new("writeprotect", "0", says), Expected::new("bits", "p", LOST)]
            }
            // pagemap tells of the protection since 5.14.
            Deed::Protect | Deed::Unmerge => {
                let told = kernel >= KernelVersion::new(5, 14, 0);
                let bits = if told { "P" } else { "p" };
                vec![Expected::new("writeprotect", "0", says), Expected::new("bits", bits, says)]
            }
        });
        let touch = match self.0 {
            Deed::Dontneed | Deed::Protect | Deed::Unmerge => "again",
            _ => "ran",
        };
        let says = if self.0 == Deed::ProtectBefore { LOST } else { says };
        facts.push(Expected::new("store", touch, says));
        facts.push(Expected::new("other", "kept", says));
        facts
    }

    fn recipe(&self) -> Vec<String> {
        let mut steps = vec![
            "map a block of 6 pages of private anonymous memory, and a page elsewhere; write the same \
             to page 2 and to that page; register the block"
                .to_owned(),
        ];
        if self.0 == Deed::ProtectBefore {
            steps.push("UFFDIO_WRITEPROTECT of page 2".to_owned());
        }
        steps.extend([
            "madvise(MADV_MERGEABLE) of both; turn KSM on (/sys/kernel/mm/ksm/run) until \
             /proc/kpageflags says that both are\n             one merged page"
                .to_owned(),
            format!("{} of page 2; look at its bits in pagemap", self.0),
            "a thread stores to page 2: what does it meet? read the other page".to_owned(),
        ]);
        steps
    }
}

impl Merged {
    fn ask(
        &self,
        stage: &Stage,
        uffd: &crate::abi::Uffd,
        target: Range,
        seen: &mut Seen<'_>,
    ) -> Result<(), Stop> {
        seen.step("deed");
        let mut said = |name: &'static str, (rc, field): (Rc, Field)| {
            seen.fact(name, rc);
            seen.fact("field", field);
        };
        match self.0 {
            Deed::Touch | Deed::ProtectBefore => {}
            Deed::Copy => said("copy", uffd.copy(target, stage.source, 0)),
            Deed::Zeropage => said("zeropage", uffd.zeropage(target, 0)),
            Deed::Poison => said("poison", uffd.poison(target, 0)),
            Deed::Move => {
                let to = Range { start: target.end(), ..target };
                said("move", uffd.relocate(to, target.start, 0));
            }
            Deed::Dontneed => seen.fact("dontneed", memory::dontneed(target)),
            Deed::Protect | Deed::Unmerge => {
                seen.fact("writeprotect", uffd.writeprotect(target, WRITEPROTECT_MODE_WP));
                if self.0 == Deed::Unmerge {
                    seen.fact("unmerge", memory::advise(target, libc::MADV_UNMERGEABLE));
                }
            }
        }
        seen.fact("bits", treat::bits(target, target.len)?);
        seen.step("store");
        let queue = QueueFile::open(uffd)?;
        let mut writer = Waiter::start(stage, Kind::UserWrite, target)?;
        let fate = writer.settle(uffd, &queue)?;
        seen.fact("store", stage.word(fate));
        if fate == Fate::Again && self.0.protects() {
            while uffd.read().is_ok() {}
            seen.fact("unprotect", uffd.writeprotect(target, 0));
            seen.fact("stored", stage.word(writer.look(uffd, &queue)?));
        }
        let other = touch::load(SPARE)
            .map_err(|signal| Stop::Broken(format!("loading the other page: {signal}")))?;
        seen.fact("other", crate::waiter::content(other));
        Ok(())
    }
}
