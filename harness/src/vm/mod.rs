//! A kernel in a VM: from a boot image and a list of cases to one outcome a case.
//!
//! Host side: `initramfs` packs this very program as PID 1, `qemu` starts the machine, `console` reads
//! what the kernel says, `session` boots as often as it takes until every case has its outcome, `share`
//! has several machines work on one plan, `accel` decides between KVM and emulation. Guest side:
//! `guest` is PID 1, `wire` is its way out. Both sides: `plan` (what goes in) and `frame` (what comes
//! out). Does not belong here: what a case does, and where kernels come from.

pub mod accel;
mod console;
mod cpio;
mod error;
pub(crate) mod foreign;
mod frame;
pub mod guest;
mod image;
mod initramfs;
mod machine;
mod plan;
mod prepare;
mod qemu;
mod session;
#[cfg(test)]
mod session_tests;
mod share;
mod watch;
mod wire;

pub use crate::interrupt::Interrupted;
pub use error::VmError;
pub use frame::Hello;
pub use plan::Plan;
pub use qemu::version as qemu_version;
pub use session::{Complaint, Event, Limits, Lost, Options, SessionReport, run_vm};
