//! What a signal, or the end of a process, makes of a COPY that waits for its source.

use super::own::{empty, page};
use super::stopped::{GATE, Gate, leak, map_page, write_words};
use crate::abi::{Field, Range, Request, Uffd, Way};
use crate::events::ground::{Ground, MISSING};
use crate::evidence::QueueFile;
use crate::expect::Expected;
use crate::memory::{self, ONE_PAGE, OTHER, PAGE, RW, TWO_PAGES, tag};
use crate::model::source as says;
use crate::outcome::{Seen, Stop};
use crate::point::{Backing, Waiter as Kind, axis};
use crate::probe::{Case, Probe, Trial};
use crate::process::{self, Child, Link, Twin};
use crate::stage::Stage;
use crate::touch;
use crate::waiter::{Fate, Waiter};
use uffd_results::KernelVersion;

static SHARING: Probe = Probe {
    suite: "races",
    name: "copy-killed-sharing",
    statement: "The same of a COPY by a process that shares the memory and nothing else: what it fills \
                outlives it.",
    consumers: &[
        "whoever serves faults from a process made with CLONE_VM, as CRIU's restorer does",
    ],
};
static KILLED: Probe = Probe {
    suite: "races",
    name: "copy-killed",
    statement: "SIGKILL ends a COPY that waits for its source with EFAULT, and nothing is placed of that \
                page; the pages before it are placed, counted and woken all the same; any other signal \
                lets it fault again, and is taken when it has returned.",
    consumers: &[
        "Firecracker UFFD handlers: a handler that is killed while it serves a fault",
        "CRIU lazy-pages: the daemon's death, criu/uffd.c",
        "E2B orchestrator: teardown while a COPY is under way",
    ],
};
axis! {
    /// Who copies.
    Who {
        /// Another process, from memory of its own.
        Handler = "handler",
        /// A process that shares the memory and nothing else.
        Twin = "sharing-memory",
    }
}

axis! {
    /// What becomes of it.
    How {
        /// Its source is served: the control.
        Served = "served",
        /// It is killed.
        Kill = "sigkill",
        /// It takes a signal; then its source is served.
        Signal = "signal",
    }
}

axis! {
    /// How much it copies.
    Span {
        /// A page, whose source is missing.
        One = "one",
        /// Two pages; the second one's source is missing.
        Second = "second-of-two",
    }
}

#[derive(Debug)]
struct Killed {
    backing: Backing,
    who: Who,
    how: How,
    span: Span,
}

/// Where the COPY's struct lies, in memory that both processes share.
const STRUCT: Range = Range { start: OTHER, len: PAGE };

impl Span {
    const fn count(self) -> usize {
        match self {
            Self::One => 1,
            Self::Second => 2,
        }
    }

    /// Where the source begins: the missing page is its last.
    const fn source(self) -> usize {
        GATE.start - (self.count() - 1) * PAGE
    }
}

/// Maps the source: before the missing page one with content.
fn map_source() -> Result<(), Stop> {
    map_page(GATE)?;
    let before = Range { start: GATE.start - PAGE, len: PAGE };
    map_page(before)?;
    touch::store(before.start, tag::COPIED)
        .map_err(|signal| Stop::Broken(format!("writing a source: {signal}")))
}

/// The process that copies.
enum Copier {
    Child(Child),
    Twin(Twin),
}

impl Killed {
    fn words(&self) -> [u64; 5] {
        let target = Range { len: self.span.count() * PAGE, ..page(MISSING) };
        Request::Copy.words(target, self.span.source())
    }

    /// What the other process does with memory of its own.
    fn handle(&self, stage: &Stage, uffd: &Uffd, link: &Link) -> Result<(), Stop> {
        map_source()?;
        let gate = Gate::shut(stage, crate::abi::REGISTER_MODE_MISSING)?;
        write_words(STRUCT, self.words())?;
        process::unblock();
        link.pass(std::os::fd::AsFd::as_fd(&gate.uffd))?;
        let rc = uffd.raw(Request::Copy.command().request(), STRUCT.start);
        link.say(format!("{rc}+{}", process::caught()))
    }

    /// Starts the process; once it has parked, with its message read.
    fn start(&self, stage: &Stage, ground: &Ground<'_>) -> Result<(Copier, Uffd, QueueFile), Stop> {
        let (copier, uffd) = match self.who {
            Who::Handler => {
                let child = Child::fork(stage, |link| self.handle(stage, &ground.uffd, link))?;
                let uffd = Uffd::from_fd(child.link().take()?);
                if !child.link().faults_first(&uffd)? {
                    let said = child.link().hear()?;
                    return Err(Stop::Denied(format!("kernel-mode faults are not caught: {said}")));
                }
                (Copier::Child(child), uffd)
            }
            Who::Twin => {
                map_source()?;
                let gate = Gate::shut(stage, crate::abi::REGISTER_MODE_MISSING)?;
                write_words(STRUCT, self.words())?;
                let uffd = leak(&ground.uffd)?;
                let request = Request::Copy.command().request();
                let twin = Twin::start(stage, move || uffd.raw(request, STRUCT.start).is_ok())?;
                twin.wait_until(stage, || Ok(gate.queue.read()?.total == 1))?;
                (Copier::Twin(twin), gate.uffd)
            }
        };
        let queue = QueueFile::open(&uffd)?;
        uffd.read().map_err(|e| Stop::Broken(format!("the COPY's fault: {e:?}")))?;
        Ok((copier, uffd, queue))
    }

    fn end(
        &self,
        stage: &Stage,
        copier: &mut Copier,
        gate: &Uffd,
        seen: &mut Seen<'_>,
    ) -> Result<(), Stop> {
        match (copier, self.how) {
            (Copier::Child(child), How::Kill) => {
                child.kill()?;
                seen.fact("ended", child.wait()?);
            }
            (Copier::Twin(twin), How::Kill) => {
                twin.kill()?;
                seen.fact("ended", twin.wait(stage)?);
            }
            (Copier::Twin(twin), _) => {
                seen.fact("source", gate.copy(GATE, stage.source, 0).0);
                seen.fact("ended", twin.wait(stage)?);
            }
            (Copier::Child(child), how) => {
                if how == How::Signal {
                    nix::sys::signal::kill(
                        nix::unistd::Pid::from_raw(child.pid()),
                        nix::sys::signal::Signal::SIGUSR1,
                    )
                    .map_err(|e| Stop::Broken(format!("kill: {e:?}")))?;
                    seen.fact("faults-first", child.link().faults_first(gate)?);
                }
                seen.fact("source", gate.copy(GATE, stage.source, 0).0);
                seen.fact("copy", child.link().hear()?);
                seen.fact("ended", child.wait()?);
            }
        }
        Ok(())
    }
}

impl Trial for Killed {
    fn axes(&self) -> String {
        let Self { backing, how, span, .. } = self;
        format!("backing={backing},how={how},span={span}")
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        seen.step("set-up");
        if stage.way == Ok(Way::UserModeOnly) {
            return Err(Stop::Denied("kernel-mode faults are not caught here".into()));
        }
        process::catch(false)?;
        let shared = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
        let rc = memory::map(STRUCT, RW, shared, None, 0);
        if !rc.is_ok() {
            return Err(Stop::Broken(format!("mapping a shared page: {rc}")));
        }
        let ground = Ground::set(stage, self.backing, 0)?;
        let mut targets = vec![MISSING];
        if self.span == Span::Second {
            empty(&ground.block)?;
            targets.push(MISSING + 1);
        }
        let mut waiters = Vec::new();
        for target in targets {
            let range = page(target);
            waiters.push(Waiter::park_beside(stage, Kind::UserRead, range, &ground.queue)?);
            ground.read();
        }
        seen.step("copy");
        let (mut copier, gate, queue) = self.start(stage, &ground)?;
        let asleep = waiters.iter().map(Waiter::look_alone).collect::<Result<Vec<_>, _>>()?;
        let all = asleep.iter().all(|fate| *fate == Fate::Asleep);
        seen.fact("waiting", if all { "all" } else { "not-all" });
        seen.step("end");
        self.end(stage, &mut copier, &gate, seen)?;
        seen.fact("source-queue", queue.read()?);
        let raw = touch::load(STRUCT.start + 8 * Request::Copy.result_word().unwrap_or(0))
            .map_err(|signal| Stop::Broken(format!("reading a struct: {signal}")))?;
        seen.fact("field", Field(raw.cast_signed()));
        let names = ["waiter", "second-waiter"];
        for (name, waiter) in names.into_iter().zip(&waiters) {
            seen.fact(name, stage.word(waiter.look_alone()?));
        }
        seen.fact("pages", ground.pages()?);
        // Nothing is left behind of the page that was not placed.
        let last = page(MISSING + self.span.count() - 1);
        seen.fact("copy-again", ground.uffd.copy(last, stage.source, 0).0);
        if let Some(waiter) = waiters.last() {
            seen.fact("last-waiter", stage.word(waiter.end()?));
        }
        Ok(())
    }

    fn expect(&self, _: KernelVersion) -> Vec<Expected> {
        let Self { who, how, span, .. } = *self;
        let fatal = "handle_userfault() returns VM_FAULT_RETRY; fault_signal_pending(): a fault in kernel \
                     mode ends for a fatal signal only, and copy_from_user() comes up short";
        let partly = "mfill_atomic() returns what it has copied; userfaultfd_copy() then writes the field \
                      and wakes, in a process that is being killed as well";
        let served = how != How::Kill;
        let two = span == Span::Second;
        let mut facts = vec![Expected::new("waiting", "all", partly)];
        if how == How::Signal {
            facts.push(Expected::new("faults-first", "true", fatal));
        }
        if served {
            facts.push(Expected::new("source", "0", says::COPY));
            if who == Who::Handler {
                let caught = if how == How::Signal { "0+1" } else { "0+0" };
                facts.push(Expected::new("copy", caught, "signal(7)"));
            }
        }
        let field = match (served, two) {
            (true, true) => TWO_PAGES,
            (false, false) => "-14",
            _ => ONE_PAGE,
        };
        let fate = |placed: bool| if placed { "ran:copied" } else { "asleep" };
        facts.extend([
            Expected::new("ended", if served { "exit:0" } else { "killed:SIGKILL" }, "signal(7)"),
            Expected::new("source-queue", "0/0", fatal),
            Expected::new("field", field, partly),
            Expected::new("waiter", fate(served || two), partly),
        ]);
        if two {
            facts.push(Expected::new("second-waiter", fate(served), partly));
        }
        let pages = match (served, two) {
            (true, false) => "kkckkk",
            (true, true) => "kkcckk",
            (false, false) => "kk-kkk",
            (false, true) => "kkc-kk",
        };
        facts.extend([
            Expected::new("pages", pages, partly),
            Expected::new("copy-again", if served { "EEXIST" } else { "0" }, partly),
            Expected::new("last-waiter", "ran:copied", says::COPY),
        ]);
        facts
    }

    fn recipe(&self) -> Vec<String> {
        let Self { backing, who, how, span } = self;
        vec![
            format!("map and register a block of 6 pages ({backing}), page 2 missing, or 2 and 3"),
            "a thread loads from each missing page and parks; the messages are read".to_owned(),
            "register the last page of the source with a second userfaultfd".to_owned(),
            format!("who copies ({who}): UFFDIO_COPY of {span} to page 2; it parks on its source"),
            format!("what becomes of it: {how}"),
            "look at the result field, which lies in shared memory, at the waiters and at every page; \
             UFFDIO_COPY of the last page again"
                .to_owned(),
        ]
    }
}

/// The cases.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for backing in [Backing::Anon, Backing::Shmem, Backing::Private] {
        let by_default = backing != Backing::Private;
        for who in Who::ALL {
            let probe = if *who == Who::Twin { &SHARING } else { &KILLED };
            for how in How::ALL {
                // A process that shares the memory shares what the C library keeps for a thread.
                if (*who, *how) == (Who::Twin, How::Signal) {
                    continue;
                }
                for span in Span::ALL {
                    let trial = Killed { backing, who: *who, how: *how, span: *span };
                    cases.push(Case::trial(probe, trial, by_default));
                }
            }
        }
    }
    cases
}
