//! The soft-dirty bit of pages that userfaultfd has filled: what a dump in several passes goes by.

use crate::abi::{
    COPY_MODE_WP, REGISTER_MODE_MINOR, REGISTER_MODE_MISSING, REGISTER_MODE_WP, Range, Rc, features,
};
use crate::expect::{Expected, OBSERVED};
use crate::memory::{BLOCK, Block, OTHER, PAGE, RW, SPARE, map, tag};
use crate::model::source;
use crate::outcome::{Seen, Stop};
use crate::point::{Backing, PAGES, axis};
use crate::probe::{Case, Probe, Trial};
use crate::stage::Stage;
use crate::touch;
use std::fs::File;
use std::os::unix::fs::FileExt;
use uffd_results::KernelVersion;

static DIRTY: Probe = Probe {
    suite: "kinds",
    name: "soft-dirty",
    statement: "After clear_refs a page that COPY, MOVE or CONTINUE brings is soft-dirty; the one of ZEROPAGE is in \
                shared memory and is not in private memory, as none is that the kernel brings for a load; the first \
                store to it makes it so.",
    consumers: &[
        "CRIU: pre-dump of tasks that are restored lazily, page by page by the soft-dirty bit",
    ],
};

axis! {
    /// What brings the page.
    Deed {
        /// UFFDIO_COPY.
        Copy = "copy",
        /// UFFDIO_COPY with MODE_WP.
        CopyWp = "copy-wp",
        /// UFFDIO_ZEROPAGE.
        Zeropage = "zeropage",
        /// UFFDIO_MOVE of a page that is soft-dirty.
        Move = "move",
        /// UFFDIO_MOVE of a page that was written to before clear_refs.
        MoveClean = "move-clean",
        /// UFFDIO_CONTINUE.
        Continue = "continue",
        /// A load from unregistered memory of the same kind: the comparison.
        Load = "load",
        /// A store to unregistered memory of the same kind.
        Store = "store",
    }
}

#[derive(Debug)]
struct Dirty {
    backing: Backing,
    deed: Deed,
}

/// The page that is brought.
const TARGET: usize = 2;
/// A page that is there from before.
const KEPT: usize = 4;

/// Bit 55 of a page's entry in pagemap.
fn bit(address: usize) -> Result<&'static str, Stop> {
    let fail = |e| Stop::Broken(format!("reading /proc/self/pagemap: {e}"));
    let file = File::open("/proc/self/pagemap").map_err(fail)?;
    let mut entry = [0; 8];
    file.read_exact_at(&mut entry, (address / PAGE * 8) as u64).map_err(fail)?;
    let entry = u64::from_ne_bytes(entry);
    Ok(if entry >> 55 & 1 == 1 { "dirty" } else { "clean" })
}

fn store(at: usize, value: u64) -> Result<(), Stop> {
    touch::store(at, value).map_err(|signal| Stop::Broken(format!("a store: {signal}")))
}

/// Forgets what was written so far.
fn clear() -> Result<(), Stop> {
    std::fs::write("/proc/self/clear_refs", "4")
        .map_err(|e| Stop::Precondition(format!("/proc/self/clear_refs: {e}")))
}

impl Trial for Dirty {
    fn axes(&self) -> String {
        format!("backing={},deed={}", self.backing, self.deed)
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        seen.step("set-up");
        let moves = matches!(self.deed, Deed::Move | Deed::MoveClean);
        stage.must_offer(match self.deed {
            Deed::Move | Deed::MoveClean => features::MOVE,
            _ => 0,
        })?;
        let block = Block::map(self.backing, BLOCK)?;
        let other = Block::map(self.backing, OTHER)?;
        let at = |page| block.range(page..page + 1);
        store(at(KEPT).start, tag::KEPT)?;
        let spare = Range { start: SPARE, len: PAGE };
        let rc = map(spare, RW, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, None, 0);
        if !rc.is_ok() {
            return Err(Stop::Broken(format!("mapping the source: {rc}")));
        }
        store(SPARE, tag::NEW)?;
        let mode = match self.deed {
            Deed::Continue => REGISTER_MODE_MINOR,
            Deed::CopyWp => REGISTER_MODE_MISSING | REGISTER_MODE_WP,
            _ => REGISTER_MODE_MISSING,
        };
        if self.deed == Deed::Continue {
            block.fill_cache(TARGET)?;
        }
        let uffd = stage.uffd(0)?;
        uffd.register(block.range(0..PAGES), mode)
            .map_err(|e| Stop::Unsupported(format!("REGISTER: {e:?}")))?;
        seen.step("clear");
        clear()?;
        if self.deed == Deed::Move {
            store(SPARE, tag::NEW)?;
        }
        let cleared = bit(at(KEPT).start)?;
        store(at(KEPT).start, tag::KEPT)?;
        if bit(at(KEPT).start)? == "clean" {
            let why = "no soft-dirty bit (CONFIG_MEM_SOFT_DIRTY)";
            return Err(Stop::Precondition(why.into()));
        }
        seen.fact("cleared", cleared);
        seen.fact("missing", bit(at(TARGET).start)?);
        if moves {
            seen.fact("source", bit(SPARE)?);
        }
        seen.step("deed");
        let target = at(TARGET);
        let there = other.at(OTHER, TARGET..TARGET + 1);
        let (rc, place) = match self.deed {
            Deed::Copy => (uffd.copy(target, stage.source, 0).0, target),
            Deed::CopyWp => (uffd.copy(target, stage.source, COPY_MODE_WP).0, target),
            Deed::Zeropage => (uffd.zeropage(target, 0).0, target),
            Deed::Move | Deed::MoveClean => (uffd.relocate(target, SPARE, 0).0, target),
            Deed::Continue => (uffd.resume(target, 0).0, target),
            Deed::Load => {
                touch::load(there.start)
                    .map_err(|signal| Stop::Broken(format!("a load: {signal}")))?;
                (Rc::OK, there)
            }
            Deed::Store => {
                store(there.start, tag::WROTE)?;
                (Rc::OK, there)
            }
        };
        seen.fact("deed", rc);
        seen.fact("brought", bit(place.start)?);
        if self.deed == Deed::CopyWp {
            let rc = uffd.writeprotect(target, 0);
            if !rc.is_ok() {
                return Err(Stop::Broken(format!("lifting the protection: {rc}")));
            }
            seen.fact("lifted", bit(place.start)?);
        }
        store(place.start, tag::WROTE)?;
        seen.fact("stored", bit(place.start)?);
        Ok(())
    }

    fn expect(&self, _: KernelVersion) -> Vec<Expected> {
        let proc = "Documentation/admin-guide/mm/soft-dirty.rst: clear_refs takes the bit from every page and \
                    makes it read-only, the next store sets it";
        let private = self.backing != Backing::Shmem && self.backing != Backing::SharedAnon;
        let (brought, says) = match self.deed {
            Deed::Zeropage if private => (
                "clean",
                "mfill_atomic_pte_zeropage() in mm/userfaultfd.c maps the zero page with an entry that is neither \
                 dirty nor soft-dirty",
            ),
            Deed::Load if private => (
                "clean",
                "do_anonymous_page() in mm/memory.c maps the zero page with an entry that is not soft-dirty",
            ),
            Deed::Load => ("clean", OBSERVED),
            Deed::Store => ("dirty", proc),
            Deed::Move | Deed::MoveClean => (
                "dirty",
                "move_present_ptes() in mm/userfaultfd.c marks the moved page as soft-dirty, as mremap(2) does",
            ),
            _ => (
                "dirty",
                "mfill_atomic_install_pte() in mm/userfaultfd.c: pte_mkdirty(), which sets the soft-dirty bit",
            ),
        };
        let mut facts =
            vec![Expected::new("cleared", "clean", proc), Expected::new("missing", "clean", proc)];
        match self.deed {
            Deed::Move => facts.push(Expected::new("source", "dirty", proc)),
            Deed::MoveClean => facts.push(Expected::new("source", "clean", proc)),
            _ => {}
        }
        facts.push(Expected::new("deed", "0", source::COPY));
        facts.push(Expected::new("brought", brought, says));
        if self.deed == Deed::CopyWp {
            facts.push(Expected::new("lifted", brought, says));
        }
        facts.push(Expected::new("stored", "dirty", proc));
        facts
    }

    fn recipe(&self) -> Vec<String> {
        let Self { backing, deed } = self;
        vec![
            format!("map a {backing} block of {PAGES} pages, store to page {KEPT}, register it"),
            "write 4 to /proc/self/clear_refs; bit 55 of page 4 in /proc/self/pagemap, and again after a \
             store"
                .to_owned(),
            format!("{deed}: page {TARGET}, of a second block if it is a load or a store; its bit"),
            "store to the page; its bit".to_owned(),
        ]
    }
}

/// The cases.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for backing in [Backing::Anon, Backing::Shmem, Backing::Private, Backing::SharedAnon] {
        for deed in Deed::ALL {
            let fits = match deed {
                Deed::Move | Deed::MoveClean => backing == Backing::Anon,
                Deed::Continue => backing == Backing::Shmem,
                _ => true,
            };
            let by_default = match backing {
                Backing::Anon => !matches!(deed, Deed::CopyWp | Deed::Store),
                Backing::Shmem => matches!(deed, Deed::Copy | Deed::Zeropage | Deed::Continue),
                _ => false,
            };
            if fits {
                let trial = Dirty { backing, deed: *deed };
                cases.push(Case::trial(&DIRTY, trial, by_default));
            }
        }
    }
    cases
}
