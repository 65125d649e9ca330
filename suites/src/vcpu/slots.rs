//! Changes of a guest's memory slots while its vCPU waits for a page.

use super::cases::SUITE;
use super::halted::{Ground, parked};
use super::resolved::recipe;
use super::{CODE, Lapic, TARGET, Vcpu, VcpuAccess, unusable};
use crate::abi::kvm::{Failure, Vm, code_page};
use crate::abi::{REGISTER_MODE_MISSING, Range, Rc};
use crate::crowd::pause;
use crate::evidence::ThreadFile;
use crate::expect::Expected;
use crate::memory::ONE_PAGE;
use crate::model::source;
use crate::mover::Mover;
use crate::outcome::{Seen, Stop};
use crate::point::{Backing, Op, axis};
use crate::probe::{Case, Probe, Trial};
use crate::stage::Stage;
use crate::waiter::{Access, Fate};
use nix::errno::Errno;
use std::sync::Arc;
use std::time::Instant;
use uffd_results::KernelVersion;

static MEMSLOT: Probe = Probe {
    suite: SUITE,
    name: "memslot",
    statement: "While a vCPU waits for a page itself, any change of its VM's memory slots blocks until the page comes; \
                while a worker of the kernel waits for it, the change returns at once.",
    consumers: &[
        "QEMU: accel/kvm/kvm-all.c, kvm_set_user_memory_region(), for RAM that is resized, remapped, plugged in or out",
        "Firecracker and Cloud Hypervisor: memory hotplug, virtio-mem",
    ],
};

axis! {
    /// What happens to the slots.
    What {
        /// The slot of the page that is waited for is deleted.
        Delete = "delete",
        /// That slot moves to another place in the guest.
        Move = "move",
        /// A slot of other memory is added.
        Add = "add",
    }
}

/// Where a slot moves to, and where another one is added.
const MOVED: u64 = TARGET + (1 << 28);
const ADDED: u64 = TARGET + (2 << 28);

/// Ticks of the kernel's clock that a change must sleep through, and a VM beside change its slots in each of them,
/// before it counts as one that sleeps on. A grace period that nobody holds up is over before: it sleeps a few
/// times itself, for 10 ticks at most (SRCU_MAX_INTERVAL in kernel/rcu/srcutree.c), and longer only for readers.
const TICKS: usize = 24;

/// The slots of a vCPU's VM, and a page for one more.
#[derive(Clone, Debug)]
struct Slots {
    vcpu: Arc<Vcpu>,
    memory: Range,
    page: Range,
}

impl Slots {
    fn change(&self, what: What) -> Result<(), Failure> {
        let vm = &self.vcpu.vm;
        match what {
            What::Delete => vm.set_memory(1, TARGET, none(self.memory)),
            What::Move => vm.set_memory(1, MOVED, self.memory),
            What::Add => vm.set_memory(2, ADDED, self.page),
        }
    }

    fn undo(&self, what: What) -> Result<(), Failure> {
        let vm = &self.vcpu.vm;
        match what {
            What::Delete | What::Move => vm.set_memory(1, TARGET, self.memory),
            What::Add => vm.set_memory(2, ADDED, none(self.page)),
        }
    }
}

const fn none(range: Range) -> Range {
    Range { start: range.start, len: 0 }
}

fn rc(done: Result<(), Failure>) -> Rc {
    Rc(done.err().map(|(_, errno)| errno))
}

/// A VM beside, in which nobody waits.
#[derive(Debug)]
struct Beside(Vm, Range);

impl Beside {
    /// Changes its slots, and waits for the next tick of the kernel's clock.
    fn pass_a_tick(&self) -> Result<(), Stop> {
        let Self(vm, page) = self;
        let now = tick()?;
        vm.set_memory(0, CODE, *page)
            .and_then(|()| vm.set_memory(0, CODE, none(*page)))
            .map_err(|(what, e)| Stop::Broken(format!("{what} of a VM beside: {e:?}")))?;
        while tick()? == now {
            std::thread::yield_now();
        }
        Ok(())
    }
}

/// The kernel's clock, as it stood when it last ticked.
fn tick() -> Result<(i64, i64), Stop> {
    let mut at = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call writes to `at`, which is valid.
    let ret = unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC_COARSE, &raw mut at) };
    Errno::result(ret).map_err(|e| Stop::Broken(format!("clock_gettime: {e:?}")))?;
    Ok((at.tv_sec, at.tv_nsec))
}

/// What becomes of the change: what it returned, or `asleep` if it sleeps on for [`TICKS`].
fn settle(stage: &Stage, mover: &Mover, beside: &Beside) -> Result<String, Stop> {
    // There is none any more of a thread that has ended.
    let thread = mover.file();
    let deadline = Instant::now() + stage.patience;
    let (mut slept, mut before) = (0, None);
    loop {
        if mover.returned() {
            return mover.join().map(|rc| rc.to_string());
        }
        let now = sleeping(thread.as_ref().map_err(Clone::clone)?);
        slept = if now.is_some() && now == before { slept + 1 } else { 0 };
        if slept == TICKS {
            return Ok("asleep".into());
        }
        before = now;
        if now.is_some() {
            beside.pass_a_tick()?;
        }
        pause(deadline, "the change neither slept nor returned")?;
    }
}

/// How often the thread ran, if it sleeps in an ioctl; reading fails if it has ended.
fn sleeping(thread: &ThreadFile) -> Option<u64> {
    let in_call = thread.call().is_ok_and(|call| call == Some(libc::SYS_ioctl));
    let now = thread.asleep().ok().flatten().filter(|_| in_call);
    now.map(|thread| thread.runs)
}

#[derive(Debug)]
struct Memslot {
    backing: Backing,
    what: What,
    lapic: Lapic,
}

impl Trial for Memslot {
    fn axes(&self) -> String {
        format!("backing={},what={},lapic={}", self.backing, self.what, self.lapic)
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        seen.step("set-up");
        let Self { backing, what, lapic } = *self;
        let (access, modes) = (VcpuAccess::Read, REGISTER_MODE_MISSING);
        let ground = Ground::make(stage, backing, access, lapic, modes)?;
        let broken = |(what, e): Failure| Stop::Broken(format!("{what}: {e:?}"));
        let beside = Beside(Vm::new().map_err(unusable)?, code_page(&[]).map_err(broken)?);
        let memory =
            ground.vcpu.memory.ok_or_else(|| Stop::Broken("a guest without memory".into()))?;
        let page = code_page(&[]).map_err(broken)?;
        let slots = Slots { vcpu: Arc::clone(&ground.vcpu), memory, page };
        seen.step("change with nobody waiting");
        seen.fact("idle", rc(slots.change(what)));
        slots.undo(what).map_err(broken)?;
        let mut parked = ground.park(seen)?;
        seen.step("change");
        let of_mover = slots.clone();
        let mover = Mover::start(stage, move || rc(of_mover.change(what)))?;
        seen.fact("call", settle(stage, &mover, &beside)?);
        ground.queue("queue", seen)?;
        seen.step("copy");
        ground.scene.act(Op::Copy, seen);
        seen.fact("returned", mover.join()?);
        let fate = ground.look(&mut parked)?;
        seen.fact("waiter", self.word(stage, fate));
        ground.queue("queue-after", seen)?;
        parked.leave(stage)
    }

    fn expect(&self, kernel: KernelVersion) -> Vec<Expected> {
        const SRCU: &str = "kvm_set_memslot() in virt/kvm/kvm_main.c waits for every reader of the old slots \
             (synchronize_srcu_expedited()), and a vCPU reads them while it handles its fault";
        const GONE: &str =
            "no slot at the address is MMIO: Documentation/virt/kvm/api.rst, KVM_EXIT_MMIO";
        let field = if self.backing.is_huge() { "2097152" } else { ONE_PAGE };
        let mut facts = vec![Expected::new("idle", "0", "Documentation/virt/kvm/api.rst")];
        facts.extend(parked(VcpuAccess::Read, self.lapic, kernel));
        let call = if self.lapic == Lapic::None { "asleep" } else { "0" };
        let (waiter, why) = match (self.what, self.lapic) {
            (What::Add, _) => ("ran:copied", source::COPY),
            (_, Lapic::Kernel) => ("exit:6", GONE),
            // The change goes on when the vCPU leaves its fault, and either may be first.
            (_, Lapic::None) => ("ended", SRCU),
        };
        facts.extend([
            Expected::new("call", call, SRCU),
            Expected::new("queue", "1/0", source::QUEUE),
            Expected::new("copy", "0", source::COPY),
            Expected::new("field", field, source::COPY),
            Expected::new("returned", "0", SRCU),
            Expected::new("waiter", waiter, why),
            Expected::new("queue-after", "0/0", source::COPY),
        ]);
        facts
    }

    fn recipe(&self) -> Vec<String> {
        let what = match self.what {
            What::Delete => "delete the block's memory slot",
            What::Move => "move the block's memory slot to another place in the guest",
            What::Add => "add a slot of other memory",
        };
        let mut steps = recipe(VcpuAccess::Read, self.lapic);
        steps.insert(1, format!("{what}, and undo it: nobody waits"));
        steps.extend([
            format!("a thread: {what} (KVM_SET_USER_MEMORY_REGION); does it return?"),
            format!("if it sleeps: change the slots of another VM in each of {TICKS} ticks; does it sleep on?"),
            "UFFDIO_COPY of page 2: what do both calls return?".into(),
        ]);
        steps
    }

    fn uses_huge_pages(&self) -> bool {
        self.backing.is_huge()
    }
}

impl Memslot {
    /// A change that waited races with the guest when both come free: whether the guest still meets the slot is luck.
    fn word(&self, stage: &Stage, fate: Fate) -> String {
        let races = self.lapic == Lapic::None && self.what != What::Add;
        let ended = match fate {
            Fate::Ended(Access::Exit(reason)) => reason == crate::abi::kvm::exit::MMIO,
            Fate::Ended(Access::Ran(_)) => true,
            _ => false,
        };
        if races && ended { "ended".into() } else { stage.word(fate) }
    }
}

/// The cases.
pub(super) fn cases(cases: &mut Vec<Case>) {
    for backing in Backing::ALL.iter().copied() {
        for what in What::ALL.iter().copied() {
            for lapic in [Lapic::Kernel, Lapic::None] {
                let trial = Memslot { backing, what, lapic };
                // A change that waits must be seen to, for as long as a few other cases take.
                let is_dear = lapic == Lapic::None && what == What::Move;
                let by_default = backing == Backing::Anon && !is_dear;
                cases.push(Case::trial(&MEMSLOT, trial, by_default));
            }
        }
    }
}
