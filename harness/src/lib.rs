//! How the questions are run, judged, recorded and shown.
//!
//! The binary `uffd-conform` is a thin shell around this library. Belongs here: processes, VMs,
//! kernel packages, files, output. Does not belong here: what is asked (`uffd-suites`) and how a
//! record is written (`uffd-results`).

use uffd_suites::bump::Bump;

#[global_allocator]
static ALLOCATOR: Bump = Bump;

pub mod arch;
mod ask;
pub mod bench;
mod bytes;
mod children;
pub mod cli;
pub mod contracts;
pub mod coverage;
pub mod diff;
pub mod environment;
mod explore;
pub mod export;
mod files;
pub mod filter;
#[cfg(test)]
mod flips;
pub mod foreign;
pub mod import;
mod interrupt;
mod journal;
pub mod judge;
pub mod kernels;
pub mod known;
pub mod lint;
pub mod notes;
mod patience;
mod query;
pub mod recipes;
pub mod report;
pub mod runner;
mod scratch;
pub mod site;
pub mod store;
pub mod toml_file;
pub mod vm;
