//! What many costs come to: quantiles, and ratios with their interval.

use uffd_results::bench::{Ratio, Sample};

/// The quantiles of costs; `None` if there are none.
pub fn sample(costs: &[u64]) -> Option<Sample> {
    let mut sorted = costs.to_vec();
    sorted.sort_unstable();
    let at = |per_cent: usize| sorted.get((sorted.len() * per_cent / 100).min(sorted.len() - 1));
    Some(Sample { count: sorted.len() as u64, min: *sorted.first()?, p50: *at(50)?, p99: *at(99)? })
}

/// Half of the costs are no more.
pub fn median(costs: &[u64]) -> Option<u64> {
    sample(costs).map(|sample| sample.p50)
}

/// The median of ratios, with the interval that holds the true one with 99 % certainty: the distance in
/// rank of a binomial distribution's quantile, which asks nothing of how the ratios are distributed.
pub fn ratio(ratios: &[f64]) -> Option<Ratio> {
    /// The 99.5 % quantile of the normal distribution.
    const Z: f64 = 2.576;
    let mut sorted: Vec<f64> = ratios.iter().copied().filter(|r| r.is_finite()).collect();
    sorted.sort_by(f64::total_cmp);
    let n = sorted.len();
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a few hundred rounds at most, and a rank is cut to what there is"
    )]
    let rank = (n as f64 / 2.0 - Z * (n as f64).sqrt() / 2.0).floor().max(0.0) as usize;
    let mid = *sorted.get(n / 2)?;
    let (low, high) = (sorted.get(rank)?.min(mid), sorted.get(n - 1 - rank)?.max(mid));
    Some(Ratio { low: short(low), mid: short(mid), high: short(high) })
}

/// Three digits behind the point are more than a ratio is worth.
fn short(ratio: f64) -> f64 {
    (ratio * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(&[7], 7, 7, 7)]
    #[case(&[3, 1, 2], 1, 2, 3)]
    fn quantiles(#[case] costs: &[u64], #[case] min: u64, #[case] p50: u64, #[case] p99: u64) {
        let count = costs.len() as u64;
        assert_eq!(sample(costs), Some(Sample { count, min, p50, p99 }));
    }

    #[test]
    fn nothing_has_no_quantiles() {
        assert_eq!((sample(&[]), ratio(&[])), (None, None));
    }

    #[test]
    fn a_hundred_costs_have_their_ninety_ninth() {
        let costs: Vec<u64> = (1..=100).rev().collect();
        assert_eq!(sample(&costs), Some(Sample { count: 100, min: 1, p50: 51, p99: 100 }));
    }

    #[test]
    fn the_interval_narrows_with_the_rounds_and_an_outlier_does_not_move_it() {
        let ratios = |n: u32| -> Vec<f64> {
            (0..n).map(|i| 0.9 + 0.2 * f64::from(i) / f64::from(n - 1)).collect()
        };
        let (few, many) = (ratio(&ratios(9)).expect("few"), ratio(&ratios(101)).expect("many"));
        assert!(few.holds(1.0) && many.holds(1.0), "{few:?} {many:?}");
        assert!(many.high - many.low < few.high - few.low, "{few:?} {many:?}");
        let mut spoilt = ratios(101);
        spoilt.push(1e9);
        spoilt.push(f64::NAN);
        let spoilt = ratio(&spoilt).expect("spoilt");
        assert!(spoilt.holds(1.0) && spoilt.high < 1.2, "{spoilt:?}");
        let shifted: Vec<f64> = ratios(101).iter().map(|r| r + 0.2).collect();
        assert!(!ratio(&shifted).expect("shifted").holds(1.0));
    }
}
