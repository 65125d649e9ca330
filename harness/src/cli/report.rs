//! What a person or a program sees of the cases as they end.

use super::{Exit, Format, out};
use crate::export::facts;
use crate::judge::{Judgement, judge};
use anyhow::Result;
use indicatif::ProgressBar;
use serde_json::json;
use std::collections::BTreeMap;
use std::io::Write;
use std::time::{Duration, Instant};
use uffd_results::{Environment, Kernel, KernelVersion, Outcome, Suite, Verdict};
use uffd_suites::probe::Case;

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

/// Writes cases as they end, and the sum at the end.
#[derive(Debug)]
pub(crate) struct Report {
    format: Format,
    verbose: bool,
    kernel: KernelVersion,
    bar: ProgressBar,
    tally: Tally,
    started: Instant,
}

impl Report {
    /// Begins: says which kernel is asked what.
    pub(crate) fn begin(
        format: Format,
        verbose: bool,
        kernel: &Kernel,
        environment: &Environment,
        cases: usize,
    ) -> Result<Self> {
        let version = KernelVersion::parse(&kernel.upstream)?;
        let mut out = out::stdout();
        match format {
            Format::Human => {
                let Environment { accelerator, cpus, uffd, .. } = environment;
                let release = out::bold(&kernel.release);
                let how = format!("{version}, {accelerator}, {cpus} CPU, userfaultfd by {uffd}");
                writeln!(out, "{release} {}", out::dim(how))?;
            }
            Format::Jsonl => {
                let suite = suite();
                let head = json!({
                    "type": "run", "schema": uffd_results::SCHEMA, "kernel": kernel,
                    "environment": environment, "suite": suite, "cases": cases,
                });
                writeln!(out, "{head}")?;
            }
        }
        let bar = out::progress(cases);
        let (tally, started) = (Tally::default(), Instant::now());
        Ok(Self { format, verbose, kernel: version, bar, tally, started })
    }

    /// A case has ended.
    pub(crate) fn case(&mut self, case: &Case, outcome: &Outcome) -> Result<()> {
        let judgement = judge(case, outcome, self.kernel);
        self.tally.add(judgement.verdict, outcome);
        self.bar.inc(1);
        match self.format {
            Format::Human if self.verbose || judgement.verdict.is_trouble() => {
                self.bar.suspend(|| human(case, outcome, &judgement))
            }
            Format::Human => Ok(()),
            Format::Jsonl => self.bar.suspend(|| jsonl(case, outcome, &judgement)),
        }
    }

    /// Ends: the sum, and the exit code that follows from it. `took` is the time of cases that were
    /// run before the report began.
    pub(crate) fn end(self, took: Option<Duration>) -> Result<Exit> {
        self.bar.finish_and_clear();
        let took = took.unwrap_or_else(|| self.started.elapsed());
        let mut out = out::stdout();
        let tally = &self.tally;
        match self.format {
            Format::Human => {
                let total = tally.count(|_| true);
                let seconds = took.as_secs_f64();
                writeln!(out, "{total} cases in {seconds:.1} s: {}", tally.words())?;
                for ((verdict, why), n) in &tally.reasons {
                    writeln!(out, "  {} {n} × {why}", out::verdict(*verdict))?;
                }
            }
            Format::Jsonl => {
                let verdicts: BTreeMap<&str, usize> =
                    tally.verdicts.iter().map(|(v, n)| (v.word(), *n)).collect();
                writeln!(out, "{}", json!({"type": "end", "verdicts": verdicts}))?;
            }
        }
        Ok(tally.exit())
    }
}

/// The suite that this program asks.
pub(crate) fn suite() -> Suite {
    let revision = uffd_suites::REVISION.to_owned();
    Suite { version: env!("CARGO_PKG_VERSION").to_owned(), revision }
}

fn human(case: &Case, outcome: &Outcome, judgement: &Judgement) -> Result<()> {
    let mut out = out::stdout();
    writeln!(out, "{} {}", out::verdict(judgement.verdict), case.id())?;
    writeln!(out, "             {outcome}")?;
    out::differences(&mut out, judgement)?;
    Ok(())
}

fn jsonl(case: &Case, outcome: &Outcome, judgement: &Judgement) -> Result<()> {
    let mut line = json!({
        "type": "case", "id": case.id(), "verdict": judgement.verdict.word(),
        "end": outcome.end.word(), "facts": facts(outcome),
    });
    if !outcome.detail.is_empty() {
        line["detail"] = outcome.detail.clone().into();
    }
    if !judgement.differences.is_empty() {
        line["differences"] = judgement
            .differences
            .iter()
            .map(|d| {
                let e = &d.expected;
                json!({"fact": e.fact, "expected": e.value, "seen": d.seen, "source": e.source})
            })
            .collect();
    }
    writeln!(out::stdout(), "{line}")?;
    Ok(())
}
