//! UFFDIO_SET_MODE: switching RWP_ASYNC while the context is in use.

use super::{ASYNC, SET_MODE, SET_MODE_WAKES, TRACKERS, bits, protected};
use crate::abi::newer::RWPROTECT_MODE_RWP;
use crate::abi::{Uffd, features};
use crate::expect::Expected;
use crate::lab::{Lab, want};
use crate::outcome::{Seen, Stop};
use crate::point::{Backing, Waiter as Kind, axis};
use crate::probe::{Case, Probe, Trial};
use crate::protection::Delivery;
use crate::stage::Stage;
use uffd_results::KernelVersion;

static ANSWER: Probe = Probe {
    suite: "rwp",
    name: "set-mode",
    statement: "SET_MODE takes RWP_ASYNC alone, in one of its two masks, of a context that has shaken hands.",
    consumers: &[TRACKERS],
};
static EFFECT: Probe = Probe {
    suite: "rwp",
    name: "set-mode-effect",
    statement: "Once SET_MODE has enabled RWP_ASYNC nobody parks at a protected page, and who waits at one is \
                woken; once it has disabled it everybody parks again.",
    consumers: &[TRACKERS],
};

axis! {
    /// What SET_MODE is asked for.
    Ask {
        /// To enable RWP_ASYNC.
        Enable = "enable",
        /// To disable RWP_ASYNC.
        Disable = "disable",
        /// Nothing.
        Nothing = "nothing",
        /// To enable and to disable RWP_ASYNC.
        Both = "both",
        /// To enable RWP.
        Rwp = "enable-rwp",
        /// To enable WP_ASYNC.
        WpAsync = "enable-wp-async",
        /// To enable a bit that means nothing.
        Unknown = "enable-unknown",
        /// To disable a bit that means nothing.
        DisableUnknown = "disable-unknown",
    }
}

impl Ask {
    const fn masks(self) -> (u64, u64) {
        match self {
            Self::Enable => (features::RWP_ASYNC, 0),
            Self::Disable => (0, features::RWP_ASYNC),
            Self::Nothing => (0, 0),
            Self::Both => (features::RWP_ASYNC, features::RWP_ASYNC),
            Self::Rwp => (features::RWP, 0),
            Self::WpAsync => (features::WP_ASYNC, 0),
            Self::Unknown => (1 << 40, 0),
            Self::DisableUnknown => (0, 1 << 40),
        }
    }
}

axis! {
    /// What the context is like.
    Of {
        /// Before UFFDIO_API.
        Before = "before-api",
        /// No feature was asked for.
        Plain = "no-feature",
        /// RWP.
        Rwp = "rwp",
        /// RWP and RWP_ASYNC.
        Async = "rwp-async",
        /// RWP, with a block registered and protected.
        Used = "rwp-in-use",
    }
}

#[derive(Clone, Copy, Debug)]
struct Answer {
    of: Of,
    ask: Ask,
}

#[derive(Clone, Copy, Debug)]
struct Effect {
    backing: Backing,
    who: Kind,
}

/// The cases.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for of in Of::ALL.iter().copied() {
        for ask in Ask::ALL.iter().copied() {
            cases.push(Case::trial(&ANSWER, Answer { of, ask }, true));
        }
    }
    for backing in Backing::ALL.iter().copied() {
        for who in [Kind::UserRead, Kind::UserWrite, Kind::SysRead, Kind::VmRead] {
            let trial = Effect { backing, who };
            cases.push(Case::trial(&EFFECT, trial, crate::lab::SMALL.contains(&backing)));
        }
    }
    cases
}

impl Trial for Answer {
    fn axes(&self) -> String {
        format!("context={},ask={}", self.of, self.ask)
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        stage.must_offer(features::RWP | features::RWP_ASYNC)?;
        let (enable, disable) = self.ask.masks();
        let ask = |uffd: &Uffd, seen: &mut Seen<'_>| {
            seen.fact("set-mode", uffd.set_mode(enable, disable));
        };
        match self.of {
            Of::Before => {
                let uffd = Uffd::open(stage.way.clone()?)
                    .map_err(|e| Stop::Broken(format!("making a userfaultfd: {e:?}")))?;
                ask(&uffd, seen);
            }
            Of::Plain => ask(&stage.uffd(0)?, seen),
            Of::Rwp => ask(&stage.uffd(features::RWP)?, seen),
            Of::Async => ask(&stage.uffd(features::RWP | features::RWP_ASYNC)?, seen),
            Of::Used => ask(&protected(stage, Backing::Anon, features::RWP)?.uffd, seen),
        }
        Ok(())
    }

    fn expect(&self, _kernel: KernelVersion) -> Vec<Expected> {
        let taken = match self.ask {
            _ if self.of == Of::Before => false,
            Ask::Enable => self.of != Of::Plain,
            Ask::Disable | Ask::Nothing => true,
            _ => false,
        };
        want(SET_MODE, &[("set-mode", if taken { "0" } else { "EINVAL" })])
    }

    fn recipe(&self) -> Vec<String> {
        vec![format!("a userfaultfd: {}", self.of), format!("UFFDIO_SET_MODE: {}", self.ask)]
    }
}

impl Trial for Effect {
    fn axes(&self) -> String {
        format!("backing={},who={}", self.backing, self.who)
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        stage.must_offer(features::RWP_ASYNC)?;
        let lab = protected(stage, self.backing, bits(Delivery::Message))?;
        seen.fact("enable", lab.uffd.set_mode(features::RWP_ASYNC, 0));
        lab.meet(("async", "async-fault"), self.who, 2, seen)?;
        lab.entries("met", seen)?;
        seen.fact("disable", lab.uffd.set_mode(0, features::RWP_ASYNC));
        let waiter = lab.meet(("sync", "fault"), self.who, 3, seen)?;
        seen.fact("enable-2", lab.uffd.set_mode(features::RWP_ASYNC, 0));
        if let Some(mut waiter) = waiter {
            lab.look("waiter", &mut waiter, seen)?;
            seen.fact("wake", lab.uffd.wake(lab.page(3)));
        }
        again(&lab, seen)?;
        lab.entries("after", seen)
    }

    fn expect(&self, _kernel: KernelVersion) -> Vec<Expected> {
        let Self { backing, who } = *self;
        let kind = if who.write_faults(backing) { "rwp-write@3" } else { "rwp-read@3" };
        let ends = who.ran("kept");
        let mut facts = want(SET_MODE, &[("enable", "0"), ("async", &ends), ("met", "wwpwww")]);
        facts.extend(want(SET_MODE, &[("disable", "0"), ("sync", "parks"), ("fault", kind)]));
        facts.extend(want(SET_MODE_WAKES, &[("enable-2", "0"), ("waiter", &ends), ("wake", "0")]));
        facts.extend(want(ASYNC, &[("protect", "0"), ("again", "ran:kept"), ("after", "wwpppw")]));
        facts
    }

    fn recipe(&self) -> Vec<String> {
        let Self { backing, who } = self;
        vec![
            format!("write to all pages of a {backing} block, register it for RWP and protect it"),
            format!("SET_MODE enables RWP_ASYNC; a thread accesses page 2: {who}"),
            format!("SET_MODE disables it; a thread accesses page 3: {who}; it parks"),
            "SET_MODE enables it again; look at the thread, then WAKE".into(),
            "RWPROTECT of page 4 while RWP_ASYNC is on, and an access to it".into(),
        ]
    }

    fn uses_huge_pages(&self) -> bool {
        self.backing.is_huge()
    }
}

/// Protects page 4 again while RWP_ASYNC is on, and loads from it.
fn again(lab: &Lab<'_>, seen: &mut Seen<'_>) -> Result<(), Stop> {
    seen.fact("protect", lab.uffd.rwprotect(lab.page(4), RWPROTECT_MODE_RWP));
    lab.meet(("again", "again-fault"), Kind::UserRead, 4, seen)?;
    Ok(())
}
