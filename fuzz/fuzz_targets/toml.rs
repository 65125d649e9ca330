//! Any bytes as a contract, notes or recipes.
#![no_main]

uffd_fuzz::target!("toml");
