//! Whether measurements can be believed: known sizes are found, equal things cost the same, and a second
//! run agrees with the first.

use uffd_results::bench::{Measured, Operation, Sample, Unit};
use uffd_suites::bench::{clock, delays};

/// How far counts of one thread may differ between runs, in per cent.
pub const ONE_THREAD: f64 = 2.0;
/// The same where several threads take part.
pub const SEVERAL: f64 = 5.0;

/// How far the delay that is found may be from the one that was put in, in per cent: an emulator's count
/// is exact, a CPU's time is not.
const fn tolerance(unit: Unit) -> f64 {
    match unit {
        Unit::Instructions => 1.0,
        Unit::Nanoseconds => 15.0,
    }
}

/// What was found where a size was known.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Found {
    /// What should be found, in the file's unit.
    pub put_in: f64,
    /// What was.
    pub found: f64,
    /// The greatest distance that is allowed, in per cent.
    pub tolerance: f64,
}

impl Found {
    /// How far it is from what it should be, in per cent.
    pub fn off(&self) -> f64 {
        (self.found / self.put_in - 1.0).abs() * 100.0
    }

    /// Whether it is as it should be.
    pub fn holds(&self) -> bool {
        self.off() <= self.tolerance
    }
}

#[expect(clippy::cast_precision_loss, reason = "costs of one call stay below 2^52")]
fn cost(measured: &Measured, id: &str) -> Option<f64> {
    let sample = measured.operation(id)?.sample?;
    Some(match measured.unit {
        Unit::Instructions => sample.min as f64,
        // Half of the calls: the least of two threads' turns is a rare one.
        Unit::Nanoseconds => sample.p50 as f64,
    })
}

/// The delay in a copy of the handler, found as the difference of two round trips. Each run comes with what a turn
/// of its loop takes, in the unit: of several the middle one counts, and of each round trip the least, since others
/// only add to it.
pub fn delay(runs: &[(Measured, f64)]) -> Option<Found> {
    let [(without, none), (with, turns)] = delays();
    let least = |id: &str| runs.iter().filter_map(|run| cost(&run.0, id)).min_by(f64::total_cmp);
    let found = least(&with)? - least(&without)?;
    let mut all: Vec<f64> = runs.iter().map(|run| run.1).collect();
    all.sort_by(f64::total_cmp);
    let turn = *all.get(all.len() / 2)?;
    let tolerance = tolerance(runs.first()?.0.unit);
    #[expect(clippy::cast_precision_loss, reason = "a few thousand turns")]
    let put_in = (turns - none) as f64 * turn;
    Some(Found { put_in, found, tolerance })
}

/// What a turn of a loop takes where instructions are counted.
#[expect(clippy::cast_precision_loss, reason = "two")]
pub const fn instructions_of_a_turn() -> f64 {
    clock::SPIN as f64
}

/// An operation that two runs on one kernel disagree about.
#[derive(Clone, Debug, PartialEq)]
pub struct Apart {
    /// Its id.
    pub id: String,
    /// The least and the greatest of the runs' best, or middle, rounds.
    pub least: u64,
    /// See `least`.
    pub most: u64,
    /// How far the greatest is above the least, in per cent.
    pub by: f64,
    /// How far it may be.
    pub allowed: f64,
}

/// How far runs on one kernel are apart in each operation, the farthest first: their best rounds; of several threads
/// their middle ones, if these are closer, since now and then a round of many wake-ups is far cheaper than all others.
pub fn apart(runs: &[Measured]) -> Vec<Apart> {
    let Some(first) = runs.first() else { return Vec::new() };
    let one = |operation: &Operation| {
        let samples = runs.iter().map(|run| run.operation(&operation.id)?.sample);
        let samples = samples.collect::<Option<Vec<_>>>()?;
        let between = |value: fn(&Sample) -> u64| {
            let values = || samples.iter().map(value);
            let (least, most) = (values().min()?, values().max()?);
            #[expect(clippy::cast_precision_loss, reason = "costs of one call stay below 2^52")]
            let by = (most as f64 / least.max(1) as f64 - 1.0) * 100.0;
            let allowed = if operation.several { SEVERAL } else { ONE_THREAD };
            Some(Apart { id: operation.id.clone(), least, most, by, allowed })
        };
        let best = between(|sample| sample.min)?;
        let middle = between(|sample| sample.p50).filter(|middle| middle.by < best.by);
        Some(middle.filter(|_| operation.several).unwrap_or(best))
    };
    let mut all: Vec<Apart> = first.operations.iter().filter_map(one).collect();
    all.sort_by(|a, b| b.by.total_cmp(&a.by));
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::testing::measured;
    use rstest::rstest;

    #[rstest]
    #[case(400_000, true)]
    #[case(403_000, true)]
    #[case(410_000, false)]
    #[case(200_000, false)]
    #[case(0, false)]
    fn a_delay_of_another_size_is_not_taken_for_it(#[case] extra: u64, #[case] holds: bool) {
        let [(without, _), (with, _)] = delays();
        let run = measured("6.12.43", &[(&without, 9000), (&with, 9000 + extra)]);
        let found = delay(&[(run, instructions_of_a_turn())]).expect("both are there");
        assert_eq!(found.holds(), holds, "{found:?}");
    }

    /// One whose round trip without a delay was disturbed, one whose other was, and one of a slow loop.
    #[test]
    fn of_several_runs_the_undisturbed_parts_count() {
        let [(without, _), (with, _)] = delays();
        let turn = instructions_of_a_turn();
        let run = |a, b, turn| (measured("6.12.43", &[(&without, a), (&with, b)]), turn);
        let runs = [
            run(90_000, 409_000, turn),
            run(9000, 509_000, turn),
            run(90_000, 509_000, 2.0 * turn),
        ];
        let alone = runs.iter().any(|run| delay(std::slice::from_ref(run)).expect("there").holds());
        assert!(!alone && delay(&runs).expect("there").holds());
    }

    #[test]
    fn a_delay_that_was_not_measured_is_not_found() {
        assert_eq!(delay(&[(measured("6.12.43", &[]), 2.0)]), None);
    }

    #[test]
    fn runs_that_disagree_are_named_with_how_far() {
        let one = "copy/pages[backing=anon,size=4k]";
        let run = |n| measured("6.12.43", &[(one, n)]);
        let all = apart(&[run(1000), run(1010), run(1030)]);
        let [apart] = &all[..] else { panic!("{all:?}") };
        assert_eq!((apart.least, apart.most), (1000, 1030));
        assert!(apart.by > apart.allowed, "{apart:?}");
    }

    /// A rare round that is cheaper than the others is no disagreement of several threads; one of another size is.
    #[rstest]
    #[case(true, [(420, 493), (488, 494)], 494)]
    #[case(true, [(420, 493), (488, 540)], 540)]
    #[case(true, [(488, 493), (489, 540)], 489)]
    #[case(false, [(420, 493), (488, 494)], 488)]
    fn runs_of_several_threads_agree_by_their_middle_rounds(
        #[case] several: bool,
        #[case] runs: [(u64, u64); 2],
        #[case] most: u64,
    ) {
        let run = |(min, p50)| {
            let mut run = measured("6.12.43", &[("wake/parked[waiters=256]", 0)]);
            let operation = &mut run.operations[0];
            operation.several = several;
            operation.sample = Some(Sample { count: 10, min, p50, p99: 600 });
            run
        };
        assert_eq!(apart(&runs.map(run))[0].most, most);
    }
}
