//! Bad ranges: every ioctl that has one, with each thing that can be wrong with start and length.

use super::ground::{ARGUMENT, Did, Ground, Verdict, argument_page};
use super::twist::{Called, Twist, Twisted, grounds};
use crate::abi::command::Command;
use crate::edge::{LOW_RANGES, SOURCE_CHECKED, WRITEPROTECT_SEVERAL};
use crate::memory::PAGE;
use crate::outcome::{Seen, Stop};
use crate::point::{Backing, axis};
use crate::probe::{Case, Probe};
use crate::scenario::Scene;
use uffd_results::KernelVersion;

static RANGE: Probe = Probe {
    suite: "arguments",
    name: "range",
    statement: "A range that is empty, not whole pages, wraps or leaves user memory is refused with \
                EINVAL; nothing is done, written or woken.",
    consumers: &[
        "Cloud Hypervisor and E2B: WAKE of a length 0",
        "every handler that computes ranges",
    ],
};

/// The first address behind user memory: on x86-64 with four levels of page tables, on arm64 with addresses
/// of 48 bits.
pub(super) const TASK_SIZE: usize =
    if cfg!(target_arch = "x86_64") { 0x7fff_ffff_f000 } else { 1 << 48 };
const END: u64 = TASK_SIZE as u64;
const PAGE_64: u64 = PAGE as u64;

axis! {
    /// What is wrong with a range.
    Bad {
        /// Nothing: the control.
        Nothing = "nothing",
        /// The length is 0.
        LenZero = "len-zero",
        /// The length is 1.
        LenOne = "len-one",
        /// The length is a byte more than a page.
        LenOdd = "len-page-and-one",
        /// The range ends a page behind user memory.
        LenPastEnd = "len-past-user",
        /// The length is more than user memory.
        LenHuge = "len-huge",
        /// The range wraps around and ends before its start.
        LenWraps = "len-wraps",
        /// The range ends at 2^64.
        LenToTop = "len-to-top",
        /// The length is the sign bit alone.
        LenSign = "len-sign-bit",
        /// The start is a byte behind the page's.
        StartOdd = "start-odd",
        /// The start is in the middle of the page.
        StartHalf = "start-half",
        /// The start is the first address behind user memory.
        StartTaskSize = "start-task-size",
        /// The start is not canonical.
        StartNonCanonical = "start-non-canonical",
        /// The start is the kernel's.
        StartKernel = "start-kernel",
        /// The last page of all addresses, so that start plus length is 0.
        StartLast = "start-last-page",
        /// The start has the top byte of a tagged pointer.
        StartTagged = "start-tagged",
        /// The page at address 0, which can't be mapped.
        Null = "null",
        /// The last page of user memory, which is not mapped.
        LastUser = "last-user-page",
        /// From the waiter's page to the end of user memory.
        ToTheEnd = "to-the-end",
        /// All of user memory.
        All = "all-of-user",
        /// A huge page's range that starts a small page later.
        HugeStart = "huge-start-off-by-page",
        /// A huge page's range that is a small page long.
        HugeLen = "huge-len-of-page",
    }
}

impl Bad {
    /// The start and length in place of the good ones.
    fn twist(self, start: u64, len: u64) -> (u64, u64) {
        match self {
            Self::Nothing => (start, len),
            Self::LenZero => (start, 0),
            Self::LenOne => (start, 1),
            Self::LenOdd => (start, len + 1),
            Self::LenPastEnd => (start, END + PAGE_64 - start),
            Self::LenHuge => (start, END.next_power_of_two()),
            Self::LenWraps => (start, PAGE_64.wrapping_neg()),
            Self::LenToTop => (start, start.wrapping_neg()),
            Self::LenSign => (start, 1 << 63),
            Self::StartOdd => (start + 1, len),
            Self::StartHalf => (start + PAGE_64 / 2, len),
            Self::StartTaskSize => (END, len),
            Self::StartNonCanonical => (1 << 47, len),
            Self::StartKernel => (0xffff_8880_0000_0000, len),
            Self::StartLast => (PAGE_64.wrapping_neg(), PAGE_64),
            Self::StartTagged => (start | 0x7f << 56, len),
            Self::Null => (0, PAGE_64),
            Self::LastUser => (END - PAGE_64, PAGE_64),
            Self::ToTheEnd => (start, END - start),
            Self::All => (0, END),
            Self::HugeStart => (start + PAGE_64, len),
            Self::HugeLen => (start, PAGE_64),
        }
    }

    /// Whether the range is in order, and only nothing there to be worked on.
    const fn is_valid(self) -> bool {
        matches!(self, Self::Null | Self::LastUser | Self::ToTheEnd | Self::All)
    }
}

/// The twist.
#[derive(Clone, Copy, Debug)]
struct Range(Bad);

impl Twist for Range {
    fn axis(&self) -> String {
        format!("bad={}", self.0)
    }

    fn applies(&self, ground: Ground) -> bool {
        let huge = matches!(self.0, Bad::HugeStart | Bad::HugeLen);
        ground.command.length_at().is_some() && (!huge || ground.backing.is_huge())
    }

    fn call(&self, ground: Ground, scene: &Scene<'_>, seen: &mut Seen<'_>) -> Result<Called, Stop> {
        let mut words = ground.good(scene);
        let at = ground.command.length_at().unwrap_or(1);
        (words[0], words[at]) = self.0.twist(words[0], words[at]);
        argument_page()?;
        ground.write(&words, ARGUMENT)?;
        seen.step("call");
        let rc = scene.uffd.raw(ground.command.request(), ARGUMENT);
        Ok(Called { rc, field: ground.result(ARGUMENT)? })
    }

    fn verdict(&self, ground: Ground, kernel: KernelVersion) -> Verdict {
        let says = "ioctl_userfaultfd(2), EINVAL; validate_range() in the kernel's userfaultfd code: \
                    whole pages, not empty, below TASK_SIZE";
        match self.0 {
            Bad::Nothing => Verdict::done(ground, "ioctl_userfaultfd(2)"),
            bad if bad.is_valid() => nowhere(ground, bad, kernel),
            Bad::HugeStart | Bad::HugeLen => huge(ground, self.0),
            _ => Verdict::refused("EINVAL", says),
        }
    }

    fn says(&self, ground: Ground) -> String {
        format!("{} with start and length such that: {}", ground.command, self.0)
    }
}

/// Ranges that are in order but hold no memory, or memory of all kinds.
fn nowhere(ground: Ground, bad: Bad, kernel: KernelVersion) -> Verdict {
    let long = matches!(bad, Bad::ToTheEnd | Bad::All);
    if matches!(bad, Bad::Null | Bad::All) && refuses_low(kernel) {
        return Verdict::refused("EINVAL", LOW_RANGES.source);
    }
    let enoent = "ioctl_userfaultfd(2), ENOENT: no registered mapping holds the whole range";
    match ground.command {
        Command::Wake => {
            let says = "ioctl_userfaultfd(2), UFFDIO_WAKE; userfaultfd_wake() looks up no mapping";
            let did = if long { Did::Wholly } else { Did::Nothing };
            Verdict { did, ..Verdict::done(ground, says) }
        }
        Command::Register | Command::Unregister
            if bad == Bad::LastUser && kernel < KernelVersion::new(6, 3, 0) =>
        {
            Verdict::refused(
                "ENOMEM",
                "userfaultfd_register() before commit 11a9b90274f6 (6.3) gave it a VMA iterator: ENOMEM if no \
                 mapping lies in the range or above, EINVAL if one lies above",
            )
        }
        Command::Register | Command::Unregister => Verdict::refused(
            "EINVAL",
            "ioctl_userfaultfd(2), EINVAL: no mapping in the range, or one that userfaultfd does not \
             handle",
        ),
        Command::Copy if long && !SOURCE_CHECKED.is_known_in(kernel) => {
            Verdict::failed("ENOENT", -2, enoent)
        }
        Command::Copy | Command::Move if long => Verdict::refused("EINVAL", SOURCE_CHECKED.source),
        Command::Writeprotect | Command::Rwprotect
            if long && ground.backing.is_huge() && WRITEPROTECT_SEVERAL.is_known_in(kernel) =>
        {
            Verdict::failed(
                "EINVAL",
                -22,
                "mwriteprotect_range(): what lies in hugetlb memory must be whole huge pages, which is \
                 looked at before anything is done",
            )
        }
        Command::Writeprotect if long && WRITEPROTECT_SEVERAL.is_known_in(kernel) => Verdict {
            did: Did::Silently,
            ..Verdict::failed("ENOENT", -2, WRITEPROTECT_SEVERAL.source)
        },
        _ => Verdict::failed("ENOENT", -2, enoent),
    }
}

/// Whether the kernel refuses addresses below `vm.mmap_min_addr` at once.
pub(super) fn refuses_low(kernel: KernelVersion) -> bool {
    !LOW_RANGES.is_known_in(kernel)
}

/// Ranges that are not whole huge pages.
fn huge(ground: Ground, bad: Bad) -> Verdict {
    let says = "mfill_atomic_hugetlb(), mwriteprotect_range() and userfaultfd_register(): ranges of \
                hugetlb mappings must be whole huge pages";
    match ground.command {
        Command::Wake => {
            // A range that starts behind the waiter's address is not the waiter's.
            let did = if bad == Bad::HugeStart { Did::Nothing } else { Did::Wholly };
            Verdict { did, ..Verdict::done(ground, "userfaultfd_wake() looks up no mapping") }
        }
        Command::Register | Command::Unregister => Verdict::refused("EINVAL", says),
        _ => Verdict::failed("EINVAL", -22, says),
    }
}

/// The cases.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (ground, plain) in grounds() {
        for bad in Bad::ALL {
            let huge = matches!(bad, Bad::HugeStart | Bad::HugeLen)
                && ground.backing == Backing::HugetlbShared
                && !ground.in_kernel;
            cases.extend(Twisted::case(&RANGE, ground, Range(*bad), plain || huge));
        }
    }
    cases
}
