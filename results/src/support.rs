//! What can be said over many kernels: on which of them a value was seen, and from when to when.
//!
//! Nothing here says more than was recorded: where a value begins is always given as two recorded
//! releases, the last without it and the first with it.

use crate::dataset::{Case, Dataset, NONE, ProbeCases, Recorded};
use crate::outcome::End;
use std::collections::{BTreeSet, HashMap};
use std::fmt;

/// Whether a probe's statement holds on a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Held {
    /// Every case that answered showed what is expected.
    Holds,
    /// Some did.
    Partly,
    /// None did.
    Fails,
    /// The kernel lacks the feature.
    Unsupported,
}

impl Held {
    /// The word used in output.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Holds => "holds",
            Self::Partly => "partly",
            Self::Fails => "fails",
            Self::Unsupported => "unsupported",
        }
    }
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

/// Neighbouring kernels, among those that answered, with one value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run<T> {
    /// What they said.
    pub value: T,
    /// The oldest, by its place among [`Dataset::kernels`].
    pub first: usize,
    /// The newest.
    pub last: usize,
}

/// What kernels said in turn, from the oldest to the newest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Support<T> {
    runs: Vec<Run<T>>,
}

/// On which kernels a value was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Extent {
    /// On none that answered.
    Never,
    /// On all that answered.
    All,
    /// From some release on: the last kernel without it and the first with it.
    Since {
        /// The last without.
        after: usize,
        /// The first with.
        by: usize,
    },
    /// Up to some release: the last kernel with it and the first without it.
    Until {
        /// The last with.
        last: usize,
        /// The first without.
        before: usize,
    },
    /// In these only, each from the oldest to the newest: it came or went more than once, as where
    /// a change was taken into a stable series.
    In(Vec<(usize, usize)>),
}

impl<T: PartialEq + Copy> Support<T> {
    /// The runs of some answers, in the order of the kernels.
    pub fn of(answers: impl IntoIterator<Item = (usize, T)>) -> Self {
        let mut runs: Vec<Run<T>> = Vec::new();
        for (kernel, value) in answers {
            match runs.last_mut() {
                Some(run) if run.value == value => run.last = kernel,
                _ => runs.push(Run { value, first: kernel, last: kernel }),
            }
        }
        Self { runs }
    }

    /// The runs; neighbours differ.
    pub fn runs(&self) -> &[Run<T>] {
        &self.runs
    }

    /// Whether all that answered said the same.
    pub fn is_constant(&self) -> bool {
        self.runs.len() <= 1
    }

    /// On which kernels a value was seen.
    pub fn extent(&self, value: T) -> Extent {
        let with: Vec<usize> =
            (0..self.runs.len()).filter(|i| self.runs[*i].value == value).collect();
        let end = self.runs.len().wrapping_sub(1);
        match with[..] {
            [] => Extent::Never,
            [_] if end == 0 => Extent::All,
            [0] => Extent::Until { last: self.runs[0].last, before: self.runs[1].first },
            [at] if at == end => {
                Extent::Since { after: self.runs[at - 1].last, by: self.runs[at].first }
            }
            _ => {
                Extent::In(with.iter().map(|i| (self.runs[*i].first, self.runs[*i].last)).collect())
            }
        }
    }
}

impl Extent {
    /// In words, with the labels of kernels: `since 6.12.118 < .. <= 6.16.3`.
    pub fn say(&self, kernels: &[Recorded]) -> String {
        let name = |at: usize| kernels.get(at).map_or(String::new(), |k| k.label.clone());
        match self {
            Self::Never => "on none".into(),
            Self::All => "on all".into(),
            Self::Since { after, by } => format!("{} < since <= {}", name(*after), name(*by)),
            Self::Until { last, before } => format!("{} <= until < {}", name(*last), name(*before)),
            Self::In(runs) => {
                let run = |&(first, last): &(usize, usize)| {
                    if first == last {
                        name(first)
                    } else {
                        format!("{} to {}", name(first), name(last))
                    }
                };
                format!("in {} only", runs.iter().map(run).collect::<Vec<_>>().join(", "))
            }
        }
    }
}

/// The suite that asks what others have claimed: a fact of each case says whether it is true.
pub const CLAIMS: &str = "claims";

impl ProbeCases<'_> {
    /// Whether the statement holds on a kernel, by its place; `None` if no case answered. Of a claim that
    /// others made not whether it went as expected, but whether it is true.
    pub fn stands(self, kernel: usize) -> Option<Held> {
        if self.suite() != CLAIMS {
            return self.held(kernel);
        }
        let said = self.cases().filter_map(|case| match case.fact(kernel, "claim")? {
            "true" => Some(true),
            "false" => Some(false),
            _ => None,
        });
        let (yes, no): (Vec<bool>, Vec<bool>) = said.partition(|is_true| *is_true);
        match (yes.len(), no.len()) {
            (0, 0) => None,
            (_, 0) => Some(Held::Holds),
            (0, _) => Some(Held::Fails),
            _ => Some(Held::Partly),
        }
    }

    /// Whether all cases went as expected on a kernel, by its place; `None` if none answered.
    pub fn held(self, kernel: usize) -> Option<Held> {
        let (mut pass, mut other, mut lacks) = (0, 0, 0);
        for case in self.cases() {
            match case.answer(kernel).map(|outcome| outcome.end) {
                None => {}
                Some(End::Unsupported) => lacks += 1,
                Some(_) if case.is_as_expected(kernel) => pass += 1,
                Some(_) => other += 1,
            }
        }
        match (pass, other, lacks) {
            (0, 0, 0) => None,
            (0, 0, _) => Some(Held::Unsupported),
            (_, 0, _) => Some(Held::Holds),
            (0, _, _) => Some(Held::Fails),
            _ => Some(Held::Partly),
        }
    }

    /// On which kernels the statement holds.
    pub fn support(self, data: &Dataset) -> Support<Held> {
        Support::of((0..data.kernels().len()).filter_map(|i| Some((i, self.stands(i)?))))
    }
}

/// One fact of a probe over all kernels.
#[derive(Clone, Debug)]
pub struct Statement<'d> {
    /// The probe.
    pub probe: ProbeCases<'d>,
    /// The fact; `end` is how the cases ended.
    pub fact: &'d str,
    /// The cases, grouped by what the kernels said in turn; largest group first.
    pub groups: Vec<Group<'d>>,
}

/// Cases of a probe in which a fact went the same way over the kernels.
#[derive(Clone, Debug)]
pub struct Group<'d> {
    /// The cases.
    pub cases: Vec<Case<'d>>,
    /// The values.
    pub support: Support<&'d str>,
}

impl<'d> Statement<'d> {
    /// Whether some kernels differ in some case.
    pub fn changes(&self) -> bool {
        self.groups.iter().any(|group| !group.support.is_constant())
    }

    /// The axis that alone decides which way the fact goes, if the cases differ and there is one:
    /// the backing, where several do.
    pub fn differs_by(&self) -> Option<&'d str> {
        if self.groups.len() < 2 {
            return None;
        }
        let axes: Vec<&str> = self.groups[0].cases[0]
            .axes()
            .split(',')
            .filter_map(|axis| axis.split_once('=').map(|(name, _)| name))
            .collect();
        let decides = |axis: &str| {
            let mut seen: HashMap<&str, usize> = HashMap::new();
            self.groups.iter().enumerate().all(|(i, group)| {
                group.cases.iter().all(|case| {
                    case.axis(axis).is_some_and(|value| *seen.entry(value).or_insert(i) == i)
                })
            })
        };
        let backing = axes.iter().filter(|axis| **axis == "backing");
        backing.chain(axes.iter().filter(|axis| **axis != "backing")).copied().find(|a| decides(a))
    }
}

impl Dataset {
    /// Every fact of every probe, in the order of the probes and of observation; `end` first.
    pub fn statements(&self) -> Vec<Statement<'_>> {
        self.probes().flat_map(|probe| self.statements_of(probe)).collect()
    }

    /// The facts of one probe.
    pub fn statements_of<'d>(&'d self, probe: ProbeCases<'d>) -> Vec<Statement<'d>> {
        let all = 0..self.kernels().len();
        let mut names: Vec<&str> = vec!["end"];
        // A case that observed a fact of that name does not hide how it ended.
        let mut known: BTreeSet<&str> = BTreeSet::from(["end"]);
        for outcome in probe.cases().flat_map(|c| all.clone().filter_map(move |i| c.answer(i))) {
            for fact in outcome.facts.iter().map(|fact| fact.name.as_ref()) {
                if known.insert(fact) {
                    names.push(fact);
                }
            }
        }
        names.into_iter().map(|fact| statement(probe, fact, all.clone())).collect()
    }
}

fn statement<'d>(
    probe: ProbeCases<'d>,
    fact: &'d str,
    all: std::ops::Range<usize>,
) -> Statement<'d> {
    let mut groups: Vec<Group<'d>> = Vec::new();
    let mut places: HashMap<Vec<Option<&str>>, usize> = HashMap::new();
    for case in probe.cases() {
        let value =
            |kernel| case.fact(kernel, fact).filter(|_| fact == "end" || did_end(case, kernel));
        let row: Vec<Option<&str>> = all.clone().map(value).collect();
        // A case that never has the fact is not one of which it could be said.
        if row.iter().all(|v| v.is_none_or(|v| v == NONE)) {
            continue;
        }
        let at = *places.entry(row).or_insert_with_key(|row| {
            let answers = row.iter().enumerate().filter_map(|(i, value)| Some((i, (*value)?)));
            groups.push(Group { cases: Vec::new(), support: Support::of(answers) });
            groups.len() - 1
        });
        groups[at].cases.push(case);
    }
    groups.sort_by_key(|group| std::cmp::Reverse(group.cases.len()));
    Statement { probe, fact, groups }
}

/// Where the feature is missing there are no facts, and that they are missing says no more.
fn did_end(case: Case<'_>, kernel: usize) -> bool {
    case.answer(kernel).is_some_and(|outcome| outcome.end != End::Unsupported)
}

#[cfg(test)]
mod tests;
