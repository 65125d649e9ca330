//! Memory of a process whose memory cgroup is full, served by a process outside of it.

use crate::abi::{REGISTER_MODE_MINOR, REGISTER_MODE_MISSING, Uffd, features};
use crate::evidence::QueueFile;
use crate::expect::Expected;
use crate::group::Group;
use crate::memory::{BLOCK, Block, ONE_PAGE, SPARE};
use crate::model::source;
use crate::outcome::{Seen, Stop};
use crate::point::{Backing, PAGES, axis};
use crate::probe::{Case, Probe, Trial};
use crate::process::Child;
use crate::stage::Stage;
use crate::touch;
use crate::waiter::Access;
use std::os::fd::AsFd;
use uffd_results::KernelVersion;

static LIMITED: Probe = Probe {
    suite: "kinds",
    name: "group-full",
    statement: "What needs a new page is charged to the process that owns the memory: with its memory \
                cgroup full and nobody to kill it fails with ENOMEM, wakes nobody, and works when the limit \
                is lifted; what needs none works.",
    consumers: &[
        "Firecracker, QEMU: page-fault handlers in a process beside the one whose memory is limited",
    ],
};

axis! {
    /// What is asked.
    Deed {
        /// UFFDIO_COPY.
        Copy = "copy",
        /// UFFDIO_ZEROPAGE.
        Zeropage = "zeropage",
        /// UFFDIO_CONTINUE.
        Continue = "continue",
        /// UFFDIO_POISON.
        Poison = "poison",
    }
}

#[derive(Debug)]
struct Limited {
    backing: Backing,
    deed: Deed,
}

/// The page that is waited for.
const TARGET: usize = 2;

impl Limited {
    fn needs_page(&self) -> bool {
        match self.deed {
            Deed::Copy => true,
            Deed::Zeropage => self.backing != Backing::Anon,
            Deed::Continue | Deed::Poison => false,
        }
    }

    /// The life of the process whose memory it is.
    fn live(&self, stage: &Stage, link: &crate::process::Link) -> Result<(), Stop> {
        // Nobody in the group may be killed for its want of memory.
        std::fs::write("/proc/self/oom_score_adj", "-1000")
            .map_err(|e| Stop::Broken(format!("/proc/self/oom_score_adj: {e}")))?;
        let block = Block::map(self.backing, BLOCK)?;
        let minor = self.deed == Deed::Continue;
        if minor {
            block.fill_cache(TARGET)?;
        }
        let uffd = stage.uffd(0)?;
        let mode = if minor { REGISTER_MODE_MINOR } else { REGISTER_MODE_MISSING };
        uffd.register(block.range(0..PAGES), mode)
            .map_err(|e| Stop::Unsupported(format!("REGISTER, mode {mode:#x}: {e:?}")))?;
        // A signal that comes later finds its piece of the stack in memory.
        if touch::load(SPARE).is_ok() {
            return Err(Stop::Broken("memory where none was mapped".into()));
        }
        link.say("ready")?;
        link.pass(uffd.as_fd())?;
        link.must_hear("go")?;
        let loaded = touch::load(block.range(TARGET..TARGET + 1).start);
        // To speak takes memory of the group.
        link.must_hear("lifted")?;
        link.say(
            loaded.map_or_else(
                |signal| signal.to_string(),
                |value| Access::Ran(Some(value)).to_string(),
            ),
        )
    }
}

impl Trial for Limited {
    fn axes(&self) -> String {
        format!("backing={},deed={}", self.backing, self.deed)
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        seen.step("set-up");
        stage.must_offer(if self.deed == Deed::Poison { features::POISON } else { 0 })?;
        let group = Group::new(stage.disposable)?;
        let mut child = Child::fork(stage, |link| self.live(stage, link))?;
        child.link().must_hear("ready")?;
        let uffd = Uffd::from_fd(child.link().take()?);
        let queue = QueueFile::open(&uffd)?;
        child.link().say("go")?;
        if !child.link().faults_first(&uffd)? {
            return Err(Stop::Broken(format!("no fault: {}", child.link().hear()?)));
        }
        uffd.read().map_err(|e| Stop::Broken(format!("reading the fault: {e:?}")))?;
        group.limit("0")?;
        group.admit(child.pid())?;
        seen.step("call");
        let target = crate::abi::Range {
            start: BLOCK + TARGET * crate::memory::PAGE,
            len: crate::memory::PAGE,
        };
        let call = || match self.deed {
            Deed::Copy => uffd.copy(target, stage.source, 0),
            Deed::Zeropage => uffd.zeropage(target, 0),
            Deed::Continue => uffd.resume(target, 0),
            Deed::Poison => uffd.poison(target, 0),
        };
        let (rc, field) = call();
        seen.fact("op", rc);
        seen.fact("field", field);
        let waits = queue.read()?;
        seen.fact("queue", waits);
        group.limit("max")?;
        seen.step("lifted");
        if waits.total > 0 {
            let (rc, field) = call();
            seen.fact("later", rc);
            seen.fact("later-field", field);
        }
        child.link().say("lifted")?;
        seen.fact("loaded", child.link().hear()?);
        child.wait()?;
        Ok(())
    }

    fn expect(&self, _: KernelVersion) -> Vec<Expected> {
        let says = "anon_alloc_folio() and shmem charge the page to the memory's owner, GFP_KERNEL: ENOMEM \
                    if nothing can be reclaimed and nobody killed";
        let (loaded, source) = match self.deed {
            Deed::Copy => ("ran:copied", source::COPY),
            Deed::Zeropage => ("ran:zero", source::ZEROPAGE),
            Deed::Continue => ("ran:kept", source::CONTINUE),
            Deed::Poison => (crate::poison::SIGBUS, source::POISON),
        };
        let mut facts = Vec::new();
        if self.needs_page() {
            facts.extend([
                Expected::new("op", "ENOMEM", says),
                Expected::new("field", "-12", says),
                Expected::new("queue", "1/0", says),
                Expected::new("later", "0", source),
                Expected::new("later-field", ONE_PAGE, source),
            ]);
        } else {
            facts.extend([
                Expected::new("op", "0", source),
                Expected::new("field", ONE_PAGE, source),
                Expected::new("queue", "0/0", source),
            ]);
        }
        facts.push(Expected::new("loaded", loaded, source));
        facts
    }

    fn recipe(&self) -> Vec<String> {
        let Self { backing, deed } = self;
        vec![
            format!(
                "a child with oom_score_adj -1000 maps a {backing} block of {PAGES} pages, registers it, hands \
                 over the userfaultfd and loads from page {TARGET}, where it parks"
            ),
            "move it to a memory cgroup (version 2) of its own whose memory.max is 0".to_owned(),
            format!("UFFDIO_{} of the page, by the parent", deed.to_string().to_uppercase()),
            "memory.max is max: the same again if the child still waits; hear what it saw"
                .to_owned(),
        ]
    }
}

/// The cases.
pub(super) fn cases() -> Vec<Case> {
    let asked = [
        (Backing::Anon, Deed::Copy),
        (Backing::Anon, Deed::Zeropage),
        (Backing::Anon, Deed::Poison),
        (Backing::Shmem, Deed::Copy),
        (Backing::Shmem, Deed::Zeropage),
        (Backing::Shmem, Deed::Continue),
        (Backing::Private, Deed::Copy),
    ];
    asked.map(|(backing, deed)| Case::trial(&LIMITED, Limited { backing, deed }, true)).to_vec()
}
