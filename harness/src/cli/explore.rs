//! `explore`: look for what two kernels do differently by sequences at random, and shrink it.

mod hints;
mod sides;
mod text;

use super::{Exit, Format, choose, out};
use crate::explore::{self, Findings, Found, Shrunk, Sides as _};
use crate::store::Store;
use anyhow::{Result, bail};
use clap::Args;
use sides::Pair;
use std::time::Instant;
use uffd_suites::explore::{Generator, LONGEST, Offer, Sequence};

/// Options of `explore`.
#[derive(Debug, Args)]
pub(crate) struct ExploreArgs {
    /// Which sequences: those of a seed are the same everywhere.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Steps in all.
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    steps: u64,
    /// Steps of each sequence.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u16).range(3..=LONGEST as i64))]
    length: u16,
    /// A kernel: a series (its newest release), a version, or `here` for the running one. Named twice for two
    /// kernels, once for one that is asked twice (default: `here`, twice).
    #[arg(short, long = "kernel", value_name = "KERNEL")]
    kernel: Vec<String>,
    /// Hold one kernel against the documented rules, in place of another kernel.
    #[arg(long)]
    model: bool,
    #[command(flatten)]
    own: choose::OwnArgs,
    /// Also use operations that one of the two lacks.
    #[arg(long)]
    all: bool,
    /// Ask this sequence in place of random ones: steps with `;` between them; may be given again.
    #[arg(long, value_name = "STEPS", conflicts_with_all = ["seed", "steps", "length", "all"])]
    sequence: Vec<Sequence>,
    /// Shrink so many differences, the shortest ones; the rest is only counted.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(0..=1000))]
    shrink: u16,
    /// Output format.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// The lock file that says which kernels there are (default: the one built in).
    #[arg(long, value_name = "FILE")]
    lock: Option<std::path::PathBuf>,
    #[command(flatten)]
    vm: choose::VmArgs,
}

/// What was asked, and what came of it.
struct Explored {
    names: [String; 2],
    /// What names them on the command line.
    words: String,
    /// Whether the first of them is the documented rules.
    is_model: bool,
    sequences: usize,
    steps: usize,
    /// What was not used since one of the two lacks it.
    left_out: Vec<Offer>,
    unanswered: (usize, Option<String>),
    shrunk: Vec<Shrunk>,
    /// What was found and not shrunk.
    rest: Vec<Found>,
    seconds: f64,
}

pub(crate) fn explore(args: &ExploreArgs, store: &Store) -> Result<Exit> {
    let count = args.kernel.len() + usize::from(args.own.kernel_image.is_some());
    if count > 2 {
        bail!("{count} kernels are named, and two are compared: name one or two");
    }
    if args.model && count == 2 {
        bail!("--model holds one kernel against the documented rules, and two are named");
    }
    let started = Instant::now();
    let mut pair = Pair::find(args)?;
    let mut findings = Findings::default();
    let mut left_out = Vec::new();
    let (sequences, steps) = if args.sequence.is_empty() {
        let offers = if args.all { Offer::ALL.to_vec() } else { offers(&mut pair)? };
        left_out.extend(Offer::ALL.iter().filter(|offer| !offers.contains(offer)));
        let generator = Generator::new(args.seed, args.length.into(), offers);
        let count = args.steps.div_ceil(args.length.into());
        random(&generator, count, &mut pair, &mut findings)?
    } else {
        let answers = pair.ask(&args.sequence)?;
        for (sequence, outcomes) in args.sequence.iter().zip(answers) {
            if args.format == Format::Human {
                text::answers(sequence, &pair.names(), &outcomes)?;
            }
            findings.take(sequence, outcomes);
        }
        (args.sequence.len(), args.sequence.iter().map(|s| s.steps().len()).sum())
    };
    let unanswered = std::mem::take(&mut findings.unanswered);
    let mut found = findings.into_found();
    let rest = found.split_off(found.len().min(args.shrink.into()));
    let bar = out::progress(0);
    let shrunk = explore::shrink(found, &mut pair, &mut |asked| {
        bar.set_prefix("shrinking");
        bar.set_length(asked as u64);
    })?;
    bar.finish_and_clear();
    let seconds = started.elapsed().as_secs_f64();
    let explored = Explored {
        names: pair.names(),
        words: pair.words(),
        is_model: args.model,
        sequences,
        steps,
        left_out,
        unanswered,
        shrunk,
        rest,
        seconds,
    };
    let hints = hints::Hints::new(store, &pair.releases(), &explored.shrunk);
    match args.format {
        Format::Human => text::human(args, &explored, &hints)?,
        Format::Jsonl => text::jsonl(args, &explored, &hints)?,
    }
    Ok(if !explored.shrunk.is_empty() || !explored.rest.is_empty() {
        Exit::Different
    } else if explored.unanswered.0 == explored.sequences {
        Exit::Nothing
    } else {
        Exit::Expected
    })
}

/// What both kernels have, of what some lack.
fn offers(pair: &mut Pair) -> Result<Vec<Offer>> {
    let questions: Vec<Sequence> = Offer::ALL.iter().map(|offer| offer.question()).collect();
    let answers = pair.ask(&questions)?;
    let both = |(offer, answer): (&Offer, _)| {
        let [a, b] = answer;
        (offer.is_in(&a) && offer.is_in(&b)).then_some(*offer)
    };
    Ok(Offer::ALL.iter().zip(answers).filter_map(both).collect())
}

/// Asks the first sequences of a seed; how many sequences and steps these were.
fn random(
    generator: &Generator,
    count: u64,
    pair: &mut Pair,
    findings: &mut Findings,
) -> Result<(usize, usize)> {
    let bar = out::progress(usize::try_from(count).unwrap_or(usize::MAX));
    let (mut sequences, mut steps) = (0, 0);
    let mut from = 0;
    while from < count {
        let to = count.min(from + sides::BATCH as u64);
        let batch: Vec<Sequence> = (from..to).map(|n| generator.sequence(n)).collect();
        for (sequence, outcomes) in batch.iter().zip(pair.ask(&batch)?) {
            findings.take(sequence, outcomes);
        }
        sequences += batch.len();
        steps += batch.iter().map(|sequence| sequence.steps().len()).sum::<usize>();
        bar.inc(batch.len() as u64);
        from = to;
    }
    bar.finish_and_clear();
    Ok((sequences, steps))
}
