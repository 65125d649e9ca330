//! Which number a message has for a thread of another PID namespace.

use super::setting::Setting;
use crate::abi::{Message, REGISTER_MODE_MISSING, Range, Rc, Uffd, features};
use crate::expect::Expected;
use crate::memory::{BLOCK, Block};
use crate::model::source;
use crate::mover::Mover;
use crate::outcome::{Seen, Stop};
use crate::point::{Backing, PAGES, Waiter as Kind, axis};
use crate::probe::{Case, Probe, Trial};
use crate::process::Child;
use crate::scenario::fault_word;
use crate::stage::Stage;
use crate::touch;
use crate::waiter::{Access, Fate};
use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::unistd::Pid;
use std::os::fd::AsFd;
use std::sync::{Arc, OnceLock};
use uffd_results::KernelVersion;

static NAMESPACE: Probe = Probe {
    suite: "handle",
    name: "thread-id-namespace",
    statement: "The thread id of a message is the number of the thread in its own PID namespace: a reader in another \
                one finds somebody else, or nobody, under it.",
    consumers: &[
        "QEMU: blocktime_get_vcpu() in migration/postcopy-ram.c looks for the id among its own threads",
        "Firecracker: jailer --new-pid-ns, with a page fault handler outside, which asks for no ids",
    ],
};

axis! {
    /// Who is in a PID namespace of its own, as its first process.
    Apart {
        /// Nobody: both are in one.
        Nobody = "nobody",
        /// The one that faults.
        Faulter = "faulter",
        /// The one that reads the message.
        Reader = "reader",
        /// Both together, as of a program in a container.
        Both = "both",
    }
}

/// The page that is loaded from.
const PAGE: usize = 2;

/// Has the next child of this process be the first of a new PID namespace. No threads can be made after that.
fn part() -> Result<(), Stop> {
    unshare(CloneFlags::CLONE_NEWPID).map_err(|e| match e {
        Errno::EPERM => Stop::Denied("a new PID namespace needs CAP_SYS_ADMIN".into()),
        Errno::EINVAL => Stop::Unsupported("the kernel has no PID namespaces".into()),
        _ => Stop::Precondition(format!("no new PID namespace here: {e:?}")),
    })
}

/// Reads the message: the kind of access, and the id.
fn read(uffd: &Uffd) -> Result<(String, i32), Stop> {
    match uffd.read() {
        Ok(Message::Pagefault { flags, tid, .. }) => {
            Ok((fault_word(flags), i32::try_from(tid).unwrap_or(-1)))
        }
        other => Err(Stop::Broken(format!("reading the message: {other:?}"))),
    }
}

/// Whom the calling process finds under `tid`; `faulter` is the number by which it knows the one that faulted.
fn found(tid: i32, faulter: Option<i32>) -> Result<&'static str, Stop> {
    match nix::sys::signal::kill(Pid::from_raw(tid), None) {
        Ok(()) | Err(Errno::EPERM) if faulter == Some(tid) => Ok("faulter"),
        Ok(()) | Err(Errno::EPERM) => Ok("another"),
        Err(Errno::ESRCH) => Ok("nobody"),
        Err(e) => Err(Stop::Broken(format!("kill of {tid} without a signal: {e:?}"))),
    }
}

#[derive(Debug)]
struct Namespace {
    apart: Apart,
    asked: bool,
}

impl Namespace {
    fn uffd(&self, stage: &Stage) -> Result<Uffd, Stop> {
        stage.uffd(if self.asked { features::THREAD_ID } else { 0 })
    }

    fn block(&self, stage: &Stage) -> Result<(Block, Uffd), Stop> {
        let (block, uffd) = (Block::map(Backing::Anon, BLOCK)?, self.uffd(stage)?);
        uffd.register(block.range(0..PAGES), REGISTER_MODE_MISSING)
            .map_err(|e| Stop::Broken(format!("REGISTER: {e:?}")))?;
        Ok((block, uffd))
    }

    /// A child faults, and this process reads.
    fn faulting_child(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        if self.apart == Apart::Faulter {
            part()?;
        }
        let mut child = Child::fork(stage, |link| {
            let (block, uffd) = self.block(stage)?;
            link.say(nix::unistd::gettid())?;
            link.pass(uffd.as_fd())?;
            let ended = load(block.range(PAGE..PAGE + 1));
            link.say(stage.word(Fate::Ended(ended)))
        })?;
        let number = child.link().hear()?;
        let uffd = Uffd::from_fd(child.link().take()?);
        seen.step("park");
        if !child.link().faults_first(&uffd)? {
            return Err(Stop::Broken(format!("no fault: {}", child.link().hear()?)));
        }
        let (fault, tid) = read(&uffd)?;
        seen.fact("fault", fault);
        let ours = child.pid();
        seen.fact("tid", whose(tid, &number, Some(ours)));
        if self.asked {
            seen.fact("found", found(tid, Some(ours))?);
        }
        seen.step("copy");
        let page = Range { start: BLOCK + PAGE * crate::memory::PAGE, len: crate::memory::PAGE };
        seen.fact("copy", uffd.copy(page, stage.source, 0).0);
        seen.fact("waiter", child.link().hear()?);
        child.finish()
    }

    /// A thread of this process faults, and a child reads.
    fn reading_child(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        let setting = Setting::new(stage, self.uffd(stage)?)?;
        seen.step("park");
        let mut waiter = setting.park_one(Kind::UserRead, PAGE)?;
        part()?;
        let mut child = Child::fork(stage, |link| {
            let (fault, tid) = read(&setting.uffd)?;
            link.say(fault)?;
            link.say(tid)?;
            link.say(found(tid, None)?)
        })?;
        seen.fact("fault", child.link().hear()?);
        let tid = child.link().hear()?;
        let tid = tid.parse().map_err(|_| Stop::Broken(format!("heard {tid:?}, no number")))?;
        seen.fact("tid", whose(tid, &waiter.tid().to_string(), None));
        let found = child.link().hear()?;
        if self.asked {
            seen.fact("found", found);
        }
        child.finish()?;
        seen.step("copy");
        let page = setting.block.range(PAGE..PAGE + 1);
        seen.fact("copy", setting.uffd.copy(page, stage.source, 0).0);
        seen.fact("waiter", stage.word(waiter.look(&setting.uffd, &setting.queue)?));
        Ok(())
    }

    /// A thread of a child faults, and the child itself reads.
    fn child_alone(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        part()?;
        let mut child = Child::fork(stage, |link| {
            let (block, uffd) = self.block(stage)?;
            let page = block.range(PAGE..PAGE + 1);
            let ended = Arc::new(OnceLock::new());
            let result = Arc::clone(&ended);
            // What a waiter looks up in /proc has the numbers of the namespace above.
            let faulter = Mover::start(stage, move || {
                let _ = result.set(load(page));
                Rc::OK
            })?;
            if !faulter.blocks_on_event(&uffd)? {
                return Err(Stop::Broken("the load raised no fault".into()));
            }
            let (fault, tid) = read(&uffd)?;
            link.say(fault)?;
            link.say(whose(tid, &faulter.tid().to_string(), Some(faulter.tid())))?;
            link.say(found(tid, Some(faulter.tid()))?)?;
            link.say(uffd.copy(page, stage.source, 0).0)?;
            faulter.join()?;
            let ended = ended.get().copied().unwrap_or(Access::Failed(Errno::ENODATA));
            link.say(stage.word(Fate::Ended(ended)))
        })?;
        seen.step("park");
        seen.fact("fault", child.link().hear()?);
        seen.fact("tid", child.link().hear()?);
        let found = child.link().hear()?;
        if self.asked {
            seen.fact("found", found);
        }
        seen.step("copy");
        seen.fact("copy", child.link().hear()?);
        seen.fact("waiter", child.link().hear()?);
        child.finish()
    }
}

/// Whose number the id is: `faulter` is the one by which the one that faulted knows itself, `reader` the one by
/// which the reader does.
fn whose(tid: i32, faulter: &str, reader: Option<i32>) -> &'static str {
    match (tid, tid.to_string() == faulter, Some(tid) == reader) {
        (0, ..) => "zero",
        (_, true, true) => "both",
        (_, true, false) => "of-faulter",
        (_, false, true) => "of-reader",
        _ => "other",
    }
}

fn load(page: Range) -> Access {
    touch::load(page.start).map_or_else(Access::Signal, |value| Access::Ran(Some(value)))
}

impl Trial for Namespace {
    fn axes(&self) -> String {
        format!("feature={},apart={}", if self.asked { "on" } else { "off" }, self.apart)
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        seen.step("set-up");
        match self.apart {
            Apart::Nobody | Apart::Faulter => self.faulting_child(stage, seen),
            Apart::Reader => self.reading_child(stage, seen),
            Apart::Both => self.child_alone(stage, seen),
        }
    }

    fn expect(&self, _: KernelVersion) -> Vec<Expected> {
        const ID: &str = "userfault_msg() in fs/userfaultfd.c: task_pid_vnr(current), the number in the PID \
             namespace of the thread that faults; who reads is not known then";
        const OFF: &str = "ioctl_userfaultfd(2), UFFD_FEATURE_THREAD_ID (4.14)";
        const NUMBERS: &str = "pid_namespaces(7): a process has a number in its own namespace and in each one above, \
             and a new namespace counts from 1";
        let mut facts = vec![Expected::new("fault", "read", source::QUEUE)];
        if self.asked {
            let (tid, found) = match self.apart {
                Apart::Nobody | Apart::Both => ("both", "faulter"),
                Apart::Faulter => ("of-faulter", "another"),
                Apart::Reader => ("of-faulter", "nobody"),
            };
            facts.push(Expected::new("tid", tid, ID));
            facts.push(Expected::new("found", found, NUMBERS));
        } else {
            facts.push(Expected::new("tid", "zero", OFF));
        }
        facts.push(Expected::new("copy", "0", source::COPY));
        facts.push(Expected::new("waiter", "ran:copied", source::COPY));
        facts
    }

    fn recipe(&self) -> Vec<String> {
        let feature = if self.asked { "with" } else { "without" };
        let (faulter, reader) = match self.apart {
            Apart::Nobody => ("a child", "its parent, in the same PID namespace,"),
            Apart::Faulter => ("a child, the first process of a new PID namespace,", "its parent"),
            Apart::Reader => ("a thread", "a child, the first process of a new PID namespace,"),
            Apart::Both => ("a thread of the first process of a new PID namespace", "that process"),
        };
        vec![
            format!(
                "{faulter} loads from page 2 of its block, registered {feature} UFFD_FEATURE_THREAD_ID, and parks"
            ),
            format!(
                "{reader} reads the message: whose number has it, and whom does the reader find under that?"
            ),
            "UFFDIO_COPY of page 2".into(),
        ]
    }
}

/// The cases.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for apart in Apart::ALL.iter().copied() {
        for asked in [false, true] {
            cases.push(Case::trial(&NAMESPACE, Namespace { apart, asked }, true));
        }
    }
    cases
}
