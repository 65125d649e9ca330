//! Mode bits: each of the 64, known or not, and modes that contradict one another.

use super::ground::{ARGUMENT, Did, Ground, Verdict, argument_page};
use super::twist::{Called, Twist, Twisted, grounds};
use crate::abi::command::Command;
use crate::outcome::{Seen, Stop};
use crate::probe::{Case, Probe};
use crate::scenario::Scene;
use uffd_results::KernelVersion;

static MODE: Probe = Probe {
    suite: "arguments",
    name: "mode",
    statement: "Mode bits that a kernel does not know, and modes that contradict one another or the \
                registration, are refused with EINVAL; nothing is done or woken.",
    consumers: &["programs that use a newer mode and fall back: COPY with MODE_WP in E2B and umap"],
};

/// Mode bits in place of the good ones, which are 0; for REGISTER those of the registration.
#[derive(Clone, Copy, Debug)]
enum Mode {
    /// One bit.
    Bit(u32),
    /// Bits 0 and 1.
    Both,
    /// No bit.
    None,
    /// Every bit.
    All,
}

impl Mode {
    const fn bits(self) -> u64 {
        match self {
            Self::Bit(n) => 1 << n,
            Self::Both => 3,
            Self::None => 0,
            Self::All => u64::MAX,
        }
    }
}

impl Twist for Mode {
    fn axis(&self) -> String {
        match self {
            Self::Bit(n) => format!("mode=bit-{n}"),
            Self::Both => "mode=bits-0-and-1".into(),
            Self::None => "mode=none".into(),
            Self::All => "mode=all".into(),
        }
    }

    fn applies(&self, ground: Ground) -> bool {
        ground.command.mode_at().is_some()
            // Its known bits are the suite `register`'s.
            && (ground.command != Command::Register || self.bits() > 8 || self.bits() == 0)
    }

    fn call(&self, ground: Ground, scene: &Scene<'_>, seen: &mut Seen<'_>) -> Result<Called, Stop> {
        let mut words = ground.good(scene);
        if let Some(at) = ground.command.mode_at() {
            words[at] = self.bits();
        }
        argument_page()?;
        ground.write(&words, ARGUMENT)?;
        seen.step("call");
        let rc = scene.uffd.raw(ground.command.request(), ARGUMENT);
        Ok(Called { rc, field: ground.result(ARGUMENT)? })
    }

    fn verdict(&self, ground: Ground, kernel: KernelVersion) -> Verdict {
        let says = "ioctl_userfaultfd(2): modes of this ioctl; EINVAL for any other bit";
        let silent = Verdict::done(ground, says).silently();
        match (ground.command, self.bits()) {
            (Command::Register, _) => Verdict::refused("EINVAL", says),
            // For MOVE also ALLOW_SRC_HOLES, of which there are none.
            (_, 0) | (Command::Move, 2) => Verdict::done(ground, says),
            // DONTWAKE.
            (
                Command::Copy
                | Command::Zeropage
                | Command::Continue
                | Command::Poison
                | Command::Move,
                1,
            )
            | (Command::Writeprotect | Command::Rwprotect, 2)
            | (Command::Move, 3) => silent,
            // Protecting what is protected.
            (Command::Writeprotect | Command::Rwprotect, 1) => {
                Verdict { did: Did::Nothing, ..Verdict::done(ground, says) }
            }
            // MODE_WP without such a registration.
            (Command::Copy, 2 | 3) => Verdict::failed(
                "EINVAL",
                -22,
                "ioctl_userfaultfd(2), UFFDIO_COPY_MODE_WP: only with a registration for write \
                 protection",
            ),
            (Command::Continue, 2 | 3) if kernel >= KernelVersion::new(6, 4, 0) => Verdict::failed(
                "EINVAL",
                -22,
                "ioctl_userfaultfd(2), UFFDIO_CONTINUE_MODE_WP (6.4): only with a registration for \
                     write protection",
            ),
            _ => Verdict::refused("EINVAL", says),
        }
    }

    fn says(&self, ground: Ground) -> String {
        format!("{} with mode {:#x}", ground.command, self.bits())
    }
}

/// The cases.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (ground, plain) in grounds() {
        for mode in [Mode::None, Mode::Both, Mode::All] {
            cases.extend(Twisted::case(&MODE, ground, mode, plain));
        }
        for bit in 0..u64::BITS {
            let telling = matches!(bit, 0..=5 | 31 | 32 | 63);
            // Huge pages take a hundred times as long, and say the same of any other bit.
            if telling || !ground.backing.is_huge() {
                cases.extend(Twisted::case(&MODE, ground, Mode::Bit(bit), plain && telling));
            }
        }
    }
    cases
}
