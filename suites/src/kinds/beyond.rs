//! Places that a mapping has and its file does not: behind the end of the file.

use crate::abi::{REGISTER_MODE_MISSING, features};
use crate::expect::Expected;
use crate::lab::{Lab, outcome, want};
use crate::memory::ONE_PAGE;
use crate::model::source;
use crate::outcome::{Seen, Stop};
use crate::point::{Backing, PAGES, axis};
use crate::probe::{Case, Probe, Trial};
use crate::stage::Stage;
use uffd_results::KernelVersion;

static BEYOND: Probe = Probe {
    suite: "kinds",
    name: "beyond-end",
    statement: "Nothing is placed behind the end of the file, whether the mapping is shared or private: EFAULT, \
                from 7.1 on ENOMEM for COPY and ZEROPAGE of shared memory; when the file is longer again, it \
                works.",
    consumers: &["Wine, Android ART and others that register memfds and resize them"],
};

axis! {
    /// What is to be placed.
    Deed {
        /// UFFDIO_COPY.
        Copy = "copy",
        /// UFFDIO_ZEROPAGE.
        Zeropage = "zeropage",
        /// UFFDIO_POISON.
        Poison = "poison",
    }
}

#[derive(Debug)]
struct Beyond {
    backing: Backing,
    deed: Deed,
}

impl Trial for Beyond {
    fn axes(&self) -> String {
        format!("backing={},deed={}", self.backing, self.deed)
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        const PAGE: usize = 2;
        seen.step("set-up");
        stage.must_offer(if self.deed == Deed::Poison { features::POISON } else { 0 })?;
        let lab = Lab::new(stage, self.backing, 0)?;
        lab.register(0..PAGES, REGISTER_MODE_MISSING)?;
        let cut = |pages| match lab.block.cut(pages)? {
            crate::abi::Rc(None) => Ok(()),
            rc => Err(Stop::Broken(format!("ftruncate: {rc}"))),
        };
        let call = || match self.deed {
            Deed::Copy => lab.uffd.copy(lab.page(PAGE), stage.source, 0),
            Deed::Zeropage => lab.uffd.zeropage(lab.page(PAGE), 0),
            Deed::Poison => lab.uffd.poison(lab.page(PAGE), 0),
        };
        cut(PAGE)?;
        seen.step("call");
        outcome(("op", "field"), call(), seen);
        lab.entries("entries", seen)?;
        cut(PAGES)?;
        seen.step("later");
        outcome(("later", "later-field"), call(), seen);
        lab.entries("later-entries", seen)
    }

    fn expect(&self, kernel: KernelVersion) -> Vec<Expected> {
        let makes_shared = self.backing == Backing::Shmem && self.deed != Deed::Poison;
        let (errno, field, says) = if makes_shared && kernel >= KernelVersion::new(7, 1, 0) {
            let says = "shmem_mfill_folio_alloc() in mm/shmem.c (7.1) looks at the file's size first and has no \
                        errno: the caller takes it for a lack of memory";
            ("ENOMEM", "-12", says)
        } else {
            let says = "mfill_file_over_size() in mm/userfaultfd.c, and what was there before it: EFAULT for an \
                        offset that the file does not have";
            ("EFAULT", "-14", says)
        };
        let (source, letter) = match self.deed {
            Deed::Copy => (source::COPY, 'p'),
            Deed::Zeropage => (source::ZEROPAGE, 'p'),
            Deed::Poison => (source::POISON, 's'),
        };
        let mut facts = want(says, &[("op", errno), ("field", field), ("entries", "------")]);
        facts.extend(want(source, &[("later", "0"), ("later-field", ONE_PAGE)]));
        facts.push(Expected::new("later-entries", format!("--{letter}---"), source));
        facts
    }

    fn recipe(&self) -> Vec<String> {
        vec![
            format!(
                "map a block of {PAGES} pages ({}), register it for missing pages",
                self.backing
            ),
            "ftruncate the file to two pages".to_owned(),
            format!("{} of page 2; look at every page's entry", self.deed),
            format!("ftruncate to {PAGES} pages; the same again"),
        ]
    }
}

/// The cases.
pub(super) fn cases() -> Vec<Case> {
    let backings = [Backing::Shmem, Backing::Private].iter();
    backings
        .flat_map(|backing| Deed::ALL.iter().map(move |deed| (*backing, *deed)))
        .map(|(backing, deed)| Case::trial(&BEYOND, Beyond { backing, deed }, true))
        .collect()
}
