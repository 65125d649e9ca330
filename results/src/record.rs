//! The record of one run on one kernel: identity, environment, suite revision, every case.
//!
//! On disk it is JSON with a line a case under what the case has shown, so that two records compare
//! well in a diff. A reader refuses a record whose `schema` is newer than its own; schema 1, in
//! which each case had its outcome beside it, is still read. The number grows where an older reader
//! would take something for what it is not; a member that may be missing and that it can do without,
//! such as `by`, does not change it.
//!
//! A record may come from anybody: what is read here has passed `limits` and `check`, so that its
//! texts can be printed and its names can name files.

mod cases;
mod check;
mod foreign;
mod limits;

pub use cases::Cases;
pub(crate) use cases::{join_id, split_id};
pub use check::{LONGEST_TEXT, is_case_id};
pub(crate) use check::{head as check_head, text as check_text};
pub use foreign::holds;
pub use limits::LARGEST;

use crate::plain::printable;

use crate::version::KernelVersion;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// The format version that this crate writes.
pub const SCHEMA: u32 = 2;

/// Which kernel was asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Package {
    /// Package name.
    pub name: String,
    /// Package version.
    pub version: String,
    /// SHA-256 of the package file, lower-case hex.
    pub sha256: String,
}

/// Where and how the kernel was asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
    /// Words that somebody has added to the kernel's command line; empty for what this project's records are
    /// made with.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub append: String,
    /// Settings of the kernel that facts can depend on.
    pub sysctls: BTreeMap<String, String>,
}

impl Environment {
    /// Under what the kernel was asked: the accelerator, and what was added to its command line.
    ///
    /// ```
    /// # fn shown(environment: &uffd_results::Environment) {
    /// println!("asked under {}", environment.how()); // asked under tcg with lru_gen=n
    /// # }
    /// ```
    pub fn how(&self) -> String {
        match self.append.as_str() {
            "" => self.accelerator.clone(),
            words => format!("{} with {words}", self.accelerator),
        }
    }
}

/// Which questions were asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Suite {
    /// Version of the suites crate.
    pub version: String,
    /// Hash of the suites' sources: equal revisions ask equal questions in the same way.
    pub revision: String,
}

/// Everything that one run on one kernel has shown.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Record {
    /// Format version, at most [`SCHEMA`].
    pub schema: u32,
    /// Which kernel.
    pub kernel: Kernel,
    /// Where and how.
    pub environment: Environment,
    /// Which questions.
    pub suite: Suite,
    /// Who gave it, or cases of it, if it was not made by a sweep of this project.
    #[serde(default)]
    pub by: Option<String>,
    /// The outcomes.
    pub cases: Cases,
}

/// Why a text is not a record.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// Not JSON, cut short, or not of this schema.
    #[error("not a record: {}", printable(&.0.to_string()))]
    Json(#[from] serde_json::Error),
    /// Larger than any record.
    #[error("not a record: it has more than {} MiB", LARGEST >> 20)]
    Large,
    /// JSON of this schema that says what can't be, or that passes a limit.
    #[error("not a record: {}: {}", printable(.place), printable(.what))]
    Wrong {
        /// Line and column, or the way to the member.
        place: String,
        /// What is wrong there.
        what: String,
    },
    /// Written by a newer program.
    #[error("the record has schema {0}, this program reads up to {SCHEMA}: use a newer one")]
    Schema(u32),
    /// No series can be derived.
    #[error("the record's kernel.upstream is wrong: {}", printable(&.0.to_string()))]
    Version(#[from] crate::version::VersionError),
}

impl Record {
    /// Reads a record and checks what the types don't.
    pub fn parse(json: &str) -> Result<Self, RecordError> {
        /// Read first, so that a newer schema is named as such and not as an unknown field.
        #[derive(Deserialize)]
        struct Head {
            schema: u32,
        }
        check_limits(json)?;
        let Head { schema } = serde_json::from_str(json)?;
        if schema > SCHEMA {
            return Err(RecordError::Schema(schema));
        }
        let record: Self = serde_json::from_str(json)?;
        check::check(&record)?;
        Ok(record)
    }

    /// The kernel's upstream version.
    pub fn upstream(&self) -> Result<KernelVersion, crate::version::VersionError> {
        KernelVersion::parse(&self.kernel.upstream)
    }

    /// The file's text: equal records give equal bytes.
    pub fn to_json(&self) -> String {
        let Self { schema, kernel, environment, suite, by, cases } = self;
        let mut out = format!("{{\n\"schema\": {schema},\n");
        section(&mut out, "kernel", kernel);
        section(&mut out, "environment", environment);
        section(&mut out, "suite", suite);
        if let Some(by) = by {
            section(&mut out, "by", by);
        }
        cases.write(&mut out);
        out.push_str("}\n");
        out
    }
}

/// Holds a text against the limits of every file that is read here.
pub(crate) fn check_limits(json: &str) -> Result<(), RecordError> {
    limits::check(json).map_err(|limits::Passed { place, what }| RecordError::Wrong { place, what })
}

/// Writes a member of a file's outermost object.
pub(crate) fn section<T: Serialize>(out: &mut String, name: &str, value: &T) {
    let text = serde_json::to_string_pretty(value)
        .unwrap_or_else(|e| unreachable!("plain data serializes: {e}"));
    let _ = writeln!(out, "\"{name}\": {text},");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::Facts;
    use crate::outcome::{End, Outcome};
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
                append: String::new(),
                sysctls: BTreeMap::new(),
            },
            suite: Suite { version: "0.1.0".into(), revision: "abc".into() },
            by: None,
            cases: Cases::new(vec![
                ("copy/a[x=1]".into(), Outcome::done(facts("copy=0"))),
                ("copy/a[x=2]".into(), Outcome::ended(End::Hang, "during copy", Facts::new())),
                ("copy/a[x=3]".into(), Outcome::done(facts("copy=0"))),
                ("wake/b".into(), Outcome::done(facts("wake=0"))),
            ]),
        }
    }

    #[rstest]
    fn file_round_trips_with_a_line_a_case(record: Record) {
        let text = record.to_json();
        let group = "{\"outcome\": \"copy=0\", \"cases\": [\n  \"x=1\",\n  \"x=3\"]}";
        assert!(text.contains(group), "{text}");
        let read = Record::parse(&text).expect("own output");
        assert_eq!(read, record);
        assert_eq!(read.to_json(), text);
    }

    #[rstest]
    fn schema_1_is_read(record: Record) {
        let old = "\"cases\": {\n\"copy/a\": {\n \"x=1\": \"copy=0\",\n \"x=2\": {\"end\":\"hang\",\"detail\":\
                   \"during copy\"},\n \"x=3\": \"copy=0\"\n},\n\"wake/b\": {\n \"\": \"wake=0\"\n}}\n}\n";
        let text = record.to_json();
        let head = text.split_once("\"cases\"").expect("cases").0;
        let read = Record::parse(&format!("{head}{old}")).expect("schema 1");
        assert_eq!(read.cases, record.cases);
    }

    #[rstest]
    fn who_gave_it_is_kept(mut record: Record) {
        assert!(!record.to_json().contains("\"by\""));
        record.by = Some("A. N. Other \"<b>\"".into());
        assert_eq!(holds(record.to_json().as_bytes()), Ok(Ok(record)));
    }

    #[rstest]
    fn another_command_line_is_kept_and_told(mut record: Record) {
        assert!(!record.to_json().contains("\"append\""));
        assert_eq!(record.environment.how(), "tcg");
        record.environment.append = "lru_gen=n".into();
        assert_eq!(record.environment.how(), "tcg with lru_gen=n");
        assert_eq!(holds(record.to_json().as_bytes()), Ok(Ok(record)));
    }

    #[rstest]
    fn limits_are_named_with_their_place(record: Record) {
        let text = record.to_json();
        let long = text.replace("#1 SMP", &"x".repeat(5000));
        let error = Record::parse(&long).expect_err("refused").to_string();
        assert!(error.contains("line 6 column") && error.contains("4096 bytes"), "{error}");
        let many = text.replace("\"EVENT_FORK\"", &"\"A\",".repeat(800_001));
        let error = Record::parse(&many).expect_err("refused").to_string();
        assert!(error.contains("more than 800000 strings"), "{error}");
        let error = Record::read(&vec![b' '; LARGEST + 1]).expect_err("refused").to_string();
        assert!(error.contains("more than 16 MiB"), "{error}");
        let error = Record::read(b"{\"schema\": \xff").expect_err("refused").to_string();
        assert!(error.contains("byte 11: not UTF-8"), "{error}");
    }

    /// A probe with and without axes, and another one between.
    #[rstest]
    fn a_probe_stands_once_wherever_its_ids_do(mut record: Record) {
        let ids = ["copy/a", "copy/a-b", "copy/a[x=1]"];
        let done = || Outcome::done(Facts::parse("copy=0").expect("facts"));
        record.cases = Cases::new(ids.map(|id| (id.to_owned(), done())).into());
        assert_eq!(record.to_json().matches("\"copy/a\": [").count(), 1);
        assert_eq!(holds(record.to_json().as_bytes()), Ok(Ok(record)));
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
    #[case("\"schema\": 2", "\"schema\": 3", "use a newer one")]
    #[case("\"x=2\"", "\"x=1\"", "stands twice")]
    #[case("\"6.12.43\"", "\"new\"", "kernel.upstream is wrong")]
    #[case("\"cpus\": 1", "\"cpus\": -1", "invalid value")]
    #[case("\"cpus\": 1", "\"cpus\": 1e999", "out of range")]
    #[case("\"schema\": 2", "\"schema\": 0", "no schema 0")]
    #[case("6.12.43+deb13-cloud-amd64", "../../6.12.43", "kernel.release: ")]
    #[case("\"x86_64\"", "\"x86/64\"", "kernel.machine: ")]
    #[case("#1 SMP", "\\u001b[2J", "kernel.version: ")]
    #[case("\"abc\"", "\"\\u202eabc\"", "suite.revision: ")]
    #[case("\"sysctls\"", "\"append\": \"\\u001b[2J\", \"sysctls\"", "environment.append: ")]
    #[case("wake/b", "wake/<b>", "cases: \"wake/<b>\"")]
    #[case("\"detail\":\"during copy\"", "\"end\":\"hang\",\"detail\":\"\"", "twice")]
    #[case("\"end\":\"hang\"", "\"end\":\"done\"", "a detail")]
    #[case("\"EVENT_FORK\"", "[[[[[[[[[]]]]]]]]]", "nested more than 8 deep")]
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
