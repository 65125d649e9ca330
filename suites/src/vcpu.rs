//! A vCPU whose guest makes one access to the block: the waiter that live migration is about.
//!
//! The guest is a few instructions of 32-bit protected mode without paging, so that it also reaches
//! blocks of huge pages. Its code page lies directly before the accessed page, which the fetch needs:
//! the first byte of its one instruction is the last of the code page, and the operand is what the
//! block's page begins with. So it is fetched from there, can hold anything, and tells what it was.

mod cases;
mod device;
mod emulated;
mod guest_memfd;
mod halted;
mod interrupted;
mod proof;
mod resolved;
mod slots;

pub(crate) use cases::{SUITE, cases};

use crate::abi::Range;
use crate::abi::kvm::{Failure, Regs, Request, VcpuFd, Vm, code_page, exit};
use crate::access::Access;
use crate::memory::{PAGE, tag};
use crate::outcome::Stop;
use crate::point::axis;
use crate::process;
use crate::stage::Stage;
use device::Device;
use nix::errno::Errno;
use std::fmt;

/// What the guest does with its page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VcpuAccess {
    /// It loads eight bytes.
    Read,
    /// It stores [`tag::WROTE`].
    Write,
    /// It fetches an instruction.
    Fetch,
    /// `outs`: KVM loads from the page, to give the value to a port.
    Outs,
    /// `ins`: KVM stores what a port has given.
    Ins,
    /// `movs` from an address without memory: KVM stores what that has given.
    MmioMovs,
}

impl VcpuAccess {
    /// Whether the page is stored to.
    const fn writes(self) -> bool {
        matches!(self, Self::Write | Self::Ins | Self::MmioMovs)
    }

    /// Offset of the guest's code for it.
    const fn start(self) -> usize {
        match self {
            Self::Read => READ,
            Self::Write => WRITE,
            Self::Fetch => FETCH,
            Self::Outs => device::OUTS,
            Self::Ins => device::INS,
            Self::MmioMovs => device::MOVS,
        }
    }
}

axis! {
    /// Where the vCPU's interrupt controller is. It decides who waits for a page: with one in the kernel,
    /// and interrupts on, KVM has a worker of the kernel wait and halts the vCPU until that has the page
    /// (`kvm_can_do_async_pf()`), as this guest takes no paravirtual page faults. So are the vCPUs of QEMU,
    /// Firecracker and Cloud Hypervisor set up.
    Lapic {
        /// There is none, and interrupts are off: KVM_RUN waits itself.
        None = "none",
        /// In the kernel, and interrupts are on.
        Kernel = "kernel",
    }
}

impl Lapic {
    /// The flags register: its second bit is always set, the tenth says that interrupts are on.
    const fn flags(self) -> u64 {
        match self {
            Self::None => 2,
            Self::Kernel => 0x202,
        }
    }

    /// What the guest ends with. A `hlt` only leaves the guest where no interrupt could end it; else it is
    /// `out 0x10, al`.
    const fn last(self) -> &'static [u8] {
        match self {
            Self::None => &[HLT],
            Self::Kernel => &[0xe6, 0x10],
        }
    }

    /// The reason of the exit that this is.
    const fn exit(self) -> u32 {
        match self {
            Self::None => exit::HLT,
            Self::Kernel => exit::IO,
        }
    }
}

/// How `KVM_RUN` ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VcpuEnd {
    /// The guest has done its access; the value seen, if it was not a store.
    Ran(Option<u64>),
    /// The call failed.
    Failed(Errno),
    /// An exit that the guest does not ask for, by its reason.
    Exit(u32),
}

/// Where the accessed page stands in the guest; from here on the rest of the block follows.
const TARGET: u64 = 0x1000_0000;
/// Where the code page stands.
const CODE: u64 = TARGET - PAGE as u64;
/// Offset of the code that loads, which is the first.
const READ: usize = 0;
/// Offset of the code that stores.
const WRITE: usize = 0x20;
/// Offset of the instruction whose operand is the block's.
const FETCH: usize = PAGE - 1;
/// Offset of code that touches no block: `fld1; hlt`.
const PROOF: usize = 0x40;

const HLT: u8 = 0xf4;

/// `mov eax, [TARGET]; mov edx, [TARGET + 4]; hlt`, then the same for a store, then the first byte of
/// `mov eax, imm32`. What stands for `hlt` is [`Lapic::last`].
fn code(lapic: Lapic) -> Vec<u8> {
    let last = lapic.last();
    let low = |value: u64| value.to_le_bytes()[..4].to_vec();
    let high = |value: u64| value.to_le_bytes()[4..].to_vec();
    let mut page = vec![HLT; PAGE];
    let mut put = |at: usize, parts: &[&[u8]]| {
        let code = parts.concat();
        page[at..at + code.len()].copy_from_slice(&code);
    };
    let (first, second) = (low(TARGET), low(TARGET + 4));
    put(READ, &[&[0xa1], &first, &[0x8b, 0x15], &second, last]);
    let stores = [low(tag::WROTE), high(tag::WROTE)];
    put(WRITE, &[&[0xc7, 0x05], &first, &stores[0], &[0xc7, 0x05], &second, &stores[1], last]);
    put(PROOF, &[&[0xd9, 0xe8], last]);
    for (at, code) in device::CODE {
        put(at, &[code, last]);
    }
    put(FETCH, &[&[0xb8]]);
    page
}

/// A vCPU whose guest accesses one address of the block when it runs.
#[derive(Debug)]
pub struct Vcpu {
    access: VcpuAccess,
    lapic: Lapic,
    vm: Vm,
    memory: Option<Range>,
    fd: VcpuFd,
    device: Device,
}

impl Vcpu {
    /// Makes VM, memory slots and vCPU for an access to `address`, which a page of `block` begins
    /// with. Everything is mapped when this returns, and the process should have one thread.
    /// Where there is no KVM, or one that has not proved itself, it is a precondition.
    pub fn new(
        stage: &Stage,
        address: usize,
        access: VcpuAccess,
        block: Range,
    ) -> Result<Self, Stop> {
        Self::with(stage, address, access, block, Lapic::None)
    }

    /// As [`Vcpu::new`], with an interrupt controller or without.
    pub(crate) fn with(
        stage: &Stage,
        address: usize,
        access: VcpuAccess,
        block: Range,
        lapic: Lapic,
    ) -> Result<Self, Stop> {
        proof::demand(stage)?;
        let rest = Range { start: address, len: block.end() - address };
        Self::make(access.start(), access, Some(rest), lapic).map_err(unusable)
    }

    fn make(
        start: usize,
        access: VcpuAccess,
        memory: Option<Range>,
        lapic: Lapic,
    ) -> Result<Self, Failure> {
        let vm = Vm::new()?;
        if lapic == Lapic::Kernel {
            vm.add_lapic()?;
        }
        vm.set_memory(0, CODE, code_page(&code(lapic))?)?;
        if let Some(memory) = memory {
            vm.set_memory(1, TARGET, memory)?;
        }
        let fd = vm.new_vcpu()?;
        fd.set_regs(&regs(start, access, lapic))?;
        if access == VcpuAccess::Fetch {
            fd.set_single_step(true)?;
        }
        Ok(Self { access, lapic, vm, memory, fd, device: Device::default() })
    }

    /// `KVM_RUN` until the guest has done its access, or until it fails. After a failure it can be
    /// called again.
    pub fn run(&self) -> VcpuEnd {
        let last = self.lapic.exit();
        let end = match self.go() {
            Ok(exit) if exit == last && self.access.writes() => Ok(VcpuEnd::Ran(None)),
            Ok(exit) if exit == last => self.value().map(|value| VcpuEnd::Ran(Some(value))),
            Ok(exit::DEBUG) if self.access == VcpuAccess::Fetch => self.fetched(),
            Ok(reason) => Ok(VcpuEnd::Exit(reason)),
            Err(errno) => Err(("KVM_RUN", errno)),
        };
        end.unwrap_or_else(|(_, errno)| VcpuEnd::Failed(errno))
    }

    /// `KVM_RUN`, and again after each exit that asks for what the guest's ports give and take.
    fn go(&self) -> Result<u32, Errno> {
        loop {
            let reason = self.fd.run()?;
            match self.fd.request(reason) {
                Some(request) if self.device.serves(&self.fd, request) => {}
                _ => return Ok(reason),
            }
        }
    }

    /// The last exit's access to memory of the block that is left to the program: how far behind the start of the
    /// accessed page, and whether it writes.
    pub(crate) fn left(&self) -> Option<(u64, bool)> {
        let Request { at, writes, .. } = self.fd.request(exit::MMIO)?;
        Some((at.checked_sub(TARGET)?, writes))
    }

    /// Has the guest make its access anew when it runs again. Not for a fetch, which changes the vCPU.
    pub(crate) fn rewind(&self) -> Result<(), Failure> {
        self.go_on_at(self.access.start())
    }

    /// Sets the registers so that the code at `offset` runs next.
    fn go_on_at(&self, offset: usize) -> Result<(), Failure> {
        self.fd.set_regs(&regs(offset, self.access, self.lapic))
    }

    /// Sets `immediate_exit`, with which `KVM_RUN` returns at once.
    pub fn set_immediate_exit(&self, on: bool) {
        self.fd.set_immediate_exit(on);
    }

    /// What the guest has loaded.
    fn value(&self) -> Result<u64, Failure> {
        if self.access == VcpuAccess::Outs {
            return Ok(self.device.taken());
        }
        let regs = self.fd.regs()?;
        Ok((regs.rdx << 32) | (regs.rax & 0xffff_ffff))
    }

    /// The operand has half of the value; the guest now loads all of it, which must agree.
    fn fetched(&self) -> Result<VcpuEnd, Failure> {
        let half = self.fd.regs()?.rax;
        self.fd.set_single_step(false)?;
        self.go_on_at(READ)?;
        match self.fd.run() {
            Ok(exit) if exit == self.lapic.exit() => {}
            Ok(reason) => return Ok(VcpuEnd::Exit(reason)),
            Err(errno) => return Err(("KVM_RUN", errno)),
        }
        let value = self.value()?;
        if value & 0xffff_ffff != half {
            return Err(("fetch and load differ", Errno::EILSEQ));
        }
        Ok(VcpuEnd::Ran(Some(value)))
    }
}

/// The registers with which the code at `offset` runs.
fn regs(offset: usize, access: VcpuAccess, lapic: Lapic) -> Regs {
    let rsi = if access == VcpuAccess::MmioMovs { device::ADDRESS } else { TARGET };
    let rip = CODE + offset as u64;
    Regs { rip, rflags: lapic.flags(), rsi, rdi: TARGET, rdx: device::PORT, ..Regs::default() }
}

/// What it means that something of KVM can't be made.
fn unusable((what, errno): Failure) -> Stop {
    match errno {
        Errno::ENOENT | Errno::ENODEV => Stop::Precondition(
            "there is no /dev/kvm: the kernel has no KVM, or its modules can't be had".into(),
        ),
        Errno::EACCES | Errno::EPERM => Stop::Denied(format!("{what}: {errno:?}")),
        _ => Stop::Precondition(format!("KVM does not work: {what}: {errno:?}")),
    }
}

/// Makes a vCPU that does nothing, in a process of its own that lasts as long as this one. The first vCPU
/// without an interrupt controller has KVM change the kernel's code (static keys), and the last one has it changed
/// back, which takes an emulated machine longer than everything else that a vCPU's case does. A kernel without KVM
/// has none.
pub fn keep_one() -> Result<(), Stop> {
    process::fork(|| {
        let kept = Vm::new().and_then(|vm| Ok((vm.new_vcpu()?, vm)));
        if kept.is_ok() {
            loop {
                nix::unistd::pause();
            }
        }
        0
    })
    .map(drop)
}

impl From<VcpuEnd> for Access {
    fn from(end: VcpuEnd) -> Self {
        match end {
            VcpuEnd::Ran(value) => Self::Ran(value),
            VcpuEnd::Failed(errno) => Self::Failed(errno),
            VcpuEnd::Exit(reason) => Self::Exit(reason),
        }
    }
}

impl fmt::Display for VcpuAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Fetch => "fetch",
            Self::Outs => "outs",
            Self::Ins => "ins",
            Self::MmioMovs => "mmio-movs",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::{BLOCK, RW, map};

    #[test]
    fn a_machine_without_a_working_kvm_says_so_and_does_not_hang() {
        crate::testing::isolated(|stage| {
            let block = Range { start: BLOCK, len: PAGE };
            let anon = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            assert!(map(block, RW, anon, None, 0).is_ok());
            assert_eq!(crate::touch::store(BLOCK, tag::COPIED), Ok(()));
            for (access, lapic) in [
                (VcpuAccess::Read, Lapic::None),
                (VcpuAccess::Fetch, Lapic::None),
                (VcpuAccess::Read, Lapic::Kernel),
                (VcpuAccess::Fetch, Lapic::Kernel),
            ] {
                match Vcpu::with(stage, BLOCK, access, block, lapic) {
                    Ok(vcpu) => assert_eq!(vcpu.run(), VcpuEnd::Ran(Some(tag::COPIED))),
                    Err(Stop::Precondition(_) | Stop::Denied(_)) => {}
                    Err(other) => panic!("{other}"),
                }
            }
        });
    }

    #[test]
    fn the_fetch_ends_where_the_block_begins() {
        for lapic in Lapic::ALL {
            let page = code(*lapic);
            assert_eq!((page.len(), page[FETCH]), (PAGE, 0xb8));
        }
    }
}
