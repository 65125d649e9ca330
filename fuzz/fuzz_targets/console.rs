//! Any bytes as the console of a guest.
#![no_main]

uffd_fuzz::target!("console");
