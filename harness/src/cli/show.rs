//! `show`: one case, all that is known of it.

use super::which::{Found, Which, changes};
use super::{Exit, Format, out, told};
use crate::filter;
use crate::judge::judge;
use crate::store::Store;
use anyhow::{Result, bail};
use clap::Args;
use serde_json::{Value, json};
use std::io::Write;
use uffd_results::{Certainty, Dataset, KernelVersion, Outcome, Recorded, Verdict};
use uffd_suites::expect::Expected;
use uffd_suites::probe::Case;

/// Cases shown at once without being asked for more.
const MANY: usize = 20;

/// Options of `show`.
#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    /// A case id, a part of one, or a pattern with `*`.
    #[arg(required = true)]
    case: Vec<String>,
    /// What these kernels showed, recorded or not: a series (6.12), a version, or what `uname -r`
    /// prints. Without any, every recorded kernel.
    #[arg(short, long, value_name = "KERNEL")]
    kernel: Vec<Which>,
    /// Show all cases that match, however many.
    #[arg(long)]
    all: bool,
    /// Output format.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub(crate) fn show(args: &ShowArgs, store: &Store) -> Result<Exit> {
    let cases = filter::choose(&args.case, true)?;
    if cases.len() > MANY && !args.all {
        let (n, words) = (cases.len(), args.case.join(" "));
        bail!(
            "{n} cases match {words}: narrow it down (`uffd-conform list --full {words}` shows them), or use --all"
        );
    }
    let known = told::load(store)?;
    let named = Named { kernels: &args.kernel, data: &known.data };
    let mut out = out::stdout();
    let mut is_known = args.kernel.is_empty();
    for case in &cases {
        match args.format {
            Format::Human => human(&mut out, case, named)?,
            Format::Jsonl => jsonl(&mut out, case, named)?,
        }
        is_known |= named.found(case)?.iter().any(|found| found.answer.value.is_some());
    }
    Ok(if is_known { Exit::Expected } else { Exit::Nothing })
}

/// What is known, and the kernels that were named; all that are recorded if none was.
#[derive(Clone, Copy)]
struct Named<'a> {
    kernels: &'a [Which],
    data: &'a Dataset,
}

impl<'a> Named<'a> {
    /// The kernel of which is said what is expected: the first that is named, of a series its newest recorded one;
    /// the newest of all if none is.
    fn version(self) -> KernelVersion {
        let named = self.kernels.first().and_then(|which| {
            let newest = which.places(self.data).ok()?.last().copied();
            let recorded = newest.map(|place| self.data.kernels()[place].upstream);
            recorded.or_else(|| KernelVersion::parse(&which.to_string()).ok())
        });
        let newest = self.data.kernels().last().map(|kernel| kernel.upstream);
        named.or(newest).unwrap_or(KernelVersion::new(7, 3, 0))
    }

    fn found(self, case: &Case) -> Result<Vec<Found<'a, &'a Outcome>>> {
        let asked = self.data.case(&case.id());
        let mut found = Vec::new();
        let answer = |kernel: usize| asked?.answer(kernel);
        let otherwise = |kernel: usize, version| {
            let on = &self.data.kernels()[kernel];
            answer(kernel).is_some_and(|shown| !changes(case, shown, on, version).is_empty())
        };
        for which in self.kernels {
            let all = which.look_up(self.data, answer)?;
            found.extend(
                all.into_iter()
                    .map(|one| one.unless_expected_otherwise(which, self.data, otherwise)),
            );
        }
        Ok(found)
    }

    fn human(self, out: &mut dyn Write, case: &Case) -> Result<()> {
        for Found { label, answer } in self.found(case)? {
            let why = answer.why.map(|why| format!(": {why}")).unwrap_or_default();
            writeln!(out, "    {label:<32} {}{why}", answer.certainty)?;
            match answer.value {
                Some(outcome) => writeln!(out, "        {outcome}")?,
                None => {
                    for (kernel, outcome) in &answer.basis {
                        writeln!(out, "        {}: {outcome}", kernel.label)?;
                    }
                }
            }
            let kernels: Vec<_> = answer.basis.iter().map(|(k, _)| k.label.as_str()).collect();
            if answer.value.is_some() && answer.certainty != Certainty::Exact {
                writeln!(out, "        {}", out::dim(format!("as {}", kernels.join(", "))))?;
            }
        }
        Ok(())
    }

    fn jsonl(self, case: &Case) -> Result<Vec<Value>> {
        let found = self.found(case)?;
        let line = |Found { label, answer }: &Found<'_, &Outcome>| {
            let rests_on: Vec<&str> =
                answer.basis.iter().map(|(kernel, _)| kernel.release.as_str()).collect();
            json!({"kernel": label, "certainty": answer.certainty.word(), "why": answer.why.map(|why| why.to_string()), "rests_on": rests_on, "outcome": answer.value})
        };
        Ok(found.iter().map(line).collect())
    }
}

fn human(out: &mut dyn Write, case: &Case, named: Named<'_>) -> Result<()> {
    writeln!(out, "{}\n", out::bold(case.id()))?;
    writeln!(out, "  {}\n", case.probe.statement)?;
    for (n, step) in case.recipe().iter().enumerate() {
        writeln!(out, "  {}. {step}", n + 1)?;
    }
    let kernels = named.data.kernels();
    let meant = named.version();
    writeln!(out, "\n  {} {}", out::bold("expected"), out::dim(format_args!("on {meant}")))?;
    for Expected { fact, value, source } in case.expect(meant) {
        let fact = format!("{fact}={value}");
        writeln!(out, "    {fact:<24} {}", out::dim(source))?;
    }
    if named.kernels.is_empty() {
        edges(out, case, kernels)?;
    }
    writeln!(out, "\n  {}", out::bold("relied on by"))?;
    for consumer in case.probe.consumers {
        writeln!(out, "    {consumer}")?;
    }
    writeln!(out, "\n  {}", out::bold("seen"))?;
    named.human(out, case)?;
    let asked = named.data.case(&case.id());
    let outcome = |place: usize| asked.and_then(|asked| asked.outcome(place));
    let all = if named.kernels.is_empty() { kernels.len() } else { 0 };
    let mut start = 0;
    while start < all {
        // One answer may be expected of the first kernels and not of the last ones.
        let shown = |place: usize| {
            let seen = outcome(place);
            (seen, seen.map(|seen| judge(case, seen, kernels[place].upstream).verdict))
        };
        let same = (start..all).take_while(|place| shown(*place) == shown(start)).count();
        span(out, case, &kernels[start..start + same], outcome(start))?;
        start += same;
    }
    writeln!(out, "\n  repeat: uffd-conform run -k VERSION '{}'\n", case.id())?;
    Ok(())
}

/// Neighbouring kernels that agree.
fn span(
    out: &mut dyn Write,
    case: &Case,
    kernels: &[Recorded],
    outcome: Option<&Outcome>,
) -> Result<()> {
    let (Some(first), Some(last)) = (kernels.first(), kernels.last()) else { return Ok(()) };
    let (from, to) = (&first.label, &last.label);
    let name = if kernels.len() == 1 {
        from.clone()
    } else {
        format!("{from} to {to} ({} kernels)", kernels.len())
    };
    let Some(outcome) = outcome else {
        return Ok(writeln!(out, "    {name:<32} {}", out::dim("not in the record"))?);
    };
    let judgement = judge(case, outcome, first.upstream);
    writeln!(out, "    {name:<32} {}", out::verdict(judgement.verdict))?;
    writeln!(out, "        {outcome}")?;
    if judgement.verdict == Verdict::Differs {
        out::differences(out, &judgement)?;
    }
    Ok(())
}

/// Where the expectation changes between recorded kernels.
fn edges(out: &mut dyn Write, case: &Case, kernels: &[Recorded]) -> Result<()> {
    for pair in kernels.windows(2) {
        let (before, after) = (case.expect(pair[0].upstream), case.expect(pair[1].upstream));
        for fact in &before {
            let same = after.iter().any(|a| a.fact == fact.fact && a.value == fact.value);
            if !same {
                writeln!(out, "    up to {}: {}={}", pair[0].label, fact.fact, fact.value)?;
            }
        }
    }
    Ok(())
}

fn jsonl(out: &mut dyn Write, case: &Case, named: Named<'_>) -> Result<()> {
    let expected: Vec<_> = case
        .expect(named.version())
        .iter()
        .map(|e| json!({"fact": e.fact, "value": e.value, "source": e.source}))
        .collect();
    let mut seen = named.jsonl(case)?;
    let kernels = named.data.kernels().iter().enumerate();
    for (place, kernel) in kernels.filter(|_| named.kernels.is_empty()) {
        let asked = named.data.case(&case.id());
        if let Some(outcome) = asked.and_then(|asked| asked.outcome(place)) {
            let verdict = judge(case, outcome, kernel.upstream).verdict.word();
            let (upstream, release) = (kernel.upstream.to_string(), &kernel.release);
            seen.push(json!({"kernel": upstream, "release": release, "verdict": verdict, "outcome": outcome}));
        }
    }
    let line = json!({
        "id": case.id(), "statement": case.probe.statement, "recipe": case.recipe(),
        "expected": expected, "consumers": case.probe.consumers, "seen": seen,
    });
    writeln!(out, "{line}")?;
    Ok(())
}
