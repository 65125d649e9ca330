//! The table of the mail thread's claims, true or false on each series.

use super::markdown::{head, row};
use super::series::{self, Series};
use anyhow::Result;
use std::collections::BTreeMap;
use uffd_results::Record;
use uffd_suites::probe::{Ask, Case, Probe};

/// The words of a claim's verdict where it is not moot.
fn claim<'a>(record: &'a Record, case: &Case) -> Option<&'a str> {
    let outcome = record.cases.get(&case.id())?;
    outcome.facts.get("claim").filter(|claim| *claim != "moot")
}

/// How often a claim was true among the cases in which it is not moot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Truth {
    /// The cases in which it was true.
    pub(crate) yes: usize,
    /// All that say something of it; 0 if it was not asked.
    pub(crate) all: usize,
}

impl Truth {
    fn of(record: &Record, cases: &[Case]) -> Self {
        let claims: Vec<&str> = cases.iter().filter_map(|case| claim(record, case)).collect();
        let yes = claims.iter().filter(|claim| **claim == "true").count();
        Self { yes, all: claims.len() }
    }

    fn in_markdown(self) -> String {
        match (self.yes, self.all) {
            (_, 0) => "not asked".to_owned(),
            (0, _) => "**false**".to_owned(),
            (yes, all) if yes == all => "true".to_owned(),
            (yes, all) => format!("true in {yes} of {all}"),
        }
    }
}

/// A claim, and how true it is.
#[derive(Clone, Debug)]
pub(crate) struct Claim {
    /// Its probe.
    pub(crate) probe: &'static Probe,
    /// How true it is on each of the records.
    pub(crate) truth: Vec<Truth>,
    /// The changes for which it is false, in words: `all`, `none`, or a list.
    pub(crate) exceptions: String,
}

/// All claims.
pub(crate) fn all(records: &[Record]) -> Vec<Claim> {
    let cases: Vec<Case> =
        uffd_suites::cases().into_iter().filter(|case| case.probe.suite == "claims").collect();
    let of = |cases: &[Case]| {
        let truth = records.iter().map(|record| Truth::of(record, cases)).collect();
        Some(Claim { probe: cases.first()?.probe, truth, exceptions: exceptions(records, cases) })
    };
    cases.chunk_by(|a, b| std::ptr::eq(a.probe, b.probe)).filter_map(of).collect()
}

/// What happens to the block in a case, in the words of its axes.
fn change(case: &Case) -> String {
    match &case.ask {
        Ask::Point(point) | Ask::Claim(point, _) => {
            let axes = point.change.axes();
            let values = axes.split(',').filter_map(|axis| Some(axis.split_once('=')?.1));
            std::iter::once(point.change.name()).chain(values).collect::<Vec<_>>().join(" ")
        }
        Ask::Trial(trial) => {
            let axes = trial.axes();
            let last = axes.rsplit_once('=').map(|(_, how)| how.to_owned());
            last.unwrap_or(axes)
        }
    }
}

/// For a claim that is not the same for all changes: the changes for which it is false.
fn exceptions(records: &[Record], cases: &[Case]) -> String {
    let mut by_change: Vec<(String, BTreeMap<&str, usize>)> = Vec::new();
    for case in cases {
        let name = change(case);
        if by_change.last().is_none_or(|(last, _)| *last != name)
            && !by_change.iter().any(|(n, _)| *n == name)
        {
            by_change.push((name.clone(), BTreeMap::new()));
        }
        let Some((_, words)) = by_change.iter_mut().find(|(n, _)| *n == name) else { continue };
        for word in records.iter().filter_map(|record| claim(record, case)) {
            *words.entry(word).or_default() += 1;
        }
    }
    let all_true = by_change.iter().all(|(_, words)| !words.contains_key("false"));
    let all_false = by_change.iter().all(|(_, words)| !words.contains_key("true"));
    if all_true || all_false {
        return if all_false { "all" } else { "none" }.to_owned();
    }
    let named = by_change.iter().filter(|(_, words)| words.contains_key("false"));
    let words = named.map(|(name, words)| {
        let partly = if words.contains_key("true") { " (partly)" } else { "" };
        format!("{name}{partly}")
    });
    words.collect::<Vec<_>>().join(", ")
}

/// The table in Markdown: a claim a row, a series a column.
pub fn table(records: &[Record]) -> Result<String> {
    let columns = series::all(records)?;
    let names = columns.iter().map(|series: &Series<'_>| series.name.clone());
    let names = std::iter::once("claim".to_owned()).chain(names);
    let mut out = head(names.chain(["false for".to_owned()]).collect());
    for Claim { probe, truth, exceptions } in all(records) {
        let place = |record: &Record| records.iter().position(|r| std::ptr::eq(r, record));
        let cell = |record: &Record| {
            let truth = place(record).and_then(|at| truth.get(at));
            truth.map_or(String::new(), |truth| truth.in_markdown())
        };
        let statement = format!("{} <br>`{probe}`", probe.statement);
        let cells = columns.iter().map(|series| series.cell(cell));
        let cells = std::iter::once(statement).chain(cells);
        out += &row(cells.chain([exceptions]));
    }
    Ok(out)
}
