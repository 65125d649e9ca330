//! The ground under the operations: memory that is laid out, CPUs, and the few system calls that nothing
//! else of the suites makes.

use crate::abi::{Range, Rc, Uffd};
use crate::memory::{self, PAGE, RW, guard};
use crate::outcome::Stop;
use crate::point::Backing;
use crate::stage::Stage;
use crate::touch;
use nix::errno::Errno;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::Pid;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// Stops with what was tried, unless it worked.
pub(super) fn must(what: &str, rc: Rc) -> Result<(), Stop> {
    match rc.0 {
        None => Ok(()),
        Some(Errno::ENOTTY) => Err(Stop::Unsupported(format!("{what}: ENOTTY"))),
        Some(errno) => Err(Stop::Broken(format!("{what}: {errno:?}"))),
    }
}

/// Memory of the arena that an operation works on; unmapped when dropped.
#[derive(Debug)]
pub(super) struct Ground {
    pub(super) range: Range,
    pub(super) backing: Backing,
    pub(super) file: Option<OwnedFd>,
}

impl Ground {
    /// Maps `len` bytes at `at`.
    pub(super) fn map(backing: Backing, at: usize, len: usize) -> Result<Self, Stop> {
        let flags = match backing {
            Backing::Shmem => Some(MFdFlags::empty()),
            Backing::HugetlbShared => Some(MFdFlags::MFD_HUGETLB | MFdFlags::MFD_HUGE_2MB),
            Backing::Anon => None,
            other => return Err(Stop::Broken(format!("no operation works on {other}"))),
        };
        let file = flags.map(|flags| memfd(flags, len)).transpose()?;
        let ground = Self { range: Range { start: at, len }, backing, file };
        ground.map_again()?;
        Ok(ground)
    }

    /// Maps it where it is: what was there is gone, of a file its mapping only.
    pub(super) fn map_again(&self) -> Result<(), Stop> {
        let kind = match self.backing {
            Backing::Anon => libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            _ => libc::MAP_SHARED,
        };
        match memory::map(self.range, RW, kind, self.file.as_ref().map(AsFd::as_fd), 0).0 {
            None => Ok(()),
            Some(Errno::ENOMEM) if self.backing.is_huge() => {
                Err(Stop::Precondition("too few 2 MiB huge pages (vm.nr_hugepages)".into()))
            }
            Some(errno) => Err(Stop::Broken(format!("mapping {} memory: {errno:?}", self.backing))),
        }
    }

    /// Takes its pages away, of a file too.
    pub(super) fn empty(&self) -> Result<(), Stop> {
        let advice = match self.backing {
            Backing::Anon => libc::MADV_DONTNEED,
            _ => libc::MADV_REMOVE,
        };
        must("discarding pages", memory::advise(self.range, advice))
    }

    /// Makes every page present, by a store.
    pub(super) fn fill(&self) -> Result<(), Stop> {
        fill(self.range, if self.backing.is_huge() { memory::HUGE } else { PAGE })
    }

    /// The range from `offset` on.
    pub(super) fn part(&self, offset: usize, len: usize) -> Range {
        Range { start: self.range.start + offset, len }
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        let _ = memory::unmap(self.range);
    }
}

/// Stores into every page of a range.
pub(super) fn fill(range: Range, page: usize) -> Result<(), Stop> {
    for at in (range.start..range.end()).step_by(page) {
        touch::store(at, 1).map_err(|signal| Stop::Broken(format!("filling a page: {signal}")))?;
    }
    Ok(())
}

fn memfd(flags: MFdFlags, len: usize) -> Result<OwnedFd, Stop> {
    let fd = memfd_create("bench", flags | MFdFlags::MFD_CLOEXEC)
        .map_err(|e| Stop::Precondition(format!("memfd_create: {e:?}")))?;
    let len = i64::try_from(len).unwrap_or(i64::MAX);
    nix::unistd::ftruncate(&fd, len).map_err(|e| Stop::Broken(format!("ftruncate: {e:?}")))?;
    Ok(fd)
}

/// A userfaultfd whose read(2) waits, after UFFDIO_API with `features`.
pub(super) fn blocking(stage: &Stage, features: u64) -> Result<Uffd, Stop> {
    stage.must_offer(features)?;
    let uffd = Uffd::open_with(stage.way.clone()?, libc::O_CLOEXEC)
        .map_err(|e| Stop::Broken(format!("making a userfaultfd: {e:?}")))?;
    match uffd.api(features) {
        Ok(_) => Ok(uffd),
        Err(Errno::EPERM) => Err(Stop::Denied("UFFDIO_API with these features: EPERM".into())),
        Err(e) => Err(Stop::Broken(format!("UFFDIO_API: {e:?}"))),
    }
}

/// Registers a range.
pub(super) fn register(uffd: &Uffd, range: Range, mode: u64) -> Result<(), Stop> {
    match uffd.register(range, mode) {
        Ok(_) => Ok(()),
        Err(Errno::EINVAL) => Err(Stop::Unsupported("UFFDIO_REGISTER: EINVAL".into())),
        Err(e) => Err(Stop::Broken(format!("UFFDIO_REGISTER: {e:?}"))),
    }
}

/// On which CPUs two threads run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cpus {
    /// Both on one.
    Same,
    /// Each on its own.
    Other,
}

impl Cpus {
    pub(super) const ALL: [Self; 2] = [Self::Same, Self::Other];

    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Same => "same",
            Self::Other => "other",
        }
    }
}

/// Keeps this thread on one CPU while it lives.
#[derive(Debug)]
pub(super) struct Pinned {
    before: CpuSet,
    /// The other thread's CPU.
    pub(super) partner: usize,
}

impl Pinned {
    pub(super) fn new(cpus: Cpus) -> Result<Self, Stop> {
        /// What this process may use, before any operation has narrowed it.
        static ALLOWED: OnceLock<CpuSet> = OnceLock::new();
        let broken = |e: Errno| Stop::Broken(format!("reading which CPUs there are: {e:?}"));
        let before = sched_getaffinity(Pid::from_raw(0)).map_err(broken)?;
        let allowed = ALLOWED.get_or_init(|| before);
        let mut have = (0..CpuSet::count()).filter(|&cpu| allowed.is_set(cpu).unwrap_or(false));
        let first = have.next().ok_or_else(|| Stop::Broken("no CPU".into()))?;
        let partner = match cpus {
            Cpus::Same => first,
            Cpus::Other => have
                .next()
                .ok_or_else(|| Stop::Precondition("there is one CPU, and this takes two".into()))?,
        };
        pin(first)?;
        Ok(Self { before, partner })
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        let _ = sched_setaffinity(Pid::from_raw(0), &self.before);
    }
}

/// Keeps this thread on a CPU from now on.
pub(super) fn pin(cpu: usize) -> Result<(), Stop> {
    let mut set = CpuSet::new();
    set.set(cpu)
        .and_then(|()| sched_setaffinity(Pid::from_raw(0), &set))
        .map_err(|e| Stop::Precondition(format!("binding a thread to CPU {cpu}: {e:?}")))
}

/// Sleeps while `word` is `value`.
pub(super) fn futex_wait(word: &AtomicU32, value: u32) {
    let op = libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG;
    // SAFETY: the kernel reads the word, which outlives the call; without a time-out the rest is unused.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), op, value, std::ptr::null::<u8>()) };
}

/// Wakes up to `most` threads that sleep at `word`; how many there were.
pub(super) fn futex_wake(word: &AtomicU32, most: u32) -> i64 {
    let op = libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG;
    // SAFETY: the kernel takes the word's address as a name.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), op, most) }
}

/// A gate that threads pass once each time it is opened.
#[derive(Debug, Default)]
pub(super) struct Gate(AtomicU32);

impl Gate {
    /// Waits until it has been opened more than `times` times; how often it has.
    pub(super) fn pass(&self, times: u32) -> u32 {
        loop {
            let opened = self.0.load(Ordering::Acquire);
            if opened != times {
                return opened;
            }
            futex_wait(&self.0, times);
        }
    }

    pub(super) fn open(&self) {
        self.0.fetch_add(1, Ordering::Release);
        futex_wake(&self.0, u32::MAX >> 1);
    }
}

/// Copies memory of the arena, or from the stage's source buffer, as memcpy(3) does.
pub(super) fn copy(from: usize, to: Range) {
    guard(to);
    // SAFETY: both are mapped and disjoint: `to` is in the arena and `from` is the stage's buffer, which
    // is as long as callers copy.
    unsafe { std::ptr::copy_nonoverlapping(from as *const u8, to.start as *mut u8, to.len) };
}

/// pread(2) of eight bytes to an address of the arena, which faults in the kernel.
pub(super) fn read_file_to(file: &OwnedFd, at: usize) -> Rc {
    use std::os::fd::AsRawFd;
    guard(Range { start: at, len: 8 });
    // SAFETY: the kernel checks the buffer, which lies in the arena, where Rust keeps nothing.
    Rc::of(unsafe { libc::pread(file.as_raw_fd(), at as *mut libc::c_void, 8, 0) } as libc::c_long)
}

/// A file of a page of zeros, with nothing that userfaultfd handles.
pub(super) fn small_file() -> Result<OwnedFd, Stop> {
    memfd(MFdFlags::empty(), PAGE)
}

/// A handler of SIGBUS or SIGSEGV that stands while this lives.
pub(super) struct Handling {
    signal: i32,
    before: libc::sigaction,
}

impl Handling {
    /// `handler` must be async-signal-safe.
    pub(super) fn new(
        signal: i32,
        handler: extern "C" fn(i32, *mut libc::siginfo_t, *mut libc::c_void),
    ) -> Result<Self, Stop> {
        // SAFETY: an all-zero sigaction is valid, and the caller gives a handler that is safe.
        let (rc, before) = unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            let mut before: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = handler as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO;
            let rc = libc::sigaction(signal, &raw const action, &raw mut before);
            (Rc::of(rc.into()), before)
        };
        must("sigaction", rc)?;
        Ok(Self { signal, before })
    }
}

impl Drop for Handling {
    fn drop(&mut self) {
        // SAFETY: puts back what the call above has given.
        unsafe { libc::sigaction(self.signal, &raw const self.before, std::ptr::null_mut()) };
    }
}

/// The address that a signal is about, in its handler.
pub(super) fn fault_address(info: *mut libc::siginfo_t) -> usize {
    // SAFETY: the kernel passes a siginfo that is valid during the handler, and these signals have one.
    unsafe { (*info).si_addr() as usize }
}
