//! Physical limits: what the kernel and the CPU take for the same without userfaultfd.

use super::clock::stamp;
use super::ground::{
    Cpus, Ground, Handling, Pinned, copy, fault_address, futex_wait, futex_wake, must, pin,
};
use super::place::{SIZES, SPAN, emptied, pieces, sizes, source};
use super::waiters::COUNTS;
use super::{Operation, Work};
use crate::abi::{Range, Rc};
use crate::memory::{self, HUGE, PAGE, RW};
use crate::outcome::Stop;
use crate::point::Backing;
use crate::stage::Stage;
use crate::thread::First;
use crate::touch;
use nix::errno::Errno;
use nix::sys::eventfd::{EfdFlags, EventFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    /// madvise(MADV_POPULATE_WRITE) of missing pages.
    Populate,
    /// A load from each page of missing memory.
    ReadFault,
    /// A store to each page of missing memory.
    WriteFault,
    /// A store to each page that is in the page cache and not mapped.
    Cached,
    /// mremap(2) of present pages.
    Remap,
    /// mprotect(2) of present pages.
    Protect,
    /// memcpy(3) to present pages.
    Copy,
}

/// Where mremap puts pages, behind the operation's range.
const ELSEWHERE: usize = 64 << 20;
/// Kernels from 5.14 on have it.
const MADV_POPULATE_WRITE: i32 = 23;

struct Plain {
    act: Act,
    size: usize,
    source: usize,
    ground: Ground,
}

impl Plain {
    fn new(
        stage: &Stage,
        at: usize,
        act: Act,
        backing: Backing,
        size: usize,
    ) -> Result<Self, Stop> {
        let ground = emptied(backing, at)?;
        let plain = Self { act, size, source: source(stage, size)?, ground };
        plain.prepare()?;
        Ok(plain)
    }

    fn prepare(&self) -> Result<(), Stop> {
        match self.act {
            Act::Populate | Act::ReadFault | Act::WriteFault => self.ground.empty(),
            Act::Cached => {
                self.ground.fill()?;
                self.ground.map_again()
            }
            Act::Remap => {
                let behind = Range { start: self.ground.range.start + ELSEWHERE, len: SPAN };
                must("munmap", memory::unmap(behind))?;
                self.ground.map_again()?;
                self.ground.fill()
            }
            Act::Protect => {
                must("mprotect", memory::protect(self.ground.range, RW))?;
                self.ground.fill()
            }
            Act::Copy => self.ground.fill(),
        }
    }

    fn act(&self, piece: Range) -> Result<Rc, Stop> {
        let step = if self.ground.backing.is_huge() { HUGE } else { PAGE };
        let each = |access: fn(usize) -> Result<(), touch::Signal>| {
            (piece.start..piece.end()).step_by(step).try_for_each(access)
        };
        let done = match self.act {
            Act::Populate => {
                let rc = memory::advise(piece, MADV_POPULATE_WRITE);
                if rc == Rc(Some(Errno::EINVAL)) {
                    let why = "madvise(MADV_POPULATE_WRITE): EINVAL (5.14 brought it)";
                    return Err(Stop::Unsupported(why.into()));
                }
                return Ok(rc);
            }
            Act::ReadFault => each(|at| touch::load(at).map(drop)),
            Act::WriteFault | Act::Cached => each(|at| touch::store(at, 1)),
            Act::Remap => {
                let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
                return Ok(memory::remap(piece, piece.len, flags, piece.start + ELSEWHERE));
            }
            Act::Protect => return Ok(memory::protect(piece, libc::PROT_READ)),
            Act::Copy => {
                copy(self.source, piece);
                Ok(())
            }
        };
        done.map(|()| Rc::OK).map_err(|signal| Stop::Broken(format!("an access: {signal}")))
    }
}

impl Work for Plain {
    fn round(&mut self, ticks: &mut Vec<u64>) -> Result<(), Stop> {
        for piece in pieces(&self.ground, self.size) {
            let start = stamp();
            let rc = self.act(piece)?;
            ticks.push(stamp() - start);
            must("a limit's call", rc)?;
        }
        self.prepare()
    }
}

impl Drop for Plain {
    fn drop(&mut self) {
        if self.act == Act::Remap {
            let behind = Range { start: self.ground.range.start + ELSEWHERE, len: SPAN };
            let _ = memory::unmap(behind);
        }
    }
}

/// Two threads that wake each other through eventfds: the floor of every round trip.
struct PingPong {
    ping: Arc<EventFd>,
    reply: Arc<EventFd>,
    thread: Option<JoinHandle<()>>,
    _pinned: Pinned,
}

const TURNS: usize = 32;
/// What ends the partner.
const END: u64 = 1 << 32;

impl PingPong {
    fn new(cpus: Cpus) -> Result<Self, Stop> {
        let pinned = Pinned::new(cpus)?;
        let fd = || EventFd::from_flags(EfdFlags::EFD_CLOEXEC).map(Arc::new);
        let broken = |e: Errno| Stop::Broken(format!("eventfd: {e:?}"));
        let (ping, reply) = (fd().map_err(broken)?, fd().map_err(broken)?);
        let (theirs, ours, cpu) = (ping.clone(), reply.clone(), pinned.partner);
        let partner = move || {
            let _ = pin(cpu);
            while theirs.read().is_ok_and(|n| n < END) && ours.write(1).is_ok() {}
        };
        let thread = std::thread::Builder::new().spawn(partner);
        let thread = Some(thread.map_err(|e| Stop::Broken(format!("a thread: {e}")))?);
        Ok(Self { ping, reply, thread, _pinned: pinned })
    }
}

impl Work for PingPong {
    fn round(&mut self, ticks: &mut Vec<u64>) -> Result<(), Stop> {
        let broken = |e: Errno| Stop::Broken(format!("an eventfd: {e:?}"));
        for _ in 0..TURNS {
            let start = stamp();
            self.ping.write(1).map_err(broken)?;
            self.reply.read().map_err(broken)?;
            ticks.push(stamp() - start);
        }
        Ok(())
    }
}

impl Drop for PingPong {
    fn drop(&mut self) {
        if self.ping.write(END).is_ok()
            && let Some(thread) = self.thread.take()
        {
            let _ = thread.join();
        }
    }
}

extern "C" fn on_segv(_: i32, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    let page = Range { start: fault_address(info) & !(PAGE - 1), len: PAGE };
    let ours = page.start >= memory::ARENA.start && page.end() <= memory::ARENA.end();
    if !ours || !memory::protect(page, RW).is_ok() {
        // SAFETY: restoring the default action is async-signal-safe; the access then kills.
        unsafe { libc::signal(libc::SIGSEGV, libc::SIG_DFL) };
    }
}

/// The way without userfaultfd: mprotect(2), and a handler of SIGSEGV that lifts it.
struct Segv {
    _handling: Handling,
    ground: Ground,
}

impl Work for Segv {
    fn round(&mut self, ticks: &mut Vec<u64>) -> Result<(), Stop> {
        for _ in 0..TURNS {
            must("mprotect", memory::protect(self.ground.range, libc::PROT_NONE))?;
            let start = stamp();
            let stored = touch::store(self.ground.range.start, 1);
            ticks.push(stamp() - start);
            stored.map_err(|signal| Stop::Broken(format!("the access: {signal}")))?;
        }
        Ok(())
    }
}

/// Threads that sleep at a futex, all woken by one call.
struct Sleepers {
    count: u32,
    word: Arc<AtomicU32>,
    threads: Vec<JoinHandle<()>>,
    _pinned: Pinned,
}

/// What ends the sleepers.
const WAKE_UP: u32 = u32::MAX;

impl Sleepers {
    fn new(count: u32) -> Result<Self, Stop> {
        let pinned = Pinned::new(Cpus::Same)?;
        drop(First::begin()?);
        let word = Arc::<AtomicU32>::default();
        let mut threads = Vec::new();
        for _ in 0..count {
            let (bed, cpu) = (word.clone(), pinned.partner);
            let sleep = move || {
                let _ = pin(cpu);
                loop {
                    let value = bed.load(Ordering::Acquire);
                    if value == WAKE_UP {
                        return;
                    }
                    futex_wait(&bed, value);
                }
            };
            let thread = std::thread::Builder::new().stack_size(super::waiters::STACK).spawn(sleep);
            threads.push(thread.map_err(|e| Stop::Broken(format!("a thread: {e}")))?);
        }
        Ok(Self { count, word, threads, _pinned: pinned })
    }
}

impl Work for Sleepers {
    fn round(&mut self, ticks: &mut Vec<u64>) -> Result<(), Stop> {
        // That all of them sleep again is seen by how many a call wakes, and not by time; what wakes
        // fewer counts for nothing.
        for _ in 0..50 {
            if self.count > 0 {
                std::thread::sleep(Duration::from_micros(100 + 10 * u64::from(self.count)));
            }
            let first = First::begin()?;
            let start = stamp();
            let woken = futex_wake(&self.word, u32::MAX >> 1);
            let end = stamp();
            drop(first);
            if woken == i64::from(self.count) {
                ticks.push(end - start);
                return Ok(());
            }
        }
        Err(Stop::Broken("the sleepers were never all asleep".into()))
    }
}

impl Drop for Sleepers {
    fn drop(&mut self) {
        self.word.store(WAKE_UP, Ordering::Release);
        futex_wake(&self.word, u32::MAX >> 1);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

pub(super) fn operations() -> Vec<Operation> {
    let mut all = Vec::new();
    let mut plain = |name, about, act, backing: Option<Backing>, sizes: &[(&str, usize)]| {
        for &(word, size) in sizes {
            let axes = backing
                .map_or_else(|| format!("size={word}"), |b| format!("backing={b},size={word}"));
            let backing = backing.unwrap_or(Backing::Anon);
            let set_up = move |stage: &Stage, at| Plain::new(stage, at, act, backing, size);
            let id = (group_of(act), name, axes);
            all.push(Operation::new(id, about, set_up).of_pages(size / PAGE));
        }
    };
    for backing in [Backing::Anon, Backing::Shmem, Backing::HugetlbShared] {
        let about = "madvise(MADV_POPULATE_WRITE) of missing pages.";
        plain("populate", about, Act::Populate, Some(backing), sizes(backing));
    }
    plain("read-fault", "A load from each missing page.", Act::ReadFault, None, &SIZES);
    for backing in [Backing::Shmem, Backing::HugetlbShared] {
        let about = "A store to each page that is in the page cache.";
        plain("cached", about, Act::Cached, Some(backing), sizes(backing));
    }
    plain("mremap", "mremap(2) of present pages.", Act::Remap, None, &SIZES);
    for backing in [Backing::Anon, Backing::Shmem] {
        let about = "mprotect(2) of present pages.";
        plain("mprotect", about, Act::Protect, Some(backing), &SIZES);
    }
    plain("minor-fault", "A store to each missing page.", Act::WriteFault, None, &SIZES[..1]);
    plain("memcpy", "memcpy(3) to present pages.", Act::Copy, None, &SIZES);
    for cpus in Cpus::ALL {
        let about = "Two threads that wake each other once each, through eventfds.";
        let id = ("limit", "ping-pong", format!("cpus={}", cpus.word()));
        let set_up = move |_: &Stage, _| PingPong::new(cpus);
        all.push(Operation::new(id, about, set_up).by_several());
    }
    let about = "A store to a page of PROT_NONE, whose handler of SIGSEGV calls mprotect(2).";
    let set_up = |_: &Stage, at| {
        let ground = Ground::map(Backing::Anon, at, PAGE)?;
        ground.fill()?;
        Ok(Segv { _handling: Handling::new(libc::SIGSEGV, on_segv)?, ground })
    };
    all.push(Operation::new(("limit", "segv", "pages=1".into()), about, set_up));
    for n in COUNTS {
        let about = "FUTEX_WAKE of so many threads, none of which runs before it has returned.";
        let id = ("limit", "futex-wake", format!("waiters={n}"));
        all.push(Operation::new(id, about, move |_: &Stage, _| Sleepers::new(n)).by_several());
    }
    all
}

/// Two of them are of interest by themselves.
const fn group_of(act: Act) -> &'static str {
    match act {
        Act::WriteFault | Act::Copy => "floor",
        _ => "limit",
    }
}
