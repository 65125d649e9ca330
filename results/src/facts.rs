//! Facts: named observed values, in the order in which they were seen.

use std::borrow::Cow;
use std::fmt;

/// One named observed value, for example `copy=ENOENT` or `waiter=asleep`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Fact {
    /// Lower-case words joined by `-`.
    pub name: Cow<'static, str>,
    /// Printable ASCII without white space.
    pub value: String,
}

/// The facts of one case, in the order of observation; names are unique.
///
/// Written as `name=value` words with one space between them; this text is what records hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Facts(Vec<Fact>);

/// Why a text is not a list of facts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FactsError {
    /// A word without `=`, or with an empty side.
    #[error("{0:?} is not of the form name=value")]
    NotAPair(String),
    /// A name or value with a character that the format does not allow.
    #[error("{0:?} holds a character that facts do not allow")]
    Charset(String),
    /// The same name twice.
    #[error("the fact {0:?} is given twice")]
    Duplicate(String),
    /// More than any case has.
    #[error("more than {MOST} facts")]
    Many,
}

/// Facts of one case that are read.
const MOST: usize = 64;

fn name_ok(name: &str) -> bool {
    name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

fn value_ok(value: &str) -> bool {
    value.bytes().all(|b| b.is_ascii_graphic())
}

impl Facts {
    /// No facts.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Adds a fact.
    ///
    /// # Panics
    /// If the name was used before or a character is not allowed: the probe that does so is wrong.
    pub fn set(&mut self, name: &'static str, value: impl fmt::Display) {
        let value = value.to_string();
        assert!(self.get(name).is_none(), "fact {name:?} observed twice");
        assert!(name != "end", "the fact `end` is how a case ended");
        assert!(!name.is_empty() && name_ok(name), "fact name {name:?} is not lower-case words");
        assert!(!value.is_empty() && value_ok(&value), "fact {name}={value:?} is not one word");
        self.0.push(Fact { name: Cow::Borrowed(name), value });
    }

    /// The value of a fact, if it was observed.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|f| f.name == name).map(|f| f.value.as_str())
    }

    /// The facts in order of observation.
    pub fn iter(&self) -> impl Iterator<Item = &Fact> {
        self.0.iter()
    }

    /// Whether nothing was observed.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Reads the text form.
    pub fn parse(text: &str) -> Result<Self, FactsError> {
        let mut facts = Self::new();
        for word in text.split_ascii_whitespace() {
            let (name, value) = word
                .split_once('=')
                .filter(|(n, v)| !n.is_empty() && !v.is_empty())
                .ok_or_else(|| FactsError::NotAPair(word.to_owned()))?;
            if !name_ok(name) || !value_ok(value) {
                return Err(FactsError::Charset(word.to_owned()));
            }
            if facts.get(name).is_some() {
                return Err(FactsError::Duplicate(name.to_owned()));
            }
            if facts.0.len() == MOST {
                return Err(FactsError::Many);
            }
            facts.0.push(Fact { name: Cow::Owned(name.to_owned()), value: value.to_owned() });
        }
        Ok(facts)
    }
}

impl fmt::Display for Facts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, Fact { name, value }) in self.0.iter().enumerate() {
            let gap = if i == 0 { "" } else { " " };
            write!(f, "{gap}{name}={value}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[test]
    fn text_form_round_trips() {
        let mut facts = Facts::new();
        facts.set("copy", "ENOENT");
        facts.set("field", -2);
        assert_eq!(facts.to_string(), "copy=ENOENT field=-2");
        assert_eq!(Facts::parse("copy=ENOENT field=-2"), Ok(facts));
    }

    #[rstest]
    #[case("copy", FactsError::NotAPair("copy".into()))]
    #[case("copy=", FactsError::NotAPair("copy=".into()))]
    #[case("=1", FactsError::NotAPair("=1".into()))]
    #[case("Copy=1", FactsError::Charset("Copy=1".into()))]
    #[case("a=\u{1b}[2J", FactsError::Charset("a=\u{1b}[2J".into()))]
    #[case("a=1 a=2", FactsError::Duplicate("a".into()))]
    fn refuses_what_is_no_fact(#[case] text: &str, #[case] error: FactsError) {
        assert_eq!(Facts::parse(text), Err(error));
    }

    #[test]
    #[should_panic(expected = "observed twice")]
    fn a_fact_is_observed_once() {
        let mut facts = Facts::new();
        facts.set("copy", 0);
        facts.set("copy", 1);
    }
}
