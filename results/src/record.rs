//! The record of one run on one kernel: identity, environment, suite revision, every case.
//!
//! On disk it is JSON with a line a case, so that two records compare well in a diff. Fields are
//! only ever added; a reader refuses a record whose `schema` is newer than its own.

use crate::outcome::Outcome;
use crate::version::KernelVersion;
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};
use serde::{Deserialize as DeriveDeserialize, Serialize};
use std::collections::{BTreeMap, HashSet};
use std::fmt::{self, Write as _};

/// The format version that this crate writes.
pub const SCHEMA: u32 = 1;

/// Which kernel was asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, DeriveDeserialize)]
pub struct Kernel {
    /// Upstream version, for example `6.12.43`; what series and order are taken from.
    pub upstream: String,
    /// `uname -r`.
    pub release: String,
    /// `uname -v`.
    pub version: String,
    /// `uname -m`.
    pub machine: String,
    /// The package it came from, if it came from one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub package: Option<Package>,
    /// SHA-256 of the boot image, lower-case hex; unknown for a running kernel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_sha256: Option<String>,
    /// Configuration options that the suite's facts can depend on; empty where none was shipped.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub config: BTreeMap<String, String>,
}

/// A distribution package.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, DeriveDeserialize)]
pub struct Package {
    /// Package name.
    pub name: String,
    /// Package version.
    pub version: String,
    /// SHA-256 of the package file, lower-case hex.
    pub sha256: String,
}

/// Where and how the kernel was asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, DeriveDeserialize)]
pub struct Environment {
    /// `native`, or the accelerator of the VM: `tcg` or `kvm`.
    pub accelerator: String,
    /// CPUs that the kernel had.
    pub cpus: u32,
    /// Memory of the machine, in MiB; 0 if unknown.
    pub memory_mib: u64,
    /// Page size, in bytes.
    pub page_size: u64,
    /// Reserved 2 MiB huge pages.
    pub huge_pages_2m: u64,
    /// How the userfaultfds were made: `syscall`, `device` or `user-mode-only`.
    pub uffd: String,
    /// Features that `UFFDIO_API` offers, by their kernel names without the prefix.
    pub uffd_features: Vec<String>,
    /// Whether there was a /dev/kvm.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub kvm: bool,
    /// Settings of the kernel that facts can depend on.
    pub sysctls: BTreeMap<String, String>,
}

/// Which questions were asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, DeriveDeserialize)]
pub struct Suite {
    /// Version of the suites crate.
    pub version: String,
    /// Hash of the suites' sources: equal revisions ask equal questions in the same way.
    pub revision: String,
}

/// The outcomes, by case id, in the order of the registry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cases(Vec<(String, Outcome)>);

/// Everything that one run on one kernel has shown.
#[derive(Clone, Debug, PartialEq, Eq, DeriveDeserialize)]
pub struct Record {
    /// Format version, at most [`SCHEMA`].
    pub schema: u32,
    /// Which kernel.
    pub kernel: Kernel,
    /// Where and how.
    pub environment: Environment,
    /// Which questions.
    pub suite: Suite,
    /// The outcomes.
    pub cases: Cases,
}

/// Why a text is not a record.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// Not JSON, cut short, or not of this schema.
    #[error("not a record: {0}")]
    Json(#[from] serde_json::Error),
    /// Written by a newer program.
    #[error("the record has schema {0}, this program reads up to {SCHEMA}: use a newer one")]
    Schema(u32),
    /// No series can be derived.
    #[error("the record's kernel.upstream is wrong: {0}")]
    Version(#[from] crate::version::VersionError),
}

impl Cases {
    /// Outcomes in the given order.
    ///
    /// # Panics
    /// If an id is given twice: the registry promises that ids are unique.
    pub fn new(cases: Vec<(String, Outcome)>) -> Self {
        let mut seen = HashSet::new();
        for (id, _) in &cases {
            assert!(seen.insert(id.as_str()), "case {id} given twice");
        }
        Self(cases)
    }

    /// The outcome of a case.
    pub fn get(&self, id: &str) -> Option<&Outcome> {
        self.0.iter().find(|(i, _)| i == id).map(|(_, o)| o)
    }

    /// The outcomes in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Outcome)> {
        self.0.iter().map(|(id, outcome)| (id.as_str(), outcome))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Splits `probe[axes]` into `probe` and `axes`.
fn split_id(id: &str) -> (&str, &str) {
    match id.split_once('[') {
        Some((probe, rest)) => (probe, rest.strip_suffix(']').unwrap_or(rest)),
        None => (id, ""),
    }
}

fn join_id(probe: &str, axes: &str) -> String {
    if axes.is_empty() { probe.to_owned() } else { format!("{probe}[{axes}]") }
}

impl<'de> Deserialize<'de> for Cases {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Probes;
        impl<'de> Visitor<'de> for Probes {
            type Value = Cases;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of probes, each an object of cases")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Cases, A::Error> {
                let mut cases = Vec::new();
                let mut seen = HashSet::new();
                while let Some((probe, OfProbe(axes))) = map.next_entry::<String, OfProbe>()? {
                    for (axes, outcome) in axes {
                        let id = join_id(&probe, &axes);
                        if !seen.insert(id.clone()) {
                            return Err(A::Error::custom(format_args!("case {id} stands twice")));
                        }
                        cases.push((id, outcome));
                    }
                }
                Ok(Cases(cases))
            }
        }
        deserializer.deserialize_map(Probes)
    }
}

/// The cases of one probe, in the order of the file.
struct OfProbe(Vec<(String, Outcome)>);

impl<'de> Deserialize<'de> for OfProbe {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Axes;
        impl<'de> Visitor<'de> for Axes {
            type Value = OfProbe;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of cases")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<OfProbe, A::Error> {
                let mut cases = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    cases.push(entry);
                }
                Ok(OfProbe(cases))
            }
        }
        deserializer.deserialize_map(Axes)
    }
}

impl Record {
    /// Reads a record and checks what the types don't.
    pub fn parse(json: &str) -> Result<Self, RecordError> {
        /// Read first, so that a newer schema is named as such and not as an unknown field.
        #[derive(DeriveDeserialize)]
        struct Head {
            schema: u32,
        }
        let Head { schema } = serde_json::from_str(json)?;
        if schema > SCHEMA {
            return Err(RecordError::Schema(schema));
        }
        let record: Self = serde_json::from_str(json)?;
        record.upstream()?;
        Ok(record)
    }

    /// The kernel's upstream version.
    pub fn upstream(&self) -> Result<KernelVersion, crate::version::VersionError> {
        KernelVersion::parse(&self.kernel.upstream)
    }

    /// The file's text: equal records give equal bytes.
    pub fn to_json(&self) -> String {
        let Self { schema, kernel, environment, suite, cases } = self;
        let mut out = format!("{{\n\"schema\": {schema},\n");
        section(&mut out, "kernel", kernel);
        section(&mut out, "environment", environment);
        section(&mut out, "suite", suite);
        out.push_str("\"cases\": {");
        let mut current = None;
        for (id, outcome) in cases.iter() {
            let (probe, axes) = split_id(id);
            if current == Some(probe) {
                out.push(',');
            } else {
                if current.is_some() {
                    out.push_str("\n},");
                }
                current = Some(probe);
                let _ = write!(out, "\n{}: {{", json(&probe));
            }
            let _ = write!(out, "\n {}: {}", json(&axes), json(outcome));
        }
        if current.is_some() {
            out.push_str("\n}");
        }
        out.push_str("}\n}\n");
        out
    }
}

fn json<T: Serialize + ?Sized>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_else(|e| unreachable!("plain data serializes: {e}"))
}

fn section<T: Serialize>(out: &mut String, name: &str, value: &T) {
    let text = serde_json::to_string_pretty(value)
        .unwrap_or_else(|e| unreachable!("plain data serializes: {e}"));
    let _ = writeln!(out, "\"{name}\": {text},");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::Facts;
    use crate::outcome::End;
    use rstest::{fixture, rstest};

    #[fixture]
    fn record() -> Record {
        let facts = |t| Facts::parse(t).expect("facts of this test");
        Record {
            schema: SCHEMA,
            kernel: Kernel {
                upstream: "6.12.43".into(),
                release: "6.12.43+deb13-cloud-amd64".into(),
                version: "#1 SMP \"<b>\"".into(),
                machine: "x86_64".into(),
                package: None,
                image_sha256: None,
                config: BTreeMap::from([("USERFAULTFD".into(), "y".into())]),
            },
            environment: Environment {
                accelerator: "tcg".into(),
                cpus: 1,
                memory_mib: 1024,
                page_size: 4096,
                huge_pages_2m: 64,
                uffd: "syscall".into(),
                uffd_features: vec!["EVENT_FORK".into()],
                kvm: false,
                sysctls: BTreeMap::new(),
            },
            suite: Suite { version: "0.1.0".into(), revision: "abc".into() },
            cases: Cases::new(vec![
                ("copy/a[x=1]".into(), Outcome::done(facts("copy=0"))),
                ("copy/a[x=2]".into(), Outcome::ended(End::Hang, "during copy", Facts::new())),
                ("wake/b".into(), Outcome::done(facts("wake=0"))),
            ]),
        }
    }

    #[rstest]
    fn file_round_trips_with_a_line_a_case(record: Record) {
        let text = record.to_json();
        assert!(text.contains("\n \"x=1\": \"copy=0\",\n"), "{text}");
        let read = Record::parse(&text).expect("own output");
        assert_eq!(read, record);
        assert_eq!(read.to_json(), text);
    }

    #[rstest]
    fn an_empty_record_round_trips(mut record: Record) {
        record.cases = Cases::default();
        assert_eq!(Record::parse(&record.to_json()).expect("own output"), record);
    }

    #[rstest]
    fn every_truncation_is_refused(record: Record) {
        let text = record.to_json();
        for cut in 0..text.trim_end().len() {
            if let Some(short) = text.get(..cut) {
                assert!(Record::parse(short).is_err(), "cut at {cut}");
            }
        }
    }

    #[rstest]
    #[case("\"schema\": 1", "\"schema\": 2", "use a newer one")]
    #[case("\"x=2\"", "\"x=1\"", "stands twice")]
    #[case("\"6.12.43\"", "\"new\"", "kernel.upstream is wrong")]
    #[case("\"cpus\": 1", "\"cpus\": -1", "invalid value")]
    fn wrong_records_are_refused(
        record: Record,
        #[case] from: &str,
        #[case] to: &str,
        #[case] message: &str,
    ) {
        let error = Record::parse(&record.to_json().replace(from, to)).expect_err("refused");
        assert!(error.to_string().contains(message), "{error}");
    }
}
