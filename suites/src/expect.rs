//! Expectations: which facts a case should show, and who says so.
//!
//! A source that names a function of fs/userfaultfd.c is about kernels of 7.2 and newer as well: they have it, under
//! the same name, in mm/userfaultfd.c.

use std::borrow::Cow;

/// One expected fact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    /// The fact's name.
    pub fact: &'static str,
    /// The value; `?` stands for any one character, `|` stands between alternatives that the
    /// kernel's configuration decides between.
    pub value: Cow<'static, str>,
    /// Man page, kernel document, commit or function; or [`OBSERVED`].
    pub source: &'static str,
}

/// The source of an expectation that no document backs.
pub const OBSERVED: &str = "observed only";

impl Expected {
    /// An expected fact.
    pub fn new(
        fact: &'static str,
        value: impl Into<Cow<'static, str>>,
        source: &'static str,
    ) -> Self {
        Self { fact, value: value.into(), source }
    }

    /// Whether a seen value is as expected.
    pub fn matches(&self, seen: &str) -> bool {
        let fits = |value: &str| {
            seen.len() == value.len()
                && seen.bytes().zip(value.bytes()).all(|(s, e)| e == b'?' || s == e)
        };
        self.value.split('|').any(fits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("??c?", "--c-", true)]
    #[case("??c?", "--k-", false)]
    #[case("??c?", "--c", false)]
    #[case("ENOENT", "ENOENT", true)]
    #[case("0", "-17", false)]
    #[case("BUS_ADRERR|EFAULT", "EFAULT", true)]
    #[case("BUS_ADRERR|EFAULT", "BUS_ADRERR|EFAULT", false)]
    fn a_question_mark_is_any_character(#[case] value: &str, #[case] seen: &str, #[case] ok: bool) {
        assert_eq!(Expected::new("x", value.to_owned(), OBSERVED).matches(seen), ok);
    }
}
