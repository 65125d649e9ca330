//! Who meets protection against all access.

use super::{ASYNC, HEADER, TRACKERS, bits, protected};
use crate::expect::Expected;
use crate::lab::{SMALL, want};
use crate::outcome::{Seen, Stop};
use crate::point::Waiter as Kind;
use crate::probe::{Case, Probe, Trial};
use crate::protection::{Delivery, Meeting, Protection};
use crate::stage::Stage;
use uffd_results::KernelVersion;

static WHO: Probe = Probe {
    suite: "rwp",
    name: "who",
    statement: "Whatever accesses a page that RWPROTECT has protected parks, reads as well as writes, and is \
                freed when the protection is removed; only /proc/self/mem fails with EIO.",
    consumers: &[TRACKERS],
};
static ASYNC_WHO: Probe = Probe {
    suite: "rwp",
    name: "async",
    statement: "With RWP_ASYNC nobody parks: every access goes through.",
    consumers: &[TRACKERS],
};
static SIGBUS: Probe = Probe {
    suite: "rwp",
    name: "sigbus",
    statement: "With the SIGBUS feature an access to a protected page fails instead of parking.",
    consumers: &[TRACKERS],
};

/// Access by way of /proc/self/mem.
const FOREIGN: &str = "__access_remote_vm() takes pages without FAULT_FLAG_ALLOW_RETRY, with which handle_userfault() \
    does not wait: EIO";
/// Who gets no message.
const NO_MESSAGE: &str = "ioctl_userfaultfd(2), UFFD_FEATURE_SIGBUS: no message, a SIGBUS signal to the faulting \
    process";

#[derive(Clone, Copy, Debug)]
struct Meets(Meeting);

/// The cases.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (probe, meeting) in Meeting::all([&WHO, &ASYNC_WHO, &SIGBUS]) {
        let by_default = SMALL.contains(&meeting.backing);
        cases.push(Case::trial(probe, Meets(meeting), by_default));
    }
    cases
}

impl Trial for Meets {
    fn axes(&self) -> String {
        self.0.axes()
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        let lab = protected(stage, self.0.backing, bits(self.0.delivery))?;
        lab.entries("before", seen)?;
        Protection::All.meet(&lab, self.0.who, seen)?;
        seen.step("lift-all");
        seen.fact("lift-all", Protection::All.lift(&lab, lab.all()));
        lab.entries("lifted", seen)?;
        lab.contents("pages", seen)
    }

    fn expect(&self, _kernel: KernelVersion) -> Vec<Expected> {
        let Meeting { backing, who, delivery } = self.0;
        let mut facts = want(HEADER, &[("before", "wwwwww")]);
        let foreign = matches!(who, Kind::MemRead | Kind::MemWrite);
        let mut stored = who.stores();
        match delivery {
            Delivery::Async => {
                facts.extend(want(ASYNC, &[("access", &who.ran("kept")), ("met", "wwpwww")]));
            }
            Delivery::Message if !foreign => {
                let kind = if who.write_faults(backing) { "rwp-write@2" } else { "rwp-read@2" };
                facts.extend(want(HEADER, &[("access", "parks"), ("fault", kind)]));
                facts.extend(want(HEADER, &[("met", "wwwwww"), ("lift", "0")]));
                facts.extend(want(HEADER, &[("waiter", &who.ran("kept")), ("after", "wwpwww")]));
            }
            _ => {
                stored = false;
                let ends = match who {
                    _ if foreign => "EIO",
                    Kind::UserRead | Kind::UserWrite => "BUS_ADRERR",
                    Kind::Mlock => "ENOMEM",
                    _ => "EFAULT",
                };
                let says = if foreign { FOREIGN } else { NO_MESSAGE };
                facts.extend(want(says, &[("access", ends), ("met", "wwwwww")]));
            }
        }
        let pages = if stored { "kkwkkk" } else { "kkkkkk" };
        facts.extend(want(HEADER, &[("lift-all", "0"), ("lifted", "pppppp"), ("pages", pages)]));
        facts
    }

    fn recipe(&self) -> Vec<String> {
        let Meeting { backing, who, delivery } = self.0;
        vec![
            format!(
                "write to all 6 pages of a {backing} block, register it for RWP, by {delivery}"
            ),
            "UFFDIO_RWPROTECT of the whole block".into(),
            format!("a thread accesses page 2: {who}; does it park?"),
            "if so, remove the protection of page 2 and look at the thread".into(),
            "remove all protection and look at the pages".into(),
        ]
    }

    fn uses_huge_pages(&self) -> bool {
        self.0.backing.is_huge()
    }
}
