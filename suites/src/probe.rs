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

/// What the grid can't express: a question with axes of its own.
pub trait Trial: fmt::Debug + Sync {
    /// The axes and their values as case ids write them: `backing=anon,how=dup`; at least one.
    fn axes(&self) -> String;
    /// Asks. Runs in a process of its own.
    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop>;
    /// The facts to be seen on a kernel.
    fn expect(&self, kernel: KernelVersion) -> Vec<Expected>;
    /// What is done, a sentence a step.
    fn recipe(&self) -> Vec<String>;
    /// Whether it uses the machine's one pool of huge pages, and so must run alone.
    fn uses_huge_pages(&self) -> bool {
        false
    }
}

/// A trial whose only axis is the backing, or that has one fixed axis more.
#[derive(Clone, Copy, Debug)]
pub struct Routine {
    /// Asks.
    pub run: fn(&Stage, Backing, &mut Seen<'_>) -> Result<(), Stop>,
    /// The facts to be seen.
    pub expect: fn(Backing, KernelVersion) -> Vec<Expected>,
    /// What is done, in one sentence a step.
    pub recipe: &'static [&'static str],
}

/// A routine on a backing.
#[derive(Debug)]
struct On {
    routine: Routine,
    backing: Backing,
    /// The axis that it has beside the backing, or nothing.
    more: &'static str,
}

impl Trial for On {
    fn axes(&self) -> String {
        let Self { backing, more, .. } = self;
        if more.is_empty() {
            format!("backing={backing}")
        } else {
            format!("backing={backing},{more}")
        }
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        (self.routine.run)(stage, self.backing, seen)
    }

    fn expect(&self, kernel: KernelVersion) -> Vec<Expected> {
        (self.routine.expect)(self.backing, kernel)
    }

    fn recipe(&self) -> Vec<String> {
        self.routine.recipe.iter().map(|s| (*s).to_owned()).collect()
    }

    fn uses_huge_pages(&self) -> bool {
        self.backing.is_huge()
    }
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
    /// A question of its own.
    Trial(&'static dyn Trial),
}

/// A probe with one value for every axis.
///
/// Small: a worker holds thousands and forks for each.
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

    /// A case with a question of its own. Cases are made once a process: they live as long.
    pub fn trial(probe: &'static Probe, trial: impl Trial + 'static, by_default: bool) -> Self {
        Self { probe, ask: Ask::Trial(Box::leak(Box::new(trial))), by_default }
    }

    /// A case with a routine; by default on what QEMU's RAM blocks are made of.
    pub fn own(probe: &'static Probe, routine: Routine, backing: Backing) -> Self {
        let by_default = matches!(backing, Backing::Anon | Backing::Shmem | Backing::HugetlbShared);
        Self::trial(probe, On { routine, backing, more: "" }, by_default)
    }

    /// A case with a routine that has one more axis, `more`; by default.
    pub fn with_axis(
        probe: &'static Probe,
        routine: Routine,
        backing: Backing,
        more: &'static str,
    ) -> Self {
        Self::trial(probe, On { routine, backing, more }, true)
    }

    /// The axes and their values, without brackets.
    pub fn axes(&self) -> String {
        match &self.ask {
            Ask::Point(point) | Ask::Claim(point, _) => point.axes(),
            Ask::Trial(trial) => trial.axes(),
        }
    }

    /// The id, which never changes its meaning: `copy/munmap[backing=anon,part=head,waiter=none]`.
    pub fn id(&self) -> String {
        format!("{}[{}]", self.probe, self.axes())
    }

    /// Whether it must run alone: the pool of huge pages is one for the whole machine.
    pub fn is_exclusive(&self) -> bool {
        match &self.ask {
            Ask::Point(point) | Ask::Claim(point, _) => point.backing.is_huge(),
            Ask::Trial(trial) => trial.uses_huge_pages(),
        }
    }

    /// Modules that a VM's kernel must load for it, by file name; what these depend on follows.
    pub fn modules(&self) -> &'static [&'static str] {
        let is_vcpu = match &self.ask {
            Ask::Point(point) | Ask::Claim(point, _) => point.waiter.vcpu().is_some(),
            Ask::Trial(trial) => {
                self.probe.suite == crate::vcpu::SUITE || trial.axes().contains("waiter=vcpu,")
            }
        };
        let swaps = (self.probe.suite, self.probe.name) == ("kinds", "swapped");
        // A trial's waiter is known by its axes only.
        let is_direct = match &self.ask {
            Ask::Point(point) | Ask::Claim(point, _) => point.waiter.is_direct(),
            Ask::Trial(trial) => trial.axes().contains("waiter=direct-"),
        };
        match (is_vcpu, swaps || is_direct) {
            (true, _) => &["kvm-amd"],
            (false, true) => &["zram", "lzo-rle"],
            (false, false) => &[],
        }
    }

    /// Asks the kernel. Runs in a process of its own, which should end afterwards.
    pub fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        stage.way.clone()?;
        crate::withheld::or(match &self.ask {
            Ask::Point(point) => scenario::perform(stage, *point, seen),
            Ask::Claim(point, claim) => crate::claims::perform(stage, *point, *claim, seen),
            Ask::Trial(trial) => trial.run(stage, seen),
        })
    }

    /// The facts that it should show on a kernel.
    pub fn expect(&self, kernel: KernelVersion) -> Vec<Expected> {
        match &self.ask {
            Ask::Point(point) => model::expect(*point, kernel),
            Ask::Claim(point, claim) => crate::claims::expect(*point, *claim, kernel),
            Ask::Trial(trial) => trial.expect(kernel),
        }
    }

    /// What it does, a sentence a step.
    pub fn recipe(&self) -> Vec<String> {
        match &self.ask {
            Ask::Point(point) | Ask::Claim(point, _) => crate::recipe::of(*point),
            Ask::Trial(trial) => trial.recipe(),
        }
    }
}
