//! RWPROTECT of ranges that are not one registered mapping.

use super::{HEADER, TRACKERS, bits};
use crate::abi::newer::{REGISTER_MODE_RWP, RWPROTECT_MODE_RWP};
use crate::abi::{REGISTER_MODE_MISSING, Range, Rc};
use crate::expect::Expected;
use crate::lab::{Lab, SMALL, want};
use crate::memory::{PAGE, RW, map, protect, unmap};
use crate::outcome::{Seen, Stop};
use crate::point::{Backing, PAGES, axis};
use crate::probe::{Case, Probe, Trial};
use crate::protection::Delivery;
use crate::stage::Stage;
use uffd_results::KernelVersion;

static RANGES: Probe = Probe {
    suite: "rwp",
    name: "range",
    statement: "RWPROTECT of a range looks at all of it first: where a mapping in it is not registered for RWP it \
                fails with ENOENT, for a part of a huge page with EINVAL, and has changed nothing. Holes are passed \
                over; a range without any mapping is ENOENT.",
    consumers: &[TRACKERS],
};

axis! {
    /// What the range consists of.
    Layout {
        /// One registered mapping: the control.
        One = "one-mapping",
        /// Two registered mappings, split by mprotect(2).
        Split = "split",
        /// Registered in front, not behind.
        Front = "front-registered",
        /// Registered behind, not in front.
        Behind = "behind-registered",
        /// Registered for RWP in front, for missing pages behind.
        Mixed = "missing-behind",
        /// Not registered at all.
        Never = "never-registered",
        /// Registered, with a hole in the middle.
        Hole = "hole",
        /// Registered, with a hole in front.
        HoleFirst = "hole-first",
        /// Registered, with a hole behind.
        HoleLast = "hole-last",
        /// Unmapped.
        Gone = "gone",
        /// Registered, with new anonymous memory over the middle.
        Over = "replaced-middle",
        /// Registered, and all but the end of a huge page.
        Part = "part-of-huge-page",
        /// Registered with another userfaultfd.
        Foreign = "other-uffd",
    }
}

axis! {
    /// What RWPROTECT is asked for.
    Wish {
        /// To protect.
        Protect = "protect",
        /// To remove the protection.
        Lift = "lift",
    }
}

#[derive(Clone, Copy, Debug)]
struct Ranges {
    backing: Backing,
    layout: Layout,
    wish: Wish,
}

/// The cases.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for backing in Backing::ALL.iter().copied() {
        for layout in Layout::ALL.iter().copied() {
            if layout == Layout::Part && !backing.is_huge() {
                continue;
            }
            for wish in Wish::ALL.iter().copied() {
                let by_default = SMALL.contains(&backing) || layout == Layout::Part;
                cases.push(Case::trial(&RANGES, Ranges { backing, layout, wish }, by_default));
            }
        }
    }
    cases
}

impl Ranges {
    fn register(self, lab: &Lab<'_>) -> Result<(), Stop> {
        match self.layout {
            Layout::Front => lab.register(0..3, REGISTER_MODE_RWP),
            Layout::Behind => lab.register(3..PAGES, REGISTER_MODE_RWP),
            Layout::Mixed => {
                lab.register(0..3, REGISTER_MODE_RWP)?;
                lab.register(3..PAGES, REGISTER_MODE_MISSING)
            }
            Layout::Never => Ok(()),
            _ => lab.register(0..PAGES, REGISTER_MODE_RWP),
        }
    }

    /// What the layout needs after registration and, for a lift, after protection.
    fn change(self, lab: &Lab<'_>) -> Rc {
        let anon = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        match self.layout {
            Layout::Split => protect(lab.range(3..PAGES), libc::PROT_READ),
            Layout::Hole => unmap(lab.range(2..4)),
            Layout::HoleFirst => unmap(lab.range(0..2)),
            Layout::HoleLast => unmap(lab.range(4..PAGES)),
            Layout::Gone => unmap(lab.all()),
            Layout::Over => map(lab.range(2..4), RW, anon, None, 0),
            _ => Rc::OK,
        }
    }

    fn range(self, lab: &Lab<'_>) -> Range {
        let all = lab.all();
        if self.layout == Layout::Part { Range { len: all.len - PAGE, ..all } } else { all }
    }

    /// What it returns, which says that all is done or nothing.
    const fn answer(self) -> (&'static str, &'static str) {
        const LOOKS: &str = "mrwprotect_range() in mm/userfaultfd.c (7.3) looks at every mapping of the range before \
                             it changes one";
        const PASSES: &str = "for_each_vma_range() of mrwprotect_range() in mm/userfaultfd.c (7.3) meets no holes; \
                              ENOENT if it has met nothing";
        match self.layout {
            Layout::One => ("0", HEADER),
            Layout::Split | Layout::Foreign => ("0", LOOKS),
            Layout::Hole | Layout::HoleFirst | Layout::HoleLast => ("0", PASSES),
            Layout::Gone => ("ENOENT", PASSES),
            Layout::Part => ("EINVAL", LOOKS),
            Layout::Front | Layout::Behind | Layout::Mixed | Layout::Never | Layout::Over => {
                ("ENOENT", LOOKS)
            }
        }
    }
}

impl Trial for Ranges {
    fn axes(&self) -> String {
        let Self { backing, layout, wish } = self;
        format!("backing={backing},range={layout},wish={wish}")
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        let lab = Lab::new(stage, self.backing, bits(Delivery::Message))?;
        lab.fill(0..PAGES)?;
        self.register(&lab)?;
        if self.wish == Wish::Lift {
            for page in 0..PAGES {
                // Pages that are not registered for it refuse, as the layout wants it.
                let _ = lab.uffd.rwprotect(lab.page(page), RWPROTECT_MODE_RWP);
            }
        }
        let rc = self.change(&lab);
        if !rc.is_ok() {
            return Err(Stop::Broken(format!("making the layout {}: {rc}", self.layout)));
        }
        let other = stage.uffd(bits(Delivery::Message))?;
        let uffd = if self.layout == Layout::Foreign { &other } else { &lab.uffd };
        lab.entries("before", seen)?;
        seen.step("rwprotect");
        let mode = if self.wish == Wish::Lift { 0 } else { RWPROTECT_MODE_RWP };
        seen.fact("rwprotect", uffd.rwprotect(self.range(&lab), mode));
        lab.entries("after", seen)
    }

    fn expect(&self, _kernel: KernelVersion) -> Vec<Expected> {
        let Self { layout, wish, .. } = *self;
        // Present, by whether the page is registered for RWP; not there.
        let pages = match layout {
            Layout::Front | Layout::Mixed => "rrrppp",
            Layout::Behind => "ppprrr",
            Layout::Never => "pppppp",
            Layout::Hole | Layout::Over => "rr--rr",
            Layout::HoleFirst => "--rrrr",
            Layout::HoleLast => "rrrr--",
            Layout::Gone => "------",
            _ => "rrrrrr",
        };
        let (was, turned) = if wish == Wish::Lift { ("w", "p") } else { ("p", "w") };
        let (rc, says) = self.answer();
        let before = pages.replace('r', was);
        let after = if rc == "0" { pages.replace('r', turned) } else { before.clone() };
        let mut facts = want(HEADER, &[("before", &before)]);
        facts.extend(want(says, &[("rwprotect", rc), ("after", &after)]));
        facts
    }

    fn recipe(&self) -> Vec<String> {
        let Self { backing, layout, wish } = self;
        let first = if *wish == Wish::Lift { " and protect what is registered" } else { "" };
        vec![
            format!("write to all pages of a {backing} block, register for RWP{first}: {layout}"),
            format!("UFFDIO_RWPROTECT of it all, to {wish}"),
            "look at the page table".into(),
        ]
    }

    fn uses_huge_pages(&self) -> bool {
        self.backing.is_huge()
    }
}
