//! A thread waits for a missing page, and the page comes into the file through another mapping of it,
//! as the back ends of vhost-user do it.

use super::{CROSVM, MISSING, Modes, VHOST};
use crate::abi::features;
use crate::expect::{Expected, OBSERVED};
use crate::lab::{Lab, length, outcome, want};
use crate::memory::{RW, SPARE, map, tag};
use crate::model::source;
use crate::outcome::{Seen, Stop};
use crate::point::{Backing, PAGES, Waiter as Kind, axis};
use crate::probe::{Case, Probe, Trial};
use crate::stage::Stage;
use crate::touch;
use std::os::fd::AsFd;
use uffd_results::KernelVersion;

static ELSEWHERE: Probe = Probe {
    suite: "continue",
    name: "filled-elsewhere",
    statement: "A page that another mapping fills wakes nobody who waits for it as missing, and COPY then \
                fails with EEXIST and wakes nobody either; WAKE lets the thread run on with the page, \
                without a second message unless MINOR is registered.",
    consumers: &[VHOST, CROSVM],
};

axis! {
    /// What is done once the page is in the file.
    Deed {
        /// WAKE of the page: what QEMU does for its vhost-user back ends.
        Wake = "wake",
        /// COPY to the page, then WAKE.
        Copy = "copy-then-wake",
        /// ZEROPAGE of the page, then WAKE.
        Zeropage = "zeropage-then-wake",
        /// CONTINUE of the page.
        Continue = "continue",
        /// The other mapping writes nothing; WAKE: the control.
        Control = "not-filled-wake",
    }
}

/// The question.
#[derive(Clone, Copy, Debug)]
struct Elsewhere {
    backing: Backing,
    modes: Modes,
    deed: Deed,
    who: Kind,
}

/// The cases.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for backing in [Backing::Shmem, Backing::Private, Backing::HugetlbShared] {
        for modes in [Modes::Missing, Modes::Both] {
            for deed in Deed::ALL.iter().copied() {
                if backing.is_huge() && deed == Deed::Zeropage {
                    continue;
                }
                for who in [Kind::UserRead, Kind::UserWrite, Kind::SysRead, Kind::SysWrite] {
                    let few = deed == Deed::Wake && who == Kind::UserRead;
                    let brief = matches!(who, Kind::UserRead | Kind::UserWrite);
                    let by_default = if backing.is_huge() { few } else { brief };
                    let trial = Elsewhere { backing, modes, deed, who };
                    cases.push(Case::trial(&ELSEWHERE, trial, by_default));
                }
            }
        }
    }
    cases
}

const PAGE: usize = 2;

impl Trial for Elsewhere {
    fn axes(&self) -> String {
        let Self { backing, modes, deed, who } = self;
        format!("backing={backing},mode={modes},act={deed},who={who}")
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        if self.deed == Deed::Continue {
            stage.must_offer(features::MINOR_SHMEM)?;
        }
        let lab = Lab::new(stage, self.backing, 0)?;
        let at = crate::abi::Range { start: SPARE, len: lab.block.page };
        let file = lab.block.file.as_ref().map(AsFd::as_fd);
        let rc = map(at, RW, libc::MAP_SHARED, file, PAGE * lab.block.page);
        if !rc.is_ok() {
            return Err(Stop::Broken(format!("a second mapping: {rc}")));
        }
        lab.register(0..PAGES, self.modes.bits())?;
        let Some(mut waiter) = lab.meet(("access", "fault"), self.who, PAGE, seen)? else {
            return Ok(());
        };
        seen.step("fill");
        if self.deed != Deed::Control {
            touch::store(SPARE, tag::NEW)
                .map_err(|signal| Stop::Broken(format!("writing elsewhere: {signal}")))?;
            lab.look("filled", &mut waiter, seen)?;
        }
        let target = lab.page(PAGE);
        seen.step("act");
        let mut waits = true;
        match self.deed {
            Deed::Wake | Deed::Control => {}
            Deed::Copy => {
                outcome(("copy", "field"), lab.uffd.copy(target, stage.source, 0), seen);
                waits = lab.look("waiter", &mut waiter, seen)?;
            }
            Deed::Zeropage => {
                outcome(("zeropage", "field"), lab.uffd.zeropage(target, 0), seen);
                waits = lab.look("waiter", &mut waiter, seen)?;
            }
            Deed::Continue => {
                outcome(("continue", "field"), lab.uffd.resume(target, 0), seen);
                waits = lab.look("waiter", &mut waiter, seen)?;
            }
        }
        if waits {
            seen.fact("wake", lab.uffd.wake(target));
            if lab.look("woken", &mut waiter, seen)? {
                seen.fact("second", lab.read_fault()?);
            }
        }
        seen.fact("queue", lab.queue.read()?);
        lab.contents("pages", seen)
    }

    fn expect(&self, _kernel: KernelVersion) -> Vec<Expected> {
        let Self { backing, modes, deed, who } = *self;
        let kind = if who.write_faults(backing) { "write@2" } else { "read@2" };
        let mut facts = want(MISSING, &[("access", "parks"), ("fault", kind)]);
        if deed != Deed::Control {
            facts.extend(want(source::QUEUE, &[("filled", "asleep")]));
        }
        let mut waits = true;
        match deed {
            Deed::Wake | Deed::Control => {}
            Deed::Copy | Deed::Zeropage if backing == Backing::Private => {
                // The page goes into the private mapping, whatever the file has.
                let call = if deed == Deed::Copy { "copy" } else { "zeropage" };
                let there = if deed == Deed::Copy { "copied" } else { "zero" };
                facts.extend(want(OBSERVED, &[(call, "0"), ("field", &length(backing))]));
                facts.extend(want(OBSERVED, &[("waiter", &who.ran(there)), ("queue", "0/0")]));
                waits = false;
            }
            Deed::Copy | Deed::Zeropage => {
                let call = if deed == Deed::Copy { "copy" } else { "zeropage" };
                facts.extend(want(source::COPY, &[(call, "EEXIST"), ("field", "-17")]));
                facts.extend(want(source::COPY, &[("waiter", "asleep")]));
            }
            Deed::Continue => {
                let says = source::CONTINUE;
                facts.extend(want(says, &[("continue", "0"), ("field", &length(backing))]));
                facts.extend(want(says, &[("waiter", &who.ran("new")), ("queue", "0/0")]));
                waits = false;
            }
        }
        if waits {
            facts.extend(want(source::WAKE, &[("wake", "0")]));
            let says = source::RERUN;
            if deed == Deed::Control {
                facts.extend(want(says, &[("woken", "again"), ("second", kind), ("queue", "1/0")]));
            } else if modes == Modes::Both {
                let second = format!("minor-{kind}");
                facts.extend(want(says, &[("woken", "again"), ("second", &second)]));
            } else {
                facts.extend(want(says, &[("woken", &who.ran("new")), ("queue", "0/0")]));
            }
        }
        facts
    }

    fn recipe(&self) -> Vec<String> {
        let Self { backing, modes, deed, who } = self;
        vec![
            format!(
                "map page 2 of an empty {backing} block a second time; register the block: {modes}"
            ),
            format!("a thread accesses page 2: {who}; it parks, its message is read"),
            "write to the page through the second mapping; look at the thread".into(),
            format!("then: {deed}; look at the thread"),
        ]
    }

    fn uses_huge_pages(&self) -> bool {
        self.backing.is_huge()
    }
}
