//! Probes and cases: a question, its statement, who depends on it, and one point of its axes.

use crate::expect::Expected;
use crate::model;
use crate::outcome::{Seen, Stop};
use crate::point::{Backing, Point};
use crate::scenario;
use crate::stage::Stage;
use std::fmt;
use uffd_results::KernelVersion;

/// One question to the kernel.
#[derive(Debug)]
pub struct Probe {
    /// The suite that it belongs to: the first word of its cases' ids.
    pub suite: &'static str,
    /// Its name within the suite.
    pub name: &'static str,
    /// What is expected to hold, in one sentence.
    pub statement: &'static str,
    /// Who relies on it, and where.
    pub consumers: &'static [&'static str],
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.suite, self.name)
    }
}

/// A routine for what the grid can't express, with what it should show.
#[derive(Clone, Copy, Debug)]
pub struct Routine {
    /// Asks.
    pub run: fn(&Stage, Backing, &mut Seen<'_>) -> Result<(), Stop>,
    /// The facts to be seen.
    pub expect: fn(Backing, KernelVersion) -> Vec<Expected>,
    /// What is done, in one sentence a step.
    pub recipe: &'static [&'static str],
}

/// Holds the facts seen at a point against a claim: true, false, or moot (`None`).
pub type Claim = fn(&dyn Fn(&str) -> Option<String>) -> Option<bool>;

/// How a case asks.
#[derive(Clone, Copy, Debug)]
pub enum Ask {
    /// A point of the grid.
    Point(Point),
    /// A point of the grid, whose facts are then held against a claim.
    Claim(Point, Claim),
    /// A routine of its own, with the axes that it has beside the backing, if any.
    Routine(Routine, Backing, &'static str),
}

/// A probe with one value for every axis.
///
/// Small and without a heap: a worker holds thousands and forks for each.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// The question.
    pub probe: &'static Probe,
    /// How it is asked.
    pub ask: Ask,
    /// Whether it is asked without `--full`.
    pub by_default: bool,
}

impl Case {
    /// A case at a point of the grid.
    pub fn at(probe: &'static Probe, point: Point, by_default: bool) -> Self {
        Self { probe, ask: Ask::Point(point), by_default }
    }

    /// A claim at a point of the grid.
    pub fn claim(probe: &'static Probe, point: Point, claim: Claim, by_default: bool) -> Self {
        Self { probe, ask: Ask::Claim(point, claim), by_default }
    }

    /// A case with a routine of its own; by default on what QEMU's RAM blocks are made of.
    pub fn own(probe: &'static Probe, routine: Routine, backing: Backing) -> Self {
        let by_default = matches!(backing, Backing::Anon | Backing::Shmem | Backing::HugetlbShared);
        Self { probe, ask: Ask::Routine(routine, backing, ""), by_default }
    }

    /// The axes and their values, without brackets.
    pub fn axes(&self) -> String {
        match &self.ask {
            Ask::Point(point) | Ask::Claim(point, _) => point.axes(),
            Ask::Routine(_, backing, "") => format!("backing={backing}"),
            Ask::Routine(_, backing, more) => format!("backing={backing},{more}"),
        }
    }

    /// The id, which never changes its meaning: `copy/munmap[backing=anon,part=head,waiter=none]`.
    pub fn id(&self) -> String {
        format!("{}[{}]", self.probe, self.axes())
    }

    /// What backs its block.
    pub const fn backing(&self) -> Backing {
        match &self.ask {
            Ask::Point(point) | Ask::Claim(point, _) => point.backing,
            Ask::Routine(_, backing, _) => *backing,
        }
    }

    /// Whether it must run alone: the pool of huge pages is one for the whole machine.
    pub const fn is_exclusive(&self) -> bool {
        self.backing().is_huge()
    }

    /// Modules that a VM's kernel must load for it, by file name; what these depend on follows.
    pub fn modules(&self) -> &'static [&'static str] {
        if self.probe.suite == crate::vcpu::SUITE { &["kvm-amd"] } else { &[] }
    }

    /// Asks the kernel. Runs in a process of its own, which should end afterwards.
    pub fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        stage.way.clone()?;
        match &self.ask {
            Ask::Point(point) => scenario::perform(stage, *point, seen),
            Ask::Claim(point, claim) => crate::claims::perform(stage, *point, *claim, seen),
            Ask::Routine(routine, backing, _) => (routine.run)(stage, *backing, seen),
        }
    }

    /// The facts that it should show on a kernel.
    pub fn expect(&self, kernel: KernelVersion) -> Vec<Expected> {
        match &self.ask {
            Ask::Point(point) => model::expect(*point, kernel),
            Ask::Claim(point, claim) => crate::claims::expect(*point, *claim, kernel),
            Ask::Routine(routine, backing, _) => (routine.expect)(*backing, kernel),
        }
    }

    /// What it does, a sentence a step.
    pub fn recipe(&self) -> Vec<String> {
        match &self.ask {
            Ask::Point(point) | Ask::Claim(point, _) => crate::recipe::of(*point),
            Ask::Routine(routine, ..) => routine.recipe.iter().map(|s| (*s).to_owned()).collect(),
        }
    }
}
