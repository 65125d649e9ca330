//! Verdicts: an outcome held against the case's expectation. Pure, so it can be done again on
//! stored records, and so that tests can feed it wrong facts.

use uffd_results::{End, KernelVersion, Outcome, Verdict};
use uffd_suites::expect::Expected;
use uffd_suites::probe::Case;

/// An expected fact that was not seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// What should have been seen.
    pub expected: Expected,
    /// What was; `None` if the fact is missing.
    pub seen: Option<String>,
}

/// A verdict with its reasons.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// The verdict.
    pub verdict: Verdict,
    /// The facts that differ; empty unless the verdict is `differs`.
    pub differences: Vec<Difference>,
}

/// Judges the outcome of a case on a kernel.
pub fn judge(case: &Case, outcome: &Outcome, kernel: KernelVersion) -> Judgement {
    against(&case.expect(kernel), outcome)
}

fn against(expected: &[Expected], outcome: &Outcome) -> Judgement {
    if outcome.end != End::Done {
        return Judgement { verdict: Verdict::Ended(outcome.end), differences: Vec::new() };
    }
    let differences: Vec<Difference> = expected
        .iter()
        .filter_map(|expected| {
            let seen = outcome.facts.get(expected.fact);
            let differs = !seen.is_some_and(|seen| expected.matches(seen));
            differs
                .then(|| Difference { expected: expected.clone(), seen: seen.map(str::to_owned) })
        })
        .collect();
    let verdict = if differences.is_empty() { Verdict::Pass } else { Verdict::Differs };
    Judgement { verdict, differences }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use uffd_results::{Fact, Facts};
    use uffd_suites::expect::OBSERVED;

    const KERNEL: KernelVersion = KernelVersion::new(6, 18, 0);

    /// The facts that a case should show, as an outcome.
    fn model(case: &Case) -> Outcome {
        let words: Vec<String> = case
            .expect(KERNEL)
            .iter()
            .map(|e| {
                format!(
                    "{}={}",
                    e.fact,
                    e.value.replace('?', "-").split('|').next().unwrap_or_default()
                )
            })
            .collect();
        Outcome::done(Facts::parse(&words.join(" ")).expect("expected facts are facts"))
    }

    #[test]
    fn every_expected_fact_of_every_case_is_missed_when_it_changes() {
        for case in uffd_suites::cases() {
            let good = model(&case);
            assert_eq!(judge(&case, &good, KERNEL).verdict, Verdict::Pass, "{}", case.id());
            for Fact { name, .. } in good.facts.iter() {
                let words: Vec<String> = good
                    .facts
                    .iter()
                    .map(|f| {
                        let value = if f.name == *name { "wrong" } else { &f.value };
                        format!("{}={value}", f.name)
                    })
                    .collect();
                let bad = Outcome::done(Facts::parse(&words.join(" ")).expect("facts"));
                let judgement = judge(&case, &bad, KERNEL);
                assert_eq!(judgement.verdict, Verdict::Differs, "{} {name}", case.id());
                assert_eq!(judgement.differences.len(), 1);
                assert_eq!(judgement.differences[0].expected.fact, name);
            }
        }
    }

    #[test]
    fn a_missing_fact_differs() {
        let expected = [Expected::new("waiter", "asleep", OBSERVED)];
        let judgement = against(&expected, &Outcome::done(Facts::new()));
        assert_eq!(judgement.verdict, Verdict::Differs);
        assert_eq!(judgement.differences[0].seen, None);
    }

    #[rstest]
    #[case(End::Hang)]
    #[case(End::Killed)]
    #[case(End::Unsupported)]
    #[case(End::Denied)]
    #[case(End::Precondition)]
    #[case(End::Flaky)]
    #[case(End::Panic)]
    #[case(End::Broken)]
    #[case(End::NotRun)]
    fn no_other_end_is_a_pass(#[case] end: End) {
        let facts = Facts::parse("waiter=asleep").expect("facts");
        let expected = [Expected::new("waiter", "asleep", OBSERVED)];
        let outcome = Outcome::ended(end, "why", facts);
        for expected in [&expected[..], &[]] {
            assert_eq!(against(expected, &outcome).verdict, Verdict::Ended(end));
        }
    }
}
