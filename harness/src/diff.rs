//! Two answers to the same questions held against each other: of two kernels, two folders of records,
//! or two values of an axis. Pure; the command is in `cli/diff`.

use crate::known;
use crate::report::group::Difference;
use crate::report::reason;
use clap::ValueEnum;
use std::collections::HashMap;
use std::fmt;
use uffd_results::{Case as Recorded, Dataset, End, Outcome, is_answer};
use uffd_suites::probe::Case;

/// In which way a case differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, ValueEnum)]
pub enum Category {
    /// The first is as expected, the second is not.
    Regression,
    /// The first is not as expected, the second is.
    Fixed,
    /// Both are as expected of their kernels, or neither is.
    Changed,
    /// Only the second was asked.
    New,
    /// Only the first was asked.
    Gone,
    /// One of the two has no answer: it lacks a permission or precondition, or its run failed.
    Skipped,
}

impl Category {
    /// Every category, worst first.
    pub const ALL: [Self; 6] =
        [Self::Regression, Self::Fixed, Self::Changed, Self::New, Self::Gone, Self::Skipped];

    /// The word used on the command line and in output.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Regression => "regression",
            Self::Fixed => "fixed",
            Self::Changed => "changed",
            Self::New => "new",
            Self::Gone => "gone",
            Self::Skipped => "skipped",
        }
    }
}

impl fmt::Display for Category {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

/// One of the two: a kernel of a dataset, by its place.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Side<'d> {
    pub(crate) data: &'d Dataset,
    pub(crate) kernel: usize,
}

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Compared {
    /// How many cases at least one side was asked.
    pub(crate) cases: usize,
    /// The cases that differ, by their ids.
    pub(crate) differences: Vec<(Category, Difference)>,
}

/// Compares; knows what the suite expects.
pub(crate) struct Comparer {
    cases: HashMap<String, Case>,
}

/// A case on one side, and what it showed.
#[derive(Clone, Copy)]
struct Shown<'d> {
    side: Side<'d>,
    case: Recorded<'d>,
    outcome: &'d Outcome,
}

impl<'d> Shown<'d> {
    fn of(side: Side<'d>, case: Option<Recorded<'d>>) -> Option<Self> {
        let case = case?;
        Some(Self { side, case, outcome: case.outcome(side.kernel)? })
    }

    /// Whether it is what the suite expects; that a kernel lacks a feature is nothing unexpected.
    fn is_fine(self) -> bool {
        self.outcome.end == End::Unsupported || self.case.is_as_expected(self.side.kernel)
    }
}

impl Comparer {
    pub(crate) fn new() -> Self {
        Self { cases: known::cases() }
    }

    /// Two kernels in all cases that `wanted` takes.
    pub(crate) fn kernels(
        &self,
        (a, b): (Side<'_>, Side<'_>),
        wanted: &dyn Fn(&str) -> bool,
    ) -> Compared {
        let mut ids: Vec<String> = a
            .data
            .cases()
            .chain(b.data.cases())
            .map(Recorded::id)
            .filter(|id| wanted(id))
            .collect();
        ids.sort();
        ids.dedup();
        let mut compared = Compared::default();
        for id in ids {
            let shown = [a, b].map(|side| Shown::of(side, side.data.case(&id)));
            self.add(&mut compared, &id, shown);
        }
        compared
    }

    /// Two values of an axis on one kernel, in cases that differ in nothing else.
    pub(crate) fn axis(
        &self,
        side: Side<'_>,
        (axis, a, b): (&str, &str, &str),
        wanted: &dyn Fn(&str) -> bool,
    ) -> Compared {
        let mut compared = Compared::default();
        let with = |id: &str, from: &str, to: &str| {
            let words = [('[', ','), ('[', ']'), (',', ','), (',', ']')];
            words.iter().fold(id.to_owned(), |id, (before, after)| {
                id.replace(
                    &format!("{before}{axis}={from}{after}"),
                    &format!("{before}{axis}={to}{after}"),
                )
            })
        };
        for case in side.data.cases() {
            let id = case.id();
            let (first, second) = match case.axis(axis) {
                Some(value) if value == a => (Some(case), side.data.case(&with(&id, a, b))),
                // Where the first exists too, the pair was met there.
                Some(value) if value == b && side.data.case(&with(&id, b, a)).is_none() => {
                    (None, Some(case))
                }
                _ => continue,
            };
            let shared = with(&with(&id, a, &format!("{a}|{b}")), b, &format!("{a}|{b}"));
            if wanted(&id) {
                let shown = [Shown::of(side, first), Shown::of(side, second)];
                self.add(&mut compared, &shared, shown);
            }
        }
        compared
    }

    fn add(&self, compared: &mut Compared, id: &str, [a, b]: [Option<Shown<'_>>; 2]) {
        if a.is_none() && b.is_none() {
            return;
        }
        compared.cases += 1;
        let (probe, axes) = id.split_once('[').unwrap_or((id, ""));
        let difference = |fact: &str, values: [&str; 2], reason: Option<String>| Difference {
            probe: probe.to_owned(),
            axes: axes.trim_end_matches(']').to_owned(),
            fact: fact.to_owned(),
            values: values.map(str::to_owned).into(),
            reason,
        };
        let found = match (a, b) {
            (Some(a), Some(b)) => {
                let Some(fact) = a.outcome.first_difference(b.outcome) else { return };
                let values = [a.outcome.value(fact), b.outcome.value(fact)];
                (category(a, b), difference(fact, values, self.why(a, b, fact)))
            }
            (_, Some(b)) => {
                (Category::New, difference("end", ["(not asked)", b.outcome.end.word()], None))
            }
            (Some(a), None) => {
                (Category::Gone, difference("end", [a.outcome.end.word(), "(not asked)"], None))
            }
            (None, None) => return,
        };
        compared.differences.push(found);
    }

    /// Why the two differ in a fact: what was found out about the step between neighbours in which
    /// the fact became what it is on the newer one; else what the newer one's expectation names.
    fn why(&self, a: Shown<'_>, b: Shown<'_>, fact: &str) -> Option<String> {
        let version = |s: Shown<'_>| s.side.data.kernels().get(s.side.kernel).map(|k| k.upstream);
        let (older, newer) = if version(a) <= version(b) { (a, b) } else { (b, a) };
        let case = self.cases.get(&newer.case.id())?;
        let same = std::ptr::eq(a.side.data, b.side.data) && a.case.id() == b.case.id();
        if same && is_answer(a.outcome.end) && is_answer(b.outcome.end) {
            let shown = |kernel: usize| newer.case.answer(kernel);
            let now = newer.case.fact(newer.side.kernel, fact);
            let differs =
                |kernel: &usize| newer.case.fact(*kernel, fact).is_some_and(|is| Some(is) != now);
            // The last kernel below the newer one that says otherwise, and the next that answers.
            let step = (older.side.kernel..newer.side.kernel).rev().find(differs);
            let next =
                |k: usize| (k + 1..=newer.side.kernel).find(|kernel| shown(*kernel).is_some());
            let pair = step.and_then(|k| Some((k, next(k)?)));
            let why = pair.and_then(|(before, after)| {
                let upstream =
                    |kernel: usize| Some(newer.side.data.kernels().get(kernel)?.upstream);
                let versions = (upstream(before)?, upstream(after)?);
                reason(case, fact, (shown(before)?, shown(after)?), versions)
            });
            if why.is_some() {
                return why;
            }
        }
        reason(case, fact, (older.outcome, newer.outcome), (version(older)?, version(newer)?))
    }
}

fn category(a: Shown<'_>, b: Shown<'_>) -> Category {
    if !is_answer(a.outcome.end) || !is_answer(b.outcome.end) {
        return Category::Skipped;
    }
    match (a.is_fine(), b.is_fine()) {
        (true, false) => Category::Regression,
        (false, true) => Category::Fixed,
        _ => Category::Changed,
    }
}

#[cfg(test)]
mod tests;
