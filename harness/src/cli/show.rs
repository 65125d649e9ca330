//! `show`: one case, all that is known of it.

use super::which::{Found, Which};
use super::{Exit, Format, out};
use crate::filter;
use crate::judge::judge;
use crate::known::{self, Known};
use crate::store::{Store, StoreError};
use anyhow::{Result, bail};
use clap::Args;
use serde_json::{Value, json};
use std::io::Write;
use uffd_results::{Certainty, KernelVersion, Outcome, Record, Verdict};
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
    let records = match store.load() {
        Ok(records) => records,
        Err(e @ StoreError::Empty(_)) => {
            out::note(&e.to_string());
            Vec::new()
        }
        Err(e) => return Err(e.into()),
    };
    let named = Named::of(&args.kernel, &records, store)?;
    let mut out = out::stdout();
    let mut is_known = named.is_none();
    for case in &cases {
        match args.format {
            Format::Human => human(&mut out, case, &records, named.as_ref())?,
            Format::Jsonl => jsonl(&mut out, case, &records, named.as_ref())?,
        }
        if let Some(named) = named.as_ref().filter(|_| !is_known) {
            is_known = named.found(case)?.iter().any(|found| found.answer.value.is_some());
        }
    }
    Ok(if is_known { Exit::Expected } else { Exit::Nothing })
}

/// Kernels that were named, and what they are looked up in.
struct Named<'a> {
    kernels: &'a [Which],
    known: Known,
}

impl<'a> Named<'a> {
    /// `None` if no kernel is named. Without records it is what was built in that is known.
    fn of(kernels: &'a [Which], records: &[Record], store: &Store) -> Result<Option<Self>> {
        if kernels.is_empty() {
            return Ok(None);
        }
        let known = if records.is_empty() { known::built_in() } else { known::of(records, store)? };
        Ok(Some(Self { kernels, known }))
    }

    /// The version of the first kernel that is named; of a series that of its newest recorded one.
    fn version(&self) -> Option<KernelVersion> {
        let which = self.kernels.first()?;
        let newest = which.places(&self.known.data).ok()?.last().copied();
        let recorded = newest.map(|place| self.known.data.kernels()[place].upstream);
        recorded.or_else(|| KernelVersion::parse(&which.to_string()).ok())
    }

    fn found(&self, case: &Case) -> Result<Vec<Found<'_, &Outcome>>> {
        let asked = self.known.data.case(&case.id());
        let mut found = Vec::new();
        for which in self.kernels {
            found.extend(which.look_up(&self.known.data, |kernel| asked?.answer(kernel))?);
        }
        Ok(found)
    }

    fn human(&self, out: &mut dyn Write, case: &Case) -> Result<()> {
        for Found { label, answer } in self.found(case)? {
            let why = answer.why.map(|why| format!(": {why}")).unwrap_or_default();
            writeln!(out, "    {label:<32} {}{why}", answer.certainty)?;
            match answer.value {
                Some(outcome) => writeln!(out, "        {outcome}")?,
                None => {
                    for (kernel, outcome) in &answer.basis {
                        writeln!(out, "        {}: {outcome}", kernel.upstream)?;
                    }
                }
            }
            let kernels: Vec<_> =
                answer.basis.iter().map(|(k, _)| k.upstream.to_string()).collect();
            if answer.value.is_some() && answer.certainty != Certainty::Exact {
                writeln!(out, "        {}", out::dim(format!("as {}", kernels.join(", "))))?;
            }
        }
        Ok(())
    }

    fn jsonl(&self, case: &Case) -> Result<Vec<Value>> {
        let found = self.found(case)?;
        let line = |Found { label, answer }: &Found<'_, &Outcome>| {
            let rests_on: Vec<&str> =
                answer.basis.iter().map(|(kernel, _)| kernel.release.as_str()).collect();
            json!({"kernel": label, "certainty": answer.certainty.word(), "why": answer.why.map(|why| why.to_string()), "rests_on": rests_on, "outcome": answer.value})
        };
        Ok(found.iter().map(line).collect())
    }
}

fn human(
    out: &mut dyn Write,
    case: &Case,
    records: &[Record],
    named: Option<&Named<'_>>,
) -> Result<()> {
    writeln!(out, "{}\n", out::bold(case.id()))?;
    writeln!(out, "  {}\n", case.probe.statement)?;
    for (n, step) in case.recipe().iter().enumerate() {
        writeln!(out, "  {}. {step}", n + 1)?;
    }
    let versions = versions(records);
    let meant = version(&versions, named);
    writeln!(out, "\n  {} {}", out::bold("expected"), out::dim(format_args!("on {meant}")))?;
    for Expected { fact, value, source } in case.expect(meant) {
        let fact = format!("{fact}={value}");
        writeln!(out, "    {fact:<24} {}", out::dim(source))?;
    }
    if named.is_none() {
        edges(out, case, &versions)?;
    }
    writeln!(out, "\n  {}", out::bold("relied on by"))?;
    for consumer in case.probe.consumers {
        writeln!(out, "    {consumer}")?;
    }
    writeln!(out, "\n  {}", out::bold("seen"))?;
    if let Some(named) = named {
        named.human(out, case)?;
    } else if records.is_empty() {
        writeln!(out, "    no records: `uffd-conform sweep` makes them")?;
    }
    let spans = if named.is_some() { &[] } else { records };
    let mut start = 0;
    while let Some(record) = spans.get(start) {
        let outcome = record.cases.get(&case.id());
        let same = spans[start..].iter().take_while(|r| r.cases.get(&case.id()) == outcome);
        let end = start + same.count();
        span(out, case, &spans[start..end], outcome)?;
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

/// The kernel of which is said what is expected: the one that is named, else the newest.
fn version(recorded: &[KernelVersion], named: Option<&Named<'_>>) -> KernelVersion {
    let named = named.and_then(Named::version);
    named.or(recorded.last().copied()).unwrap_or(KernelVersion::new(7, 3, 0))
}

fn versions(records: &[Record]) -> Vec<KernelVersion> {
    records.iter().filter_map(|record| record.upstream().ok()).collect()
}

fn jsonl(
    out: &mut dyn Write,
    case: &Case,
    records: &[Record],
    named: Option<&Named<'_>>,
) -> Result<()> {
    let expected: Vec<_> = case
        .expect(version(&versions(records), named))
        .iter()
        .map(|e| json!({"fact": e.fact, "value": e.value, "source": e.source}))
        .collect();
    let mut seen = named.map_or(Ok(Vec::new()), |named| named.jsonl(case))?;
    for record in records.iter().filter(|_| named.is_none()) {
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
