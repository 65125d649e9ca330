//! What a session needs of a machine. QEMU is one; the tests of the session have another.

use super::error::VmError;
use super::plan::Plan;
use std::io;

/// Starts machines with a given kernel.
pub(super) trait Launcher {
    /// Starts a machine that will work on `plan`, after `barren` machines in a row that brought
    /// nothing new.
    fn launch(&mut self, plan: &Plan, barren: u32) -> Result<Box<dyn Machine>, VmError>;
}

/// A running machine; stopped when dropped.
pub(super) trait Machine {
    /// Appends what came on the console and on the wire since the last call, without waiting.
    /// Returns what is known of the end, once the machine is gone: nothing will come then.
    fn poll(&mut self, console: &mut Vec<u8>, frames: &mut Vec<u8>) -> io::Result<Option<Ending>>;
}

/// The end of a machine, as its host sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ending {
    /// In words.
    pub(super) how: String,
    /// Whether the guest has turned the machine off, or reset it. Otherwise what runs the machine has
    /// failed or was killed, and nothing is said of the guest.
    pub(super) by_guest: bool,
}
