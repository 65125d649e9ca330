//! Guards over pages whose entry is a mark, or that are protected: MADV_GUARD_INSTALL takes away what is
//! there and puts the guard in its place.

use crate::abi::{REGISTER_MODE_MISSING, REGISTER_MODE_WP, Rc, WRITEPROTECT_MODE_WP, features};
use crate::expect::Expected;
use crate::memory::{BLOCK, Block, PAGE, advise, tag};
use crate::mover::{Mover, may_spin};
use crate::outcome::{Seen, Stop};
use crate::point::{Backing, PAGES, axis};
use crate::probe::{Case, Probe, Trial};
use crate::stage::Stage;
use crate::{touch, treat};
use uffd_results::KernelVersion;

static MARKED: Probe = Probe {
    suite: "kinds",
    name: "guard-marked",
    statement: "A guard takes the place of a poisoned page, and of a protected one of anonymous memory; over a \
                protected page of shared memory or of a file madvise(MADV_GUARD_INSTALL) never returns.",
    consumers: &[
        "thread libraries that use MADV_GUARD_INSTALL for stack guards (glibc 2.42)",
        "whoever write-protects shared memory with userfaultfd",
    ],
};

/// CPU time in the kernel, in clock ticks, that no such call takes: 0.2 s.
const FOR_EVER: u64 = 20;

axis! {
    /// What the page's entry is.
    Mark {
        /// Nothing.
        None = "none",
        /// A page that is present and protected.
        Present = "present-protected",
        /// The mark of a page that was protected while it was missing.
        Protected = "missing-protected",
        /// The mark of a poisoned page.
        Poisoned = "poisoned",
    }
}

#[derive(Clone, Copy, Debug)]
struct Marked {
    backing: Backing,
    mark: Mark,
}

/// The cases.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    // Shared memory first, of which every mark is a default then: it is where marks matter.
    for backing in [Backing::Shmem, Backing::Anon, Backing::SharedAnon, Backing::Private] {
        for mark in Mark::ALL {
            let by_default = matches!(backing, Backing::Anon | Backing::Shmem);
            cases.push(Case::trial(&MARKED, Marked { backing, mark: *mark }, by_default));
        }
    }
    cases
}

impl Marked {
    fn may_spin(self) -> bool {
        !self.backing.is_anon() && matches!(self.mark, Mark::Present | Mark::Protected)
    }
}

impl Trial for Marked {
    fn axes(&self) -> String {
        let Self { backing, mark } = self;
        format!("backing={backing},mark={mark}")
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        let Self { backing, mark } = *self;
        if self.may_spin() {
            may_spin(stage)?;
        }
        seen.step("set-up");
        let block = Block::map(backing, BLOCK)?;
        let page = block.range(2..3);
        if mark == Mark::Present {
            touch::store(page.start, tag::KEPT)
                .map_err(|signal| Stop::Broken(format!("writing to a page: {signal}")))?;
        }
        let (wants, mode) = match mark {
            Mark::Poisoned => (features::POISON, REGISTER_MODE_MISSING),
            // Of anonymous memory a mark is kept only then.
            Mark::Protected if backing.is_anon() => (features::WP_UNPOPULATED, REGISTER_MODE_WP),
            _ => (0, REGISTER_MODE_WP),
        };
        let uffd = stage.uffd(wants)?;
        uffd.register(block.range(0..PAGES), mode)
            .map_err(|e| Stop::Unsupported(format!("REGISTER of a {backing} block: {e:?}")))?;
        let rc = match mark {
            Mark::None => Rc::OK,
            Mark::Present | Mark::Protected => uffd.writeprotect(page, WRITEPROTECT_MODE_WP),
            Mark::Poisoned => uffd.poison(page, 0).0,
        };
        if !rc.is_ok() {
            return Err(Stop::Broken(format!("making {mark}: {rc}")));
        }
        seen.fact("bits", treat::bits(page, PAGE)?);
        seen.step("guard");
        let caller = Mover::start(stage, move || advise(page, treat::GUARD_INSTALL))?;
        if caller.spins(FOR_EVER)? {
            // A fatal signal ends it, and with it this process.
            seen.fact("guard", "spins");
            return Ok(());
        }
        let rc = caller.join()?;
        if rc.to_string() == "EINVAL" {
            return Err(Stop::Unsupported(
                "madvise(2), MADV_GUARD_INSTALL: EINVAL (6.13, files 6.15)".into(),
            ));
        }
        seen.fact("guard", rc);
        seen.fact("guarded", treat::bits(page, PAGE)?);
        let touched = match touch::load(page.start) {
            Ok(value) => crate::waiter::content(stage.tag(value)).to_owned(),
            Err(signal) => signal.to_string(),
        };
        seen.fact("touch", touched);
        Ok(())
    }

    fn expect(&self, _: KernelVersion) -> Vec<Expected> {
        if self.may_spin() {
            let says = "madvise_guard_install() in mm/madvise.c zaps what its walk has met and walks again; of \
                        memory with a file zap_pte_range() leaves the mark of write protection (its \
                        zap_drop_markers() is false), which the walk meets again; after three rounds the system \
                        call is restarted, for ever (so from 6.16.3 to 7.3.4)";
            return vec![Expected::new("guard", "spins", says)];
        }
        let says = "madvise(2), MADV_GUARD_INSTALL: what is mapped there is taken away, and a guard put in its \
                    place; a touch of it is a SIGSEGV";
        vec![Expected::new("guard", "0", says), Expected::new("touch", "SEGV_MAPERR", says)]
    }

    fn recipe(&self) -> Vec<String> {
        let Self { backing, mark } = self;
        vec![
            format!("map a {backing} block of 6 pages and register it; the entry of page 2 becomes: {mark}"),
            "a thread calls madvise(MADV_GUARD_INSTALL) of page 2: does it return, or use CPU time in the kernel \
             without an end?"
                .into(),
            "look at page 2's entry and load from it".into(),
        ]
    }
}
