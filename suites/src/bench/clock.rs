//! The clock: the CPU's time-stamp counter, and what is needed to say what a tick of it is worth.
//!
//! Natively it counts time. In a VM whose clock is driven by executed instructions (QEMU's `-icount`) it
//! counts these: a loop of known length then takes as many ticks as it has instructions, whatever else the
//! machine does, and that is checked before any count is believed.

use super::{Operation, Work};
use crate::outcome::Stop;
use crate::stage::Stage;
use std::arch::asm;
use std::time::{Duration, Instant};

/// Ticks since some moment. What comes before in the program is done.
#[inline]
#[cfg(target_arch = "x86_64")]
pub fn stamp() -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: reads a counter; changes nothing but the registers named.
    unsafe {
        asm!("lfence", "rdtsc", "lfence", out("eax") low, out("edx") high, options(nostack));
    }
    (u64::from(high) << 32) | u64::from(low)
}

/// Ticks since some moment. What comes before in the program is done.
#[inline]
#[cfg(target_arch = "aarch64")]
pub fn stamp() -> u64 {
    let ticks: u64;
    // SAFETY: reads a counter; changes nothing but the register named.
    unsafe { asm!("isb", "mrs {0}, cntvct_el0", "isb", out(reg) ticks, options(nostack)) };
    ticks
}

/// Instructions of one turn of [`spin`].
pub const SPIN: u64 = 2;

/// Turns round a loop of [`SPIN`] instructions.
#[inline]
pub fn spin(turns: u64) {
    if turns > 0 {
        go_round(turns);
    }
}

/// One piece of code for all: a turn of such a short loop was seen to take two cycles for one where it crosses a
/// boundary of 64 bytes.
#[inline(never)]
fn go_round(turns: u64) {
    // SAFETY: counts a register down; touches no memory.
    unsafe {
        #[cfg(target_arch = "x86_64")]
        asm!(".p2align 5", "2:", "dec {0}", "jnz 2b", inout(reg) turns => _, options(nostack, nomem));
        #[cfg(target_arch = "aarch64")]
        asm!("2:", "subs {0}, {0}, #1", "b.ne 2b", inout(reg) turns => _, options(nostack, nomem));
    }
}

/// Turns of the loops whose length is known.
const LOOPS: [u64; 2] = [50_000, 500_000];
/// How long the clock is held against the kernel's.
const SPAN: Duration = Duration::from_millis(2);

struct Loop(u64);

impl Work for Loop {
    fn round(&mut self, ticks: &mut Vec<u64>) -> Result<(), Stop> {
        for _ in 0..4 {
            let start = stamp();
            spin(self.0);
            ticks.push(stamp() - start);
        }
        Ok(())
    }
}

/// Ticks of a millisecond by CLOCK_MONOTONIC.
struct Millisecond;

impl Work for Millisecond {
    fn round(&mut self, ticks: &mut Vec<u64>) -> Result<(), Stop> {
        let (from, start) = (Instant::now(), stamp());
        let (span, end) = loop {
            let (span, end) = (from.elapsed(), stamp());
            if span >= SPAN {
                break (span, end);
            }
        };
        let nanoseconds = u64::try_from(span.as_nanos()).unwrap_or(u64::MAX).max(1);
        ticks.push((end - start).saturating_mul(1_000_000) / nanoseconds);
        Ok(())
    }
}

/// Ids of the loops, each with how many instructions it has.
pub fn loops() -> [(String, u64); 2] {
    LOOPS.map(|turns| (format!("check/loop[turns={turns}]"), turns * SPIN))
}

/// Id of the operation whose cost is the ticks of a millisecond.
pub const MILLISECOND: &str = "check/clock[by=monotonic]";

pub(super) fn operations() -> Vec<Operation> {
    let about = "A loop of two instructions, of known length.";
    let one = |turns: u64| {
        let id = ("check", "loop", format!("turns={turns}"));
        Operation::new(id, about, move |_: &Stage, _| Ok(Loop(turns)))
    };
    let mut all: Vec<Operation> = LOOPS.map(one).into();
    let id = ("check", "clock", "by=monotonic".to_owned());
    let about = "Ticks of a millisecond of CLOCK_MONOTONIC.";
    all.push(Operation::new(id, about, |_: &Stage, _| Ok(Millisecond)));
    all
}
