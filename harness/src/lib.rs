//! How the questions are run, judged, recorded and shown.
//!
//! The binary `uffd-conform` is a thin shell around this library. Belongs here: processes, VMs,
//! kernel packages, files, output. Does not belong here: what is asked (`uffd-suites`) and how a
//! record is written (`uffd-results`).
pub mod vm;
