//! Any bytes as the library's table.
#![no_main]

uffd_fuzz::target!("table");
