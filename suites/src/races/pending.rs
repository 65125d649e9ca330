//! Several threads that wait for their events to be read, each of another kind, beside a fault: in which
//! order reading lets them go, and what closing does.

use super::stopped::leak;
use crate::abi::Uffd;
use crate::events::ground::{self, Ground, queues_behind};
use crate::events::raiser::{Raised, Raiser};
use crate::evidence;
use crate::expect::Expected;
use crate::model::source as says;
use crate::outcome::{Seen, Stop};
use crate::point::{Backing, PAGES, Waiter as Kind, axis};
use crate::probe::{Case, Probe, Trial};
use crate::stage::Stage;
use crate::waiter::Waiter;
use uffd_results::KernelVersion;

static PENDING: Probe = Probe {
    suite: "races",
    name: "pending",
    statement: "Of several unread events each read lets go the one caller whose event it was, the oldest \
                first; the last close lets all of them go and the waiters of faults with them, unless a \
                fork is among them, whose child holds the context already.",
    consumers: &[
        "libfabric: ofi_uffd_handler(), prov/util/src/util_mem_monitor.c",
        "CRIU lazy-pages: the daemon's death frees a restored task, criu/uffd.c",
    ],
};

axis! {
    /// The events that are unread, in their order.
    Set {
        /// REMOVE, UNMAP.
        RemoveUnmap = "remove+unmap",
        /// UNMAP, REMOVE.
        UnmapRemove = "unmap+remove",
        /// REMOVE, REMAP.
        RemoveRemap = "remove+remap",
        /// REMAP, UNMAP: a mremap that would raise a second event.
        RemapUnmap = "remap+unmap",
        /// REMOVE, FORK.
        RemoveFork = "remove+fork",
        /// FORK, UNMAP.
        ForkUnmap = "fork+unmap",
        /// REMOVE, UNMAP, REMAP.
        Three = "remove+unmap+remap",
        /// REMOVE, UNMAP, REMAP, FORK.
        All = "remove+unmap+remap+fork",
    }
}

impl Set {
    const fn raisers(self) -> &'static [Raiser] {
        use Raiser::{Fork, Remap, Remove, Unmap};
        match self {
            Self::RemoveUnmap => &[Remove, Unmap],
            Self::UnmapRemove => &[Unmap, Remove],
            Self::RemoveRemap => &[Remove, Remap],
            Self::RemapUnmap => &[Remap, Unmap],
            Self::RemoveFork => &[Remove, Fork],
            Self::ForkUnmap => &[Fork, Unmap],
            Self::Three => &[Remove, Unmap, Remap],
            Self::All => &[Remove, Unmap, Remap, Fork],
        }
    }

    fn has(self, raiser: Raiser) -> bool {
        self.raisers().contains(&raiser)
    }

    /// The page that the call at `n` concerns; a fork concerns none.
    fn slot(self, n: usize) -> usize {
        self.raisers()[..n].iter().filter(|raiser| **raiser != Raiser::Fork).count()
    }
}

axis! {
    /// What is done about them.
    By {
        /// They are read one by one.
        Read = "read",
        /// The only descriptor is closed.
        Close = "close",
        /// One of two descriptors is closed; then they are read.
        CloseOne = "close-one-read",
    }
}

#[derive(Debug)]
struct Pending {
    backing: Backing,
    set: Set,
    by: By,
}

/// How many of the callers wait still. Each read wakes them all, and those whose event it was not sleep
/// again: so each is waited for until it sleeps, or has returned.
fn waiting(stage: &Stage, callers: &[Raised]) -> Result<usize, Stop> {
    callers
        .iter()
        .try_fold(0, |n, caller| Ok(n + usize::from(queues_behind(stage, &caller.mover)?)))
}

const READS: [(&str, &str, &str); 4] = [
    ("event-one", "call-one", "waiting-one"),
    ("event-two", "call-two", "waiting-two"),
    ("event-three", "call-three", "waiting-three"),
    ("event-four", "call-four", "waiting-four"),
];

impl Pending {
    fn callers(&self, ground: &Ground<'_>) -> Result<Vec<Raised>, Stop> {
        let mut callers = Vec::new();
        for (n, raiser) in self.set.raisers().iter().enumerate() {
            let slot = if *raiser == Raiser::Fork { 0 } else { self.set.slot(n) };
            let raised = raiser.start(ground, slot)?;
            if !queues_behind(ground.stage, &raised.mover)? {
                return Err(Stop::Unsupported(format!("{raiser} raised no event")));
            }
            callers.push(raised);
        }
        Ok(callers)
    }
}

/// Reads the fault and then event after event; after each, how many callers wait still.
fn read_all(
    stage: &Stage,
    uffd: &Uffd,
    page: usize,
    callers: &[Raised],
    seen: &mut Seen<'_>,
) -> Result<(), Stop> {
    seen.fact("fault", ground::word(uffd, page));
    for (n, (caller, names)) in callers.iter().zip(READS).enumerate() {
        seen.fact(names.0, ground::word(uffd, page));
        seen.fact(names.1, caller.join()?);
        seen.fact(names.2, waiting(stage, &callers[n + 1..])?);
    }
    seen.fact("left", ground::word(uffd, page));
    Ok(())
}

impl Trial for Pending {
    fn axes(&self) -> String {
        let Self { backing, set, by } = self;
        format!("backing={backing},unread={set},by={by}")
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        seen.step("set-up");
        let wanted = self.set.raisers().iter().fold(0, |bits, raiser| bits | raiser.feature());
        let ground = Ground::set(stage, self.backing, wanted)?;
        let target = ground.target();
        let waiter = Waiter::park(stage, Kind::UserRead, target, &ground.uffd, &ground.queue)?;
        seen.step("calls");
        let callers = self.callers(&ground)?;
        seen.step("act");
        let second = if self.by == By::CloseOne { Some(leak(&ground.uffd)?) } else { None };
        let Ground { uffd, block, .. } = ground;
        let (all, page) = (block.range(0..PAGES), block.page);
        match self.by {
            By::Read => read_all(stage, &uffd, page, &callers, seen)?,
            By::Close | By::CloseOne => drop(uffd),
        }
        if let Some(second) = second {
            seen.fact("waiting", waiting(stage, &callers)?);
            seen.fact("asleep", stage.word(waiter.look_alone()?));
            read_all(stage, second, page, &callers, seen)?;
            seen.fact("copy", second.copy(target, stage.source, 0).0);
        } else if self.by == By::Close && self.set.has(Raiser::Fork) {
            // For ever, so that nothing is left to be asked but whether.
            seen.fact("waiting", waiting(stage, &callers)?);
            seen.fact("waiter", stage.word(waiter.look_alone()?));
            return Ok(());
        } else if self.by == By::Close {
            for (caller, names) in callers.iter().zip(READS) {
                seen.fact(names.1, caller.join()?);
            }
        } else {
            return Ok(());
        }
        seen.fact("waiter", stage.word(waiter.end()?));
        seen.fact("reg", evidence::registration(&[(all, page)])?.concat());
        seen.fact("pages", evidence::pages(all, page, &|value| stage.letter(value))?);
        Ok(())
    }

    fn expect(&self, _: KernelVersion) -> Vec<Expected> {
        let Self { set, by, .. } = *self;
        let fifo = "find_userfault_in(): the oldest entry of the queue; userfaultfd_event_complete() wakes \
                    all callers, and all but its own sleep again";
        let flush = "userfaultfd_release(): wakes event_wqh as a whole; who then raises another event finds \
                     the context released";
        let child = "copy_process(): copy_files() comes before copy_mm(), so the child in the making holds \
                     the descriptor";
        let count = set.raisers().len();
        let mut facts = Vec::new();
        if by == By::Close && set.has(Raiser::Fork) {
            facts.push(Expected::new("waiting", count.to_string(), child));
            facts.push(Expected::new("waiter", "asleep", child));
            return facts;
        }
        if by == By::CloseOne {
            facts.push(Expected::new("waiting", count.to_string(), "close(2)"));
            facts.push(Expected::new("asleep", "asleep", "close(2)"));
        }
        if by != By::Close {
            facts.push(Expected::new("fault", "pagefault@2", "userfaultfd_ctx_read()"));
        }
        for (n, (raiser, names)) in set.raisers().iter().zip(READS).enumerate() {
            if by == By::Close {
                facts.push(Expected::new(names.1, "0", flush));
                continue;
            }
            let slot = if *raiser == Raiser::Fork { 0 } else { set.slot(n) };
            facts.push(Expected::new(names.0, raiser.event(slot), fifo));
            facts.push(Expected::new(names.1, "0", fifo));
            facts.push(Expected::new(names.2, (count - n - 1).to_string(), fifo));
        }
        if by != By::Close {
            facts.push(Expected::new("left", "EAGAIN", fifo));
        }
        if by == By::CloseOne {
            facts.push(Expected::new("copy", "0", says::COPY));
        }
        if by == By::Read {
            return facts;
        }
        let (waiter, why) =
            if by == By::Close { ("ran:zero", says::CLOSE) } else { ("ran:copied", says::COPY) };
        facts.push(Expected::new("waiter", waiter, why));
        let (mut reg, mut pages) = ([b'm'; PAGES], *b"kk?kkk");
        if by == By::Close {
            reg = [b'.'; PAGES];
        }
        pages[2] = if by == By::Close { b'0' } else { b'c' };
        for (n, raiser) in set.raisers().iter().enumerate() {
            let at = crate::events::raiser::SLOTS[set.slot(n).min(2)];
            match raiser {
                Raiser::Fork => {}
                // Shared memory comes back from the page cache, or not, as it is mapped.
                Raiser::Remove => pages[at] = b'?',
                Raiser::Unmap | Raiser::Remap => {
                    (reg[at], pages[at]) = (b'-', b'-');
                }
            }
        }
        let row = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        facts.push(Expected::new("reg", row(&reg), why));
        facts.push(Expected::new("pages", row(&pages), why));
        facts
    }

    fn recipe(&self) -> Vec<String> {
        let mut steps = vec![
            format!("map and register a block of 6 pages ({}), page 2 missing", self.backing),
            "a thread loads from page 2 and parks; its message stays unread".to_owned(),
        ];
        for (n, raiser) in self.set.raisers().iter().enumerate() {
            steps.push(raiser.recipe(self.set.slot(n).min(2)));
        }
        steps.push(format!("what is done: {}; after each read look at who waits still", self.by));
        steps.push("what became of everybody; look at every page".to_owned());
        steps
    }
}

/// The cases.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for backing in [Backing::Anon, Backing::Shmem, Backing::Private] {
        for set in Set::ALL {
            for by in By::ALL {
                // With both features the mremap raises two events, the second once the first is read.
                let twice = set.has(Raiser::Remap) && set.has(Raiser::Unmap);
                if twice && *by != By::Close {
                    continue;
                }
                let trial = Pending { backing, set: *set, by: *by };
                cases.push(Case::trial(&PENDING, trial, backing != Backing::Private));
            }
        }
    }
    cases
}
