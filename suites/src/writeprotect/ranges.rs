//! WRITEPROTECT of ranges that are not one registered mapping.

use super::{E2B, PROTECTS, SHOWN, row};
use crate::abi::{REGISTER_MODE_MISSING, REGISTER_MODE_WP, Rc, WRITEPROTECT_MODE_WP};
use crate::edge::WRITEPROTECT_SEVERAL;
use crate::expect::{Expected, OBSERVED};
use crate::lab::{Lab, SMALL, want};
use crate::memory::{RW, map, protect, unmap};
use crate::outcome::{Seen, Stop};
use crate::point::{Backing, PAGES, axis};
use crate::probe::{Case, Probe, Trial};
use crate::stage::Stage;
use uffd_results::KernelVersion;

static RANGES: Probe = Probe {
    suite: "writeprotect",
    name: "range",
    statement: "WRITEPROTECT of a range of several registered mappings works from 6.4 on; where it meets \
                a mapping that is not registered for write protection it fails with ENOENT, with the \
                mappings before it done (before 6.4 none).",
    consumers: &[E2B, super::BACKGROUND],
};

axis! {
    /// What the range consists of.
    Layout {
        /// One registered mapping: the control.
        One = "one-mapping",
        /// One page of it.
        Page = "one-page",
        /// Two registered mappings, split by mprotect(2).
        Split = "split",
        /// Registered in front, not behind.
        Front = "front-registered",
        /// Registered behind, not in front.
        Behind = "behind-registered",
        /// Registered for missing pages only.
        Missing = "missing-only",
        /// Registered for write protection in front, for missing pages behind.
        Mixed = "missing-behind",
        /// Not registered at all.
        Never = "never-registered",
        /// Registered, with a hole in the middle.
        Hole = "hole",
        /// Registered, with a hole in front.
        HoleFirst = "hole-first",
        /// Unmapped.
        Gone = "gone",
        /// Registered, with new anonymous memory over the middle.
        Over = "replaced-middle",
        /// Registered with another userfaultfd.
        Foreign = "other-uffd",
    }
}

axis! {
    /// What WRITEPROTECT is asked for.
    Wish {
        /// To protect.
        Protect = "protect",
        /// To remove the protection.
        Lift = "lift",
    }
}

/// The question.
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
            for wish in Wish::ALL.iter().copied() {
                let trial = Ranges { backing, layout, wish };
                cases.push(Case::trial(&RANGES, trial, SMALL.contains(&backing)));
            }
        }
    }
    cases
}

impl Ranges {
    fn register(self, lab: &Lab<'_>) -> Result<(), Stop> {
        match self.layout {
            Layout::Front => lab.register(0..3, REGISTER_MODE_WP),
            Layout::Behind => lab.register(3..PAGES, REGISTER_MODE_WP),
            Layout::Missing => lab.register(0..PAGES, REGISTER_MODE_MISSING),
            Layout::Mixed => {
                lab.register(0..3, REGISTER_MODE_WP)?;
                lab.register(3..PAGES, REGISTER_MODE_MISSING)
            }
            Layout::Never => Ok(()),
            _ => lab.register(0..PAGES, REGISTER_MODE_WP),
        }
    }

    /// What the layout needs after registration and, for a lift, after protection.
    fn change(self, lab: &Lab<'_>) -> Rc {
        let anon = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        match self.layout {
            Layout::Split => protect(lab.range(3..PAGES), libc::PROT_READ),
            Layout::Hole => unmap(lab.range(2..4)),
            Layout::HoleFirst => unmap(lab.range(0..2)),
            Layout::Gone => unmap(lab.all()),
            Layout::Over => map(lab.range(2..4), RW, anon, None, 0),
            _ => Rc::OK,
        }
    }

    /// The pages that WRITEPROTECT reaches, and what it returns.
    fn reached(self, kernel: KernelVersion) -> (&'static str, &'static str) {
        let several = WRITEPROTECT_SEVERAL.is_known_in(kernel);
        match self.layout {
            Layout::One | Layout::Foreign => ("0", "xxxxxx"),
            Layout::Page => ("0", "__x___"),
            Layout::Split if several => ("0", "xxxxxx"),
            Layout::Hole if several => ("0", "xx__xx"),
            Layout::HoleFirst if several => ("0", "__xxxx"),
            Layout::Front | Layout::Mixed if several => ("ENOENT", "xxx___"),
            Layout::Over if several => ("ENOENT", "xx____"),
            _ => ("ENOENT", "______"),
        }
    }
}

impl Trial for Ranges {
    fn axes(&self) -> String {
        let Self { backing, layout, wish } = self;
        format!("backing={backing},range={layout},wish={wish}")
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        let lab = Lab::new(stage, self.backing, 0)?;
        lab.fill(0..PAGES)?;
        self.register(&lab)?;
        if self.wish == Wish::Lift {
            for page in 0..PAGES {
                // Pages that are not registered for it refuse, as the layout wants it.
                let _ = lab.uffd.writeprotect(lab.page(page), WRITEPROTECT_MODE_WP);
            }
        }
        let rc = self.change(&lab);
        if !rc.is_ok() {
            return Err(Stop::Broken(format!("making the layout {}: {rc}", self.layout)));
        }
        let other = stage.uffd(0)?;
        let uffd = if self.layout == Layout::Foreign { &other } else { &lab.uffd };
        let range = if self.layout == Layout::Page { lab.page(2) } else { lab.all() };
        lab.registered("reg", seen)?;
        lab.entries("before", seen)?;
        seen.step("writeprotect");
        let mode = if self.wish == Wish::Lift { 0 } else { WRITEPROTECT_MODE_WP };
        seen.fact("writeprotect", uffd.writeprotect(range, mode));
        lab.entries("after", seen)
    }

    fn expect(&self, kernel: KernelVersion) -> Vec<Expected> {
        let Self { layout, wish, .. } = *self;
        let (rc, reached) = self.reached(kernel);
        let reg = match layout {
            Layout::Front => "www...",
            Layout::Behind => "...www",
            Layout::Missing => "mmmmmm",
            Layout::Mixed => "wwwmmm",
            Layout::Never => "......",
            Layout::Hole => "ww--ww",
            Layout::HoleFirst => "--wwww",
            Layout::Gone => "------",
            Layout::Over => "ww..ww",
            _ => "wwwwww",
        };
        let before: String = reg
            .chars()
            .map(|letter| match letter {
                '-' => '-',
                '.' if layout == Layout::Over => '-',
                'w' if wish == Wish::Lift => 'w',
                _ => 'p',
            })
            .collect();
        let turned = if wish == Wish::Lift { 'p' } else { 'w' };
        let after: String = before
            .chars()
            .zip(reached.chars())
            .map(|(was, done)| if done == 'x' { turned } else { was })
            .collect();
        let mut facts = want(PROTECTS, &[("reg", reg)]);
        facts.extend(want(SHOWN, &[("before", &row(&before, kernel))]));
        let says = match layout {
            Layout::One | Layout::Page => PROTECTS,
            Layout::Foreign => OBSERVED,
            _ => WRITEPROTECT_SEVERAL.source,
        };
        facts.extend(want(says, &[("writeprotect", rc), ("after", &row(&after, kernel))]));
        facts
    }

    fn recipe(&self) -> Vec<String> {
        let Self { backing, layout, wish } = self;
        vec![
            format!("write to all pages of a {backing} block and register: {layout}"),
            format!("UFFDIO_WRITEPROTECT of it all, to {wish}"),
            "look at the page table".into(),
        ]
    }

    fn uses_huge_pages(&self) -> bool {
        self.backing.is_huge()
    }
}
