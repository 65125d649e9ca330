//! A guest_memfd that the program maps as well: memory that KVM hands out.

use super::cases::SUITE;
use super::{proof, unusable};
use crate::abi::kvm::Vm;
use crate::abi::{REGISTER_MODE_MINOR, REGISTER_MODE_MISSING, REGISTER_MODE_WP, Range, Rc};
use crate::expect::Expected;
use crate::memory::{BLOCK, Block, PAGE, RW, SPARE, map, tag};
use crate::outcome::{Seen, Stop};
use crate::point::{Backing, Mode, PAGES};
use crate::probe::{Case, Probe, Trial};
use crate::stage::Stage;
use crate::touch;
use crate::waiter::Access;
use nix::errno::Errno;
use std::os::fd::AsFd;
use uffd_results::KernelVersion;

static GUEST_MEMFD: Probe = Probe {
    suite: SUITE,
    name: "guest-memfd",
    statement: "A guest_memfd can be mapped and accessed by the program, and not be registered in any mode.",
    consumers: &["Firecracker: branch feature/secret-hiding, whose guest memory is a guest_memfd"],
};

#[derive(Debug)]
struct GuestMemfd(Mode);

impl Trial for GuestMemfd {
    fn axes(&self) -> String {
        format!("mode={}", self.0)
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        seen.step("set-up");
        let mode = match self.0 {
            Mode::Missing => REGISTER_MODE_MISSING,
            Mode::Wp => REGISTER_MODE_WP,
            Mode::Minor => REGISTER_MODE_MINOR,
        };
        proof::demand(stage)?;
        let beside = Block::map(Backing::Shmem, BLOCK)?;
        let all = Range { start: SPARE, len: PAGES * PAGE };
        let file = Vm::new().and_then(|vm| vm.guest_memfd(all.len));
        let file = file.map_err(|(what, errno)| match errno {
            Errno::ENOTTY | Errno::EINVAL if what == "KVM_CREATE_GUEST_MEMFD" => {
                Stop::Unsupported(format!("{what} of memory that can be mapped (6.18): {errno:?}"))
            }
            _ => unusable((what, errno)),
        })?;
        seen.fact("mmap", map(all, RW, libc::MAP_SHARED, Some(file.as_fd()), 0));
        let stored = touch::store(all.start, tag::WROTE).and_then(|()| touch::load(all.start));
        seen.fact("load", stored.map_or_else(Access::Signal, |value| Access::Ran(Some(value))));
        seen.step("register");
        let uffd = stage.uffd(0)?;
        let register = |range| Rc(uffd.register(range, mode).err());
        seen.fact("register", register(all));
        seen.fact("beside", register(beside.range(0..PAGES)));
        Ok(())
    }

    fn expect(&self, _: KernelVersion) -> Vec<Expected> {
        const FLAGS: &str = "Documentation/virt/kvm/api.rst, KVM_CREATE_GUEST_MEMFD: GUEST_MEMFD_FLAG_MMAP, \
             GUEST_MEMFD_FLAG_INIT_SHARED (6.18)";
        const KINDS: &str = "vma_can_userfault(): neither anonymous nor shmem nor hugetlb";
        vec![
            Expected::new("mmap", "0", FLAGS),
            Expected::new("load", "ran:wrote", FLAGS),
            Expected::new("register", "EINVAL", KINDS),
            Expected::new("beside", "0", KINDS),
        ]
    }

    fn recipe(&self) -> Vec<String> {
        vec![
            "KVM_CREATE_GUEST_MEMFD of 6 pages, with flags by which the program can map and access it".into(),
            "mmap of it; store and load".into(),
            format!("UFFDIO_REGISTER of it for {} faults, and of a memfd beside", self.0),
        ]
    }
}

/// The cases.
pub(super) fn cases(cases: &mut Vec<Case>) {
    for mode in [Mode::Missing, Mode::Wp, Mode::Minor] {
        cases.push(Case::trial(&GUEST_MEMFD, GuestMemfd(mode), true));
    }
}
