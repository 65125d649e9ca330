//! x
pub(crate) const SUITE: &str = "vcpu";
