//! io_uring, as far as a waiter needs it: a ring for a few requests of one page each.
//!
//! The ring is mapped where the kernel places it when it is made. One thread at a time submits; the
//! completion may be taken by another.

use super::{Range, Rc};
use nix::errno::Errno;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicU32, Ordering};

const ENTRIES: u32 = 4;
/// `IORING_FEAT_SINGLE_MMAP` (5.4): both queues are one mapping.
const FEAT_SINGLE_MMAP: u32 = 1;
const ENTER_GETEVENTS: u32 = 1;
const ENTER_SQ_WAKEUP: u32 = 2;
const OFF_RINGS: i64 = 0;
const OFF_ENTRIES: i64 = 0x1000_0000;
const REGISTER_BUFFERS: u32 = 0;
const REGISTER_FILES: u32 = 2;

/// `IORING_SETUP_SQPOLL`: a thread of the kernel submits.
pub const SETUP_SQPOLL: u32 = 2;
/// `IOSQE_FIXED_FILE`: the descriptor is an index into the registered ones.
pub const FIXED_FILE: u8 = 1;
/// `IOSQE_ASYNC`: a worker performs the request from the start.
pub const ASYNC: u8 = 1 << 4;

/// `IORING_OP_READ_FIXED`.
pub const READ_FIXED: u8 = 4;
/// `IORING_OP_READ`.
pub const READ: u8 = 22;
/// `IORING_OP_WRITE`.
pub const WRITE: u8 = 23;

/// `struct io_sqring_offsets`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct SubmitOffsets {
    head: u32,
    tail: u32,
    ring_mask: u32,
    ring_entries: u32,
    flags: u32,
    dropped: u32,
    array: u32,
    reserved: u32,
    user_addr: u64,
}

/// `struct io_cqring_offsets`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct CompleteOffsets {
    head: u32,
    tail: u32,
    ring_mask: u32,
    ring_entries: u32,
    overflow: u32,
    entries: u32,
    flags: u32,
    reserved: u32,
    user_addr: u64,
}

/// `struct io_uring_params`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct Params {
    sq_entries: u32,
    cq_entries: u32,
    flags: u32,
    thread_cpu: u32,
    thread_idle: u32,
    features: u32,
    wq_fd: u32,
    reserved: [u32; 3],
    submit: SubmitOffsets,
    complete: CompleteOffsets,
}

/// A request for one buffer.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    /// What to do: [`READ`], [`WRITE`], [`READ_FIXED`].
    pub opcode: u8,
    /// [`ASYNC`], [`FIXED_FILE`].
    pub flags: u8,
    /// The file, or its index.
    pub fd: RawFd,
    /// The buffer.
    pub buffer: Range,
}

/// `struct io_uring_sqe`.
#[repr(C)]
struct Entry {
    opcode: u8,
    flags: u8,
    priority: u16,
    fd: RawFd,
    offset: u64,
    address: u64,
    len: u32,
    operation_flags: u32,
    user_data: u64,
    registered_buffer: u16,
    personality: u16,
    splice_fd: i32,
    padding: [u64; 2],
}

const _: () = {
    assert!(size_of::<Params>() == 120);
    assert!(size_of::<Entry>() == 64);
};

/// A ring that is not mapped: nothing can be submitted, but pages be pinned.
#[derive(Debug)]
pub struct Instance {
    fd: OwnedFd,
    params: Params,
}

impl Instance {
    /// Makes one, with flags of io_uring_setup(2).
    pub fn new(flags: u32) -> Result<Self, Errno> {
        let mut params = Params { flags, ..Params::default() };
        // SAFETY: the kernel fills the struct, which has the size that it expects.
        let ret = unsafe { libc::syscall(libc::SYS_io_uring_setup, ENTRIES, &raw mut params) };
        let raw = i32::try_from(Errno::result(ret)?).map_err(|_| Errno::EBADF)?;
        // SAFETY: the kernel has just handed out this descriptor; nobody else owns it.
        Ok(Self { fd: unsafe { OwnedFd::from_raw_fd(raw) }, params })
    }

    /// Its descriptor, which is then the caller's to close.
    pub fn into_fd(self) -> RawFd {
        self.fd.into_raw_fd()
    }

    fn register(&self, opcode: u32, argument: usize, count: u32) -> Rc {
        let fd = self.fd.as_raw_fd();
        // SAFETY: the argument is an array of `count` that lives through the call.
        Rc::of(unsafe { libc::syscall(libc::SYS_io_uring_register, fd, opcode, argument, count) })
    }

    /// `IORING_REGISTER_BUFFERS` of one buffer, whose pages are pinned.
    pub fn register_buffer(&self, range: Range) -> Rc {
        self.register_buffers(&[range])
    }

    /// The same of several; a ring takes buffers once.
    pub fn register_buffers(&self, ranges: &[Range]) -> Rc {
        let vector =
            |range: &Range| libc::iovec { iov_base: range.start as *mut _, iov_len: range.len };
        let vectors: Vec<_> = ranges.iter().map(vector).collect();
        let count = u32::try_from(vectors.len()).unwrap_or(u32::MAX);
        self.register(REGISTER_BUFFERS, vectors.as_ptr() as usize, count)
    }

    /// `IORING_REGISTER_FILES` of one descriptor.
    pub fn register_file(&self, fd: RawFd) -> Rc {
        self.register(REGISTER_FILES, (&raw const fd) as usize, 1)
    }
}

/// A ring.
#[derive(Debug)]
pub struct Ring {
    instance: Instance,
    rings: usize,
    requests: usize,
}

impl Ring {
    /// Makes one, with flags of io_uring_setup(2).
    pub fn new(flags: u32) -> Result<Self, Errno> {
        let instance = Instance::new(flags)?;
        let Instance { fd, params } = &instance;
        if params.features & FEAT_SINGLE_MMAP == 0 {
            return Err(Errno::ENOSYS);
        }
        let submit = params.submit.array as usize + params.sq_entries as usize * 4;
        let complete = params.complete.entries as usize + params.cq_entries as usize * 16;
        let rings = map(fd, submit.max(complete), OFF_RINGS)?;
        let len = params.sq_entries as usize * size_of::<Entry>();
        let requests = map(fd, len, OFF_ENTRIES)?;
        Ok(Self { instance, rings, requests })
    }

    /// The ring as one that registers.
    pub const fn instance(&self) -> &Instance {
        &self.instance
    }

    /// A counter of the rings.
    fn word(&self, offset: u32) -> &AtomicU32 {
        // SAFETY: the kernel's offsets lie within the mapping, which lives as long as the process, and
        // are aligned; both sides access the word atomically.
        unsafe { &*((self.rings + offset as usize) as *const AtomicU32) }
    }

    /// Puts a request into the queue.
    pub fn push(&self, request: Request) {
        let Request { opcode, flags, fd, buffer } = request;
        let entry = Entry {
            opcode,
            flags,
            priority: 0,
            fd,
            offset: 0,
            address: buffer.start as u64,
            len: u32::try_from(buffer.len).unwrap_or(0),
            operation_flags: 0,
            user_data: 0,
            registered_buffer: 0,
            personality: 0,
            splice_fd: 0,
            padding: [0; 2],
        };
        let submit = &self.instance.params.submit;
        let tail = self.word(submit.tail).load(Ordering::Relaxed);
        let slot = tail & (self.instance.params.sq_entries - 1);
        // SAFETY: the slot is within the mapping of the requests, and the kernel does not look at it
        // before the tail has moved.
        unsafe { (self.requests as *mut Entry).add(slot as usize).write(entry) };
        self.word(submit.array + slot * 4).store(slot, Ordering::Relaxed);
        self.word(submit.tail).store(tail.wrapping_add(1), Ordering::Release);
    }

    fn enter(&self, submit: u32, complete: u32) -> Result<(), Errno> {
        let flags = ENTER_GETEVENTS | ENTER_SQ_WAKEUP;
        // SAFETY: takes plain numbers; what the kernel stores to is what the requests name, which their
        // maker answers for.
        let ret = unsafe {
            libc::syscall(
                libc::SYS_io_uring_enter,
                self.instance.fd.as_raw_fd(),
                submit,
                complete,
                flags,
                0_usize,
                0_usize,
            )
        };
        Errno::result(ret).map(drop)
    }

    /// Submits what is in the queue and waits for a completion: its result. EINTR also where a signal
    /// has ended the waiting and the request goes on.
    pub fn submit_and_wait(&self) -> Result<i32, Errno> {
        let submit = &self.instance.params.submit;
        let head = self.word(submit.head).load(Ordering::Acquire);
        let count = self.word(submit.tail).load(Ordering::Relaxed).wrapping_sub(head);
        let entered = self.enter(count, 1);
        // A signal that comes after the submission ends the call with what was submitted.
        self.take().unwrap_or(entered.and(Err(Errno::EINTR)))
    }

    /// The oldest completion, if there is one; it is taken.
    pub fn take(&self) -> Option<Result<i32, Errno>> {
        let complete = &self.instance.params.complete;
        let head = self.word(complete.head).load(Ordering::Relaxed);
        if head == self.word(complete.tail).load(Ordering::Acquire) {
            return None;
        }
        let slot = head & (self.instance.params.cq_entries - 1);
        let result = self.word(complete.entries + slot * 16 + 8).load(Ordering::Relaxed);
        self.word(complete.head).store(head.wrapping_add(1), Ordering::Release);
        let result = result.cast_signed();
        Some(if result < 0 { Err(Errno::from_raw(-result)) } else { Ok(result) })
    }
}

/// Maps a part of a ring, at an address that the kernel chooses; never unmapped.
fn map(fd: &OwnedFd, len: usize, offset: i64) -> Result<usize, Errno> {
    let flags = libc::MAP_SHARED | libc::MAP_POPULATE;
    // SAFETY: a fresh mapping.
    let at = unsafe {
        libc::mmap(std::ptr::null_mut(), len, crate::memory::RW, flags, fd.as_raw_fd(), offset)
    };
    if at == libc::MAP_FAILED { Err(Errno::last()) } else { Ok(at as usize) }
}
