//! Measures an operation in turns with its limit, and says it in a case's facts.

use super::{Operation, find, stats};
use crate::expect::Expected;
use crate::memory::{BLOCK, OTHER};
use crate::outcome::{Seen, Stop};
use crate::probe::Trial;
use crate::stage::Stage;
use std::sync::atomic::{AtomicU32, Ordering};
use uffd_results::KernelVersion;
use uffd_results::bench::{Ratio, Sample};

static ROUNDS: AtomicU32 = AtomicU32::new(40);

/// Sets in how many turns this process and its children measure.
pub fn set_rounds(rounds: u32) {
    ROUNDS.store(rounds.max(1), Ordering::Relaxed);
}

/// In how many turns operation and limit are measured.
pub fn rounds() -> u32 {
    ROUNDS.load(Ordering::Relaxed)
}

/// What an operation and its limit have cost, in ticks.
#[derive(Clone, Debug)]
pub struct Costs {
    /// A call of the operation, each.
    pub calls: Vec<u64>,
    /// The limit: a call of it, each; or why there is none.
    pub limit: Option<Result<Vec<u64>, Stop>>,
    /// The operation's cost in limits, a turn each.
    pub ratios: Vec<f64>,
}

/// Measures an operation in turns with another, or by itself.
pub fn measure(
    stage: &Stage,
    operation: &Operation,
    limit: Option<&Operation>,
    rounds: u32,
) -> Result<Costs, Stop> {
    let mut work = operation.set_up(stage, BLOCK)?;
    let mut limit = limit.map(|limit| limit.set_up(stage, OTHER));
    let mut costs = Costs { calls: Vec::new(), limit: None, ratios: Vec::new() };
    let mut limits = Vec::new();
    // The first round of each fills caches, makes page tables, and counts for nothing.
    work.round(&mut Vec::new())?;
    // A limit may show only here that the kernel lacks it; the operation is measured then, too.
    if let Some(Ok(first)) = &mut limit
        && let Err(stop) = first.round(&mut Vec::new())
    {
        limit = Some(Err(stop));
    }
    for _ in 0..rounds {
        let from = costs.calls.len();
        work.round(&mut costs.calls)?;
        if let Some(Ok(limit)) = &mut limit {
            let limits_from = limits.len();
            limit.round(&mut limits)?;
            let ours = stats::median(&costs.calls[from..]);
            costs.ratios.extend(ours.zip(stats::median(&limits[limits_from..])).map(quotient));
        }
    }
    costs.limit = limit.map(|limit| limit.map(|_| limits));
    Ok(costs)
}

#[expect(clippy::cast_precision_loss, reason = "ticks of one call stay below 2^52")]
fn quotient((ours, limit): (u64, u64)) -> f64 {
    ours as f64 / limit as f64
}

impl Costs {
    /// The quantiles of the calls, in ticks.
    pub fn sample(&self) -> Option<Sample> {
        stats::sample(&self.calls)
    }

    /// The quantiles of the limit's calls, in ticks.
    pub fn limit_sample(&self) -> Option<Sample> {
        stats::sample(self.limit.as_ref()?.as_ref().ok()?)
    }

    /// The operation's cost in limits.
    pub fn ratio(&self) -> Option<Ratio> {
        stats::ratio(&self.ratios)
    }
}

/// An operation as a case.
#[derive(Debug)]
pub(super) struct Measure(pub(super) &'static Operation);

impl Trial for Measure {
    fn axes(&self) -> String {
        self.0.axes.clone()
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        let limit = self.0.limit.as_deref().and_then(find);
        seen.step("measure");
        let costs = measure(stage, self.0, limit, rounds())?;
        let sample =
            costs.sample().ok_or_else(|| Stop::Broken("not one call was measured".into()))?;
        seen.fact("count", sample.count);
        seen.fact("min", sample.min);
        seen.fact("p50", sample.p50);
        seen.fact("p99", sample.p99);
        if let Some(limit) = costs.limit_sample() {
            seen.fact("limit-count", limit.count);
            seen.fact("limit-min", limit.min);
            seen.fact("limit-p50", limit.p50);
            seen.fact("limit-p99", limit.p99);
        }
        if let Some(Err(stop)) = costs.limit.clone() {
            seen.fact("limit-end", stop.into_end().0.word());
        }
        if let Some(Ratio { low, mid, high }) = costs.ratio() {
            seen.fact("ratio-low", low);
            seen.fact("ratio", mid);
            seen.fact("ratio-high", high);
        }
        Ok(())
    }

    fn expect(&self, _: KernelVersion) -> Vec<Expected> {
        Vec::new()
    }

    fn recipe(&self) -> Vec<String> {
        vec![self.0.about.to_owned()]
    }

    fn uses_huge_pages(&self) -> bool {
        self.0.axes.contains("hugetlb")
    }
}
