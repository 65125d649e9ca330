//! Any bytes as a record.
#![no_main]

uffd_fuzz::target!("record");
