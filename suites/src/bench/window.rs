//! The time after an event is read in which the ioctls still fail with EAGAIN: it ends when the thread that
//! raised the event has gone on, which the reader can't see.

use super::clock::stamp;
use super::ground::{Cpus, Gate, Ground, Pinned, blocking, pin, register};
use super::{Operation, Work};
use crate::abi::{Message, REGISTER_MODE_MISSING, Range, Uffd, features};
use crate::memory::{self, PAGE};
use crate::outcome::Stop;
use crate::point::Backing;
use crate::stage::Stage;
use nix::errno::Errno;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

/// Windows of a round, each with a page of its own to be placed.
const WINDOWS: usize = 16;
/// Where the page stands whose discard raises the events.
const DISCARDED: usize = 32 << 20;

#[derive(Default)]
struct Shared {
    gate: Gate,
    over: AtomicBool,
}

struct Window {
    cpus: Cpus,
    uffd: Uffd,
    source: usize,
    shared: Arc<Shared>,
    raiser: Option<JoinHandle<()>>,
    ground: Ground,
    _discarded: Ground,
    _pinned: Pinned,
}

impl Window {
    fn new(stage: &Stage, at: usize, cpus: Cpus) -> Result<Self, Stop> {
        let pinned = Pinned::new(cpus)?;
        let uffd = blocking(stage, features::EVENT_REMOVE)?;
        let ground = Ground::map(Backing::Anon, at, WINDOWS * PAGE)?;
        let discarded = Ground::map(Backing::Anon, at + DISCARDED, PAGE)?;
        register(&uffd, ground.range, REGISTER_MODE_MISSING)?;
        register(&uffd, discarded.range, REGISTER_MODE_MISSING)?;
        let shared = Arc::<Shared>::default();
        let (theirs, range, cpu) = (shared.clone(), discarded.range, pinned.partner);
        let raise = move || {
            let _ = pin(cpu);
            let mut times = 0;
            loop {
                times = theirs.gate.pass(times);
                if theirs.over.load(Ordering::Acquire) {
                    return;
                }
                let _ = memory::dontneed(range);
            }
        };
        let raiser = std::thread::Builder::new().spawn(raise);
        let raiser = Some(raiser.map_err(|e| Stop::Broken(format!("a thread: {e}")))?);
        Ok(Self {
            cpus,
            uffd,
            source: stage.source,
            shared,
            raiser,
            ground,
            _discarded: discarded,
            _pinned: pinned,
        })
    }
}

impl Work for Window {
    fn round(&mut self, ticks: &mut Vec<u64>) -> Result<(), Stop> {
        for n in 0..WINDOWS {
            let page: Range = self.ground.part(n * PAGE, PAGE);
            self.shared.gate.open();
            match self.uffd.read() {
                Ok(Message::Remove { .. }) => {}
                other => return Err(Stop::Broken(format!("no remove event: {other:?}"))),
            }
            let start = stamp();
            loop {
                match self.uffd.copy(page, self.source, 0).0.0 {
                    None => break,
                    // On one CPU the other thread can't go on before this one lets it.
                    Some(Errno::EAGAIN) if self.cpus == Cpus::Same => std::thread::yield_now(),
                    Some(Errno::EAGAIN) => std::hint::spin_loop(),
                    Some(errno) => return Err(Stop::Broken(format!("UFFDIO_COPY: {errno:?}"))),
                }
            }
            ticks.push(stamp() - start);
        }
        // A discard would raise an event that nobody reads; mapping it again raises none.
        self.ground.map_again()?;
        register(&self.uffd, self.ground.range, REGISTER_MODE_MISSING)
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Release);
        self.shared.gate.open();
        if let Some(raiser) = self.raiser.take() {
            let _ = raiser.join();
        }
    }
}

pub(super) fn operations() -> Vec<Operation> {
    let one = |cpus: Cpus| {
        let on = format!("cpus={}", cpus.word());
        let limit = format!("limit/ping-pong[{on}]");
        let about =
            "From the read of a remove event to a UFFDIO_COPY that no longer fails with EAGAIN.";
        let set_up = move |stage: &Stage, at| Window::new(stage, at, cpus);
        Operation::new(("window", "eagain", on), about, set_up).by_several().against(limit)
    };
    Cpus::ALL.map(one).into()
}
