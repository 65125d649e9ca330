//! The KVM ABI, as little of it as one vCPU without devices takes: numbers, structs, and handles
//! whose methods are one system call each, or few.
//!
//! Numbers and layouts are those of include/uapi/linux/kvm.h and arch/x86/include/uapi/asm/kvm.h,
//! which have not changed since they were made; sizes are asserted at compile time.

use super::Range;
use nix::errno::Errno;
use nix::sys::mman::{MapFlags, ProtFlags, mmap};
use std::num::NonZeroUsize;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};

/// The only version of the API that there has ever been.
const API_VERSION: i32 = 12;

/// Exit reasons.
pub mod exit {
    /// The guest accessed a port.
    pub const IO: u32 = 2;
    /// `KVM_GUESTDBG_SINGLESTEP`: one instruction was done.
    pub const DEBUG: u32 = 4;
    /// The guest executed `hlt`, and no interrupt controller of the kernel's waits for its end.
    pub const HLT: u32 = 5;
    /// The guest accessed an address that no memory slot has.
    pub const MMIO: u32 = 6;
}

/// `kvm_regs`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
#[expect(missing_docs, reason = "the registers' own names")]
pub struct Regs {
    pub rax: u64,
    pub rbx: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rsi: u64,
    pub rdi: u64,
    pub rsp: u64,
    pub rbp: u64,
    pub r8_to_r15: [u64; 8],
    pub rip: u64,
    pub rflags: u64,
}

/// `kvm_segment`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct Segment {
    base: u64,
    limit: u32,
    selector: u16,
    kind: u8,
    present: u8,
    dpl: u8,
    db: u8,
    s: u8,
    l: u8,
    g: u8,
    avl: u8,
    unusable: u8,
    padding: u8,
}

/// `kvm_sregs`: `cs ds es fs gs ss tr ldt`, then the descriptor tables, then control registers.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct SpecialRegs {
    segments: [Segment; 8],
    tables: [[u64; 2]; 2],
    cr0: u64,
    cr2: u64,
    cr3: u64,
    cr4: u64,
    cr8: u64,
    efer: u64,
    apic_base: u64,
    interrupts: [u64; 4],
}

/// `kvm_userspace_memory_region`.
#[repr(C)]
struct MemoryRegion {
    slot: u32,
    flags: u32,
    guest_phys_addr: u64,
    memory_size: u64,
    userspace_addr: u64,
}

/// `kvm_guest_debug`.
#[repr(C)]
struct GuestDebug {
    control: u32,
    padding: u32,
    registers: [u64; 8],
}

/// `kvm_enable_cap`.
#[repr(C)]
struct EnableCap {
    cap: u32,
    flags: u32,
    args: [u64; 4],
    padding: [u8; 64],
}

/// `KVM_CAP_SPLIT_IRQCHIP` (4.5): each vCPU has its local APIC in the kernel; the other controllers are
/// the program's.
const SPLIT_IRQCHIP: u32 = 121;

/// `kvm_create_guest_memfd`.
#[repr(C)]
struct GuestMemfd {
    size: u64,
    flags: u64,
    reserved: [u64; 6],
}

/// `GUEST_MEMFD_FLAG_MMAP | GUEST_MEMFD_FLAG_INIT_SHARED`: the program can map it, and reach its pages.
const MAPPABLE: u64 = 1 | 2;

/// `KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP`.
const SINGLE_STEP: u32 = 1 | 2;

/// `_IOC(dir, 0xAE, nr, size)`; 1 is write, 2 is read.
const fn ioc(dir: u64, nr: u64, size: usize) -> u64 {
    (dir << 30) | ((size as u64) << 16) | (0xAE << 8) | nr
}

const GET_API_VERSION: u64 = ioc(0, 0x00, 0);
const CREATE_VM: u64 = ioc(0, 0x01, 0);
const GET_VCPU_MMAP_SIZE: u64 = ioc(0, 0x04, 0);
const CREATE_VCPU: u64 = ioc(0, 0x41, 0);
const SET_USER_MEMORY_REGION: u64 = ioc(1, 0x46, size_of::<MemoryRegion>());
const ENABLE_CAP: u64 = ioc(1, 0xa3, size_of::<EnableCap>());
const CREATE_GUEST_MEMFD: u64 = ioc(3, 0xd4, size_of::<GuestMemfd>());
const RUN: u64 = ioc(0, 0x80, 0);
const GET_REGS: u64 = ioc(2, 0x81, size_of::<Regs>());
const SET_REGS: u64 = ioc(1, 0x82, size_of::<Regs>());
const GET_SREGS: u64 = ioc(2, 0x83, size_of::<SpecialRegs>());
const SET_SREGS: u64 = ioc(1, 0x84, size_of::<SpecialRegs>());
const SET_GUEST_DEBUG: u64 = ioc(1, 0x9b, size_of::<GuestDebug>());

const _: () = {
    assert!(size_of::<Regs>() == 144);
    assert!(size_of::<Segment>() == 24);
    assert!(size_of::<SpecialRegs>() == 312);
    assert!(size_of::<MemoryRegion>() == 32);
    assert!(size_of::<GuestDebug>() == 72);
    assert!(size_of::<EnableCap>() == 104);
    assert!(size_of::<GuestMemfd>() == 64);
    assert!(ENABLE_CAP == 0x4068_AEA3 && CREATE_GUEST_MEMFD == 0xC040_AED4);
    assert!(SET_USER_MEMORY_REGION == 0x4020_AE46);
    assert!(GET_REGS == 0x8090_AE81 && SET_REGS == 0x4090_AE82);
    assert!(GET_SREGS == 0x8138_AE83 && SET_SREGS == 0x4138_AE84);
    assert!(SET_GUEST_DEBUG == 0x4048_AE9B);
};

/// A failed call, by the name of what it was to do.
pub type Failure = (&'static str, Errno);

/// A virtual machine without devices; without interrupt controllers, too, unless it is given one.
#[derive(Debug)]
pub struct Vm {
    fd: OwnedFd,
    run_size: NonZeroUsize,
}

impl Vm {
    /// Makes one.
    pub fn new() -> Result<Self, Failure> {
        use nix::fcntl::{OFlag, open};
        let flags = OFlag::O_RDWR | OFlag::O_CLOEXEC;
        let kvm = open("/dev/kvm", flags, nix::sys::stat::Mode::empty())
            .map_err(|e| ("opening /dev/kvm", e))?;
        if number(&kvm, GET_API_VERSION, 0) != Ok(API_VERSION) {
            return Err(("KVM_GET_API_VERSION", Errno::ENOTTY));
        }
        let size =
            number(&kvm, GET_VCPU_MMAP_SIZE, 0).map_err(|e| ("KVM_GET_VCPU_MMAP_SIZE", e))?;
        let run_size = usize::try_from(size).ok().and_then(NonZeroUsize::new);
        let run_size = run_size.ok_or(("KVM_GET_VCPU_MMAP_SIZE", Errno::EINVAL))?;
        let fd = new_fd(&kvm, CREATE_VM).map_err(|e| ("KVM_CREATE_VM", e))?;
        Ok(Self { fd, run_size })
    }

    /// Gives each vCPU, all of which are made later, a local APIC in the kernel (`KVM_CAP_SPLIT_IRQCHIP`, with as
    /// many pins of the program's own as QEMU has).
    pub fn add_lapic(&self) -> Result<(), Failure> {
        let args = [24, 0, 0, 0];
        let cap = EnableCap { cap: SPLIT_IRQCHIP, flags: 0, args, padding: [0; 64] };
        set(&self.fd, ENABLE_CAP, &cap).map_err(|e| ("KVM_ENABLE_CAP of KVM_CAP_SPLIT_IRQCHIP", e))
    }

    /// `KVM_CREATE_GUEST_MEMFD` of `len` bytes that this process may map.
    pub fn guest_memfd(&self, len: usize) -> Result<OwnedFd, Failure> {
        let mut wanted = GuestMemfd { size: len as u64, flags: MAPPABLE, reserved: [0; 6] };
        // SAFETY: `request` encodes the size of the struct (asserted above), and it is valid.
        let raw = unsafe { libc::ioctl(self.fd.as_raw_fd(), CREATE_GUEST_MEMFD, &raw mut wanted) };
        let raw = Errno::result(raw).map_err(|e| ("KVM_CREATE_GUEST_MEMFD", e))?;
        // SAFETY: the kernel has just handed out this descriptor; nobody else owns it.
        Ok(unsafe { OwnedFd::from_raw_fd(raw) })
    }

    /// `KVM_SET_USER_MEMORY_REGION`: the guest's memory from `guest` on is this process's `range`. A slot
    /// that there is already moves to another place in the guest, or is deleted by an empty range.
    pub fn set_memory(&self, slot: u32, guest: u64, range: Range) -> Result<(), Failure> {
        let region = MemoryRegion {
            slot,
            flags: 0,
            guest_phys_addr: guest,
            memory_size: range.len as u64,
            userspace_addr: range.start as u64,
        };
        set(&self.fd, SET_USER_MEMORY_REGION, &region)
            .map_err(|e| ("KVM_SET_USER_MEMORY_REGION", e))
    }

    /// Makes the first vCPU, in 32-bit protected mode: flat segments, no paging.
    pub fn new_vcpu(&self) -> Result<VcpuFd, Failure> {
        let fd = new_fd(&self.fd, CREATE_VCPU).map_err(|e| ("KVM_CREATE_VCPU", e))?;
        let prot = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a fresh mapping at an address that the kernel chooses; never unmapped.
        let shared = unsafe { mmap(None, self.run_size, prot, MapFlags::MAP_SHARED, &fd, 0) };
        let shared = shared.map_err(|e| ("mmap of a vCPU", e))?.cast();
        let vcpu = VcpuFd { fd, shared, size: self.run_size };
        let mut special = SpecialRegs::default();
        get(&vcpu.fd, GET_SREGS, &mut special).map_err(|e| ("KVM_GET_SREGS", e))?;
        let flat = Segment { limit: u32::MAX, present: 1, db: 1, s: 1, g: 1, ..Segment::default() };
        special.segments[0] = Segment { selector: 8, kind: 11, ..flat };
        special.segments[1..6].fill(Segment { selector: 16, kind: 3, ..flat });
        // Protection enabled, and the bit that says that the coprocessor is a 387, which is fixed.
        special.cr0 = 0x11;
        set(&vcpu.fd, SET_SREGS, &special).map_err(|e| ("KVM_SET_SREGS", e))?;
        Ok(vcpu)
    }
}

/// A page that begins with the guest's code, at an address that the kernel chooses; never unmapped.
pub fn code_page(code: &[u8]) -> Result<Range, Failure> {
    let len = crate::memory::PAGE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: a fresh mapping; the copy stays within it, as the slice's bounds are checked.
    unsafe {
        let page = libc::mmap(std::ptr::null_mut(), len, crate::memory::RW, flags, -1, 0);
        if page == libc::MAP_FAILED {
            return Err(("mmap of a page for the guest's code", Errno::last()));
        }
        let bytes = std::slice::from_raw_parts_mut(page.cast::<u8>(), len);
        bytes[..code.len()].copy_from_slice(code);
        Ok(Range { start: page as usize, len })
    }
}

/// A vCPU. One thread at a time may run it.
#[derive(Debug)]
pub struct VcpuFd {
    fd: OwnedFd,
    /// `kvm_run`.
    shared: NonNull<u8>,
    size: NonZeroUsize,
}

/// An access of four bytes that the guest makes and the program completes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// The port, or the address.
    pub at: u64,
    /// Whether the guest writes.
    pub writes: bool,
    /// Where the value stands, from the start of `kvm_run`.
    data: usize,
}

// SAFETY: the kernel serialises the calls on a vCPU, and what is read and written of the shared
// structure is atomic.
unsafe impl Send for VcpuFd {}
// SAFETY: as above.
unsafe impl Sync for VcpuFd {}

impl VcpuFd {
    /// `KVM_RUN`; the exit reason.
    pub fn run(&self) -> Result<u32, Errno> {
        number(&self.fd, RUN, 0)?;
        Ok(self.word(8).load(Ordering::Acquire))
    }

    /// The access that the last exit left to the program, if its reason is a port or memory without a slot.
    pub fn request(&self, reason: u32) -> Option<Request> {
        let at = |at: usize| self.word(at).load(Ordering::Acquire);
        match reason {
            // Direction and size, a byte each, then the port.
            exit::IO => {
                let data = at(40) as usize;
                Some(Request { at: (at(32) >> 16).into(), writes: at(32) & 1 == 1, data })
            }
            exit::MMIO => {
                let address = u64::from(at(36)) << 32 | u64::from(at(32));
                Some(Request { at: address, writes: at(52) & 1 == 1, data: 40 })
            }
            _ => None,
        }
    }

    /// What the guest has written.
    pub fn taken(&self, request: Request) -> u32 {
        self.word(request.data).load(Ordering::Acquire)
    }

    /// What the guest reads when it runs again.
    pub fn give(&self, request: Request, value: u32) {
        self.word(request.data).store(value, Ordering::Release);
    }

    fn word(&self, at: usize) -> &AtomicU32 {
        let at = at.min(self.size.get() - 4) & !3;
        // SAFETY: aligned, as the mapping's start is, and within the mapping, which is never unmapped.
        unsafe { self.shared.add(at).cast::<AtomicU32>().as_ref() }
    }

    /// Sets `immediate_exit`, with which `KVM_RUN` returns at once.
    pub fn set_immediate_exit(&self, on: bool) {
        // SAFETY: the flag is byte 1 of the mapping, which is never unmapped.
        let flag = unsafe { self.shared.add(1).cast::<AtomicU8>().as_ref() };
        flag.store(on.into(), Ordering::Release);
    }

    /// `KVM_GET_REGS`.
    pub fn regs(&self) -> Result<Regs, Failure> {
        let mut regs = Regs::default();
        get(&self.fd, GET_REGS, &mut regs).map_err(|e| ("KVM_GET_REGS", e))?;
        Ok(regs)
    }

    /// `KVM_SET_REGS`.
    pub fn set_regs(&self, regs: &Regs) -> Result<(), Failure> {
        set(&self.fd, SET_REGS, regs).map_err(|e| ("KVM_SET_REGS", e))
    }

    /// `KVM_SET_GUEST_DEBUG`: whether `KVM_RUN` returns after every instruction.
    pub fn set_single_step(&self, on: bool) -> Result<(), Failure> {
        let control = if on { SINGLE_STEP } else { 0 };
        let debug = GuestDebug { control, padding: 0, registers: [0; 8] };
        set(&self.fd, SET_GUEST_DEBUG, &debug).map_err(|e| ("KVM_SET_GUEST_DEBUG", e))
    }
}

/// An ioctl that takes a number and returns one.
fn number(fd: &OwnedFd, request: u64, arg: usize) -> Result<i32, Errno> {
    // SAFETY: requests of this kind take a plain number and touch no memory of this process that
    // Rust knows of.
    Errno::result(unsafe { libc::ioctl(fd.as_raw_fd(), request, arg) })
}

/// An ioctl that returns a new descriptor.
fn new_fd(fd: &OwnedFd, request: u64) -> Result<OwnedFd, Errno> {
    let raw = number(fd, request, 0)?;
    // SAFETY: the kernel has just handed out this descriptor; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

/// An ioctl that reads a struct.
fn set<T>(fd: &OwnedFd, request: u64, arg: &T) -> Result<(), Errno> {
    // SAFETY: `request` encodes the size of T (asserted above); the kernel only reads.
    Errno::result(unsafe { libc::ioctl(fd.as_raw_fd(), request, std::ptr::from_ref(arg)) })
        .map(drop)
}

/// An ioctl that fills a struct, for which any bytes are a value.
fn get<T>(fd: &OwnedFd, request: u64, arg: &mut T) -> Result<(), Errno> {
    // SAFETY: `request` encodes the size of T (asserted above), and `arg` is valid for it.
    Errno::result(unsafe { libc::ioctl(fd.as_raw_fd(), request, std::ptr::from_mut(arg)) })
        .map(drop)
}
