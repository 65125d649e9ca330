//! Facts turned into others in stored records of real kernels, each name and each kind of value: the judge,
//! `diff` and `lint` must notice.

use crate::diff::{Comparer, Side};
use crate::judge::judge;
use crate::known::{self, Known};
use crate::lint::lint;
use crate::store::Store;
use rstest::rstest;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use uffd_results::{Cases, Dataset, End, Fact, Facts, Outcome, Record, Verdict};
use uffd_suites::probe::Case;

/// Facts that no expectation speaks of, a line each with the reason behind a colon: they are recorded, and
/// `diff` and `lint` look at them.
const OBSERVED_ONLY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/observed-only.txt");

/// What a value looks like: `5` and `17` are of one kind, `ENOENT` and `mm..mm` of others.
fn kind(value: &str) -> &'static str {
    let all = |is: fn(u8) -> bool| value.bytes().all(is);
    match value {
        "0" => "nothing",
        _ if value.parse::<i64>().is_ok() => "number",
        _ if value.starts_with('E') && all(|b| b.is_ascii_uppercase() || b.is_ascii_digit()) => {
            "errno"
        }
        _ if all(|b| b.is_ascii_lowercase()) => "word",
        _ if all(|b| b.is_ascii_digit() || b == b'/') => "pair",
        _ if all(|b| b.is_ascii_lowercase() || b == b'.' || b == b'-') => "pages",
        _ => "composed",
    }
}

type Values = BTreeMap<String, BTreeSet<String>>;

/// Every value that the record has for each fact.
fn values(record: &Record) -> Values {
    let mut values = Values::new();
    for (_, outcome) in record.cases.iter() {
        for Fact { name, value } in outcome.facts.iter() {
            values.entry(name.to_string()).or_default().insert(value.clone());
        }
    }
    values
}

/// Another value for a fact: one that other cases have, if possible of the same kind; else one that none has.
fn other(fact: &str, value: &str, values: &Values) -> String {
    let others = || values[fact].iter().filter(|other| *other != value);
    let same_kind = others().find(|other| kind(other) == kind(value));
    same_kind.or_else(|| others().next()).cloned().unwrap_or_else(|| format!("{value}x"))
}

fn flipped(outcome: &Outcome, fact: &str, value: &str) -> Outcome {
    let word = |f: &Fact| format!("{}={}", f.name, if f.name == fact { value } else { &f.value });
    let words: Vec<String> = outcome.facts.iter().map(word).collect();
    Outcome::done(Facts::parse(&words.join(" ")).expect("facts"))
}

/// One fact of one case, which the judge passed as it was.
struct Flip {
    id: String,
    after: Outcome,
    fact: String,
    noticed: bool,
}

/// For each fact and kind of value a flip that the judge notices; one that it does not, where it never does.
/// And of all single flips, how many it notices.
fn flips(record: &Record, cases: &HashMap<String, Case>) -> (Vec<Flip>, usize, usize) {
    let (version, values) = (record.upstream().expect("a version"), values(record));
    let mut flips: BTreeMap<(String, &str), Flip> = BTreeMap::new();
    let (mut noticed_in_all, mut all) = (0, 0);
    for (id, outcome) in record.cases.iter().filter(|(_, outcome)| outcome.end == End::Done) {
        let Some(case) = cases.get(id) else { continue };
        if judge(case, outcome, version).verdict != Verdict::Pass {
            continue;
        }
        for Fact { name, value } in outcome.facts.iter() {
            let after = flipped(outcome, name, &other(name, value, &values));
            let noticed = judge(case, &after, version).verdict == Verdict::Differs;
            all += 1;
            noticed_in_all += usize::from(noticed);
            let key = (name.to_string(), kind(value));
            if flips.get(&key).is_none_or(|flip| noticed && !flip.noticed) {
                flips.insert(
                    key,
                    Flip { id: id.to_owned(), after, fact: name.to_string(), noticed },
                );
            }
        }
    }
    (flips.into_values().collect(), noticed_in_all, all)
}

fn records() -> Vec<Record> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden");
    Store::new(Path::new(folder)).load().expect("stored records")
}

#[test]
fn the_judge_notices_every_fact_that_an_expectation_speaks_of() {
    let cases = known::cases();
    let (mut seen, mut noticed) = (BTreeSet::new(), BTreeSet::new());
    for record in records() {
        let (flips, found, all) = flips(&record, &cases);
        println!(
            "{}: {} kinds of facts, {found} of {all} flips noticed",
            record.kernel.release,
            flips.len()
        );
        // A fact may be expected in one case and only recorded in another.
        assert!(found * 100 >= all * 85, "{found} of {all} flips are noticed");
        for flip in flips {
            if flip.noticed {
                noticed.insert(flip.fact.clone());
            }
            seen.insert(flip.fact);
        }
    }
    let unnoticed: Vec<&str> = seen.difference(&noticed).map(String::as_str).collect();
    let text = std::fs::read_to_string(OBSERVED_ONLY).expect("the list");
    let listed: Vec<(&str, &str)> = text.lines().filter_map(|line| line.split_once(": ")).collect();
    let names: Vec<&str> = listed.iter().map(|(name, _)| *name).collect();
    assert_eq!(unnoticed, names, "facts of which no flip is noticed, and those that are listed");
    assert!(listed.iter().all(|(_, why)| !why.is_empty()));
}

/// The record with some cases turned.
fn turned(record: &Record, flips: &[&Flip]) -> Record {
    let after: HashMap<&str, &Outcome> =
        flips.iter().map(|flip| (flip.id.as_str(), &flip.after)).collect();
    let of = |id: &str, outcome: &Outcome| after.get(id).map_or(outcome, |after| *after).clone();
    let cases = record.cases.iter().map(|(id, outcome)| (id.to_owned(), of(id, outcome)));
    Record { cases: Cases::new(cases.collect()), ..record.clone() }
}

/// Flips in as few groups as it takes for each to have a case of its own.
fn groups(flips: &[Flip]) -> Vec<Vec<&Flip>> {
    let mut groups: Vec<Vec<&Flip>> = Vec::new();
    for flip in flips {
        let free = groups.iter_mut().find(|group| group.iter().all(|other| other.id != flip.id));
        match free {
            Some(group) => group.push(flip),
            None => groups.push(vec![flip]),
        }
    }
    groups
}

fn dataset(record: &Record) -> Dataset {
    known::dataset(std::slice::from_ref(record)).expect("a dataset")
}

#[rstest]
fn diff_names_every_fact_and_kind_of_value_that_is_turned(#[values(0, 1)] which: usize) {
    let (record, comparer) = (&records()[which], Comparer::new());
    let (flips, ..) = flips(record, &known::cases());
    assert!(flips.len() > 50, "{} kinds", flips.len());
    let before = dataset(record);
    for group in groups(&flips) {
        let other = turned(record, &group);
        let after = dataset(&other);
        let sides = (Side { data: &before, kernel: 0 }, Side { data: &after, kernel: 0 });
        let compared = comparer.kernels(sides, &|_| true);
        let mut found: Vec<(String, &str, &str)> = compared
            .differences
            .iter()
            .map(|(_, d)| {
                (format!("{}[{}]", d.probe, d.axes), d.fact.as_str(), d.values.1.as_str())
            })
            .map(|(id, fact, value)| (id.replace("[]", ""), fact, value))
            .collect();
        let mut expected: Vec<_> = group
            .iter()
            .map(|flip| (flip.id.clone(), flip.fact.as_str(), flip.after.value(&flip.fact)))
            .collect();
        found.sort_unstable();
        expected.sort_unstable();
        assert_eq!(found, expected, "what differs, and what was turned");
    }
}

/// All at once: each is looked for by its probe, since one finding may tell of several cases.
#[rstest]
fn lint_finds_every_probe_in_which_a_fact_was_turned(#[values(0, 1)] which: usize) {
    let (record, cases) = (&records()[which], known::cases());
    let findings = |record: &Record| lint(&Known::from(dataset(record)), &[], &cases);
    let (flips, ..) = flips(record, &cases);
    let noticed: Vec<&Flip> = flips.iter().filter(|flip| flip.noticed).collect();
    let other = turned(record, &noticed);
    let before = findings(record);
    let new: Vec<_> = findings(&other).into_iter().filter(|f| !before.contains(f)).collect();
    for Flip { id, fact, .. } in noticed {
        let probe = id.split('[').next().expect("a probe");
        let found = new.iter().any(|finding| finding.place.contains(probe));
        assert!(found, "{id}: {fact} turned, and no finding tells of {probe}");
    }
}
