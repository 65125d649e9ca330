//! UFFDIO_API and UFFDIO_REGISTER stopped at their structs while another thread goes on with the same
//! userfaultfd.

use super::stopped::{GATE, Gate, STOCK, leak, map_page, write_words};
use crate::abi::command::Command;
use crate::abi::{
    REGISTER_MODE_MISSING, REGISTER_MODE_WP, Rc, Request, SENTINEL, Uffd, WRITEPROTECT_MODE_WP,
    features,
};
use crate::events::ground::{self, MISSING};
use crate::evidence::{self, QueueFile};
use crate::expect::Expected;
use crate::memory::{self, BLOCK, Block, RW, map, tag};
use crate::model::source as says;
use crate::mover::Mover;
use crate::outcome::{Seen, Stop};
use crate::point::{Backing, PAGES, Waiter as Kind, axis};
use crate::probe::{Case, Probe, Trial};
use crate::stage::Stage;
use crate::touch;
use crate::waiter::Waiter;
use uffd_results::KernelVersion;

static HANDSHAKE: Probe = Probe {
    suite: "races",
    name: "handshake",
    statement: "Of two handshakes on one userfaultfd that overlap the first to be done counts, with its \
                features; the other one is EINVAL, and a refused one takes nothing away.",
    consumers: &["userfaultfd-rs: UffdBuilder, a handshake for each userfaultfd that it makes"],
};
static REGISTERED: Probe = Probe {
    suite: "races",
    name: "register-result",
    statement: "REGISTER has registered before it writes its result: what others do until then counts, \
                and its 0 then says nothing of what is registered.",
    consumers: &["every handler that starts a thread to serve faults before it registers"],
};

axis! {
    /// What another thread does while the first handshake reads its struct.
    Other {
        /// Nothing: the control.
        None = "none",
        /// A handshake with the same features.
        Same = "api-same",
        /// A handshake without the first one's feature.
        Less = "api-less",
        /// A handshake that is refused.
        Refused = "api-refused",
    }
}

#[derive(Debug)]
struct Handshake {
    other: Other,
}

/// The feature that the first handshake asks for.
const ASKED: u64 = features::EVENT_REMOVE;

impl Trial for Handshake {
    fn axes(&self) -> String {
        format!("meanwhile={}", self.other)
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        seen.step("set-up");
        stage.must_offer(ASKED)?;
        let uffd = Uffd::open(stage.way.clone()?)
            .map_err(|e| Stop::Broken(format!("making a userfaultfd: {e:?}")))?;
        let through = leak(&uffd)?;
        map_page(GATE)?;
        map_page(STOCK)?;
        write_words(STOCK, [0xAA, ASKED, 0, 0, 0])?;
        let gate = Gate::shut(stage, REGISTER_MODE_MISSING)?;
        seen.step("api");
        let stopped = gate.stop(stage, move || through.raw(Command::Api.request(), GATE.start))?;
        let api = |features| Rc(uffd.api(features).err());
        match self.other {
            Other::None => {}
            Other::Same => seen.fact("meanwhile", api(ASKED)),
            Other::Less => seen.fact("meanwhile", api(0)),
            Other::Refused => seen.fact("meanwhile", api(1 << 63)),
        }
        seen.step("resolve");
        seen.fact("argument", gate.uffd.copy(GATE, STOCK.start, 0).0);
        seen.fact("api", stopped.end()?);
        let word = touch::load(GATE.start + 8)
            .map_err(|signal| Stop::Broken(format!("reading a struct: {signal}")))?;
        seen.fact("struct", if word == 0 { "zeroed" } else { "filled" });
        seen.step("use");
        let block = Block::map(Backing::Anon, BLOCK)?;
        ground::write(&block, BLOCK, 0, tag::KEPT)?;
        ground::register(&uffd, block.range(0..PAGES))?;
        let discard = Mover::discard(stage, block.range(0..1))?;
        let raises = discard.blocks_on_event(&uffd)?;
        seen.fact("event", if raises { ground::word(&uffd, block.page) } else { "none".into() });
        seen.fact("discard", discard.join()?);
        Ok(())
    }

    fn expect(&self, _: KernelVersion) -> Vec<Expected> {
        let once = "userfaultfd_api(): cmpxchg() of ctx->features sets them once (commit 22e5fe2a2a27, \
                    5.15, and stable)";
        let mut facts = Vec::new();
        if self.other != Other::None {
            let rc = if self.other == Other::Refused { "EINVAL" } else { "0" };
            facts.push(Expected::new("meanwhile", rc, once));
        }
        let late = matches!(self.other, Other::Same | Other::Less);
        let event = if self.other == Other::Less { "none" } else { "remove(0..1)" };
        facts.extend([
            Expected::new("argument", "0", says::COPY),
            Expected::new("api", if late { "EINVAL" } else { "0" }, once),
            Expected::new("struct", if late { "zeroed" } else { "filled" }, once),
            Expected::new("event", event, once),
            Expected::new("discard", "0", "userfaultfd(2)"),
        ]);
        facts
    }

    fn recipe(&self) -> Vec<String> {
        vec![
            "a thread calls UFFDIO_API, asking for EVENT_REMOVE, with the struct on a missing page of \
             another userfaultfd, and parks there"
                .to_owned(),
            format!("another thread, with the same userfaultfd: {}", self.other),
            "serve the struct; what the first call returned and left in it".to_owned(),
            "register a block; madvise(MADV_DONTNEED) of a page: is there an event?".to_owned(),
        ]
    }
}

axis! {
    /// What happens while REGISTER has still to write its result.
    Meanwhile {
        /// Nothing: the control.
        None = "none",
        /// The waiter's page is filled.
        Copy = "copy",
        /// The block is unregistered.
        Unregister = "unregister",
        /// The waiter's page is unmapped.
        Unmap = "munmap",
        /// Private anonymous memory is mapped over the waiter's page.
        Over = "mmap-over",
        /// Another userfaultfd registers the block.
        Other = "register-other",
        /// The struct is unmapped.
        Struct = "struct-unmapped",
    }
}

#[derive(Debug)]
struct Registered {
    backing: Backing,
    meanwhile: Meanwhile,
}

impl Trial for Registered {
    fn axes(&self) -> String {
        format!("backing={},meanwhile={}", self.backing, self.meanwhile)
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        seen.step("set-up");
        let block = Block::map(self.backing, BLOCK)?;
        for page in (0..PAGES).filter(|page| *page != MISSING) {
            ground::write(&block, BLOCK, page, tag::KEPT)?;
        }
        let (all, target) = (block.range(0..PAGES), block.range(MISSING..MISSING + 1));
        let uffd = stage.uffd(0)?;
        let third = stage.uffd(0)?;
        let (through, queue) = (leak(&uffd)?, QueueFile::open(&uffd)?);
        map_page(GATE)?;
        write_words(GATE, Request::Register.words(all, 0))?;
        let gate = Gate::shut(stage, REGISTER_MODE_WP)?;
        let rc = gate.uffd.writeprotect(GATE, WRITEPROTECT_MODE_WP);
        if !rc.is_ok() {
            return Err(Stop::Broken(format!("WRITEPROTECT of the struct: {rc}")));
        }
        seen.step("register");
        let stopped =
            gate.stop(stage, move || through.raw(Command::Register.request(), GATE.start))?;
        let reg = || Ok::<_, Stop>(evidence::registration(&[(all, block.page)])?.concat());
        seen.fact("early-reg", reg()?);
        let mut waiter = Waiter::park(stage, Kind::UserRead, target, &uffd, &queue)?;
        seen.fact("fault", ground::word(&uffd, block.page));
        seen.step("meanwhile");
        let anon = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let rc = match self.meanwhile {
            Meanwhile::None => Rc::OK,
            Meanwhile::Copy => uffd.copy(target, stage.source, 0).0,
            Meanwhile::Unregister => uffd.unregister(all),
            Meanwhile::Unmap => memory::unmap(target),
            Meanwhile::Over => map(target, RW, anon, None, 0),
            Meanwhile::Other => Rc(third.register(all, REGISTER_MODE_MISSING).err()),
            Meanwhile::Struct => memory::unmap(GATE),
        };
        seen.fact("meanwhile", rc);
        seen.step("end");
        if self.meanwhile == Meanwhile::Struct {
            seen.fact("wake", gate.uffd.wake(GATE));
        } else {
            seen.fact("allow", gate.uffd.writeprotect(GATE, 0));
        }
        seen.fact("register", stopped.end()?);
        if self.meanwhile != Meanwhile::Struct {
            let ioctls = touch::load(GATE.start + 24)
                .map_err(|signal| Stop::Broken(format!("reading a struct: {signal}")))?;
            let written = ioctls != SENTINEL.cast_unsigned();
            seen.fact("ioctls", if written { "written" } else { "untouched" });
        }
        seen.fact("reg", reg()?);
        seen.fact("waiter", stage.word(waiter.look(&uffd, &queue)?));
        Ok(())
    }

    fn expect(&self, _: KernelVersion) -> Vec<Expected> {
        let why = "userfaultfd_register(): put_user() of the ioctls comes last, with no lock held";
        let (meanwhile, reg, waiter) = match self.meanwhile {
            Meanwhile::None | Meanwhile::Struct => ("0", "mmmmmm", "asleep"),
            Meanwhile::Copy => ("0", "mmmmmm", "ran:copied"),
            Meanwhile::Unregister => ("0", "......", "ran:zero"),
            Meanwhile::Unmap => ("0", "mm-mmm", "asleep"),
            Meanwhile::Over => ("0", "mm.mmm", "asleep"),
            Meanwhile::Other => ("EBUSY", "mmmmmm", "asleep"),
        };
        let fails = self.meanwhile == Meanwhile::Struct;
        let mut facts = vec![
            Expected::new("early-reg", "mmmmmm", why),
            Expected::new("fault", "pagefault@2", why),
            Expected::new("meanwhile", meanwhile, "ioctl_userfaultfd(2)"),
            Expected::new(if fails { "wake" } else { "allow" }, "0", says::WRITEPROTECT),
            Expected::new("register", if fails { "EFAULT" } else { "0" }, why),
        ];
        if !fails {
            facts.push(Expected::new("ioctls", "written", why));
        }
        facts.push(Expected::new("reg", reg, why));
        facts.push(Expected::new("waiter", waiter, says::QUEUE));
        facts
    }

    fn recipe(&self) -> Vec<String> {
        vec![
            format!("map a block of 6 pages ({}), page 2 missing", self.backing),
            "a thread calls UFFDIO_REGISTER of it, with the struct on a page that a second userfaultfd \
             protects, and parks when it writes its result"
                .to_owned(),
            "look at the registration; a thread loads from page 2 and parks; read its message".to_owned(),
            format!("meanwhile: {}", self.meanwhile),
            "let the result be written; what REGISTER returned, the registration, the waiter".to_owned(),
        ]
    }
}

/// The cases.
pub(super) fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> = Other::ALL
        .iter()
        .map(|other| Case::trial(&HANDSHAKE, Handshake { other: *other }, true))
        .collect();
    for backing in [Backing::Anon, Backing::Shmem, Backing::Private] {
        for meanwhile in Meanwhile::ALL {
            let trial = Registered { backing, meanwhile: *meanwhile };
            cases.push(Case::trial(&REGISTERED, trial, backing != Backing::Private));
        }
    }
    cases
}
