//! What Linux kernels do to userfaultfd when memory mappings change: recorded facts, and how to look
//! them up for a kernel.
//!
//! Belongs here: the record schema, the recorded data in compact form, release strings, lookups,
//! statements over kernels, contracts of programs. Does not belong here: asking a kernel anything.
//! This crate makes no system call, does no I/O and has no `unsafe`, so that migration code can
//! depend on it anywhere. Without the feature `data` it holds no records, only what reads them.
//!
//! ```
//! # #[cfg(feature = "data")] {
//! use uffd_results::{Dataset, Release};
//! // Does UNREGISTER of a block whose middle was replaced free the thread that waits there?
//! let case = "unregister/mmap-over[backing=anon,part=middle,over=anon,waiter=user-read,msg=read]";
//! let answer = Dataset::recorded().fact(case, "waiter", &Release::parse("6.1.0-47-amd64")?);
//! assert_eq!(answer.value, Some("asleep"));
//! # }
//! # Ok::<(), uffd_results::ReleaseError>(())
//! ```
#![forbid(unsafe_code)]

pub mod bench;

mod contract;
#[cfg(feature = "data")]
mod data;
mod dataset;
mod facts;
mod lookup;
mod outcome;
mod pattern;
mod plain;
mod record;
mod release;
mod support;
mod verdict;
mod version;

pub use contract::{Assumption, Bound, Breach, Breaks, Contract, Kept, Need, SHARED, Share};
#[cfg(feature = "data")]
pub use data::contracts;
pub use dataset::{
    Apart, Case, DataError, Dataset, NONE, ProbeCases, Question, Reason, Recorded, is_answer,
};
pub use facts::{Fact, Facts, FactsError};
pub use lookup::{Answer, Certainty, Why};
pub use outcome::{End, Outcome, OutcomeError};
pub use pattern::{glob, id_matches};
pub use plain::{is_plain, printable, printable_lines};
pub use record::{
    Cases, Environment, Kernel, LARGEST, LONGEST_TEXT, Package, Record, RecordError, SCHEMA, Suite,
    holds, is_case_id,
};
pub use release::{Level, Origin, Release, ReleaseError};
pub use support::{CLAIMS, Extent, Group, Held, Run, Statement, Support};
pub use verdict::Verdict;
pub use version::{KernelVersion, VersionError};
