//! Differences that are named together: those in one fact for one reason, however many cases show it.

use std::collections::HashMap;
use std::hash::Hash;
use uffd_results::End;

/// A fact in which a case differs between two places.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Difference {
    /// The case's probe, `suite/name`.
    pub(crate) probe: String,
    /// Its axes, as the id writes them.
    pub(crate) axes: String,
    /// The fact; `end` for a case that ended in different ways.
    pub(crate) fact: String,
    /// Its values in the two places; `(none)` for a fact that was not observed.
    pub(crate) values: (String, String),
    /// Why, if it is known.
    pub(crate) reason: Option<String>,
}

/// Differences that share where they are, the fact and the reason.
#[derive(Debug)]
pub(crate) struct Group<K> {
    /// Where they are.
    pub(crate) place: K,
    /// The fact; `end` for cases that ended in different ways.
    pub(crate) fact: String,
    /// Its values, each pair once.
    values: Vec<(String, String)>,
    /// The probes of the cases.
    pub(crate) probes: Vec<String>,
    /// Why.
    pub(crate) reason: Option<String>,
    /// The axes of the cases.
    cases: Vec<String>,
}

/// What differences must share: place, fact and reason; how they ended, if that is what differs.
type Key<K> = (K, String, Option<String>, Option<(String, String)>);

/// The groups of some differences, in the order of their first one.
pub(crate) fn group<K: Clone + Eq + Hash>(
    all: impl IntoIterator<Item = (K, Difference)>,
) -> Vec<Group<K>> {
    let mut groups: Vec<Group<K>> = Vec::new();
    let mut places: HashMap<Key<K>, usize> = HashMap::new();
    for (place, Difference { probe, axes, fact, values, reason }) in all {
        let ended = fact == "end";
        let key = (place.clone(), fact.clone(), reason.clone(), ended.then(|| values.clone()));
        let at = *places.entry(key).or_insert_with(|| {
            let (values, probes, cases) = (Vec::new(), Vec::new(), Vec::new());
            groups.push(Group { place, fact, values, probes, reason, cases });
            groups.len() - 1
        });
        let group = &mut groups[at];
        group.cases.push(axes);
        keep(&mut group.values, values);
        keep(&mut group.probes, probe);
    }
    groups
}

fn keep<T: PartialEq>(words: &mut Vec<T>, word: T) {
    if !words.contains(&word) {
        words.push(word);
    }
}

impl<K> Group<K> {
    /// The values: `untouched → -11`; of many the first few. `quote` writes one.
    pub(crate) fn turn(&self, quote: impl Fn(&str) -> String) -> String {
        let turn = |(a, b): &(String, String)| format!("{} → {}", quote(a), quote(b));
        let shown: Vec<String> = self.values.iter().take(3).map(turn).collect();
        let more = self.values.len() - shown.len();
        let text = shown.join(", ");
        if more == 0 { text } else { format!("{text} and {more} more") }
    }

    /// How many cases.
    pub(crate) fn count(&self) -> usize {
        self.cases.len()
    }

    /// The values that the axes of the cases have.
    pub(crate) fn axes(&self) -> String {
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
        words.join(" ")
    }

    /// Whether a case only could not be asked in one of the two, which is no change of the answer.
    pub(crate) fn is_only_skip(&self) -> bool {
        let skip = [End::Precondition, End::Denied, End::NotRun].map(End::word);
        let is_skip = |value: &String| skip.contains(&value.as_str());
        self.fact == "end" && self.values.iter().any(|(a, b)| is_skip(a) || is_skip(b))
    }
}
