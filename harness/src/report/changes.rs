//! Where recorded kernels part ways: the facts that differ between two neighbouring releases.

use super::group::{Difference, Group, group};
use super::markdown::code;
use crate::notes::Note;
use uffd_results::{Dataset, End, KernelVersion, Outcome, Recorded};
use uffd_suites::expect::Expected;
use uffd_suites::probe::Case;

/// A fact that differs between two neighbouring kernels, for one reason in several cases. The place
/// is the two kernels, by their places in the dataset: neighbours of those that asked the case.
pub(super) type Change = Group<(usize, usize)>;

/// A case that differs between two neighbours.
pub(crate) struct Step<'a> {
    /// The case.
    pub(crate) case: &'a Case,
    /// The two kernels, by their places.
    pub(crate) between: (usize, usize),
    /// What they showed.
    pub(crate) outcomes: (&'a Outcome, &'a Outcome),
    /// The first fact in which that differs.
    pub(crate) fact: &'a str,
}

/// Every such case, in the order of the cases.
pub(crate) fn steps<'a>(
    data: &'a Dataset,
    cases: impl IntoIterator<Item = &'a Case>,
) -> impl Iterator<Item = Step<'a>> {
    cases.into_iter().flat_map(|case| {
        let recorded = data.case(&case.id());
        let asked: Vec<(usize, &Outcome)> = (0..data.kernels().len())
            .filter_map(|kernel| Some((kernel, recorded?.outcome(kernel)?)))
            .collect();
        let step = |pair: &[(usize, &'a Outcome)]| {
            let ((older, a), (newer, b)) = (pair[0], pair[1]);
            let fact = a.first_difference(b)?;
            Some(Step { case, between: (older, newer), outcomes: (a, b), fact })
        };
        asked.windows(2).filter_map(step).collect::<Vec<_>>()
    })
}

/// All changes, by kernels and then in the order of the cases; a note tells why where no expectation does.
pub(super) fn changes(data: &Dataset, cases: &[Case], notes: &[Note]) -> Vec<Change> {
    let mut changes = group(steps(data, cases).map(|step| {
        let Step { case, between, outcomes: (a, b), fact } = step;
        let version = |at: usize| data.kernels()[at].upstream;
        let versions = (version(between.0), version(between.1));
        let newer = &data.kernels()[between.1];
        let difference = Difference {
            probe: case.probe.to_string(),
            axes: case.axes(),
            fact: fact.to_owned(),
            values: (a.value(fact).to_owned(), b.value(fact).to_owned()),
            reason: reason(case, fact, (a, b), versions)
                .or_else(|| noted(notes, &case.probe.to_string(), newer, fact)),
        };
        (between, difference)
    }));
    changes.sort_by_key(|change| change.place);
    changes
}

/// Why a fact differs between an older and a newer kernel: the source that the expectation of the newer one
/// names, or what one of the two lacks. Nothing where the same is expected of both, for the same reason, and
/// the newer one keeps to it.
pub(crate) fn reason(
    case: &Case,
    fact: &str,
    (a, b): (&Outcome, &Outcome),
    (older, newer): (KernelVersion, KernelVersion),
) -> Option<String> {
    if fact == "end" {
        let skipped = if a.end == End::Done { b } else { a };
        return Some(skipped.detail.clone()).filter(|detail| !detail.is_empty());
    }
    let (before, after) = (case.expect(older), case.expect(newer));
    let named = match (find(&before, fact), find(&after, fact)) {
        (Some(before), Some(after))
            if (&before.value, before.source) == (&after.value, after.source)
                && b.facts.get(fact).is_some_and(|seen| after.matches(seen)) =>
        {
            return None;
        }
        (_, Some(after)) => after,
        // A fact that was expected and went away has no expectation any more: the one before it does.
        (Some(_), None) if b.facts.get(fact).is_none() => after.last()?,
        _ => return None,
    };
    Some(named.source.split_whitespace().collect::<Vec<_>>().join(" "))
}

fn noted(notes: &[Note], probe: &str, newer: &Recorded, fact: &str) -> Option<String> {
    let note = notes.iter().find(|note| note.covers(probe, newer, fact))?;
    let says: Vec<&str> = note.says.split_whitespace().collect();
    Some(format!("{} ({})", says.join(" "), note.source))
}

fn find<'a>(expected: &'a [Expected], fact: &str) -> Option<&'a Expected> {
    expected.iter().find(|expected| expected.fact == fact)
}

impl Change {
    /// The two releases: `6.12.118 → 6.16.3`.
    pub(super) fn pair(&self, data: &Dataset) -> String {
        let name = |at: usize| data.kernels()[at].upstream;
        format!("{} → {}", name(self.place.0), name(self.place.1))
    }

    /// The values as code.
    pub(super) fn turn_in_code(&self) -> String {
        self.turn(code)
    }

    /// The probes, as code.
    pub(super) fn probes_in_code(&self) -> String {
        self.probes.iter().map(|probe| code(probe)).collect::<Vec<_>>().join(" ")
    }

    /// What explains it, as text from records and sources: no markup, and no link of a record's.
    pub(super) fn why(&self) -> String {
        let reason = self.reason.as_deref().unwrap_or_default();
        let text: String = reason.chars().filter(|c| !c.is_control()).collect();
        text.replace('<', "&lt;").replace("](", "]\\(")
    }

    /// Which cases: their number and the values of their axes.
    pub(super) fn cases(&self) -> String {
        format!("{}: {}", self.count(), self.axes())
    }
}
