//! The suite `vcpu`: what `KVM_RUN` does while its guest waits for a page of the block.
//!
//! Here are the questions to a vCPU that waits itself: it has no interrupt controller in the kernel, and its
//! interrupts are off. That COPY resolves the guest's fault, that WAKE of an unmapped page ends `KVM_RUN`, and how a VMM
//! gets a waiting vCPU thread back: by a signal, and by `immediate_exit`.

use super::{Vcpu, VcpuAccess};
use crate::abi::kick;
use crate::change::Prepared;
use crate::expect::{Expected, OBSERVED};
use crate::model::source;
use crate::outcome::{Seen, Stop};
use crate::point::{Backing, Change, Mode, Msg, Op, PAGES, Part, Point, Waiter as Kind};
use crate::probe::{Case, Probe, Routine};
use crate::scenario::Scene;
use crate::stage::Stage;
use crate::waiter::{Access, Fate, Waiter};
use nix::errno::Errno;
use std::sync::Arc;
use uffd_results::KernelVersion;

/// The suite's name, which also says whose cases need KVM.
pub(crate) const SUITE: &str = "vcpu";

pub(super) const VMMS: &[&str] = &[
    "QEMU postcopy: migration/postcopy-ram.c, with KVM",
    "Firecracker and Cloud Hypervisor: restore from a snapshot through userfaultfd",
];

static COPY: Probe = Probe {
    suite: SUITE,
    name: "copy",
    statement: "A vCPU without an interrupt controller in the kernel waits for a missing page itself, and goes on when \
                COPY brings it.",
    consumers: VMMS,
};
static MUNMAP_WAKE: Probe = Probe {
    suite: SUITE,
    name: "munmap-wake",
    statement: "A vCPU that waits itself for a page that is then unmapped waits on; after WAKE its KVM_RUN fails with \
                EFAULT.",
    consumers: VMMS,
};
static SIGNAL: Probe = Probe {
    suite: SUITE,
    name: "signal",
    statement: "A signal ends the KVM_RUN of a vCPU that waits for a page itself (from 6.2 on), and it can \
                wait again.",
    consumers: VMMS,
};
static IMMEDIATE_EXIT: Probe = Probe {
    suite: SUITE,
    name: "immediate-exit",
    statement: "With immediate_exit set KVM_RUN returns EINTR before it touches a page; set while the \
                vCPU waits itself it does nothing.",
    consumers: VMMS,
};

type Run = fn(&Stage, Backing, &mut Seen<'_>) -> Result<(), Stop>;
type Expect = fn(Backing, KernelVersion) -> Vec<Expected>;

/// The suite's cases.
pub(crate) fn cases() -> Vec<Case> {
    let mut cases = alone();
    super::resolved::cases(&mut cases);
    super::interrupted::cases(&mut cases);
    super::emulated::cases(&mut cases);
    super::slots::cases(&mut cases);
    super::guest_memfd::cases(&mut cases);
    cases
}

/// Those whose vCPU has no interrupt controller, and waits itself.
fn alone() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |probe: &'static Probe, ways: &[(&'static str, Run, Expect)], recipe| {
        for (axes, run, expect) in ways {
            for backing in Backing::ALL {
                let routine = Routine { run: *run, expect: *expect, recipe };
                let by_default = Case::own(probe, routine, *backing).by_default;
                let case = Case::with_axis(probe, routine, *backing, axes);
                cases.push(Case { by_default, ..case });
            }
        }
    };
    let [read, write, fetch] = ["access=read", "access=write", "access=fetch"];
    let ways: [(_, Run, Expect); 3] = [
        (read, copy::<READ>, expect_copy::<READ>),
        (write, copy::<WRITE>, expect_copy::<WRITE>),
        (fetch, copy::<FETCH>, expect_copy::<FETCH>),
    ];
    add(&COPY, &ways, COPY_RECIPE);
    let ways: [(_, Run, Expect); 3] = [
        (read, unmapped::<READ>, expect_unmapped::<READ>),
        (write, unmapped::<WRITE>, expect_unmapped::<WRITE>),
        (fetch, unmapped::<FETCH>, expect_unmapped::<FETCH>),
    ];
    add(&MUNMAP_WAKE, &ways, UNMAPPED_RECIPE);
    let ways: [(_, Run, Expect); 3] = [
        (read, signalled::<READ>, expect_signalled::<READ>),
        (write, signalled::<WRITE>, expect_signalled::<WRITE>),
        (fetch, signalled::<FETCH>, expect_signalled::<FETCH>),
    ];
    add(&SIGNAL, &ways, SIGNALLED_RECIPE);
    add(&IMMEDIATE_EXIT, &[("when=before", exit_before, expect_exit_before)], BEFORE_RECIPE);
    add(&IMMEDIATE_EXIT, &[("when=waiting", exit_waiting, expect_exit_waiting)], WAITING_RECIPE);
    cases
}

/// Accesses as parameters of the routines: a case holds plain functions.
const READ: usize = 0;
const WRITE: usize = 1;
const FETCH: usize = 2;

const fn access<const A: usize>() -> VcpuAccess {
    [VcpuAccess::Read, VcpuAccess::Write, VcpuAccess::Fetch][A]
}

/// A registered block in the memory of a guest.
struct Setting<'a> {
    scene: Scene<'a>,
    point: Point,
    vcpu: Arc<Vcpu>,
}

impl<'a> Setting<'a> {
    fn make(
        stage: &'a Stage,
        backing: Backing,
        change: Change,
        access: VcpuAccess,
        seen: &mut Seen<'_>,
    ) -> Result<Self, Stop> {
        seen.step("set-up");
        let point = Point {
            backing,
            mode: Mode::Missing,
            change,
            waiter: Kind::None,
            msg: Msg::Read,
            op: Op::Look,
        };
        let scene = Scene::set(stage, point)?;
        let block = scene.block.range(0..PAGES);
        let vcpu = Arc::new(Vcpu::new(stage, scene.target().start, access, block)?);
        Ok(Self { scene, point, vcpu })
    }

    /// Has a thread call `KVM_RUN`; how it fares.
    fn run(&self) -> Result<(Waiter, Fate), Stop> {
        let vcpu = Arc::clone(&self.vcpu);
        let own = move || match kick::unblock() {
            Ok(()) => vcpu.run().into(),
            Err(errno) => Access::Failed(errno),
        };
        let mut waiter = Waiter::begin(self.scene.stage, own)?;
        let fate = waiter.settle(&self.scene.uffd, &self.scene.queue)?;
        Ok((waiter, fate))
    }

    /// Has a thread call `KVM_RUN`, which must wait for the page; records its message.
    fn park(&self, seen: &mut Seen<'_>) -> Result<Waiter, Stop> {
        seen.step("park");
        match self.run()? {
            (waiter, Fate::Again) => {
                seen.fact("fault", self.scene.read_fault()?);
                Ok(waiter)
            }
            (_, other) => Err(Stop::Broken(format!("the vCPU did not park: {other}"))),
        }
    }

    fn queue(&self, seen: &mut Seen<'_>) -> Result<(), Stop> {
        seen.fact("queue", self.scene.queue.read()?);
        Ok(())
    }
}

const COPY_RECIPE: &[&str] = &[
    "map and register a block of 6 pages, and give it to a guest as memory",
    "KVM_RUN: the guest accesses page 2 and waits",
    "read the message; UFFDIO_COPY of page 2: does KVM_RUN go on to the guest's end?",
];

fn copy<const A: usize>(stage: &Stage, backing: Backing, seen: &mut Seen<'_>) -> Result<(), Stop> {
    let setting = Setting::make(stage, backing, Change::None, access::<A>(), seen)?;
    let mut waiter = setting.park(seen)?;
    seen.step("copy");
    let Setting { scene, point, .. } = setting;
    scene.act(Op::Copy, seen);
    scene.conclude(point, Some(&mut waiter), seen)
}

const RESOLVED: &str = "ioctl_userfaultfd(2), UFFDIO_COPY: it wakes up the thread that waits";

fn fault(access: VcpuAccess) -> Expected {
    let word = if access == VcpuAccess::Write { "write@2" } else { "read@2" };
    Expected::new("fault", word, "ioctl_userfaultfd(2): UFFD_PAGEFAULT_FLAG_WRITE")
}

fn done(access: VcpuAccess) -> &'static str {
    if access == VcpuAccess::Write { "ran" } else { "ran:copied" }
}

fn expect_copy<const A: usize>(_: Backing, _: KernelVersion) -> Vec<Expected> {
    let access = access::<A>();
    let pages = if access == VcpuAccess::Write { "--wk--" } else { "--ck--" };
    vec![
        fault(access),
        Expected::new("copy", "0", RESOLVED),
        Expected::new("waiter", done(access), RESOLVED),
        Expected::new("queue", "0/0", RESOLVED),
        Expected::new("pages", pages, RESOLVED),
    ]
}

const UNMAPPED_RECIPE: &[&str] = &[
    "map and register a block of 6 pages, and give it to a guest as memory",
    "KVM_RUN: the guest accesses page 2 and waits",
    "read the message; munmap of pages 2 and 3",
    "UFFDIO_WAKE of page 2: what does KVM_RUN return?",
];

fn unmapped<const A: usize>(
    stage: &Stage,
    backing: Backing,
    seen: &mut Seen<'_>,
) -> Result<(), Stop> {
    let change = Change::Munmap(Part::Middle);
    let setting = Setting::make(stage, backing, change, access::<A>(), seen)?;
    let change = Prepared::new(stage, change, &setting.scene.block)?;
    let mut waiter = setting.park(seen)?;
    seen.step("change");
    seen.fact("change", change.apply(stage, &setting.scene.block)?);
    let Setting { scene, point, .. } = setting;
    scene.conclude(point, Some(&mut waiter), seen)
}

fn expect_unmapped<const A: usize>(_: Backing, _: KernelVersion) -> Vec<Expected> {
    const BAD: &str = "hva_to_pfn(), kvm_handle_error_pfn() (kvm_handle_bad_page() in 5.10 and 6.1): no mapping at the \
         address is -EFAULT";
    vec![
        fault(access::<A>()),
        Expected::new("change", "0", "munmap(2)"),
        Expected::new("waiter", "asleep", source::QUEUE),
        Expected::new("queue", "1/0", source::QUEUE),
        Expected::new("reg", "mm--mm", "munmap(2)"),
        Expected::new("rescue", "0", source::WAKE),
        Expected::new("rescued", "EFAULT", BAD),
    ]
}

const SIGNALLED_RECIPE: &[&str] = &[
    "map and register a block of 6 pages, and give it to a guest as memory",
    "KVM_RUN: the guest accesses page 2 and waits",
    "read the message; send the vCPU's thread a signal that it handles: does KVM_RUN end?",
    "if so, KVM_RUN again: does it wait again?",
    "UFFDIO_COPY of page 2: does KVM_RUN end, and how?",
    "if the signal ended it only now, KVM_RUN again",
];

fn signalled<const A: usize>(
    stage: &Stage,
    backing: Backing,
    seen: &mut Seen<'_>,
) -> Result<(), Stop> {
    let fail = |e| Stop::Broken(format!("signalling a vCPU: {e:?}"));
    kick::install().map_err(fail)?;
    let setting = Setting::make(stage, backing, Change::None, access::<A>(), seen)?;
    let Setting { scene, .. } = &setting;
    let mut waiter = setting.park(seen)?;
    seen.step("signal");
    kick::send(waiter.tid()).map_err(fail)?;
    let fate = waiter.look_after_signal(&scene.queue)?;
    seen.fact("waiter", stage.word(fate));
    setting.queue(seen)?;
    if let Fate::Ended(_) = fate {
        seen.step("run again");
        let (second, fate) = setting.run()?;
        seen.fact("again", stage.word(fate));
        if !fate.waits() {
            return Ok(());
        }
        seen.fact("again-fault", scene.read_fault()?);
        waiter = second;
    }
    seen.step("copy");
    scene.act(Op::Copy, seen);
    let fate = waiter.look(&scene.uffd, &scene.queue)?;
    seen.fact("resumed", stage.word(fate));
    if fate == Fate::Ended(Access::Failed(Errno::EINTR)) {
        seen.step("run at last");
        seen.fact("last", stage.word(setting.run()?.1));
    }
    Ok(())
}

fn expect_signalled<const A: usize>(_: Backing, kernel: KernelVersion) -> Vec<Expected> {
    const BEFORE: &str = "hva_to_pfn_slow() before 6.2: FAULT_FLAG_KILLABLE, only death interrupts";
    const SINCE: &str =
        "commit 766576874b97 (6.2): the fault of a vCPU waits with FOLL_INTERRUPTIBLE";
    let access = access::<A>();
    let mut facts = vec![fault(access)];
    if kernel < KernelVersion::new(6, 2, 0) {
        let pending = "kvm_vcpu_exit_request(): the signal is still pending";
        facts.extend([
            Expected::new("waiter", "asleep", BEFORE),
            Expected::new("queue", "1/0", BEFORE),
            Expected::new("copy", "0", RESOLVED),
            Expected::new("resumed", "EINTR", pending),
            Expected::new("last", done(access), RESOLVED),
        ]);
    } else {
        facts.extend([
            Expected::new("waiter", "EINTR", SINCE),
            Expected::new("queue", "0/0", SINCE),
            Expected::new("again", "again", SINCE),
            Expected::new("copy", "0", RESOLVED),
            Expected::new("resumed", done(access), RESOLVED),
        ]);
    }
    facts
}

const BEFORE_RECIPE: &[&str] = &[
    "map and register a block of 6 pages, and give it to a guest as memory",
    "set immediate_exit; KVM_RUN: what does it return, and does it raise a fault?",
    "clear it; KVM_RUN: the guest loads from page 2 and waits",
    "UFFDIO_COPY of page 2",
];

fn exit_before(stage: &Stage, backing: Backing, seen: &mut Seen<'_>) -> Result<(), Stop> {
    let setting = Setting::make(stage, backing, Change::None, VcpuAccess::Read, seen)?;
    seen.step("run");
    setting.vcpu.set_immediate_exit(true);
    seen.fact("run", stage.word(setting.run()?.1));
    setting.queue(seen)?;
    setting.vcpu.set_immediate_exit(false);
    let mut waiter = setting.park(seen)?;
    resume(&setting, &mut waiter, seen)
}

/// Places the page and records what the waiter then did.
fn resume(setting: &Setting<'_>, waiter: &mut Waiter, seen: &mut Seen<'_>) -> Result<(), Stop> {
    let Setting { scene, .. } = setting;
    seen.step("copy");
    scene.act(Op::Copy, seen);
    seen.fact("resumed", scene.stage.word(waiter.look(&scene.uffd, &scene.queue)?));
    Ok(())
}

const IMMEDIATE: &str =
    "Documentation/virt/kvm/api.rst, immediate_exit: polled once when KVM_RUN starts";

fn expect_exit_before(_: Backing, _: KernelVersion) -> Vec<Expected> {
    vec![
        Expected::new("run", "EINTR", IMMEDIATE),
        Expected::new("queue", "0/0", IMMEDIATE),
        fault(VcpuAccess::Read),
        Expected::new("resumed", "ran:copied", RESOLVED),
    ]
}

const WAITING_RECIPE: &[&str] = &[
    "map and register a block of 6 pages, and give it to a guest as memory",
    "KVM_RUN: the guest loads from page 2 and waits",
    "read the message; set immediate_exit: does KVM_RUN end?",
    "UFFDIO_COPY of page 2: does KVM_RUN go on to the guest's end?",
];

fn exit_waiting(stage: &Stage, backing: Backing, seen: &mut Seen<'_>) -> Result<(), Stop> {
    let setting = Setting::make(stage, backing, Change::None, VcpuAccess::Read, seen)?;
    let mut waiter = setting.park(seen)?;
    seen.step("set immediate_exit");
    setting.vcpu.set_immediate_exit(true);
    let fate = waiter.look(&setting.scene.uffd, &setting.scene.queue)?;
    seen.fact("waiter", stage.word(fate));
    setting.queue(seen)?;
    resume(&setting, &mut waiter, seen)
}

fn expect_exit_waiting(_: Backing, _: KernelVersion) -> Vec<Expected> {
    vec![
        fault(VcpuAccess::Read),
        Expected::new("waiter", "asleep", IMMEDIATE),
        Expected::new("queue", "1/0", IMMEDIATE),
        Expected::new("resumed", "ran:copied", OBSERVED),
    ]
}
