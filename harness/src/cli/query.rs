//! `query`: an expression, and every recorded statement that it is true of.

use super::{Exit, Format, out, told};
use crate::query::{Hit, Query};
use crate::store::Store;
use anyhow::{Result, anyhow};
use clap::Args;
use serde_json::json;
use std::io::Write;
use uffd_results::{Case, Dataset, Extent};

/// What can be said in an expression.
const TERMS: &str = "\
Terms, joined by & and |, denied by !, in parentheses; * is any text:
  suite(X) probe(X) fact(X) value(X)   of a suite, probe, fact; the fact has that value somewhere
  backing(X) axis(NAME=X)              cases with that axis
  changed constant                     the fact differs between kernels, or does not
  since(V) until(V) only(V)            a value begins with V, ends with it, is seen in V only; a turn
                                       that lies between two recorded kernels counts for each V between
  differs_by(AXIS)                     that axis alone decides which way the fact goes
  held(WORD)                           the statement holds, partly, fails or is unsupported somewhere
  unsupported(V)                       V lacks the feature
  consumer(X) contract(X) text(X)      relied on by; decides an assumption; in the statement or name

Example: uffd-conform query 'since(6.12) & suite(copy)'";

/// Options of `query`.
#[derive(Debug, Args)]
#[command(after_help = TERMS)]
pub(crate) struct QueryArgs {
    /// The expression; several words are one expression.
    #[arg(required = true)]
    expr: Vec<String>,
    /// Also name every case.
    #[arg(long)]
    cases: bool,
    /// Output format.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub(crate) fn query(args: &QueryArgs, store: &Store) -> Result<Exit> {
    let query = Query::parse(&args.expr.join(" "))?;
    let known = told::load(store)?;
    let hits = query.run(&known).map_err(|error| anyhow!(error))?;
    let mut out = out::stdout();
    match args.format {
        Format::Human => human(&mut out, &hits, &known.data, args.cases)?,
        Format::Jsonl => {
            for hit in &hits {
                jsonl(&mut out, hit, &known.data, args.cases)?;
            }
        }
    }
    if hits.is_empty() {
        out::note("it is true of nothing that was recorded");
        return Ok(Exit::Nothing);
    }
    Ok(Exit::Expected)
}

/// The values of a fact, each once and in the order of the kernels, with where it was seen.
fn values<'d>(hit: &Hit<'d>) -> Vec<(&'d str, Extent)> {
    let mut values: Vec<(&str, Extent)> = Vec::new();
    for run in hit.support.runs() {
        if !values.iter().any(|(value, _)| *value == run.value) {
            values.push((run.value, hit.support.extent(run.value)));
        }
    }
    values
}

/// Hits that differ only in kernels that did not answer read alike, and are one.
fn human(out: &mut dyn Write, hits: &[Hit<'_>], data: &Dataset, cases: bool) -> Result<()> {
    let mut lines: Vec<(&str, String, Vec<&Case<'_>>)> = Vec::new();
    for hit in hits {
        let (name, said) = (hit.probe.name(), said(hit, data));
        match lines.iter_mut().find(|(probe, known, _)| *probe == name && *known == said) {
            Some((_, _, cases)) => cases.extend(&hit.cases),
            None => lines.push((name, said, hit.cases.iter().collect())),
        }
    }
    for (probe, said, all) in lines {
        let count = out::dim(format!("({})", crate::report::count(all.len(), "case")));
        writeln!(out, "{} {said} {count}", out::bold(probe))?;
        for case in all.iter().filter(|_| cases) {
            writeln!(out, "    {}", case.id())?;
        }
    }
    Ok(())
}

/// The fact of a hit with its values and where they were seen.
fn said(hit: &Hit<'_>, data: &Dataset) -> String {
    let say = |(value, extent): &(&str, Extent)| match extent {
        Extent::All => (*value).to_owned(),
        extent => format!("{value} {}", extent.say(data.kernels())),
    };
    let said: Vec<String> = values(hit).iter().map(say).collect();
    format!("{}: {}", hit.fact, said.join("; "))
}

fn jsonl(out: &mut dyn Write, hit: &Hit<'_>, data: &Dataset, cases: bool) -> Result<()> {
    let kernels = data.kernels();
    let values: Vec<_> = values(hit)
        .iter()
        .map(|(value, extent)| json!({"value": value, "on": extent.say(kernels)}))
        .collect();
    let runs = hit.support.runs().iter();
    let runs: Vec<_> = runs
        .map(|run| json!({"value": run.value, "first": kernels[run.first].release, "last": kernels[run.last].release}))
        .collect();
    let mut line = json!({
        "probe": hit.probe.name(), "fact": hit.fact, "statement": hit.probe.statement(),
        "values": values, "runs": runs, "count": hit.cases.len(),
    });
    if cases {
        line["cases"] = hit.cases.iter().map(|case| case.id()).collect();
    }
    Ok(writeln!(out, "{line}")?)
}
