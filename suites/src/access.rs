//! The ways in which a waiter touches the page that it then waits for.
//!
//! Whatever an access needs is made before the mapping changes; the access itself is one
//! instruction or one system call.

use crate::abi::Range;
use crate::direct::Storage;
use crate::memory::{BLOCK, tag};
use crate::outcome::Stop;
use crate::point::{PAGES, Waiter as Kind};
use crate::stage::Stage;
use crate::touch::{self, Signal};
use crate::vcpu::Vcpu;
use crate::withheld;
use nix::errno::Errno;
use nix::unistd::{Pid, getpid};
use std::fmt;
use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;

/// How an access ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// It was done; the value seen, for a load.
    Ran(Option<u64>),
    /// It got a signal.
    Signal(Signal),
    /// The system call failed.
    Failed(Errno),
    /// A vCPU left its guest for a reason that the guest does not give.
    Exit(u32),
}

impl Access {
    const fn errno(self) -> Option<Errno> {
        if let Self::Failed(errno) = self { Some(errno) } else { None }
    }
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ran(None) => f.write_str("ran"),
            Self::Ran(Some(value)) => write!(f, "ran:{}", crate::waiter::content(*value)),
            Self::Signal(signal) => signal.fmt(f),
            Self::Failed(errno) => write!(f, "{errno:?}"),
            Self::Exit(reason) => write!(f, "exit:{reason}"),
        }
    }
}

/// An access that is ready to be made.
#[derive(Debug)]
pub struct Accessor {
    kind: Kind,
    page: Range,
    pipe: Option<(OwnedFd, OwnedFd)>,
    mem: Option<File>,
    vcpu: Option<Vcpu>,
    storage: Option<Storage>,
}

impl Accessor {
    /// Makes what an access of this kind to `page` needs; not for [`Kind::None`].
    pub fn new(stage: &Stage, kind: Kind, page: Range) -> Result<Self, Stop> {
        let fail = |what: &str, e: Errno| Stop::Broken(format!("{what} for the waiter: {e:?}"));
        let pipe = match kind {
            Kind::SysRead | Kind::SysWrite => {
                let pipe = nix::unistd::pipe().map_err(|e| fail("a pipe", e))?;
                if kind == Kind::SysRead {
                    let data = tag::WROTE.to_ne_bytes();
                    nix::unistd::write(&pipe.1, &data).map_err(|e| fail("write", e))?;
                }
                Some(pipe)
            }
            _ => None,
        };
        let mem = match kind {
            Kind::MemRead | Kind::MemWrite => {
                let mem = File::options().read(true).write(true).open("/proc/self/mem");
                Some(mem.map_err(|e| Stop::Broken(format!("opening /proc/self/mem: {e}")))?)
            }
            _ => None,
        };
        let vcpu = match kind.vcpu() {
            // The block is the guest's memory from the page on.
            Some(access) => {
                let block = Range { start: BLOCK, len: PAGES * page.len };
                Some(Vcpu::new(stage, page.start, access, block)?)
            }
            None => None,
        };
        let storage = if kind.is_direct() { Some(Storage::new(stage)?) } else { None };
        if let (Kind::DirectRead, Some(storage)) = (kind, &storage) {
            storage.fill(tag::WROTE).map_err(|e| fail("writing with O_DIRECT", e))?;
        }
        Ok(Self { kind, page, pipe, mem, vcpu, storage })
    }

    /// Makes the access.
    pub fn go(&self) -> Access {
        let Self { kind, page, pipe, mem, vcpu, storage } = self;
        if let Some(vcpu) = vcpu {
            return vcpu.run().into();
        }
        if let Some(mem) = mem {
            return through(mem, page.start as u64, *kind == Kind::MemWrite);
        }
        if let Some(storage) = storage {
            let done = match kind {
                Kind::DirectRead => storage.read_into(*page).map(|()| None),
                _ => storage.write_from(*page).and_then(|()| storage.value()).map(Some),
            };
            return done.map_or_else(Access::Failed, Access::Ran);
        }
        let at = page.start as *mut libc::c_void;
        match (kind, pipe) {
            (Kind::UserRead, _) => {
                touch::load(page.start).map_or_else(Access::Signal, |v| Access::Ran(Some(v)))
            }
            (Kind::UserWrite, _) => touch::store(page.start, tag::WROTE)
                .map_or_else(Access::Signal, |()| Access::Ran(None)),
            (Kind::SysRead, Some(pipe)) => {
                // SAFETY: the kernel checks the buffer; it lies in the arena, where Rust keeps
                // nothing.
                ended(unsafe { libc::read(pipe.0.as_raw_fd(), at, 8) })
            }
            (Kind::SysWrite, Some(pipe)) => {
                // SAFETY: as above; the kernel only reads.
                let n = unsafe { libc::write(pipe.1.as_raw_fd(), at, 8) };
                if n < 0 {
                    return Access::Failed(Errno::last());
                }
                let mut value = [0; 8];
                match nix::unistd::read(&pipe.0, &mut value) {
                    Ok(_) => Access::Ran(Some(u64::from_ne_bytes(value))),
                    Err(e) => Access::Failed(e),
                }
            }
            (Kind::VmRead, _) => remote_read(getpid(), page.start),
            (Kind::VmWrite, _) => remote_write(getpid(), page.start),
            (Kind::PopulateRead, _) => advise(*page, libc::MADV_POPULATE_READ),
            (Kind::PopulateWrite, _) => advise(*page, libc::MADV_POPULATE_WRITE),
            (Kind::Mlock, _) => {
                // SAFETY: locks memory of the arena; changes no content.
                let done = ended(unsafe { libc::mlock(at, page.len) } as isize);
                withheld::locking(done.errno());
                done
            }
            (Kind::Futex, _) => futex(*page),
            (
                Kind::None
                | Kind::SysRead
                | Kind::SysWrite
                | Kind::DirectRead
                | Kind::DirectWrite
                | Kind::VcpuRead
                | Kind::VcpuWrite
                | Kind::VcpuFetch
                | Kind::MemRead
                | Kind::MemWrite,
                _,
            ) => Access::Ran(None),
        }
    }
}

/// The end of a system call that returns -1 when it fails.
fn ended(ret: isize) -> Access {
    if ret < 0 { Access::Failed(Errno::last()) } else { Access::Ran(None) }
}

fn advise(page: Range, advice: i32) -> Access {
    // SAFETY: populates memory of the arena, where Rust keeps nothing.
    ended(unsafe { libc::madvise(page.start as *mut _, page.len, advice) } as isize)
}

/// process_vm_readv(2) of a process: get_user_pages() of the page.
pub(crate) fn remote_read(pid: Pid, address: usize) -> Access {
    let mut value = 0_u64;
    let local = libc::iovec { iov_base: (&raw mut value).cast(), iov_len: 8 };
    let remote = libc::iovec { iov_base: address as *mut _, iov_len: 8 };
    // SAFETY: `local` describes `value`; the remote side is only read.
    let n = unsafe {
        libc::process_vm_readv(pid.as_raw(), &raw const local, 1, &raw const remote, 1, 0)
    };
    reached(if n < 0 { Access::Failed(Errno::last()) } else { Access::Ran(Some(value)) })
}

fn reached(ended: Access) -> Access {
    withheld::reaching(ended.errno());
    ended
}

/// process_vm_writev(2) of a tag to a process's page, which lies in its arena.
pub(crate) fn remote_write(pid: Pid, address: usize) -> Access {
    let mut value = tag::WROTE;
    let local = libc::iovec { iov_base: (&raw mut value).cast(), iov_len: 8 };
    let remote = libc::iovec { iov_base: address as *mut _, iov_len: 8 };
    // SAFETY: `local` describes `value`, which is only read; the remote side lies in the arena.
    reached(ended(unsafe {
        libc::process_vm_writev(pid.as_raw(), &raw const local, 1, &raw const remote, 1, 0)
    }))
}

/// An access by way of /proc/self/mem.
fn through(mem: &File, at: u64, writes: bool) -> Access {
    let mut value = tag::WROTE.to_ne_bytes();
    let done = if writes { mem.write_at(&value, at) } else { mem.read_at(&mut value, at) };
    match done {
        Ok(0) => Access::Failed(Errno::EIO),
        Ok(_) if writes => Access::Ran(None),
        Ok(_) => Access::Ran(Some(u64::from_ne_bytes(value))),
        Err(e) => Access::Failed(Errno::from_raw(e.raw_os_error().unwrap_or(0))),
    }
}

/// FUTEX_WAIT for a value that no page of ours begins with: the kernel loads from the page, sees
/// another value and returns EAGAIN.
fn futex(page: Range) -> Access {
    let never = 0x7e7e_7e7e_u32;
    // SAFETY: the kernel only loads from the page; there is no timeout, and the value never fits.
    let ret = unsafe {
        libc::syscall(
            libc::SYS_futex,
            page.start,
            libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG,
            never,
            std::ptr::null::<libc::timespec>(),
        )
    };
    match Errno::result(ret) {
        Ok(_) | Err(Errno::EAGAIN) => Access::Ran(None),
        Err(e) => Access::Failed(e),
    }
}
