//! PAGEMAP_SCAN (6.7) on write-protected memory.

use super::{Asks, TRACKERS};
use crate::abi::scan::{
    CHECK_WPASYNC, IS_FILE, IS_PRESENT, IS_WPALLOWED, IS_WRITTEN, REGIONS, Scan, WP_MATCHING,
};
use crate::abi::{REGISTER_MODE_MISSING, REGISTER_MODE_WP, WRITEPROTECT_MODE_WP, features};
use crate::edge::EMPTY_IS_WRITTEN;
use crate::expect::Expected;
use crate::lab::{Lab, SMALL, want};
use crate::memory::{BLOCK, tag, unmap};
use crate::outcome::{Seen, Stop};
use crate::point::{Backing, PAGES, axis};
use crate::probe::{Case, Probe, Trial};
use crate::stage::Stage;
use crate::touch;
use std::fs::File;
use uffd_results::KernelVersion;

static SCAN: Probe = Probe {
    suite: "writeprotect",
    name: "scan",
    statement: "PAGEMAP_SCAN tells which pages were written to since they were protected, and with \
                WP_MATCHING protects them again in the same call; CHECK_WPASYNC makes it fail with EPERM where \
                a mapping is not registered for that.",
    consumers: &[TRACKERS],
};

axis! {
    /// What is asked.
    Ask {
        /// Written pages, of which there is one.
        Written = "written",
        /// Written pages, of which there is none.
        Clean = "nothing-written",
        /// Written pages of a block that was protected while it was empty; one was then written to.
        Empty = "empty-then-written",
        /// Written pages of a registered block that was never protected.
        Unprotected = "never-protected",
        /// Written pages of an empty block that was registered and never protected.
        EmptyUnprotected = "empty-never-protected",
        /// Written pages, protecting them; then again; then after a further write.
        Rearm = "protect-matching",
        /// As before, into no region.
        RearmBlind = "protect-matching-no-vector",
        /// Pages that were not written to.
        Inverted = "not-written",
        /// One of two written pages: at most one page.
        OnePage = "one-page-of-two",
        /// One of two written regions: room for one.
        OneRegion = "one-region-of-two",
        /// Everything, to see the categories of each page.
        Categories = "categories",
        /// A block registered for synchronous write protection, not checked.
        Sync = "synchronous",
        /// A block registered for synchronous write protection, checked.
        SyncChecked = "synchronous-checked",
        /// A block that is not registered, not checked, protecting.
        Never = "never-registered",
        /// A block that is not registered, checked.
        NeverChecked = "never-registered-checked",
        /// A block registered for missing pages, checked.
        MissingChecked = "missing-only-checked",
        /// A block registered in front only, not checked, protecting.
        Part = "front-registered",
        /// A block registered in front only, checked, protecting.
        PartChecked = "front-registered-checked",
        /// A block with a hole, checked, protecting.
        HoleChecked = "hole-checked",
        /// An unknown flag.
        BadFlag = "bad-flag",
        /// An unknown category.
        BadCategory = "bad-category",
    }
}

/// What is documented.
const SCANS: &str = "Documentation/admin-guide/mm/pagemap.rst, PAGEMAP_SCAN (6.7)";

/// The question.
#[derive(Clone, Copy, Debug)]
struct Asked {
    backing: Backing,
    ask: Ask,
}

/// The cases.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for backing in Backing::ALL.iter().copied() {
        for ask in Ask::ALL.iter().copied() {
            let by_default = SMALL.contains(&backing);
            cases.push(Case::trial(&SCAN, Asked { backing, ask }, by_default));
        }
    }
    cases
}

impl Asked {
    fn register(self, lab: &Lab<'_>) -> Result<(), Stop> {
        match self.ask {
            Ask::Never | Ask::NeverChecked => Ok(()),
            Ask::MissingChecked => lab.register(0..PAGES, REGISTER_MODE_MISSING),
            Ask::Part | Ask::PartChecked => lab.register(0..3, REGISTER_MODE_WP),
            _ => lab.register(0..PAGES, REGISTER_MODE_WP),
        }
    }

    /// The pages that are written to behind the protection.
    const fn writes(self) -> &'static [usize] {
        match self.ask {
            Ask::Clean | Ask::Sync | Ask::SyncChecked | Ask::EmptyUnprotected => &[],
            Ask::OnePage | Ask::OneRegion => &[1, 3],
            _ => &[3],
        }
    }

    fn scan(self) -> Scan {
        let written = Scan {
            flags: CHECK_WPASYNC,
            mask: IS_WRITTEN,
            reported: IS_WRITTEN,
            regions: REGIONS,
            ..Scan::default()
        };
        match self.ask {
            Ask::Rearm | Ask::PartChecked | Ask::HoleChecked => {
                Scan { flags: WP_MATCHING | CHECK_WPASYNC, ..written }
            }
            Ask::RearmBlind => Scan { flags: WP_MATCHING | CHECK_WPASYNC, regions: 0, ..written },
            Ask::Inverted => Scan { inverted: IS_WRITTEN, ..written },
            Ask::OnePage => Scan { pages: 1, ..written },
            Ask::OneRegion => Scan { regions: 1, ..written },
            Ask::Categories => {
                let reported = IS_WPALLOWED | IS_WRITTEN | IS_FILE | IS_PRESENT;
                Scan { flags: 0, mask: 0, reported, ..written }
            }
            Ask::Sync => Scan { flags: 0, ..written },
            Ask::Never | Ask::Part => Scan { flags: WP_MATCHING, ..written },
            Ask::BadFlag => Scan { flags: 1 << 40, ..written },
            Ask::BadCategory => Scan { mask: 1 << 40, ..written },
            _ => written,
        }
    }
}

/// The letters of the categories, in their order.
fn categories(bits: u64) -> String {
    let letters = [(IS_WPALLOWED, 'a'), (IS_WRITTEN, 'w'), (IS_FILE, 'f'), (IS_PRESENT, 'p')];
    letters.iter().filter(|(bit, _)| bits & bit != 0).map(|(_, letter)| *letter).collect()
}

fn ask(lab: &Lab<'_>, pagemap: &File, scan: Scan, names: [&'static str; 3], seen: &mut Seen<'_>) {
    let page = lab.block.page;
    let scanned = scan.ask(pagemap, lab.all());
    seen.fact(names[0], scanned.rc);
    let regions: Vec<String> = scanned
        .regions
        .iter()
        .map(|(range, bits)| {
            let first = range.start.wrapping_sub(BLOCK) / page;
            format!("{first}..{}:{}", first + range.len / page, categories(*bits))
        })
        .collect();
    seen.fact(names[1], if regions.is_empty() { "none".to_owned() } else { regions.join(",") });
    let end = usize::try_from(scanned.walk_end).unwrap_or(0);
    let end = if end < BLOCK { "unset".to_owned() } else { ((end - BLOCK) / page).to_string() };
    seen.fact(names[2], end);
}

fn store(lab: &Lab<'_>, page: usize) -> Result<(), Stop> {
    touch::store(lab.page(page).start, tag::WROTE)
        .map_err(|signal| Stop::Broken(format!("writing to page {page}: {signal}")))
}

impl Trial for Asked {
    fn axes(&self) -> String {
        format!("backing={},ask={}", self.backing, self.ask)
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        stage.must_offer(features::WP_ASYNC)?;
        let sync = matches!(self.ask, Ask::Sync | Ask::SyncChecked);
        let lab = Lab::new(stage, self.backing, if sync { 0 } else { Asks::Async.bits() })?;
        if !matches!(self.ask, Ask::Empty | Ask::EmptyUnprotected) {
            lab.fill(0..PAGES)?;
        }
        self.register(&lab)?;
        if !matches!(self.ask, Ask::Unprotected | Ask::EmptyUnprotected) {
            // What is not registered for it refuses.
            let _ = lab.uffd.writeprotect(lab.range(0..3), WRITEPROTECT_MODE_WP);
            let _ = lab.uffd.writeprotect(lab.range(3..PAGES), WRITEPROTECT_MODE_WP);
        }
        for page in self.writes() {
            store(&lab, *page)?;
        }
        if self.ask == Ask::HoleChecked && !unmap(lab.page(4)).is_ok() {
            return Err(Stop::Broken("unmapping a page".into()));
        }
        let pagemap = File::open("/proc/self/pagemap")
            .map_err(|e| Stop::Broken(format!("opening /proc/self/pagemap: {e}")))?;
        lab.entries("before", seen)?;
        seen.step("scan");
        ask(&lab, &pagemap, self.scan(), ["scan", "regions", "walk-end"], seen);
        lab.entries("after", seen)?;
        if matches!(self.ask, Ask::Rearm | Ask::RearmBlind) {
            let scan = Scan { regions: REGIONS, ..self.scan() };
            ask(&lab, &pagemap, scan, ["scan-2", "regions-2", "walk-end-2"], seen);
            store(&lab, 5)?;
            ask(&lab, &pagemap, scan, ["scan-3", "regions-3", "walk-end-3"], seen);
        }
        Ok(())
    }

    fn expect(&self, kernel: KernelVersion) -> Vec<Expected> {
        let Self { backing, ask } = *self;
        let file = if backing.is_private() { "" } else { "f" };
        let all = format!("0..3:a{file}p,3..4:aw{file}p,4..6:a{file}p");
        let empty = EMPTY_IS_WRITTEN.value(kernel, "none", "0..6:w");
        let (before, rc, regions, end) = match ask {
            Ask::Written | Ask::Rearm => ("wwwpww", "0", "3..4:w", "6"),
            Ask::Clean | Ask::Sync => ("wwwwww", "0", "none", "6"),
            Ask::Empty => ("nnnpnn", "0", "3..4:w", "6"),
            Ask::Unprotected => ("pppppp", "0", "0..6:w", "6"),
            Ask::EmptyUnprotected if !backing.is_huge() => ("------", "0", empty.as_str(), "6"),
            Ask::EmptyUnprotected => ("------", "0", "none", "6"),
            Ask::RearmBlind => ("wwwpww", "0", "none", "6"),
            Ask::Inverted => ("wwwpww", "0", "0..3:,4..6:", "6"),
            // The limit counts base pages: it ends within the first huge page.
            Ask::OnePage if backing.is_huge() => ("wpwpww", "0", "1..1:w", "1"),
            Ask::OnePage | Ask::OneRegion => ("wpwpww", "0", "1..2:w", "3"),
            Ask::Categories => ("wwwpww", "0", all.as_str(), "6"),
            Ask::SyncChecked => ("wwwwww", "EPERM", "none", "6"),
            Ask::Never => ("pppppp", "0", "none", "6"),
            Ask::NeverChecked | Ask::MissingChecked => ("pppppp", "EPERM", "none", "6"),
            Ask::Part => ("wwwppp", "0", "none", "6"),
            Ask::PartChecked => ("wwwppp", "EPERM", "none", "6"),
            Ask::HoleChecked => ("wwwp-w", "0", "3..4:w", "6"),
            Ask::BadFlag | Ask::BadCategory => ("wwwpww", "EINVAL", "none", "unset"),
        };
        let after = match ask {
            Ask::Rearm | Ask::RearmBlind => "wwwwww",
            Ask::HoleChecked => "wwww-w",
            _ => before,
        };
        let says = if ask == Ask::EmptyUnprotected { EMPTY_IS_WRITTEN.source } else { SCANS };
        let mut facts = want(SCANS, &[("before", before), ("scan", rc)]);
        facts.extend(want(says, &[("regions", regions)]));
        facts.extend(want(SCANS, &[("walk-end", end), ("after", after)]));
        if matches!(ask, Ask::Rearm | Ask::RearmBlind) {
            facts.extend(want(SCANS, &[("scan-2", "0"), ("regions-2", "none")]));
            facts.extend(want(SCANS, &[("scan-3", "0"), ("regions-3", "5..6:w")]));
        }
        facts
    }

    fn recipe(&self) -> Vec<String> {
        let Self { backing, ask } = self;
        let written: Vec<String> = self.writes().iter().map(ToString::to_string).collect();
        vec![
            format!("write to a {backing} block, register it with WP_ASYNC and protect it: {ask}"),
            format!("write to pages {}", written.join(" and ")),
            format!("PAGEMAP_SCAN of the block: {ask}"),
            "look at the regions that it returns and at the page table".into(),
        ]
    }

    fn uses_huge_pages(&self) -> bool {
        self.backing.is_huge()
    }
}
