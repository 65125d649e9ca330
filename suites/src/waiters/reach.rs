//! Which system calls park in a missing page, and which never do.

use super::call::{Call, Ready};
use crate::abi::Range;
use crate::crowd::pause;
use crate::expect::{Expected, OBSERVED};
use crate::memory::{HUGE, ONE_PAGE, PAGE, RW, SPARE, map, tag};
use crate::model::source;
use crate::outcome::{Seen, Stop};
use crate::point::{Backing, Change, Mode, Msg, Op, Point, Waiter as Kind};
use crate::probe::{Case, Probe, Trial};
use crate::scenario::Scene;
use crate::stage::Stage;
use crate::touch;
use crate::waiter::{Access, Fate, Waiter};
use nix::errno::Errno;
use std::time::Instant;
use uffd_results::KernelVersion;

static WAITS: Probe = Probe {
    suite: "waiters",
    name: "system-call",
    statement: "A system call that reaches a missing page parks wherever it does so, and goes on once \
                COPY has filled the page: the control of `never-waits`. Of huge pages mlock2(MLOCK_ONFAULT) \
                does, too.",
    consumers: &["Firecracker, QEMU: devices that read guest memory in system calls", "E2B: Go"],
};
static NEVER: Probe = Probe {
    suite: "waiters",
    name: "never-waits",
    statement: "What only looks at a page, or may not sleep, or reads it for a debugger, or ends a \
                thread, neither parks nor fills the page.",
    consumers: &["CRIU: pagemap and /proc/PID/mem of lazy tasks", "gdb, rr: rr#2852"],
};

#[derive(Debug)]
struct Reach {
    backing: Backing,
    call: Call,
    /// What it returns in the end.
    returns: &'static str,
    /// For those that wait: whether the kernel stores to the page.
    waits: Option<bool>,
}

impl Reach {
    const fn point(&self) -> Point {
        Point {
            backing: self.backing,
            mode: Mode::Missing,
            change: Change::None,
            waiter: Kind::None,
            msg: Msg::Read,
            op: Op::Copy,
        }
    }
}

/// Waits until a thread is gone.
pub(super) fn gone(stage: &Stage, tid: i32) -> Result<(), Stop> {
    let path = format!("/proc/self/task/{tid}");
    let deadline = Instant::now() + stage.patience;
    while std::path::Path::new(&path).exists() {
        pause(deadline, "the thread did not end")?;
    }
    Ok(())
}

impl Trial for Reach {
    fn axes(&self) -> String {
        format!("backing={},call={}", self.backing, self.call.word())
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        seen.step("set-up");
        let scene = Scene::set(stage, self.point())?;
        let spare = Range { start: SPARE, len: PAGE };
        let rc = map(spare, RW, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, None, 0);
        if !rc.is_ok() || touch::store(SPARE, tag::KEPT).is_err() {
            return Err(Stop::Broken(format!("a page beside the block: {rc}")));
        }
        let other = if self.call == Call::CopySource { scene.block.range(4..5) } else { spare };
        let ready = Ready::new(self.call, scene.target(), other, &scene.uffd)?;
        let ends = ready.ends_thread();
        seen.step("call");
        let mut waiter = Waiter::begin(stage, move || ready.go())?;
        let fate = waiter.settle(&scene.uffd, &scene.queue)?;
        if fate == Fate::Ended(Access::Failed(Errno::ENOSYS)) {
            return Err(Stop::Unsupported(format!("{}: ENOSYS", self.call.word())));
        }
        if self.waits.is_none() {
            if ends {
                gone(stage, waiter.tid())?;
            }
            seen.fact("returned", fate);
            seen.fact("queue", scene.queue.read()?);
            return scene.survey(Change::None, seen);
        }
        if fate == Fate::Ended(Access::Failed(Errno::EFAULT)) {
            return Err(Stop::Denied("kernel-mode faults fail on this userfaultfd".into()));
        }
        seen.fact("call", fate);
        if !fate.waits() {
            return Ok(());
        }
        seen.fact("fault", scene.read_fault()?);
        seen.fact("queue", scene.queue.read()?);
        seen.step("copy");
        let (rc, field) = scene.uffd.copy(scene.target(), stage.source, 0);
        seen.fact("copy", rc);
        seen.fact("field", field);
        seen.fact("returned", waiter.look(&scene.uffd, &scene.queue)?);
        seen.fact("queue-after", scene.queue.read()?);
        Ok(())
    }

    fn expect(&self, _: KernelVersion) -> Vec<Expected> {
        if let Some(stores) = self.waits {
            let size = if self.backing.is_huge() { HUGE.to_string() } else { ONE_PAGE.into() };
            return vec![
                Expected::new("call", "again", source::QUEUE),
                Expected::new("fault", if stores { "write@2" } else { "read@2" }, OBSERVED),
                Expected::new("queue", "1/0", source::QUEUE),
                Expected::new("copy", "0", source::COPY),
                Expected::new("field", size, source::COPY),
                Expected::new("returned", self.returns, OBSERVED),
                Expected::new("queue-after", "0/0", source::QUEUE),
            ];
        }
        let says = never(self.call);
        vec![
            Expected::new("returned", self.returns, says),
            Expected::new("queue", "0/0", says),
            Expected::new("reg", "mmmmmm", source::QUEUE),
            Expected::new("pages", "---k--", says),
        ]
    }

    fn recipe(&self) -> Vec<String> {
        let mut steps = vec![
            "map and register a block of 6 pages; write to page 3".into(),
            format!("a thread makes a system call on page 2: {}", self.call.word()),
        ];
        if self.waits.is_some() {
            steps.push("it parks; read its message; UFFDIO_COPY to page 2".into());
            steps.push("what did the call return?".into());
        } else {
            steps.push("what did it return, does anybody wait, is the page there?".into());
        }
        steps
    }

    fn uses_huge_pages(&self) -> bool {
        self.backing.is_huge()
    }
}

/// Who says that the call does not wait.
const fn never(call: Call) -> &'static str {
    match call {
        Call::ProcMemRead | Call::ProcMemWrite => {
            "__access_remote_vm() in mm/memory.c: what can't be had without a fault that may retry is EIO"
        }
        Call::ExitWithRobustList | Call::ExitWithClearTid => {
            "handle_userfault() in fs/userfaultfd.c: a thread that ends (PF_EXITING) does not wait"
        }
        Call::FutexWakeOp | Call::FutexLockPi => {
            "fault_in_user_writeable() in kernel/futex: its fault may not be retried, so it can't wait"
        }
        _ => "the call's man page: it looks at page tables, or takes the address as a number",
    }
}

/// The cases.
pub(super) fn cases(cases: &mut Vec<Case>) {
    for backing in [Backing::Anon, Backing::Shmem, Backing::Private, Backing::SharedAnon] {
        let by_default = matches!(backing, Backing::Anon | Backing::Shmem);
        for (call, returns, stores) in Call::WAIT {
            let waits = Some(*stores);
            let trial = Reach { backing, call: *call, returns, waits };
            cases.push(Case::trial(&WAITS, trial, by_default));
        }
        for (call, returns) in Call::NEVER {
            let trial = Reach { backing, call: *call, returns, waits: None };
            cases.push(Case::trial(&NEVER, trial, by_default));
        }
    }
    // mlock_fixup() passes over huge pages, so nothing says ONFAULT of them when do_mlock() populates.
    for (backing, stores) in [(Backing::HugetlbShared, false), (Backing::HugetlbPrivate, true)] {
        let (call, waits) = (Call::LockOnFault, Some(stores));
        cases.push(Case::trial(&WAITS, Reach { backing, call, returns: "ran", waits }, true));
    }
}
