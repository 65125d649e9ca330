//! Whom CONTINUE wakes, and what else happens to a thread parked in a minor fault.

use super::{ART, CLONES, FILES, MINOR, Modes, Page, REFUSES};
use crate::abi::{COPY_MODE_DONTWAKE, COPY_MODE_WP};
use crate::expect::{Expected, OBSERVED};
use crate::lab::{Lab, length, outcome, want};
use crate::memory::{SPARE, map, tag};
use crate::model::source;
use crate::outcome::{Seen, Stop};
use crate::point::{Backing, Discard, PAGES, Waiter as Kind, axis};
use crate::probe::{Case, Probe, Trial};
use crate::stage::Stage;
use crate::touch;
use std::os::fd::AsFd;
use uffd_results::KernelVersion;

static WAKES: Probe = Probe {
    suite: "continue",
    name: "wakes",
    statement: "A thread parked in a minor fault is woken by CONTINUE of its page and then sees the page \
                cache's content of that moment, also what another mapping wrote after the fault.",
    consumers: &[CLONES],
};
static LEAVES: Probe = Probe {
    suite: "continue",
    name: "leaves-asleep",
    statement: "A thread parked in a minor fault sleeps on when another page is continued, when its own is \
                with MODE_DONTWAKE, when COPY or CONTINUE of it fail, and when the block is unregistered; \
                WAKE then frees it.",
    consumers: &[ART, CLONES],
};

axis! {
    /// What is done while the thread waits.
    Deed {
        /// CONTINUE of its page.
        Continue = "continue",
        /// A write through another mapping of the file, then CONTINUE.
        WriteContinue = "write-elsewhere-continue",
        /// CONTINUE with MODE_WP; registered for both.
        Protected = "continue-wp",
        /// CONTINUE with MODE_WP and MODE_DONTWAKE, then WAKE.
        ProtectedWake = "continue-wp-then-wake",
        /// CONTINUE with MODE_DONTWAKE.
        Quiet = "continue-dontwake",
        /// CONTINUE of the page behind, which the page cache has too.
        Next = "continue-next",
        /// COPY to its page.
        Copy = "copy",
        /// ZEROPAGE of its page.
        Zeropage = "zeropage",
        /// The page is taken out of the file, then CONTINUE.
        Punch = "punch-continue",
        /// CONTINUE through another userfaultfd of the process.
        Foreign = "continue-other-uffd",
        /// UNREGISTER.
        Unregister = "unregister",
        /// WAKE only.
        Wake = "wake",
    }
}

impl Deed {
    fn wakes(self, backing: Backing) -> bool {
        // What is placed into a private mapping need not be in the file.
        let placed = matches!(self, Self::Copy | Self::Zeropage) && backing == Backing::Private;
        placed
            || matches!(
                self,
                Self::Continue
                    | Self::WriteContinue
                    | Self::Protected
                    | Self::ProtectedWake
                    | Self::Wake
            )
    }

    const fn protects(self) -> bool {
        matches!(self, Self::Protected | Self::ProtectedWake)
    }
}

/// The question.
#[derive(Clone, Copy, Debug)]
struct Wakes {
    backing: Backing,
    deed: Deed,
    who: Kind,
    modes: Modes,
}

/// The cases.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for backing in [Backing::Shmem, Backing::Private, Backing::HugetlbShared] {
        for deed in Deed::ALL.iter().copied() {
            if backing.is_huge() && deed == Deed::Zeropage
                || backing == Backing::Private && deed == Deed::Punch
            {
                continue;
            }
            for who in
                [Kind::UserRead, Kind::UserWrite, Kind::SysRead, Kind::SysWrite, Kind::VmRead]
            {
                for modes in [Modes::Minor, Modes::Both, Modes::MinorWp] {
                    if deed.protects() != (modes == Modes::MinorWp) {
                        continue;
                    }
                    let woken =
                        deed.wakes(backing) || deed == Deed::Unregister && modes == Modes::Both;
                    let probe = if woken { &WAKES } else { &LEAVES };
                    let brief = !matches!(who, Kind::SysWrite | Kind::VmRead);
                    let by_default = FILES.contains(&backing) && brief && modes != Modes::Both;
                    let trial = Wakes { backing, deed, who, modes };
                    cases.push(Case::trial(probe, trial, by_default));
                }
            }
        }
    }
    cases
}

const PAGE: usize = 2;

impl Wakes {
    fn act(self, lab: &Lab<'_>, seen: &mut Seen<'_>) -> Result<(), Stop> {
        let target = lab.page(PAGE);
        let names = ("continue", "field");
        let resume = |mode| lab.uffd.resume(target, mode);
        match self.deed {
            Deed::Continue => outcome(names, resume(0), seen),
            Deed::WriteContinue => {
                write_elsewhere()?;
                outcome(names, resume(0), seen);
            }
            Deed::Protected => outcome(names, resume(COPY_MODE_WP), seen),
            Deed::ProtectedWake => {
                outcome(names, resume(COPY_MODE_WP | COPY_MODE_DONTWAKE), seen);
                seen.fact("wake", lab.uffd.wake(target));
            }
            Deed::Quiet => outcome(names, resume(COPY_MODE_DONTWAKE), seen),
            Deed::Next => outcome(names, lab.uffd.resume(lab.page(PAGE + 1), 0), seen),
            Deed::Copy => {
                outcome(("copy", "field"), lab.uffd.copy(target, lab.stage.source, 0), seen);
            }
            Deed::Zeropage => {
                outcome(("zeropage", "field"), lab.uffd.zeropage(target, 0), seen);
            }
            Deed::Punch => {
                seen.fact("punch", lab.block.discard(Discard::Punch, PAGE..PAGE + 1)?);
                outcome(names, resume(0), seen);
            }
            Deed::Foreign => {
                let other = lab.stage.uffd(0)?;
                outcome(names, other.resume(target, 0), seen);
            }
            Deed::Unregister => seen.fact("unregister", lab.uffd.unregister(lab.all())),
            Deed::Wake => seen.fact("wake", lab.uffd.wake(target)),
        }
        Ok(())
    }

    /// What the operation should return: its fact, return value, field, and source.
    fn returns(self) -> (&'static str, &'static str, Option<String>, &'static str) {
        let done = Some(length(self.backing));
        match self.deed {
            Deed::Copy if self.backing == Backing::Private => ("copy", "0", done, OBSERVED),
            Deed::Zeropage if self.backing == Backing::Private => ("zeropage", "0", done, OBSERVED),
            Deed::Copy => ("copy", "EEXIST", Some("-17".into()), OBSERVED),
            Deed::Zeropage => ("zeropage", "EEXIST", Some("-17".into()), OBSERVED),
            Deed::Punch => ("continue", "EFAULT", Some("-14".into()), REFUSES),
            Deed::Unregister => ("unregister", "0", None, source::UNREGISTER_WAKES),
            Deed::Wake => ("wake", "0", None, source::WAKE),
            Deed::Foreign => ("continue", "0", done, OBSERVED),
            _ => ("continue", "0", done, source::CONTINUE),
        }
    }
}

/// Writes to the page through a second mapping of the file.
fn write_elsewhere() -> Result<(), Stop> {
    touch::store(SPARE, tag::NEW)
        .map_err(|signal| Stop::Broken(format!("writing to page {PAGE} elsewhere: {signal}")))
}

/// Maps the page elsewhere, before anybody waits.
fn map_elsewhere(lab: &Lab<'_>) -> Result<(), Stop> {
    let at = crate::abi::Range { start: SPARE, len: lab.block.page };
    let file = lab.block.file.as_ref().map(AsFd::as_fd);
    let offset = PAGE * lab.block.page;
    let rc = map(at, crate::memory::RW, libc::MAP_SHARED, file, offset);
    if rc.is_ok() { Ok(()) } else { Err(Stop::Broken(format!("a second mapping: {rc}"))) }
}

impl Trial for Wakes {
    fn axes(&self) -> String {
        let Self { backing, deed, who, modes } = self;
        format!("backing={backing},mode={modes},act={deed},who={who}")
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        if self.modes == Modes::MinorWp {
            // CONTINUE's MODE_WP has no feature bit of its own; it came with this one.
            stage.must_offer(crate::abi::features::WP_UNPOPULATED)?;
        }
        let lab = Lab::new(stage, self.backing, 0)?;
        Page::Cached.make(&lab, PAGE)?;
        Page::Cached.make(&lab, PAGE + 1)?;
        map_elsewhere(&lab)?;
        lab.register(0..PAGES, self.modes.bits())?;
        let Some(mut waiter) = lab.meet(("access", "fault"), self.who, PAGE, seen)? else {
            return Ok(());
        };
        seen.step("act");
        self.act(&lab, seen)?;
        let mut waits = lab.look("waiter", &mut waiter, seen)?;
        seen.fact("queue", lab.queue.read()?);
        lab.entries("after", seen)?;
        if waits && self.deed.protects() {
            seen.fact("second", lab.read_fault()?);
            seen.fact("lift", lab.uffd.writeprotect(lab.page(PAGE), 0));
            waits = lab.look("freed", &mut waiter, seen)?;
        } else if waits && self.deed != Deed::Wake {
            waits = lab.rescue(&mut waiter, PAGE, seen)?;
        }
        if waits {
            lab.close(&waiter, seen)?;
        }
        Ok(())
    }

    fn expect(&self, _kernel: KernelVersion) -> Vec<Expected> {
        let Self { backing, deed, who, modes } = *self;
        let writes = who.write_faults(backing);
        let kind = if writes { "minor-write@2" } else { "minor-read@2" };
        let mut facts = want(MINOR, &[("access", "parks"), ("fault", kind)]);
        let (call, rc, field, says) = self.returns();
        if deed == Deed::Punch {
            facts.extend(want("fallocate(2)", &[("punch", "0")]));
        }
        facts.extend(want(says, &[(call, rc)]));
        if let Some(field) = &field {
            facts.extend(want(says, &[("field", field)]));
        }
        if deed == Deed::Unregister && modes == Modes::Both {
            // It wakes whoever waits in a mapping that is registered for missing pages.
            facts.extend(want(says, &[("waiter", &who.ran("kept")), ("queue", "0/0")]));
            // A read may map the neighbour too.
            facts.extend(want(says, &[("after", "--p?--")]));
            return facts;
        }
        let stuck = deed.protects() && writes;
        let (fate, queue) = match deed {
            Deed::Wake => ("again".to_owned(), "1/1"),
            _ if stuck => ("again".to_owned(), "1/1"),
            Deed::WriteContinue => (who.ran("new"), "0/0"),
            Deed::Copy if deed.wakes(backing) => (who.ran("copied"), "0/0"),
            Deed::Zeropage if deed.wakes(backing) => (who.ran("zero"), "0/0"),
            _ if deed.wakes(backing) => (who.ran("kept"), "0/0"),
            _ => ("asleep".to_owned(), "1/0"),
        };
        facts.extend(want(says, &[("waiter", &fate), ("queue", queue)]));
        let after = match deed {
            _ if deed.protects() => "--w---",
            Deed::Next => "---p--",
            Deed::Continue | Deed::WriteContinue | Deed::Quiet | Deed::Foreign => "--p---",
            Deed::Copy | Deed::Zeropage if deed.wakes(backing) => "--p---",
            _ => "------",
        };
        facts.extend(want(says, &[("after", after)]));
        if stuck {
            facts.extend(want(source::WRITEPROTECT, &[("second", "wp-write@2"), ("lift", "0")]));
            facts.extend(want(source::WRITEPROTECT, &[("freed", "ran")]));
        } else if !deed.wakes(backing) {
            let rescued = match deed {
                Deed::Next | Deed::Copy | Deed::Zeropage => "again".to_owned(),
                Deed::Punch if modes == Modes::Both => "again".to_owned(),
                Deed::Punch => who.ran("zero"),
                _ => who.ran("kept"),
            };
            facts.extend(want(source::RERUN, &[("rescue", "0"), ("rescued", &rescued)]));
            if rescued == "again" {
                let there = if deed == Deed::Punch { "zero" } else { "kept" };
                facts.extend(want(source::CLOSE, &[("closed", &who.ran(there))]));
            }
        } else if deed == Deed::Wake {
            facts.extend(want(source::CLOSE, &[("closed", &who.ran("kept"))]));
        }
        facts
    }

    fn recipe(&self) -> Vec<String> {
        let Self { backing, deed, who, modes } = self;
        vec![
            format!("pages 2 and 3 of a {backing} block are in the page cache; register: {modes}"),
            format!("a thread accesses page 2: {who}; it parks, its message is read"),
            format!("then: {deed}; look at the thread and the page table"),
            "if it still waits: WAKE; if it then parks again: close".into(),
        ]
    }

    fn uses_huge_pages(&self) -> bool {
        self.backing.is_huge()
    }
}
