//! A twist: one thing that is wrong with a call. With a ground it makes a case.

use super::ground::{Ground, Verdict};
use crate::abi::Rc;
use crate::abi::command::Command;
use crate::expect::Expected;
use crate::outcome::{Seen, Stop};
use crate::point::{Backing, PAGES};
use crate::probe::{Case, Probe, Trial};
use crate::scenario::Scene;
use crate::stage::Stage;
use std::fmt;
use uffd_results::KernelVersion;

/// What a twisted call returned.
#[derive(Debug)]
pub(super) struct Called {
    /// Its return value.
    pub(super) rc: Rc,
    /// Its result field, where that could be read back.
    pub(super) field: Option<String>,
}

/// One thing that is wrong with a call.
pub(super) trait Twist: fmt::Debug + Sync + Send + 'static {
    /// Its axis as ids write it: `bad=len-zero`.
    fn axis(&self) -> String;
    /// Whether the ioctl has what is to be wrong.
    fn applies(&self, ground: Ground) -> bool;
    /// Makes the call. Whatever it needs is made before.
    fn call(&self, ground: Ground, scene: &Scene<'_>, seen: &mut Seen<'_>) -> Result<Called, Stop>;
    /// What it should return and do.
    fn verdict(&self, ground: Ground, kernel: KernelVersion) -> Verdict;
    /// Corrects the facts that follow from the verdict, where the call does other work than the good
    /// one.
    fn adjust(&self, _facts: &mut [Expected], _kernel: KernelVersion) {}
    /// What is done in place of the good call, in a sentence.
    fn says(&self, ground: Ground) -> String;
}

/// A twist on a ground.
#[derive(Debug)]
pub(super) struct Twisted<T> {
    ground: Ground,
    twist: T,
}

impl<T: Twist> Twisted<T> {
    /// The case, if the twist applies; by default with the plain waiter on what is given.
    pub(super) fn case(
        probe: &'static Probe,
        ground: Ground,
        twist: T,
        by_default: bool,
    ) -> Option<Case> {
        twist.applies(ground).then(|| Case::trial(probe, Self { ground, twist }, by_default))
    }
}

impl<T: Twist> Trial for Twisted<T> {
    fn axes(&self) -> String {
        format!("{},{}", self.ground.axes(), self.twist.axis())
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        let Self { ground, twist } = self;
        let ground = *ground;
        seen.step("set-up");
        let scene = ground.scene(stage, 0)?;
        let waiter = scene
            .park(ground.point(), seen)?
            .ok_or_else(|| Stop::Broken("a ground without a waiter".into()))?;
        let called = twist.call(ground, &scene, seen)?;
        seen.fact(ground.command.word(), called.rc);
        if let Some(field) = called.field {
            seen.fact("field", field);
        }
        ground.conclude(scene, waiter, seen)
    }

    fn expect(&self, kernel: KernelVersion) -> Vec<Expected> {
        let Self { ground, twist } = self;
        let ground = *ground;
        let mut facts = twist.verdict(ground, kernel).expect(ground, ground.command.word());
        twist.adjust(&mut facts, kernel);
        facts
    }

    fn recipe(&self) -> Vec<String> {
        let Self { ground, twist } = self;
        let ground = *ground;
        let Ground { command, backing, .. } = ground;
        let waiter = ground.point().waiter;
        vec![
            format!("map a {backing} block of {PAGES} pages, page 3 written to, and register it"),
            format!("a {waiter} thread parks in a fault of page 2 that {command} could end"),
            twist.says(ground),
            "look at the waiter and at every page; UFFDIO_WAKE if it still sleeps".to_owned(),
        ]
    }

    fn uses_huge_pages(&self) -> bool {
        self.ground.backing.is_huge()
    }
}

/// Every ground of an ioctl that has one, with each whether its cases are defaults: anonymous and
/// shared memory with a plain waiter.
pub(super) fn grounds() -> impl Iterator<Item = (Ground, bool)> {
    let commands = Command::ALL.iter().filter(|command| **command != Command::Api);
    commands.flat_map(|command| {
        let backings = Backing::ALL.iter().filter(|b| Ground::applies(*command, **b));
        backings.flat_map(move |backing| {
            [false, true].map(|in_kernel| {
                let plain = matches!(backing, Backing::Anon | Backing::Shmem) && !in_kernel;
                (Ground { command: *command, backing: *backing, in_kernel }, plain)
            })
        })
    })
}
