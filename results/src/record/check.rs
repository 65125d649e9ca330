//! What must hold of a record that was read and its types don't say: texts that can be printed, name
//! a file, or be compared, whoever wrote them.

use super::limits::{CASES, SETTINGS};
use super::{Environment, Kernel, Record, RecordError, Suite};
use crate::plain::is_plain;
use crate::version::KernelVersion;

/// Bytes of a name; `uname` has 64.
const NAME: usize = 128;
/// Bytes of any other text in a record, such as what was added to a kernel's command line.
pub const LONGEST_TEXT: usize = 1024;
/// Bytes of a case id.
const ID: usize = 512;

fn wrong(place: impl Into<String>, what: impl Into<String>) -> RecordError {
    RecordError::Wrong { place: place.into(), what: what.into() }
}

/// Whether a text can name a file in a folder and nothing outside of it.
pub(crate) fn is_name(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"._+-~".contains(&b);
    (1..=NAME).contains(&text.len()) && !text.starts_with('.') && text.bytes().all(plain)
}

/// Whether a text is formed as a case's id: `suite/name`, or with axes `suite/name[axis=value,...]`.
///
/// ```
/// assert!(uffd_results::is_case_id("copy/munmap[backing=anon,part=head]"));
/// assert!(!uffd_results::is_case_id("../copy[<b>=1]"));
/// ```
pub fn is_case_id(id: &str) -> bool {
    let word = |w: &str| {
        let ok = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        !w.is_empty() && w.bytes().all(ok)
    };
    let value = |v: &str| {
        let ok = |b: u8| b.is_ascii_alphanumeric() || b"+-._:/".contains(&b);
        !v.is_empty() && v.bytes().all(ok)
    };
    let pair = |a: &str| a.split_once('=').is_some_and(|(n, v)| word(n) && value(v));
    let (probe, with_axes) = match id.split_once('[') {
        Some((probe, rest)) => {
            (probe, rest.strip_suffix(']').is_some_and(|axes| axes.split(',').all(pair)))
        }
        None => (id, true),
    };
    id.len() <= ID && with_axes && probe.split_once('/').is_some_and(|(s, n)| word(s) && word(n))
}

/// Checks a text that is to be shown.
pub(crate) fn text(place: &str, text: &str) -> Result<(), RecordError> {
    if text.len() > LONGEST_TEXT {
        return Err(wrong(place, format!("a text of more than {LONGEST_TEXT} bytes")));
    }
    if text.chars().all(is_plain) {
        return Ok(());
    }
    Err(wrong(place, format!("{text:?} holds characters that can't be shown")))
}

fn name(place: &str, text: &str) -> Result<(), RecordError> {
    if is_name(text) {
        return Ok(());
    }
    let rule = "is no name: at most 128 letters, digits and ._+-~, not beginning with a dot";
    Err(wrong(place, format!("{text:?} {rule}")))
}

fn sha256(place: &str, text: &str) -> Result<(), RecordError> {
    if text.len() == 64 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
        return Ok(());
    }
    Err(wrong(place, format!("{text:?} is no SHA-256 in lower-case hex")))
}

/// Checks everything, in the order of the file.
pub(super) fn check(record: &Record) -> Result<(), RecordError> {
    let Record { schema, kernel, environment, suite, by, cases } = record;
    if *schema == 0 {
        return Err(wrong("schema", "there is no schema 0"));
    }
    head(kernel, environment, suite)?;
    if let Some(by) = by {
        text("by", by)?;
    }
    if cases.len() > CASES {
        return Err(wrong("cases", format!("{} of them, more than {CASES}", cases.len())));
    }
    match cases.iter().find(|(id, _)| !is_case_id(id)) {
        Some((id, _)) => Err(wrong("cases", format!("{id:?} is no case id"))),
        None => Ok(()),
    }
}

/// Checks what a file says of kernel, place and program, in the order of the file.
pub(crate) fn head(
    kernel: &Kernel,
    environment: &Environment,
    suite: &Suite,
) -> Result<(), RecordError> {
    KernelVersion::parse(&kernel.upstream)?;
    name("kernel.upstream", &kernel.upstream)?;
    name("kernel.release", &kernel.release)?;
    text("kernel.version", &kernel.version)?;
    name("kernel.machine", &kernel.machine)?;
    if let Some(package) = &kernel.package {
        name("kernel.package.name", &package.name)?;
        text("kernel.package.version", &package.version)?;
        sha256("kernel.package.sha256", &package.sha256)?;
    }
    if let Some(hash) = &kernel.image_sha256 {
        sha256("kernel.image_sha256", hash)?;
    }
    for (place, most, n) in [
        ("kernel.config", SETTINGS, kernel.config.len()),
        ("environment.sysctls", SETTINGS, environment.sysctls.len()),
        ("environment.uffd_features", SETTINGS, environment.uffd_features.len()),
    ] {
        if n > most {
            return Err(wrong(place, format!("{n} of them, more than {most}")));
        }
    }
    name("environment.accelerator", &environment.accelerator)?;
    name("environment.uffd", &environment.uffd)?;
    text("environment.append", &environment.append)?;
    for (place, map) in
        [("kernel.config", &kernel.config), ("environment.sysctls", &environment.sysctls)]
    {
        for (key, value) in map {
            text(place, key)?;
            text(&format!("{place}.{key}"), value)?;
        }
    }
    for (n, feature) in environment.uffd_features.iter().enumerate() {
        name(&format!("environment.uffd_features[{n}]"), feature)?;
    }
    name("suite.version", &suite.version)?;
    name("suite.revision", &suite.revision)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("copy/a", true)]
    #[case("copy/a[x=1]", true)]
    #[case("copy/a[x=1,y=A_b.c+2:3/4]", true)]
    #[case("copy/a[]", false)]
    #[case("copy/a[x=1", false)]
    #[case("copy/a[x]", false)]
    #[case("copy/a[x=1,]", false)]
    #[case("copy/a[x=[1]]", false)]
    #[case("copy", false)]
    #[case("/a", false)]
    #[case("copy/a/b", false)]
    #[case("Copy/a", false)]
    #[case("", false)]
    fn ids(#[case] id: &str, #[case] ok: bool) {
        assert_eq!(is_case_id(id), ok);
    }

    #[rstest]
    #[case("6.12.43+deb13-amd64", true)]
    #[case("../6.12", false)]
    #[case(".6", false)]
    #[case("a/b", false)]
    #[case("a\u{1b}", false)]
    #[case("", false)]
    fn names(#[case] text: &str, #[case] ok: bool) {
        assert_eq!(is_name(text), ok);
    }
}
