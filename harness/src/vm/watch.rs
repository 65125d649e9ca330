//! One machine from its start to its end: reads its console and its frames, and says how it ended.

use super::console::{self, Console};
use super::frame::{Decoder, Item, Message};
use super::machine::{Ending, Machine};
use super::session::{Complaint, Event, Known, Limits};
use super::wire;
use crate::interrupt::{self, Interrupted};
use crate::patience;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use uffd_results::{End, Facts, Outcome};

/// Bytes that a console may bring: a boot and some oopses take a few hundred thousand. More would fill
/// the host's disk.
const CONSOLE: u64 = 16 << 20;

/// Bytes that may come on the wire: its shared memory, and as much from the serial port.
const WIRE: u64 = 2 * wire::SHARED_SIZE;

/// How a machine ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// The guest said that all is done.
    Complete,
    /// The guest said that its machine is used up: the next one goes on.
    UsedUp,
    /// The kernel panicked; what it said first since the last frame.
    Panic(String),
    /// PID 1 died, which is this program.
    OwnDeath(String),
    /// The machine ended without a word of the kernel.
    Gone(Ending),
    /// Nothing came for too long.
    Silent(Duration),
    /// No frame came at all.
    NoBoot(Duration),
    /// It says more than anything should.
    Flood(&'static str, u64),
    /// This process was told to stop.
    Interrupted(Interrupted),
    /// Another VM of the run leaves nothing to be asked.
    Stopped,
    /// The guest is another one than the first, by what it says of itself.
    Unlike(String),
    /// The frames don't fit together.
    Frames(String),
    /// The guest's program gave up.
    Fault(String),
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Complete => f.write_str("all is done"),
            Self::UsedUp => f.write_str("what was asked before has used the machine up"),
            Self::Panic(line) => f.write_str(line),
            Self::OwnDeath(line) => write!(f, "the harness's own process 1 died: {line}"),
            Self::Gone(Ending { how, .. }) => write!(f, "the VM ended without a word: {how}"),
            Self::Flood(place, limit) => {
                write!(f, "the VM was stopped: its {place} brought more than {} MiB", limit >> 20)
            }
            Self::Interrupted(interrupted) => interrupted.fmt(f),
            Self::Stopped => f.write_str("another VM of this run has failed"),
            Self::Unlike(what) => write!(f, "the guest is another one than the first: {what}"),
            Self::Silent(time) => write!(f, "the VM gave no sign for {} s", time.as_secs_f32()),
            Self::NoBoot(time) => write!(f, "no guest was up after {} s", time.as_secs_f32()),
            Self::Frames(what) => write!(f, "the guest's frames are damaged: {what}"),
            Self::Fault(text) => write!(f, "the guest's program gave up: {text}"),
        }
    }
}

impl Cause {
    /// The outcome of a case during which two machines ended, the last one in this way.
    pub(super) fn outcome(&self) -> Outcome {
        let end = match self {
            Self::Panic(_) | Self::Gone(Ending { by_guest: true, .. }) => End::Panic,
            Self::Silent(_) => End::Hang,
            _ => End::Broken,
        };
        Outcome::ended(end, self, Facts::new())
    }
}

/// The end of a machine.
#[derive(Debug)]
pub(super) struct Down {
    /// How it ended.
    pub(super) cause: Cause,
    /// The case that ran then, within the whole plan.
    pub(super) during: Option<usize>,
    /// The end of the console.
    pub(super) console: String,
}

/// What a look at the machine has shown.
enum Look {
    Nothing,
    Message,
    End(Cause),
}

/// Watches one machine.
pub(super) struct Watch<'a, 'e> {
    machine: Box<dyn Machine>,
    limits: Limits,
    stop: &'a AtomicBool,
    /// Cases in the plan of this boot; the first is the next one without an outcome.
    cases: usize,
    first: usize,
    known: &'a mut Known,
    on_event: &'a mut (dyn FnMut(Event<'_>) + 'e),
    console: Console,
    decoder: Decoder,
    /// The pieces so far of the file that is on its way.
    file: Vec<u8>,
    /// Whether this machine has said hello.
    up: bool,
    running: bool,
    /// Bytes that came on the console and on the wire.
    console_bytes: u64,
    wire_bytes: u64,
    /// The first complaint since the last frame: closer to the cause than the panic that follows it.
    first_complaint: Option<String>,
    started: Instant,
}

impl<'a, 'e> Watch<'a, 'e> {
    pub(super) fn new(
        machine: Box<dyn Machine>,
        limits: Limits,
        stop: &'a AtomicBool,
        cases: usize,
        known: &'a mut Known,
        on_event: &'a mut (dyn FnMut(Event<'_>) + 'e),
    ) -> Self {
        Self {
            machine,
            limits,
            stop,
            cases,
            first: known.outcomes.len(),
            known,
            on_event,
            console: Console::default(),
            decoder: Decoder::default(),
            file: Vec::new(),
            up: false,
            running: false,
            console_bytes: 0,
            wire_bytes: 0,
            first_complaint: None,
            started: Instant::now(),
        }
    }

    /// Until the end; the machine is stopped then.
    pub(super) fn run(mut self) -> Down {
        let cause = self.watch();
        let during = self.running.then_some(self.known.outcomes.len());
        Down { cause, during, console: self.console.tail() }
    }

    fn watch(&mut self) -> Cause {
        let (mut silent, mut last_look) = (Duration::ZERO, self.started);
        loop {
            if let Err(interrupted) = interrupt::check() {
                return Cause::Interrupted(interrupted);
            }
            if self.stop.load(Ordering::Relaxed) {
                return Cause::Stopped;
            }
            silent += patience::counts(last_look.elapsed(), self.limits.poll);
            last_look = Instant::now();
            match self.look() {
                Look::Nothing => {}
                Look::Message => silent = Duration::ZERO,
                Look::End(cause) => {
                    // Console and wire are read one after the other: take what came in between.
                    let (mut console, mut frames) = (Vec::new(), Vec::new());
                    if self.machine.poll(&mut console, &mut frames).is_ok() {
                        self.hear(&console);
                    }
                    return self.or_panic(cause);
                }
            }
            let (limit, cause) = if self.console.panic().is_some() {
                (self.limits.farewell, Cause::Silent(silent))
            } else if self.up {
                (self.limits.silence, Cause::Silent(self.limits.silence))
            } else {
                (self.limits.boot, Cause::NoBoot(self.limits.boot))
            };
            if silent > limit {
                return self.or_panic(cause);
            }
            std::thread::sleep(self.limits.poll);
        }
    }

    /// Takes what has come by now.
    fn look(&mut self) -> Look {
        let (mut console, mut frames, mut items) = (Vec::new(), Vec::new(), Vec::new());
        let gone = match self.machine.poll(&mut console, &mut frames) {
            Ok(gone) => gone,
            Err(error) => {
                let how = format!("reading it failed: {error}");
                return Look::End(Cause::Gone(Ending { how, by_guest: false }));
            }
        };
        self.console_bytes += console.len() as u64;
        self.wire_bytes += frames.len() as u64;
        self.decoder.feed(&frames, &mut items);
        if gone.is_some() {
            self.decoder.finish(&mut items);
        }
        let mut look = Look::Nothing;
        for item in items {
            let is_message = matches!(item, Item::Message(_));
            if let Some(cause) = self.take(item) {
                look = Look::End(cause);
                break;
            }
            if is_message {
                look = Look::Message;
            }
        }
        // After the frames: a panic belongs to the last case that began, not to an earlier one.
        self.hear(&console);
        let flood = [("console", self.console_bytes, CONSOLE), ("wire", self.wire_bytes, WIRE)]
            .into_iter()
            .find(|(_, bytes, limit)| bytes > limit);
        match (look, gone, flood) {
            (Look::End(cause), _, _) => Look::End(cause),
            (_, _, Some((place, _, limit))) => Look::End(Cause::Flood(place, limit)),
            (_, Some(ending), None) => Look::End(Cause::Gone(ending)),
            (look, None, None) => look,
        }
    }

    /// What a panic on the console says, or else `cause`.
    fn or_panic(&self, cause: Cause) -> Cause {
        if matches!(
            cause,
            Cause::Complete
                | Cause::UsedUp
                | Cause::Fault(_)
                | Cause::Interrupted(_)
                | Cause::Stopped
                | Cause::Unlike(_)
        ) {
            return cause;
        }
        match (self.console.panic(), &self.first_complaint) {
            (None, _) => cause,
            (Some(panic), _) if console::is_own_fault(panic) => Cause::OwnDeath(panic.to_owned()),
            (Some(panic), None) => Cause::Panic(panic.to_owned()),
            (Some(panic), Some(first)) if first == panic => Cause::Panic(panic.to_owned()),
            (Some(panic), Some(first)) => Cause::Panic(format!("{first}; {panic}")),
        }
    }

    fn hear(&mut self, console: &[u8]) {
        for line in self.console.feed(console) {
            let near = self.running.then_some(self.known.outcomes.len());
            self.first_complaint.get_or_insert_with(|| line.clone());
            self.known.complain(Complaint { near, line }, self.on_event);
        }
    }

    /// Takes what came on the wire; returns the end if it is one.
    fn take(&mut self, item: Item) -> Option<Cause> {
        match item {
            Item::Message(message) => self.message(message),
            Item::Damage(damage) => Some(Cause::Frames(damage.to_string())),
            // Firmware and drivers may write to a serial port before the guest does, and a frame
            // that came twice has lost nothing.
            Item::Noise(_) | Item::Repeated(_) => None,
        }
    }

    fn message(&mut self, message: Message) -> Option<Cause> {
        let done = self.known.outcomes.len() - self.first;
        let out_of_turn = |what: &str| {
            Some(Cause::Frames(format!("{what} was out of turn after {done} of its cases")))
        };
        match message {
            Message::Fault { text } => return Some(Cause::Fault(text)),
            Message::Hello(hello) => {
                if self.up {
                    return out_of_turn("the hello");
                }
                if hello.cases != self.cases {
                    let (read, given) = (hello.cases, self.cases);
                    return Some(Cause::Frames(format!("the guest read {read} of {given} cases")));
                }
                if let Some(why) = hello.fault() {
                    return Some(Cause::Frames(why));
                }
                let first = self.known.hello.as_ref();
                if let Some(what) = first.and_then(|(first, _)| first.difference(&hello)) {
                    return Some(Cause::Unlike(what));
                }
                self.up = true;
                let after = self.started.elapsed();
                (self.on_event)(Event::Up { hello: &hello, after });
                self.known.hello.get_or_insert((*hello, after));
            }
            Message::Start { index } => {
                if !self.up || self.running || index != done || index >= self.cases {
                    return out_of_turn("the start of a case");
                }
                self.running = true;
                (self.on_event)(Event::Start { index: self.first + index });
            }
            Message::Case { index, outcome } => {
                if !self.running || index != done {
                    return out_of_turn("an outcome");
                }
                self.running = false;
                self.known.outcome(outcome, self.on_event);
            }
            Message::File { name, bytes, more } => {
                if !self.up || self.running {
                    return out_of_turn("a file");
                }
                self.file.extend(bytes);
                if !more {
                    let bytes = std::mem::take(&mut self.file);
                    (self.on_event)(Event::File { name: &name, bytes: &bytes });
                }
            }
            Message::End { cases } => {
                if !self.up || self.running || cases != done {
                    return out_of_turn("the end");
                }
                return Some(if done == self.cases { Cause::Complete } else { Cause::UsedUp });
            }
        }
        self.first_complaint = None;
        None
    }
}
