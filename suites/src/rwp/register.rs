//! Which registrations go together with RWP.

use super::{HEADER, TRACKERS};
use crate::abi::newer::REGISTER_MODE_RWP;
use crate::abi::{REGISTER_MODE_MINOR, REGISTER_MODE_MISSING, REGISTER_MODE_WP, Rc, features};
use crate::evidence::Mapping;
use crate::expect::Expected;
use crate::lab::{Lab, SMALL, want};
use crate::outcome::{Seen, Stop};
use crate::point::{Backing, axis};
use crate::probe::{Case, Probe, Trial};
use crate::stage::Stage;
use uffd_results::KernelVersion;

static REGISTER: Probe = Probe {
    suite: "rwp",
    name: "register",
    statement: "Memory is registered for RWP alone or with missing or minor faults, if the context has \
                asked for the feature, and never together with write protection.",
    consumers: &[TRACKERS],
};

/// Which handshake is refused.
const NEEDS_RWP: &str = "Documentation/admin-guide/mm/userfaultfd.rst (7.3), Read-Write Protection; userfaultfd_api(): \
    RWP_ASYNC needs RWP in the same call";
/// Which registration is refused.
const REFUSED: &str = "userfaultfd_register() (7.3): EINVAL for RWP without its feature or together with write \
    protection; anon_can_userfault(): and for minor faults of anonymous memory";
/// What one that is taken offers.
const OFFERED: &str = "userfaultfd_register() (7.3): WRITEPROTECT, CONTINUE and RWPROTECT are offered with their modes";
/// How smaps tells of it.
const FLAGS: &str = "show_smap_vma_flags() in fs/proc/task_mmu.c (7.3): ur is VM_UFFD_RWP";

axis! {
    /// The modes of the registration.
    Modes {
        /// RWP.
        Rwp = "rwp",
        /// RWP and missing faults.
        Missing = "missing-rwp",
        /// RWP and write protection.
        Wp = "wp-rwp",
        /// RWP and minor faults.
        Minor = "minor-rwp",
        /// All.
        All = "missing-wp-minor-rwp",
    }
}

axis! {
    /// Which features the context has asked for.
    Asks {
        /// None.
        None = "none",
        /// RWP.
        Rwp = "rwp",
        /// RWP and RWP_ASYNC.
        Async = "rwp-async",
        /// RWP_ASYNC without RWP.
        OnlyAsync = "only-async",
    }
}

#[derive(Clone, Copy, Debug)]
struct Register {
    backing: Backing,
    modes: Modes,
    asks: Asks,
}

/// The cases.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for backing in Backing::ALL.iter().copied() {
        for modes in Modes::ALL.iter().copied() {
            for asks in Asks::ALL.iter().copied() {
                let by_default = SMALL.contains(&backing)
                    || backing == Backing::HugetlbShared && asks == Asks::Rwp;
                cases.push(Case::trial(&REGISTER, Register { backing, modes, asks }, by_default));
            }
        }
    }
    cases
}

impl Trial for Register {
    fn axes(&self) -> String {
        let Self { backing, modes, asks } = self;
        format!("backing={backing},mode={modes},asks={asks}")
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        stage.must_offer(features::RWP | features::RWP_ASYNC)?;
        let wanted = match self.asks {
            Asks::None => 0,
            Asks::Rwp => features::RWP,
            Asks::Async => features::RWP | features::RWP_ASYNC,
            Asks::OnlyAsync => features::RWP_ASYNC,
        };
        let shaken = crate::abi::Uffd::open(stage.way.clone()?)
            .map_err(|e| Stop::Broken(format!("making a userfaultfd: {e:?}")))?
            .api(wanted);
        seen.fact("api", Rc(shaken.err()));
        if shaken.is_err() {
            return Ok(());
        }
        let lab = Lab::new(stage, self.backing, wanted)?;
        let mode = REGISTER_MODE_RWP
            | match self.modes {
                Modes::Rwp => 0,
                Modes::Missing => REGISTER_MODE_MISSING,
                Modes::Wp => REGISTER_MODE_WP,
                Modes::Minor => REGISTER_MODE_MINOR,
                Modes::All => REGISTER_MODE_MISSING | REGISTER_MODE_WP | REGISTER_MODE_MINOR,
            };
        let done = lab.uffd.register(lab.all(), mode);
        seen.fact("register", Rc(done.err()));
        seen.fact("ioctls", format!("{:#x}", done.unwrap_or(0)));
        let mapping = Mapping::at(lab.all().start)?;
        let flags = mapping.as_ref().and_then(Mapping::flags);
        let flags = flags.ok_or_else(|| Stop::Broken("smaps lacks the block's flags".into()))?;
        seen.fact("flags", flags);
        lab.registered("reg", seen)
    }

    fn expect(&self, _kernel: KernelVersion) -> Vec<Expected> {
        let Self { backing, modes, asks } = *self;
        if asks == Asks::OnlyAsync {
            return want(NEEDS_RWP, &[("api", "EINVAL")]);
        }
        let no_minor = backing.is_anon();
        let taken = match modes {
            _ if asks == Asks::None => None,
            Modes::Rwp => Some(("ur", "rrrrrr")),
            Modes::Missing => Some(("um+ur", "RRRRRR")),
            Modes::Minor if !no_minor => Some(("ui+ur", "XXXXXX")),
            Modes::Minor | Modes::Wp | Modes::All => None,
        };
        let mut facts = want(HEADER, &[("api", "0")]);
        let Some((flags, reg)) = taken else {
            facts.extend(want(REFUSED, &[("register", "EINVAL"), ("ioctls", "0x0")]));
            facts.extend(want(REFUSED, &[("flags", "none"), ("reg", "......")]));
            return facts;
        };
        let ioctls = match (backing.is_huge(), modes) {
            (true, Modes::Minor) => "0x38c",
            (true, _) => "0x30c",
            (false, Modes::Minor) => "0x3bc",
            (false, _) => "0x33c",
        };
        facts.extend(want(OFFERED, &[("register", "0"), ("ioctls", ioctls)]));
        facts.extend(want(FLAGS, &[("flags", flags), ("reg", reg)]));
        facts
    }

    fn recipe(&self) -> Vec<String> {
        let Self { backing, modes, asks } = self;
        vec![
            format!("UFFDIO_API asking for {asks}"),
            format!("UFFDIO_REGISTER of a {backing} block for {modes}"),
            "look at the ioctls that it offers and at smaps".into(),
        ]
    }

    fn uses_huge_pages(&self) -> bool {
        self.backing.is_huge()
    }
}
