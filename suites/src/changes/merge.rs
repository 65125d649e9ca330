//! When the mappings that a registration has cut become one again, and whether mremap then takes them.

use crate::abi::REGISTER_MODE_MISSING;
use crate::evidence;
use crate::expect::Expected;
use crate::lab::Lab;
use crate::memory::{ELSEWHERE, remap};
use crate::outcome::{Seen, Stop};
use crate::point::{Backing, PAGES, axis};
use crate::probe::{Case, Probe, Trial};
use crate::stage::Stage;
use uffd_results::KernelVersion;

static MERGE: Probe = Probe {
    suite: "changes",
    name: "merge",
    statement: "REGISTER of a part cuts its mapping; once both sides are alike again they become one, \
                unless both sides of private memory (before 6.16 also one alone) had their first pages \
                while they were cut: up to 6.16 mremap of both then fails.",
    consumers: &["Android ART: maps the zero page before it registers a part, mark_compact.cc"],
};

axis! {
    /// What makes both sides alike again.
    Again {
        /// UNREGISTER of the part.
        Unregister = "unregister",
        /// REGISTER of the rest.
        Register = "register-rest",
        /// REGISTER of the rest with another context: they stay different.
        Other = "register-rest-with-other",
        /// Nothing.
        Nothing = "nothing",
    }
}

axis! {
    /// When pages were first written to.
    Touched {
        /// Never.
        Never = "never",
        /// Before the registration.
        Before = "before",
        /// Both sides, while they are cut.
        Both = "both-while-cut",
        /// The registered side, while they are cut.
        Registered = "registered-while-cut",
        /// The other side, while they are cut.
        Rest = "rest-while-cut",
    }
}

#[derive(Clone, Copy, Debug)]
struct Merge {
    backing: Backing,
    again: Again,
    touched: Touched,
}

/// The part that is registered first, and the rest.
const PART: std::ops::Range<usize> = 0..3;
const REST: std::ops::Range<usize> = 3..PAGES;

impl Trial for Merge {
    fn axes(&self) -> String {
        let Self { backing, again, touched } = self;
        format!("backing={backing},touched={touched},then={again}")
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        let Self { backing, again, touched } = *self;
        seen.step("set-up");
        let lab = Lab::new(stage, backing, 0)?;
        let count = || evidence::mappings_in(lab.all());
        if touched == Touched::Before {
            lab.fill(1..2)?;
        }
        seen.fact("mappings", count()?);
        seen.step("register");
        lab.register(PART, REGISTER_MODE_MISSING)?;
        seen.fact("registered", count()?);
        if matches!(touched, Touched::Both | Touched::Registered) {
            seen.fact("copy", lab.uffd.copy(lab.page(1), stage.source, 0).0);
        }
        if matches!(touched, Touched::Both | Touched::Rest) {
            lab.fill(4..5)?;
        }
        let other = stage.uffd(0)?;
        seen.step("again");
        let register = |uffd: &crate::abi::Uffd| {
            uffd.register(lab.range(REST), REGISTER_MODE_MISSING)
                .map_or_else(|e| format!("{e:?}"), |_| "0".to_owned())
        };
        match again {
            Again::Unregister => seen.fact("again", lab.uffd.unregister(lab.range(PART))),
            Again::Register => seen.fact("again", register(&lab.uffd)),
            Again::Other => seen.fact("again", register(&other)),
            Again::Nothing => {}
        }
        seen.fact("mappings-then", count()?);
        lab.registered("reg", seen)?;
        seen.step("move");
        let moving = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
        seen.fact("move", remap(lab.all(), lab.all().len, moving, ELSEWHERE));
        Ok(())
    }

    fn expect(&self, kernel: KernelVersion) -> Vec<Expected> {
        let Self { backing, again, touched } = *self;
        let reads = "userfaultfd_register() and userfaultfd_unregister(): vma_modify_flags_uffd() splits \
                     and merges as mprotect(2) does; another context is another flag";
        let anon = "is_mergeable_anon_vma() in mm/vma.c: two sides that have each got an anon_vma of \
                    their own do not merge; find_mergeable_anon_vma() shares one only between \
                    mappings of equal flags; before 6.16 (mm/vma: fix incorrectly disallowed anonymous VMA \
                    merges) the side that changes must not have the only one";
        let one_only = "mremap(2), EFAULT: more than one mapping; remap_move() in mm/mremap.c: several may \
                     move since 6.17, but none that userfaultfd holds";
        let alike = matches!(again, Again::Unregister | Again::Register);
        let apart = touched == Touched::Both && backing.is_private();
        // The side whose flags change has the only anon_vma.
        let changed = matches!(
            (again, touched),
            (Again::Unregister, Touched::Registered) | (Again::Register, Touched::Rest)
        );
        let refused = changed && backing.is_private() && kernel < KernelVersion::new(6, 16, 0);
        let merged = alike && !apart && !refused;
        let reg = match again {
            Again::Unregister => "......",
            Again::Register | Again::Other => "mmmmmm",
            Again::Nothing => "mmm...",
        };
        let mut facts =
            vec![Expected::new("mappings", "1", reads), Expected::new("registered", "2", reads)];
        if again != Again::Nothing {
            facts.push(Expected::new("again", "0", reads));
        }
        facts.push(Expected::new("mappings-then", if merged { "1" } else { "2" }, anon));
        facts.push(Expected::new("reg", reg, reads));
        let several = again == Again::Unregister && kernel >= KernelVersion::new(6, 17, 0);
        let moved = merged || several;
        facts.push(Expected::new("move", if moved { "0" } else { "EFAULT" }, one_only));
        facts
    }

    fn recipe(&self) -> Vec<String> {
        let Self { backing, again, touched } = self;
        vec![
            format!(
                "map a block of 6 pages ({backing}); where pages are touched: {touched} (page 1 of \
                     the registered side by a store before or UFFDIO_COPY, page 4 of the rest by a store)"
            ),
            "UFFDIO_REGISTER of pages 0..3; count the mappings in /proc/self/maps".to_owned(),
            format!("{again}; count the mappings again"),
            "mremap of all 6 pages to an empty place".to_owned(),
        ]
    }
}

/// The cases.
pub(super) fn cases(cases: &mut Vec<Case>) {
    for backing in [Backing::Anon, Backing::Private, Backing::Shmem, Backing::SharedAnon] {
        for again in Again::ALL {
            for touched in Touched::ALL {
                let trial = Merge { backing, again: *again, touched: *touched };
                cases.push(Case::trial(&MERGE, trial, true));
            }
        }
    }
}
