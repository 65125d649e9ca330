//! A debugger's accesses to another process's registered memory: whether they wait.

use super::owner::{Owner, TARGET, Way};
use super::reach::gone;
use crate::expect::{Expected, OBSERVED};
use crate::model::source;
use crate::outcome::{Seen, Stop};
use crate::point::{Backing, Mode};
use crate::probe::{Case, Probe, Trial};
use crate::scenario::fault_word;
use crate::stage::Stage;
use crate::waiter::{Access, Fate, Waiter};
use nix::errno::Errno;
use uffd_results::KernelVersion;

static DEBUGGER: Probe = Probe {
    suite: "waiters",
    name: "debugger",
    statement: "PTRACE_PEEKDATA, PTRACE_POKEDATA and /proc/PID/mem never wait for a page of another \
                process: they fail with EIO, raise no message and leave a waiter alone but for the \
                stop; once the page is there they work. process_vm_readv(2) and process_vm_writev(2) \
                wait for it, and are the control.",
    consumers: &["gdb, rr: rr#2852", "CRIU: dumping a task that is restored lazily", "delve"],
};

#[derive(Debug)]
struct Debugger {
    backing: Backing,
    mode: Mode,
    way: Way,
    /// Whether the owner itself waits for the page.
    parked: bool,
}

impl Debugger {
    /// Whether the access meets a fault at all.
    const fn faults(&self) -> bool {
        !matches!(self.mode, Mode::Wp) || self.way.stores()
    }
}

impl Trial for Debugger {
    fn axes(&self) -> String {
        let Self { backing, mode, way, .. } = self;
        let owner = if self.parked { "parked" } else { "idle" };
        format!("backing={backing},page={mode},access={way},owner={owner}")
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        seen.step("set-up");
        let owner = Owner::start(stage, self.backing, self.mode, self.parked)?;
        let (way, pid) = (self.way, owner.pid());
        let reach = || Waiter::begin(stage, move || way.reach(pid, TARGET.start));
        seen.step("access");
        let mut tracer = reach()?;
        let mut fate = tracer.settle(&owner.uffd, &owner.queue)?;
        if fate == Fate::Ended(Access::Failed(Errno::EPERM)) {
            return Err(Stop::Denied("the other process may not be traced".into()));
        }
        seen.fact("access", stage.word(fate));
        if fate.waits() {
            match owner.uffd.read() {
                Ok(crate::abi::Message::Pagefault { flags, .. }) => {
                    seen.fact("fault", fault_word(flags));
                }
                other => return Err(Stop::Broken(format!("reading the message: {other:?}"))),
            }
        }
        if self.parked && !fate.waits() {
            seen.fact("queue", owner.waits(stage)?);
        } else {
            seen.fact("queue", owner.queue.read()?);
        }
        seen.step("resolve");
        seen.fact("resolve", owner.resolve(stage, self.mode));
        let ends_alone = self.parked && !fate.waits();
        if ends_alone {
            seen.fact("owner", owner.child.link().hear()?);
        }
        fate = if fate.waits() {
            tracer.look(&owner.uffd, &owner.queue)?
        } else {
            // A tracer lets go when it is gone, and only then can the next one attach.
            gone(stage, tracer.tid())?;
            reach()?.end()?
        };
        seen.fact("then", stage.word(fate));
        seen.fact("page", stage.word(Fate::Ended(Way::VmRead.reach(pid, TARGET.start))));
        if self.parked && !ends_alone {
            // Both have waited for the page: which of them comes first is nobody's choice.
            let word = owner.child.link().hear()?;
            let is_early = word == "wrote" && way.stores();
            seen.fact("owner", if is_early { "copied" } else { &word });
        }
        Ok(())
    }

    fn expect(&self, _: KernelVersion) -> Vec<Expected> {
        let Self { mode, way, parked, .. } = *self;
        let mut facts = Vec::new();
        let mut say =
            |name, value: &'static str, says| facts.push(Expected::new(name, value, says));
        let there = if mode == Mode::Missing { "ran:copied" } else { "ran:kept" };
        let ran = if way.stores() { "ran" } else { there };
        if !self.faults() {
            say("access", ran, source::QUEUE);
            say("queue", "0/0", source::QUEUE);
        } else if way.parks() {
            say("access", "again", source::QUEUE);
            let fault = match (mode, way.stores()) {
                (Mode::Missing, false) => "read",
                (Mode::Missing, true) => "write",
                (Mode::Wp, _) => "wp-write",
                (Mode::Minor, false) => "minor-read",
                (Mode::Minor, true) => "minor-write",
            };
            say("fault", fault, source::QUEUE);
            say("queue", if parked { "2/0" } else { "1/0" }, source::QUEUE);
        } else {
            say("access", "EIO", NEVER);
            // The stop has sent the owner back to its instruction.
            let queue = match (parked, way.stops_owner()) {
                (false, _) => "0/0",
                (true, false) => "1/0",
                (true, true) => "1/1",
            };
            say("queue", queue, NEVER);
        }
        say("resolve", "0", source::COPY);
        if parked && !way.parks() {
            say("owner", "copied", source::COPY);
        }
        say("then", ran, source::COPY);
        say("page", if way.stores() { "ran:wrote" } else { there }, OBSERVED);
        if parked && way.parks() {
            say("owner", "copied", source::COPY);
        }
        facts
    }

    fn recipe(&self) -> Vec<String> {
        let mut steps = vec![format!(
            "a child maps a block of 6 pages, registers it for {} faults and passes the userfaultfd",
            self.mode
        )];
        if self.parked {
            steps.push("it loads from page 2 and parks; its message is read".into());
        }
        steps.extend([
            format!("a thread of the parent reaches page 2 of the child: {}", self.way),
            "what did it return, or does it wait? Who is in the queue?".into(),
            "the page is placed, or its protection lifted; what does the access do then?".into(),
        ]);
        steps
    }
}

const NEVER: &str = "__access_remote_vm() in mm/memory.c: get_user_pages_remote() that may not drop the \
    lock, so its fault may not wait: handle_userfault() returns VM_FAULT_SIGBUS, the caller EIO";

/// The cases.
pub(super) fn cases(cases: &mut Vec<Case>) {
    for backing in [Backing::Anon, Backing::Shmem, Backing::Private] {
        for mode in Mode::ALL {
            if *mode == Mode::Minor && backing != Backing::Shmem {
                continue;
            }
            for way in Way::ALL {
                for parked in [false, true] {
                    if parked && *mode != Mode::Missing {
                        continue;
                    }
                    let by_default = backing != Backing::Private;
                    let trial = Debugger { backing, mode: *mode, way: *way, parked };
                    cases.push(Case::trial(&DEBUGGER, trial, by_default));
                }
            }
        }
    }
}
