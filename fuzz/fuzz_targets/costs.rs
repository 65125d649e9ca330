//! Any bytes as costs of operations.
#![no_main]

uffd_fuzz::target!("costs");
