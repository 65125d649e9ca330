//! `list`: the cases, each once.

use super::{Exit, Format, out};
use crate::filter;
use anyhow::Result;
use clap::Args;
use serde_json::json;
use std::collections::HashMap;
use std::io::Write;
use uffd_suites::probe::{Case, Probe};

/// Options of `list`.
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Parts of case ids, or patterns with `*`.
    filter: Vec<String>,
    /// Also the points of the grid that are left out by default.
    #[arg(long)]
    full: bool,
    /// List the probes with their statements in place of the cases.
    #[arg(long)]
    probes: bool,
    /// Output format.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub(crate) fn list(args: &ListArgs) -> Result<Exit> {
    let cases = filter::choose(&args.filter, args.full)?;
    let mut out = out::stdout();
    if args.probes {
        return probes(&mut out, args.format, &cases).map(|()| Exit::Expected);
    }
    for case in cases {
        match args.format {
            Format::Human => writeln!(out, "{}", case.id())?,
            Format::Jsonl => {
                let (probe, statement) = (case.probe.to_string(), case.probe.statement);
                let line = json!({"id": case.id(), "probe": probe, "statement": statement, "default": case.by_default});
                writeln!(out, "{line}")?;
            }
        }
    }
    Ok(Exit::Expected)
}

fn probes(out: &mut dyn Write, format: Format, cases: &[Case]) -> Result<()> {
    let mut counts: Vec<(&Probe, usize)> = Vec::new();
    let mut places = HashMap::new();
    for case in cases {
        // Cases of a probe need not stand together.
        let place = *places.entry(case.probe.to_string()).or_insert(counts.len());
        match counts.get_mut(place) {
            Some((_, count)) => *count += 1,
            None => counts.push((case.probe, 1)),
        }
    }
    for (probe, count) in counts {
        match format {
            Format::Human => {
                let cases = crate::report::count(count, "case");
                writeln!(out, "{} {}", out::bold(probe), out::dim(cases))?;
                writeln!(out, "    {}", probe.statement)?;
            }
            Format::Jsonl => {
                let line = json!({"probe": probe.to_string(), "statement": probe.statement, "consumers": probe.consumers, "cases": count});
                writeln!(out, "{line}")?;
            }
        }
    }
    Ok(())
}
