//! The command `uffd-conform`.

fn main() {}
