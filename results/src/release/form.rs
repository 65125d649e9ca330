//! What a release string tells, read in place.
//!
//! Belongs here: the forms of `uname -r`. Only `core` is used and nothing is allocated, since
//! `uffd-conform export --format rust` hands this file on as it stands.

/// An upstream version: major, minor and patch number, and the number of the release candidate or
/// [`FINAL`]. Ordered as releases are.
pub(crate) type Number = (u16, u16, u16, u16);

/// In the place of a candidate's number: no candidate, but the release that follows them.
pub(crate) const FINAL: u16 = u16::MAX;

/// Longer strings are no release strings: the kernel's own limit is 64 bytes.
const LONGEST: usize = 128;

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
    /// A long-lived kernel of another distribution's (openEuler, Virtuozzo, Alibaba, Anolis, Tencent, Kylin, UOS),
    /// whose number stays while changes come.
    Downstream,
    /// A distribution that follows upstream's point releases (Amazon, Arch, Alpine, Proxmox, WSL).
    Follower,
}

impl Origin {
    /// Whether the builder carries so much back from newer series that the number says little.
    /// userfaultfd itself was carried back in all of these.
    pub const fn carries_back(self) -> bool {
        matches!(self, Self::RedHat | Self::Suse | Self::Android | Self::Downstream)
    }

    /// The words of a release string that show this builder, where whole words do; of [`Self::Downstream`] what
    /// they begin with, before a number.
    pub const fn words(self) -> &'static [&'static str] {
        match self {
            Self::Ubuntu => &UBUNTU,
            Self::Debian => &DEBIAN,
            Self::Follower => &FOLLOWERS,
            Self::Downstream => &DOWNSTREAM,
            _ => &[],
        }
    }
}

/// How much of a version a release string tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// The upstream release.
    Release,
    /// Its series only.
    Series,
    /// Nothing, since so much was carried back.
    Nothing,
}

/// What a release string tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Form {
    pub(crate) number: Number,
    pub(crate) origin: Origin,
    pub(crate) scope: Scope,
    /// The machine that the string ends with.
    pub(crate) machine: Option<&'static str>,
}

/// Takes a release string without white space around it apart; `None` if it is none.
pub(crate) fn read(text: &str) -> Option<Form> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"._+-~".contains(&b);
    if text.len() > LONGEST || !text.bytes().all(plain) {
        return None;
    }
    let number = version(text)?;
    let rest = suffix(text)?;
    let (_, _, patch, candidate) = number;
    let origin = origin(patch, rest);
    let scope = match origin {
        _ if origin.carries_back() => Scope::Nothing,
        // `6.8.0-45-generic`, `6.1.0-47-amd64`: the last number is always 0.
        Origin::Ubuntu | Origin::Debian if patch == 0 && !rest.starts_with('+') => Scope::Series,
        // A build number of nobody we know behind a zero may hide a point release.
        Origin::Vanilla if patch == 0 && candidate == FINAL && has_build_number(rest) => {
            Scope::Series
        }
        _ => Scope::Release,
    };
    let machine = text.rsplit(['-', '.', '+']).next().and_then(known_machine);
    Some(Form { number, origin, scope, machine })
}

impl Form {
    /// The lowest and the highest upstream version that a kernel of this name can be built from,
    /// given the names and versions of recorded ones from the oldest to the newest; `None` if its
    /// number says nothing.
    pub(crate) fn range<'k>(
        &self,
        text: &str,
        recorded: impl Iterator<Item = (&'k str, Number)>,
    ) -> Option<(Number, Number)> {
        let (major, minor, ..) = self.number;
        match self.scope {
            Scope::Nothing => None,
            Scope::Release => Some((self.number, self.number)),
            Scope::Series => {
                let whole = ((major, minor, 0, FINAL), (major, minor, u16::MAX, FINAL));
                let build = debian_build(text).filter(|_| self.origin == Origin::Debian);
                Some(build.map_or(whole, |build| between_builds(build, recorded, whole)))
            }
        }
    }
}

/// The versions that one of Debian's builds can be made of, by recorded builds of the same version
/// text: its number rises with the point release. Where none is lower, or none higher, the bound is
/// that of the whole series.
fn between_builds<'k>(
    (version, build): (&str, u16),
    recorded: impl Iterator<Item = (&'k str, Number)>,
    whole: (Number, Number),
) -> (Number, Number) {
    // Others number their builds in their own way.
    let is_debian = |name| read(name).is_some_and(|form| form.origin == Origin::Debian);
    let (mut below, mut above) = (None::<(u16, Number)>, None::<(u16, Number)>);
    for (name, number) in recorded {
        let same = debian_build(name).filter(|(v, _)| *v == version && is_debian(name));
        let Some((_, other)) = same else { continue };
        // The lowest and the highest version, should there be several of one build number.
        if other <= build && Some(other) > below.map(|(n, _)| n) {
            below = Some((other, number));
        }
        if other >= build && other <= above.map_or(u16::MAX, |(n, _)| n) {
            above = Some((other, number));
        }
    }
    let (low, high) = (below.map_or(whole.0, |b| b.1), above.map_or(whole.1, |a| a.1));
    // Records that contradict each other tell the series only.
    if low <= high { (low, high) } else { whole }
}

/// The version that a text begins with: `6.12.43`, `7.3~rc7`, `7.3-rc7`. What follows is not looked at.
pub(crate) fn version(text: &str) -> Option<Number> {
    let digit = |rest: &&str| rest.starts_with(|c: char| c.is_ascii_digit());
    let (major, rest) = number(text)?;
    let (minor, mut rest) = number(rest.strip_prefix('.')?)?;
    let mut patch = 0;
    if let Some(third) = rest.strip_prefix('.').filter(digit) {
        (patch, rest) = number(third)?;
    }
    let candidate = rest.strip_prefix("~rc").or_else(|| rest.strip_prefix("-rc")).filter(digit);
    let candidate = match candidate {
        Some(candidate) => number(candidate)?.0,
        None => FINAL,
    };
    Some((major, minor, patch, candidate))
}

/// The number that a text begins with, and what follows it.
fn number(text: &str) -> Option<(u16, &str)> {
    let end = text.bytes().position(|b| !b.is_ascii_digit()).unwrap_or(text.len());
    Some((text[..end].parse().ok()?, &text[end..]))
}

/// Version text and number of one of Debian's builds, `6.1.0` and 47 of `6.1.0-47-cloud-amd64`: its
/// flavours are made of the same source. Backports (`6.1.0-0.deb11.21-amd64`) are counted apart and
/// have none.
pub(crate) fn debian_build(text: &str) -> Option<(&str, u16)> {
    let (version, rest) = text.split_once('-')?;
    let (build, rest) = number(rest)?;
    Some((version, build)).filter(|_| rest.is_empty() || rest.starts_with('-'))
}

/// What follows the version, which is numbers with dots and perhaps a release candidate; `None` if
/// it is no suffix.
fn suffix(text: &str) -> Option<&str> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (numbers, rest) = text.split_at(end);
    let rest = rest
        .strip_prefix("-rc")
        .or_else(|| rest.strip_prefix("~rc"))
        .map_or(rest, |rc| rc.trim_start_matches(|c: char| c.is_ascii_digit()));
    // `6.12.` and `6.12..3` are no versions, nor is `6.12rc3`.
    let odd = numbers.ends_with('.') || numbers.contains("..");
    Some(rest).filter(|rest| !odd && !rest.starts_with(|c: char| c.is_ascii_alphanumeric()))
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
const DOWNSTREAM: [&str; 8] = ["oe", "vz", "al", "an", "tl", "tlinux", "ky", "uel"];
const FOLLOWERS: [&str; 8] = ["pve", "lts", "virt", "WSL2", "gentoo", "zen1", "MANJARO", "cachyos"];

fn origin(patch: u16, rest: &str) -> Origin {
    let words = || rest.split(['-', '.', '+', '~', '_']).filter(|word| !word.is_empty());
    let has = |word: &str| words().any(|w| w == word);
    let begins = |head: &str| {
        let numbered = |tail: &str| tail.starts_with(|c: char| c.is_ascii_digit());
        words().any(|word| word.strip_prefix(head).is_some_and(numbered))
    };
    let numbered = has_build_number(rest);
    let last = words().next_back().unwrap_or("");
    if has("elrepo") || begins("amzn") {
        return Origin::Follower;
    }
    if begins("el") || words().any(|word| word.ends_with("uek")) {
        return Origin::RedHat;
    }
    if begins("fc") {
        return Origin::Fedora;
    }
    if begins("android") || has("gki") {
        return Origin::Android;
    }
    if DOWNSTREAM.iter().any(|head| begins(head)) {
        return Origin::Downstream;
    }
    // Enterprise builds are numbered `150600.23.25`, `160000.5`, `122.234`; Ubuntu's of upstream's tree `061200`.
    let digits = rest.trim_start_matches('-').bytes().take_while(u8::is_ascii_digit).count();
    let service = numbered && digits >= 6 && rest.as_bytes().get(digits + 1) == Some(&b'.');
    if last == "default" || begins("lp15") || service {
        let build = rest.trim_start_matches('-').split('-').next().and_then(number);
        let simple = build.is_some_and(|(build, more)| build < 256 && more.is_empty());
        return if simple && patch > 0 { Origin::Tumbleweed } else { Origin::Suse };
    }
    if begins("deb") || begins("bpo") || has("bpo") {
        return Origin::Debian;
    }
    if numbered && patch == 0 && UBUNTU.iter().any(|flavour| has(flavour)) {
        return Origin::Ubuntu;
    }
    if numbered && DEBIAN.contains(&last) {
        return Origin::Debian;
    }
    if FOLLOWERS.iter().any(|word| has(word)) || begins("arch") || begins("zen") {
        return Origin::Follower;
    }
    Origin::Vanilla
}

/// Words that name a machine, as the last one of a release, and what `uname -m` calls it. Sizes of pages stand
/// behind arm64's name, or in place of it.
pub(crate) const MACHINES: [(&str, &str); 20] = [
    ("x86_64", "x86_64"),
    ("amd64", "x86_64"),
    ("aarch64", "aarch64"),
    ("arm64", "aarch64"),
    ("i686", "i686"),
    ("i386", "i686"),
    ("686", "i686"),
    ("pae", "i686"),
    ("armv7l", "armv7l"),
    ("armmp", "armv7l"),
    ("lpae", "armv7l"),
    ("16k", "aarch64"),
    ("64k", "aarch64"),
    ("ppc64le", "ppc64le"),
    ("ppc64el", "ppc64le"),
    ("powerpc64le", "ppc64le"),
    ("s390x", "s390x"),
    ("riscv64", "riscv64"),
    ("loongarch64", "loongarch64"),
    ("loong64", "loongarch64"),
];

/// The machine that a word names, as `uname -m` writes it.
pub(crate) fn known_machine(word: &str) -> Option<&'static str> {
    MACHINES.iter().find(|(known, _)| *known == word).map(|(_, machine)| *machine)
}
