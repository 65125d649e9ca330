//! The outcomes of a record, and how its file writes them: per probe, the axes of the cases under
//! what they have shown.

use crate::outcome::Outcome;
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize as DeriveDeserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::fmt::{self, Write as _};
use std::sync::Arc;

/// What the cases of a probe have shown: each outcome with the axes of its cases.
type Shown<'a> = Vec<(&'a Outcome, Vec<&'a str>)>;

/// The outcomes by case id. Cases that a file names under one outcome share it: a short file can't
/// grow in memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cases(BTreeMap<String, Arc<Outcome>>);

impl Cases {
    /// Outcomes with their ids.
    ///
    /// # Panics
    /// If an id is given twice: the registry promises that ids are unique.
    pub fn new(cases: Vec<(String, Outcome)>) -> Self {
        let mut map = BTreeMap::new();
        for (id, outcome) in cases {
            assert!(!map.contains_key(&id), "case {id} given twice");
            map.insert(id, Arc::new(outcome));
        }
        Self(map)
    }

    /// The outcome of a case.
    pub fn get(&self, id: &str) -> Option<&Outcome> {
        self.0.get(id).map(AsRef::as_ref)
    }

    /// The outcomes in the order of their ids.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Outcome)> {
        self.0.iter().map(|(id, outcome)| (id.as_str(), outcome.as_ref()))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The cases by probe, in the order of its first case, each with its outcomes in the order of their first case.
    /// Ids of a probe need not be neighbours: one without axes stands before the others, and `a-b` between `a` and
    /// `a[x=1]`.
    fn groups(&self) -> Vec<(&str, Shown<'_>)> {
        let mut probes: Vec<(&str, Shown<'_>)> = Vec::new();
        let mut known: HashMap<&str, usize> = HashMap::new();
        let mut places: HashMap<(usize, &Outcome), usize> = HashMap::new();
        for (id, outcome) in self.iter() {
            let (probe, axes) = split_id(id);
            let of = *known.entry(probe).or_insert_with(|| {
                probes.push((probe, Vec::new()));
                probes.len() - 1
            });
            let (_, groups) = &mut probes[of];
            let at = *places.entry((of, outcome)).or_insert_with(|| {
                groups.push((outcome, Vec::new()));
                groups.len() - 1
            });
            groups[at].1.push(axes);
        }
        probes
    }

    /// Writes the file's member `cases`, without a comma behind it.
    pub(super) fn write(&self, out: &mut String) {
        out.push_str("\"cases\": {");
        for (i, (probe, groups)) in self.groups().into_iter().enumerate() {
            let _ = write!(out, "{}\n{}: [", if i == 0 { "" } else { "," }, json(probe));
            for (i, (outcome, cases)) in groups.into_iter().enumerate() {
                let comma = if i == 0 { "" } else { "," };
                let _ = write!(out, "{comma}\n {{\"outcome\": {}, \"cases\": [", json(outcome));
                for (i, axes) in cases.into_iter().enumerate() {
                    let _ = write!(out, "{}\n  {}", if i == 0 { "" } else { "," }, json(axes));
                }
                out.push_str("]}");
            }
            out.push(']');
        }
        out.push_str("}\n");
    }
}

/// Splits `probe[axes]` into `probe` and `axes`.
pub(crate) fn split_id(id: &str) -> (&str, &str) {
    match id.split_once('[') {
        Some((probe, rest)) => (probe, rest.strip_suffix(']').unwrap_or(rest)),
        None => (id, ""),
    }
}

/// The reverse of [`split_id`].
pub(crate) fn join_id(probe: &str, axes: &str) -> String {
    if axes.is_empty() { probe.to_owned() } else { format!("{probe}[{axes}]") }
}

fn json<T: Serialize + ?Sized>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_else(|e| unreachable!("plain data serializes: {e}"))
}

impl<'de> Deserialize<'de> for Cases {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Probes;
        impl<'de> Visitor<'de> for Probes {
            type Value = Cases;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of probes")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Cases, A::Error> {
                let mut cases = BTreeMap::new();
                while let Some((probe, OfProbe(axes))) = map.next_entry::<String, OfProbe>()? {
                    for (axes, outcome) in axes {
                        let id = join_id(&probe, &axes);
                        if cases.contains_key(&id) {
                            return Err(A::Error::custom(format_args!("case {id} stands twice")));
                        }
                        cases.insert(id, outcome);
                    }
                }
                Ok(Cases(cases))
            }
        }
        deserializer.deserialize_map(Probes)
    }
}

/// What the cases of one probe have shown.
struct OfProbe(Vec<(String, Arc<Outcome>)>);

/// Cases that have shown the same.
#[derive(DeriveDeserialize)]
#[serde(deny_unknown_fields)]
struct Group {
    outcome: Outcome,
    cases: Vec<String>,
}

impl<'de> Deserialize<'de> for OfProbe {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Axes;
        impl<'de> Visitor<'de> for Axes {
            type Value = OfProbe;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array of outcomes with their cases")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<OfProbe, A::Error> {
                let mut cases = Vec::new();
                while let Some(Group { outcome, cases: axes }) = seq.next_element()? {
                    let outcome = Arc::new(outcome);
                    cases.extend(axes.into_iter().map(|axes| (axes, Arc::clone(&outcome))));
                }
                Ok(OfProbe(cases))
            }

            /// Schema 1.
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<OfProbe, A::Error> {
                let mut cases = Vec::new();
                while let Some((axes, outcome)) = map.next_entry()? {
                    cases.push((axes, Arc::new(outcome)));
                }
                Ok(OfProbe(cases))
            }
        }
        deserializer.deserialize_any(Axes)
    }
}
