//! Any bytes as an rpm package's head or a cpio archive.
#![no_main]

uffd_fuzz::target!("rpm");
