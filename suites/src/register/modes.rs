//! Every subset of modes on memory of every kind: what REGISTER takes, what it then offers.

use super::ground::Kind;
use super::words::{self, MODE, OFFERED};
use crate::abi::{REGISTER_MODE_WP, features, newer};
use crate::evidence;
use crate::expect::Expected;
use crate::outcome::{Seen, Stop};
use crate::point::axis;
use crate::probe::{Case, Probe, Trial};
use crate::stage::Stage;
use uffd_results::KernelVersion;

static MODES: Probe = Probe {
    suite: "register",
    name: "modes",
    statement: "REGISTER takes the modes that the kernel has for a kind of memory and offers the ioctls \
                that go with them; anything else is EINVAL, or EPERM for shared memory that the \
                process may never write to, and registers nothing.",
    consumers: &[
        "QEMU: postcopy_ram_supported_by_host() and ram_block_enable_notify(): COPY, ZEROPAGE, WAKE",
        "QEMU background snapshot: WRITEPROTECT in ioctls",
        "Android ART: MINOR; Wine write watches: WP_ASYNC on any memory",
    ],
};

axis! {
    /// What UFFDIO_API is asked for.
    Wanted {
        /// No feature.
        Nothing = "none",
        /// The features that name missing faults of shared memory.
        MissingShmem = "missing-shmem",
        /// The features that name minor faults and write protection of shared memory.
        Shmem = "minor+wp-shmem",
        /// Asynchronous write protection (6.7).
        WpAsync = "wp-async",
        /// SIGBUS in place of messages.
        Sigbus = "sigbus",
        /// Every event but fork.
        Events = "events",
        /// Read-write protection (7.3).
        Rwp = "rwp",
    }
}

impl Wanted {
    const fn bits(self) -> u64 {
        match self {
            Self::Nothing => 0,
            Self::MissingShmem => features::MISSING_SHMEM | features::MISSING_HUGETLBFS,
            Self::Shmem => {
                features::MINOR_SHMEM | features::MINOR_HUGETLBFS | features::WP_HUGETLBFS_SHMEM
            }
            Self::WpAsync => features::WP_ASYNC,
            Self::Sigbus => features::SIGBUS,
            Self::Events => features::EVENT_REMAP | features::EVENT_REMOVE | features::EVENT_UNMAP,
            Self::Rwp => features::RWP,
        }
    }
}

/// A REGISTER of memory of one kind.
#[derive(Clone, Copy, Debug)]
struct Modes {
    kind: Kind,
    bits: u64,
    wanted: Wanted,
}

impl Trial for Modes {
    fn axes(&self) -> String {
        let Self { kind, bits, wanted } = self;
        format!("memory={kind},mode={},features={wanted}", words::mode(*bits))
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        seen.step("set-up");
        stage.must_offer(self.wanted.bits())?;
        let ground = self.kind.make(stage)?;
        let uffd = stage.uffd(self.wanted.bits())?;
        seen.step("register");
        match uffd.register(ground.range, self.bits) {
            Ok(mask) => {
                seen.fact("register", "0");
                seen.fact("ioctls", words::ioctls(mask));
            }
            Err(errno) => seen.fact("register", format!("{errno:?}")),
        }
        let first = [(crate::abi::Range { len: ground.page, ..ground.range }, ground.page)];
        if self.kind.is_in_arena() && self.bits < newer::REGISTER_MODE_RWP {
            seen.fact("reg", evidence::registration(&first)?.concat());
        }
        seen.fact("unregister", uffd.unregister(ground.range));
        if self.kind.is_in_arena() {
            seen.fact("reg-after", evidence::registration(&first)?.concat());
        }
        Ok(())
    }

    fn expect(&self, kernel: KernelVersion) -> Vec<Expected> {
        let Self { kind, bits, wanted } = self;
        let any = *wanted == Wanted::WpAsync && *bits == REGISTER_MODE_WP;
        let (rc, says) = kind.register(*bits, any, *wanted == Wanted::Rwp, kernel);
        let mut facts = vec![Expected::new("register", rc, says)];
        let registered = rc == "0";
        if registered && bits & newer::REGISTER_MODE_RWP == 0 {
            facts.push(Expected::new(
                "ioctls",
                words::offered(*bits, kind.is_huge(), kernel),
                OFFERED,
            ));
        }
        if kind.is_in_arena() && *bits < newer::REGISTER_MODE_RWP {
            let letter = if registered { words::letter(*bits) } else { kind.unregistered() };
            facts.push(Expected::new("reg", letter.to_string(), MODE));
        }
        let (rc, says) = kind.unregister(registered, kernel);
        facts.push(Expected::new("unregister", rc, says));
        if kind.is_in_arena() {
            facts.push(Expected::new("reg-after", kind.unregistered().to_string(), says));
        }
        facts
    }

    fn recipe(&self) -> Vec<String> {
        let Self { kind, bits, wanted } = self;
        vec![
            format!("map memory of this kind: {kind}"),
            format!("make a userfaultfd with these features: {wanted}"),
            format!(
                "UFFDIO_REGISTER of all of it with mode {}; then UFFDIO_UNREGISTER",
                words::mode(*bits)
            ),
        ]
    }

    fn uses_huge_pages(&self) -> bool {
        self.kind.is_huge()
    }
}

/// The cases: the modes up to 7.2 on everything by default.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for kind in Kind::ALL {
        for bits in 0..16 {
            let main = kind.is_main();
            let trial = Modes { kind: *kind, bits, wanted: Wanted::Nothing };
            cases.push(Case::trial(&MODES, trial, bits < 8 || main));
            if bits & newer::REGISTER_MODE_RWP != 0 {
                let trial = Modes { kind: *kind, bits, wanted: Wanted::Rwp };
                cases.push(Case::trial(&MODES, trial, main));
            }
        }
        for wanted in Wanted::ALL.iter().filter(|w| !matches!(w, Wanted::Nothing | Wanted::Rwp)) {
            for bits in 1..8 {
                let telling = match wanted {
                    Wanted::WpAsync => matches!(bits, 2 | 3),
                    _ => kind.is_main() && matches!(bits, 1 | 2 | 4),
                };
                let trial = Modes { kind: *kind, bits, wanted: *wanted };
                cases.push(Case::trial(&MODES, trial, telling));
            }
        }
    }
    cases
}
