//! Outcomes: how a case ended, with the facts it saw until then.

use crate::dataset::NONE;
use crate::facts::{Facts, FactsError};
use crate::plain::is_plain;
use serde::de::{Deserialize, Deserializer, Error as _};
use serde::ser::{Serialize, SerializeStruct, Serializer};
use std::fmt;

/// How a case ended. Only [`End::Done`] carries a complete set of facts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum End {
    /// The case ran to its end.
    Done,
    /// An operation that should have ended did not within the deadline.
    Hang,
    /// The case's process died of a signal it should not get.
    Killed,
    /// This kernel lacks the feature.
    Unsupported,
    /// The caller may not do this here (capability, sysctl, device mode).
    Denied,
    /// This machine lacks what the case needs (huge pages, a file system).
    Precondition,
    /// Repetitions on the same kernel disagree.
    Flaky,
    /// The kernel went down during the case.
    Panic,
    /// The harness or the case itself is wrong; nothing is said about the kernel.
    Broken,
    /// The case was not run.
    NotRun,
}

impl End {
    /// Every end, in the order of the enumeration.
    pub const ALL: [Self; 10] = [
        Self::Done,
        Self::Hang,
        Self::Killed,
        Self::Unsupported,
        Self::Denied,
        Self::Precondition,
        Self::Flaky,
        Self::Panic,
        Self::Broken,
        Self::NotRun,
    ];

    /// The word used in records.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Hang => "hang",
            Self::Killed => "killed",
            Self::Unsupported => "unsupported",
            Self::Denied => "denied",
            Self::Precondition => "precondition",
            Self::Flaky => "flaky",
            Self::Panic => "panic",
            Self::Broken => "broken",
            Self::NotRun => "not-run",
        }
    }

    /// The end that `word` names.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|end| end.word() == word)
    }
}

/// What one case on one kernel ended with.
///
/// In JSON a finished case is the text of its facts; any other is an object with `end`, `detail`
/// and, where some were seen, `facts`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Outcome {
    /// How it ended.
    pub end: End,
    /// Why, in one line of printable text; empty for [`End::Done`].
    pub detail: String,
    /// What was seen until then.
    pub facts: Facts,
}

/// Why a value is not an outcome.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OutcomeError {
    /// The word is not an end.
    #[error("{0:?} is no way for a case to end")]
    Word(String),
    /// The facts can't be read.
    #[error(transparent)]
    Facts(#[from] FactsError),
}

impl Outcome {
    /// A case that ran to its end.
    pub fn done(facts: Facts) -> Self {
        Self { end: End::Done, detail: String::new(), facts }
    }

    /// A case that ended in any other way; what can't be shown in `detail` becomes a space.
    pub fn ended(end: End, detail: impl fmt::Display, facts: Facts) -> Self {
        let detail = detail.to_string().replace(|c: char| !is_plain(c), " ");
        Self { end, detail, facts }
    }

    /// The value of a fact, [`NONE`] if it was not observed. The fact `end` is how the case ended.
    pub fn value(&self, fact: &str) -> &str {
        if fact == "end" { self.end.word() } else { self.facts.get(fact).unwrap_or(NONE) }
    }

    /// The first fact in which two outcomes differ, `end` if they ended in different ways. Facts
    /// stand in the order of cause and effect: what differs behind it follows from it.
    pub fn first_difference<'a>(&'a self, other: &'a Self) -> Option<&'a str> {
        if self.end != other.end {
            return Some("end");
        }
        let names = self.facts.iter().chain(other.facts.iter()).map(|fact| fact.name.as_ref());
        names.into_iter().find(|name| self.facts.get(name) != other.facts.get(name))
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { end, detail, facts } = self;
        if *end == End::Done {
            return write!(f, "{facts}");
        }
        write!(f, "{} ({detail})", end.word())?;
        if !facts.is_empty() {
            write!(f, " after {facts}")?;
        }
        Ok(())
    }
}

impl Serialize for Outcome {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { end, detail, facts } = self;
        if *end == End::Done {
            return serializer.collect_str(facts);
        }
        let with_facts = !facts.is_empty();
        let mut s = serializer.serialize_struct("Outcome", 2 + usize::from(with_facts))?;
        s.serialize_field("end", end.word())?;
        s.serialize_field("detail", detail)?;
        if with_facts {
            s.serialize_field("facts", &facts.to_string())?;
        }
        s.end()
    }
}

impl<'de> Deserialize<'de> for Outcome {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Outcome;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text of facts, or an object with end, detail and facts")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Outcome, E> {
                Facts::parse(text).map(Outcome::done).map_err(E::custom)
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(
                self,
                mut map: A,
            ) -> Result<Outcome, A::Error> {
                let (mut end, mut detail, mut facts) = (None, String::new(), Facts::new());
                let mut keys = Vec::new();
                while let Some(key) = map.next_key::<String>()? {
                    if keys.contains(&key) {
                        return Err(A::Error::custom(format_args!("{key:?} stands twice")));
                    }
                    let value: String = map.next_value()?;
                    keys.push(key.clone());
                    match key.as_str() {
                        "end" => {
                            let word = End::from_word(&value);
                            end = Some(
                                word.ok_or(OutcomeError::Word(value)).map_err(A::Error::custom)?,
                            );
                        }
                        "detail" => detail = value,
                        "facts" => facts = Facts::parse(&value).map_err(A::Error::custom)?,
                        other => {
                            return Err(A::Error::unknown_field(
                                other,
                                &["end", "detail", "facts"],
                            ));
                        }
                    }
                }
                let end = end.ok_or_else(|| A::Error::missing_field("end"))?;
                if end == End::Done && !detail.is_empty() {
                    return Err(A::Error::custom("a case that is done has no need of a detail"));
                }
                Ok(Outcome::ended(end, detail, facts))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn facts() -> Facts {
        Facts::parse("copy=0 field=4096").expect("facts of this test")
    }

    #[rstest]
    #[case(Outcome::done(facts()), r#""copy=0 field=4096""#)]
    #[case(
        Outcome::ended(End::Hang, "during copy", facts()),
        r#"{"end":"hang","detail":"during copy","facts":"copy=0 field=4096"}"#
    )]
    #[case(
        Outcome::ended(End::Precondition, "no 2 MiB\npages", Facts::new()),
        r#"{"end":"precondition","detail":"no 2 MiB pages"}"#
    )]
    fn json_round_trips(#[case] outcome: Outcome, #[case] json: &str) {
        assert_eq!(serde_json::to_string(&outcome).expect("serializes"), json);
        assert_eq!(serde_json::from_str::<Outcome>(json).expect("parses"), outcome);
    }

    #[rstest]
    #[case(r#"{"end":"exploded","detail":""}"#, "no way for a case to end")]
    #[case(r#"{"detail":"x"}"#, "missing field `end`")]
    #[case(r#"{"end":"hang","why":"x"}"#, "unknown field `why`")]
    #[case(r#""copy""#, "not of the form")]
    #[case("7", "a text of facts")]
    fn refuses_other_json(#[case] json: &str, #[case] message: &str) {
        let error = serde_json::from_str::<Outcome>(json).expect_err("refused").to_string();
        assert!(error.contains(message), "{error}");
    }

    #[test]
    fn every_end_has_its_own_word() {
        for end in End::ALL {
            assert_eq!(End::from_word(end.word()), Some(end));
        }
    }
}
