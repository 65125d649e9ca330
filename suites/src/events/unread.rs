//! What every ioctl returns while an event is unread, and after its caller has returned.

use super::ground::{Ground, MISSING};
use super::raiser::Raiser;
use crate::abi::{Field, Request, features};
use crate::edge::EAGAIN_FIELD;
use crate::expect::Expected;
use crate::memory::{PAGE, RW, SPARE, map, tag};
use crate::outcome::{Seen, Stop};
use crate::point::Backing;
use crate::probe::{Case, Probe, Trial};
use crate::stage::Stage;
use uffd_results::KernelVersion;

static UNREAD: Probe = Probe {
    suite: "events",
    name: "unread",
    statement: "While an event of the context is unread, the ioctls that fill, protect or move pages \
                fail with EAGAIN and do nothing; WAKE, REGISTER and UNREGISTER work; once the caller \
                has returned all work.",
    consumers: &[
        "CRIU lazy-pages: uffd_check_op_error(), criu/uffd.c",
        "Firecracker UFFD handlers: on_demand_handler",
        "E2B orchestrator: classifyCopyResult()",
        "crosvm: uffd_copy_all(), vmm-swap",
        "userfaultfd-rs: PartiallyCopied",
    ],
};

#[derive(Debug)]
struct Unread {
    backing: Backing,
    event: Raiser,
    request: Request,
}

/// The feature that shows that the kernel has the ioctl at all.
pub(crate) const fn needs(request: Request) -> u64 {
    match request {
        Request::Continue => features::MINOR_SHMEM,
        _ => request.command().needs(),
    }
}

/// Maps a page of private anonymous memory at SPARE for MOVE to take.
pub(crate) fn map_spare() -> Result<(), Stop> {
    let at = crate::abi::Range { start: SPARE, len: PAGE };
    let rc = map(at, RW, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, None, 0);
    if !rc.is_ok() {
        return Err(Stop::Broken(format!("mapping the page to be moved: {rc}")));
    }
    crate::touch::store(SPARE, tag::NEW)
        .map_err(|signal| Stop::Broken(format!("writing the page to be moved: {signal}")))
}

/// Where COPY and MOVE take their page from.
pub(crate) const fn source(stage: &Stage, request: Request) -> usize {
    if matches!(request, Request::Move) { SPARE } else { stage.source }
}

impl Trial for Unread {
    fn axes(&self) -> String {
        let Self { backing, event, request } = self;
        format!("backing={backing},event={event},ioctl={request}")
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        let Self { backing, event, request } = *self;
        seen.step("set-up");
        stage.must_offer(needs(request))?;
        let ground = Ground::set(stage, backing, event.feature())?;
        if request == Request::Move {
            map_spare()?;
        }
        let source = source(stage, request);
        seen.step("event");
        let raised = event.raise(&ground)?;
        seen.step("ioctl");
        let (rc, field) = request.issue(&ground.uffd, ground.target(), source);
        seen.fact("ioctl", rc);
        if let Some(field) = field {
            seen.fact("field", field);
        }
        seen.fact("pages", ground.pages()?);
        seen.step("read");
        seen.fact("event", ground.read());
        seen.fact("call", raised.join()?);
        seen.step("again");
        let (rc, field) = request.issue(&ground.uffd, ground.target(), source);
        seen.fact("after", rc);
        if let Some(field) = field {
            seen.fact("after-field", field);
        }
        seen.fact("after-pages", ground.pages()?);
        Ok(())
    }

    fn expect(&self, kernel: KernelVersion) -> Vec<Expected> {
        let Self { backing, event, request } = *self;
        let says = "userfaultfd_copy() and its siblings: EAGAIN while mmap_changing (4.18)";
        let works =
            "userfaultfd_ioctl(): WAKE, REGISTER and UNREGISTER do not look at mmap_changing";
        // At the first look a discarded page is still there; all else is done when its event is.
        let before = if event == Raiser::Remove || event == Raiser::Fork { "k" } else { "-" };
        let after = if event == Raiser::Fork { "k" } else { "-" };
        let row = |first: &str, target: &str| format!("{first}k{target}kkk");
        let mut facts = Vec::new();
        let waits = !matches!(request, Request::Wake | Request::Register | Request::Unregister);
        facts.push(if waits {
            Expected::new("ioctl", "EAGAIN", says)
        } else {
            Expected::new("ioctl", "0", works)
        });
        if request.result_word().is_some() {
            facts.push(Expected::new("field", unread_field(kernel), REPAIRED));
        }
        facts.push(Expected::new("pages", row(before, "-"), says));
        facts.push(Expected::new("event", event.event(0), "userfaultfd(2)"));
        facts.push(Expected::new("call", "0", "userfaultfd(2)"));
        let (rc, field, page, says) = once_returned(request, event, backing);
        facts.push(Expected::new("after", rc, says));
        if request.result_word().is_some() {
            facts.push(Expected::new("after-field", field.to_string(), says));
        }
        facts.push(Expected::new("after-pages", row(after, page), says));
        facts
    }

    fn recipe(&self) -> Vec<String> {
        let Self { backing, event, request } = self;
        vec![
            format!("map a block of 6 pages ({backing}); write to all but page {MISSING}"),
            format!("UFFDIO_API with the {event} event, UFFDIO_REGISTER for missing pages"),
            event.recipe(0),
            format!("issue {request} for page {MISSING}; look at every page"),
            "read the event and wait until the call has returned".to_owned(),
            format!("issue {request} again; look at every page"),
        ]
    }
}

/// The result field of an ioctl that fails with EAGAIN before it reads its struct.
pub(crate) fn unread_field(kernel: KernelVersion) -> &'static str {
    if EAGAIN_FIELD.is_known_in(kernel) { "-11" } else { "untouched" }
}

/// Its source.
pub(crate) const REPAIRED: &str = EAGAIN_FIELD.source;

/// Return value, result field and the page of a request for the missing page of a block that is
/// registered for missing pages.
pub(crate) fn afterwards(
    request: Request,
    backing: Backing,
) -> (&'static str, Field, &'static str, &'static str) {
    use crate::model::source as says;
    let page = Field(PAGE.cast_signed() as i64);
    match request {
        Request::Copy => ("0", page, "c", says::COPY),
        Request::Zeropage => ("0", page, "0", says::ZEROPAGE),
        Request::Continue if backing == Backing::Anon => {
            ("EINVAL", Field(-22), "-", says::CONTINUE_ANON)
        }
        Request::Continue => {
            let says = "ioctl_userfaultfd(2), UFFDIO_CONTINUE, EFAULT: no page in the page cache";
            ("EFAULT", Field(-14), "-", says)
        }
        Request::Poison => ("0", page, "-", says::POISON),
        Request::Move if backing == Backing::Anon => ("0", page, "n", says::MOVE),
        Request::Move => ("EINVAL", Field(-22), "-", says::MOVE_REFUSED),
        Request::Protect | Request::Unprotect => {
            ("ENOENT", Field(0), "-", says::WRITEPROTECT_ENOENT)
        }
        Request::Wake => ("0", Field(0), "-", says::WAKE),
        Request::Register => ("0", Field(0), "-", "ioctl_userfaultfd(2), UFFDIO_REGISTER"),
        Request::Unregister => ("0", Field(0), "-", says::UNREGISTER),
    }
}

/// As [`afterwards`], once a call that has raised `event` has returned.
pub(crate) fn once_returned(
    request: Request,
    event: Raiser,
    backing: Backing,
) -> (&'static str, Field, &'static str, &'static str) {
    if (request, event, backing) == (Request::Move, Raiser::Fork, Backing::Anon) {
        let says =
            "ioctl_userfaultfd(2), UFFDIO_MOVE, EBUSY: the source page is shared since the fork";
        return ("EBUSY", Field(-16), "-", says);
    }
    afterwards(request, backing)
}

/// The cases.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for backing in [Backing::Anon, Backing::Shmem, Backing::Private, Backing::SharedAnon] {
        for event in Raiser::ALL {
            for request in Request::ALL {
                let by_default = matches!(backing, Backing::Anon | Backing::Shmem);
                let trial = Unread { backing, event: *event, request: *request };
                cases.push(Case::trial(&UNREAD, trial, by_default));
            }
        }
    }
    cases
}
