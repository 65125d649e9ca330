//! Signals to a waiter: who runs the handler, who sleeps on, who faults again and again.

use crate::access::Accessor;
use crate::crowd::pause;
use crate::evidence::ThreadFile;
use crate::expect::{Expected, OBSERVED};
use crate::model::source;
use crate::outcome::{Seen, Stop};
use crate::point::{Backing, Change, Mode, Msg, Op, Point, Waiter as Kind};
use crate::probe::{Case, Probe, Trial};
use crate::scenario::Scene;
use crate::stage::Stage;
use crate::waiter::{Fate, Waiter};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;
use uffd_results::KernelVersion;

static SIGNALS: Probe = Probe {
    suite: "waiters",
    name: "signal",
    statement: "A handled signal runs its handler in a waiter that faulted in user mode, which then \
                parks anew; get_user_pages() sleeps through it; any other kernel-mode fault is taken \
                again and again until the page is there.",
    consumers: &[
        "QEMU: SIG_IPI to a vCPU",
        "Go and JVM programs: preemption by signals",
        "E2B orchestrator: Go threads in faults",
    ],
};

/// What the thread does with the signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    Handled,
    /// With SA_RESTART.
    Restart,
    /// Two signals, one after the other.
    Twice,
    Ignored,
    Blocked,
    /// The default action, which for this signal is to ignore it.
    Default,
}

impl How {
    const ALL: [Self; 6] =
        [Self::Handled, Self::Restart, Self::Twice, Self::Ignored, Self::Blocked, Self::Default];

    const fn word(self) -> &'static str {
        match self {
            Self::Handled => "handled",
            Self::Restart => "handled-restart",
            Self::Twice => "handled-twice",
            Self::Ignored => "ignored",
            Self::Blocked => "blocked",
            Self::Default => "default-ignore",
        }
    }

    const fn runs_handler(self) -> u32 {
        match self {
            Self::Handled | Self::Restart => 1,
            Self::Twice => 2,
            Self::Ignored | Self::Blocked | Self::Default => 0,
        }
    }

    /// SIGURG is ignored by default.
    const fn signal(self) -> i32 {
        if matches!(self, Self::Default) { libc::SIGURG } else { libc::SIGUSR1 }
    }
}

static HANDLED: AtomicU32 = AtomicU32::new(0);

extern "C" fn on_signal(_: i32) {
    HANDLED.fetch_add(1, Ordering::Relaxed);
}

/// Installs what the process does with the signal.
fn dispose(how: How) -> Result<(), Stop> {
    let (handler, flags) = match how {
        How::Handled | How::Twice | How::Blocked => (on_signal as *const () as usize, 0),
        How::Restart => (on_signal as *const () as usize, libc::SA_RESTART),
        How::Ignored => (libc::SIG_IGN, 0),
        How::Default => (libc::SIG_DFL, 0),
    };
    // SAFETY: an all-zero sigaction is valid; the handler only adds to a counter.
    let ret = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler;
        action.sa_flags = flags;
        libc::sigaction(how.signal(), &raw const action, std::ptr::null_mut())
    };
    if ret == 0 { Ok(()) } else { Err(Stop::Broken("sigaction".into())) }
}

/// Lets the calling thread get the signal; only the thread itself can.
pub(crate) fn admit(signal: i32) {
    // SAFETY: plain changes of a set on the stack and of this thread's mask.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, signal);
        libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const set, std::ptr::null_mut());
    }
}

pub(super) fn send(tid: i32, signal: i32) -> Result<(), Stop> {
    // SAFETY: takes plain numbers.
    let ret = unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), tid, signal) };
    if ret == 0 { Ok(()) } else { Err(Stop::Broken("tgkill".into())) }
}

#[derive(Debug)]
struct Signalled {
    backing: Backing,
    kind: Kind,
    how: How,
}

/// How a waiter of this kind sleeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sleep {
    /// In user mode: a signal sends it to its handler.
    User,
    /// In get_user_pages(): only a fatal signal wakes it.
    Killable,
    /// In a system call's access of user memory.
    Spins,
}

pub(super) const fn sleep(kind: Kind) -> Sleep {
    match kind {
        Kind::None | Kind::UserRead | Kind::UserWrite => Sleep::User,
        Kind::SysRead | Kind::SysWrite | Kind::Futex => Sleep::Spins,
        Kind::VmRead
        | Kind::VmWrite
        | Kind::PopulateRead
        | Kind::PopulateWrite
        | Kind::Mlock
        | Kind::DirectRead
        | Kind::DirectWrite
        | Kind::VcpuRead
        | Kind::VcpuWrite
        | Kind::VcpuFetch
        | Kind::MemRead
        | Kind::MemWrite => Sleep::Killable,
    }
}

/// Has [`effect`]'s signal handled.
pub(crate) fn handle() -> Result<i32, Stop> {
    dispose(How::Handled).map(|()| How::Handled.signal())
}

/// How often the handler has run.
pub(crate) fn handled() -> u32 {
    HANDLED.load(Ordering::Relaxed)
}

/// What a signal does to a waiter: `again` parked anew, `asleep`, `spins` messages come without end,
/// `ended`. `handled` is how often the handler ran before.
pub(crate) fn effect(
    scene: &Scene<'_>,
    waiter: &mut Waiter,
    (signal, in_kernel): (i32, bool),
    handled: u32,
) -> Result<&'static str, Stop> {
    let thread = ThreadFile::open(waiter.tid())?;
    let before = thread.read()?;
    send(waiter.tid(), signal)?;
    let deadline = Instant::now() + scene.stage.patience;
    let mut messages = 0;
    loop {
        // A woken thread is runnable at once, and this file then calls it running.
        if thread.is_off_cpu()? && messages == 0 {
            let now = thread.read()?;
            let queue = scene.queue.read()?;
            if now == before && (queue.total, queue.pending) == (1, 0) {
                return Ok("asleep");
            }
        }
        if HANDLED.load(Ordering::Relaxed) > handled {
            return match waiter.settle(&scene.uffd, &scene.queue)? {
                Fate::Again => Ok("again"),
                Fate::Ended(_) => Ok("ended"),
                Fate::Asleep => Ok("asleep"),
                Fate::Spins => Ok("spins"),
            };
        }
        // Only one that faulted in the kernel brings messages before its handler has run.
        if in_kernel && scene.uffd.read().is_ok() {
            messages += 1;
            if messages == 3 {
                return Ok("spins");
            }
        }
        pause(deadline, "the signal had no end")?;
    }
}

impl Trial for Signalled {
    fn axes(&self) -> String {
        format!("backing={},waiter={},signal={}", self.backing, self.kind, self.how.word())
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        seen.step("set-up");
        let point = Point {
            backing: self.backing,
            mode: Mode::Missing,
            change: Change::None,
            waiter: Kind::None,
            msg: Msg::Read,
            op: Op::Copy,
        };
        let scene = Scene::set(stage, point)?;
        dispose(self.how)?;
        let accessor = Accessor::new(stage, self.kind, scene.target())?;
        let (how, kind) = (self.how, self.kind);
        seen.step("park");
        let mut waiter = Waiter::begin(stage, move || {
            if how != How::Blocked {
                admit(how.signal());
            }
            accessor.go()
        })?;
        match waiter.settle(&scene.uffd, &scene.queue)? {
            Fate::Again => {}
            Fate::Ended(end) if end.to_string() == "EINVAL" => {
                return Err(Stop::Unsupported("madvise(MADV_POPULATE_*): EINVAL (5.14)".into()));
            }
            other => return Err(Stop::Broken(format!("the waiter did not park: {other}"))),
        }
        seen.fact("fault", scene.read_fault()?);
        seen.step("signal");
        let signal = (how.signal(), kind.in_kernel());
        seen.fact("signal", effect(&scene, &mut waiter, signal, 0)?);
        if how == How::Twice {
            while scene.uffd.read().is_ok() {}
            seen.fact("signal-2", effect(&scene, &mut waiter, signal, 1)?);
        }
        seen.step("copy");
        let (rc, field) = scene.uffd.copy(scene.target(), stage.source, 0);
        seen.fact("copy", rc);
        seen.fact("field", field);
        seen.fact("waiter", stage.word(waiter.end()?));
        seen.fact("handled", handled());
        seen.fact("queue", scene.queue.read()?);
        Ok(())
    }

    fn expect(&self, _: KernelVersion) -> Vec<Expected> {
        let Self { backing, kind, how } = *self;
        let write = if kind.write_faults(backing) { "write@2" } else { "read@2" };
        let (effect, says) = match (how.runs_handler(), sleep(kind)) {
            (0, _) => ("asleep", "signal(7): what is blocked or ignored wakes nobody"),
            (_, Sleep::User) => ("again", INTERRUPTIBLE),
            (_, Sleep::Killable) => ("asleep", KILLABLE),
            (_, Sleep::Spins) => ("spins", SPINS),
        };
        let mut facts = vec![
            Expected::new("fault", write, source::QUEUE),
            Expected::new("signal", effect, says),
        ];
        if how == How::Twice {
            facts.push(Expected::new("signal-2", effect, says));
        }
        let fate = if kind.loads() { "ran:copied" } else { "ran" };
        // Signals of one number that wait for their handler are one.
        let handled = match (how.runs_handler(), sleep(kind)) {
            (2, Sleep::Killable | Sleep::Spins) => 1,
            (n, _) => n,
        };
        let bytes = if backing.is_huge() { crate::memory::HUGE } else { crate::memory::PAGE };
        facts.extend([
            Expected::new("copy", "0", source::COPY),
            Expected::new("field", bytes.to_string(), source::COPY),
            Expected::new("waiter", fate, source::COPY),
            Expected::new("handled", handled.to_string(), OBSERVED),
            Expected::new("queue", "0/0", source::QUEUE),
        ]);
        facts
    }

    fn recipe(&self) -> Vec<String> {
        vec![
            "map and register a block of 6 pages".into(),
            format!("a thread ({}) accesses page 2 and parks; read its message", self.kind),
            format!("tgkill(2) of the thread with a signal that is {}", self.how.word()),
            "did it sleep on, park anew after its handler, or send message after message?".into(),
            "UFFDIO_COPY to page 2; wait for the access to end".into(),
        ]
    }

    fn uses_huge_pages(&self) -> bool {
        self.backing.is_huge()
    }
}

const INTERRUPTIBLE: &str = "userfaultfd_get_blocking_state() in fs/userfaultfd.c: a user-mode fault \
    sleeps interruptibly; after the handler the access faults anew";
const KILLABLE: &str = "faultin_page() in mm/gup.c: without FOLL_INTERRUPTIBLE the fault sleeps \
    killably";
pub(crate) const SPINS: &str = "fault_signal_pending() in include/linux/sched/signal.h: only a fatal signal ends \
    a fault in kernel mode, yet it sleeps interruptibly: it returns and faults again";

/// The cases.
pub(super) fn cases(cases: &mut Vec<Case>) {
    for backing in Backing::ALL {
        for kind in Kind::TASKS.iter().filter(|kind| **kind != Kind::None) {
            for how in How::ALL {
                let by_default = match backing {
                    Backing::Anon => true,
                    Backing::Shmem => how == How::Handled,
                    _ => false,
                };
                let trial = Signalled { backing: *backing, kind: *kind, how };
                cases.push(Case::trial(&SIGNALS, trial, by_default));
            }
        }
    }
}
