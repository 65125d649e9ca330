//! The rule that makes the list of default trials. It is part of the tests, since what it needs, the answers
//! that are expected of every trial on every recorded release, takes seconds to work out.

mod tables;

use crate::probe::{Ask, Case};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hash, Hasher};
use tables::{CONTROLS, OFF, PAIRED};
pub(super) use tables::{INSISTED, REACHES, WANTED};
use uffd_results::{KernelVersion, id_matches};

/// More pairs of values than these need not all meet: in a probe that has as many they are much alike.
const PAIRS: usize = 16;

/// The releases whose answers are compared: where something is known to have changed there are two beside it.
const RELEASES: [(u16, u16, u16); 21] = [
    (5, 10, 218),
    (5, 10, 262),
    (6, 1, 170),
    (6, 1, 192),
    (6, 12, 43),
    (6, 12, 118),
    (6, 16, 3),
    (6, 16, 12),
    (6, 17, 8),
    (6, 17, 13),
    (6, 18, 5),
    (6, 18, 15),
    (6, 19, 6),
    (6, 19, 14),
    (7, 0, 4),
    (7, 0, 13),
    (7, 1, 3),
    (7, 1, 13),
    (7, 2, 6),
    (7, 2, 13),
    (7, 3, 4),
];

/// A trial as the rule sees it.
struct Trial {
    axes: String,
    /// Proposed by its suite.
    proposed: bool,
    /// Stands for all that is expected of it, on every release.
    answer: u64,
    /// The facts that change, each with the number of the release from which it is another.
    changes: Vec<String>,
}

impl Trial {
    fn new(case: &Case) -> Self {
        let mut facts: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for (i, (major, minor, patch)) in RELEASES.into_iter().enumerate() {
            for fact in case.expect(KernelVersion::new(major, minor, patch)) {
                let values = facts.entry(fact.fact).or_default();
                values.resize(i, String::new());
                values.push(fact.value.to_string());
            }
        }
        let mut answer = DefaultHasher::new();
        facts.hash(&mut answer);
        let mut changes = Vec::new();
        for (fact, values) in &facts {
            for (i, two) in values.windows(2).enumerate() {
                if two[0] != two[1] && !two.iter().any(String::is_empty) {
                    changes.push(format!("{fact} {i}"));
                }
            }
        }
        Self { axes: case.axes(), proposed: case.by_default, answer: answer.finish(), changes }
    }

    fn values(&self) -> impl Iterator<Item = &str> {
        self.axes.split(',')
    }
}

/// What each probe has by default: its name and the numbers of its trials.
pub(super) fn rule(registry: &[Case]) -> Vec<(String, BTreeSet<usize>)> {
    let mut probes: Vec<(String, Vec<Trial>)> = Vec::new();
    let mut places: HashMap<String, usize> = HashMap::new();
    for case in registry.iter().filter(|case| matches!(case.ask, Ask::Trial(_))) {
        let name = case.probe.to_string();
        let place = *places.entry(name.clone()).or_insert(probes.len());
        if place == probes.len() {
            probes.push((name, Vec::new()));
        }
        probes[place].1.push(Trial::new(case));
    }
    let filters = filters();
    let chosen = |(name, trials): (String, Vec<Trial>)| {
        let mut numbers = choose(&name, &trials);
        rest_on(&name, &trials, &filters, &mut numbers);
        (name, numbers)
    };
    probes.into_iter().map(chosen).filter(|(_, numbers)| !numbers.is_empty()).collect()
}

fn choose(probe: &str, trials: &[Trial]) -> BTreeSet<usize> {
    let all = 0..trials.len();
    let mut chosen: BTreeSet<usize> =
        all.clone().filter(|&i| is_insisted(probe, &trials[i])).collect();
    let needs = telling(trials);
    let mut left: HashSet<&str> = needs.iter().flatten().map(String::as_str).collect();
    let met = |left: &mut HashSet<&str>, i: usize| {
        for need in &needs[i] {
            left.remove(need.as_str());
        }
    };
    for &i in &chosen {
        met(&mut left, i);
    }
    while !left.is_empty() {
        let count = |i: usize| needs[i].iter().filter(|n| left.contains(n.as_str())).count();
        let best =
            all.clone().max_by_key(|&i| (count(i), trials[i].proposed, std::cmp::Reverse(i)));
        let best = best.expect("a trial for each need");
        met(&mut left, best);
        chosen.insert(best);
    }
    // What is still not shown, by the first trial that shows it.
    let few = trials.iter().filter(|t| t.proposed).filter_map(|t| pair(&t.axes));
    let few = few.collect::<HashSet<_>>().len() <= PAIRS;
    let proposed = &proposed(trials);
    let off = &off(probe);
    let shows = |trial: &Trial| {
        let mut shown = values(&trial.axes);
        shown.extend(pair(&trial.axes).filter(|_| few));
        shown.extend(paired(probe, &trial.axes));
        if off.as_ref().is_some_and(|off| trial.values().all(|value| !off.contains(&value))) {
            let usual = trial.values().all(|value| proposed.contains(value));
            shown.extend(
                values(&trial.axes).into_iter().filter(|_| usual).map(|v| format!("on {v}")),
            );
        }
        shown
    };
    let mut seen: HashSet<String> = chosen.iter().flat_map(|&i| shows(&trials[i])).collect();
    for (i, trial) in trials.iter().enumerate() {
        let new = shows(trial).into_iter().filter(|what| trial.proposed || is_wanted(what));
        let before = seen.len();
        seen.extend(new);
        if seen.len() > before {
            chosen.insert(i);
        }
    }
    chosen
}

/// The filters of case ids in the contracts, each with those of the cases that it leaves out.
fn filters() -> Vec<(String, Vec<String>)> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../results/contracts");
    let files =
        std::fs::read_dir(folder).expect("the contracts").map(|file| file.expect("a file").path());
    let read = |file| std::fs::read_to_string(file).expect("a contract");
    let tables = files.map(|file| read(file).parse::<toml::Table>().expect("TOML"));
    let words = |need: &toml::Value, name: &str| -> Vec<String> {
        let words = need.get(name).and_then(toml::Value::as_array).into_iter().flatten();
        words.filter_map(toml::Value::as_str).map(ToOwned::to_owned).collect()
    };
    let inside = |value: &toml::Value, name: &str| {
        value.get(name).and_then(toml::Value::as_array).cloned().unwrap_or_default()
    };
    let mut filters = Vec::new();
    for contract in tables.map(toml::Value::Table) {
        for need in inside(&contract, "assumption").iter().flat_map(|a| inside(a, "needs")) {
            filters.extend(words(&need, "cases").into_iter().map(|c| (c, words(&need, "except"))));
        }
    }
    filters.sort();
    filters
}

/// Adds a trial for each filter of a contract that finds none yet.
fn rest_on(
    probe: &str,
    trials: &[Trial],
    filters: &[(String, Vec<String>)],
    chosen: &mut BTreeSet<usize>,
) {
    let start =
        |filter: &str| filter.split(['[', '*']).next().is_some_and(|name| probe.starts_with(name));
    for (filter, except) in filters.iter().filter(|(filter, _)| start(filter)) {
        let found = |i: &usize| {
            let id = format!("{probe}[{}]", trials[*i].axes);
            id_matches(filter, &id) && !except.iter().any(|except| id_matches(except, &id))
        };
        if !chosen.iter().any(found) {
            let all = (0..trials.len()).filter(found);
            chosen.extend(all.min_by_key(|&i| (!trials[i].proposed, i)));
        }
    }
}

/// What each trial is good for: values that make a difference in it, compared with the other values in their
/// place, as in no other trial; and changes from release to release.
fn telling(trials: &[Trial]) -> Vec<Vec<String>> {
    let answers: HashMap<&str, u64> = trials.iter().map(|t| (t.axes.as_str(), t.answer)).collect();
    let proposed = proposed(trials);
    let mut others: HashMap<&str, BTreeSet<&str>> = HashMap::new();
    for value in trials.iter().flat_map(Trial::values) {
        others.entry(axis(value)).or_default().insert(value);
    }
    let mut best: HashMap<&str, usize> = HashMap::new();
    let mut differences: Vec<Vec<(&str, usize)>> = Vec::new();
    for trial in trials {
        let mut of_trial = Vec::new();
        for value in trial.values().filter(|v| !is_memory(v) && proposed.contains(v)) {
            let differs = |other: &&&str| {
                let in_its_place: Vec<&str> =
                    trial.values().map(|v| if v == value { **other } else { v }).collect();
                answers.get(in_its_place.join(",").as_str()).is_some_and(|a| *a != trial.answer)
            };
            let count = others[axis(value)].iter().filter(differs).count();
            of_trial.push((value, count));
            let most = best.entry(value).or_default();
            *most = count.max(*most);
        }
        differences.push(of_trial);
    }
    let needs = differences.into_iter().zip(trials).map(|(of_trial, trial)| {
        let most = of_trial.into_iter().filter(|(value, n)| *n > 0 && *n == best[value]);
        let values = most.map(|(value, _)| value.to_owned());
        values.chain(trial.changes.iter().cloned()).collect()
    });
    needs.collect()
}

/// The values that a probe's suite proposes for a default run, wherever.
fn proposed(trials: &[Trial]) -> BTreeSet<&str> {
    trials.iter().filter(|trial| trial.proposed).flat_map(Trial::values).collect()
}

/// The values of [`OFF`] that a probe has, if any.
fn off(probe: &str) -> Option<Vec<&'static str>> {
    let suite = probe.split('/').next();
    let is_its = |name: &str| name == probe || name.strip_suffix("/*") == suite;
    let values: Vec<_> = OFF.iter().filter(|(name, _)| is_its(name)).map(|(_, v)| *v).collect();
    (!values.is_empty()).then_some(values)
}

/// Whether a trial may show it that its suite does not propose.
fn is_wanted(what: &str) -> bool {
    what.starts_with("pair ") || what.starts_with("on ")
}

fn axis(value: &str) -> &str {
    value.split('=').next().unwrap_or(value)
}

fn is_memory(value: &str) -> bool {
    matches!(axis(value), "backing" | "memory")
}

fn is_insisted(probe: &str, trial: &Trial) -> bool {
    let axes = format!("{},", trial.axes);
    let is_in = |table: &[(&str, &[&str])]| {
        table.iter().any(|(name, all)| *name == probe && all.iter().all(|part| axes.contains(part)))
    };
    is_in(WANTED) || trial.proposed && [INSISTED, CONTROLS, REACHES].into_iter().any(is_in)
}

/// The two values that are to meet, of a probe where all are.
fn paired(probe: &str, axes: &str) -> Option<String> {
    let (_, first, second) = PAIRED.iter().find(|(name, ..)| *name == probe)?;
    let value = |axis: &str| axes.split(',').find(|value| value.starts_with(axis));
    Some(format!("pair {} {}", value(first)?, value(second)?))
}

/// The list as a file.
pub(super) fn file(registry: &[Case]) -> String {
    let mut text = String::new();
    for (probe, numbers) in rule(registry) {
        let _ = write!(text, "{probe}:");
        let mut runs: Vec<(usize, usize)> = Vec::new();
        for number in numbers {
            match runs.last_mut() {
                Some((_, last)) if *last + 1 == number => *last = number,
                _ => runs.push((number, number)),
            }
        }
        for (first, last) in runs {
            let _ = if first == last {
                write!(text, " {first}")
            } else {
                write!(text, " {first}-{last}")
            };
        }
        text.push('\n');
    }
    text
}

/// The axes beside the kind of memory, and which kind it is: `anon`, `other`, or `none`.
fn split(axes: &str) -> (Vec<&str>, &'static str) {
    let (backing, others): (Vec<&str>, Vec<&str>) =
        axes.split(',').partition(|a| a.starts_with("backing=") || a.starts_with("memory="));
    let kind = match backing.first() {
        Some(&"backing=anon" | &"memory=anon") => "anon",
        Some(_) => "other",
        None => "none",
    };
    (others, kind)
}

/// What a case shows: its values, each of them of anonymous memory where there is a choice.
pub(super) fn values(axes: &str) -> Vec<String> {
    let (others, kind) = split(axes);
    let mut values: Vec<String> = axes.split(',').map(ToOwned::to_owned).collect();
    if kind != "other" {
        values.extend(others.iter().map(|value| format!("{kind},{value}")));
    }
    values
}

/// The two values that meet in a case that has no more, of anonymous memory or where there is none.
pub(super) fn pair(axes: &str) -> Option<String> {
    match (&split(axes).0[..], split(axes).1) {
        ([a, b], "anon") | ([a, b, ..], "none") => Some(format!("{a},{b}")),
        _ => None,
    }
}
