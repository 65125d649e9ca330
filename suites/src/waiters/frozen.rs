//! Waiters whose cgroup is frozen, as a container that is paused or a task that is dumped.

use super::signal::{Sleep, sleep};
use crate::abi::{Message, REGISTER_MODE_MISSING, Range, Uffd};
use crate::access::Accessor;
use crate::crowd::pause;
use crate::evidence::{QueueFile, ThreadFile};
use crate::expect::Expected;
use crate::group::Group;
use crate::memory::{BLOCK, Block, ONE_PAGE, PAGE};
use crate::model::source;
use crate::outcome::{Seen, Stop};
use crate::point::{Backing, PAGES, Waiter as Kind, axis};
use crate::probe::{Case, Probe, Trial};
use crate::process::{Child, Link};
use crate::scenario::fault_word;
use crate::stage::Stage;
use crate::waiter::Fate;
use std::os::fd::AsFd;
use std::time::Instant;
use uffd_results::KernelVersion;

static FROZEN: Probe = Probe {
    suite: "waiters",
    name: "frozen",
    statement: "When its cgroup is frozen a user-mode waiter leaves the queue without a message; one that \
                waits in the kernel keeps the group from being frozen until its page is there, asleep in \
                get_user_pages() and with message after message elsewhere; told to go on, each faults anew.",
    consumers: &[
        "containers: docker pause, runc pause of what a handler serves",
        "CRIU: freezes what it dumps, which may be restored lazily itself",
    ],
};

axis! {
    /// What is done first once the group is told to freeze.
    First {
        /// UFFDIO_COPY of the page; the group goes on later.
        Copy = "copy",
        /// The group is told to go on; UFFDIO_COPY later.
        Thaw = "thaw",
    }
}

#[derive(Debug)]
struct Frozen {
    backing: Backing,
    waiter: Kind,
    first: First,
}

/// The page that is waited for.
const TARGET: Range = Range { start: BLOCK + 2 * PAGE, len: PAGE };

impl Frozen {
    /// The life of the process that is frozen.
    fn live(&self, stage: &Stage, link: &Link) -> Result<(), Stop> {
        let block = Block::map(self.backing, BLOCK)?;
        let uffd = stage.uffd(0)?;
        uffd.register(block.range(0..PAGES), REGISTER_MODE_MISSING)
            .map_err(|e| Stop::Broken(format!("REGISTER: {e:?}")))?;
        let accessor = Accessor::new(stage, self.waiter, TARGET)?;
        link.say("ready")?;
        link.pass(uffd.as_fd())?;
        link.must_hear("go")?;
        link.say(stage.word(Fate::Ended(accessor.go())))
    }
}

/// Reads one message: the kind of a fault, or `none`.
fn message(uffd: &Uffd) -> Result<String, Stop> {
    match uffd.read() {
        Ok(Message::Pagefault { flags, .. }) => Ok(fault_word(flags)),
        Err(nix::errno::Errno::EAGAIN) => Ok("none".to_owned()),
        other => Err(Stop::Broken(format!("reading a fault: {other:?}"))),
    }
}

/// The process that is frozen, and how it is looked at.
struct Held<'a> {
    stage: &'a Stage,
    group: &'a Group,
    uffd: &'a Uffd,
    queue: &'a QueueFile,
    thread: ThreadFile,
}

impl Held<'_> {
    /// Waits until something is so.
    fn until(&self, what: &str, holds: impl Fn() -> Result<bool, Stop>) -> Result<(), Stop> {
        let deadline = Instant::now() + self.stage.patience;
        while !holds()? {
            pause(deadline, what)?;
        }
        Ok(())
    }

    /// What becomes of the waiter when its group is told to freeze: `frozen`; `asleep` as before, which it
    /// then is at once; `spins`, with messages without end.
    fn freeze(&self) -> Result<&'static str, Stop> {
        const MESSAGES: u32 = 3;
        let before = self.thread.read()?;
        self.group.freeze(true)?;
        let deadline = Instant::now() + self.stage.patience;
        let mut messages = 0;
        loop {
            if self.group.is_frozen()? {
                return Ok("frozen");
            }
            // One that was told and can react is runnable at once, and this file then calls it running.
            if messages == 0 && self.thread.asleep()? == Some(before) {
                return Ok("asleep");
            }
            if self.uffd.read().is_ok() {
                messages += 1;
                if messages == MESSAGES {
                    return Ok("spins");
                }
            }
            pause(deadline, "the group was told to freeze, and nothing came of it")?;
        }
    }
}

impl Trial for Frozen {
    fn axes(&self) -> String {
        format!("backing={},waiter={},first={}", self.backing, self.waiter, self.first)
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        seen.step("set-up");
        let group = Group::freezable(stage.disposable)?;
        let mut child = Child::fork(stage, |link| self.live(stage, link))?;
        child.link().must_hear("ready")?;
        let uffd = Uffd::from_fd(child.link().take()?);
        let queue = QueueFile::open(&uffd)?;
        group.admit(child.pid())?;
        seen.step("park");
        child.link().say("go")?;
        if !child.link().faults_first(&uffd)? {
            return Err(Stop::Broken(format!("no fault: {}", child.link().hear()?)));
        }
        let thread = ThreadFile::of_process(child.pid())?;
        let held = Held { stage, group: &group, uffd: &uffd, queue: &queue, thread };
        held.until("the waiter queued a message and never slept", || {
            Ok(held.thread.asleep()?.is_some())
        })?;
        seen.fact("fault", message(&uffd)?);
        seen.step("freeze");
        let became = held.freeze()?;
        seen.fact("became", became);
        seen.fact("frozen", u8::from(group.is_frozen()?));
        let spins = became == "spins";
        if !spins {
            seen.fact("queue", held.queue.read()?);
            seen.fact("message", message(&uffd)?);
        }
        seen.step("first");
        if self.first == First::Thaw {
            group.freeze(false)?;
            if !spins {
                held.until("no fault after the group went on", || {
                    Ok(held.queue.read()?.pending > 0)
                })?;
                seen.fact("thawed", message(&uffd)?);
            }
        }
        let (rc, field) = uffd.copy(TARGET, stage.source, 0);
        seen.fact("copy", rc);
        seen.fact("field", field);
        if self.first == First::Copy {
            held.until("the group was not frozen after the page came", || group.is_frozen())?;
            seen.fact("frozen-then", u8::from(group.is_frozen()?));
            seen.fact("queue-then", held.queue.read()?);
            group.freeze(false)?;
        }
        seen.step("end");
        seen.fact("last", child.link().hear()?);
        child.finish()?;
        seen.fact("unread", message(&uffd)?);
        Ok(())
    }

    fn expect(&self, _: KernelVersion) -> Vec<Expected> {
        let freezer = "cgroup_freeze_task() in kernel/cgroup/freezer.c wakes as a signal does, and a task is frozen \
                       where it would take one, on its way to user mode";
        let killable = "get_user_pages() faults without FAULT_FLAG_INTERRUPTIBLE: only a deadly signal wakes it";
        let spins = "fault_signal_pending() in a fault of the kernel's is for deadly signals only, and the fault is \
                     taken again";
        let thaws = "cgroup_freeze_task() wakes a task that is to go on whatever it waits for, and who is woken from a \
                     fault takes it again";
        let sleep = sleep(self.waiter);
        let writes = self.waiter.write_faults(self.backing);
        let fault = if writes { "write" } else { "read" };
        let mut facts = vec![Expected::new("fault", fault, source::QUEUE)];
        let mut say = |fact, value: String, says| facts.push(Expected::new(fact, value, says));
        let (became, frozen, says) = match sleep {
            Sleep::User => ("frozen", "1", freezer),
            Sleep::Killable => ("asleep", "0", killable),
            Sleep::Spins => ("spins", "0", spins),
        };
        say("became", became.into(), says);
        say("frozen", frozen.into(), says);
        if sleep != Sleep::Spins {
            let queue = if sleep == Sleep::User { "0/0" } else { "1/0" };
            say("queue", queue.into(), says);
            say("message", "none".into(), says);
        }
        if self.first == First::Thaw && sleep != Sleep::Spins {
            say("thawed", fault.into(), thaws);
        }
        say("copy", "0".into(), source::COPY);
        say("field", ONE_PAGE.into(), source::COPY);
        if self.first == First::Copy {
            say("frozen-then", "1".into(), freezer);
            say("queue-then", "0/0".into(), source::QUEUE);
        }
        say("last", self.waiter.ran("copied"), source::COPY);
        say("unread", "none".into(), source::QUEUE);
        facts
    }

    fn recipe(&self) -> Vec<String> {
        let Self { backing, waiter, first } = self;
        let mut recipe = vec![
            format!("a child maps a {backing} block of {PAGES} pages, registers it and passes the userfaultfd"),
            "put it into a cgroup (version 2) of its own".to_owned(),
            format!("it accesses page 2 ({waiter}) and parks; read its message"),
            "cgroup.freeze is 1: is it frozen (cgroup.events), asleep as before, or do messages come without end?"
                .to_owned(),
        ];
        if *first == First::Copy {
            recipe.push(
                "UFFDIO_COPY of page 2; wait until the group is frozen; cgroup.freeze is 0"
                    .to_owned(),
            );
        } else {
            recipe.push(
                "cgroup.freeze is 0; wait for a message and read it; UFFDIO_COPY of page 2"
                    .to_owned(),
            );
        }
        recipe.push("what did the access return? Is a message left?".to_owned());
        recipe
    }
}

/// The cases.
pub(super) fn cases(cases: &mut Vec<Case>) {
    let waiters = [
        Kind::UserRead,
        Kind::UserWrite,
        Kind::SysRead,
        Kind::SysWrite,
        Kind::VmRead,
        Kind::VmWrite,
        Kind::Mlock,
        Kind::Futex,
    ];
    for backing in [Backing::Anon, Backing::Shmem] {
        for waiter in waiters {
            for first in First::ALL {
                let common = matches!(waiter, Kind::UserRead | Kind::SysRead | Kind::VmRead);
                let by_default = backing == Backing::Anon && common;
                let trial = Frozen { backing, waiter, first: *first };
                cases.push(Case::trial(&FROZEN, trial, by_default));
            }
        }
    }
}
