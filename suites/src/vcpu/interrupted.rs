//! Signals to a vCPU whose page a worker of the kernel waits for, and the death of its process.

use super::cases::{SUITE, VMMS};
use super::halted::{ASYNC, Ground, Sleeper, lone_child, parked};
use super::resolved::recipe;
use super::{Lapic, VcpuAccess, VcpuEnd};
use crate::abi::{REGISTER_MODE_MISSING, Rc, kick};
use crate::crowd::pause;
use crate::expect::Expected;
use crate::memory::{BLOCK, ONE_PAGE, PAGE as BYTES};
use crate::model::source;
use crate::mover::{self, Mover};
use crate::outcome::{Seen, Stop};
use crate::point::{Backing, Op};
use crate::probe::{Case, Probe, Trial};
use crate::stage::Stage;
use crate::waiter::Fate;
use nix::errno::Errno;
use std::sync::{Arc, OnceLock};
use std::time::Instant;
use uffd_results::KernelVersion;

static SIGNAL: Probe = Probe {
    suite: SUITE,
    name: "async-signal",
    statement: "A signal ends the KVM_RUN of a vCPU that is halted while a worker of the kernel waits for its page; \
                the worker waits on, and the next KVM_RUN sleeps without a message of its own until the page comes.",
    consumers: VMMS,
};
static KILLED: Probe = Probe {
    suite: SUITE,
    name: "async-killed",
    statement: "A process that is killed ends although its vCPU waits; a worker of the kernel that waits for the page \
                waits on, and the memory stays and can be filled until it is served.",
    consumers: VMMS,
};

/// Why a signal is heard at once.
const HALTED: &str = "kvm_vcpu_block(), kvm_vcpu_check_block() in virt/kvm/kvm_main.c: a halted vCPU returns EINTR \
    when a signal is pending";
/// Why nothing else happens to the worker.
const WORKER: &str = "async_pf_execute() runs in a worker of the kernel, which gets no signal";

#[derive(Debug)]
struct Signal {
    backing: Backing,
    access: VcpuAccess,
}

impl Trial for Signal {
    fn axes(&self) -> String {
        format!("backing={},access={},lapic=kernel", self.backing, self.access)
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        let fail = |e| Stop::Broken(format!("signalling a vCPU: {e:?}"));
        seen.step("set-up");
        kick::install().map_err(fail)?;
        let modes = REGISTER_MODE_MISSING;
        let ground = Ground::make(stage, self.backing, self.access, Lapic::Kernel, modes)?;
        let parked = ground.park(seen)?;
        seen.step("signal");
        kick::send(parked.waiter.tid()).map_err(fail)?;
        seen.fact("waiter", stage.word(parked.waiter.end()?));
        ground.queue("queue", seen)?;
        let asleep = |sleeps| if sleeps { "asleep" } else { "ran" };
        seen.fact("worker", asleep(parked.sleeps_on(stage)?));
        seen.step("run again");
        let end = Arc::new(OnceLock::new());
        let (vcpu, result) = (Arc::clone(&ground.vcpu), Arc::clone(&end));
        let second = Mover::start(stage, move || {
            let _ = result.set(vcpu.run());
            Rc::OK
        })?;
        seen.fact("again", look_at(stage, &ground, &second)?);
        ground.queue("queue-again", seen)?;
        seen.fact("read", mover::word(ground.scene.uffd.read()));
        seen.step("copy");
        ground.scene.act(Op::Copy, seen);
        second.join()?;
        let end = end.get().copied().unwrap_or(VcpuEnd::Failed(Errno::ENODATA));
        seen.fact("resumed", stage.word(Fate::Ended(end.into())));
        ground.queue("queue-after", seen)?;
        parked.leave(stage)
    }

    fn expect(&self, kernel: KernelVersion) -> Vec<Expected> {
        const SAME: &str = "kvm_arch_vcpu_ioctl_run(): the vCPU is halted until kvm_check_async_pf_completion() finds \
             the page";
        let field = if self.backing.is_huge() { "2097152" } else { ONE_PAGE };
        let ran = if self.access == VcpuAccess::Write { "ran" } else { "ran:copied" };
        let mut facts = parked(self.access, Lapic::Kernel, kernel);
        facts.extend([
            Expected::new("waiter", "EINTR", HALTED),
            Expected::new("queue", "1/0", WORKER),
            Expected::new("worker", "asleep", WORKER),
            Expected::new("again", "asleep", SAME),
            Expected::new("queue-again", "1/0", SAME),
            Expected::new("read", "EAGAIN", SAME),
            Expected::new("copy", "0", source::COPY),
            Expected::new("field", field, source::COPY),
            Expected::new("resumed", ran, SAME),
            Expected::new("queue-after", "0/0", source::COPY),
        ]);
        facts
    }

    fn recipe(&self) -> Vec<String> {
        let mut steps = recipe(self.access, Lapic::Kernel);
        steps.extend([
            "send the vCPU's thread a signal that it handles: does KVM_RUN end, and does the worker wait on?".into(),
            "KVM_RUN again: does it sleep, and does it raise a message?".into(),
            "UFFDIO_COPY of page 2: does KVM_RUN go on to the guest's end?".into(),
        ]);
        steps
    }

    fn uses_huge_pages(&self) -> bool {
        self.backing.is_huge()
    }
}

/// What the second KVM_RUN does: it sleeps in its call, waits with a message of its own, or has ended.
fn look_at(stage: &Stage, ground: &Ground<'_>, second: &Mover) -> Result<&'static str, Stop> {
    // There is none any more of a thread that has ended.
    let thread = second.file();
    let deadline = Instant::now() + stage.patience;
    loop {
        if second.returned() {
            return Ok("ended");
        }
        let thread = thread.as_ref().map_err(Clone::clone)?;
        if ground.scene.queue.read()?.pending > 0 {
            return Ok("again");
        }
        // Reading fails if the thread has ended meanwhile.
        let in_call = thread.call().is_ok_and(|call| call == Some(libc::SYS_ioctl));
        if in_call && thread.read().is_ok_and(|thread| thread.asleep) {
            return Ok("asleep");
        }
        pause(deadline, "the second KVM_RUN neither slept nor ended")?;
    }
}

#[derive(Debug)]
struct Killed {
    access: VcpuAccess,
    lapic: Lapic,
}

impl Trial for Killed {
    fn axes(&self) -> String {
        format!("backing=anon,access={},lapic={}", self.access, self.lapic)
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        seen.step("set-up");
        let (mut child, uffd, queue) = lone_child(stage, self.access, self.lapic, seen)?;
        let names = ["fault", "thread"];
        let sleeper = Sleeper::read(stage, &uffd, BYTES, child.pid(), names, seen)?;
        seen.fact("queue", queue.read()?);
        seen.step("kill");
        child.kill()?;
        seen.fact("ended", child.wait()?);
        let left = queue.read()?;
        seen.fact("queue-after", left);
        if left.total > 0 {
            seen.fact("worker", if sleeper.sleeps_on(stage)? { "asleep" } else { "ran" });
        }
        seen.step("copy");
        let target = crate::abi::Range { start: BLOCK + super::halted::PAGE * BYTES, len: BYTES };
        seen.fact("copy", uffd.copy(target, stage.source, 0).0);
        // The worker, whom COPY has woken, lets go of the memory when it comes to run.
        let deadline = Instant::now() + stage.patience;
        while uffd.copy(target, stage.source, 0).0 != Rc(Some(Errno::ESRCH)) {
            pause(deadline, "the memory of the killed process does not go away")?;
        }
        seen.fact("copy-late", "ESRCH");
        seen.fact("queue-late", queue.read()?);
        if left.total > 0 {
            seen.fact("woken", if sleeper.becomes_idle(stage)? { "ran" } else { "asleep" });
        }
        Ok(())
    }

    fn expect(&self, kernel: KernelVersion) -> Vec<Expected> {
        const HOLDS: &str = "async_pf_execute() in virt/kvm/async_pf.c: the worker holds the memory with its mappings \
             (mmget()) until it has the page";
        let mut facts = parked(self.access, self.lapic, kernel);
        facts.truncate(2);
        let mut say = |name, value, says| facts.push(Expected::new(name, value, says));
        say("queue", "1/0", source::QUEUE);
        say("ended", "killed:SIGKILL", "signal(7)");
        match self.lapic {
            Lapic::None => {
                say("queue-after", "0/0", source::QUEUE);
                say("copy", "ESRCH", "ioctl_userfaultfd(2), UFFDIO_COPY, ESRCH");
            }
            Lapic::Kernel => {
                say("queue-after", "1/0", WORKER);
                say("worker", "asleep", WORKER);
                say("copy", "0", HOLDS);
            }
        }
        say("copy-late", "ESRCH", if self.lapic == Lapic::None { ASYNC } else { HOLDS });
        say("queue-late", "0/0", source::COPY);
        if self.lapic == Lapic::Kernel {
            say("woken", "ran", source::COPY);
        }
        facts
    }

    fn recipe(&self) -> Vec<String> {
        let mut steps = recipe(self.access, self.lapic);
        steps[0] = "a child maps and registers a block of 6 pages, gives it to a guest, and passes the userfaultfd".into();
        steps[2] = "read the message: which thread is it of?".into();
        steps.extend([
            "SIGKILL to the child: does it end? Look at the queue".into(),
            "UFFDIO_COPY of page 2; then again until it says ESRCH".into(),
        ]);
        steps
    }
}

/// The cases.
pub(super) fn cases(cases: &mut Vec<Case>) {
    let accesses = [VcpuAccess::Read, VcpuAccess::Write, VcpuAccess::Fetch];
    for backing in Backing::ALL.iter().copied() {
        for access in accesses {
            let by_default = backing == Backing::Anon && access == VcpuAccess::Read;
            cases.push(Case::trial(&SIGNAL, Signal { backing, access }, by_default));
        }
    }
    for access in accesses {
        for lapic in [Lapic::Kernel, Lapic::None] {
            let by_default = access == VcpuAccess::Read;
            cases.push(Case::trial(&KILLED, Killed { access, lapic }, by_default));
        }
    }
}
