//! Any bytes as facts or an outcome.
#![no_main]

uffd_fuzz::target!("outcome");
