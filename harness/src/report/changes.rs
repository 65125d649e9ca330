//! Where recorded kernels part ways: the facts that differ between two neighbouring releases.

use super::series;
use std::collections::HashMap;
use uffd_results::{End, KernelVersion, Outcome, Record};
use uffd_suites::probe::Case;

/// A fact that differs between two neighbouring kernels, for one reason in several cases.
#[derive(Debug)]
pub(super) struct Change {
    /// The two kernels: places among the records. Neighbours of those that asked the case.
    pub(super) between: (usize, usize),
    /// The fact; `end` for cases that ended in different ways.
    pub(super) fact: String,
    /// Its values on the two kernels; `(none)` for a fact that was not observed.
    values: Vec<(String, String)>,
    /// The probes of the cases.
    pub(super) probes: Vec<String>,
    /// Why: the source that the expectation of the newer kernel names, or what one of them lacks.
    reason: Option<String>,
    /// The axes of the cases.
    cases: Vec<String>,
}

/// What cases must share to be named together: kernels, fact and reason; how they ended, if that is
/// what differs.
type Key = ((usize, usize), String, Option<String>, Option<(String, String)>);

/// All changes, by kernels and then in the order of the cases.
pub(super) fn find(records: &[Record], cases: &[Case]) -> Vec<Change> {
    let mut changes: Vec<Change> = Vec::new();
    let mut place: HashMap<Key, usize> = HashMap::new();
    for case in cases {
        let id = case.id();
        let asked: Vec<(usize, &Outcome)> = records
            .iter()
            .enumerate()
            .filter_map(|(i, record)| Some((i, record.cases.get(&id)?)))
            .collect();
        for pair in asked.windows(2) {
            let ((older, a), (newer, b)) = (pair[0], pair[1]);
            let Some(fact) = first_difference(a, b) else { continue };
            let (between, values) = ((older, newer), (value(a, &fact), value(b, &fact)));
            let ended = fact == "end";
            let version = records[newer].upstream().ok();
            let reason = version.and_then(|v| reason(case, &fact, (a, b), v));
            let told = reason.clone().filter(|_| !ended);
            let key = (between, fact.clone(), told, ended.then(|| values.clone()));
            let at = *place.entry(key).or_insert_with(|| {
                let (values, probes, cases) = (Vec::new(), Vec::new(), Vec::new());
                changes.push(Change { between, fact, values, probes, reason, cases });
                changes.len() - 1
            });
            let change = &mut changes[at];
            change.cases.push(case.axes());
            keep(&mut change.values, values);
            keep(&mut change.probes, case.probe.to_string());
        }
    }
    changes.sort_by_key(|change| change.between);
    changes
}

fn keep<T: PartialEq>(words: &mut Vec<T>, word: T) {
    if !words.contains(&word) {
        words.push(word);
    }
}

/// Facts stand in the order of cause and effect, so only the first that differs is named.
fn first_difference(a: &Outcome, b: &Outcome) -> Option<String> {
    if a.end != b.end {
        return Some("end".to_owned());
    }
    let names = a.facts.iter().chain(b.facts.iter()).map(|fact| &fact.name);
    names.into_iter().find(|name| a.facts.get(name) != b.facts.get(name)).map(ToString::to_string)
}

fn value(outcome: &Outcome, name: &str) -> String {
    let word = if name == "end" { Some(outcome.end.word()) } else { outcome.facts.get(name) };
    word.unwrap_or("(none)").to_owned()
}

/// Why a fact differs between two neighbours: the source that the expectation of the newer one
/// names, or what one of the two lacks.
pub(crate) fn reason(
    case: &Case,
    fact: &str,
    (a, b): (&Outcome, &Outcome),
    newer: KernelVersion,
) -> Option<String> {
    if fact == "end" {
        let skipped = if a.end == End::Done { b } else { a };
        return Some(skipped.detail.clone()).filter(|detail| !detail.is_empty());
    }
    let expected = case.expect(newer);
    // A fact that went away has no expectation any more: the one before it does.
    let named = expected.iter().find(|e| e.fact == fact).or(expected.last())?;
    Some(named.source.split_whitespace().collect::<Vec<_>>().join(" "))
}

impl Change {
    /// The two releases: `6.12.118 → 6.16.3`.
    pub(super) fn pair(&self, records: &[Record]) -> String {
        let name = |at: usize| records[at].kernel.upstream.as_str();
        format!("{} → {}", name(self.between.0), name(self.between.1))
    }

    /// The values: `untouched` → `-11`; of many the first few.
    pub(super) fn turn(&self) -> String {
        let turn = |(a, b): &(String, String)| format!("{} → {}", series::code(a), series::code(b));
        let shown: Vec<String> = self.values.iter().take(3).map(turn).collect();
        let more = self.values.len() - shown.len();
        let text = shown.join(", ");
        if more == 0 { text } else { format!("{text} and {more} more") }
    }

    /// The probes, as code.
    pub(super) fn probes(&self) -> String {
        self.probes.iter().map(|probe| series::code(probe)).collect::<Vec<_>>().join(" ")
    }

    /// What explains it, as text from records and sources.
    pub(super) fn why(&self) -> String {
        let reason = self.reason.as_deref().unwrap_or_default();
        let text: String = reason.chars().filter(|c| !c.is_control()).collect();
        text.replace('<', "&lt;")
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

    /// Whether a case only could not be asked on one of the two, which is no change of the answer.
    pub(super) fn is_only_skip(&self) -> bool {
        let skip = [End::Precondition, End::Denied, End::NotRun].map(End::word);
        let is_skip = |value: &String| skip.contains(&value.as_str());
        self.fact == "end" && self.values.iter().any(|(a, b)| is_skip(a) || is_skip(b))
    }
}
