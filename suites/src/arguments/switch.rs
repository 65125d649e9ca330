//! `UFFDIO_SET_MODE` (7.3): features to switch on and off while faults are served.

use crate::abi::{Uffd, features};
use crate::expect::{Expected, OBSERVED};
use crate::outcome::{Seen, Stop};
use crate::probe::{Case, Probe, Trial};
use crate::stage::Stage;
use uffd_results::KernelVersion;

static SWITCH: Probe = Probe {
    suite: "arguments",
    name: "set-mode",
    statement: "SET_MODE switches RWP_ASYNC on and off where RWP was asked for in UFFDIO_API; any other \
                bit, or one both on and off, is EINVAL.",
    consumers: &["working-set trackers that switch between tracking and eviction"],
};

/// A SET_MODE on a context.
#[derive(Clone, Copy, Debug)]
struct Switch {
    /// Whether the context has the feature RWP.
    rwp: bool,
    enable: Bits,
    disable: Bits,
}

/// Feature bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bits {
    None,
    Async,
    Bit(u32),
    All,
}

impl Bits {
    const fn value(self) -> u64 {
        match self {
            Self::None => 0,
            Self::Async => features::RWP_ASYNC,
            Self::Bit(n) => 1 << n,
            Self::All => u64::MAX,
        }
    }

    fn word(self) -> String {
        match self {
            Self::None => "none".into(),
            Self::Async => "rwp-async".into(),
            Self::Bit(n) => format!("bit-{n}"),
            Self::All => "all".into(),
        }
    }
}

impl Trial for Switch {
    fn axes(&self) -> String {
        let Self { rwp, enable, disable } = self;
        let features = if *rwp { "rwp" } else { "none" };
        format!("features={features},enable={},disable={}", enable.word(), disable.word())
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        stage.must_offer(features::RWP)?;
        let uffd: Uffd = stage.uffd(if self.rwp { features::RWP } else { 0 })?;
        seen.step("set-mode");
        seen.fact("set-mode", uffd.set_mode(self.enable.value(), self.disable.value()));
        // Whatever it said, it can be switched off.
        seen.fact("off", uffd.set_mode(0, features::RWP_ASYNC));
        Ok(())
    }

    fn expect(&self, _: KernelVersion) -> Vec<Expected> {
        let Self { rwp, enable, disable } = *self;
        let known = |bits: Bits| matches!(bits, Bits::None | Bits::Async);
        let both = enable.value() & disable.value() != 0;
        let refused = !known(enable) || !known(disable) || both || enable == Bits::Async && !rwp;
        vec![
            Expected::new("set-mode", if refused { "EINVAL" } else { "0" }, OBSERVED),
            Expected::new("off", "0", OBSERVED),
        ]
    }

    fn recipe(&self) -> Vec<String> {
        let Self { enable, disable, .. } = self;
        vec![
            "make a userfaultfd with or without the feature RWP".into(),
            format!("UFFDIO_SET_MODE: enable {}, disable {}", enable.word(), disable.word()),
            "UFFDIO_SET_MODE that disables RWP_ASYNC".into(),
        ]
    }
}

/// The cases.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let own = features::RWP_ASYNC.trailing_zeros();
    let all: Vec<Bits> = [Bits::None, Bits::Async, Bits::All]
        .into_iter()
        .chain((0..u64::BITS).filter(|bit| *bit != own).map(Bits::Bit))
        .collect();
    let telling =
        |bits: Bits| !matches!(bits, Bits::Bit(n) if !matches!(n, 0 | 15 | 17 | 19 | 31 | 32 | 63));
    for rwp in [true, false] {
        for enable in &all {
            for disable in &all {
                let one = matches!((enable, disable), (Bits::Bit(_), Bits::Bit(_)));
                if one {
                    continue;
                }
                let case = Switch { rwp, enable: *enable, disable: *disable };
                let by_default = telling(*enable) && telling(*disable);
                cases.push(Case::trial(&SWITCH, case, by_default));
            }
        }
    }
    cases
}
