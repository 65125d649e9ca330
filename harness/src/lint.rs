//! What is recorded, what programs assume and what was noted, held against each other: whatever is
//! odd must be explained, and whatever explains must be about something. Pure.

use crate::contracts;
use crate::judge::judge;
use crate::known::Known;
use crate::notes::{Note, is_named};
use crate::report::{Step, steps};
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use uffd_results::{Dataset, End, Held, KernelVersion, Outcome, Verdict, is_answer};
use uffd_suites::probe::Case;

/// What kind of finding it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A statement holds for some cases only, or for none, and no note says why.
    Partial,
    /// A fact changed between neighbours of which the same is expected, and no note says why.
    Unexplained,
    /// Two notes explain the same, or one kernel is recorded twice.
    Overlap,
    /// A note or reason is about nothing that is recorded, or explains what needs no explanation.
    Orphan,
    /// A contract is about nothing that is recorded.
    Contract,
}

impl Kind {
    /// The word used in output.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Partial => "partial",
            Self::Unexplained => "unexplained",
            Self::Overlap => "overlap",
            Self::Orphan => "orphan",
            Self::Contract => "contract",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

/// Something that should not be so.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// Its kind.
    pub kind: Kind,
    /// What it is about.
    pub place: String,
    /// What is wrong.
    pub what: String,
}

/// Something odd in a fact of a probe on a kernel, which a note can explain.
struct Odd {
    kind: Kind,
    probe: String,
    kernel: usize,
    fact: String,
    /// An example, and how many there are.
    example: String,
    count: usize,
}

/// Everything that is wrong.
pub(crate) fn lint(known: &Known, notes: &[Note], cases: &HashMap<String, Case>) -> Vec<Finding> {
    let data = &known.data;
    let mut odd = partial(data, cases);
    odd.extend(unexplained(data, cases));
    let mut findings = unnoted(data, &odd, notes);
    findings.extend(twice(data));
    findings.extend(of_notes(data, &odd, notes));
    findings.extend(of_reasons(data));
    let contracts = contracts::lint(&known.contracts, data).into_iter().map(|wrong| {
        let (place, what) = wrong.split_once(": ").unwrap_or(("contracts", &wrong));
        Finding { kind: Kind::Contract, place: place.to_owned(), what: what.to_owned() }
    });
    findings.extend(contracts);
    findings.sort();
    findings
}

/// Adds up what is odd by probe, kernel and fact.
#[derive(Default)]
struct Sums(BTreeMap<(String, usize, String), (String, usize)>);

impl Sums {
    fn add(&mut self, probe: &str, kernel: usize, fact: &str, example: impl FnOnce() -> String) {
        let key = (probe.to_owned(), kernel, fact.to_owned());
        self.0.entry(key).or_insert_with(|| (example(), 0)).1 += 1;
    }

    fn all(self, kind: Kind) -> impl Iterator<Item = Odd> {
        self.0.into_iter().map(move |((probe, kernel, fact), (example, count))| Odd {
            kind,
            probe,
            kernel,
            fact,
            example,
            count,
        })
    }
}

/// Facts that are not as expected, where a statement does not hold.
fn partial(data: &Dataset, cases: &HashMap<String, Case>) -> Vec<Odd> {
    let mut sums = Sums::default();
    for probe in data.probes() {
        for (kernel, about) in data.kernels().iter().enumerate() {
            if !matches!(probe.held(kernel), Some(Held::Partly | Held::Fails)) {
                continue;
            }
            for recorded in probe.cases() {
                let id = recorded.id();
                let Some((case, outcome)) = cases.get(&id).zip(recorded.answer(kernel)) else {
                    continue;
                };
                let judgement = judge(case, outcome, about.upstream);
                if matches!(judgement.verdict, Verdict::Pass | Verdict::Ended(End::Unsupported)) {
                    continue;
                }
                let first = judgement.differences.first();
                let fact = first.map_or("end", |difference| difference.expected.fact);
                let example = || {
                    let wanted = first.map_or("done", |difference| &difference.expected.value);
                    format!("{id}: expected {wanted}, saw {}", outcome.value(fact))
                };
                sums.add(probe.name(), kernel, fact, example);
            }
        }
    }
    sums.all(Kind::Partial).collect()
}

/// Facts that changed between neighbours although the same is expected of both.
fn unexplained(data: &Dataset, cases: &HashMap<String, Case>) -> Vec<Odd> {
    let mut sums = Sums::default();
    let mut sorted: Vec<&Case> = cases.values().collect();
    sorted.sort_by_cached_key(|case| case.id());
    for Step { case, between: (older, newer), outcomes: (a, b), fact } in steps(data, sorted) {
        let answered = is_answer(a.end) && is_answer(b.end);
        let version = |at: usize| data.kernels()[at].upstream;
        // That a feature is missing, and what is missing with it, the outcome itself says.
        if !answered || fact == "end" || expected_change(case, fact, version(older), version(newer))
        {
            continue;
        }
        // What is not as expected is found as such.
        let fits =
            |outcome: &Outcome, version| judge(case, outcome, version).verdict == Verdict::Pass;
        if fits(a, version(older)) && fits(b, version(newer)) {
            let example = || {
                let from = data.kernels()[older].upstream;
                format!("{}: {} since {from}, now {}", case.id(), a.value(fact), b.value(fact))
            };
            sums.add(&case.probe.to_string(), newer, fact, example);
        }
    }
    sums.all(Kind::Unexplained).collect()
}

/// Whether something else is expected of a fact on the newer of two kernels.
fn expected_change(case: &Case, fact: &str, older: KernelVersion, newer: KernelVersion) -> bool {
    let of = |version| {
        let expected = case.expect(version);
        expected.into_iter().find(|e| e.fact == fact).map(|e| e.value)
    };
    of(older) != of(newer)
}

fn unnoted(data: &Dataset, odd: &[Odd], notes: &[Note]) -> Vec<Finding> {
    let unnoted = odd.iter().filter(|o| {
        let kernel = &data.kernels()[o.kernel];
        !notes.iter().any(|note| note.covers(&o.probe, kernel, &o.fact))
    });
    let finding = |Odd { kind, probe, kernel, fact, example, count }: &Odd| Finding {
        kind: *kind,
        place: format!("{probe} on {}", data.kernels()[*kernel].release),
        what: format!("{fact} in {count} cases: {example}"),
    };
    unnoted.map(finding).collect()
}

/// Kernels that are recorded twice.
fn twice(data: &Dataset) -> Vec<Finding> {
    let kernels = data.kernels();
    let same = |i: usize, j: usize| {
        let (a, b) = (&kernels[i], &kernels[j]);
        (&a.release, &a.machine, &a.version) == (&b.release, &b.machine, &b.version)
    };
    (1..kernels.len())
        .filter(|i| (0..*i).any(|j| same(*i, j)))
        .map(|i| Finding {
            kind: Kind::Overlap,
            place: kernels[i].release.clone(),
            what: "this build is recorded twice".into(),
        })
        .collect()
}

/// Notes about nothing, about what needs none, and about the same.
fn of_notes(data: &Dataset, odd: &[Odd], notes: &[Note]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut add = |kind, n: usize, what: String| {
        let place = format!("notes.toml, note {} ({})", n + 1, notes[n].probe);
        findings.push(Finding { kind, place, what });
    };
    let covers = |note: &Note, o: &Odd| note.covers(&o.probe, &data.kernels()[o.kernel], &o.fact);
    for (n, note) in notes.iter().enumerate() {
        if [&note.says, &note.source].iter().any(|text| text.trim().is_empty()) {
            add(Kind::Orphan, n, "it says nothing, or does not say who says so".into());
        }
        if !data.probes().any(|probe| note.names_probe(probe.name())) {
            add(Kind::Orphan, n, "no recorded probe has that name".into());
            continue;
        }
        for name in &note.kernels {
            if !data.kernels().iter().any(|kernel| is_named(name, kernel)) {
                add(Kind::Orphan, n, format!("no recorded kernel is {name:?}"));
            } else if !odd
                .iter()
                .any(|o| covers(note, o) && is_named(name, &data.kernels()[o.kernel]))
            {
                add(Kind::Orphan, n, format!("there is nothing to explain on {name}"));
            }
        }
        for fact in &note.facts {
            if !odd.iter().any(|o| o.fact == *fact && covers(note, o)) {
                add(Kind::Orphan, n, format!("there is nothing to explain in the fact {fact:?}"));
            }
        }
        if !odd.iter().any(|o| covers(note, o)) {
            add(Kind::Orphan, n, "there is nothing that it explains".into());
        }
        let other = (0..n).find(|m| odd.iter().any(|o| covers(note, o) && covers(&notes[*m], o)));
        if let Some(other) = other {
            add(Kind::Overlap, n, format!("note {} explains some of the same", other + 1));
        }
    }
    findings
}

/// Reasons for changes of which none is recorded.
fn of_reasons(data: &Dataset) -> Vec<Finding> {
    let orphan = |reason: &&uffd_results::Reason| {
        let known = data.probe(&reason.probe).is_some_and(|probe| {
            let mut cases = probe.cases();
            cases.any(|case| case.fact(reason.newer, &reason.fact).is_some())
        });
        !known
    };
    let finding = |reason: &uffd_results::Reason| Finding {
        kind: Kind::Orphan,
        place: format!("the reason of {}", reason.probe),
        what: format!("no recorded case of it has the fact {:?} there", reason.fact),
    };
    data.reasons().iter().filter(orphan).map(finding).collect()
}

#[cfg(test)]
mod tests;
