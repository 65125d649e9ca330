//! Any bytes as a boot image or a packed kernel.
#![no_main]

uffd_fuzz::target!("image");
