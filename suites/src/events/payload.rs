//! What events a call raises, with which payload and in which order, and what has happened already
//! when the first is read.

use super::call::{Advice, Call, Fresh, How, Ready, What};
use super::ground::{ALL, FOLLOW, Ground, NONE, REMOVE, UNMAP, WANTS, Wants, asleep};
use super::model;
use crate::expect::Expected;
use crate::mover::Mover;
use crate::outcome::{Seen, Stop};
use crate::point::Backing;
use crate::probe::{Case, Probe, Trial};
use crate::stage::Stage;
use uffd_results::KernelVersion;

const CRIU: &str = "CRIU lazy-pages: handle_remove(), handle_remap(), criu/uffd.c";
const OFI: &str = "libfabric: ofi_uffd_handler(), prov/util/src/util_mem_monitor.c";

static MUNMAP: Probe = Probe {
    suite: "events",
    name: "munmap",
    statement: "With EVENT_UNMAP, munmap of registered memory raises one UNMAP with the whole range of \
                the call after the memory is gone; without the feature, or where nothing is \
                registered, none.",
    consumers: &[CRIU, OFI, "psm3: prov/psm3, mr cache"],
};
static MMAP_OVER: Probe = Probe {
    suite: "events",
    name: "mmap-over",
    statement: "With EVENT_UNMAP, mmap(MAP_FIXED) over registered memory raises UNMAP with the range \
                of the call; the new mapping is there when it is read.",
    consumers: &[CRIU, OFI, "Firecracker: balloon, discard_range()"],
};
static MREMAP: Probe = Probe {
    suite: "events",
    name: "mremap",
    statement: "mremap raises UNMAP of the target, then REMAP, then UNMAP of a cut tail, then UNMAP of \
                the old place, each if its feature was asked for; growth in place raises none.",
    consumers: &[CRIU, OFI, "psm3: prov/psm3, mr cache", "Android ART: mark_compact.cc"],
};
static DISCARD: Probe = Probe {
    suite: "events",
    name: "discard",
    statement: "With EVENT_REMOVE, MADV_DONTNEED, MADV_FREE and MADV_REMOVE raise one REMOVE a \
                registered mapping before its pages go; a punched hole, MADV_COLD and guard pages \
                raise none.",
    consumers: &[
        CRIU,
        OFI,
        "Firecracker UFFD handlers: unregister_range()",
        "crosvm: vmm-swap",
        "E2B orchestrator: TestRemoveThenWriteGated",
    ],
};

/// A call on a block whose context wants some events.
#[derive(Debug)]
struct Payload {
    backing: Backing,
    wants: Wants,
    call: Call,
}

impl Trial for Payload {
    fn axes(&self) -> String {
        let Self { backing, wants, call } = self;
        format!("backing={backing},{},events={}", call.axes(), wants.word)
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        let Self { backing, wants, call } = *self;
        seen.step("set-up");
        let ground = Ground::set_part(stage, backing, wants.bits, call.registered())?;
        let ready = Ready::new(&ground, call)?;
        seen.step("call");
        let mover = Mover::start(stage, ready.call(&ground.block, call))?;
        let mut events = String::with_capacity(256);
        while mover.blocks_on_event(&ground.uffd)? {
            if events.is_empty() {
                let (file, _) = asleep(stage, &mover)?;
                seen.fact("caller", file.state()?);
                let early = ["early-reg", "early-pages", "early-new-reg", "early-new-pages"];
                ground.survey(early, seen)?;
            } else {
                events.push(',');
            }
            events.push_str(&ground.read());
        }
        seen.fact("events", if events.is_empty() { "none" } else { &events });
        seen.fact("call", mover.join()?);
        seen.fact("left", ground.read());
        ground.survey(["reg", "pages", "new-reg", "new-pages"], seen)
    }

    fn expect(&self, kernel: KernelVersion) -> Vec<Expected> {
        model::expect(self.call, self.wants, self.backing, kernel)
    }

    fn recipe(&self) -> Vec<String> {
        let Self { backing, wants, call } = self;
        let pages = call.registered();
        vec![
            format!("map a block of 6 pages ({backing}); write to all but page 2"),
            format!(
                "UFFDIO_API with the event features {}, UFFDIO_REGISTER of pages {}..{} for missing \
                 pages",
                wants.word, pages.start, pages.end
            ),
            format!("a thread calls {call} (addresses in pages from the block's start)"),
            "while it waits for an event to be read: read one; at the first, look at the thread's \
             state and at every page"
                .to_owned(),
            "when it has returned: read once more; look at registration and content of every page \
             of the block's place and of the new one"
                .to_owned(),
        ]
    }

    fn uses_huge_pages(&self) -> bool {
        self.backing.is_huge()
    }
}

const SMALL: &[Backing] = &[Backing::Anon, Backing::Shmem, Backing::Private, Backing::SharedAnon];

/// Every call with its probe.
fn calls(backing: Backing) -> Vec<(&'static Probe, Call)> {
    if backing.is_huge() {
        return vec![
            (&MUNMAP, Call::Unmap(What::Whole)),
            (&MUNMAP, Call::Unmap(What::Middle)),
            (&MMAP_OVER, Call::Over(What::Middle, Fresh::Same)),
            (&MREMAP, Call::Remap(How::Move)),
            (&DISCARD, Call::Advise(Advice::DontNeed, What::Page)),
            (&DISCARD, Call::Advise(Advice::DontNeed, What::Byte)),
        ];
    }
    let mut calls: Vec<(&'static Probe, Call)> = Vec::new();
    let whole = [What::Whole, What::Middle, What::Around, What::Split];
    let half = [What::HalfRegistered, What::Unregistered];
    for what in [What::Head, What::Tail, What::Byte].iter().chain(&whole).chain(&half) {
        calls.push((&MUNMAP, Call::Unmap(*what)));
    }
    for fresh in Fresh::ALL {
        for what in whole.iter().chain(&half).chain(&[What::Head, What::Tail]) {
            let is_same = *fresh == Fresh::Same;
            let is_cut = matches!(what, What::Around | What::Split | What::Unregistered);
            if !is_same || !is_cut {
                calls.push((&MMAP_OVER, Call::Over(*what, *fresh)));
            }
        }
    }
    for how in How::ALL {
        if *how != How::Duplicate || !backing.is_private() {
            calls.push((&MREMAP, Call::Remap(*how)));
        }
    }
    let advised = [What::Page, What::Whole, What::Split, What::Around, What::Byte];
    for advice in Advice::ALL {
        for what in advised.iter().chain(&half) {
            let is_punch = *advice == Advice::Punch;
            let can_punch = matches!(backing, Backing::Shmem | Backing::Private);
            if !is_punch || (can_punch && matches!(what, What::Page | What::Whole | What::Split)) {
                calls.push((&DISCARD, Call::Advise(*advice, *what)));
            }
        }
    }
    calls
}

fn is_default(call: Call, backing: Backing, wants: Wants) -> bool {
    let set = wants.word;
    let is_one_of = |sets: &[Wants]| sets.iter().any(|w| w.word == set);
    match (backing, call) {
        (Backing::HugetlbPrivate, _) => false,
        (Backing::Anon, Call::Unmap(_) | Call::Remap(_)) => true,
        (Backing::Anon, Call::Advise(..)) => is_one_of(&[NONE, REMOVE, ALL]),
        (Backing::Anon, Call::Over(..)) => is_one_of(&[NONE, UNMAP, ALL]),
        (Backing::Shmem, Call::Remap(_)) => is_one_of(&[NONE, UNMAP, FOLLOW]),
        (Backing::Shmem, Call::Unmap(_)) => is_one_of(&[NONE, ALL]),
        (_, Call::Over(_, fresh)) => set == ALL.word && fresh == Fresh::Same,
        _ => set == ALL.word,
    }
}

/// The cases.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for backing in SMALL.iter().chain(&[Backing::HugetlbShared, Backing::HugetlbPrivate]) {
        for (probe, call) in calls(*backing) {
            for wants in WANTS {
                let trial = Payload { backing: *backing, wants: *wants, call };
                cases.push(Case::trial(probe, trial, is_default(call, *backing, *wants)));
            }
        }
    }
    cases
}
