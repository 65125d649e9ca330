//! Asking a case several times: what a kernel answers must not depend on luck.

use super::child::Runner;
use uffd_results::{End, Outcome};
use uffd_suites::probe::Case;

impl Runner {
    /// Runs a case `times` times; `flaky` if two answers differ.
    pub fn run_repeated(&self, case: &Case, times: u32) -> Outcome {
        agree((0..times.max(1)).map(|_| self.run(case)))
    }
}

/// The common outcome, or `flaky` with the first two that differ.
pub(crate) fn agree(outcomes: impl Iterator<Item = Outcome>) -> Outcome {
    let mut first: Option<Outcome> = None;
    for (n, outcome) in outcomes.enumerate() {
        match &first {
            None => first = Some(outcome),
            Some(first) if *first == outcome => {}
            Some(first) => {
                let detail = format!("time 1: {first}; time {}: {outcome}", n + 1);
                return Outcome::ended(End::Flaky, detail, first.facts.clone());
            }
        }
    }
    first
        .unwrap_or_else(|| Outcome::ended(End::NotRun, "asked no time", uffd_results::Facts::new()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use uffd_results::Facts;

    fn saw(text: &str) -> Outcome {
        Outcome::done(Facts::parse(text).expect("facts of this test"))
    }

    #[test]
    fn answers_that_agree_are_one_answer() {
        assert_eq!(agree([saw("copy=0"), saw("copy=0")].into_iter()), saw("copy=0"));
    }

    #[test]
    fn one_answer_that_differs_is_flaky() {
        let outcomes = [saw("copy=0"), saw("copy=0"), saw("copy=EAGAIN"), saw("copy=0")];
        let outcome = agree(outcomes.into_iter());
        assert_eq!(outcome.end, End::Flaky);
        assert_eq!(outcome.detail, "time 1: copy=0; time 3: copy=EAGAIN");
    }
}
