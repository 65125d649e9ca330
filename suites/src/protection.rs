//! What protection from writes (UFFDIO_WRITEPROTECT) and from all access (UFFDIO_RWPROTECT) have in
//! common: the ground of the suites `writeprotect` and `rwp`, which expect different things of it.
//!
//! Setting and lifting it, what is at a page that gets protected, who meets it and by what delivery,
//! and what is left of it after a change.

mod change;
mod page;

pub(crate) use change::Change;
pub(crate) use page::State;

use crate::abi::newer::{REGISTER_MODE_RWP, RWPROTECT_MODE_RWP};
use crate::abi::{REGISTER_MODE_WP, Range, Rc, WRITEPROTECT_MODE_WP};
use crate::lab::Lab;
use crate::outcome::{Seen, Stop};
use crate::point::{Backing, PAGES, Waiter as Kind, axis};
use crate::probe::Probe;

/// The page that is accessed.
const PAGE: usize = 2;

/// From what pages are protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protection {
    /// From writes: UFFDIO_WRITEPROTECT.
    Writes,
    /// From all access: UFFDIO_RWPROTECT.
    All,
}

impl Protection {
    /// The mode of a registration for it.
    pub(crate) const fn mode(self) -> u64 {
        match self {
            Self::Writes => REGISTER_MODE_WP,
            Self::All => REGISTER_MODE_RWP,
        }
    }

    /// Protects `range`.
    pub(crate) fn set(self, lab: &Lab<'_>, range: Range) -> Rc {
        match self {
            Self::Writes => lab.uffd.writeprotect(range, WRITEPROTECT_MODE_WP),
            Self::All => lab.uffd.rwprotect(range, RWPROTECT_MODE_RWP),
        }
    }

    /// Ends the protection of `range`.
    pub(crate) fn lift(self, lab: &Lab<'_>, range: Range) -> Rc {
        match self {
            Self::Writes => lab.uffd.writeprotect(range, 0),
            Self::All => lab.uffd.rwprotect(range, 0),
        }
    }

    /// Registers the whole block for it and protects it, which must succeed.
    pub(crate) fn cover(self, lab: &Lab<'_>) -> Result<(), Stop> {
        lab.register(0..PAGES, self.mode())?;
        let rc = self.set(lab, lab.all());
        if rc.is_ok() {
            return Ok(());
        }
        let call = match self {
            Self::Writes => "WRITEPROTECT",
            Self::All => "RWPROTECT",
        };
        Err(Stop::Broken(format!("{call} of the block: {rc}")))
    }

    /// Has somebody access page 2 of a protected block; if that parks, lifts the protection of the
    /// page and looks at the waiter.
    pub(crate) fn meet(self, lab: &Lab<'_>, who: Kind, seen: &mut Seen<'_>) -> Result<(), Stop> {
        let waiter = lab.meet(("access", "fault"), who, PAGE, seen)?;
        lab.entries("met", seen)?;
        if let Some(mut waiter) = waiter {
            seen.step("lift");
            seen.fact("lift", self.lift(lab, lab.page(PAGE)));
            lab.look("waiter", &mut waiter, seen)?;
            lab.entries("after", seen)?;
        }
        Ok(())
    }
}

axis! {
    /// How the context is told that somebody has met the protection.
    Delivery {
        /// By a message.
        Message = "message",
        /// Not at all: WP_ASYNC, RWP_ASYNC.
        Async = "async",
        /// By a signal: SIGBUS.
        Signal = "sigbus",
    }
}

/// Who meets the protection of which memory, and how that is told.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Meeting {
    /// What backs the block.
    pub(crate) backing: Backing,
    /// Who accesses page 2.
    pub(crate) who: Kind,
    /// How the context is told.
    pub(crate) delivery: Delivery,
}

impl Meeting {
    /// All, with the probe that asks: one for each delivery, in the order of [`Delivery::ALL`].
    pub(crate) fn all(probes: [&'static Probe; 3]) -> impl Iterator<Item = (&'static Probe, Self)> {
        probes.into_iter().zip(Delivery::ALL).flat_map(|(probe, delivery)| {
            Backing::ALL.iter().flat_map(move |backing| {
                let delivery = *delivery;
                Kind::without_kvm()
                    .map(move |who| (probe, Self { backing: *backing, who, delivery }))
            })
        })
    }

    /// The axes; the probe's name tells the delivery.
    pub(crate) fn axes(self) -> String {
        format!("backing={},who={}", self.backing, self.who)
    }
}
