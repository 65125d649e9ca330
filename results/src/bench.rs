//! What operations have cost on one kernel: the file, its types, and what a reader takes from a file that
//! anybody may have written.
//!
//! Kept apart from records: a record says what a kernel does and is the same on every machine, a cost is
//! not. Costs in instructions were counted by an emulator and repeat; costs in nanoseconds are one
//! machine's. A file holds one of the two, so that they are never mixed.

use crate::plain::printable;
use crate::record::{self, Environment, Kernel, RecordError, Suite, is_case_id};
use crate::version::{KernelVersion, VersionError};
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::fmt;
use std::fmt::Write as _;

/// The format version that this crate writes.
pub const SCHEMA: u32 = 1;
/// Bytes of the largest file that is read; one of ours has less than 60 KB.
pub const LARGEST: usize = 1 << 20;
/// Operations of a file.
const OPERATIONS: usize = 2000;

/// What costs are counted in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unit {
    /// Instructions that an emulated CPU has executed, those of the kernel and of the program.
    Instructions,
    /// Time on a CPU.
    Nanoseconds,
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Instructions => "instructions",
            Self::Nanoseconds => "nanoseconds",
        })
    }
}

/// Costs of one call each, in the file's unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// How many calls were measured.
    pub count: u64,
    /// The least.
    pub min: u64,
    /// Half of the calls cost no more.
    pub p50: u64,
    /// 99 of 100 calls cost no more.
    pub p99: u64,
}

/// How many times its limit an operation costs: both were measured in turns, and each turn gives a ratio
/// of medians.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ratio {
    /// The lower end of the interval that holds the true median with 99 % certainty.
    pub low: f64,
    /// The median of the turns.
    pub mid: f64,
    /// The upper end.
    pub high: f64,
}

impl Ratio {
    /// Whether the interval holds a value.
    pub fn holds(&self, value: f64) -> bool {
        (self.low..=self.high).contains(&value)
    }
}

/// One operation and what it has cost, or why that is not known.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Operation {
    /// Its name, formed as a case's id: `copy/anon[size=4k]`.
    pub id: String,
    /// Pages of 4 KiB that one call is about; 0 where they don't count.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub pages: u64,
    /// Whether several threads take part, whose order is the scheduler's.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub several: bool,
    /// What it costs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sample: Option<Sample>,
    /// The id of the operation that does the same without userfaultfd, or the part of it that can't be
    /// avoided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<String>,
    /// What the limit has cost, in turns with the operation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit_sample: Option<Sample>,
    /// Why the limit could not be measured, if it could not: the word of an outcome.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit_missing: Option<String>,
    /// The operation's cost in limits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ratio: Option<Ratio>,
    /// Why there is no sample, beginning with the word of an outcome: `unsupported: …`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing: Option<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
const fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// Everything that was measured on one kernel in one run.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Measured {
    /// Format version, at most [`SCHEMA`].
    pub schema: u32,
    /// Which kernel.
    pub kernel: Kernel,
    /// Where and how: `native`, `tcg` or `kvm`.
    pub environment: Environment,
    /// The program that measured.
    pub suite: Suite,
    /// What costs are counted in.
    pub unit: Unit,
    /// The CPU by its own name, where times depend on it; empty for instructions.
    #[serde(default)]
    pub cpu: String,
    /// In how many turns operation and limit were measured.
    pub rounds: u32,
    /// The operations, in the order of the program.
    pub operations: Vec<Operation>,
}

/// Why a text holds no costs.
#[derive(Debug, thiserror::Error)]
pub enum MeasuredError {
    /// Not JSON, cut short, or not of this schema.
    #[error("no costs of operations: {}", printable(&.0.to_string()))]
    Json(#[from] serde_json::Error),
    /// It says what can't be, or passes a limit.
    #[error("no costs of operations: {}: {}", printable(.place), printable(.what))]
    Wrong {
        /// Line and column, or the way to the member.
        place: String,
        /// What is wrong there.
        what: String,
    },
    /// Written by a newer program.
    #[error("the costs have schema {0}, this program reads up to {SCHEMA}: use a newer one")]
    Schema(u32),
}

fn wrong(place: impl Into<String>, what: impl Into<String>) -> MeasuredError {
    MeasuredError::Wrong { place: place.into(), what: what.into() }
}

impl From<RecordError> for MeasuredError {
    fn from(error: RecordError) -> Self {
        match error {
            RecordError::Json(e) => Self::Json(e),
            RecordError::Wrong { place, what } => Self::Wrong { place, what },
            RecordError::Schema(n) => Self::Schema(n),
            RecordError::Large => wrong("the file", format!("more than {LARGEST} bytes")),
            RecordError::Version(e) => wrong("kernel.upstream", e.to_string()),
        }
    }
}

impl Measured {
    /// Reads the bytes of a file that anybody may have written.
    pub fn read(bytes: &[u8]) -> Result<Self, MeasuredError> {
        if bytes.len() > LARGEST {
            return Err(RecordError::Large.into());
        }
        let text = str::from_utf8(bytes)
            .map_err(|e| wrong(format!("byte {}", e.valid_up_to()), "not UTF-8"))?;
        Self::parse(text)
    }

    /// Reads a text and checks what the types don't.
    pub fn parse(json: &str) -> Result<Self, MeasuredError> {
        /// Read first, so that a newer schema is named as such and not as an unknown field.
        #[derive(Deserialize)]
        struct Head {
            schema: u32,
        }
        record::check_limits(json)?;
        let Head { schema } = serde_json::from_str(json)?;
        if schema > SCHEMA {
            return Err(MeasuredError::Schema(schema));
        }
        let measured: Self = serde_json::from_str(json)?;
        measured.check()?;
        Ok(measured)
    }

    fn check(&self) -> Result<(), MeasuredError> {
        if self.schema == 0 {
            return Err(wrong("schema", "there is no schema 0"));
        }
        record::check_head(&self.kernel, &self.environment, &self.suite)?;
        record::check_text("cpu", &self.cpu)?;
        let emulated = self.environment.accelerator == "tcg";
        if emulated != (self.unit == Unit::Instructions) {
            let (unit, how) = (self.unit, &self.environment.accelerator);
            return Err(wrong("unit", format!("{unit} of a kernel that ran by {how}")));
        }
        if self.operations.len() > OPERATIONS {
            return Err(wrong("operations", format!("more than {OPERATIONS} of them")));
        }
        let mut ids = HashSet::new();
        for operation in &self.operations {
            operation.check()?;
            if !ids.insert(&operation.id) {
                return Err(wrong("operations", format!("{:?} stands twice", operation.id)));
            }
        }
        Ok(())
    }

    /// The kernel's upstream version.
    pub fn upstream(&self) -> Result<KernelVersion, VersionError> {
        KernelVersion::parse(&self.kernel.upstream)
    }

    /// An operation by its id.
    pub fn operation(&self, id: &str) -> Option<&Operation> {
        self.operations.iter().find(|operation| operation.id == id)
    }

    /// The file's text, a line an operation: equal costs give equal bytes.
    pub fn to_json(&self) -> String {
        let Self { schema, kernel, environment, suite, unit, cpu, rounds, operations } = self;
        let mut out = format!("{{\n\"schema\": {schema},\n");
        record::section(&mut out, "kernel", kernel);
        record::section(&mut out, "environment", environment);
        record::section(&mut out, "suite", suite);
        record::section(&mut out, "unit", unit);
        record::section(&mut out, "cpu", cpu);
        record::section(&mut out, "rounds", rounds);
        out.push_str("\"operations\": [");
        for (n, operation) in operations.iter().enumerate() {
            let line = serde_json::to_string(operation)
                .unwrap_or_else(|e| unreachable!("plain data serializes: {e}"));
            let _ = write!(out, "{}\n{line}", if n == 0 { "" } else { "," });
        }
        out.push_str("\n]\n}\n");
        out
    }
}

impl Operation {
    /// What one call costs at best: the value that repeats.
    pub fn best(&self) -> Option<u64> {
        self.sample.map(|sample| sample.min)
    }

    fn check(&self) -> Result<(), MeasuredError> {
        let Self { id, sample, limit, limit_sample, limit_missing, ratio, missing, .. } = self;
        for id in std::iter::once(id).chain(limit) {
            if !is_case_id(id) {
                return Err(wrong("operations", format!("{id:?} is no operation's id")));
            }
        }
        if sample.is_some() == missing.is_some() {
            return Err(wrong(id, "either a sample or why there is none"));
        }
        for why in [missing, limit_missing].into_iter().flatten() {
            record::check_text(id, why)?;
        }
        for sample in [sample, limit_sample].into_iter().flatten() {
            if sample.count == 0 || sample.min > sample.p50 || sample.p50 > sample.p99 {
                return Err(wrong(id, "a sample of nothing, or out of order"));
            }
        }
        if ratio.is_some() && (sample.is_none() || limit_sample.is_none()) {
            return Err(wrong(id, "a ratio of something that was not measured"));
        }
        match ratio {
            Some(Ratio { low, mid, high }) if !(0.0 <= *low && low <= mid && mid <= high) => {
                Err(wrong(id, "a ratio outside of its interval"))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::{fixture, rstest};

    #[fixture]
    fn measured() -> Measured {
        let sample = Sample { count: 320, min: 3000, p50: 3010, p99: 9000 };
        let operation = |id: &str| Operation {
            id: id.into(),
            pages: 1,
            several: false,
            sample: Some(sample),
            limit: Some("limit/populate[size=4k]".into()),
            limit_sample: Some(Sample { count: 320, min: 1500, p50: 1505, p99: 8000 }),
            limit_missing: None,
            ratio: Some(Ratio { low: 1.99, mid: 2.0, high: 2.01 }),
            missing: None,
        };
        let lacking = Operation {
            sample: None,
            limit_sample: None,
            ratio: None,
            missing: Some("unsupported: UFFDIO_MOVE".into()),
            ..operation("move/anon[size=4k]")
        };
        let record::Record { mut kernel, environment, suite, .. } =
            crate::dataset::tests::record(0);
        kernel.upstream = "6.12.43".into();
        kernel.release = "6.12.43+deb13-cloud-amd64".into();
        Measured {
            schema: SCHEMA,
            kernel,
            environment,
            suite,
            unit: Unit::Instructions,
            cpu: String::new(),
            rounds: 5,
            operations: vec![operation("copy/anon[size=4k]"), lacking],
        }
    }

    #[rstest]
    fn file_round_trips_with_a_line_an_operation(measured: Measured) {
        let text = measured.to_json();
        assert!(text.contains("\n{\"id\":\"move/anon[size=4k]\""), "{text}");
        let read = Measured::read(text.as_bytes()).expect("own output");
        assert_eq!(read, measured);
        assert_eq!(read.to_json(), text);
    }

    #[rstest]
    fn every_truncation_is_refused(measured: Measured) {
        let text = measured.to_json();
        for cut in 0..text.trim_end().len() {
            if let Some(short) = text.get(..cut) {
                assert!(Measured::parse(short).is_err(), "cut at {cut}");
            }
        }
    }

    #[rstest]
    #[case("\"schema\": 1", "\"schema\": 2", "use a newer one")]
    #[case("\"schema\": 1", "\"schema\": 0", "no schema 0")]
    #[case("\"instructions\"", "\"nanoseconds\"", "nanoseconds of a kernel that ran by tcg")]
    #[case("\"tcg\"", "\"native\"", "instructions of a kernel that ran by native")]
    #[case("6.12.43+deb13-cloud-amd64", "../../6.12.43", "kernel.release: ")]
    #[case("\"6.12.43\"", "\"new\"", "kernel.upstream")]
    #[case("#1 SMP", "\\u001b[2J", "kernel.version: ")]
    #[case("move/anon[size=4k]", "move/<b>", "is no operation's id")]
    #[case("move/anon[size=4k]", "copy/anon[size=4k]", "stands twice")]
    #[case("\"min\":3000", "\"min\":3011", "out of order")]
    #[case("\"count\":320,\"min\":3000", "\"count\":0,\"min\":3000", "sample of nothing")]
    #[case("\"low\":1.99", "\"low\":2.5", "outside of its interval")]
    #[case("\"low\":1.99", "\"low\":-1.0", "outside of its interval")]
    #[case("unsupported: UFFDIO_MOVE", "\\u202e", "can't be shown")]
    #[case("\"missing\"", "\"absent\"", "why there is none")]
    #[case("\"missing\":\"unsupported: UFFDIO_MOVE\"", "\"several\":true", "why there is none")]
    #[case("\"cpu\": \"\"", "\"cpu\": [[[[[[[[[]]]]]]]]]", "nested more than 8 deep")]
    fn wrong_costs_are_refused(
        measured: Measured,
        #[case] from: &str,
        #[case] to: &str,
        #[case] message: &str,
    ) {
        let text = measured.to_json();
        assert!(text.contains(from), "{from} is nowhere in {text}");
        let error = Measured::parse(&text.replace(from, to)).expect_err("refused");
        assert!(error.to_string().contains(message), "{error}");
    }

    #[rstest]
    fn too_much_is_refused(mut measured: Measured) {
        let one = measured.operations[0].clone();
        let id = |n| format!("copy/anon[size={n}]");
        measured.operations =
            (0..=OPERATIONS).map(|n| Operation { id: id(n), ..one.clone() }).collect();
        let error = Measured::parse(&measured.to_json()).expect_err("refused").to_string();
        assert!(error.contains("more than 2000"), "{error}");
        let error = Measured::read(&vec![b' '; LARGEST + 1]).expect_err("refused").to_string();
        assert!(error.contains("bytes"), "{error}");
    }
}
