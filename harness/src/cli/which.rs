//! Kernels as a person names them where something is looked up: a series, or a release string.

use anyhow::{Result, bail};
use std::fmt;
use std::str::FromStr;
use uffd_results::{Answer, Certainty, Dataset, Recorded, Release, ReleaseError, Why};

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
}
