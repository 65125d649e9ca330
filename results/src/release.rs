//! Release strings as distributions write them, taken apart: which upstream release a kernel is
//! built from, and whether its number says so at all.
//!
//! Belongs here: the forms of `uname -r`, and what `uname -v` adds. What a form can't tell stays
//! unknown: a number that means something else is worse than none.

use crate::version::KernelVersion;
use std::fmt;

/// Who built a kernel, as far as the release string shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    /// A version and nothing behind it, or a local suffix of no known distribution.
    Vanilla,
    /// Debian; its build number or point release follows the version.
    Debian,
    /// Ubuntu, whose point release is always 0: only the series is known.
    Ubuntu,
    /// Fedora, which follows upstream's point releases.
    Fedora,
    /// Red Hat Enterprise Linux, its rebuilds, and Oracle's kernel for it.
    RedHat,
    /// SUSE Linux Enterprise and openSUSE Leap.
    Suse,
    /// openSUSE Tumbleweed, which follows upstream's point releases.
    Tumbleweed,
    /// Android's common kernel.
    Android,
    /// A distribution that follows upstream's point releases (Amazon, Arch, Alpine, Proxmox, WSL).
    Follower,
}

impl Origin {
    /// Whether the builder carries so much back from newer series that the number says little.
    /// userfaultfd itself was carried back in all of these.
    pub const fn carries_back(self) -> bool {
        matches!(self, Self::RedHat | Self::Suse | Self::Android)
    }

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
    machine: Option<&'static str>,
    origin: Origin,
    level: Level,
}

/// Why a text is not a release string.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not the release string of a Linux kernel: give what `uname -r` prints, such as \
     6.12.43, 6.12.43+deb13-amd64 or 6.8.0-45-generic"
)]
pub struct ReleaseError(pub String);

/// Longer strings are no release strings: the kernel's own limit is 64 bytes.
const LONGEST: usize = 128;

impl Release {
    /// Takes `uname -r` apart. A leading `v` or `linux-` is not accepted: it is no release string.
    pub fn parse(text: &str) -> Result<Self, ReleaseError> {
        let text = text.trim();
        let error = || ReleaseError(text.chars().take(80).collect());
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"._+-~".contains(&b);
        if text.len() > LONGEST || !text.bytes().all(plain) {
            return Err(error());
        }
        let version = KernelVersion::parse(text).map_err(|_| error())?;
        let rest = suffix(text);
        if rest.starts_with(|c: char| c.is_ascii_alphanumeric()) {
            return Err(error());
        }
        let origin = origin(version, rest);
        let level = match origin {
            _ if origin.carries_back() => Level::CarriedBack,
            // `6.8.0-45-generic`, `6.1.0-47-amd64`: the last number is always 0.
            Origin::Ubuntu | Origin::Debian if version.patch == 0 && !rest.starts_with('+') => {
                Level::Series(version.major, version.minor)
            }
            // A build number of nobody we know behind a zero may hide a point release.
            Origin::Vanilla
                if version.patch == 0 && version.rc.is_none() && has_build_number(rest) =>
            {
                Level::Series(version.major, version.minor)
            }
            _ => Level::Release(version),
        };
        Ok(Self { text: text.to_owned(), version: None, machine: machine(text), origin, level })
    }

    /// Adds `uname -v`, which for Debian and Ubuntu's `/proc/version_signature` names the point
    /// release: `#1 SMP Debian 6.1.170-1 (2026-09-01)`, `Ubuntu 6.8.0-45.45-generic 6.8.12`.
    #[must_use]
    pub fn with_version(mut self, version: &str) -> Self {
        let version = version.trim();
        let words: Vec<&str> = version.split_ascii_whitespace().collect();
        let named = match self.origin {
            Origin::Debian => {
                words.iter().position(|w| *w == "Debian").and_then(|i| words.get(i + 1))
            }
            Origin::Ubuntu if words.first() == Some(&"Ubuntu") => words.get(2),
            _ => None,
        };
        let named = named.and_then(|word| KernelVersion::parse(word).ok());
        if let (Level::Series(major, minor), Some(v)) = (self.level, named)
            && (v.major, v.minor) == (major, minor)
        {
            self.level = Level::Release(v);
        }
        if version.starts_with('#') {
            self.version = Some(version.to_owned());
        }
        self
    }

    /// Says which machine it runs on, as `uname -m` does.
    #[must_use]
    pub fn on_machine(mut self, machine: &str) -> Self {
        self.machine = Some(known_machine(machine).unwrap_or("another"));
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
        self.machine
    }

    /// Who built it.
    pub const fn origin(&self) -> Origin {
        self.origin
    }

    /// Which upstream release it is built from.
    pub const fn level(&self) -> Level {
        self.level
    }

    /// Debian's name of a build without its flavour, `6.1.0-47`: the flavours of a build (`amd64`,
    /// `cloud-amd64`) are made of the same source.
    pub(crate) fn debian_build(&self) -> Option<&str> {
        let in_series = matches!(self.level, Level::Series(..)) && self.origin == Origin::Debian;
        in_series.then(|| debian_build(&self.text)).flatten()
    }
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

/// `6.1.0-47` of `6.1.0-47-cloud-amd64`.
pub(crate) fn debian_build(text: &str) -> Option<&str> {
    let (version, rest) = text.split_once('-')?;
    let number = rest.split('-').next().filter(|n| n.bytes().all(|b| b.is_ascii_digit()))?;
    text.get(..version.len() + 1 + number.len())
}

/// What follows the version: numbers with dots, and a release candidate.
fn suffix(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (numbers, rest) = text.split_at(end);
    let rest = rest
        .strip_prefix("-rc")
        .or_else(|| rest.strip_prefix("~rc"))
        .map_or(rest, |rc| rc.trim_start_matches(|c: char| c.is_ascii_digit()));
    // `6.12.` and `6.12..3` are no versions.
    if numbers.ends_with('.') || numbers.contains("..") { text } else { rest }
}

fn has_build_number(rest: &str) -> bool {
    rest.strip_prefix('-').is_some_and(|r| r.starts_with(|c: char| c.is_ascii_digit()))
}

/// Flavours whose build number follows a zero: `-45-generic`.
const UBUNTU: [&str; 14] = [
    "generic",
    "lowlatency",
    "aws",
    "azure",
    "gcp",
    "oracle",
    "kvm",
    "oem",
    "raspi",
    "ibm",
    "gke",
    "gkeop",
    "nvidia",
    "realtime",
];
const DEBIAN: [&str; 10] = [
    "amd64", "arm64", "686", "armmp", "ppc64el", "s390x", "riscv64", "loong64", "mips64el", "armhf",
];

fn origin(version: KernelVersion, rest: &str) -> Origin {
    let words: Vec<&str> =
        rest.split(['-', '.', '+', '~', '_']).filter(|w| !w.is_empty()).collect();
    let has = |word: &str| words.contains(&word);
    let begins = |head: &str| {
        words.iter().any(|w| {
            w.strip_prefix(head).is_some_and(|n| n.starts_with(|c: char| c.is_ascii_digit()))
        })
    };
    let numbered = has_build_number(rest);
    if has("elrepo") || begins("amzn") {
        return Origin::Follower;
    }
    if begins("el") || words.iter().any(|w| w.ends_with("uek")) {
        return Origin::RedHat;
    }
    if begins("fc") {
        return Origin::Fedora;
    }
    if begins("android") || has("gki") {
        return Origin::Android;
    }
    if words.last() == Some(&"default") || begins("lp15") || begins("150") {
        let build = rest.trim_start_matches('-');
        let simple = build.split('-').next().is_some_and(|b| b.parse::<u8>().is_ok());
        // Enterprise builds are numbered `150600.23.25`, `122.234`.
        return if simple && version.patch > 0 { Origin::Tumbleweed } else { Origin::Suse };
    }
    if begins("deb") || begins("bpo") || has("bpo") {
        return Origin::Debian;
    }
    if numbered && version.patch == 0 && UBUNTU.iter().any(|flavour| has(flavour)) {
        return Origin::Ubuntu;
    }
    if numbered && words.last().is_some_and(|last| DEBIAN.contains(last)) {
        return Origin::Debian;
    }
    let follows = ["pve", "lts", "virt", "WSL2", "gentoo", "zen1", "MANJARO", "cachyos"];
    if follows.iter().any(|word| has(word)) || begins("arch") || begins("zen") {
        return Origin::Follower;
    }
    Origin::Vanilla
}

fn machine(text: &str) -> Option<&'static str> {
    known_machine(text.rsplit(['-', '.', '+']).next()?)
}

/// The machine that a word names, as `uname -m` writes it.
fn known_machine(word: &str) -> Option<&'static str> {
    Some(match word {
        "x86_64" | "amd64" => "x86_64",
        "aarch64" | "arm64" => "aarch64",
        "i686" | "i386" | "686" => "i686",
        "ppc64le" | "ppc64el" => "ppc64le",
        "s390x" => "s390x",
        "riscv64" => "riscv64",
        "loongarch64" | "loong64" => "loongarch64",
        _ => return None,
    })
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
    #[case("6.12.9+bpo-amd64", Origin::Debian, release(6, 12, 9))]
    #[case("6.8.0-45-generic", Origin::Ubuntu, Level::Series(6, 8))]
    #[case("5.15.0-1071-aws", Origin::Ubuntu, Level::Series(5, 15))]
    #[case("6.12.9-200.fc41.x86_64", Origin::Fedora, release(6, 12, 9))]
    #[case("5.14.0-503.11.1.el9_5.x86_64", Origin::RedHat, Level::CarriedBack)]
    #[case("4.18.0-553.el8.x86_64", Origin::RedHat, Level::CarriedBack)]
    #[case("5.15.0-200.131.27.el8uek.x86_64", Origin::RedHat, Level::CarriedBack)]
    #[case("6.12.9-1.el9.elrepo.x86_64", Origin::Follower, release(6, 12, 9))]
    #[case("6.4.0-150600.23.25-default", Origin::Suse, Level::CarriedBack)]
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
        let read = |text| Release::parse(text).expect("a release");
        assert_eq!(read("6.1.0-47-cloud-amd64").debian_build(), Some("6.1.0-47"));
        assert_eq!(read("6.1.0-47-amd64").debian_build(), Some("6.1.0-47"));
        assert_eq!(read("6.12.43+deb13-amd64").debian_build(), None);
    }
}
