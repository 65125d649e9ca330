//! Many threads that fault at once, on one userfaultfd and its handler or on one each.

use super::clock::stamp;
use super::ground::{Gate, Ground, blocking, futex_wait, futex_wake, register};
use super::handler::{Duty, Handler, Wait};
use super::{Operation, Work};
use crate::abi::REGISTER_MODE_MISSING;
use crate::memory::PAGE;
use crate::outcome::Stop;
use crate::point::Backing;
use crate::stage::Stage;
use crate::touch;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::JoinHandle;

/// How many threads fault.
const COUNTS: [usize; 5] = [1, 2, 4, 8, 16];
/// Faults of each thread in a round.
const FAULTS: usize = 64;
/// From one thread's memory to the next one's.
const STRIDE: usize = 4 << 20;

/// What the threads share.
#[derive(Default)]
struct Shared {
    gate: Gate,
    done: AtomicU32,
    over: AtomicBool,
}

struct Crowd {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    handlers: Vec<(Handler, usize)>,
    grounds: Vec<Ground>,
}

impl Crowd {
    fn new(stage: &Stage, at: usize, count: usize, each: bool) -> Result<Self, Stop> {
        let mut crowd = Self {
            shared: Arc::default(),
            threads: Vec::new(),
            handlers: Vec::new(),
            grounds: Vec::new(),
        };
        let mut uffd = None;
        for n in 0..count {
            // The page behind those that a thread faults at ends the handler.
            let ground = Ground::map(Backing::Anon, at + n * STRIDE, (FAULTS + 1) * PAGE)?;
            let served = match uffd.clone().filter(|_| !each) {
                Some(uffd) => uffd,
                None => Arc::new(blocking(stage, 0)?),
            };
            register(&served, ground.range, REGISTER_MODE_MISSING)?;
            if each || uffd.is_none() {
                let last = ground.range.start + FAULTS * PAGE;
                let handler = Handler::start(Duty {
                    uffd: served.clone(),
                    wait: Wait::Read,
                    source: stage.source,
                    last,
                    cpu: None,
                    delay: 0,
                    moments: None,
                })?;
                crowd.handlers.push((handler, last));
            }
            uffd = Some(served);
            let (shared, start) = (crowd.shared.clone(), ground.range.start);
            let fault = move || {
                let mut times = 0;
                loop {
                    times = shared.gate.pass(times);
                    if shared.over.load(Ordering::Acquire) {
                        return;
                    }
                    for page in 0..FAULTS {
                        let _ = touch::store(start + page * PAGE, 1);
                    }
                    shared.done.fetch_add(1, Ordering::Release);
                    futex_wake(&shared.done, 1);
                }
            };
            let thread = std::thread::Builder::new().stack_size(super::waiters::STACK).spawn(fault);
            crowd.threads.push(thread.map_err(|e| Stop::Broken(format!("a thread: {e}")))?);
            crowd.grounds.push(ground);
        }
        Ok(crowd)
    }
}

impl Work for Crowd {
    fn round(&mut self, ticks: &mut Vec<u64>) -> Result<(), Stop> {
        let count = self.threads.len();
        self.shared.done.store(0, Ordering::Release);
        let start = stamp();
        self.shared.gate.open();
        loop {
            let done = self.shared.done.load(Ordering::Acquire);
            if usize::try_from(done).is_ok_and(|done| done == count) {
                break;
            }
            futex_wait(&self.shared.done, done);
        }
        ticks.push((stamp() - start) / (count * FAULTS) as u64);
        self.handlers.iter_mut().try_for_each(|(handler, _)| handler.check())?;
        for ground in &self.grounds {
            ground.empty()?;
        }
        Ok(())
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Release);
        self.shared.gate.open();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
        for (handler, last) in &mut self.handlers {
            if touch::store(*last, 1).is_ok() {
                let _ = handler.join();
            }
        }
    }
}

pub(super) fn operations() -> Vec<Operation> {
    let mut all = Vec::new();
    for (word, each) in [("one", false), ("each", true)] {
        for count in COUNTS {
            if count == 1 && each {
                continue;
            }
            let id = ("crowd", "faults", format!("threads={count},uffds={word}"));
            let about = "A fault of so many threads that fault at once: all of the time by all of the faults.";
            let set_up = move |stage: &Stage, at| Crowd::new(stage, at, count, each);
            let limit = if count == 1 {
                "limit/ping-pong[cpus=same]"
            } else {
                "crowd/faults[threads=1,uffds=one]"
            };
            all.push(Operation::new(id, about, set_up).of_pages(1).by_several().against(limit));
        }
    }
    all
}
