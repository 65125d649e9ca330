//! What stands apart: answers that the sources expect of a series which was not recorded, and that the recorded
//! series around it do not show.

use super::Dataset;

/// What a fact of a case is expected to be in some release of a series, other than what the recorded series on both
/// sides of that release agree on: a change that came late to the older one, or that came and went.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Apart {
    /// The case.
    pub case: String,
    /// The fact.
    pub fact: String,
    /// Major and minor number of the series.
    pub series: (u16, u16),
    /// The values that are expected of its releases, joined by `|`; `?` is any one character.
    pub value: String,
}

impl Dataset {
    /// Sets what stands apart, in any order.
    pub fn set_apart(&mut self, mut all: Vec<Apart>) {
        all.sort();
        all.dedup();
        self.apart = all;
    }

    /// Everything that stands apart, by case, fact and series.
    pub fn apart(&self) -> &[Apart] {
        &self.apart
    }

    /// What of a case stands apart in a series: each fact with the values that are expected.
    pub fn apart_of<'d>(
        &'d self,
        case: &str,
        series: (u16, u16),
    ) -> impl Iterator<Item = (&'d str, &'d str)> {
        let first = self.apart.partition_point(|apart| apart.case.as_str() < case);
        let all = self.apart[first..]
            .iter()
            .take_while(move |apart| apart.case == self.apart[first].case);
        let is_there = self.apart.get(first).is_some_and(|apart| apart.case == case);
        all.filter(move |apart| is_there && apart.series == series)
            .map(|apart| (apart.fact.as_str(), apart.value.as_str()))
    }
}
