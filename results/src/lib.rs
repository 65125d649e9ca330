//! What is known: the record of what a kernel did, and the words it is written in.
//!
//! Belongs here: the record schema, facts, outcomes, verdict names, kernel version strings. Does
//! not belong here: asking a kernel anything. This crate makes no system call and has no `unsafe`,
//! so that migration code can depend on it anywhere.
#![forbid(unsafe_code)]

mod facts;
mod outcome;
mod record;
mod verdict;
mod version;

pub use facts::{Fact, Facts, FactsError};
pub use outcome::{End, Outcome, OutcomeError};
pub use record::{Cases, Environment, Kernel, Package, Record, RecordError, SCHEMA, Suite};
pub use verdict::Verdict;
pub use version::{KernelVersion, VersionError};
