//! `show`: one case, all that is known of it.

use super::{Exit, Format, out};
use crate::filter;
use crate::judge::judge;
use crate::store::Store;
use anyhow::{Result, bail};
use clap::Args;
use serde_json::json;
use std::io::Write;
use uffd_results::{KernelVersion, Outcome, Record, Verdict};
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
            "{n} cases match {words}: narrow it down (`uffd-conform list {words}` shows them), or use --all"
        );
    }
    let records = match store.load() {
        Ok(records) => records,
        Err(e @ crate::store::StoreError::Empty(_)) => {
            out::note(&e.to_string());
            Vec::new()
        }
        Err(e) => return Err(e.into()),
    };
    let mut out = out::stdout();
    for case in &cases {
        match args.format {
            Format::Human => human(&mut out, case, &records)?,
            Format::Jsonl => jsonl(&mut out, case, &records)?,
        }
    }
    Ok(Exit::Expected)
}

fn human(out: &mut dyn Write, case: &Case, records: &[Record]) -> Result<()> {
    writeln!(out, "{}\n", out::bold(case.id()))?;
    writeln!(out, "  {}\n", case.probe.statement)?;
    for (n, step) in case.recipe().iter().enumerate() {
        writeln!(out, "  {}. {step}", n + 1)?;
    }
    let versions = versions(records);
    let newest = versions.last().copied().unwrap_or(KernelVersion::new(7, 3, 0));
    writeln!(out, "\n  {} {}", out::bold("expected"), out::dim(format_args!("on {newest}")))?;
    for Expected { fact, value, source } in case.expect(newest) {
        let fact = format!("{fact}={value}");
        writeln!(out, "    {fact:<24} {}", out::dim(source))?;
    }
    edges(out, case, &versions)?;
    writeln!(out, "\n  {}", out::bold("relied on by"))?;
    for consumer in case.probe.consumers {
        writeln!(out, "    {consumer}")?;
    }
    writeln!(out, "\n  {}", out::bold("seen"))?;
    if records.is_empty() {
        writeln!(out, "    no records: `uffd-conform sweep` makes them")?;
    }
    let mut start = 0;
    while let Some(record) = records.get(start) {
        let outcome = record.cases.get(&case.id());
        let same = records[start..].iter().take_while(|r| r.cases.get(&case.id()) == outcome);
        let end = start + same.count();
        span(out, case, &records[start..end], outcome)?;
        start = end;
    }
    writeln!(out, "\n  repeat: uffd-conform run -k VERSION '{}'\n", case.id())?;
    Ok(())
}

/// Neighbouring kernels that agree.
fn span(
    out: &mut dyn Write,
    case: &Case,
    records: &[Record],
    outcome: Option<&Outcome>,
) -> Result<()> {
    let (Some(first), Some(last)) = (records.first(), records.last()) else { return Ok(()) };
    let (from, to) = (&first.kernel.upstream, &last.kernel.upstream);
    let name = if records.len() == 1 {
        from.clone()
    } else {
        format!("{from} to {to} ({} kernels)", records.len())
    };
    let Some(outcome) = outcome else {
        return Ok(writeln!(out, "    {name:<32} {}", out::dim("not in the record"))?);
    };
    let judgement = judge(case, outcome, first.upstream()?);
    writeln!(out, "    {name:<32} {}", out::verdict(judgement.verdict))?;
    writeln!(out, "        {outcome}")?;
    if judgement.verdict == Verdict::Differs {
        out::differences(out, &judgement)?;
    }
    Ok(())
}

/// Where the expectation changes between recorded kernels.
fn edges(out: &mut dyn Write, case: &Case, versions: &[KernelVersion]) -> Result<()> {
    for pair in versions.windows(2) {
        let (before, after) = (case.expect(pair[0]), case.expect(pair[1]));
        for fact in &before {
            let same = after.iter().any(|a| a.fact == fact.fact && a.value == fact.value);
            if !same {
                writeln!(out, "    up to {}: {}={}", pair[0], fact.fact, fact.value)?;
            }
        }
    }
    Ok(())
}

fn versions(records: &[Record]) -> Vec<KernelVersion> {
    records.iter().filter_map(|record| record.upstream().ok()).collect()
}

fn jsonl(out: &mut dyn Write, case: &Case, records: &[Record]) -> Result<()> {
    let newest = versions(records).last().copied().unwrap_or(KernelVersion::new(7, 3, 0));
    let expected: Vec<_> = case
        .expect(newest)
        .iter()
        .map(|e| json!({"fact": e.fact, "value": e.value, "source": e.source}))
        .collect();
    let mut seen = Vec::new();
    for record in records {
        if let Some(outcome) = record.cases.get(&case.id()) {
            let verdict = judge(case, outcome, record.upstream()?).verdict.word();
            let (kernel, release) = (&record.kernel.upstream, &record.kernel.release);
            seen.push(json!({"kernel": kernel, "release": release, "verdict": verdict, "outcome": outcome}));
        }
    }
    let line = json!({
        "id": case.id(), "statement": case.probe.statement, "recipe": case.recipe(),
        "expected": expected, "consumers": case.probe.consumers, "seen": seen,
    });
    writeln!(out, "{line}")?;
    Ok(())
}
