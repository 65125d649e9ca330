//! The moment between the read of an event and the return of its caller from the system call. All
//! threads stay on one CPU, and the reader goes before the others: so the moment lasts until the
//! reader sleeps, and the caller's switches prove that it has not run.

use crate::abi::Request;
use crate::events::ground::{Ground, MISSING, asleep};
use crate::events::raiser::{Raiser, SLOTS};
use crate::events::unread::{REPAIRED, map_spare, needs, once_returned, source, unread_field};
use crate::expect::Expected;
use crate::outcome::{Seen, Stop};
use crate::point::Backing;
use crate::probe::{Case, Probe, Trial};
use crate::stage::Stage;
use crate::thread::{First, stay_on_cpu};
use uffd_results::KernelVersion;

static WINDOW: Probe = Probe {
    suite: "races",
    name: "window",
    statement: "After the last event has been read, and until its caller has run again, the ioctls that \
                fill, protect or move pages still fail with EAGAIN; WAKE, REGISTER and UNREGISTER work.",
    consumers: &[
        "Firecracker UFFD handlers: on_demand_handler",
        "E2B orchestrator: classifyCopyResult()",
        "CRIU lazy-pages: uffd_check_op_error(), criu/uffd.c",
    ],
};

#[derive(Debug)]
struct Window {
    backing: Backing,
    event: Raiser,
    request: Request,
}

impl Trial for Window {
    fn axes(&self) -> String {
        let Self { backing, event, request } = self;
        format!("backing={backing},event={event},ioctl={request}")
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        let Self { backing, event, request } = *self;
        seen.step("set-up");
        stage.must_offer(needs(request))?;
        stay_on_cpu()?;
        let ground = Ground::set(stage, backing, event.feature())?;
        if request == Request::Move {
            map_spare()?;
        }
        let source = source(stage, request);
        seen.step("event");
        let raised = event.raise(&ground)?;
        let (caller, before) = asleep(stage, &raised.mover)?;
        seen.step("window");
        let first = First::begin()?;
        let message = ground.read();
        let (rc, field) = request.issue(&ground.uffd, ground.target(), source);
        let (after, returned) = (caller.read()?, raised.mover.returned());
        let letter = caller.state()?;
        drop(first);
        if after.runs != before.runs || returned {
            return Err(Stop::Broken(format!(
                "the caller has run before the ioctl: {before:?}, now {after:?}"
            )));
        }
        seen.fact("event", message);
        seen.fact("caller", letter);
        seen.fact("ioctl", rc);
        if let Some(field) = field {
            seen.fact("field", field);
        }
        seen.step("return");
        seen.fact("call", raised.join()?);
        let (rc, field) = request.issue(&ground.uffd, ground.target(), source);
        seen.fact("after", rc);
        if let Some(field) = field {
            seen.fact("after-field", field);
        }
        seen.fact("pages", ground.pages()?);
        Ok(())
    }

    fn expect(&self, kernel: KernelVersion) -> Vec<Expected> {
        let Self { backing, event, request } = *self;
        let late = "userfaultfd_event_wait_completion(): the caller itself counts mmap_changing down, \
                    when it runs again; reading the event only wakes it";
        let works =
            "userfaultfd_ioctl(): WAKE, REGISTER and UNREGISTER do not look at mmap_changing";
        let waits = !matches!(request, Request::Wake | Request::Register | Request::Unregister);
        let mut facts = vec![
            Expected::new("event", event.event(0), "userfaultfd(2)"),
            Expected::new("caller", "R", late),
            if waits {
                Expected::new("ioctl", "EAGAIN", late)
            } else {
                Expected::new("ioctl", "0", works)
            },
        ];
        if request.result_word().is_some() {
            facts.push(Expected::new("field", unread_field(kernel), REPAIRED));
        }
        let (rc, field, page, says) = once_returned(request, event, backing);
        facts.push(Expected::new("call", "0", "userfaultfd(2)"));
        facts.push(Expected::new("after", rc, says));
        if request.result_word().is_some() {
            facts.push(Expected::new("after-field", field.to_string(), says));
        }
        // Shared memory that was discarded in the page table alone comes back from the page cache.
        let page_zero = if event == Raiser::Fork { "k" } else { "?" };
        facts.push(Expected::new("pages", format!("{page_zero}k{page}kkk"), says));
        facts
    }

    fn recipe(&self) -> Vec<String> {
        let Self { backing, event, request } = self;
        vec![
            "all threads stay on one CPU".to_owned(),
            format!("map a block of 6 pages ({backing}); write to all but page {MISSING}"),
            format!("UFFDIO_API with the {event} event, UFFDIO_REGISTER for missing pages"),
            event.recipe(0),
            "take the scheduling policy SCHED_FIFO".to_owned(),
            format!("read the event; issue {request} for page {MISSING}"),
            "the caller's switches must be what they were; take the usual policy".to_owned(),
            format!(
                "wait until the call of page {} has returned; issue {request} again; look at every page",
                SLOTS[0]
            ),
        ]
    }
}

/// The cases.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for backing in [Backing::Anon, Backing::Shmem, Backing::Private, Backing::SharedAnon] {
        for event in Raiser::ALL {
            for request in Request::ALL {
                let by_default = match backing {
                    Backing::Anon => *request == Request::Copy || *event == Raiser::Remove,
                    Backing::Shmem => *request == Request::Copy,
                    _ => false,
                };
                let trial = Window { backing, event: *event, request: *request };
                cases.push(Case::trial(&WINDOW, trial, by_default));
            }
        }
    }
    cases
}
