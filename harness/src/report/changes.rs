//! What differs between recorded kernels: facts whose value is not the same on all of them.

use super::series;
use std::collections::{BTreeSet, HashMap};
use uffd_results::{End, Outcome, Record};
use uffd_suites::probe::Case;

/// A fact that changes in the same way in several cases.
#[derive(Debug)]
pub(super) struct Change {
    /// The probes of the cases.
    pub(super) probes: Vec<String>,
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
    let mut place: HashMap<(String, Vec<Option<String>>), usize> = HashMap::new();
    for case in cases {
        let probe = case.probe.to_string();
        for (fact, values) in varying(records, &case.id()) {
            let at = *place.entry((fact.clone(), values.clone())).or_insert_with(|| {
                changes.push(Change { probes: Vec::new(), fact, values, cases: Vec::new() });
                changes.len() - 1
            });
            changes[at].cases.push(case.axes());
            if !changes[at].probes.contains(&probe) {
                changes[at].probes.push(probe.clone());
            }
        }
    }
    changes
}

/// The facts of a case in which two neighbouring kernels part ways: facts stand in the order of
/// cause and effect, so only the first that differs between two kernels is named.
fn varying(records: &[Record], id: &str) -> Vec<(String, Vec<Option<String>>)> {
    let outcomes: Vec<Option<&Outcome>> = records.iter().map(|r| r.cases.get(id)).collect();
    let asked: Vec<&Outcome> = outcomes.iter().copied().flatten().collect();
    let mut names: Vec<String> = Vec::new();
    for pair in asked.windows(2) {
        if let Some(name) = first_difference(pair[0], pair[1]).filter(|name| !names.contains(name))
        {
            names.push(name);
        }
    }
    let value = |outcome: &Outcome, name: &str| {
        let word = if name == "end" { Some(outcome.end.word()) } else { outcome.facts.get(name) };
        word.unwrap_or("(none)").to_owned()
    };
    let values = |name: &str| outcomes.iter().map(|o| o.map(|o| value(o, name))).collect();
    names.into_iter().map(|name| (name.clone(), values(&name))).collect()
}

fn first_difference(a: &Outcome, b: &Outcome) -> Option<String> {
    if a.end != b.end {
        return Some("end".to_owned());
    }
    let names = a.facts.iter().chain(b.facts.iter()).map(|fact| &fact.name);
    names.into_iter().find(|name| a.facts.get(name) != b.facts.get(name)).map(ToString::to_string)
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

    /// The probes, as code.
    pub(super) fn probes(&self) -> String {
        self.probes.iter().map(|probe| series::code(probe)).collect::<Vec<_>>().join(" ")
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
