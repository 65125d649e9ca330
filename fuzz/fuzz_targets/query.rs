//! Any bytes as an expression of `query`.
#![no_main]

uffd_fuzz::target!("query");
