//! CONTINUE by what is at the page, with nobody waiting.

use super::{CLONES, MINOR, Modes, Page, REFUSES};
use crate::abi::{COPY_MODE_DONTWAKE, COPY_MODE_WP};
use crate::expect::{Expected, OBSERVED};
use crate::lab::{Lab, length, outcome, want};
use crate::model::source;
use crate::outcome::{Seen, Stop};
use crate::point::{Backing, axis};
use crate::probe::{Case, Probe, Trial};
use crate::stage::Stage;
use uffd_results::KernelVersion;

static STATE: Probe = Probe {
    suite: "continue",
    name: "state",
    statement: "CONTINUE maps a page that the page cache has; it fails with EEXIST if one is mapped, with \
                EFAULT if the page cache has none; beyond the end of the file with EINVAL (EFAULT on \
                hugetlb, and on all from 7.1 on).",
    consumers: &[CLONES],
};

axis! {
    /// CONTINUE's mode.
    With {
        /// None.
        Nothing = "none",
        /// MODE_DONTWAKE.
        Dontwake = "dontwake",
        /// MODE_WP (6.4).
        Wp = "wp",
        /// Both.
        Both = "wp-dontwake",
    }
}

impl With {
    const fn bits(self) -> u64 {
        match self {
            Self::Nothing => 0,
            Self::Dontwake => COPY_MODE_DONTWAKE,
            Self::Wp => COPY_MODE_WP,
            Self::Both => COPY_MODE_WP | COPY_MODE_DONTWAKE,
        }
    }

    const fn protects(self) -> bool {
        matches!(self, Self::Wp | Self::Both)
    }
}

/// The question.
#[derive(Clone, Copy, Debug)]
struct State {
    backing: Backing,
    page: Page,
    modes: Modes,
    with: With,
}

/// The cases.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for backing in Backing::ALL.iter().copied() {
        for page in Page::ALL.iter().copied().filter(|page| page.fits(backing)) {
            for modes in Modes::ALL.iter().copied() {
                for with in With::ALL.iter().copied() {
                    let huge = backing == Backing::HugetlbShared
                        && modes == Modes::Minor
                        && with == With::Nothing;
                    let brief = with == With::Nothing && modes != Modes::MinorWp
                        || with == With::Wp && matches!(modes, Modes::Minor | Modes::MinorWp);
                    let by_default = !backing.is_huge() && brief || huge;
                    let trial = State { backing, page, modes, with };
                    cases.push(Case::trial(&STATE, trial, by_default));
                }
            }
        }
    }
    cases
}

/// Until then a page beyond the end of a shared file was refused as such: seen with 7.0.13, not
/// with 7.1.3.
const BEYOND_MISSING: KernelVersion = KernelVersion::new(7, 1, 0);

const PAGE: usize = 4;

impl Trial for State {
    fn axes(&self) -> String {
        let Self { backing, page, modes, with } = self;
        format!("backing={backing},page={page},mode={modes},with={with}")
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        let lab = Lab::new(stage, self.backing, 0)?;
        self.page.make(&lab, PAGE)?;
        if self.modes != Modes::None {
            let rc = lab.uffd.register(lab.all(), self.modes.bits());
            seen.fact("register", crate::abi::Rc(rc.err()));
            if let Err(errno) = rc {
                // Some backings have no minor faults on any kernel; on others a kernel lacks them.
                let never = self.backing.is_anon();
                let why = format!("REGISTER of a {} block: {errno:?}", self.backing);
                return if never { Ok(()) } else { Err(Stop::Unsupported(why)) };
            }
        }
        lab.entries("before", seen)?;
        seen.step("continue");
        let done = lab.uffd.resume(lab.page(PAGE), self.with.bits());
        outcome(("continue", "field"), done, seen);
        lab.entries("after", seen)?;
        lab.contents("pages", seen)
    }

    fn expect(&self, kernel: KernelVersion) -> Vec<Expected> {
        let Self { backing, page, modes, with } = *self;
        let never = backing.is_anon();
        if never && modes.minor() {
            return want(MINOR, &[("register", "EINVAL")]);
        }
        let before = if page.is_mapped() { "----p-" } else { "------" };
        let mut facts = Vec::new();
        if modes != Modes::None {
            facts.extend(want(MINOR, &[("register", "0")]));
        }
        facts.extend(want(source::CONTINUE, &[("before", before)]));
        let unknown = with.protects() && kernel < KernelVersion::new(6, 4, 0);
        let length = length(backing);
        let (rc, field, says) = if kernel < KernelVersion::new(5, 13, 0) {
            ("EINVAL", "untouched", "ioctl_userfaultfd(2): UFFDIO_CONTINUE came with 5.13")
        } else if unknown {
            ("EINVAL", "untouched", "ioctl_userfaultfd(2): MODE_WP of CONTINUE came with 6.4")
        } else if modes == Modes::None {
            ("ENOENT", "-2", source::CONTINUE_ENOENT)
        } else if with.protects() && modes != Modes::MinorWp {
            ("EINVAL", "-22", "mfill_atomic(): MODE_WP without a registration for it")
        } else if never {
            ("EINVAL", "-22", source::CONTINUE_ANON)
        } else if backing == Backing::HugetlbPrivate {
            // Nobody else maps its file, which has none of the private pages.
            ("EFAULT", "-14", OBSERVED)
        } else if page.is_minor() {
            ("0", length.as_str(), source::CONTINUE)
        } else if page.is_mapped() {
            ("EEXIST", "-17", REFUSES)
        } else if page == Page::Beyond && !backing.is_huge() && kernel < BEYOND_MISSING {
            ("EINVAL", "-22", REFUSES)
        } else {
            ("EFAULT", "-14", REFUSES)
        };
        facts.extend(want(says, &[("continue", rc), ("field", field)]));
        let after = match (rc, with.protects()) {
            ("0", true) => "----w-",
            ("0", false) => "----p-",
            _ => before,
        };
        let pages = if after == "------" { "------" } else { "----k-" };
        facts.extend(want(says, &[("after", after), ("pages", pages)]));
        facts
    }

    fn recipe(&self) -> Vec<String> {
        let Self { backing, page, modes, with } = self;
        vec![
            format!("map a {backing} block whose page 4 is {page}; register it for {modes}"),
            format!("UFFDIO_CONTINUE of page 4, mode {with}"),
            "look at the page table and the pages".into(),
        ]
    }

    fn uses_huge_pages(&self) -> bool {
        self.backing.is_huge()
    }
}
