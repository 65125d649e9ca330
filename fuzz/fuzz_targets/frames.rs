//! Any bytes as frames of a guest.
#![no_main]

uffd_fuzz::target!("frames");
