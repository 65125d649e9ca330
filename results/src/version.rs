//! Kernel version numbers as Debian packages and vanilla `uname -r` write them.

use crate::release::{FINAL, Number, version};
use std::fmt;

/// An upstream kernel version, ordered as releases are: `7.3~rc7 < 7.3.0 < 7.3.4`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct KernelVersion {
    /// Major number.
    pub major: u16,
    /// Minor number; with the major number it names the series.
    pub minor: u16,
    /// Point release within the series.
    pub patch: u16,
    /// Release candidate number, if it is one.
    pub rc: Option<u16>,
}

/// Why a text is not a kernel version.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} does not begin with a kernel version such as 6.12.43 or 7.3~rc7")]
pub struct VersionError(pub String);

impl KernelVersion {
    /// A release of a series.
    pub const fn new(major: u16, minor: u16, patch: u16) -> Self {
        Self { major, minor, patch, rc: None }
    }

    /// Reads the version that `text` begins with: `6.12.43+deb13-cloud-amd64`, `5.10.218-1`,
    /// `7.3~rc7-1~exp1`, `7.3-rc7`. What follows the version is not looked at.
    pub fn parse(text: &str) -> Result<Self, VersionError> {
        let error = || VersionError(text.chars().take(80).collect());
        version(text).map(Self::of).ok_or_else(error)
    }

    pub(crate) const fn of((major, minor, patch, candidate): Number) -> Self {
        let rc = if candidate == FINAL { None } else { Some(candidate) };
        Self { major, minor, patch, rc }
    }

    /// The series, for example `6.12`.
    pub fn series(self) -> String {
        format!("{}.{}", self.major, self.minor)
    }

    pub(crate) fn key(self) -> Number {
        (self.major, self.minor, self.patch, self.rc.unwrap_or(FINAL))
    }
}

impl PartialOrd for KernelVersion {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for KernelVersion {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key().cmp(&other.key())
    }
}

impl fmt::Display for KernelVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { major, minor, patch, rc } = self;
        match rc {
            Some(rc) if *patch == 0 => f.pad(&format!("{major}.{minor}-rc{rc}")),
            Some(rc) => f.pad(&format!("{major}.{minor}.{patch}-rc{rc}")),
            None => f.pad(&format!("{major}.{minor}.{patch}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("6.12.43+deb13-cloud-amd64", "6.12.43", "6.12")]
    #[case("5.10.218-1", "5.10.218", "5.10")]
    #[case("7.3~rc7-1~exp1", "7.3-rc7", "7.3")]
    #[case("7.3-rc7-cloud-amd64", "7.3-rc7", "7.3")]
    #[case("7.3", "7.3.0", "7.3")]
    #[case("7.3.0-rc7", "7.3-rc7", "7.3")]
    #[case("6.12.43-rc1-cloud-amd64", "6.12.43-rc1", "6.12")]
    fn reads(#[case] text: &str, #[case] shown: &str, #[case] series: &str) {
        let version = KernelVersion::parse(text).expect("a version");
        assert_eq!((version.to_string().as_str(), version.series().as_str()), (shown, series));
        assert_eq!(KernelVersion::parse(shown), Ok(version));
    }

    #[rstest]
    #[case("")]
    #[case("six")]
    #[case("6")]
    #[case("6.")]
    #[case("99999.1")]
    fn refuses(#[case] text: &str) {
        assert!(KernelVersion::parse(text).is_err());
    }

    #[test]
    fn candidates_come_before_their_release() {
        let order = ["6.12.9", "6.12.10-rc1", "6.12.10", "7.3-rc7", "7.3", "7.3.4"];
        let read = order.map(|v| KernelVersion::parse(v).expect("a version"));
        assert!(read.is_sorted());
    }
}
