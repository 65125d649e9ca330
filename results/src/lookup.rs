//! Looking something up for a kernel, and how sure the answer is.
//!
//! Every lookup goes through [`Dataset::resolve`]: it finds the recorded kernels that speak for a
//! release, and whether they agree. An answer is never more than what was recorded.

mod near;

use crate::dataset::{Dataset, Recorded};
use crate::outcome::Outcome;
use crate::release::{Number, Release};
use crate::support::Held;
use near::{Near, in_series, near};
use std::fmt;

/// How sure an answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Certainty {
    /// This very build was asked.
    Exact,
    /// Between two recorded releases of its series that agree, or built from a recorded release.
    /// Builds of Debian's are in the order of their numbers.
    WithinSeries,
    /// Between recorded releases of other series, or of a series whose point release is not known,
    /// all of which agree. A change that came and went between them would not be seen.
    BetweenSeries,
    /// Nothing recorded speaks for it; [`Answer::why`] says in which way.
    Unknown,
}

impl Certainty {
    /// The word used in output.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::WithinSeries => "within series",
            Self::BetweenSeries => "between series",
            Self::Unknown => "unknown",
        }
    }
}

impl fmt::Display for Certainty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

/// Why nothing recorded speaks for a release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Why {
    /// The recorded releases around it disagree.
    Disagree,
    /// They agree, but what is documented says that this one answers otherwise.
    Otherwise,
    /// It is newer than every recorded one.
    Newer,
    /// It is older than every recorded one.
    Older,
    /// Only its series is known, of which some are recorded; none is newer.
    PerhapsNewer,
    /// Only its series is known, of which some are recorded; none is older.
    PerhapsOlder,
    /// Its builder carries changes back, so that its number says nothing.
    CarriedBack,
    /// No kernel of that machine was recorded.
    Machine,
    /// No recorded kernel was asked this, or could answer.
    NotAsked,
    /// There is no case, or probe, of that name.
    NoSuchCase,
    /// No case that was recorded shows a fact of that name.
    NoSuchFact,
    /// The text is no release string.
    NotARelease,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Disagree => "the recorded releases around it disagree",
            Self::Otherwise => {
                "the recorded releases around it agree, but by its sources it answers otherwise"
            }
            Self::Newer => "it is newer than every recorded release that answered",
            Self::Older => "it is older than every recorded release that answered",
            Self::PerhapsNewer => {
                "its point release is not known, and may be newer than every recorded one"
            }
            Self::PerhapsOlder => {
                "its point release is not known, and may be older than every recorded one"
            }
            Self::CarriedBack => "its builder carries changes back, so its number says nothing",
            Self::Machine => "no kernel of that machine was recorded",
            Self::NotAsked => "no recorded kernel was asked, or could answer",
            Self::NoSuchCase => "there is no case of that name here",
            Self::NoSuchFact => "no case here shows a fact of that name",
            Self::NotARelease => "that is not the release string of a kernel",
        })
    }
}

/// What is known of a question on one kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer<'d, T> {
    /// The answer; `None` if it is unknown.
    pub value: Option<T>,
    /// How sure it is.
    pub certainty: Certainty,
    /// Why it is unknown; `None` unless it is.
    pub why: Option<Why>,
    /// The recorded kernels that it rests on and what each said, from the oldest to the newest. Of
    /// an unknown answer: the nearest ones, which do not decide it.
    pub basis: Vec<(&'d Recorded, T)>,
}

impl<T> Answer<'_, T> {
    fn unknown(why: Why) -> Self {
        Self { value: None, certainty: Certainty::Unknown, why: Some(why), basis: Vec::new() }
    }

    /// Takes back an answer between series if the release's own, as major and minor number, stands apart.
    pub(crate) fn unless(
        mut self,
        release: &Release,
        data: &Dataset,
        is_apart: impl Fn((u16, u16)) -> bool,
    ) -> Self {
        let series = || {
            let kernels = data.kernels().iter();
            let (low, _) =
                release.range(kernels.map(|k| (k.release.as_str(), k.upstream.key())))?;
            // Behind a recorded release of its own series it has what that one has.
            let is_behind = |key: Number| key <= low && in_series(key, low);
            let is_own = self.basis.iter().any(|(kernel, _)| is_behind(kernel.upstream.key()));
            Some((low.0, low.1)).filter(|_| !is_own)
        };
        if self.certainty == Certainty::BetweenSeries && series().is_some_and(is_apart) {
            self.value = None;
            (self.certainty, self.why) = (Certainty::Unknown, Some(Why::Otherwise));
        }
        self
    }
}

impl Dataset {
    /// What a fact of a case is on a kernel: [`NONE`](crate::NONE) if it was not observed. The fact
    /// `end` is how the case ended.
    ///
    /// ```
    /// # #[cfg(feature = "data")] {
    /// use uffd_results::{Certainty, Dataset, Release};
    /// let case = "unregister/mmap-over[backing=anon,part=middle,over=anon,waiter=user-read,msg=read]";
    /// let release = Release::parse("6.12.90")?;
    /// let waiter = Dataset::recorded().fact(case, "waiter", &release);
    /// assert_eq!(waiter.value, Some("asleep"));
    /// assert_eq!(waiter.certainty, Certainty::WithinSeries);
    /// # }
    /// # Ok::<(), uffd_results::ReleaseError>(())
    /// ```
    pub fn fact(&self, case: &str, fact: &str, release: &Release) -> Answer<'_, &str> {
        match self.case(case) {
            // A slip of the pen must not read as something that was not observed.
            Some(_) if !self.shows(fact) => Answer::unknown(Why::NoSuchFact),
            Some(found) => {
                let is_it = |(name, _): (&str, &str)| name == fact;
                let apart = |series| self.apart_of(case, series).any(is_it);
                self.resolve(release, |kernel| found.fact(kernel, fact))
                    .unless(release, self, apart)
            }
            None => Answer::unknown(Why::NoSuchCase),
        }
    }

    /// Everything that a case showed on a kernel.
    pub fn outcome(&self, case: &str, release: &Release) -> Answer<'_, &Outcome> {
        match self.case(case) {
            Some(found) => {
                let apart = |series| self.apart_of(case, series).next().is_some();
                self.resolve(release, |kernel| found.answer(kernel)).unless(release, self, apart)
            }
            None => Answer::unknown(Why::NoSuchCase),
        }
    }

    /// Whether a probe's statement holds on a kernel.
    pub fn statement(&self, probe: &str, release: &Release) -> Answer<'_, Held> {
        match self.probe(probe) {
            Some(probe) => self.resolve(release, |kernel| probe.stands(kernel)),
            None => Answer::unknown(Why::NoSuchCase),
        }
    }

    /// The recorded kernel that a release is the very build of.
    pub fn exact(&self, release: &Release) -> Option<usize> {
        self.kernels().iter().position(|kernel| is_build(kernel, release))
    }

    /// Answers a question for a release by what was recorded; `at` is the answer of a kernel by its
    /// place, `None` if that was not asked or could not answer.
    pub fn resolve<T: PartialEq + Clone>(
        &self,
        release: &Release,
        at: impl Fn(usize) -> Option<T>,
    ) -> Answer<'_, T> {
        let kernels = self.kernels();
        if let Some((exact, value)) = self.exact(release).and_then(|i| Some((i, at(i)?))) {
            let basis = vec![(&kernels[exact], value.clone())];
            return Answer { value: Some(value), certainty: Certainty::Exact, why: None, basis };
        }
        let here = |kernel: &&Recorded| release.machine().is_none_or(|m| m == kernel.machine);
        if !kernels.iter().any(|kernel| here(&kernel)) {
            return Answer::unknown(Why::Machine);
        }
        let builds = kernels.iter().map(|kernel| (kernel.release.as_str(), kernel.upstream.key()));
        let Some((low, high)) = release.range(builds) else {
            return Answer::unknown(Why::CarriedBack);
        };
        let asked = kernels.iter().enumerate().filter(|(_, kernel)| here(kernel));
        let answers: Vec<(usize, T)> = asked.filter_map(|(i, _)| Some((i, at(i)?))).collect();
        let numbers = answers.iter().map(|(i, _)| (*i, kernels[*i].upstream.key()));
        let (places, why) = match near(low, high, numbers) {
            Near::Around(first, last) => (first..=last, None),
            Near::Newer(last) => (last..=last, Some(Why::Newer)),
            Near::Older(first) => (first..=first, Some(Why::Older)),
            Near::PerhapsNewer(first, last) => (first..=last, Some(Why::PerhapsNewer)),
            Near::PerhapsOlder(first, last) => (first..=last, Some(Why::PerhapsOlder)),
            Near::Nobody => return Answer::unknown(Why::NotAsked),
        };
        let nearest = answers.into_iter().filter(|(i, _)| places.contains(i));
        let basis: Vec<(&Recorded, T)> = nearest.map(|(i, v)| (&kernels[i], v)).collect();
        let agree = basis.iter().all(|(_, value)| *value == basis[0].1);
        if let Some(why) = why.or_else(|| (!agree).then_some(Why::Disagree)) {
            return Answer { basis, ..Answer::unknown(why) };
        }
        let within = basis.iter().all(|(k, _)| in_series(k.upstream.key(), low));
        let certainty = if within { Certainty::WithinSeries } else { Certainty::BetweenSeries };
        let value = basis.first().map(|(_, value)| value.clone());
        Answer { value, certainty, why: None, basis }
    }
}

fn is_build(kernel: &Recorded, release: &Release) -> bool {
    kernel.release == release.as_str()
        && release.machine().is_none_or(|machine| machine == kernel.machine)
        && release.version().is_none_or(|version| version == kernel.version)
}

#[cfg(test)]
mod tests;
