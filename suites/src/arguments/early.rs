//! Every ioctl before `UFFDIO_API`, or after one that failed.

use super::ground::{ARGUMENT, Ground, argument_page};
use crate::abi::command::Command;
use crate::abi::{SENTINEL, Uffd};
use crate::expect::Expected;
use crate::memory::{BLOCK, PAGE};
use crate::outcome::{Seen, Stop};
use crate::point::{Backing, axis};
use crate::probe::{Case, Probe, Trial};
use crate::stage::Stage;
use uffd_results::KernelVersion;

static EARLY: Probe = Probe {
    suite: "arguments",
    name: "before-api",
    statement: "Before a successful UFFDIO_API every other ioctl is EINVAL, wherever its struct stands.",
    consumers: &[
        "QEMU: receive_ufd_features() and request_ufd_features()",
        "userfaultfd-rs: UffdBuilder",
    ],
};

axis! {
    /// What happened to the descriptor before.
    Before {
        /// Nothing.
        Fresh = "fresh",
        /// UFFDIO_API of a version that no kernel knows.
        BadVersion = "bad-version",
        /// UFFDIO_API with a feature that no kernel knows.
        BadFeature = "bad-feature",
    }
}

/// An ioctl too early.
#[derive(Clone, Copy, Debug)]
struct Early {
    command: Command,
    before: Before,
    /// Whether its struct can be read.
    readable: bool,
}

impl Trial for Early {
    fn axes(&self) -> String {
        let at = if self.readable { "good" } else { "null" };
        format!("ioctl={},before={},struct={at}", self.command, self.before)
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        seen.step("set-up");
        let way = stage.way.clone()?;
        let uffd = Uffd::open(way).map_err(|e| Stop::Broken(format!("a userfaultfd: {e:?}")))?;
        match self.before {
            Before::Fresh => {}
            Before::BadVersion => seen.fact("api", uffd.handshake(0xa9, 0).rc),
            Before::BadFeature => seen.fact("api", uffd.handshake(0xaa, 1 << 63).rc),
        }
        argument_page()?;
        let (command, backing) = (self.command, Backing::Anon);
        let ground = Ground { command, backing, in_kernel: false };
        let (start, unwritten) = (BLOCK as u64, SENTINEL.cast_unsigned());
        let mut words = [start, PAGE as u64, 0, unwritten, unwritten];
        if let Some(at) = command.length_at() {
            words[at] = PAGE as u64;
        }
        words[command.words() - 1] = unwritten;
        ground.write(&words, ARGUMENT)?;
        seen.step("call");
        let at = if self.readable { ARGUMENT } else { 0 };
        seen.fact(command.word(), uffd.raw(command.request(), at));
        if let Some(field) = ground.result(ARGUMENT)? {
            seen.fact("field", field);
        }
        // What was asked too early is no harm to what follows.
        seen.fact("later-api", uffd.handshake(0xaa, 0).rc);
        Ok(())
    }

    fn expect(&self, _: KernelVersion) -> Vec<Expected> {
        let says = "ioctl_userfaultfd(2), EINVAL: UFFDIO_API must come first";
        let mut facts = Vec::new();
        if self.before != Before::Fresh {
            facts.push(Expected::new("api", "EINVAL", "ioctl_userfaultfd(2), UFFDIO_API, EINVAL"));
        }
        facts.push(Expected::new(self.command.word(), "EINVAL", says));
        if self.command.has_result() {
            facts.push(Expected::new("field", "untouched", says));
        }
        facts.push(Expected::new("later-api", "0", says));
        facts
    }

    fn recipe(&self) -> Vec<String> {
        vec![
            format!("make a userfaultfd; before: {}", self.before),
            format!("{} on it; then UFFDIO_API", self.command),
        ]
    }
}

/// The cases.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for command in Command::ALL.iter().filter(|command| **command != Command::Api) {
        for before in Before::ALL {
            for readable in [true, false] {
                let by_default = readable || *before == Before::Fresh;
                let early = Early { command: *command, before: *before, readable };
                cases.push(Case::trial(&EARLY, early, by_default));
            }
        }
    }
    cases
}
