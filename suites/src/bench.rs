//! What it costs: named operations, each with the physical limit that it is held against.
//!
//! Belongs here: what is done and what of it is counted. An operation is set up once and measured in
//! rounds, in turns with its limit; a round says what each call has cost, in ticks of [`clock::stamp`].
//! Does not belong here: what a tick is worth, who stores and who shows it. Costs are no facts:
//! operations are in no suite, and not in the suite's revision.

pub mod clock;
pub mod stats;

mod cost;
mod crowd;
mod ground;
mod handler;
mod limits;
mod place;
mod registration;
mod roundtrip;
mod trial;
mod waiters;
mod window;

#[cfg(test)]
mod tests;

use crate::outcome::Stop;
use crate::probe::{Case, Probe};
use crate::stage::Stage;
use std::fmt;
use std::sync::OnceLock;

pub use roundtrip::delays;
pub use trial::{Costs, measure, rounds, set_rounds};

/// Hash of what is measured and how: equal revisions count the same.
pub const REVISION: &str = env!("UFFD_BENCH_REVISION");

/// An operation that is set up.
pub trait Work {
    /// Does it some times and appends what each call has cost, in ticks. What prepares a call, and what
    /// undoes it, is not counted.
    fn round(&mut self, ticks: &mut Vec<u64>) -> Result<(), Stop>;
}

/// Sets an operation up at an address of the arena, of which 240 MiB from there on are its own.
type SetUp = Box<dyn Fn(&Stage, usize) -> Result<Box<dyn Work>, Stop> + Send + Sync>;

/// Something whose cost is measured.
pub struct Operation {
    /// The first word of its id.
    pub group: &'static str,
    /// Its name within the group.
    pub name: &'static str,
    /// Its axes and their values, at least one: `size=4k`.
    pub axes: String,
    /// What is counted, in a sentence.
    pub about: &'static str,
    /// Pages of 4 KiB that one call is about; 0 where they don't count.
    pub pages: u64,
    /// Whether several threads take part, whose order is the scheduler's.
    pub several: bool,
    /// The id of the operation that does the same without userfaultfd, or the part of it that can't be
    /// avoided: what it is held against.
    pub limit: Option<String>,
    set_up: SetUp,
}

impl fmt::Debug for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Operation({})", self.id())
    }
}

impl Operation {
    fn new<W: Work + 'static>(
        (group, name, axes): (&'static str, &'static str, String),
        about: &'static str,
        set_up: impl Fn(&Stage, usize) -> Result<W, Stop> + Send + Sync + 'static,
    ) -> Self {
        let set_up = move |stage: &Stage, at| -> Result<Box<dyn Work>, Stop> {
            Ok(Box::new(set_up(stage, at)?))
        };
        let (pages, several, limit, set_up) = (0, false, None, Box::new(set_up));
        Self { group, name, axes, about, pages, several, limit, set_up }
    }

    fn of_pages(self, pages: usize) -> Self {
        Self { pages: pages as u64, ..self }
    }

    fn by_several(self) -> Self {
        Self { several: true, ..self }
    }

    fn against(self, limit: impl Into<String>) -> Self {
        Self { limit: Some(limit.into()), ..self }
    }

    /// Its name, formed as a case's id.
    pub fn id(&self) -> String {
        format!("{}/{}[{}]", self.group, self.name, self.axes)
    }

    /// Sets it up at an address of the arena.
    pub fn set_up(&self, stage: &Stage, at: usize) -> Result<Box<dyn Work>, Stop> {
        (self.set_up)(stage, at)
    }

    /// Whether it is measured for its own sake; limits and the checks of the clock are not.
    pub fn is_listed(&self) -> bool {
        !matches!(self.group, "limit" | "check")
    }
}

/// Every operation, limits and checks among them, made once a process.
pub fn operations() -> &'static [Operation] {
    static ALL: OnceLock<Vec<Operation>> = OnceLock::new();
    ALL.get_or_init(|| {
        [
            roundtrip::operations(),
            place::operations(),
            waiters::operations(),
            registration::operations(),
            cost::operations(),
            window::operations(),
            crowd::operations(),
            limits::operations(),
            clock::operations(),
        ]
        .into_iter()
        .flatten()
        .collect()
    })
}

/// An operation by its id.
pub fn find(id: &str) -> Option<&'static Operation> {
    operations().iter().find(|operation| operation.id() == id)
}

/// Every operation as a case, whose facts are costs in ticks: so they run where cases run.
pub fn cases() -> Vec<Case> {
    let case = |operation: &'static Operation| {
        let probe = Box::leak(Box::new(Probe {
            suite: operation.group,
            name: operation.name,
            statement: operation.about,
            consumers: &[],
        }));
        Case::trial(probe, trial::Measure(operation), false)
    };
    operations().iter().map(case).collect()
}
