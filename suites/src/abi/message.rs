//! What is read from a userfaultfd: faults and events with their payload.

use nix::errno::Errno;
use userfaultfd_sys as sys;

/// A message read from a userfaultfd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// A thread waits for the page at `address`.
    Pagefault {
        /// Faulting address; page-aligned unless EXACT_ADDRESS was asked for.
        address: usize,
        /// See [`super::fault`].
        flags: u64,
        /// The faulting thread with FEATURE_THREAD_ID, else 0.
        tid: u32,
    },
    /// The process has forked.
    Fork {
        /// The descriptor of the child's context, new in the reader; the reader's to close.
        fd: u32,
    },
    /// Memory has moved.
    Remap {
        /// Where it was.
        from: usize,
        /// Where it is.
        to: usize,
        /// Length in bytes.
        len: usize,
    },
    /// Pages are about to be discarded.
    Remove {
        /// First byte.
        start: usize,
        /// The first byte behind.
        end: usize,
    },
    /// Memory was unmapped.
    Unmap {
        /// First byte.
        start: usize,
        /// The first byte behind.
        end: usize,
    },
    /// Any other event, by its number.
    Other(u8),
}

impl Message {
    /// Reads the 32 bytes of `struct uffd_msg`.
    pub(super) fn parse(raw: &[u8; size_of::<sys::uffd_msg>()]) -> Result<Self, Errno> {
        let address = |n: u64| usize::try_from(n).map_err(|_| Errno::EOVERFLOW);
        // SAFETY: uffd_msg is plain data of exactly this size, and the kernel has filled it.
        let msg: sys::uffd_msg = unsafe { std::ptr::read_unaligned(raw.as_ptr().cast()) };
        // SAFETY: the event says which member of the union the kernel has filled; all are plain
        // numbers.
        unsafe {
            Ok(match msg.event {
                sys::UFFD_EVENT_PAGEFAULT => {
                    let fault = msg.arg.pagefault;
                    let tid = fault.feat.ptid;
                    Self::Pagefault { address: address(fault.address)?, flags: fault.flags, tid }
                }
                sys::UFFD_EVENT_FORK => Self::Fork { fd: msg.arg.fork.ufd },
                sys::UFFD_EVENT_REMAP => {
                    let remap = msg.arg.remap;
                    let (from, to) = (address(remap.from)?, address(remap.to)?);
                    Self::Remap { from, to, len: address(remap.len)? }
                }
                sys::UFFD_EVENT_REMOVE => {
                    let remove = msg.arg.remove;
                    Self::Remove { start: address(remove.start)?, end: address(remove.end)? }
                }
                sys::UFFD_EVENT_UNMAP => {
                    let unmap = msg.arg.remove;
                    Self::Unmap { start: address(unmap.start)?, end: address(unmap.end)? }
                }
                other => Self::Other(other),
            })
        }
    }

    /// Reads a message that the kernel has put at `address`, in memory of the arena.
    pub fn at(address: usize) -> Result<Self, Errno> {
        let mut raw = [0; size_of::<sys::uffd_msg>()];
        for (n, bytes) in raw.chunks_exact_mut(8).enumerate() {
            let word = crate::touch::load(address + n * 8).map_err(|_| Errno::EFAULT)?;
            bytes.copy_from_slice(&word.to_ne_bytes());
        }
        Self::parse(&raw)
    }

    /// The event's number.
    pub const fn number(self) -> u8 {
        match self {
            Self::Pagefault { .. } => sys::UFFD_EVENT_PAGEFAULT,
            Self::Fork { .. } => sys::UFFD_EVENT_FORK,
            Self::Remap { .. } => sys::UFFD_EVENT_REMAP,
            Self::Remove { .. } => sys::UFFD_EVENT_REMOVE,
            Self::Unmap { .. } => sys::UFFD_EVENT_UNMAP,
            Self::Other(number) => number,
        }
    }
}

/// The word for an event's number.
pub fn event_name(number: u8) -> String {
    match number {
        sys::UFFD_EVENT_PAGEFAULT => "pagefault".into(),
        sys::UFFD_EVENT_FORK => "fork".into(),
        sys::UFFD_EVENT_REMAP => "remap".into(),
        sys::UFFD_EVENT_REMOVE => "remove".into(),
        sys::UFFD_EVENT_UNMAP => "unmap".into(),
        other => format!("event:{other}"),
    }
}
