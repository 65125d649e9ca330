//! Two events at once, events beside faults, events of one context beside another.

use super::ground::{Ground, MISSING, queues_behind, register};
use super::raised::{self, Asked};
use super::raiser::Raiser;
use super::unread::{REPAIRED, unread_field};
use crate::abi::Range;
use crate::expect::Expected;
use crate::memory::{Block, ONE_PAGE, OTHER};
use crate::model::source;
use crate::outcome::{Seen, Stop};
use crate::point::{Backing, PAGES, Waiter as Kind, axis};
use crate::probe::{Case, Probe, Trial};
use crate::stage::Stage;
use crate::waiter::Waiter;
use uffd_results::KernelVersion;

static TWO: Probe = Probe {
    suite: "events",
    name: "two-unread",
    statement: "Of two unread events the older is read first; COPY fails with EAGAIN until both are \
                read and both callers have returned (5.15; before, the first read let it through).",
    consumers: &["E2B orchestrator: classifyCopyResult()", "Firecracker UFFD handlers"],
};
static OTHERS: Probe = Probe {
    suite: "events",
    name: "other-context",
    statement: "An unread event stops the ioctls of its own context only: another context fills its \
                own block, and even the block whose event is unread.",
    consumers: &["crosvm: one userfaultfd a process", "CRIU lazy-pages: one userfaultfd a process"],
};
static ORDER: Probe = Probe {
    suite: "events",
    name: "read-order",
    statement: "Faults are read before events, whatever came first.",
    consumers: &[
        "Firecracker UFFD handlers: on_demand_handler",
        "E2B orchestrator: TestWriteThenRemoveGated",
    ],
};

#[derive(Debug)]
struct Two {
    backing: Backing,
    first: Raiser,
    second: Raiser,
}

impl Trial for Two {
    fn axes(&self) -> String {
        let Self { backing, first, second } = self;
        format!("backing={backing},first={first},second={second}")
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        let Self { backing, first, second } = *self;
        seen.step("set-up");
        let ground = Ground::set(stage, backing, first.feature() | second.feature())?;
        let copy = || ground.uffd.copy(ground.target(), stage.source, 0);
        seen.step("first");
        let one = first.raise(&ground)?;
        seen.step("second");
        let two = second.start(&ground, 1)?;
        if !queues_behind(stage, &two.mover)? {
            return Err(Stop::Unsupported(format!("no second event: {}", two.mover.join()?)));
        }
        seen.step("read");
        seen.fact("copy-two", copy().0);
        seen.fact("event-one", ground.read());
        seen.fact("call-one", one.join()?);
        let (rc, field) = copy();
        seen.fact("copy-one", rc);
        seen.fact("field-one", field);
        seen.fact("event-two", ground.read());
        seen.fact("call-two", two.join()?);
        let (rc, field) = copy();
        seen.fact("copy-none", rc);
        seen.fact("field-none", field);
        seen.fact("left", ground.read());
        Ok(())
    }

    fn expect(&self, kernel: KernelVersion) -> Vec<Expected> {
        let counts = "commit a759a909d42d (5.15): mmap_changing counts events; before, it was a flag \
                      that the first caller to go on cleared";
        let fifo = "find_userfault_in(): the oldest entry of the queue";
        let is_flag = kernel < KernelVersion::new(5, 15, 0);
        let mut facts = vec![
            Expected::new("copy-two", "EAGAIN", counts),
            Expected::new("event-one", self.first.event(0), fifo),
            Expected::new("call-one", "0", fifo),
            Expected::new("copy-one", if is_flag { "0" } else { "EAGAIN" }, counts),
        ];
        let field = if is_flag { ONE_PAGE } else { unread_field(kernel) };
        facts.extend([
            Expected::new("field-one", field, REPAIRED),
            Expected::new("event-two", self.second.event(1), fifo),
            Expected::new("call-two", "0", fifo),
            Expected::new("copy-none", if is_flag { "EEXIST" } else { "0" }, counts),
            Expected::new("field-none", if is_flag { "-17" } else { ONE_PAGE }, counts),
            Expected::new("left", "EAGAIN", fifo),
        ]);
        facts
    }

    fn recipe(&self) -> Vec<String> {
        vec![
            "map and register a block of 6 pages, page 2 missing".to_owned(),
            self.first.recipe(0),
            self.second.recipe(1),
            "UFFDIO_COPY to page 2; read an event and wait for the first call's return".to_owned(),
            "UFFDIO_COPY to page 2; read an event and wait for the second call's return".to_owned(),
            "UFFDIO_COPY to page 2; read once more".to_owned(),
        ]
    }
}

axis! {
    /// Who copies where while the event of the block's context is unread.
    Who {
        /// The context of the block, to its block: the control.
        Own = "own",
        /// Another context, to a block of its own.
        Beside = "beside",
        /// Another context, to the block whose event is unread.
        Through = "through",
    }
}

impl Asked for Who {
    const AXIS: &'static str = "copy";

    fn ask(self, event: Raiser, ground: Ground<'_>, seen: &mut Seen<'_>) -> Result<(), Stop> {
        let beside = Block::map(ground.block.backing, OTHER)?;
        let second = ground.stage.uffd(0)?;
        register(&second, beside.at(OTHER, 0..PAGES))?;
        let raised = event.raise(&ground)?;
        seen.step("copy");
        let own: Range = ground.target();
        let (uffd, at) = match self {
            Self::Own => (&ground.uffd, own),
            Self::Beside => (&second, beside.at(OTHER, MISSING..MISSING + 1)),
            Self::Through => (&second, own),
        };
        let (rc, field) = uffd.copy(at, ground.stage.source, 0);
        seen.fact("copy", rc);
        seen.fact("field", field);
        seen.fact("pages", ground.pages()?);
        seen.fact("event", ground.read());
        seen.fact("call", raised.join()?);
        Ok(())
    }

    fn expect(self, event: Raiser, kernel: KernelVersion) -> Vec<Expected> {
        let says = "userfaultfd_copy(): mmap_changing of the context that the ioctl came through";
        let refused = self == Self::Own;
        let field = if refused { unread_field(kernel) } else { ONE_PAGE };
        vec![
            Expected::new("copy", if refused { "EAGAIN" } else { "0" }, says),
            Expected::new("field", field, REPAIRED),
            Expected::new("pages", if self == Self::Through { "?kckkk" } else { "?k-kkk" }, says),
            Expected::new("event", event.event(0), says),
            Expected::new("call", "0", says),
        ]
    }

    fn recipe(self, event: Raiser) -> Vec<String> {
        let copy = match self {
            Self::Own => "UFFDIO_COPY to page 2 of the first block through its own userfaultfd",
            Self::Beside => "UFFDIO_COPY to page 2 of the second block through its own userfaultfd",
            Self::Through => {
                "UFFDIO_COPY to page 2 of the first block through the second userfaultfd"
            }
        };
        vec![
            "map two blocks of 6 pages and register each with a userfaultfd of its own".to_owned(),
            event.recipe(0),
            copy.to_owned(),
            "look at the first block's pages; read the event".to_owned(),
        ]
    }
}

axis! {
    /// What comes first.
    First {
        /// The fault.
        Fault = "fault",
        /// The event.
        Event = "event",
    }
}

axis! {
    /// How the messages are read.
    Reading {
        /// One a call.
        Single = "single",
        /// All in one call.
        Several = "several",
    }
}

#[derive(Debug)]
struct Order {
    backing: Backing,
    event: Raiser,
    first: First,
    reading: Reading,
}

impl Trial for Order {
    fn axes(&self) -> String {
        let Self { backing, event, first, reading } = self;
        format!("backing={backing},event={event},first={first},read={reading}")
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        seen.step("set-up");
        let ground = Ground::set(stage, self.backing, self.event.feature())?;
        let start = || Waiter::start(stage, Kind::UserRead, ground.target());
        let (mut waiter, raised);
        match self.first {
            First::Fault => {
                waiter = start()?;
                waiter.settle_by_queue(&ground.queue)?;
                raised = self.event.start(&ground, 0)?;
                if !queues_behind(stage, &raised.mover)? {
                    return Err(Stop::Unsupported("the call raised no event".into()));
                }
            }
            First::Event => {
                raised = self.event.raise(&ground)?;
                waiter = start()?;
                waiter.settle_by_queue(&ground.queue)?;
            }
        }
        seen.fact("queue", ground.queue.read()?);
        seen.step("read");
        match self.reading {
            Reading::Single => {
                seen.fact("message-one", ground.read());
                seen.fact("message-two", ground.read());
            }
            Reading::Several => {
                let names = ground.uffd.read_several();
                let names = names.map_or_else(|e| format!("{e:?}"), |names| names.join(","));
                seen.fact("messages", names);
            }
        }
        seen.fact("left", ground.read());
        seen.fact("call", raised.join()?);
        seen.step("copy");
        seen.fact("copy", ground.uffd.copy(ground.target(), stage.source, 0).0);
        let fate = waiter.look_by_queue(&ground.queue)?;
        seen.fact("waiter", stage.word(fate));
        Ok(())
    }

    fn expect(&self, _: KernelVersion) -> Vec<Expected> {
        let says = "userfaultfd_ctx_read(): looks for faults first, then for events";
        let mut facts = vec![Expected::new("queue", "1/1", says)];
        match self.reading {
            Reading::Single => facts.extend([
                Expected::new("message-one", "pagefault@2", says),
                Expected::new("message-two", self.event.event(0), says),
            ]),
            Reading::Several => {
                facts.push(Expected::new("messages", format!("pagefault,{}", self.event), says));
            }
        }
        facts.extend([
            Expected::new("left", "EAGAIN", says),
            Expected::new("call", "0", says),
            Expected::new("copy", "0", source::COPY),
            Expected::new("waiter", "ran:copied", source::COPY),
        ]);
        facts
    }

    fn recipe(&self) -> Vec<String> {
        let fault = "a thread loads from page 2 and parks".to_owned();
        let event = self.event.recipe(0);
        let (one, two) = match self.first {
            First::Fault => (fault, event),
            First::Event => (event, fault),
        };
        let read = match self.reading {
            Reading::Single => "read three times, a message each",
            Reading::Several => "read once with room for four messages, and once more",
        };
        vec![
            "map and register a block of 6 pages, page 2 missing".to_owned(),
            one,
            two,
            read.to_owned(),
            "wait until the call has returned; UFFDIO_COPY to page 2; look at the waiter"
                .to_owned(),
        ]
    }
}

/// The cases.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for backing in [Backing::Anon, Backing::Shmem, Backing::Private] {
        let by_default = backing != Backing::Private;
        for event in Raiser::ALL {
            for second in Raiser::ALL {
                // With both features mremap raises two events of its own.
                if matches!(
                    (event, second),
                    (Raiser::Unmap, Raiser::Remap) | (Raiser::Remap, Raiser::Unmap)
                ) {
                    continue;
                }
                let trial = Two { backing, first: *event, second: *second };
                cases.push(Case::trial(&TWO, trial, by_default));
            }
            for who in Who::ALL {
                cases.push(raised::case(&OTHERS, (backing, *event, *who), by_default));
            }
            for first in First::ALL {
                for reading in Reading::ALL {
                    let (first, reading) = (*first, *reading);
                    let trial = Order { backing, event: *event, first, reading };
                    cases.push(Case::trial(&ORDER, trial, by_default));
                }
            }
        }
    }
    cases
}
