//! What differs between recorded kernels: facts whose value is not the same on all of them.

use super::series;
use std::collections::{BTreeMap, BTreeSet};
use uffd_results::{End, Record};
use uffd_suites::probe::Case;

/// A fact that changes in the same way in several cases of one probe.
#[derive(Debug)]
pub(super) struct Change {
    /// The probe.
    pub(super) probe: String,
    /// The fact; `end` for cases that ended in different ways.
    pub(super) fact: String,
    /// Its value on each kernel, in the order of the records.
    values: Vec<Option<String>>,
    /// The axes of the cases.
    cases: Vec<String>,
}

/// All changes, in the order of the cases.
pub(super) fn find(records: &[Record], cases: &[Case]) -> Vec<Change> {
    let mut changes: Vec<Change> = Vec::new();
    let mut place: BTreeMap<(String, String, Vec<Option<String>>), usize> = BTreeMap::new();
    for case in cases {
        let probe = case.probe.to_string();
        for (fact, values) in varying(records, &case.id()) {
            let key = (probe.clone(), fact.clone(), values.clone());
            let at = *place.entry(key).or_insert_with(|| {
                changes.push(Change { probe: probe.clone(), fact, values, cases: Vec::new() });
                changes.len() - 1
            });
            changes[at].cases.push(case.axes());
        }
    }
    changes
}

/// The facts of a case that are not the same on all kernels that were asked it.
fn varying(records: &[Record], id: &str) -> Vec<(String, Vec<Option<String>>)> {
    let outcomes: Vec<_> = records.iter().map(|record| record.cases.get(id)).collect();
    let ends: Vec<_> = outcomes.iter().map(|o| o.map(|o| o.end.word().to_owned())).collect();
    if differ(&ends) {
        return vec![("end".to_owned(), ends)];
    }
    let mut names: Vec<String> = Vec::new();
    for fact in outcomes.iter().flatten().flat_map(|outcome| outcome.facts.iter()) {
        if !names.iter().any(|name| *name == fact.name) {
            names.push(fact.name.to_string());
        }
    }
    names
        .into_iter()
        .map(|name| {
            let value =
                |o: &uffd_results::Outcome| o.facts.get(&name).unwrap_or("(none)").to_owned();
            let values: Vec<_> = outcomes.iter().map(|o| o.map(value)).collect();
            (name, values)
        })
        .filter(|(_, values)| differ(values))
        .collect()
}

fn differ(values: &[Option<String>]) -> bool {
    values.iter().flatten().collect::<BTreeSet<_>>().len() > 1
}

impl Change {
    /// The values in turn: `untouched (5.10.218 to 6.12.118), -11 (6.16.3 to 7.3.4)`.
    pub(super) fn timeline(&self, records: &[Record]) -> String {
        let known: Vec<(&str, &str)> = self
            .values
            .iter()
            .zip(records)
            .filter_map(|(value, record)| {
                Some((value.as_deref()?, record.kernel.upstream.as_str()))
            })
            .collect();
        let runs = known.chunk_by(|a, b| a.0 == b.0).map(|run| {
            let (value, from, to) = (run[0].0, run[0].1, run[run.len() - 1].1);
            let span = if from == to { from.to_owned() } else { format!("{from} to {to}") };
            format!("{} on {span}", series::code(value))
        });
        runs.collect::<Vec<_>>().join(", ")
    }

    /// Which cases: their number and the values of their axes.
    pub(super) fn cases(&self) -> String {
        let mut axes: Vec<(&str, Vec<&str>)> = Vec::new();
        for (name, value) in self
            .cases
            .iter()
            .flat_map(|case| case.split(','))
            .filter_map(|axis| axis.split_once('='))
        {
            match axes.iter_mut().find(|(n, _)| *n == name) {
                Some((_, values)) if values.contains(&value) => {}
                Some((_, values)) => values.push(value),
                None => axes.push((name, vec![value])),
            }
        }
        let words: Vec<String> =
            axes.iter().map(|(name, values)| format!("{name}={}", values.join("/"))).collect();
        format!("{}: {}", self.cases.len(), words.join(" "))
    }

    /// Whether a case only could not be asked everywhere, which is no change of the kernel's answer.
    pub(super) fn is_only_skips(&self) -> bool {
        let skip = [End::Precondition, End::Denied, End::NotRun].map(End::word);
        let answers = self.values.iter().flatten().filter(|v| !skip.contains(&v.as_str()));
        self.fact == "end" && answers.collect::<BTreeSet<_>>().len() < 2
    }
}
