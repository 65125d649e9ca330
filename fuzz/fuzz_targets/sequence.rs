//! Any bytes as a sequence of the explorer.
#![no_main]

uffd_fuzz::target!("sequence");
