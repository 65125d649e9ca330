//! Verdicts: facts held against the expectation. Computed from stored outcomes, never stored.

use crate::outcome::End;

/// What the facts of a case mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Verdict {
    /// Every expected fact was seen.
    Pass,
    /// The case ended and saw something other than expected.
    Differs,
    /// The case ended otherwise than by seeing all its facts.
    Ended(End),
}

impl Verdict {
    /// The word used in output.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Differs => "differs",
            Self::Ended(end) => end.word(),
        }
    }

    /// Whether the kernel answered the question: a skip of any kind is not an answer.
    pub const fn is_answer(self) -> bool {
        matches!(
            self,
            Self::Pass | Self::Differs | Self::Ended(End::Hang | End::Killed | End::Panic)
        )
    }

    /// Whether a person should look: anything but a pass or a question this place can't answer.
    pub const fn is_trouble(self) -> bool {
        !matches!(
            self,
            Self::Pass | Self::Ended(End::Unsupported | End::Denied | End::Precondition)
        )
    }
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.word())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(Verdict::Pass, true, false)]
    #[case(Verdict::Differs, true, true)]
    #[case(Verdict::Ended(End::Hang), true, true)]
    #[case(Verdict::Ended(End::Killed), true, true)]
    #[case(Verdict::Ended(End::Panic), true, true)]
    #[case(Verdict::Ended(End::Unsupported), false, false)]
    #[case(Verdict::Ended(End::Denied), false, false)]
    #[case(Verdict::Ended(End::Precondition), false, false)]
    #[case(Verdict::Ended(End::Flaky), false, true)]
    #[case(Verdict::Ended(End::Broken), false, true)]
    #[case(Verdict::Ended(End::NotRun), false, true)]
    fn a_skip_is_never_an_answer(
        #[case] verdict: Verdict,
        #[case] answer: bool,
        #[case] trouble: bool,
    ) {
        assert_eq!((verdict.is_answer(), verdict.is_trouble()), (answer, trouble));
    }
}
