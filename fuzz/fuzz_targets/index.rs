//! Any bytes as an index of packages or a lock file.
#![no_main]

uffd_fuzz::target!("index");
