//! The limit of mappings: REGISTER and UNREGISTER of a part need one or two more.

use super::words::MODE;
use crate::abi::REGISTER_MODE_MISSING;
use crate::evidence::{self, QueueFile};
use crate::expect::{Expected, OBSERVED};
use crate::memory::{BLOCK, Block};
use crate::outcome::{Seen, Stop};
use crate::point::{Backing, PAGES, Part, Waiter as Kind};
use crate::probe::{Case, Probe, Trial};
use crate::stage::Stage;
use crate::waiter::{Fate, Waiter};
use uffd_results::KernelVersion;

static LIMIT: Probe = Probe {
    suite: "register",
    name: "max-map-count",
    statement: "Where a process has as many mappings as vm.max_map_count allows, REGISTER and UNREGISTER \
                of a part of a mapping are ENOMEM and change no registration, though UNREGISTER wakes \
                the part's waiters; of whole mappings they work.",
    consumers: &["umap issue 91: REGISTER ENOMEM with more than 900 regions"],
};

const SYSCTL: &str = "/proc/sys/vm/max_map_count";

/// REGISTER or UNREGISTER at the limit.
#[derive(Clone, Copy, Debug)]
struct Limit {
    backing: Backing,
    part: Part,
    /// Whether the block is registered as a whole before, and the part is to be unregistered.
    unregister: bool,
}

/// vm.max_map_count, lowered until this goes.
#[derive(Debug)]
pub(crate) struct Lowered(String);

impl Lowered {
    /// Below what any process has. Only in a VM: it is the whole machine's.
    pub(crate) fn here(stage: &Stage) -> Result<Self, Stop> {
        if !stage.disposable {
            return Err(Stop::Precondition(
                "vm.max_map_count is the whole machine's: only lowered in a VM".into(),
            ));
        }
        let fail = |e| Stop::Precondition(format!("{SYSCTL}: {e}"));
        let old = std::fs::read_to_string(SYSCTL).map_err(fail)?;
        std::fs::write(SYSCTL, "4").map_err(fail)?;
        Ok(Self(old))
    }
}

impl Drop for Lowered {
    fn drop(&mut self) {
        // Nothing can be done about it; a VM's next case would show it.
        let _ = std::fs::write(SYSCTL, &self.0);
    }
}

impl Trial for Limit {
    fn axes(&self) -> String {
        let ioctl = if self.unregister { "unregister" } else { "register" };
        format!("backing={},ioctl={ioctl},part={}", self.backing, self.part)
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        seen.step("set-up");
        let block = Block::map(self.backing, BLOCK)?;
        let (all, part) = (block.range(0..PAGES), block.range(self.part.pages()));
        let uffd = stage.uffd(0)?;
        let queue = QueueFile::open(&uffd)?;
        let mut waiter = None;
        if self.unregister {
            let rc = uffd.register(all, REGISTER_MODE_MISSING);
            rc.map_err(|e| Stop::Broken(format!("REGISTER of the block: {e:?}")))?;
            let page = self.part.pages().start;
            let page = block.range(page..page + 1);
            waiter = Some(Waiter::park(stage, Kind::UserRead, page, &uffd, &queue)?);
        }
        let lowered = Lowered::here(stage)?;
        seen.step("call");
        let rc = if self.unregister {
            uffd.unregister(part).to_string()
        } else {
            let rc = uffd.register(part, REGISTER_MODE_MISSING);
            rc.map_or_else(|e| format!("{e:?}"), |_| "0".to_owned())
        };
        drop(lowered);
        seen.fact(if self.unregister { "unregister" } else { "register" }, rc);
        seen.fact("reg", evidence::registration(&[(all, block.page)])?.concat());
        if let Some(mut waiter) = waiter {
            let fate = waiter.look(&uffd, &queue)?;
            seen.fact(
                "waiter",
                if fate == Fate::Again { "again".into() } else { stage.word(fate) },
            );
        }
        Ok(())
    }

    fn expect(&self, _: KernelVersion) -> Vec<Expected> {
        let whole = self.part == Part::Whole;
        let rc = if whole { "0" } else { "ENOMEM" };
        let says = "split_vma(): ENOMEM at vm.max_map_count";
        let name = if self.unregister { "unregister" } else { "register" };
        let armed = self.unregister != whole;
        let mut facts = vec![
            Expected::new(name, rc, says),
            Expected::new("reg", if armed { "mmmmmm" } else { "......" }, MODE),
        ];
        if self.unregister {
            // Waiters are woken before the mapping is split.
            facts.push(Expected::new("waiter", if whole { "ran:zero" } else { "again" }, OBSERVED));
        }
        facts
    }

    fn recipe(&self) -> Vec<String> {
        let ioctl = if self.unregister { "UFFDIO_UNREGISTER" } else { "UFFDIO_REGISTER" };
        vec![
            format!("map a {} block; for UNREGISTER register it and park a waiter", self.backing),
            "set vm.max_map_count below the number of mappings that there are".into(),
            format!("{ioctl} of this part: {}; set the limit back and look", self.part),
        ]
    }
}

/// The cases.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for backing in [Backing::Anon, Backing::Shmem, Backing::Private, Backing::SharedAnon] {
        for part in Part::ALL {
            for unregister in [false, true] {
                let telling = matches!(backing, Backing::Anon | Backing::Shmem);
                cases.push(Case::trial(
                    &LIMIT,
                    Limit { backing, part: *part, unregister },
                    telling,
                ));
            }
        }
    }
    cases
}
