//! Any bytes as a filter or the name of a kernel.
#![no_main]

uffd_fuzz::target!("filter");
