//! Instructions that KVM emulates: it takes the page fault itself, as a system call does.

use super::cases::SUITE;
use super::halted::{Ground, Sleeper, lone_child};
use super::resolved::{place, recipe};
use super::{Lapic, VcpuAccess};
use crate::abi::kvm::exit;
use crate::abi::{REGISTER_MODE_MISSING, Way, features};
use crate::change::Prepared;
use crate::expect::Expected;
use crate::memory::{BLOCK, ONE_PAGE, PAGE as BYTES};
use crate::model::source;
use crate::outcome::{Seen, Stop};
use crate::point::{Backing, Change, Op, Part, axis};
use crate::probe::{Case, Probe, Trial};
use crate::stage::Stage;
use crate::waiter::{Access, Fate, content, user_mode_only};
use crate::waiters::signal;
use nix::errno::Errno;
use uffd_results::KernelVersion;

static EMULATED: Probe = Probe {
    suite: SUITE,
    name: "emulated",
    statement: "An instruction that KVM emulates (string input and output, moves from a device) waits for a missing \
                page in the vCPU's own thread, wherever the interrupt controller is; no signal but a fatal one ends \
                its KVM_RUN, and memory that can't be had leaves KVM_RUN with KVM_EXIT_MMIO.",
    consumers: &[
        "QEMU postcopy: kvm_cpu_exec() and SIG_IPI, for guests with IDE in PIO mode, fw_cfg or a firmware's debug port",
        "Firecracker and Cloud Hypervisor: pausing a VM that was restored through userfaultfd",
    ],
};

axis! {
    /// The emulated instruction.
    How {
        /// `outs` from the page.
        Outs = "outs",
        /// `ins` into the page.
        Ins = "ins",
        /// `movs` from an address without memory into the page.
        MmioMovs = "mmio-movs",
    }
}

axis! {
    /// What is done while the page is waited for.
    Then {
        /// COPY of the page.
        Copy = "copy",
        /// WAKE of the page that is still missing, then COPY.
        Wake = "wake",
        /// A handled signal, then COPY.
        Signal = "signal",
        /// munmap of the page and its neighbour, then WAKE.
        MunmapWake = "munmap-wake",
        /// POISON of the page.
        Poison = "poison",
        /// UNREGISTER of the block.
        Unregister = "unregister",
        /// The last close.
        Close = "close",
        /// SIGKILL to the process.
        Kill = "kill",
    }
}

impl How {
    const fn access(self) -> VcpuAccess {
        match self {
            Self::Outs => VcpuAccess::Outs,
            Self::Ins => VcpuAccess::Ins,
            Self::MmioMovs => VcpuAccess::MmioMovs,
        }
    }

    const fn fault(self) -> &'static str {
        if self.access().writes() { "write@2" } else { "read@2" }
    }
}

#[derive(Debug)]
struct Emulated {
    backing: Backing,
    how: How,
    lapic: Lapic,
    then: Then,
}

impl Emulated {
    /// Once KVM_RUN has ended: where it has left the access to the program, or what is in the page.
    fn ended(ground: &Ground<'_>, fate: Fate, seen: &mut Seen<'_>) -> Result<(), Stop> {
        match fate {
            Fate::Ended(Access::Exit(exit::MMIO)) => {
                let left = ground.vcpu.left().map(|(at, writes)| {
                    let page = super::halted::PAGE as u64 + at / ground.scene.block.page as u64;
                    format!("{}@{page}", if writes { "write" } else { "read" })
                });
                seen.fact("mmio", left.unwrap_or_else(|| "elsewhere".into()));
            }
            Fate::Ended(Access::Ran(_)) => {
                let value = crate::touch::load(ground.scene.target().start)
                    .map_err(|signal| Stop::Broken(format!("looking at the page: {signal}")))?;
                seen.fact("page", content(ground.scene.stage.tag(value)));
            }
            _ => {}
        }
        Ok(())
    }

    fn signalled(ground: &Ground<'_>, seen: &mut Seen<'_>) -> Result<(), Stop> {
        let Ground { scene, vcpu } = ground;
        let kick = signal::handle()?;
        let mut parked = ground.park(seen)?;
        seen.step("signal");
        seen.fact("signal", signal::effect(scene, &mut parked.waiter, (kick, true), 0)?);
        seen.step("copy");
        scene.act(Op::Copy, seen);
        let mut fate = parked.waiter.end()?;
        seen.fact("waiter", scene.stage.word(fate));
        seen.fact("handled", signal::handled());
        ground.queue("queue", seen)?;
        if fate == Fate::Ended(Access::Failed(Errno::EINTR)) {
            seen.step("run at last");
            fate = Fate::Ended(vcpu.run().into());
            seen.fact("last", scene.stage.word(fate));
        }
        Self::ended(ground, fate, seen)
    }

    /// As [`super::interrupted`]'s of a fault of the guest's own.
    fn killed(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        let (mut child, uffd, queue) = lone_child(stage, self.how.access(), self.lapic, seen)?;
        Sleeper::read(stage, &uffd, BYTES, child.pid(), ["fault", "thread"], seen)?;
        seen.fact("queue", queue.read()?);
        seen.step("kill");
        child.kill()?;
        seen.fact("ended", child.wait()?);
        seen.fact("queue-after", queue.read()?);
        let target = crate::abi::Range { start: BLOCK + super::halted::PAGE * BYTES, len: BYTES };
        seen.fact("copy", uffd.copy(target, stage.source, 0).0);
        Ok(())
    }
}

impl Trial for Emulated {
    fn axes(&self) -> String {
        let Self { backing, how, lapic, then } = self;
        format!("backing={backing},how={how},lapic={lapic},then={then}")
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        let Self { backing, how, lapic, then } = *self;
        // There is no errno to tell it by.
        if stage.way == Ok(Way::UserModeOnly) {
            return Err(user_mode_only());
        }
        if then == Then::Poison {
            stage.must_offer(features::POISON)?;
        }
        seen.step("set-up");
        if then == Then::Kill {
            return self.killed(stage, seen);
        }
        let ground = Ground::make(stage, backing, how.access(), lapic, REGISTER_MODE_MISSING)?;
        if then == Then::Signal {
            return Self::signalled(&ground, seen);
        }
        let change =
            if then == Then::MunmapWake { Change::Munmap(Part::Middle) } else { Change::None };
        let change = Prepared::new(stage, change, &ground.scene.block)?;
        let mut parked = ground.park(seen)?;
        seen.step(then.word());
        let op = match then {
            Then::Close => {
                drop(ground.scene.uffd);
                seen.fact("closed", stage.word(parked.waiter.end()?));
                return Ok(());
            }
            Then::Copy | Then::Signal | Then::Kill => Op::Copy,
            Then::Wake => Op::Wake,
            Then::Poison => Op::Poison,
            Then::Unregister => Op::Unregister,
            Then::MunmapWake => {
                seen.fact("change", change.apply(stage, &ground.scene.block)?);
                Op::Look
            }
        };
        ground.scene.act(op, seen);
        let mut fate = ground.look(&mut parked)?;
        seen.fact("waiter", stage.word(fate));
        ground.queue("queue", seen)?;
        if matches!(then, Then::Wake | Then::MunmapWake) {
            if then == Then::Wake {
                ground.read_again(&mut parked, seen)?;
                ground.scene.act(Op::Copy, seen);
            } else {
                ground.scene.act(Op::Wake, seen);
            }
            fate = ground.look(&mut parked)?;
            seen.fact("freed", stage.word(fate));
            ground.queue("queue-after", seen)?;
        }
        Self::ended(&ground, fate, seen)
    }

    fn expect(&self, _: KernelVersion) -> Vec<Expected> {
        let Self { backing, how, then, .. } = *self;
        let field = if backing.is_huge() { "2097152" } else { ONE_PAGE };
        let writes = how.access().writes();
        let ran = |value| if writes { "ran" } else { value };
        let after = |value| if writes { "wrote" } else { value };
        let mut facts = vec![
            Expected::new("fault", how.fault(), EMULATOR),
            Expected::new("thread", "vcpu", EMULATOR),
        ];
        if then != Then::Kill {
            facts.push(Expected::new("state", "S", SLEEPS));
            facts.push(Expected::new("vcpu-state", "S", SLEEPS));
        }
        let copied =
            [Expected::new("copy", "0", source::COPY), Expected::new("field", field, source::COPY)];
        let page = |value| Expected::new("page", after(value), source::COPY);
        match then {
            Then::Copy => {
                facts.extend(copied);
                facts.push(Expected::new("waiter", ran("ran:copied"), source::COPY));
                facts.push(Expected::new("queue", "0/0", source::COPY));
                facts.push(page("copied"));
            }
            Then::Wake => {
                facts.extend([
                    Expected::new("wake", "0", source::WAKE),
                    Expected::new("waiter", "again", source::RERUN),
                    Expected::new("queue", "1/1", source::RERUN),
                    Expected::new("again-fault", how.fault(), EMULATOR),
                    Expected::new("again-thread", "vcpu", EMULATOR),
                ]);
                facts.extend(copied);
                facts.push(Expected::new("freed", ran("ran:copied"), source::COPY));
                facts.push(Expected::new("queue-after", "0/0", source::COPY));
                facts.push(page("copied"));
            }
            Then::Signal => {
                facts.push(Expected::new("signal", "spins", signal::SPINS));
                facts.extend(copied);
                facts.push(Expected::new(
                    "waiter",
                    if writes { "EINTR" } else { "ran:copied" },
                    PENDING,
                ));
                facts.push(Expected::new("handled", "1", PENDING));
                facts.push(Expected::new("queue", "0/0", source::COPY));
                if writes {
                    facts.push(Expected::new("last", "ran", PENDING));
                }
                facts.push(page("copied"));
            }
            Then::MunmapWake => facts.extend([
                Expected::new("change", "0", "munmap(2)"),
                Expected::new("waiter", "asleep", source::QUEUE),
                Expected::new("queue", "1/0", source::QUEUE),
                Expected::new("wake", "0", source::WAKE),
                Expected::new("freed", "exit:6", MMIO),
                Expected::new("queue-after", "0/0", source::WAKE),
                Expected::new("mmio", how.fault(), MMIO),
            ]),
            Then::Poison => facts.extend([
                Expected::new("poison", "0", "ioctl_userfaultfd(2), UFFDIO_POISON (6.6)"),
                Expected::new("field", field, "ioctl_userfaultfd(2), UFFDIO_POISON (6.6)"),
                Expected::new("waiter", "exit:6", MMIO),
                Expected::new("queue", "0/0", source::WAKE),
                Expected::new("mmio", how.fault(), MMIO),
            ]),
            Then::Unregister => facts.extend([
                Expected::new("unregister", "0", NO_MORE),
                Expected::new("waiter", ran("ran:zero"), NO_MORE),
                Expected::new("queue", "0/0", NO_MORE),
                page("zero"),
            ]),
            Then::Close => facts.push(Expected::new("closed", ran("ran:zero"), NO_MORE)),
            Then::Kill => facts.extend([
                Expected::new("queue", "1/0", source::QUEUE),
                Expected::new("ended", "killed:SIGKILL", "signal(7)"),
                Expected::new("queue-after", "0/0", FATAL),
                Expected::new("copy", "ESRCH", "ioctl_userfaultfd(2), UFFDIO_COPY, ESRCH"),
            ]),
        }
        facts
    }

    fn recipe(&self) -> Vec<String> {
        let what = match self.how {
            How::Outs => "outs from page 2",
            How::Ins => "ins into page 2, for which the program has given the port's value",
            How::MmioMovs => {
                "movs from an address without memory, whose value the program has given, into page 2"
            }
        };
        let mut steps = recipe(self.how.access(), self.lapic);
        steps[1] = format!("KVM_RUN of {}: its guest executes {what}", place(self.lapic));
        if self.then == Then::Kill {
            steps[0] = "a child maps and registers a block of 6 pages, gives it to a guest, and passes the userfaultfd"
                .into();
            steps[2] = "read the message: which thread is it of?".into();
        }
        let more: &[&str] = match self.then {
            Then::Copy => &["UFFDIO_COPY of page 2: does KVM_RUN go on to the guest's end?"],
            Then::Wake => &[
                "UFFDIO_WAKE of page 2, which is still missing: who waits now?",
                "read the message; UFFDIO_COPY of page 2",
            ],
            Then::Signal => &[
                "send the vCPU's thread a signal that it handles: does KVM_RUN end, or send message after message?",
                "UFFDIO_COPY of page 2: does KVM_RUN end, and how?",
                "if the signal ended it only now, KVM_RUN again",
            ],
            Then::MunmapWake => &[
                "munmap of pages 2 and 3",
                "UFFDIO_WAKE of page 2: what does KVM_RUN return, and for which address?",
            ],
            Then::Poison => {
                &["UFFDIO_POISON of page 2: what does KVM_RUN return, and for which address?"]
            }
            Then::Unregister => {
                &["UFFDIO_UNREGISTER of the block: does KVM_RUN go on to the guest's end?"]
            }
            Then::Close => &["close the userfaultfd: does KVM_RUN go on to the guest's end?"],
            Then::Kill => {
                &["SIGKILL to the child: does it end? Look at the queue; UFFDIO_COPY of page 2"]
            }
        };
        steps.extend(more.iter().map(|step| (*step).into()));
        steps
    }

    fn uses_huge_pages(&self) -> bool {
        self.backing.is_huge()
    }
}

/// Who takes the fault.
const EMULATOR: &str = "x86_emulate_instruction() in arch/x86/kvm/x86.c: __kvm_read_guest_page() and \
    __kvm_write_guest_page() in virt/kvm/kvm_main.c copy from and to the program's address, in the vCPU's thread";
/// How it sleeps.
const SLEEPS: &str = "userfaultfd_get_blocking_state() in fs/userfaultfd.c: a fault of the kernel's own sleeps \
    interruptibly (FAULT_FLAG_DEFAULT)";
/// When the signal is heard.
const PENDING: &str = "an exit to the program returns 0, whatever is pending; kvm_vcpu_exit_request() in \
    arch/x86/kvm/x86.c: where the guest would go on, a pending signal is EINTR";
/// What a copy that fails is taken for.
const MMIO: &str = "emulator_read_write_onepage() in arch/x86/kvm/x86.c: what can't be copied is taken for an access \
    to a device, and KVM_RUN leaves with KVM_EXIT_MMIO for the address of the guest's own memory";
const NO_MORE: &str = "userfaultfd_release(), userfaultfd_unregister(): who waits is woken, and finds ordinary memory";
const FATAL: &str =
    "fault_signal_pending() in include/linux/sched/signal.h: a fatal signal ends the fault";

/// The cases.
pub(super) fn cases(cases: &mut Vec<Case>) {
    for backing in Backing::ALL.iter().copied() {
        for how in How::ALL.iter().copied() {
            for lapic in [Lapic::Kernel, Lapic::None] {
                for then in Then::ALL.iter().copied() {
                    // The block of the child that is killed.
                    if then == Then::Kill && backing != Backing::Anon {
                        continue;
                    }
                    let by_default = match backing {
                        Backing::Anon => {
                            lapic == Lapic::Kernel || matches!(then, Then::Copy | Then::Signal)
                        }
                        Backing::Shmem | Backing::HugetlbShared => {
                            lapic == Lapic::Kernel && how != How::MmioMovs
                        }
                        _ => false,
                    };
                    let trial = Emulated { backing, how, lapic, then };
                    cases.push(Case::trial(&EMULATED, trial, by_default));
                }
            }
        }
    }
}
