//! What a guest reaches beside memory: two ports, and an address that no slot has.
//!
//! An instruction that moves data between them and memory is emulated by KVM, which loads from the guest's memory
//! and stores to it with `__copy_from_user()` and `__copy_to_user()` on the program's address: no vCPU's fault, and no
//! get_user_pages(). Values have eight bytes, so each is moved by two instructions.

use crate::abi::kvm::{Request, VcpuFd};
use crate::memory::tag;
use std::sync::atomic::{AtomicU32, Ordering};

/// The port of a value's low half; that of the high half is the next one.
pub(super) const PORT: u64 = 0x20;
/// The address without memory that a value's low half is read from.
pub(super) const ADDRESS: u64 = 0x0800_0000;

/// Offset of the code that loads for the ports.
pub(super) const OUTS: usize = 0x60;
/// Offset of the code that stores what the ports give.
pub(super) const INS: usize = 0x70;
/// Offset of the code that stores what is read from [`ADDRESS`], which is read first.
pub(super) const MOVS: usize = 0x80;

/// `outsd; inc edx; outsd`, the same with `insd`, and `movsd; movsd`, with their offsets.
pub(super) const CODE: [(usize, &[u8]); 3] =
    [(OUTS, &[0x6f, 0x42, 0x6f]), (INS, &[0x6d, 0x42, 0x6d]), (MOVS, &[0xa5, 0xa5])];

/// The halves of [`tag::WROTE`], the low one first.
const HALVES: [u32; 2] = [(tag::WROTE & 0xffff_ffff) as u32, (tag::WROTE >> 32) as u32];

/// What the ports have been given, by halves.
#[derive(Debug, Default)]
pub(super) struct Device([AtomicU32; 2]);

impl Device {
    /// Gives or takes the half of a value that the guest asks for, which is [`tag::WROTE`]; false if it asks for
    /// something else.
    pub(super) fn serves(&self, fd: &VcpuFd, request: Request) -> bool {
        let half = match request.at {
            PORT | ADDRESS => 0,
            at if at == PORT + 1 || at == ADDRESS + 4 => 1,
            _ => return false,
        };
        if request.writes {
            self.0[half].store(fd.taken(request), Ordering::Relaxed);
        } else {
            fd.give(request, HALVES[half]);
        }
        true
    }

    /// What the guest has written.
    pub(super) fn taken(&self) -> u64 {
        let [low, high] = &self.0;
        u64::from(high.load(Ordering::Relaxed)) << 32 | u64::from(low.load(Ordering::Relaxed))
    }
}
