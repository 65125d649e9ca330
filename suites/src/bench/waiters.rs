//! Threads that are parked in faults, and the calls that free them all at once.

use super::clock::stamp;
use super::ground::{Cpus, Gate, Ground, Pinned, blocking, futex_wait, must, pin, register};
use super::{Operation, Work};
use crate::abi::{COPY_MODE_DONTWAKE, Message, REGISTER_MODE_MISSING, Range, Uffd};
use crate::memory::PAGE;
use crate::outcome::Stop;
use crate::point::Backing;
use crate::stage::Stage;
use crate::thread::First;
use crate::touch;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::JoinHandle;

/// How many threads wait.
pub(super) const COUNTS: [u32; 4] = [0, 1, 16, 256];
/// A waiter's stack, in bytes.
pub(super) const STACK: usize = 64 << 10;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Call {
    Wake,
    Unregister,
}

/// What the waiters share.
#[derive(Default)]
struct Shared {
    gate: Gate,
    done: AtomicU32,
    over: AtomicBool,
}

struct Parked {
    call: Call,
    count: u32,
    uffd: Uffd,
    source: usize,
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    ground: Ground,
    _pinned: Pinned,
}

impl Parked {
    fn new(stage: &Stage, at: usize, call: Call, count: u32) -> Result<Self, Stop> {
        // On one CPU, and behind the thread that wakes them: what they do afterwards is not counted.
        let pinned = Pinned::new(Cpus::Same)?;
        drop(First::begin()?);
        let pages = usize::try_from(count).unwrap_or(0).max(1);
        let ground = Ground::map(Backing::Anon, at, pages * PAGE)?;
        let uffd = blocking(stage, 0)?;
        let shared = Arc::<Shared>::default();
        let mut threads = Vec::new();
        for n in 0..usize::try_from(count).unwrap_or(0) {
            let (shared, page, cpu) = (shared.clone(), at + n * PAGE, pinned.partner);
            let wait = move || {
                let _ = pin(cpu);
                let mut times = 0;
                loop {
                    times = shared.gate.pass(times);
                    if shared.over.load(Ordering::Acquire) {
                        return;
                    }
                    let _ = touch::load(page);
                    shared.done.fetch_add(1, Ordering::Release);
                    super::ground::futex_wake(&shared.done, 1);
                }
            };
            let thread = std::thread::Builder::new().stack_size(STACK).spawn(wait);
            threads.push(thread.map_err(|e| Stop::Broken(format!("a waiter's thread: {e}")))?);
        }
        let source = stage.source;
        Ok(Self { call, count, uffd, source, shared, threads, ground, _pinned: pinned })
    }

    /// Has every thread fault, and reads its message.
    fn park(&self) -> Result<(), Stop> {
        self.shared.done.store(0, Ordering::Release);
        self.shared.gate.open();
        for _ in 0..self.count {
            match self.uffd.read() {
                Ok(Message::Pagefault { .. }) => {}
                other => return Err(Stop::Broken(format!("no message of a waiter: {other:?}"))),
            }
        }
        Ok(())
    }

    fn wait_for_all(&self) {
        loop {
            let done = self.shared.done.load(Ordering::Acquire);
            if done == self.count {
                return;
            }
            futex_wait(&self.shared.done, done);
        }
    }
}

impl Work for Parked {
    fn round(&mut self, ticks: &mut Vec<u64>) -> Result<(), Stop> {
        let range = self.ground.range;
        register(&self.uffd, range, REGISTER_MODE_MISSING)?;
        self.park()?;
        if self.call == Call::Wake {
            // Placed before they are woken, so that none of them faults again.
            for start in (range.start..range.end()).step_by(PAGE) {
                let page = Range { start, len: PAGE };
                let (rc, _) = self.uffd.copy(page, self.source, COPY_MODE_DONTWAKE);
                must("UFFDIO_COPY", rc)?;
            }
        }
        let first = First::begin()?;
        let start = stamp();
        let rc = match self.call {
            Call::Wake => self.uffd.wake(range),
            Call::Unregister => self.uffd.unregister(range),
        };
        let end = stamp();
        drop(first);
        must("freeing the waiters", rc)?;
        ticks.push(end - start);
        self.wait_for_all();
        self.ground.empty()
    }
}

impl Drop for Parked {
    fn drop(&mut self) {
        // Whoever still waits is freed by it, and then meets zeros.
        let _ = self.uffd.unregister(self.ground.range);
        self.shared.over.store(true, Ordering::Release);
        self.shared.gate.open();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

pub(super) fn operations() -> Vec<Operation> {
    let mut all = Vec::new();
    for count in COUNTS {
        let id = ("wake", "parked", format!("waiters={count}"));
        let about = "UFFDIO_WAKE of so many threads that are parked on a page each.";
        let set_up = move |stage: &Stage, at| Parked::new(stage, at, Call::Wake, count);
        let limit = format!("limit/futex-wake[waiters={count}]");
        all.push(Operation::new(id, about, set_up).by_several().against(limit));
    }
    for count in COUNTS {
        let id = ("unregister", "parked", format!("waiters={count}"));
        let about = "UFFDIO_UNREGISTER of a page each on which so many threads are parked.";
        let set_up = move |stage: &Stage, at| Parked::new(stage, at, Call::Unregister, count);
        let limit = format!("limit/futex-wake[waiters={count}]");
        all.push(Operation::new(id, about, set_up).by_several().against(limit));
    }
    all
}
