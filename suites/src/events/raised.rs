//! Questions about a block whose event is raised: they have a kind of memory, an event, and one axis
//! of their own, and begin on the same ground.

use super::ground::Ground;
use super::raiser::Raiser;
use crate::expect::Expected;
use crate::outcome::{Seen, Stop};
use crate::point::Backing;
use crate::probe::{Case, Probe, Trial};
use crate::stage::Stage;
use std::fmt;
use uffd_results::KernelVersion;

/// A value of the axis that such a question has beside memory and event.
pub(super) trait Asked: fmt::Debug + fmt::Display + Copy + Sync + 'static {
    /// The axis's name in case ids.
    const AXIS: &'static str;

    /// Asks; the event is not raised yet.
    fn ask(self, event: Raiser, ground: Ground<'_>, seen: &mut Seen<'_>) -> Result<(), Stop>;
    /// The facts to be seen.
    fn expect(self, event: Raiser, kernel: KernelVersion) -> Vec<Expected>;
    /// What is done, a sentence a step.
    fn recipe(self, event: Raiser) -> Vec<String>;
}

#[derive(Debug)]
struct Raised<A> {
    backing: Backing,
    event: Raiser,
    asked: A,
}

impl<A: Asked> Trial for Raised<A> {
    fn axes(&self) -> String {
        let Self { backing, event, asked } = self;
        format!("backing={backing},event={event},{}={asked}", A::AXIS)
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        seen.step("set-up");
        let ground = Ground::set(stage, self.backing, self.event.feature())?;
        self.asked.ask(self.event, ground, seen)
    }

    fn expect(&self, kernel: KernelVersion) -> Vec<Expected> {
        self.asked.expect(self.event, kernel)
    }

    fn recipe(&self) -> Vec<String> {
        self.asked.recipe(self.event)
    }
}

/// A case of such a question.
pub(super) fn case<A: Asked>(
    probe: &'static Probe,
    (backing, event, asked): (Backing, Raiser, A),
    by_default: bool,
) -> Case {
    Case::trial(probe, Raised { backing, event, asked }, by_default)
}
