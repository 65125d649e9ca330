//! The table of the mail thread's claims, true or false on each series.

use super::markdown::{head, row};
use super::series::{self, Series};
use anyhow::Result;
use std::collections::BTreeMap;
use uffd_results::Record;
use uffd_suites::probe::{Ask, Case};

/// The words of a claim's verdict where it is not moot.
fn claim<'a>(record: &'a Record, case: &Case) -> Option<&'a str> {
    let outcome = record.cases.get(&case.id())?;
    outcome.facts.get("claim").filter(|claim| *claim != "moot")
}

/// How often a claim was true among the cases where it is not moot.
fn truth(record: &Record, cases: &[Case]) -> String {
    let claims: Vec<&str> = cases.iter().filter_map(|case| claim(record, case)).collect();
    let yes = claims.iter().filter(|claim| **claim == "true").count();
    match (yes, claims.len()) {
        (_, 0) => "not asked".to_owned(),
        (0, _) => "**false**".to_owned(),
        (yes, all) if yes == all => "true".to_owned(),
        (yes, all) => format!("true in {yes} of {all}"),
    }
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
    let all: Vec<Case> =
        uffd_suites::cases().into_iter().filter(|case| case.probe.suite == "claims").collect();
    for cases in all.chunk_by(|a, b| std::ptr::eq(a.probe, b.probe)) {
        let Some(first) = cases.first() else { continue };
        let statement = format!("{} <br>`{}`", first.probe.statement, first.probe);
        let cells = columns.iter().map(|series| series.cell(|record| truth(record, cases)));
        let cells = std::iter::once(statement).chain(cells);
        out += &row(cells.chain([exceptions(records, cases)]));
    }
    Ok(out)
}
