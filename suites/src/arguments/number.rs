//! Ioctl numbers that are nearly right: direction, size or type differ, or bits that nobody reads.

use super::ground::{ARGUMENT, Ground, Verdict, argument_page};
use super::twist::{Called, Twist, Twisted, grounds};
use crate::abi::command::{Command, number};
use crate::outcome::{Seen, Stop};
use crate::point::Backing;
use crate::probe::{Case, Probe};
use crate::scenario::Scene;
use uffd_results::KernelVersion;

static NUMBER: Probe = Probe {
    suite: "arguments",
    name: "number",
    statement: "An ioctl number whose direction, size or type is not exactly the header's is refused \
                with EINVAL, whatever its number; bits above the lowest 32 are ignored.",
    consumers: &[
        "Cloud Hypervisor issue 8016: UFFDIO_WAKE built as _IOW failed unnoticed",
        "bindings that compute ioctl numbers: userfaultfd-rs, Go handlers",
    ],
};

/// What differs.
#[derive(Clone, Copy, Debug)]
enum Number {
    /// The direction bits: 0 none, 1 write, 2 read, 3 both.
    Direction(u64),
    /// The size in bytes.
    Size(usize),
    /// The type, 0xAA in the header.
    Type(u64),
    /// The number, with the ioctl's direction and size.
    Nr(u64),
    /// A bit above the lowest 32.
    High(u32),
}

impl Number {
    fn request(self, command: Command) -> u64 {
        let own = command.request();
        match self {
            Self::Direction(direction) => own & !(3 << 30) | direction << 30,
            Self::Size(size) => own & !(0x3fff << 16) | (size as u64) << 16,
            Self::Type(letter) => own & !0xff00 | letter << 8,
            Self::Nr(nr) => number(own >> 30, nr, command.words() * 8),
            Self::High(bit) => own | 1 << bit,
        }
    }
}

impl Twist for Number {
    fn axis(&self) -> String {
        match self {
            Self::Direction(direction) => {
                let words = ["none", "write", "read", "both"];
                format!("direction={}", words[usize::try_from(*direction).unwrap_or(0) & 3])
            }
            Self::Size(size) => format!("size={size}"),
            Self::Type(letter) => format!("type={letter:#04x}"),
            Self::Nr(nr) => format!("nr={nr:#04x}"),
            Self::High(bit) => format!("high-bit={bit}"),
        }
    }

    fn applies(&self, ground: Ground) -> bool {
        let own = ground.command.request();
        self.request(ground.command) != own
            && !Command::ALL.iter().any(|c| c.request() == self.request(ground.command))
    }

    fn call(&self, ground: Ground, scene: &Scene<'_>, seen: &mut Seen<'_>) -> Result<Called, Stop> {
        let words = ground.good(scene);
        argument_page()?;
        ground.write(&words, ARGUMENT)?;
        seen.step("call");
        let rc = scene.uffd.raw(self.request(ground.command), ARGUMENT);
        Ok(Called { rc, field: ground.result(ARGUMENT)? })
    }

    fn verdict(&self, ground: Ground, _: KernelVersion) -> Verdict {
        match self {
            Self::High(_) => {
                Verdict::done(ground, "ioctl(2) takes an unsigned int of a request in the kernel")
            }
            _ => Verdict::refused(
                "EINVAL",
                "userfaultfd_ioctl(): compares the whole number; EINVAL where others say ENOTTY",
            ),
        }
    }

    fn says(&self, ground: Ground) -> String {
        format!("ioctl number {:#x} in place of {}'s", self.request(ground.command), ground.command)
    }
}

/// The cases; by default on the memory on which migration programs use the ioctl first.
pub(super) fn cases() -> Vec<Case> {
    let mut numbers: Vec<(Number, bool)> = Vec::new();
    numbers.extend((0..4).map(|direction| (Number::Direction(direction), true)));
    let sizes = [(0, true), (8, true), (16, true), (23, false), (24, true), (32, true), (40, true)];
    numbers.extend(sizes.map(|(size, default)| (Number::Size(size), default)));
    numbers.extend([(48, true), (4096, false), (0x3fff, true)].map(|(n, d)| (Number::Size(n), d)));
    numbers.extend([(0x00, false), (0xab, true), (0xff, false)].map(|(t, d)| (Number::Type(t), d)));
    let nrs = [0x0b, 0x0c, 0x10, 0x20, 0x3e, 0x40, 0x7f, 0x80, 0xff];
    numbers.extend(nrs.map(|nr| (Number::Nr(nr), nr == 0x0b)));
    numbers.extend([(32, true), (63, false)].map(|(bit, d)| (Number::High(bit), d)));
    let mut cases = Vec::new();
    // No mapping is looked up: huge pages would only take longer.
    for (ground, plain) in grounds().filter(|(ground, _)| !ground.backing.is_huge()) {
        let first = ground.backing == Backing::Anon || ground.command == Command::Continue;
        for (number, telling) in &numbers {
            let by_default = plain && first && *telling;
            cases.extend(Twisted::case(&NUMBER, ground, *number, by_default));
        }
    }
    cases
}
