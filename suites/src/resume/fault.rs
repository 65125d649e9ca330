//! Which fault comes for which state of the page and which registration.

use super::{CROSVM, MINOR, MISSING, Modes, Page, VHOST};
use crate::expect::{Expected, OBSERVED};
use crate::lab::{Lab, want};
use crate::outcome::{Seen, Stop};
use crate::point::{Backing, PAGES, Waiter as Kind};
use crate::probe::{Case, Probe, Trial};
use crate::stage::Stage;
use uffd_results::KernelVersion;

static FAULT: Probe = Probe {
    suite: "continue",
    name: "fault",
    statement: "A page that the page cache has and nobody maps raises a minor fault where MINOR is \
                registered and none where only MISSING is; a page that it does not have raises a missing \
                fault where MISSING is registered and is filled with zeros where only MINOR is.",
    consumers: &[CROSVM, VHOST, "E2B orchestrator: memfd", "Cloud Hypervisor: uffd restore"],
};

/// The question.
#[derive(Clone, Copy, Debug)]
struct Fault {
    backing: Backing,
    page: Page,
    modes: Modes,
    who: Kind,
}

/// The cases.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let backings = [Backing::Shmem, Backing::Private, Backing::SharedAnon, Backing::HugetlbShared];
    let pages = [Page::Cached, Page::Dropped, Page::Written, Page::Missing, Page::Punched];
    for backing in backings {
        for page in pages.into_iter().filter(|page| page.fits(backing)) {
            for modes in [Modes::None, Modes::Missing, Modes::Minor, Modes::Both] {
                for who in Kind::without_kvm() {
                    let brief = matches!(who, Kind::UserRead | Kind::UserWrite | Kind::SysRead)
                        || who == Kind::MemRead && modes == Modes::Both;
                    let huge = page == Page::Cached && who == Kind::UserRead;
                    let by_default = if backing.is_huge() { huge } else { brief };
                    let trial = Fault { backing, page, modes, who };
                    cases.push(Case::trial(&FAULT, trial, by_default));
                }
            }
        }
    }
    cases
}

const PAGE: usize = 2;

impl Trial for Fault {
    fn axes(&self) -> String {
        let Self { backing, page, modes, who } = self;
        format!("backing={backing},page={page},mode={modes},who={who}")
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        let lab = Lab::new(stage, self.backing, 0)?;
        self.page.make(&lab, PAGE)?;
        if self.modes != Modes::None {
            lab.register(0..PAGES, self.modes.bits())?;
        }
        lab.meet(("access", "fault"), self.who, PAGE, seen)?;
        seen.fact("queue", lab.queue.read()?);
        lab.entries("after", seen)?;
        lab.contents("pages", seen)
    }

    fn expect(&self, _kernel: KernelVersion) -> Vec<Expected> {
        let Self { backing, page, modes, who } = *self;
        let writes = who.write_faults(backing);
        let kind = if writes { "write@2" } else { "read@2" };
        let caught = match page {
            Page::Written => None,
            page if page.is_minor() => modes.minor().then_some(("minor-", MINOR)),
            _ => modes.missing().then_some(("", MISSING)),
        };
        if let Some((why, says)) = caught {
            if matches!(who, Kind::MemRead | Kind::MemWrite) {
                return want(OBSERVED, &[("access", "EIO"), ("queue", "0/0"), ("after", "------")]);
            }
            let mut facts = want(says, &[("access", "parks"), ("fault", &format!("{why}{kind}"))]);
            facts.extend(want(says, &[("queue", "1/0"), ("after", "------"), ("pages", "------")]));
            return facts;
        }
        let there = if page == Page::Written || page.is_minor() { "kept" } else { "zero" };
        let letter = match (who.stores(), there) {
            (true, _) => "--w---",
            (false, "kept") => "--k---",
            (false, _) => "--0---",
        };
        let says = if page.is_minor() { MINOR } else { MISSING };
        want(
            says,
            &[
                ("access", &who.ran(there)),
                ("queue", "0/0"),
                ("after", "--p---"),
                ("pages", letter),
            ],
        )
    }

    fn recipe(&self) -> Vec<String> {
        let Self { backing, page, modes, who } = self;
        vec![
            format!("map a {backing} block whose page 2 is {page}; register it for {modes}"),
            format!("a thread accesses page 2: {who}; does it park, and in which fault?"),
        ]
    }

    fn uses_huge_pages(&self) -> bool {
        self.backing.is_huge()
    }
}
