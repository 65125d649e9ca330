//! The two kernels that are asked: the running one, or kernels in VMs.

use super::ExploreArgs;
use crate::cli::choose;
use crate::cli::choose::{KernelArgs, OwnArgs, VmArgs};
use crate::cli::here::Here;
use crate::cli::out;
use crate::cli::vm;
use crate::explore::Sides;
use crate::kernels::Image;
use crate::runner::{Limits, Pool};
use anyhow::{Context, Result, bail};
use std::time::Duration;
use uffd_results::Outcome;
use uffd_suites::bump::keeping;
use uffd_suites::explore::{Sequence, corrected};
use uffd_suites::probe::Case;

/// Sequences of one boot: what they say must fit in the memory that guest and host share.
pub(super) const BATCH: usize = 2000;

/// Bound on a sequence: not evidence, only a way out of a hang.
const DEADLINE: Duration = Duration::from_secs(20);

/// A kernel, or what stands in its place.
#[derive(Clone)]
enum Side {
    /// The documented rules, which make their answer of the other side's.
    Rules,
    /// The running one, by its release.
    Here(String),
    /// One in a VM.
    Vm(Box<Image>),
}

/// Two kernels.
pub(super) struct Pair {
    sides: [Side; 2],
    vm: VmArgs,
}

impl Pair {
    /// The kernels that are named.
    pub(super) fn find(args: &ExploreArgs) -> Result<Self> {
        let here = || -> Result<Side> { Ok(Side::Here(Here::find()?.kernel.release)) };
        let side = |name: &String| match name.as_str() {
            "here" => here(),
            name => image(name, args).map(|image| Side::Vm(Box::new(image))),
        };
        let own = args.own.image(&|text| out::note(text))?.map(|image| Side::Vm(Box::new(image)));
        let sides = match (&args.kernel[..], own) {
            ([], None) if args.model => [Side::Rules, here()?],
            ([], Some(own)) if args.model => [Side::Rules, own],
            ([one, ..], _) if args.model => [Side::Rules, side(one)?],
            ([], None) => [here()?, here()?],
            ([], Some(own)) => [own.clone(), own],
            ([one], None) => [side(one)?, side(one)?],
            ([one], Some(own)) => [side(one)?, own],
            ([one, other, ..], _) => [side(one)?, side(other)?],
        };
        if let ([Side::Here(_) | Side::Rules, Side::Here(_)], Some(option)) =
            (&sides, args.lock.as_ref().map(|_| "--lock").or(args.vm.named()))
        {
            bail!("{option} is for kernels in VMs, and none is named: add `-k 6.12`");
        }
        Ok(Self { sides, vm: args.vm.clone() })
    }

    /// What people call them.
    pub(super) fn names(&self) -> [String; 2] {
        self.sides.each_ref().map(|side| match side {
            Side::Rules => "the documented rules".to_owned(),
            Side::Here(release) => format!("here ({release})"),
            Side::Vm(image) => image.identity.upstream.to_string(),
        })
    }

    /// What names them on the command line.
    pub(super) fn words(&self) -> String {
        let words = self.sides.each_ref().map(|side| match side {
            Side::Rules => "--model".to_owned(),
            Side::Here(_) => "-k here".to_owned(),
            Side::Vm(image) => format!("-k {}", image.identity.upstream),
        });
        words.join(" ")
    }

    /// What `uname -r` says on them.
    pub(super) fn releases(&self) -> [String; 2] {
        self.sides.each_ref().map(|side| match side {
            Side::Rules => String::new(),
            Side::Here(release) => release.clone(),
            Side::Vm(image) => image.identity.release.clone(),
        })
    }
}

fn image(name: &str, args: &ExploreArgs) -> Result<Image> {
    let (kernel, lock) = (vec![name.to_owned()], args.lock.clone());
    let kernels = KernelArgs { kernel, newest: true, own: OwnArgs::default(), lock, shard: None };
    // Before anything is downloaded.
    let number = kernels.slots()?.len();
    if number != 1 {
        bail!("{name} names {number} kernels, and two are compared: name a series or a version");
    }
    let (mut images, fetched) = kernels.all(&|text| out::note(text));
    fetched?;
    images.pop().with_context(|| format!("{name} can't be had"))
}

impl Sides for Pair {
    fn ask(&mut self, sequences: &[Sequence]) -> Result<Vec<[Outcome; 2]>> {
        let mut all = Vec::with_capacity(sequences.len());
        for batch in sequences.chunks(BATCH) {
            let [a, b] = &self.sides;
            let (a, b) = match (a, b) {
                (Side::Rules, other) => {
                    let seen = self.answers(other, batch)?;
                    let right = batch.iter().zip(&seen).map(|(s, seen)| corrected(s, seen));
                    (right.collect(), seen)
                }
                // Workers are forked while this process has one thread.
                (Side::Here(_), _) | (_, Side::Here(_)) => {
                    (self.answers(a, batch)?, self.answers(b, batch)?)
                }
                _ => std::thread::scope(|scope| {
                    let other = scope.spawn(|| self.answers(b, batch));
                    let a = self.answers(a, batch);
                    let b = other.join().unwrap_or_else(|_| bail!("asking a kernel panicked"));
                    Ok::<_, anyhow::Error>((a?, b?))
                })?,
            };
            all.extend(a.into_iter().zip(b).map(|(a, b)| [a, b]));
        }
        Ok(all)
    }
}

impl Pair {
    fn answers(&self, side: &Side, sequences: &[Sequence]) -> Result<Vec<Outcome>> {
        match side {
            Side::Rules => bail!("the rules have no answer of their own"),
            Side::Here(_) => here(sequences),
            Side::Vm(image) => {
                let report = vm::ask_sequences(image, sequences, DEADLINE, &self.vm)?;
                for remark in vm::remarks(&report) {
                    out::note(&remark);
                }
                Ok(report.outcomes)
            }
        }
    }
}

fn here(sequences: &[Sequence]) -> Result<Vec<Outcome>> {
    // The workers are forked from this process, which a sequence's case outlives.
    let cases: Vec<Case> = keeping(|| sequences.iter().map(Sequence::case).collect());
    let jobs = choose::cpus();
    let mut outcomes = Vec::with_capacity(cases.len());
    let limits = Limits { deadline: DEADLINE, repeat: 1 };
    Pool::new(jobs, limits).run(&cases, &mut |_, outcome| outcomes.push(outcome))?;
    Ok(outcomes)
}
