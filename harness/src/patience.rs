//! How much of the time that passes is held against who is waited for.

use std::time::Duration;

/// How late a look may be before that is this process's own doing.
const LATE: Duration = Duration::from_millis(250);

/// What counts of the time that a look has taken, which was to take as long as `meant`.
///
/// Whoever waits looks again and again. Time in which this process did not run (it or its machine was stopped or
/// suspended, or the clock has jumped) makes one look long, and who is waited for did not run then either.
pub(crate) fn counts(took: Duration, meant: Duration) -> Duration {
    took.min(meant + LATE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case::early(3, 3)]
    #[case::in_time(1000, 1000)]
    #[case::a_little_late(1200, 1200)]
    #[case::stopped(30_000, 1250)]
    #[case::suspended_over_night(40_000_000, 1250)]
    fn of_a_long_look_little_counts(#[case] took: u64, #[case] counted: u64) {
        let took = Duration::from_millis(took);
        assert_eq!(counts(took, Duration::from_secs(1)), Duration::from_millis(counted));
    }
}
