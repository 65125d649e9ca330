//! An ioctl stopped at its own struct: before it has read it, after it has checked for unread
//! events; or when it writes its result, after its work and before it wakes.

use super::stopped::{GATE, Gate, STOCK, leak, map_page, write_words};
use crate::abi::{Field, REGISTER_MODE_MISSING, REGISTER_MODE_WP, Request, WRITEPROTECT_MODE_WP};
use crate::events::ground::{Ground, MISSING};
use crate::events::raiser::Raiser;
use crate::events::unread::{afterwards, map_spare, needs, source};
use crate::expect::Expected;
use crate::memory;
use crate::memory::ONE_PAGE;
use crate::model::source as says;
use crate::outcome::{Seen, Stop};
use crate::point::{Backing, PAGES, Waiter as Kind, axis};
use crate::probe::{Case, Probe, Trial};
use crate::stage::Stage;
use crate::touch;
use crate::waiter::{Fate, Waiter};
use uffd_results::KernelVersion;

static ARGUMENT: Probe = Probe {
    suite: "races",
    name: "argument",
    statement: "An ioctl that is stopped before it has read its struct finds events and changes that \
                came meanwhile: it checks for unread events again under its locks.",
    consumers: &["CRIU lazy-pages: uffd_check_op_error()", "Firecracker UFFD handlers"],
};
static RESULT: Probe = Probe {
    suite: "races",
    name: "result",
    statement: "COPY and its siblings wake after they have written their result field: if that fails, \
                EFAULT comes back, the page is placed, and its waiter sleeps on.",
    consumers: &["every handler whose ioctl structs lie in memory that can change"],
};

axis! {
    /// What comes meanwhile.
    Meanwhile {
        /// Nothing: the control.
        Nothing = "none",
        /// An event that stays unread.
        Remove = "remove-unread",
        /// An event that stays unread.
        Unmap = "unmap-unread",
        /// An event that stays unread.
        Remap = "remap-unread",
        /// An event that stays unread.
        Fork = "fork-unread",
        /// The block is unregistered.
        Unregister = "unregister",
    }
}

impl Meanwhile {
    const fn event(self) -> Option<Raiser> {
        match self {
            Self::Remove => Some(Raiser::Remove),
            Self::Unmap => Some(Raiser::Unmap),
            Self::Remap => Some(Raiser::Remap),
            Self::Fork => Some(Raiser::Fork),
            Self::Nothing | Self::Unregister => None,
        }
    }
}

#[derive(Debug)]
struct Argument {
    backing: Backing,
    request: Request,
    meanwhile: Meanwhile,
}

/// The result field as it lies in the struct at the gate.
fn field(request: Request) -> Result<Option<Field>, Stop> {
    let Some(n) = request.result_word() else { return Ok(None) };
    let value = touch::load(GATE.start + 8 * n)
        .map_err(|signal| Stop::Broken(format!("reading an ioctl's struct: {signal}")))?;
    Ok(Some(Field(value.cast_signed())))
}

impl Trial for Argument {
    fn axes(&self) -> String {
        let Self { backing, request, meanwhile } = self;
        format!("backing={backing},ioctl={request},meanwhile={meanwhile}")
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        let Self { backing, request, meanwhile } = *self;
        seen.step("set-up");
        stage.must_offer(needs(request))?;
        let feature = meanwhile.event().map_or(0, Raiser::feature);
        let ground = Ground::set(stage, backing, feature)?;
        let uffd = leak(&ground.uffd)?;
        if request == Request::Move {
            map_spare()?;
        }
        map_page(GATE)?;
        map_page(STOCK)?;
        write_words(STOCK, request.words(ground.target(), source(stage, request)))?;
        let gate = Gate::shut(stage, REGISTER_MODE_MISSING)?;
        seen.step("ioctl");
        let stopped =
            gate.stop(stage, move || uffd.raw(request.command().request(), GATE.start))?;
        seen.step("meanwhile");
        let raised = match meanwhile.event() {
            Some(event) => Some(event.raise(&ground)?),
            None => None,
        };
        if meanwhile == Meanwhile::Unregister {
            seen.fact("meanwhile", uffd.unregister(ground.block.range(0..PAGES)));
        }
        seen.step("resolve");
        seen.fact("argument", gate.uffd.copy(GATE, STOCK.start, 0).0);
        seen.fact("ioctl", stopped.end()?);
        if let Some(field) = field(request)? {
            seen.fact("field", field);
        }
        seen.fact("pages", ground.pages()?);
        if let Some(raised) = raised {
            seen.fact("event", ground.read());
            seen.fact("call", raised.join()?);
        }
        Ok(())
    }

    fn expect(&self, _: KernelVersion) -> Vec<Expected> {
        let Self { backing, request, meanwhile } = *self;
        let again = "mfill_atomic(), mwriteprotect_range() and move_pages() look at mmap_changing again \
                     under their locks";
        let simple = matches!(request, Request::Wake | Request::Register | Request::Unregister);
        let (rc, field, page, why) = match meanwhile {
            Meanwhile::Nothing => afterwards(request, backing),
            Meanwhile::Unregister => match request {
                Request::Wake | Request::Register | Request::Unregister => {
                    afterwards(request, backing)
                }
                _ => ("ENOENT", Field(-2), "-", says::COPY_ENOENT),
            },
            _ if simple => afterwards(request, backing),
            _ => ("EAGAIN", Field(-11), "-", again),
        };
        let mut facts =
            vec![Expected::new("argument", "0", says::COPY), Expected::new("ioctl", rc, why)];
        if request.result_word().is_some() {
            facts.push(Expected::new("field", field.to_string(), why));
        }
        facts.push(Expected::new("pages", format!("?k{page}kkk"), why));
        if let Some(event) = meanwhile.event() {
            facts.push(Expected::new("event", event.event(0), "userfaultfd(2)"));
            facts.push(Expected::new("call", "0", "userfaultfd(2)"));
        }
        facts
    }

    fn recipe(&self) -> Vec<String> {
        let Self { backing, request, meanwhile } = self;
        vec![
            format!("map and register a block of 6 pages ({backing}), page {MISSING} missing"),
            "register a page of other memory with a second userfaultfd".to_owned(),
            format!(
                "a thread issues {request} for page {MISSING} with the struct on that page, and parks \
                 there"
            ),
            format!("meanwhile: {meanwhile}"),
            "UFFDIO_COPY of the struct to that page through the second userfaultfd".to_owned(),
            "wait for the ioctl's return; look at every page; read the event".to_owned(),
        ]
    }
}

axis! {
    /// How the write of the result ends.
    Ends {
        /// The page is made writable: the control.
        Allowed = "allowed",
        /// The page is unmapped.
        Unmapped = "unmapped",
        /// The page is made writable after the target was unmapped.
        TargetUnmapped = "target-unmapped",
    }
}

#[derive(Debug)]
struct Written {
    backing: Backing,
    request: Request,
    ends: Ends,
}

impl Trial for Written {
    fn axes(&self) -> String {
        let Self { backing, request, ends } = self;
        format!("backing={backing},ioctl={request},ends={ends}")
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        let Self { backing, request, ends } = *self;
        seen.step("set-up");
        stage.must_offer(needs(request))?;
        let ground = Ground::set(stage, backing, 0)?;
        let uffd = leak(&ground.uffd)?;
        if request == Request::Move {
            map_spare()?;
        }
        map_page(GATE)?;
        write_words(GATE, request.words(ground.target(), source(stage, request)))?;
        let gate = Gate::shut(stage, REGISTER_MODE_WP)?;
        let rc = gate.uffd.writeprotect(GATE, WRITEPROTECT_MODE_WP);
        if !rc.is_ok() {
            return Err(Stop::Broken(format!("WRITEPROTECT of the struct: {rc}")));
        }
        let target = ground.target();
        let mut waiter = Waiter::park(stage, Kind::UserRead, target, uffd, &ground.queue)?;
        ground.read();
        seen.step("ioctl");
        let stopped =
            gate.stop(stage, move || uffd.raw(request.command().request(), GATE.start))?;
        seen.fact("early-pages", ground.pages()?);
        seen.fact("early-waiter", stage.word(waiter.look(uffd, &ground.queue)?));
        seen.step("end");
        if ends == Ends::TargetUnmapped {
            seen.fact("munmap", memory::unmap(target));
        }
        if ends == Ends::Unmapped {
            seen.fact("munmap", memory::unmap(GATE));
            seen.fact("wake", gate.uffd.wake(GATE));
        } else {
            seen.fact("allow", gate.uffd.writeprotect(GATE, 0));
        }
        seen.fact("ioctl", stopped.end()?);
        if ends != Ends::Unmapped
            && let Some(field) = field(request)?
        {
            seen.fact("field", field);
        }
        let fate = waiter.look(uffd, &ground.queue)?;
        seen.fact("waiter", stage.word(fate));
        if fate == Fate::Asleep {
            uffd.wake(target);
            let fate = waiter.look(uffd, &ground.queue)?;
            seen.fact("woken", stage.word(fate));
        }
        Ok(())
    }

    fn expect(&self, _: KernelVersion) -> Vec<Expected> {
        let why = "userfaultfd_copy() and its siblings: put_user() of the result comes before \
                   wake_userfault()";
        let (saw, pages) = match self.request {
            Request::Copy => ("ran:copied", "kkckkk"),
            Request::Move => ("ran:new", "kknkkk"),
            Request::Poison => ("BUS_MCEERR_AR|BUS_ADRERR", "kk-kkk"),
            _ => ("ran:zero", "kk0kkk"),
        };
        let mut facts = vec![
            Expected::new("early-pages", pages, why),
            Expected::new("early-waiter", "asleep", why),
        ];
        match self.ends {
            Ends::Allowed => facts.extend([
                Expected::new("ioctl", "0", why),
                Expected::new("field", ONE_PAGE, why),
                Expected::new("waiter", saw, why),
            ]),
            Ends::Unmapped => facts.extend([
                Expected::new("ioctl", "EFAULT", why),
                Expected::new("waiter", "asleep", why),
                Expected::new("woken", saw, says::WAKE),
            ]),
            Ends::TargetUnmapped => facts.extend([
                Expected::new("ioctl", "0", why),
                Expected::new("field", ONE_PAGE, why),
                Expected::new("waiter", "SEGV_MAPERR", says::WAKE),
            ]),
        }
        facts
    }

    fn recipe(&self) -> Vec<String> {
        let Self { backing, request, ends } = self;
        vec![
            format!("map and register a block of 6 pages ({backing}), page {MISSING} missing"),
            format!("a thread loads from page {MISSING} and parks"),
            "write-protect a page of other memory through a second userfaultfd".to_owned(),
            format!(
                "another thread issues {request} for page {MISSING} with the struct on that page, and \
                 parks when it writes the result; look at the waiter and at every page"
            ),
            format!("the write ends: {ends}; wait for the ioctl's return; look at the waiter"),
        ]
    }
}

/// The cases.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for backing in [Backing::Anon, Backing::Shmem, Backing::Private] {
        for request in Request::ALL {
            for meanwhile in Meanwhile::ALL {
                // Who refuses a MOVE first differs; its own suite asks.
                if *request == Request::Move && *meanwhile == Meanwhile::Unregister {
                    continue;
                }
                let trial = Argument { backing, request: *request, meanwhile: *meanwhile };
                cases.push(Case::trial(&ARGUMENT, trial, backing != Backing::Private));
            }
        }
        for request in [Request::Copy, Request::Zeropage, Request::Poison, Request::Move] {
            if request == Request::Move && backing != Backing::Anon {
                continue;
            }
            for ends in Ends::ALL {
                let trial = Written { backing, request, ends: *ends };
                cases.push(Case::trial(&RESULT, trial, true));
            }
        }
    }
    cases
}
