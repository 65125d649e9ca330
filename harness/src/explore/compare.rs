//! The first fact in which two answers to a sequence differ, and what makes two differences alike.

use super::Found;
use std::fmt;
use uffd_results::{End, Outcome};
use uffd_suites::explore::Sequence;

/// What two answers say of each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Compared {
    /// They agree.
    Same,
    /// They differ, first of all in this.
    Differ(Difference),
    /// At least one of them is none, through our fault or the machine's.
    Unanswered(String),
}

/// A fact of a step in which two kernels differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Difference {
    /// Which step, from 0; behind the last one: what the last close did.
    pub(crate) step: usize,
    /// The step's verb.
    pub(crate) verb: String,
    /// The fact; `end` if the sequence ended in different ways.
    pub(crate) fact: String,
    /// Its values.
    pub(crate) values: [String; 2],
}

/// What differences have in common that have one cause, as far as that can be told without knowing it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Signature {
    verb: String,
    fact: String,
    values: [String; 2],
}

impl Signature {
    /// Whether it is about the fate of a thread.
    pub(crate) fn is_of_waiter(&self) -> bool {
        self.fact == "waiter"
    }
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { verb, fact, values: [a, b] } = self;
        if fact == verb {
            write!(f, "{fact}: {a} → {b}")
        } else {
            write!(f, "{verb}, {fact}: {a} → {b}")
        }
    }
}

/// Holds two answers against each other.
pub(crate) fn compare(sequence: &Sequence, outcomes: &[Outcome; 2]) -> Compared {
    let is_answer = |outcome: &&Outcome| {
        matches!(outcome.end, End::Done | End::Hang | End::Killed | End::Panic)
    };
    if let Some(outcome) = outcomes.iter().find(|outcome| !is_answer(outcome)) {
        return Compared::Unanswered(format!("{} ({})", outcome.end.word(), outcome.detail));
    }
    let steps = sequence.steps();
    for n in 0..=steps.len() {
        let verb = steps.get(n).map_or("close", |step| step.verb());
        let difference = |fact: &str, values: [String; 2]| {
            let (verb, fact) = (verb.to_owned(), fact.to_owned());
            Compared::Differ(Difference { step: n, verb, fact, values })
        };
        let name = fact_name(n, steps.len());
        let said = outcomes.each_ref().map(|outcome| outcome.facts.get(&name));
        if said[0] == said[1] {
            continue;
        }
        // Who says nothing of a step has not come to its end, unless it is the last close, which says
        // something only of those who still waited.
        if n < steps.len() && said.contains(&None) {
            return difference("end", outcomes.each_ref().map(|o| o.end.word().to_owned()));
        }
        let [a, b] = said.map(|said| words(said.unwrap_or_default()));
        let fact = first_other(&a, &b);
        let value = |side: usize, words: &[(&str, &str)]| {
            let here = words.iter().find(|(name, _)| *name == fact).map(|(_, value)| *value);
            here.unwrap_or_else(|| standing(&outcomes[side], n, steps.len(), fact)).to_owned()
        };
        return difference(fact, [value(0, &a), value(1, &b)]);
    }
    if outcomes[0].end == outcomes[1].end {
        return Compared::Same;
    }
    let values = outcomes.each_ref().map(|outcome| outcome.end.word().to_owned());
    let (step, verb) = (steps.len(), "close".to_owned());
    Compared::Differ(Difference { step, verb, fact: "end".to_owned(), values })
}

/// The fact's name of a step, and of the last close behind them.
fn fact_name(step: usize, steps: usize) -> String {
    if step < steps { (step + 1).to_string() } else { "after".to_owned() }
}

fn words(said: &str) -> Vec<(&str, &str)> {
    said.split(';').filter_map(|word| word.split_once('=')).collect()
}

/// The name of the first word that only one of two has.
fn first_other<'a>(a: &[(&'a str, &'a str)], b: &[(&'a str, &'a str)]) -> &'a str {
    let names = |words: &[(&str, &str)], name: &str| words.iter().any(|(n, _)| *n == name);
    let longest = a.len().max(b.len());
    for n in 0..longest {
        match (a.get(n), b.get(n)) {
            (a, b) if a == b => {}
            (Some((one, _)), Some((other, _))) => {
                return if one == other || !names(b, one) { one } else { other };
            }
            (Some((name, _)), None) | (None, Some((name, _))) => return name,
            (None, None) => {}
        }
    }
    ""
}

/// What was last said of a fact before a step: what a step leaves as it was, it does not say again.
fn standing<'a>(outcome: &'a Outcome, before: usize, steps: usize, fact: &str) -> &'a str {
    let said = (0..before).rev().filter_map(|n| outcome.facts.get(&fact_name(n, steps)));
    let known = said.flat_map(words).find(|(name, _)| *name == fact).map(|(_, value)| value);
    known.unwrap_or(match fact.split_once('-') {
        _ if is_waiter(fact) => "asleep",
        Some(("queue", _)) => "0/0",
        // A place where nothing is, page by page.
        Some((_, "reg" | "pages" | "bits")) => "--------",
        _ => "(nothing)",
    })
}

fn is_waiter(fact: &str) -> bool {
    fact.strip_prefix('w').is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
}

impl Difference {
    /// The steps up to the one in which the two differ: what follows is of no concern.
    pub(crate) fn relevant(&self, sequence: &Sequence) -> Sequence {
        let steps = sequence.steps();
        let some = steps[..steps.len().min(self.step + 1)].to_vec();
        Sequence::new(some).unwrap_or_else(|_| sequence.clone())
    }

    /// What it has in common with others.
    pub(crate) fn signature(&self) -> Signature {
        let Self { verb, fact, values: [a, b], .. } = self;
        // `a-reg` and `b-reg`, `queue-1` and `queue-2`, `w3` and `w4` are one each.
        let fact = match fact.split_once('-') {
            _ if is_waiter(fact) => "waiter",
            Some((_, kind @ ("reg" | "pages" | "bits"))) => kind,
            Some(("queue", _)) => "queue",
            _ => fact,
        };
        let values = match fact {
            "reg" | "pages" | "bits" => turned_letters(a, b),
            _ => [plain(a), plain(b)],
        };
        Signature { verb: verb.clone(), fact: fact.to_owned(), values }
    }
}

/// Of two rows of letters, which letters stand for which: each pair once.
fn turned_letters(a: &str, b: &str) -> [String; 2] {
    if a.len() != b.len() {
        return [plain(a), plain(b)];
    }
    let mut pairs: Vec<(char, char)> = a.chars().zip(b.chars()).filter(|(x, y)| x != y).collect();
    pairs.sort_unstable();
    pairs.dedup();
    pairs
        .into_iter()
        .map(|(x, y)| [x.to_string(), y.to_string()])
        .fold([String::new(), String::new()], |[a, b], [x, y]| [a + &x, b + &y])
}

/// A value without the numbers of pages and bytes.
fn plain(value: &str) -> String {
    if value.parse::<u64>().is_ok_and(|bytes| bytes > 0) {
        return "bytes".to_owned();
    }
    let words = value.split(',').map(|word| word.split('@').next().unwrap_or(word));
    words.collect::<Vec<_>>().join(",")
}

impl Found {
    /// What it has in common with others.
    pub(crate) fn signature(&self) -> Signature {
        self.difference.signature()
    }
}
