//! Release strings as distributions write them, taken apart: which upstream release a kernel is
//! built from, and whether its number says so at all.
//!
//! Belongs here: the forms of `uname -r`, and what `uname -v` adds. What a form can't tell stays
//! unknown: a number that means something else is worse than none.

mod form;

pub use form::Origin;
pub(crate) use form::{FINAL, Number, version};

use crate::version::KernelVersion;
use form::{Form, Scope};
use std::fmt;

impl Origin {
    /// A name for people.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Vanilla => "upstream",
            Self::Debian => "Debian",
            Self::Ubuntu => "Ubuntu",
            Self::Fedora => "Fedora",
            Self::RedHat => "Red Hat",
            Self::Suse => "SUSE",
            Self::Tumbleweed => "openSUSE Tumbleweed",
            Self::Android => "Android",
            Self::Follower => "a distribution that follows upstream",
            Self::Downstream => "a distribution with a long-lived kernel of its own",
        }
    }
}

/// Which upstream release a kernel is built from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Level {
    /// That release.
    Release(KernelVersion),
    /// Some release of that series, `(major, minor)`.
    Series(u16, u16),
    /// The number says nothing, since so much was carried back.
    CarriedBack,
}

/// A kernel's release string and what it tells.
///
/// ```
/// use uffd_results::{KernelVersion, Level, Release};
/// let debian = Release::parse("6.12.43+deb13-amd64")?;
/// assert_eq!(debian.level(), Level::Release(KernelVersion::new(6, 12, 43)));
/// let ubuntu = Release::parse("6.8.0-45-generic")?;
/// assert_eq!(ubuntu.level(), Level::Series(6, 8));
/// let red_hat = Release::parse("5.14.0-503.11.1.el9_5.x86_64")?;
/// assert_eq!(red_hat.level(), Level::CarriedBack);
/// # Ok::<(), uffd_results::ReleaseError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release {
    text: String,
    version: Option<String>,
    form: Form,
}

/// Why a text is not a release string.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not the release string of a Linux kernel: give what `uname -r` prints, such as \
     6.12.43, 6.12.43+deb13-amd64 or 6.8.0-45-generic"
)]
pub struct ReleaseError(pub String);

impl Release {
    /// Words that name a machine where a release string ends with them, and its name by `uname -m`.
    pub const MACHINES: &'static [(&'static str, &'static str)] = &form::MACHINES;

    /// Takes `uname -r` apart. A leading `v` or `linux-` is not accepted: it is no release string. `6.12` is the release
    /// 6.12.0, and not the series.
    pub fn parse(text: &str) -> Result<Self, ReleaseError> {
        let text = text.trim_ascii();
        let form = form::read(text).ok_or_else(|| ReleaseError(text.chars().take(80).collect()))?;
        Ok(Self { text: text.to_owned(), version: None, form })
    }

    /// Adds `uname -v`, which for Debian and Ubuntu's `/proc/version_signature` names the point
    /// release: `#1 SMP Debian 6.1.170-1 (2026-09-01)`, `Ubuntu 6.8.0-45.45-generic 6.8.12`.
    #[must_use]
    pub fn with_version(mut self, version: &str) -> Self {
        let version = version.trim();
        let words: Vec<&str> = version.split_ascii_whitespace().collect();
        let named = match self.form.origin {
            Origin::Debian => {
                words.iter().position(|w| *w == "Debian").and_then(|i| words.get(i + 1))
            }
            Origin::Ubuntu if words.first() == Some(&"Ubuntu") => words.get(2),
            _ => None,
        };
        let named = named.and_then(|word| KernelVersion::parse(word).ok());
        if let (Level::Series(major, minor), Some(v)) = (self.level(), named)
            && (v.major, v.minor) == (major, minor)
        {
            self.form = Form { number: v.key(), scope: Scope::Release, ..self.form };
        }
        if version.starts_with('#') {
            self.version = Some(version.to_owned());
        }
        self
    }

    /// Says which machine it runs on, as `uname -m` does.
    #[must_use]
    pub fn on_machine(mut self, machine: &str) -> Self {
        self.form.machine = Some(form::known_machine(machine).unwrap_or("another"));
        self
    }

    /// The string itself.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// `uname -v`, if it was given.
    pub fn version(&self) -> Option<&str> {
        self.version.as_deref()
    }

    /// The machine in the words of `uname -m`, if it was given or the string ends with it.
    pub const fn machine(&self) -> Option<&'static str> {
        self.form.machine
    }

    /// Who built it.
    pub const fn origin(&self) -> Origin {
        self.form.origin
    }

    /// Which upstream release it is built from.
    pub const fn level(&self) -> Level {
        let (major, minor, ..) = self.form.number;
        match self.form.scope {
            Scope::Release => Level::Release(KernelVersion::of(self.form.number)),
            Scope::Series => Level::Series(major, minor),
            Scope::Nothing => Level::CarriedBack,
        }
    }

    /// The lowest and the highest upstream version that it can be built from, given the names and
    /// versions of recorded kernels; `None` if its number says nothing.
    pub(crate) fn range<'k>(
        &self,
        recorded: impl Iterator<Item = (&'k str, Number)>,
    ) -> Option<(Number, Number)> {
        self.form.range(&self.text, recorded)
    }
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    const fn release(major: u16, minor: u16, patch: u16) -> Level {
        Level::Release(KernelVersion::new(major, minor, patch))
    }

    #[rstest]
    #[case("6.12.43", Origin::Vanilla, release(6, 12, 43))]
    #[case("7.3.0", Origin::Vanilla, release(7, 3, 0))]
    #[case("6.12.43+", Origin::Vanilla, release(6, 12, 43))]
    #[case("6.12.43-mycompany", Origin::Vanilla, release(6, 12, 43))]
    #[case("6.9.0-17-mycompany", Origin::Vanilla, Level::Series(6, 9))]
    #[case("6.12.43+deb13-cloud-amd64", Origin::Debian, release(6, 12, 43))]
    #[case("6.16.3+deb13-amd64", Origin::Debian, release(6, 16, 3))]
    #[case("5.10.0-30-cloud-amd64", Origin::Debian, Level::Series(5, 10))]
    #[case("6.1.0-47-arm64", Origin::Debian, Level::Series(6, 1))]
    #[case("6.1.0-0.deb11.21-amd64", Origin::Debian, Level::Series(6, 1))]
    #[case("7.0+deb14-amd64", Origin::Debian, release(7, 0, 0))]
    #[case("6.12.9+bpo-amd64", Origin::Debian, release(6, 12, 9))]
    #[case("6.8.0-45-generic", Origin::Ubuntu, Level::Series(6, 8))]
    #[case("5.15.0-1071-aws", Origin::Ubuntu, Level::Series(5, 15))]
    #[case("6.12.9-200.fc41.x86_64", Origin::Fedora, release(6, 12, 9))]
    #[case("5.14.0-503.11.1.el9_5.x86_64", Origin::RedHat, Level::CarriedBack)]
    #[case("4.18.0-553.el8.x86_64", Origin::RedHat, Level::CarriedBack)]
    #[case("5.15.0-200.131.27.el8uek.x86_64", Origin::RedHat, Level::CarriedBack)]
    #[case("6.12.9-1.el9.elrepo.x86_64", Origin::Follower, release(6, 12, 9))]
    #[case("6.4.0-150600.23.25-default", Origin::Suse, Level::CarriedBack)]
    #[case("6.4.0-150600.8.20-azure", Origin::Suse, Level::CarriedBack)]
    #[case("6.12.0-160000.5-default", Origin::Suse, Level::CarriedBack)]
    #[case("6.12.0-160000.5-rt", Origin::Suse, Level::CarriedBack)]
    #[case("6.12.0-061200-generic", Origin::Ubuntu, Level::Series(6, 12))]
    #[case("6.6.0-72.0.0.76.oe2403.x86_64", Origin::Downstream, Level::CarriedBack)]
    #[case("5.14.0-427.22.1.vz9.61.1", Origin::Downstream, Level::CarriedBack)]
    #[case("5.10.134-16.3.al8.x86_64", Origin::Downstream, Level::CarriedBack)]
    #[case("5.4.241-1-tlinux4-0017.7", Origin::Downstream, Level::CarriedBack)]
    #[case("4.12.14-122.234-default", Origin::Suse, Level::CarriedBack)]
    #[case("6.12.1-1-default", Origin::Tumbleweed, release(6, 12, 1))]
    #[case("5.10.198-android13-4-00050-gabc", Origin::Android, Level::CarriedBack)]
    #[case("6.1.115-126.197.amzn2023.x86_64", Origin::Follower, release(6, 1, 115))]
    #[case("6.12.1-arch1-1", Origin::Follower, release(6, 12, 1))]
    #[case("6.8.12-4-pve", Origin::Follower, release(6, 8, 12))]
    #[case("6.6.58-0-lts", Origin::Follower, release(6, 6, 58))]
    #[case("5.15.167.4-microsoft-standard-WSL2", Origin::Follower, release(5, 15, 167))]
    fn forms(#[case] text: &str, #[case] origin: Origin, #[case] level: Level) {
        let read = Release::parse(text).expect("a release");
        assert_eq!((read.origin(), read.level()), (origin, level));
    }

    #[test]
    fn a_candidate_is_one() {
        let read = Release::parse("7.3.0-rc7").expect("a release");
        assert_eq!(
            read.level(),
            Level::Release(KernelVersion { major: 7, minor: 3, patch: 0, rc: Some(7) })
        );
    }

    #[rstest]
    #[case("6.1.0-47-amd64", "#1 SMP Debian 6.1.170-1 (2026-09-01)", release(6, 1, 170))]
    #[case("6.8.0-45-generic", "Ubuntu 6.8.0-45.45-generic 6.8.12", release(6, 8, 12))]
    #[case("6.8.0-45-generic", "#45-Ubuntu SMP", Level::Series(6, 8))]
    #[case("6.1.0-47-amd64", "#1 SMP Debian 6.12.43-1", Level::Series(6, 1))]
    #[case("6.12.43+deb13-amd64", "#1 SMP Debian 6.12.43-1", release(6, 12, 43))]
    fn versions_add(#[case] text: &str, #[case] version: &str, #[case] level: Level) {
        let read = Release::parse(text).expect("a release").with_version(version);
        assert_eq!(read.level(), level);
    }

    #[rstest]
    #[case("")]
    #[case("linux-6.1")]
    #[case("v6.12")]
    #[case("6")]
    #[case("6.x")]
    #[case("6.12.")]
    #[case("6..12")]
    #[case("6.12rc3")]
    #[case("6.12.43 or so")]
    #[case("6.12\u{7}")]
    #[case("99999.1")]
    #[case("6.12.99999")]
    #[case("6.12.0-rc99999")]
    fn refused(#[case] text: &str) {
        assert!(Release::parse(text).is_err(), "{text:?}");
    }

    #[rstest]
    #[case("6.12.43+deb13-cloud-amd64", Some("x86_64"))]
    #[case("5.14.0-503.el9.aarch64", Some("aarch64"))]
    #[case("6.12.43", None)]
    fn machines(#[case] text: &str, #[case] machine: Option<&str>) {
        assert_eq!(Release::parse(text).expect("a release").machine(), machine);
    }

    #[test]
    fn flavours_share_a_build() {
        assert_eq!(form::debian_build("6.1.0-47-cloud-amd64"), Some(("6.1.0", 47)));
        assert_eq!(form::debian_build("6.1.0-47-amd64"), Some(("6.1.0", 47)));
        assert_eq!(form::debian_build("6.12.43+deb13-amd64"), None);
        assert_eq!(form::debian_build("6.1.0--amd64"), None);
        assert_eq!(form::debian_build("6.1.0-0.deb11.21-amd64"), None);
        assert_eq!(form::debian_build("6.1.0-65536-amd64"), None);
    }

    /// Builds of Debian's are in the order of their numbers, and of nobody else's.
    #[rstest]
    #[case("6.1.0-47-amd64", Some("6.1.170"), Some("6.1.170"))]
    #[case("6.1.0-50-rt-amd64", Some("6.1.170"), Some("6.1.193"))]
    #[case("6.1.0-56-arm64", Some("6.1.192"), Some("6.1.193"))]
    #[case("6.1.0-46-amd64", None, Some("6.1.170"))]
    #[case("6.1.0-57-amd64", Some("6.1.192"), None)]
    #[case("6.1.0-0.deb11.50-amd64", None, None)]
    #[case("6.1.0-50-generic", None, None)]
    #[case("6.1.0-50", None, None)]
    #[case("6.1.0-65536-amd64", None, None)]
    #[case("5.15.0-50-amd64", None, None)]
    #[case("5.10.0-5-amd64", None, None)]
    fn builds(#[case] text: &str, #[case] low: Option<&str>, #[case] high: Option<&str>) {
        let key = |text: &str| KernelVersion::parse(text).expect("a version").key();
        let recorded = [
            ("5.10.0-4-amd64", "5.10.9"),
            ("5.10.0-6-amd64", "5.10.8"),
            ("6.1.0-0.deb11.48-amd64", "6.1.150"),
            ("6.1.0-49-generic", "6.1.160"),
            ("6.1.0-47-cloud-amd64", "6.1.170"),
            ("6.1.0-56-cloud-amd64", "6.1.192"),
            ("6.1.0-56-cloud-arm64", "6.1.193"),
            ("6.12.43+deb13-amd64", "6.12.43"),
        ];
        let release = Release::parse(text).expect("a release");
        let (major, minor, ..) = release.form.number;
        let whole = ((major, minor, 0, FINAL), (major, minor, u16::MAX, FINAL));
        let range = release.range(recorded.iter().map(|(name, version)| (*name, key(version))));
        assert_eq!(range, Some((low.map_or(whole.0, key), high.map_or(whole.1, key))));
    }
}
