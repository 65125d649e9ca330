//! Two things wrong at once: which of them an ioctl speaks of; and ioctls while an event is unread.

use super::ground::{ARGUMENT, Did, Ground, Verdict, Words, argument_page};
use super::twist::grounds;
use crate::abi::command::Command;
use crate::abi::features;
use crate::edge::EAGAIN_FIELD;
use crate::expect::Expected;
use crate::memory::{ELSEWHERE, PAGE};
use crate::mover::{self, Mover};
use crate::outcome::{Seen, Stop};
use crate::point::{PAGES, axis};
use crate::probe::{Case, Probe, Trial};
use crate::stage::Stage;
use std::time::Instant;
use uffd_results::KernelVersion;

static EVENT: Probe = Probe {
    suite: "arguments",
    name: "event-unread",
    statement: "While an event is unread, what places or protects pages is refused with EAGAIN before \
                its argument is looked at, but for a struct that can't be written, which is EFAULT where \
                -11 is stored (6.15, 6.12.29); REGISTER, UNREGISTER and WAKE work as ever.",
    consumers: &["CRIU lazy-pages, crosvm, Firecracker: EAGAIN means try again, EINVAL a bug"],
};
static ORDER: Probe = Probe {
    suite: "arguments",
    name: "order",
    statement: "Of two wrong things the struct's address is told first, then range and mode, then the \
                registration, then the page.",
    consumers: &["handlers that tell EEXIST, ENOENT and EINVAL apart"],
};

axis! {
    /// One wrong thing.
    Wrong {
        /// Nothing.
        Nothing = "nothing",
        /// The struct is at address 0.
        Struct = "struct",
        /// The length is 0.
        Length = "length",
        /// Bit 63 of the mode.
        Mode = "mode",
        /// COPY and CONTINUE with MODE_WP, which the registration does not have.
        ModeWp = "mode-wp",
        /// A place without a mapping.
        Hole = "hole",
        /// A page that is there.
        Present = "present",
        /// A source that is not mapped.
        Source = "source",
    }
}

impl Wrong {
    /// Whether the ioctl has what is to be wrong.
    fn applies(self, command: Command) -> bool {
        match self {
            Self::Nothing | Self::Struct => true,
            Self::Length | Self::Hole => command.length_at().is_some(),
            Self::Mode => command.mode_at().is_some(),
            Self::ModeWp => command == Command::Copy,
            Self::Present => {
                command.mode_at().is_some() && command.has_result() && command != Command::Register
            }
            Self::Source => matches!(command, Command::Copy | Command::Move),
        }
    }

    /// Makes good words bad; the address of the struct.
    fn spoil(self, command: Command, words: &mut Words) -> usize {
        match self {
            Self::Nothing => {}
            Self::Struct => return 0,
            Self::Length => words[command.length_at().unwrap_or(1)] = 0,
            Self::Mode => words[command.mode_at().unwrap_or(2)] |= 1 << 63,
            Self::ModeWp => words[command.mode_at().unwrap_or(2)] |= 2,
            Self::Hole => words[0] = ELSEWHERE as u64,
            Self::Present => words[0] += PAGE as u64,
            Self::Source => words[1] = (ELSEWHERE + (64 << 20)) as u64,
        }
        ARGUMENT
    }

    /// What it alone leads to: errno, field, and the rank in which it is told.
    fn told(self, command: Command) -> (u8, &'static str, &'static str) {
        let registers = matches!(command, Command::Register | Command::Unregister);
        match self {
            Self::Nothing => (9, "0", "done"),
            Self::Struct => (0, "EFAULT", "untouched"),
            Self::Length | Self::Mode => (1, "EINVAL", "untouched"),
            Self::Hole if registers => (2, "EINVAL", "untouched"),
            Self::Hole if command == Command::Wake => (9, "0", "done"),
            Self::Hole => (2, "ENOENT", "-2"),
            Self::ModeWp => (3, "EINVAL", "-22"),
            Self::Source if command == Command::Move => (2, "ENOENT", "-2"),
            Self::Source => (4, "EFAULT", "-14"),
            Self::Present => (5, "EEXIST", "-17"),
        }
    }
}

/// An ioctl with two wrong things.
#[derive(Clone, Copy, Debug)]
struct Both {
    ground: Ground,
    wrong: (Wrong, Wrong),
}

impl Trial for Both {
    fn axes(&self) -> String {
        let Self { ground, wrong } = self;
        format!("{},wrong={}-and-{}", ground.axes(), wrong.0, wrong.1)
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        let Self { ground, wrong } = self;
        seen.step("set-up");
        let scene = ground.scene(stage, 0)?;
        let waiter = scene
            .park(ground.point(), seen)?
            .ok_or_else(|| Stop::Broken("a ground without a waiter".into()))?;
        let mut words = ground.good(&scene);
        let first = wrong.0.spoil(ground.command, &mut words);
        let at = wrong.1.spoil(ground.command, &mut words).min(first);
        argument_page()?;
        ground.write(&words, ARGUMENT)?;
        seen.step("call");
        seen.fact(ground.command.word(), scene.uffd.raw(ground.command.request(), at));
        if let Some(field) = ground.result(ARGUMENT)? {
            seen.fact("field", field);
        }
        ground.conclude(scene, waiter, seen)
    }

    fn expect(&self, _: KernelVersion) -> Vec<Expected> {
        let Self { ground, wrong } = self;
        let (a, b) = (wrong.0.told(ground.command), wrong.1.told(ground.command));
        let (_, rc, field) = if b.0 < a.0 { b } else { a };
        let says =
            "the order of the checks in userfaultfd_ioctl()'s functions and in mfill_atomic()";
        let verdict = Verdict { rc, field: Some(field.into()), did: Did::Nothing, says };
        verdict.expect(*ground, ground.command.word())
    }

    fn recipe(&self) -> Vec<String> {
        let Self { ground, wrong } = self;
        vec![
            format!("map a {} block of {PAGES} pages, register it, park a waiter", ground.backing),
            format!("{} with two wrong things: {} and {}", ground.command, wrong.0, wrong.1),
            "look at the waiter and at every page".into(),
        ]
    }
}

/// An ioctl with one wrong thing while an event is unread.
#[derive(Clone, Copy, Debug)]
struct Unread {
    ground: Ground,
    wrong: Wrong,
}

impl Unread {
    /// Whether the ioctl minds.
    fn is_refused(self) -> bool {
        use Command::{Register, SetMode, Unregister, Wake};
        !matches!(self.ground.command, Register | Unregister | Wake | SetMode)
    }
}

impl Trial for Unread {
    fn axes(&self) -> String {
        format!("{},wrong={}", self.ground.axes(), self.wrong)
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        let Self { ground, wrong } = self;
        seen.step("set-up");
        let scene = ground.scene(stage, features::EVENT_REMOVE)?;
        let _waiter = scene.park(ground.point(), seen)?;
        let mut words = ground.good(&scene);
        let at = wrong.spoil(ground.command, &mut words);
        argument_page()?;
        ground.write(&words, ARGUMENT)?;
        let mover = Mover::discard(stage, scene.block.range(5..6))?;
        if !mover.blocks_on_event(&scene.uffd)? {
            return Err(Stop::Broken("MADV_DONTNEED raised no event".into()));
        }
        seen.step("call");
        seen.fact(ground.command.word(), scene.uffd.raw(ground.command.request(), at));
        if let Some(field) = ground.result(ARGUMENT)? {
            seen.fact("field", field);
        }
        seen.step("event");
        if *wrong == Wrong::Nothing && ground.command == Command::Wake {
            // Woken, it faults again; poll(2) can't tell its message from the event.
            let deadline = Instant::now() + stage.patience;
            while scene.queue.read()?.pending == 0 {
                if Instant::now() > deadline {
                    return Err(Stop::Hang("the woken waiter did not fault again".into()));
                }
                std::thread::yield_now();
            }
        }
        // A waiter that was woken and faults again is read before the event.
        let mut event = mover::word(scene.uffd.read());
        if event == "pagefault" {
            seen.fact("parked-again", "true");
            event = mover::word(scene.uffd.read());
        }
        seen.fact("event", event);
        seen.fact("madvise", mover.join()?);
        seen.fact("queue", scene.queue.read()?);
        Ok(())
    }

    fn expect(&self, kernel: KernelVersion) -> Vec<Expected> {
        let Self { ground, wrong } = self;
        let says = "commit df2cc96e7701 (4.18): EAGAIN while the mappings of the context change";
        let name = ground.command.word();
        let mut facts = Vec::new();
        if self.is_refused() {
            // The field of a struct at address 0 can't be written.
            let writes = EAGAIN_FIELD.is_known_in(kernel) && ground.command.has_result();
            let (rc, why) = if writes && *wrong == Wrong::Struct {
                ("EFAULT", EAGAIN_FIELD.source)
            } else {
                ("EAGAIN", says)
            };
            facts.push(Expected::new(name, rc, why));
            if ground.command.has_result() {
                let written = writes && *wrong != Wrong::Struct;
                facts.push(Expected::new(
                    "field",
                    if written { "-11" } else { "untouched" },
                    EAGAIN_FIELD.source,
                ));
            }
        } else {
            facts.push(Expected::new(name, wrong.told(ground.command).1, says));
        }
        facts.push(Expected::new("event", "remove", "userfaultfd(2), UFFD_EVENT_REMOVE"));
        facts.push(Expected::new("madvise", "0", "userfaultfd_event_wait_completion()"));
        let woken = *wrong == Wrong::Nothing && ground.command == Command::Unregister;
        facts.push(Expected::new("queue", if woken { "0/0" } else { "1/0" }, says));
        facts
    }

    fn recipe(&self) -> Vec<String> {
        let Self { ground, wrong } = self;
        vec![
            format!(
                "map a {} block of {PAGES} pages and register it with EVENT_REMOVE",
                ground.backing
            ),
            "park a waiter; another thread calls MADV_DONTNEED of page 5 and waits for its event"
                .into(),
            format!("{} with this wrong: {wrong}", ground.command),
            "read the event; look at the queue".into(),
        ]
    }
}

/// The cases.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (ground, plain) in grounds().filter(|(ground, _)| !ground.backing.is_huge()) {
        let command = ground.command;
        let wrongs = || Wrong::ALL.iter().copied().filter(move |wrong| wrong.applies(command));
        // An event thread and a waiter in kernel mode are no other question.
        if !ground.in_kernel {
            for wrong in wrongs() {
                cases.push(Case::trial(&EVENT, Unread { ground, wrong }, plain));
            }
        }
        for (n, first) in wrongs().enumerate().skip(1) {
            for second in wrongs().skip(n + 1) {
                if both_make_sense(first, second) {
                    let wrong = (first, second);
                    cases.push(Case::trial(&ORDER, Both { ground, wrong }, plain));
                }
            }
        }
    }
    cases
}

/// Whether two wrong things can be told apart at all.
fn both_make_sense(first: Wrong, second: Wrong) -> bool {
    let same_word = (first, second) == (Wrong::Hole, Wrong::Present);
    let one_errno = (first, second) == (Wrong::Length, Wrong::Mode);
    !same_word && !one_errno
}
