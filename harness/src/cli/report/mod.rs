//! What a person or a program sees of the cases as they end.
//!
//! Belongs here: the counts, and what every format is told. Each format has a file of its own.

mod github;
mod human;
mod jsonl;
mod junit;
mod tap;

use super::{Exit, out};
use crate::judge::{Judgement, judge};
use anyhow::Result;
use clap::ValueEnum;
use indicatif::ProgressBar;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use uffd_results::{End, Environment, Kernel, KernelVersion, Outcome, Suite, Verdict};
use uffd_suites::probe::Case;

/// How a run is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Human,
    /// A JSON object a line.
    Jsonl,
    /// Kernel TAP, as kselftest and KUnit write it.
    Ktap,
    /// TAP version 14.
    Tap,
    /// JUnit XML, one document for all kernels.
    Junit,
    /// Markdown for the step summary of a GitHub job.
    Github,
}

/// Counts of verdicts, and the reasons of those that a person can do something about.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    verdicts: BTreeMap<Verdict, usize>,
    reasons: BTreeMap<(Verdict, String), usize>,
}

impl Tally {
    /// Counts a verdict.
    pub(crate) fn add(&mut self, verdict: Verdict, outcome: &Outcome) {
        *self.verdicts.entry(verdict).or_default() += 1;
        if !outcome.detail.is_empty() && !verdict.is_trouble() {
            *self.reasons.entry((verdict, outcome.detail.clone())).or_default() += 1;
        }
    }

    /// How many verdicts satisfy a condition.
    pub(crate) fn count(&self, condition: impl Fn(Verdict) -> bool) -> usize {
        self.verdicts.iter().filter(|(v, _)| condition(**v)).map(|(_, n)| n).sum()
    }

    /// `2100 pass, 3 differs`.
    pub(crate) fn words(&self) -> String {
        let words: Vec<String> =
            self.verdicts.iter().map(|(verdict, n)| format!("{n} {verdict}")).collect();
        if words.is_empty() { "no case".to_owned() } else { words.join(", ") }
    }

    fn exit(&self) -> Exit {
        if self.count(Verdict::is_trouble) > 0 {
            Exit::Different
        } else if self.count(Verdict::is_answer) == 0 {
            Exit::Nothing
        } else {
            Exit::Expected
        }
    }
}

/// What formats are told of a kernel before its cases.
struct Head<'a> {
    kernel: &'a Kernel,
    upstream: KernelVersion,
    environment: &'a Environment,
    /// How many cases will follow.
    cases: usize,
}

/// A case that has ended.
struct Seen<'a> {
    case: &'a Case,
    outcome: &'a Outcome,
    judgement: &'a Judgement,
}

/// How a verdict reads to programs that know three.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Result3 {
    Pass,
    /// The kernel is at fault, or the run: what should have been asked and was not is no skip.
    Fail,
    /// The kernel lacks the feature, or this place can't ask: never a pass.
    Skip,
}

impl Result3 {
    const fn of(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Pass => Self::Pass,
            Verdict::Ended(End::Unsupported | End::Denied | End::Precondition) => Self::Skip,
            _ => Self::Fail,
        }
    }
}

/// Writes one format to standard output.
trait Writer {
    /// A kernel's cases follow.
    fn begin(&mut self, head: &Head<'_>) -> Result<()>;
    /// A case has ended.
    fn case(&mut self, seen: &Seen<'_>) -> Result<()>;
    /// The kernel's cases were all told.
    fn end(&mut self, tally: &Tally, took: Duration) -> Result<()>;
    /// All kernels were told.
    fn finish(&mut self) -> Result<()> {
        Ok(())
    }
    /// There is nobody to be asked.
    fn skip(&mut self, why: &str) -> Result<()> {
        self.bail(why)
    }
    /// It can't go on.
    fn bail(&mut self, _why: &str) -> Result<()> {
        Ok(())
    }
}

/// Writes cases as they end, and the sums at the ends.
pub(crate) struct Report {
    writer: Box<dyn Writer>,
    kernel: KernelVersion,
    bar: ProgressBar,
    tally: Tally,
    started: Instant,
}

impl Report {
    /// A report of so many kernels.
    pub(crate) fn new(format: Format, verbose: bool, kernels: usize) -> Result<Self> {
        let writer: Box<dyn Writer> = match format {
            Format::Human => Box::new(human::Human { verbose }),
            Format::Jsonl => Box::new(jsonl::Jsonl),
            Format::Ktap => Box::new(tap::Tap::begin(tap::Dialect::Kernel, kernels)?),
            Format::Tap => Box::new(tap::Tap::begin(tap::Dialect::Fourteen, kernels)?),
            Format::Junit => Box::new(junit::Junit::new()),
            Format::Github => Box::new(github::Github::default()),
        };
        Ok(Self {
            writer,
            kernel: KernelVersion::new(0, 0, 0),
            bar: ProgressBar::hidden(),
            tally: Tally::default(),
            started: Instant::now(),
        })
    }

    /// A kernel begins: says which one is asked what.
    pub(crate) fn begin(
        &mut self,
        kernel: &Kernel,
        environment: &Environment,
        cases: usize,
    ) -> Result<()> {
        let upstream = KernelVersion::parse(&kernel.upstream)?;
        self.writer.begin(&Head { kernel, upstream, environment, cases })?;
        (self.kernel, self.bar) = (upstream, out::progress(cases));
        (self.tally, self.started) = (Tally::default(), Instant::now());
        Ok(())
    }

    /// A case has ended.
    pub(crate) fn case(&mut self, case: &Case, outcome: &Outcome) -> Result<()> {
        let judgement = judge(case, outcome, self.kernel);
        self.tally.add(judgement.verdict, outcome);
        self.bar.inc(1);
        let seen = Seen { case, outcome, judgement: &judgement };
        self.bar.suspend(|| self.writer.case(&seen))
    }

    /// A kernel ends: the sum, and the exit code that follows from it. `took` is the time of cases that
    /// were run before it was begun.
    pub(crate) fn end(&mut self, took: Option<Duration>) -> Result<Exit> {
        self.bar.finish_and_clear();
        let took = took.unwrap_or_else(|| self.started.elapsed());
        self.writer.end(&self.tally, took)?;
        Ok(self.tally.exit())
    }

    /// All kernels were told.
    pub(crate) fn finish(&mut self) -> Result<()> {
        self.writer.finish()
    }

    /// Says to a program that nothing will follow, since there is nobody to be asked, and why.
    pub(crate) fn skip(&mut self, error: &anyhow::Error) -> Result<()> {
        self.writer.skip(&format!("{error:#}"))
    }

    /// Says to a program that nothing more will follow, and why; to be followed by the error itself.
    pub(crate) fn bail(&mut self, error: &anyhow::Error) -> Result<()> {
        self.bar.finish_and_clear();
        self.writer.bail(&format!("{error:#}"))
    }
}

/// The suite that this program asks.
pub(crate) fn suite() -> Suite {
    let revision = uffd_suites::REVISION.to_owned();
    Suite { version: env!("CARGO_PKG_VERSION").to_owned(), revision }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(Verdict::Pass, Result3::Pass)]
    #[case(Verdict::Differs, Result3::Fail)]
    #[case(Verdict::Ended(End::Hang), Result3::Fail)]
    #[case(Verdict::Ended(End::Broken), Result3::Fail)]
    #[case(Verdict::Ended(End::NotRun), Result3::Fail)]
    #[case(Verdict::Ended(End::Unsupported), Result3::Skip)]
    #[case(Verdict::Ended(End::Precondition), Result3::Skip)]
    fn what_should_have_been_asked_is_no_skip(#[case] verdict: Verdict, #[case] reads: Result3) {
        assert_eq!(Result3::of(verdict), reads);
        assert_eq!(reads == Result3::Fail, verdict.is_trouble());
    }

    #[rstest]
    #[case(&[], Exit::Nothing)]
    #[case(&[End::Unsupported, End::Denied], Exit::Nothing)]
    #[case(&[End::Unsupported, End::Done], Exit::Expected)]
    #[case(&[End::Done, End::Done, End::Hang], Exit::Different)]
    #[case(&[End::NotRun], Exit::Different)]
    fn one_that_differs_is_enough(#[case] ends: &[End], #[case] exit: Exit) {
        let mut tally = Tally::default();
        for end in ends {
            let verdict = if *end == End::Done { Verdict::Pass } else { Verdict::Ended(*end) };
            tally.add(verdict, &Outcome::ended(*end, "why", uffd_results::Facts::new()));
        }
        assert_eq!(tally.exit(), exit);
    }
}
