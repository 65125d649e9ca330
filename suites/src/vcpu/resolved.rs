//! Who waits for a vCPU's page, and what frees it: with the interrupt controller in the kernel, and without.

use super::cases::{SUITE, VMMS};
use super::halted::{ASYNC, Ground, fault, parked, thread};
use super::{Lapic, VcpuAccess};
use crate::abi::{COPY_MODE_WP, REGISTER_MODE_MISSING, REGISTER_MODE_WP};
use crate::change::Prepared;
use crate::expect::Expected;
use crate::memory::ONE_PAGE;
use crate::model::source;
use crate::outcome::{Seen, Stop};
use crate::point::{Backing, Change, Op, Over, Part, axis};
use crate::probe::{Case, Probe, Trial};
use crate::stage::Stage;
use uffd_results::KernelVersion;

static ASYNC_PF: Probe = Probe {
    suite: SUITE,
    name: "async",
    statement: "On x86, with its interrupt controller in the kernel and interrupts on, the vCPU of a guest without \
                paravirtual page faults halts in KVM_RUN while a worker of the kernel waits for its page, always for \
                writing; what frees that worker frees it.",
    consumers: VMMS,
};
static PROTECTED: Probe = Probe {
    suite: SUITE,
    name: "async-protected",
    statement: "COPY with MODE_WP serves a vCPU that reads; where a worker of the kernel waits for it, that asks for \
                writing, and so faults on the protection, too.",
    consumers: &[
        "E2B: places pages with MODE_WP to learn which ones the guest writes to",
        "QEMU: background snapshot, migration/ram.c",
    ],
};

axis! {
    /// What is done while the page is waited for.
    Then {
        /// COPY of the page.
        Copy = "copy",
        /// WAKE of the page that is still missing, then COPY.
        Wake = "wake",
        /// munmap of the page and its neighbour, then WAKE.
        MunmapWake = "munmap-wake",
        /// Anonymous memory mapped over both, then WAKE.
        MmapOverWake = "mmap-over-wake",
        /// UNREGISTER of the block.
        Unregister = "unregister",
        /// The last close.
        Close = "close",
    }
}

impl Then {
    const fn change(self) -> Change {
        match self {
            Self::MunmapWake => Change::Munmap(Part::Middle),
            Self::MmapOverWake => Change::MmapOver(Part::Middle, Over::Anon),
            _ => Change::None,
        }
    }
}

#[derive(Debug)]
struct Async {
    backing: Backing,
    access: VcpuAccess,
    lapic: Lapic,
    then: Then,
}

impl Trial for Async {
    fn axes(&self) -> String {
        let Self { backing, access, lapic, then } = self;
        format!("backing={backing},access={access},lapic={lapic},then={then}")
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        seen.step("set-up");
        let Self { backing, access, lapic, then } = *self;
        let ground = Ground::make(stage, backing, access, lapic, REGISTER_MODE_MISSING)?;
        let change = Prepared::new(stage, then.change(), &ground.scene.block)?;
        let mut parked = ground.park(seen)?;
        seen.step(then.word());
        let op = match then {
            Then::Close => {
                drop(ground.scene.uffd);
                seen.fact("closed", stage.word(parked.waiter.end()?));
                return parked.leave(stage);
            }
            Then::Copy => Op::Copy,
            Then::Unregister => Op::Unregister,
            Then::Wake => Op::Wake,
            Then::MunmapWake | Then::MmapOverWake => {
                seen.fact("change", change.apply(stage, &ground.scene.block)?);
                Op::Look
            }
        };
        ground.scene.act(op, seen);
        seen.fact("waiter", stage.word(ground.look(&mut parked)?));
        ground.queue("queue", seen)?;
        match then {
            Then::Wake => {
                ground.read_again(&mut parked, seen)?;
                ground.scene.act(Op::Copy, seen);
            }
            Then::MunmapWake | Then::MmapOverWake => ground.scene.act(Op::Wake, seen),
            _ => return parked.leave(stage),
        }
        seen.fact("freed", stage.word(ground.look(&mut parked)?));
        ground.queue("queue-after", seen)?;
        parked.leave(stage)
    }

    fn expect(&self, kernel: KernelVersion) -> Vec<Expected> {
        const BAD: &str = "hva_to_pfn(): no mapping at the address is -EFAULT; what the worker met is not looked at, \
             async_pf_execute(), and the vCPU faults once more itself";
        const NO_MORE: &str = "userfaultfd_release(), userfaultfd_unregister(): who waits is woken, and finds \
             ordinary memory";
        let Self { backing, access, lapic, then } = *self;
        let field = if backing.is_huge() { "2097152" } else { ONE_PAGE };
        let ran = |value: &'static str| if access == VcpuAccess::Write { "ran" } else { value };
        let (copied, zero) = (ran("ran:copied"), ran("ran:zero"));
        let mut facts = parked(access, lapic, kernel);
        facts.extend(match then {
            Then::Copy => vec![
                Expected::new("copy", "0", source::COPY),
                Expected::new("field", field, source::COPY),
                Expected::new("waiter", copied, source::COPY),
                Expected::new("queue", "0/0", source::COPY),
            ],
            Then::Wake => vec![
                Expected::new("wake", "0", source::WAKE),
                Expected::new("waiter", "again", source::WAKE),
                Expected::new("queue", "1/1", source::WAKE),
                fault("again-fault", access, lapic),
                thread("again-thread", lapic),
                Expected::new("copy", "0", source::COPY),
                Expected::new("field", field, source::COPY),
                Expected::new("freed", copied, source::COPY),
                Expected::new("queue-after", "0/0", source::COPY),
            ],
            Then::MunmapWake | Then::MmapOverWake => vec![
                Expected::new("change", "0", "munmap(2), mmap(2)"),
                Expected::new("waiter", "asleep", source::QUEUE),
                Expected::new("queue", "1/0", source::QUEUE),
                Expected::new("wake", "0", source::WAKE),
                if then == Then::MunmapWake {
                    Expected::new("freed", "EFAULT", BAD)
                } else {
                    Expected::new("freed", zero, source::WAKE)
                },
                Expected::new("queue-after", "0/0", source::WAKE),
            ],
            Then::Unregister => vec![
                Expected::new("unregister", "0", NO_MORE),
                Expected::new("waiter", zero, NO_MORE),
                Expected::new("queue", "0/0", NO_MORE),
            ],
            Then::Close => vec![Expected::new("closed", zero, NO_MORE)],
        });
        facts
    }

    fn recipe(&self) -> Vec<String> {
        let mut steps = recipe(self.access, self.lapic);
        steps.extend(match self.then {
            Then::Copy => {
                vec!["UFFDIO_COPY of page 2: does KVM_RUN go on to the guest's end?".into()]
            }
            Then::Wake => vec![
                "UFFDIO_WAKE of page 2, which is still missing: who waits now?".into(),
                "read the message; UFFDIO_COPY of page 2".into(),
            ],
            Then::MunmapWake => vec![
                "munmap of pages 2 and 3".into(),
                "UFFDIO_WAKE of page 2: what does KVM_RUN return?".into(),
            ],
            Then::MmapOverWake => vec![
                "mmap(MAP_FIXED) of anonymous memory over pages 2 and 3".into(),
                "UFFDIO_WAKE of page 2: what does the guest see?".into(),
            ],
            Then::Unregister => {
                vec!["UFFDIO_UNREGISTER of the block: what does the guest see?".into()]
            }
            Then::Close => vec!["close the userfaultfd: what does the guest see?".into()],
        });
        steps
    }

    fn uses_huge_pages(&self) -> bool {
        self.backing.is_huge()
    }
}

/// A vCPU in words.
pub(super) const fn place(lapic: Lapic) -> &'static str {
    match lapic {
        Lapic::None => "a vCPU without an interrupt controller, with interrupts off",
        Lapic::Kernel => "a vCPU with its local APIC in the kernel, with interrupts on",
    }
}

/// How a vCPU comes to wait.
pub(super) fn recipe(access: VcpuAccess, lapic: Lapic) -> Vec<String> {
    let lapic = place(lapic);
    vec![
        "map and register a block of 6 pages, and give it to a guest as memory".into(),
        format!("KVM_RUN of {lapic}: the guest accesses page 2 ({access})"),
        "read the message: which thread is it of, and in which state are that and the vCPU's?"
            .into(),
    ]
}

#[derive(Debug)]
struct Protected {
    access: VcpuAccess,
    lapic: Lapic,
}

impl Protected {
    /// Whether who waits wants to write.
    fn writes(&self) -> bool {
        self.access == VcpuAccess::Write || self.lapic == Lapic::Kernel
    }
}

impl Trial for Protected {
    fn axes(&self) -> String {
        format!("backing=anon,access={},lapic={}", self.access, self.lapic)
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        seen.step("set-up");
        let modes = REGISTER_MODE_MISSING | REGISTER_MODE_WP;
        let ground = Ground::make(stage, Backing::Anon, self.access, self.lapic, modes)?;
        let mut parked = ground.park(seen)?;
        seen.step("copy");
        let scene = &ground.scene;
        let (rc, field) = scene.uffd.copy(scene.target(), stage.source, COPY_MODE_WP);
        seen.fact("copy", rc);
        seen.fact("field", field);
        let fate = ground.look(&mut parked)?;
        seen.fact("waiter", stage.word(fate));
        ground.queue("queue", seen)?;
        if !fate.waits() {
            return parked.leave(stage);
        }
        ground.read_again(&mut parked, seen)?;
        seen.step("unprotect");
        seen.fact("lift", scene.uffd.writeprotect(scene.target(), 0));
        seen.fact("freed", stage.word(ground.look(&mut parked)?));
        ground.queue("queue-after", seen)?;
        parked.leave(stage)
    }

    fn expect(&self, kernel: KernelVersion) -> Vec<Expected> {
        const MODE: &str =
            "ioctl_userfaultfd(2), UFFDIO_COPY_MODE_WP: the page is protected when it comes";
        let Self { access, lapic } = *self;
        let ran = if access == VcpuAccess::Write { "ran" } else { "ran:copied" };
        let mut facts = parked(access, lapic, kernel);
        facts.push(Expected::new("copy", "0", MODE));
        facts.push(Expected::new("field", ONE_PAGE, MODE));
        if self.writes() {
            facts.extend([
                Expected::new("waiter", "again", ASYNC),
                Expected::new("queue", "1/1", ASYNC),
                Expected::new("again-fault", "wp-write@2", MODE),
                thread("again-thread", lapic),
                Expected::new("lift", "0", MODE),
                Expected::new("freed", ran, MODE),
                Expected::new("queue-after", "0/0", MODE),
            ]);
        } else {
            facts.push(Expected::new("waiter", ran, MODE));
            facts.push(Expected::new("queue", "0/0", MODE));
        }
        facts
    }

    fn recipe(&self) -> Vec<String> {
        let mut steps = recipe(self.access, self.lapic);
        steps[0] = "map a block of 6 pages, register it for missing pages and write protection, and give it to a \
                    guest as memory"
            .into();
        steps.extend([
            "UFFDIO_COPY of page 2 with UFFDIO_COPY_MODE_WP: does KVM_RUN go on?".into(),
            "if not, read the message; UFFDIO_WRITEPROTECT takes the protection away".into(),
        ]);
        steps
    }
}

/// The cases.
pub(super) fn cases(cases: &mut Vec<Case>) {
    let accesses = [VcpuAccess::Read, VcpuAccess::Write, VcpuAccess::Fetch];
    for backing in Backing::ALL.iter().copied() {
        for lapic in [Lapic::Kernel, Lapic::None] {
            for access in accesses {
                for then in Then::ALL.iter().copied() {
                    let kind = match backing {
                        Backing::Anon => true,
                        Backing::Shmem | Backing::HugetlbShared => lapic == Lapic::Kernel,
                        _ => false,
                    };
                    let by_default = kind && (then == Then::Copy || lapic == Lapic::Kernel);
                    let trial = Async { backing, access, lapic, then };
                    cases.push(Case::trial(&ASYNC_PF, trial, by_default));
                }
            }
        }
    }
    for access in accesses {
        for lapic in [Lapic::Kernel, Lapic::None] {
            let by_default = access == VcpuAccess::Read;
            cases.push(Case::trial(&PROTECTED, Protected { access, lapic }, by_default));
        }
    }
}
