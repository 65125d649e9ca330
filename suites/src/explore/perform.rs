//! Performs a sequence: one fact a step, made of what the step returned and of all that it changed.
//!
//! A fact's value is `name=value` words joined by `;`, of which the first is the step's own:
//! `copy=0;field=4096;w3=ran:copied;queue-1=0/0;a-pages=--c-----`. What a step leaves as it was is
//! not said again: registration, content and page-table entries of each place (`a-reg`, `a-pages`,
//! `a-bits`, see [`evidence::registration`], [`evidence::pages`] and [`treat::bits`]), queues, and the
//! fate of the thread that step N has started (`wN`). Nothing of it may depend on time, on addresses
//! or on the order in which woken threads run: so all that wait at the same time load, or all store.

use super::axes::{Ctx, Feature, Memory, Op, Treat};
use super::pages::{Pages, Place};
use super::step::Step;
use super::{LONGEST, Sequence};
use crate::abi::{Field, Message, Rc, Uffd};
use crate::evidence::{self, QueueFile};
use crate::expect::Expected;
use crate::memory::{PAGE, RW, advise, map, protect, remap, unmap};
use crate::mover::Mover;
use crate::outcome::{Seen, Stop};
use crate::point::Waiter as Kind;
use crate::probe::Trial;
use crate::process::Offspring;
use crate::scenario::fault_word;
use crate::stage::Stage;
use crate::waiter::{Fate, Waiter};
use crate::{files, touch, treat};
use nix::errno::Errno;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::os::fd::{AsFd, OwnedFd};
use uffd_results::KernelVersion;

/// The facts' names: the number of the step.
pub(super) const NAMES: [&str; LONGEST] = [
    "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13", "14", "15", "16", "17",
    "18", "19", "20", "21", "22", "23", "24",
];

/// The fact for what the last close did to whoever still waited.
pub(super) const AFTER: &str = "after";

/// A sequence as a question.
#[derive(Debug)]
pub(super) struct Explored(pub(super) Sequence);

impl Trial for Explored {
    fn axes(&self) -> String {
        self.0.to_string()
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        let mut world = World::new(stage, &self.0)?;
        for (step, name) in self.0.steps().iter().zip(NAMES) {
            seen.step(name);
            let mut said = Said::default();
            world.step(*step, &mut said)?;
            world.look(&mut said)?;
            seen.fact(name, said.0);
        }
        seen.step(AFTER);
        match world.end()? {
            fates if fates.is_empty() => {}
            fates => seen.fact(AFTER, fates),
        }
        Ok(())
    }

    /// Nothing: what matters is whether two kernels agree.
    fn expect(&self, _: KernelVersion) -> Vec<Expected> {
        Vec::new()
    }

    fn recipe(&self) -> Vec<String> {
        self.0.recipe()
    }
}

/// What is said of a step.
#[derive(Default)]
struct Said(String);

impl Said {
    fn say(&mut self, name: impl std::fmt::Display, value: impl std::fmt::Display) {
        let gap = if self.0.is_empty() { "" } else { ";" };
        // A String takes all.
        let _ = write!(self.0, "{gap}{name}={value}");
    }
}

/// A userfaultfd with its fault queue.
struct Context {
    uffd: Uffd,
    queue: QueueFile,
    raises_events: bool,
}

/// A thread that may wait.
struct Parked {
    /// The number of the step that has started it.
    number: usize,
    stores: bool,
    waiter: Waiter,
    fate: Fate,
}

/// The state between steps.
struct World<'a> {
    stage: &'a Stage,
    /// What shared and private file mappings show; it lives as long as the process.
    file: &'static OwnedFd,
    /// The places that the sequence names.
    places: Vec<Place>,
    contexts: [Option<Context>; 2],
    parked: Vec<Parked>,
    steps: usize,
    /// What was last said of the state, by name.
    last: BTreeMap<String, String>,
}

impl<'a> World<'a> {
    fn new(stage: &'a Stage, sequence: &Sequence) -> Result<Self, Stop> {
        let mut places: Vec<Place> = sequence
            .steps()
            .iter()
            .copied()
            .flat_map(Step::pages)
            .map(|pages| pages.place)
            .collect();
        places.sort_unstable();
        places.dedup();
        let file: &'static OwnedFd = Box::leak(Box::new(files::memfd(2 * Place::A.window().len)?));
        let contexts = [const { None }; 2];
        let (parked, last) = (Vec::new(), BTreeMap::new());
        Ok(Self { stage, file, places, contexts, parked, steps: 0, last })
    }

    fn step(&mut self, step: Step, said: &mut Said) -> Result<(), Stop> {
        self.steps += 1;
        let verb = step.verb();
        match step {
            Step::Open(ctx, feature) => {
                let (rc, context) = self.open(feature)?;
                self.contexts[ctx.index()] = context;
                said.say(verb, rc);
            }
            Step::Close(ctx) => {
                let was_open = self.contexts[ctx.index()].take().is_some();
                said.say(verb, if was_open { "0" } else { NOT_OPEN });
            }
            Step::Map(memory, pages) => self.map(memory, pages, verb, said)?,
            Step::Treat(treat, pages) => {
                self.change(verb, said, move || perform(treat, pages))?;
            }
            Step::Protect(prot, pages) => {
                self.change(verb, said, move || protect(pages.range(), prot.bits()))?;
            }
            Step::Move(from, to, keeps) => {
                let keep = if keeps { libc::MREMAP_DONTUNMAP } else { 0 };
                let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED | keep;
                let (from, to) = (from.range(), to.range());
                self.change(verb, said, move || remap(from, from.len, flags, to.start))?;
            }
            Step::Resize(pages, count) => {
                let (from, len) = (pages.range(), usize::from(count) * PAGE);
                self.change(verb, said, move || remap(from, len, 0, 0))?;
            }
            Step::Fork(page) => {
                let stage = self.stage;
                let child = Offspring::here(stage, || match touch::load(page.range().start) {
                    Ok(value) => crate::waiter::content(stage.tag(value)).to_owned(),
                    Err(signal) => signal.to_string(),
                })?;
                said.say(verb, child.word()?);
                child.end()?;
            }
            Step::Access(kind, page) => self.access(kind, page, verb, said)?,
            Step::Read(ctx) => {
                let messages = self.contexts[ctx.index()].as_ref().map(unread);
                let messages = messages.unwrap_or_else(|| NOT_OPEN.to_owned());
                said.say(verb, if messages.is_empty() { "nothing".to_owned() } else { messages });
            }
            Step::Register(ctx, mode, pages) => {
                let register = |c: &Context| c.uffd.register(pages.range(), mode.bits());
                match self.contexts[ctx.index()].as_ref().map(register) {
                    Some(result) => said.say(verb, Rc(result.err())),
                    None => said.say(verb, NOT_OPEN),
                }
            }
            Step::Call(ctx, op, pages, extra) => {
                self.operate(ctx, verb, said, |uffd, stage| {
                    call(op, uffd, pages, stage.source, op.mode(extra))
                });
            }
            Step::Relocate(ctx, to, from, extra) => {
                self.operate(ctx, verb, said, |uffd, _| {
                    let (rc, field) =
                        uffd.relocate(to.range(), from.range().start, extra.of_move());
                    (rc, Some(field))
                });
            }
        }
        Ok(())
    }

    fn open(&self, feature: Feature) -> Result<(Rc, Option<Context>), Stop> {
        let uffd = Uffd::open(self.stage.way.clone()?)
            .map_err(|e| Stop::Broken(format!("making a userfaultfd: {e:?}")))?;
        if let Err(errno) = uffd.api(feature.bits()) {
            return Ok((Rc(Some(errno)), None));
        }
        let queue = QueueFile::open(&uffd)?;
        Ok((Rc::OK, Some(Context { uffd, queue, raises_events: feature == Feature::Events })))
    }

    /// An operation of a context, if it is open: a kernel may have refused to open it.
    fn operate(
        &self,
        ctx: Ctx,
        verb: &'static str,
        said: &mut Said,
        call: impl FnOnce(&Uffd, &Stage) -> (Rc, Option<Field>),
    ) {
        let Some(context) = &self.contexts[ctx.index()] else {
            said.say(verb, NOT_OPEN);
            return;
        };
        let (rc, field) = call(&context.uffd, self.stage);
        said.say(verb, rc);
        if let Some(field) = field {
            said.say("field", field);
        }
    }

    fn map(
        &mut self,
        memory: Memory,
        pages: Pages,
        verb: &'static str,
        said: &mut Said,
    ) -> Result<(), Stop> {
        let (at, offset) = (pages.range(), usize::from(pages.first) * PAGE);
        let (file, private, shared) = (self.file, libc::MAP_PRIVATE, libc::MAP_SHARED);
        let anon = libc::MAP_ANONYMOUS;
        if memory == Memory::File {
            let copy = self.stage.plain_fd()?.try_clone_to_owned();
            let copy = copy.map_err(|e| Stop::Broken(format!("a second descriptor: {e}")))?;
            return self
                .change(verb, said, move || map(at, RW, private, Some(copy.as_fd()), offset));
        }
        self.change(verb, said, move || match memory {
            Memory::Anon => map(at, RW, private | anon, None, 0),
            Memory::None => map(at, libc::PROT_NONE, private | anon, None, 0),
            Memory::SharedAnon => map(at, RW, shared | anon, None, 0),
            Memory::Droppable => map(at, RW, libc::MAP_DROPPABLE | anon, None, 0),
            Memory::Private => map(at, RW, private, Some(file.as_fd()), offset),
            Memory::Shmem | Memory::File => map(at, RW, shared, Some(file.as_fd()), offset),
        })
    }

    /// A call that changes mappings. Where it may raise events it is made by a thread of its own, and
    /// each event is read as it comes.
    fn change(
        &mut self,
        verb: &'static str,
        said: &mut Said,
        call: impl FnOnce() -> Rc + Send + 'static,
    ) -> Result<(), Stop> {
        let raising: Vec<&Context> =
            self.contexts.iter().flatten().filter(|context| context.raises_events).collect();
        if raising.is_empty() {
            said.say(verb, call());
            return Ok(());
        }
        // From now on what can be read is an event.
        let faults: Vec<String> =
            raising.iter().map(|context| unread(context)).filter(|m| !m.is_empty()).collect();
        let uffds: Vec<&Uffd> = raising.iter().map(|context| &context.uffd).collect();
        let mover = Mover::start(self.stage, call)?;
        let mut events = Vec::new();
        while let Some(n) = mover.blocks_on_one_of(&uffds)? {
            if let Ok(message) = uffds[n].read() {
                events.push(word(message));
            }
        }
        said.say(verb, mover.join()?);
        for (name, words) in [("unread", faults), ("events", events)] {
            if !words.is_empty() {
                said.say(name, words.join(","));
            }
        }
        Ok(())
    }

    fn access(
        &mut self,
        kind: Kind,
        page: Pages,
        verb: &'static str,
        said: &mut Said,
    ) -> Result<(), Stop> {
        let stores = kind.stores();
        if self.parked.iter().any(|parked| parked.fate.waits() && parked.stores != stores) {
            said.say(verb, "left-out");
            return Ok(());
        }
        let waiter = Waiter::start(self.stage, kind, page.range())?;
        self.parked.push(Parked { number: self.steps, stores, waiter, fate: Fate::Again });
        self.settle()?;
        let word = self.parked.last().map_or_else(String::new, |parked| match parked.fate {
            fate if fate.waits() => "waits".to_owned(),
            fate => self.stage.word(fate),
        });
        said.say(verb, word);
        Ok(())
    }

    /// Waits until nobody is on the way.
    fn settle(&mut self) -> Result<Vec<(usize, Fate)>, Stop> {
        let queues: Vec<&QueueFile> = self.contexts.iter().flatten().map(|c| &c.queue).collect();
        let mut waiting: Vec<&mut Parked> =
            self.parked.iter_mut().filter(|parked| parked.fate.waits()).collect();
        let mut waiters: Vec<&mut Waiter> = waiting.iter_mut().map(|p| &mut p.waiter).collect();
        let fates = Waiter::settle_all(&mut waiters, &queues)?;
        for (parked, fate) in waiting.iter_mut().zip(&fates) {
            parked.fate = *fate;
        }
        Ok(waiting.iter().map(|parked| parked.number).zip(fates).collect())
    }

    /// Says what the step has changed: fates, queues, and the state of each place.
    fn look(&mut self, said: &mut Said) -> Result<(), Stop> {
        let number = self.steps;
        for (waiter, fate) in self.settle()? {
            if fate != Fate::Asleep && waiter != number {
                said.say(format_args!("w{waiter}"), self.stage.word(fate));
            }
        }
        let mut state = Vec::new();
        for (n, context) in self.contexts.iter().enumerate() {
            if let Some(context) = context {
                state.push((format!("queue-{}", n + 1), context.queue.read()?.to_string()));
            }
        }
        let letter = |value| self.stage.letter(value);
        let windows: Vec<_> = self.places.iter().map(|place| (place.window(), PAGE)).collect();
        let registered =
            if windows.is_empty() { Vec::new() } else { evidence::registration(&windows)? };
        for (place, row) in self.places.iter().zip(registered) {
            let (name, window) = (place.letter(), place.window());
            state.push((format!("{name}-reg"), row));
            state.push((format!("{name}-pages"), evidence::pages(window, PAGE, &letter)?));
            state.push((format!("{name}-bits"), treat::bits(window, PAGE)?));
        }
        for (name, value) in state {
            // Before anything has happened, nothing is there.
            let is_blank = value == "0/0" || value.bytes().all(|b| b == b'-');
            let is_new = self.last.get(&name).map_or(!is_blank, |last| *last != value);
            if is_new {
                said.say(&name, &value);
                self.last.insert(name, value);
            }
        }
        Ok(())
    }

    /// Closes everything; what became of those who still waited.
    fn end(mut self) -> Result<String, Stop> {
        self.contexts = [const { None }; 2];
        let mut said = Said::default();
        for parked in self.parked.iter().filter(|parked| parked.fate.waits()) {
            said.say(format_args!("w{}", parked.number), self.stage.word(parked.waiter.end()?));
        }
        Ok(said.0)
    }
}

/// What a step says that uses a context which the kernel has refused to open.
const NOT_OPEN: &str = "not-open";

/// One call with a range.
fn perform(treat: Treat, pages: Pages) -> Rc {
    let at = pages.range();
    match treat {
        Treat::Unmap => unmap(at),
        Treat::DontNeed => advise(at, libc::MADV_DONTNEED),
        Treat::Remove => advise(at, libc::MADV_REMOVE),
        Treat::DontFork => advise(at, libc::MADV_DONTFORK),
        Treat::WipeOnFork => advise(at, libc::MADV_WIPEONFORK),
        Treat::Lock => treat::lock(at, libc::MLOCK_ONFAULT),
        Treat::Unlock => treat::unlock(at),
        Treat::Guard => advise(at, treat::GUARD_INSTALL),
        Treat::Unguard => advise(at, treat::GUARD_REMOVE),
        Treat::Seal => treat::seal(at),
    }
}

fn call(op: Op, uffd: &Uffd, pages: Pages, source: usize, mode: u64) -> (Rc, Option<Field>) {
    let at = pages.range();
    let with = |(rc, field): (Rc, Field)| (rc, Some(field));
    match op {
        Op::Copy => with(uffd.copy(at, source, mode)),
        Op::Zeropage => with(uffd.zeropage(at, mode)),
        Op::Continue => with(uffd.resume(at, mode)),
        Op::Poison => with(uffd.poison(at, mode)),
        Op::Protect | Op::Lift => (uffd.writeprotect(at, mode), None),
        Op::Unregister => (uffd.unregister(at), None),
        Op::Wake => (uffd.wake(at), None),
    }
}

/// Reads all messages of a context, in an order that does not tell in which threads have faulted.
fn unread(context: &Context) -> String {
    let mut words = Vec::new();
    loop {
        match context.uffd.read() {
            Ok(message) => words.push(word(message)),
            Err(Errno::EAGAIN) => break,
            Err(errno) => {
                words.push(format!("{errno:?}"));
                break;
            }
        }
    }
    words.sort();
    words.join(",")
}

fn word(message: Message) -> String {
    let at = Pages::name;
    match message {
        Message::Pagefault { address, flags, .. } => {
            format!("{}@{}", fault_word(flags), at(address, address + PAGE))
        }
        Message::Remap { from, to, len } => {
            format!("remap@{}>{}", at(from, from + len), at(to, to + len))
        }
        Message::Remove { start, end } => format!("remove@{}", at(start, end)),
        Message::Unmap { start, end } => format!("unmap@{}", at(start, end)),
        other => crate::abi::event_name(other.number()),
    }
}
