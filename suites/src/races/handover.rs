//! A range that goes from one userfaultfd to another while a thread waits for it: UNREGISTER leaves
//! waiters of protection and of minor faults asleep, and REGISTER by another does not take them over.

use crate::abi::{REGISTER_MODE_MINOR, REGISTER_MODE_WP, Rc, Uffd, WRITEPROTECT_MODE_WP, Way};
use crate::evidence::QueueFile;
use crate::expect::Expected;
use crate::lab::Lab;
use crate::memory;
use crate::model::source as says;
use crate::outcome::{Seen, Stop};
use crate::point::{Backing, PAGES, Waiter as Kind, axis};
use crate::probe::{Case, Probe, Trial};
use crate::scenario::fault_word;
use crate::stage::Stage;
use crate::waiter::{Fate, Waiter};
use uffd_results::KernelVersion;

static HANDOVER: Probe = Probe {
    suite: "races",
    name: "handover",
    statement: "A thread that waits for protected memory, or for a minor fault, stays with its own context \
                when the range is unregistered and another context registers it: only its own context \
                wakes it, and then it waits with the other.",
    consumers: &[
        "QEMU: a background snapshot after another, migration/ram.c",
        "crosvm: swap/ after a device restarts",
    ],
};

axis! {
    /// For what both register.
    For {
        /// Write protection.
        Wp = "wp",
        /// Minor faults.
        Minor = "minor",
    }
}

axis! {
    /// What is done once the other one has registered.
    Act {
        /// The other one resolves the fault.
        ResolveOther = "resolve-other",
        /// WAKE through the other one.
        WakeOther = "wake-other",
        /// WAKE through the waiter's own.
        WakeOwn = "wake-own",
        /// The waiter's own is closed.
        CloseOwn = "close-own",
        /// The other one is closed.
        CloseOther = "close-other",
    }
}

#[derive(Debug)]
struct Handover {
    backing: Backing,
    purpose: For,
    who: Kind,
    act: Act,
}

/// The waiter's page.
const PAGE: usize = 2;

impl Handover {
    const fn mode(&self) -> u64 {
        match self.purpose {
            For::Wp => REGISTER_MODE_WP,
            For::Minor => REGISTER_MODE_MINOR,
        }
    }

    /// Protects the page, where that is what both are for.
    fn arm(&self, uffd: &Uffd, lab: &Lab<'_>) -> Result<(), Stop> {
        if self.purpose == For::Minor {
            return Ok(());
        }
        match uffd.writeprotect(lab.page(PAGE), WRITEPROTECT_MODE_WP) {
            rc if rc.is_ok() => Ok(()),
            rc => Err(Stop::Broken(format!("WRITEPROTECT: {rc}"))),
        }
    }

    fn resolve(&self, uffd: &Uffd, lab: &Lab<'_>) -> Rc {
        match self.purpose {
            For::Wp => uffd.writeprotect(lab.page(PAGE), 0),
            For::Minor => uffd.resume(lab.page(PAGE), 0).0,
        }
    }
}

/// What became of the waiter, which waits with its own context or, once woken, with the other.
fn look(
    waiter: &mut Waiter,
    own: &QueueFile,
    (uffd, queue): (&Uffd, &QueueFile),
) -> Result<Fate, Stop> {
    if own.read()?.total > 0 { waiter.look_alone() } else { waiter.settle(uffd, queue) }
}

impl Trial for Handover {
    fn axes(&self) -> String {
        let Self { backing, purpose, who, act } = self;
        format!("backing={backing},mode={purpose},waiter={who},act={act}")
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        seen.step("set-up");
        let in_kernel = self.who.in_kernel();
        if in_kernel && stage.way == Ok(Way::UserModeOnly) {
            return Err(Stop::Denied("kernel-mode faults are not caught here".into()));
        }
        let lab = Lab::new(stage, self.backing, 0)?;
        lab.fill(0..PAGES)?;
        if self.purpose == For::Minor {
            // The page stays in the page cache.
            memory::dontneed(lab.page(PAGE));
        }
        lab.register(0..PAGES, self.mode())?;
        self.arm(&lab.uffd, &lab)?;
        let Some(mut waiter) = lab.meet(("waiter", "fault"), self.who, PAGE, seen)? else {
            return Ok(());
        };
        seen.step("hand over");
        seen.fact("unregister", lab.uffd.unregister(lab.all()));
        seen.fact("left", stage.word(waiter.look_alone()?));
        let other = stage.uffd(0)?;
        let queue = QueueFile::open(&other)?;
        seen.fact("register", Rc(other.register(lab.all(), self.mode()).err()));
        self.arm(&other, &lab)?;
        seen.fact("queues", format!("{}+{}", lab.queue.read()?, queue.read()?));
        seen.step("act");
        let page = lab.page(PAGE);
        match self.act {
            Act::ResolveOther => seen.fact("act", self.resolve(&other, &lab)),
            Act::WakeOther => seen.fact("act", other.wake(page)),
            Act::WakeOwn => seen.fact("act", lab.uffd.wake(page)),
            Act::CloseOwn => {
                drop(lab.uffd);
                seen.fact("after", stage.word(waiter.settle(&other, &queue)?));
                seen.fact("message", message(&other, lab.block.page));
                let rc = match self.purpose {
                    For::Wp => other.writeprotect(page, 0),
                    For::Minor => other.resume(page, 0).0,
                };
                seen.fact("resolve", rc);
                seen.fact("outcome", stage.word(waiter.end()?));
                return Ok(());
            }
            Act::CloseOther => {
                drop(queue);
                drop(other);
                seen.fact("after", stage.word(waiter.look_alone()?));
                seen.fact("wake", lab.uffd.wake(page));
                seen.fact("outcome", stage.word(waiter.end()?));
                return Ok(());
            }
        }
        let mut fate = look(&mut waiter, &lab.queue, (&other, &queue))?;
        seen.fact("after", stage.word(fate));
        if fate == Fate::Asleep {
            seen.fact("wake", lab.uffd.wake(page));
            fate = look(&mut waiter, &lab.queue, (&other, &queue))?;
            seen.fact("woken", stage.word(fate));
        }
        if fate == Fate::Again {
            seen.fact("message", message(&other, lab.block.page));
            seen.fact("resolve", self.resolve(&other, &lab));
            seen.fact("outcome", stage.word(waiter.end()?));
        }
        Ok(())
    }

    fn expect(&self, _: KernelVersion) -> Vec<Expected> {
        let stays = "handle_userfault(): the waiter hangs on the context that it faulted with; \
                     userfaultfd_unregister() wakes only where missing faults are registered";
        let kind = match self.purpose {
            For::Wp => "wp-write",
            For::Minor => "minor-read",
        };
        let fault = format!("{kind}@{PAGE}");
        let ran = self.who.ran("kept");
        let mut facts = vec![
            Expected::new("waiter", "parks", stays),
            Expected::new("fault", fault.clone(), stays),
            Expected::new("unregister", "0", says::UNREGISTER),
            Expected::new("left", "asleep", stays),
            Expected::new("register", "0", "ioctl_userfaultfd(2), UFFDIO_REGISTER"),
            Expected::new("queues", "1/0+0/0", stays),
        ];
        let again = |name: &'static str| {
            [
                Expected::new(name, "again", says::RERUN),
                Expected::new("message", fault.clone(), says::RERUN),
                Expected::new("resolve", "0", says::WRITEPROTECT),
                Expected::new("outcome", ran.clone(), says::WRITEPROTECT),
            ]
        };
        if !matches!(self.act, Act::CloseOwn | Act::CloseOther) {
            facts.push(Expected::new("act", "0", stays));
        }
        if !matches!(self.act, Act::WakeOwn | Act::CloseOwn) {
            facts.push(Expected::new("after", "asleep", stays));
            facts.push(Expected::new("wake", "0", says::WAKE));
        }
        match self.act {
            Act::ResolveOther => facts.push(Expected::new("woken", ran.clone(), says::WAKE)),
            Act::WakeOther => facts.extend(again("woken")),
            Act::WakeOwn | Act::CloseOwn => facts.extend(again("after")),
            Act::CloseOther => facts.push(Expected::new("outcome", ran.clone(), says::WAKE)),
        }
        facts
    }

    fn recipe(&self) -> Vec<String> {
        vec![
            format!("map a block of 6 pages ({}), write to it", self.backing),
            format!("register it for {}; a {} thread parks on page {PAGE}", self.purpose, self.who),
            "UFFDIO_UNREGISTER; UFFDIO_REGISTER for the same with a second userfaultfd, protect again"
                .to_owned(),
            format!("then: {}; look at the waiter", self.act),
            "UFFDIO_WAKE through the first if it sleeps; resolve its fault through the second".to_owned(),
        ]
    }
}

/// The next message, in words.
fn message(uffd: &Uffd, page: usize) -> String {
    use crate::abi::Message;
    match uffd.read() {
        Ok(Message::Pagefault { address, flags, .. }) => {
            format!("{}@{}", fault_word(flags), address.wrapping_sub(memory::BLOCK) / page)
        }
        other => crate::mover::word(other),
    }
}

/// The cases.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let points = [
        (Backing::Anon, For::Wp, [Kind::UserWrite, Kind::SysRead]),
        (Backing::Shmem, For::Wp, [Kind::UserWrite, Kind::SysRead]),
        (Backing::Shmem, For::Minor, [Kind::UserRead, Kind::SysWrite]),
        (Backing::SharedAnon, For::Minor, [Kind::UserRead, Kind::SysWrite]),
    ];
    for (backing, purpose, waiters) in points {
        for who in waiters {
            for act in Act::ALL {
                let trial = Handover { backing, purpose, who, act: *act };
                cases.push(Case::trial(&HANDOVER, trial, backing != Backing::SharedAnon));
            }
        }
    }
    cases
}
