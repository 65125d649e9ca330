//! Any bytes as release strings and versions.
#![no_main]

uffd_fuzz::target!("release");
