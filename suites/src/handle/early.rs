//! Ioctls before `UFFDIO_API`: every one is refused, and its argument stays as it was.

use crate::abi::{REGISTER_MODE_MISSING, Range, Uffd, features};
use crate::evidence;
use crate::expect::Expected;
use crate::memory::{BLOCK, Block, SPARE};
use crate::outcome::{Seen, Stop};
use crate::point::{Backing, PAGES};
use crate::probe::{Case, Probe, Trial};
use crate::stage::Stage;
use uffd_results::KernelVersion;

const EARLY: &str =
    "userfaultfd_ioctl() in fs/userfaultfd.c: EINVAL for every ioctl but UFFDIO_API before it";

static EARLY_PROBE: Probe = Probe {
    suite: "handle",
    name: "early-ioctl",
    statement: "Before UFFDIO_API every other ioctl fails with EINVAL and does nothing; after it the same call \
                is looked at.",
    consumers: &["Firecracker #5122: a handshake that raced with the first ioctls"],
};

const IOCTLS: &[(&str, u64)] = &[
    ("register", 0),
    ("unregister", 0),
    ("wake", 0),
    ("copy", 0),
    ("zeropage", 0),
    ("writeprotect", 0),
    ("continue", features::MINOR_SHMEM),
    ("poison", features::POISON),
    ("move", features::MOVE),
    ("rwprotect", features::RWP),
    ("set-mode", features::RWP),
];

#[derive(Debug)]
struct Early {
    ioctl: &'static str,
    needs: u64,
    /// A handshake that was refused came before.
    refused: bool,
}

/// Makes a call on the block; its return value and its result field.
fn call(stage: &Stage, uffd: &Uffd, ioctl: &str, block: Range) -> (String, String) {
    let page = Range { start: block.start, len: crate::memory::PAGE };
    let with_field =
        |(rc, field): (crate::abi::Rc, crate::abi::Field)| (rc.to_string(), field.to_string());
    let without = |rc: crate::abi::Rc| (rc.to_string(), "none".to_owned());
    match ioctl {
        "register" => {
            let rc = uffd.register(block, REGISTER_MODE_MISSING);
            without(crate::abi::Rc(rc.err()))
        }
        "unregister" => without(uffd.unregister(block)),
        "wake" => without(uffd.wake(page)),
        "copy" => with_field(uffd.copy(page, stage.source, 0)),
        "zeropage" => with_field(uffd.zeropage(page, 0)),
        "writeprotect" => without(uffd.writeprotect(page, 0)),
        "continue" => with_field(uffd.resume(page, 0)),
        "poison" => with_field(uffd.poison(page, 0)),
        "move" => with_field(uffd.relocate(page, SPARE, 0)),
        "rwprotect" => without(uffd.rwprotect(page, 0)),
        _ => without(uffd.set_mode(0, 0)),
    }
}

impl Trial for Early {
    fn axes(&self) -> String {
        let after = if self.refused { "refused-api" } else { "nothing" };
        format!("after={after},ioctl={}", self.ioctl)
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        stage.must_offer(self.needs)?;
        let block = Block::map(Backing::Anon, BLOCK)?;
        let range = block.range(0..PAGES);
        let uffd = Uffd::open(stage.way.clone()?)
            .map_err(|e| Stop::Broken(format!("a userfaultfd: {e:?}")))?;
        if self.refused {
            seen.fact("refused", uffd.handshake(0xAA, 1 << 40).rc);
        }
        let (rc, field) = call(stage, &uffd, self.ioctl, range);
        seen.fact("before", rc);
        seen.fact("field", field);
        seen.fact("reg", &evidence::registration(&[(range, block.page)])?[0]);
        seen.fact("api", uffd.handshake(0xAA, 0).rc);
        let (rc, field) = call(stage, &uffd, self.ioctl, range);
        seen.fact("after", rc);
        seen.fact("after-field", field);
        seen.fact("after-reg", &evidence::registration(&[(range, block.page)])?[0]);
        Ok(())
    }

    fn expect(&self, _: KernelVersion) -> Vec<Expected> {
        const AFTER: &str = "ioctl_userfaultfd(2): what an unregistered block answers";
        let mut facts = Vec::new();
        if self.refused {
            facts.push(Expected::new("refused", "EINVAL", EARLY));
        }
        facts.push(Expected::new("before", "EINVAL", EARLY));
        let has_field = matches!(self.ioctl, "copy" | "zeropage" | "continue" | "poison" | "move");
        let field = if has_field { "untouched" } else { "none" };
        facts.push(Expected::new("field", field, EARLY));
        facts.push(Expected::new("reg", "......", EARLY));
        facts.push(Expected::new("api", "0", "ioctl_userfaultfd(2), UFFDIO_API"));
        let after = match self.ioctl {
            "register" | "unregister" | "wake" | "set-mode" => "0",
            _ => "ENOENT",
        };
        facts.push(Expected::new("after", after, AFTER));
        let reg = if self.ioctl == "register" { "mmmmmm" } else { "......" };
        facts.push(Expected::new("after-reg", reg, AFTER));
        facts
    }

    fn recipe(&self) -> Vec<String> {
        vec![
            format!("map a block; {} of it without UFFDIO_API", self.ioctl),
            "UFFDIO_API; the same call again".into(),
        ]
    }
}

/// The cases.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (ioctl, needs) in IOCTLS {
        for refused in [false, true] {
            let trial = Early { ioctl, needs: *needs, refused };
            cases.push(Case::trial(&EARLY_PROBE, trial, true));
        }
    }
    cases
}
