//! Kernels as a person names them where something is looked up: a series, or a release string.

use crate::judge::{Difference, judge};
use anyhow::{Result, bail};
use std::fmt;
use std::str::FromStr;
use uffd_results::{
    Answer, Certainty, Dataset, KernelVersion, Outcome, Recorded, Release, ReleaseError, Verdict,
    Why,
};
use uffd_suites::probe::Case;

/// What `-k` names.
#[derive(Clone, Debug)]
pub(crate) enum Which {
    /// Every recorded kernel of a series: `6.12`.
    Series(String),
    /// One kernel, recorded or not: a version or what `uname -r` prints.
    Release(Box<Release>),
}

impl FromStr for Which {
    type Err = ReleaseError;

    fn from_str(text: &str) -> Result<Self, ReleaseError> {
        // A release string may have white space around it, and so may a series.
        let text = text.trim_ascii();
        let mut numbers = text.split('.');
        let numeric = |n: Option<&str>| n.is_some_and(|n| n.parse::<u16>().is_ok());
        if numeric(numbers.next()) && numeric(numbers.next()) && numbers.next().is_none() {
            return Ok(Self::Series(text.to_owned()));
        }
        Release::parse(text).map(Box::new).map(Self::Release)
    }
}

/// What was found for one name: its label, and the answer.
pub(crate) struct Found<'d, T> {
    pub(crate) label: String,
    pub(crate) answer: Answer<'d, T>,
}

impl<T> Found<'_, T> {
    /// Takes back an answer between series if what the suite expects of that release makes it another than on a
    /// recorded kernel it rests on: what came with a late stable release is not in an early mainline one.
    /// `otherwise` tells so of a kernel of `data`, by its place.
    pub(crate) fn unless_expected_otherwise(
        mut self,
        which: &Which,
        data: &Dataset,
        otherwise: impl Fn(usize, KernelVersion) -> bool,
    ) -> Self {
        let answer = &mut self.answer;
        let between = answer.certainty == Certainty::BetweenSeries;
        let Some(version) = KernelVersion::parse(&which.to_string()).ok().filter(|_| between)
        else {
            return self;
        };
        let place = |kernel: &Recorded| data.kernels().iter().position(|other| other == kernel);
        let mut places = answer.basis.iter().filter_map(|(kernel, _)| place(kernel));
        if places.any(|place| otherwise(place, version)) {
            answer.value = None;
            (answer.certainty, answer.why) = (Certainty::Unknown, Some(Why::Otherwise));
        }
        self
    }
}

/// What the suite expects of another version than what a case has shown, as expected, on a recorded kernel.
pub(crate) fn changes(
    case: &Case,
    shown: &Outcome,
    on: &Recorded,
    version: KernelVersion,
) -> Vec<Difference> {
    match judge(case, shown, on.upstream).verdict {
        Verdict::Pass => judge(case, shown, version).differences,
        _ => Vec::new(),
    }
}

impl fmt::Display for Which {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Series(series) => f.pad(series),
            Self::Release(release) => release.fmt(f),
        }
    }
}

impl Which {
    /// Looks something up, `at` being the answer of a recorded kernel by its place.
    pub(crate) fn look_up<'d, T: PartialEq + Clone>(
        &self,
        data: &'d Dataset,
        at: impl Fn(usize) -> Option<T>,
    ) -> Result<Vec<Found<'d, T>>> {
        let answer = |i: usize| recorded(&data.kernels()[i], at(i));
        match self {
            Self::Release(release) => {
                let builds = self.places(data)?;
                if data.exact(release).is_none() && !builds.is_empty() {
                    return Ok(builds.into_iter().map(answer).collect());
                }
                let answer = data.resolve(release, &at);
                Ok(vec![Found { label: release.to_string(), answer }])
            }
            Self::Series(series) => self.places(data).map(|places| {
                if places.is_empty() {
                    // Nothing of the series was recorded: its first release stands for it, and is
                    // between its neighbours or unknown.
                    let release = Release::parse(&format!("{series}.0-0-unknown")).ok();
                    let between = release.map(|release| data.resolve(&release, &at));
                    return between
                        .map(|answer| Found { label: series.clone(), answer })
                        .into_iter()
                        .collect();
                }
                places.into_iter().map(answer).collect()
            }),
        }
    }

    /// The recorded kernels that are meant, by their places; of a release its very build, of an upstream version
    /// all of its builds.
    pub(crate) fn places(&self, data: &Dataset) -> Result<Vec<usize>> {
        if data.kernels().is_empty() {
            bail!(
                "no kernel is recorded: run `uffd-conform sweep` first, or name a folder with --results"
            );
        }
        Ok(match self {
            Self::Release(release) => {
                if let Some(exact) = data.exact(release) {
                    return Ok(vec![exact]);
                }
                let kernels = data.kernels().iter().enumerate();
                let is_it = |kernel: &Recorded| kernel.upstream.to_string() == release.as_str();
                kernels.filter(|(_, kernel)| is_it(kernel)).map(|(i, _)| i).collect()
            }
            Self::Series(series) => {
                let kernels = data.kernels().iter().enumerate();
                kernels.filter(|(_, k)| k.upstream.series() == *series).map(|(i, _)| i).collect()
            }
        })
    }
}

fn recorded<T: Clone>(kernel: &Recorded, value: Option<T>) -> Found<'_, T> {
    let basis = value.clone().map(|value| (kernel, value)).into_iter().collect();
    let (certainty, why) = match value {
        Some(_) => (Certainty::Exact, None),
        None => (Certainty::Unknown, Some(Why::NotAsked)),
    };
    let answer = Answer { value, certainty, why, basis };
    Found { label: kernel.label.clone(), answer }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("6.12", true)]
    #[case(" 6.12\r\n", true)]
    #[case("7.3", true)]
    #[case("6.12.43", false)]
    #[case("6.8.0-45-generic", false)]
    fn names(#[case] text: &str, #[case] series: bool) {
        let which: Which = text.parse().expect("a kernel");
        assert_eq!(matches!(which, Which::Series(_)), series);
    }

    #[rstest]
    #[case("linux")]
    #[case("6.")]
    #[case("6.x")]
    fn no_names(#[case] text: &str) {
        assert!(text.parse::<Which>().is_err());
    }

    /// The result field of EAGAIN is written from 6.15 on, and in 6.12 from 6.12.29 on: 6.12.43 and 6.16.3 agree,
    /// and say nothing of 6.13.
    #[rstest]
    #[case("6.13.2", None)]
    #[case("6.14.0-24-generic", None)]
    #[case("6.12.60", Some("-11"))]
    #[case("6.16.5", Some("-11"))]
    fn what_came_late_to_a_stable_series_is_not_told_of_the_next(
        #[case] text: &str,
        #[case] field: Option<&str>,
    ) {
        let known = crate::known::built_in();
        let id = "copy/event-unread[backing=anon]";
        let (case, asked) = (&crate::known::cases()[id], known.data.case(id).expect("recorded"));
        let which: Which = text.parse().expect("a kernel");
        let all = which.look_up(&known.data, |kernel| asked.answer(kernel)).expect("kernels");
        let otherwise = |kernel: usize, version| {
            let on = &known.data.kernels()[kernel];
            asked.answer(kernel).is_some_and(|shown| !changes(case, shown, on, version).is_empty())
        };
        let [found] = all.try_into().ok().expect("one kernel");
        let found: Found<'_, &Outcome> =
            found.unless_expected_otherwise(&which, &known.data, otherwise);
        assert_eq!(found.answer.value.and_then(|outcome| outcome.facts.get("field")), field);
        assert_eq!(found.answer.why == Some(Why::Otherwise), field.is_none());
    }
}
