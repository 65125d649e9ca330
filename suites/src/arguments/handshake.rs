//! Where the struct of `UFFDIO_API` stands. It is the only one that is read and written as a whole, and
//! a handshake that fails must leave the descriptor as it was.

use super::ground::Ground;
use super::placement::{Address, Place, Tail};
use crate::abi::command::Command;
use crate::abi::{Uffd, features};
use crate::evidence::QueueFile;
use crate::expect::Expected;
use crate::outcome::{Seen, Stop};
use crate::point::{Backing, axis};
use crate::probe::{Case, Probe, Trial};
use crate::stage::Stage;
use uffd_results::KernelVersion;

static HANDSHAKE: Probe = Probe {
    suite: "arguments",
    name: "api-struct",
    statement: "UFFDIO_API whose struct can't be read, or can't be written with what it returns, is \
                EFAULT whatever it asks for, and the descriptor is as fresh as before.",
    consumers: &["bindings that pass a constant struct: userfaultfd-rs, userfaultfd-sys"],
};

axis! {
    /// What is asked for.
    Asked {
        /// What the kernel grants.
        Good = "good",
        /// A version of the interface that no kernel knows.
        BadVersion = "bad-version",
    }
}

/// A handshake with a struct at some place.
#[derive(Clone, Copy, Debug)]
struct Handshake {
    place: Place,
    asked: Asked,
}

impl Trial for Handshake {
    fn axes(&self) -> String {
        format!("asked={},struct={}", self.asked, self.place.word())
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        seen.step("set-up");
        let uffd = Uffd::open(stage.way.clone()?)
            .map_err(|e| Stop::Broken(format!("a userfaultfd: {e:?}")))?;
        let command = Command::Api;
        let ground = Ground { command, backing: Backing::Anon, in_kernel: false };
        let version = if self.asked == Asked::Good { 0xAA } else { 0xA9 };
        self.place.put(ground, &[version, features::EVENT_REMOVE, 0, 0, 0])?;
        seen.step("call");
        seen.fact("api", uffd.raw(command.request(), self.place.address(ground)));
        // The first features that were granted stay: a second handshake with others is refused.
        seen.fact("later-api", uffd.handshake(0xAA, 0).rc);
        seen.fact("line", QueueFile::open(&uffd)?.line("API:")?);
        Ok(())
    }

    fn expect(&self, kernel: KernelVersion) -> Vec<Expected> {
        let line = |features| crate::handle::api_line(features, kernel);
        let says = "userfaultfd_api(): EFAULT before anything is granted, whether the struct can't be \
                    read or the answer can't be written";
        let (rc, later, line) = match (self.place, self.asked) {
            (Place::Odd(_) | Place::Across(_), Asked::Good) => {
                ("0", "EINVAL", line(features::EVENT_REMOVE))
            }
            (Place::Odd(_) | Place::Across(_), Asked::BadVersion) => ("EINVAL", "0", line(0)),
            _ => ("EFAULT", "0", line(0)),
        };
        vec![
            Expected::new("api", rc, says),
            Expected::new("later-api", later, says),
            Expected::new("line", line, says),
        ]
    }

    fn recipe(&self) -> Vec<String> {
        vec![
            format!(
                "make a userfaultfd; UFFDIO_API with EVENT_REMOVE ({}) with a struct {}",
                self.asked,
                self.place.word()
            ),
            "UFFDIO_API with a good struct and no features; read fdinfo".into(),
        ]
    }
}

/// The cases: structs that can be read and written, that can't be read, that can't be written.
pub(super) fn cases() -> Vec<Case> {
    let places = [
        Place::Across(4),
        Place::At(Address::Null),
        Place::Split(2, Tail::Unmapped),
        Place::Split(0, Tail::ReadOnly),
        Place::Split(2, Tail::ReadOnly),
    ];
    let asked = places.iter().flat_map(|place| Asked::ALL.iter().map(move |asked| (place, asked)));
    asked
        .map(|(place, asked)| {
            Case::trial(&HANDSHAKE, Handshake { place: *place, asked: *asked }, true)
        })
        .collect()
}
