//! Who meets write protection.

use super::{ASYNC, Asks, FAULTS, LIFTS, SHOWN, TRACKERS, row};
use crate::abi::features;
use crate::expect::Expected;
use crate::lab::{Lab, SMALL, want};
use crate::outcome::{Seen, Stop};
use crate::point::{Backing, PAGES, Waiter as Kind};
use crate::probe::{Case, Probe, Trial};
use crate::protection::{Delivery, Meeting, Protection};
use crate::stage::Stage;
use uffd_results::KernelVersion;

static WHO: Probe = Probe {
    suite: "writeprotect",
    name: "who",
    statement: "Whatever writes to a protected page parks and is freed by WRITEPROTECT(0), a write of \
                the kernel for a system call like a store, but a write to /proc/self/mem fails with \
                EIO; reads go through and leave the protection.",
    consumers: &[super::BACKGROUND, super::E2B],
};
static ASYNC_WHO: Probe = Probe {
    suite: "writeprotect",
    name: "async",
    statement: "With WP_ASYNC nobody parks at a protected page: writes go through and remove the \
                protection of their page, reads leave it.",
    consumers: &[TRACKERS],
};
static SIGBUS: Probe = Probe {
    suite: "writeprotect",
    name: "sigbus",
    statement: "With the SIGBUS feature a write to a protected page fails instead of parking: SIGBUS for \
                a store, EFAULT for the kernel's write.",
    consumers: &["Android ART: mark_compact.cc"],
};

/// The question.
#[derive(Clone, Copy, Debug)]
struct Meets(Meeting);

/// The cases.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (probe, meeting) in Meeting::all([&WHO, &ASYNC_WHO, &SIGBUS]) {
        let huge = meeting.backing == Backing::HugetlbShared
            && meeting.delivery == Delivery::Message
            && matches!(meeting.who, Kind::UserWrite | Kind::UserRead);
        let by_default = SMALL.contains(&meeting.backing) || huge;
        cases.push(Case::trial(probe, Meets(meeting), by_default));
    }
    cases
}

/// Access by way of /proc/self/mem.
const FOREIGN: &str = "__access_remote_vm() takes pages without FAULT_FLAG_ALLOW_RETRY, with which \
    handle_userfault() does not wait: EIO";

impl Meets {
    fn bits(self) -> u64 {
        match self.0.delivery {
            Delivery::Message => 0,
            Delivery::Async => Asks::Async.bits(),
            Delivery::Signal => features::SIGBUS,
        }
    }
}

impl Trial for Meets {
    fn axes(&self) -> String {
        self.0.axes()
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        let lab = Lab::new(stage, self.0.backing, self.bits())?;
        lab.fill(0..PAGES)?;
        lab.register(0..PAGES, Protection::Writes.mode())?;
        seen.fact("protect", Protection::Writes.set(&lab, lab.all()));
        Protection::Writes.meet(&lab, self.0.who, seen)?;
        lab.contents("pages", seen)
    }

    fn expect(&self, kernel: KernelVersion) -> Vec<Expected> {
        let Meeting { backing, who, delivery } = self.0;
        let writes = who.write_faults(backing);
        let mut facts = want(super::PROTECTS, &[("protect", "0")]);
        let (kept, freed) = (row("wwwwww", kernel), row("wwpwww", kernel));
        let content = |stores: bool| if stores { "kkwkkk" } else { "kkkkkk" };
        if !writes {
            facts.extend(want(FAULTS, &[("access", &who.ran("kept"))]));
            facts.extend(want(SHOWN, &[("met", &kept), ("pages", "kkkkkk")]));
            return facts;
        }
        if who == Kind::MemWrite && delivery != Delivery::Async {
            facts.extend(want(FOREIGN, &[("access", "EIO"), ("met", &kept), ("pages", "kkkkkk")]));
            return facts;
        }
        match delivery {
            Delivery::Message => {
                facts.extend(want(FAULTS, &[("access", "parks"), ("fault", "wp-write@2")]));
                facts.extend(want(SHOWN, &[("met", &kept)]));
                facts.extend(want(LIFTS, &[("lift", "0"), ("waiter", "ran"), ("after", &freed)]));
                facts.extend(want(LIFTS, &[("pages", content(who.stores()))]));
            }
            Delivery::Async => {
                facts.extend(want(ASYNC, &[("access", "ran"), ("met", &freed)]));
                facts.extend(want(ASYNC, &[("pages", content(who.stores()))]));
            }
            Delivery::Signal => {
                let ends = match who {
                    Kind::UserWrite => "BUS_ADRERR",
                    Kind::Mlock => "ENOMEM",
                    _ => "EFAULT",
                };
                let says = "ioctl_userfaultfd(2), UFFD_FEATURE_SIGBUS: no message, a SIGBUS \
                            signal to the faulting process";
                facts.extend(want(says, &[("access", ends), ("met", &kept), ("pages", "kkkkkk")]));
            }
        }
        facts
    }

    fn recipe(&self) -> Vec<String> {
        let Meeting { backing, who, delivery } = self.0;
        vec![
            format!("write to all 6 pages of a {backing} block"),
            format!("register it for write protection, delivery by {delivery}, and protect it all"),
            format!("a thread accesses page 2: {who}; does it park?"),
            "if so, remove the protection of page 2 and look at the thread".into(),
            "look at the page table and at the pages".into(),
        ]
    }

    fn uses_huge_pages(&self) -> bool {
        self.0.backing.is_huge()
    }
}
