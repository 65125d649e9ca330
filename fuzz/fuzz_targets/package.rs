//! Any bytes as members of a package or a packed module.
#![no_main]

uffd_fuzz::target!("package");
