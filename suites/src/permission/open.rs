//! Who may make a userfaultfd in which way, with which features, and which faults it then catches.

use super::who::{self, Setting, Who};
use crate::abi::{REGISTER_MODE_MISSING, Uffd, Way, features};
use crate::evidence::QueueFile;
use crate::expect::Expected;
use crate::memory::{BLOCK, Block};
use crate::outcome::{Seen, Stop};
use crate::point::{Backing, PAGES, Waiter as Kind};
use crate::probe::{Case, Probe, Trial};
use crate::process::{Child, Link};
use crate::stage::Stage;
use crate::waiter::{Fate, Waiter};
use uffd_results::KernelVersion;

const SYSCALL: &str = "userfaultfd(2), EPERM: without UFFD_USER_MODE_ONLY it takes CAP_SYS_PTRACE or \
    vm.unprivileged_userfaultfd=1 (5.2)";
const USER_MODE: &str = "userfaultfd(2), UFFD_USER_MODE_ONLY (5.11): needs no privilege; kernel-mode faults \
    are not caught";
const DEVICE: &str = "Documentation/admin-guide/mm/userfaultfd.rst (6.1): access to /dev/userfaultfd is a \
    matter of its mode alone";
const FORK: &str = "ioctl_userfaultfd(2), UFFDIO_API, EPERM: UFFD_FEATURE_EVENT_FORK takes CAP_SYS_PTRACE (commit \
    3c1c24d91ffd, 5.5), which capable() asks of the first user namespace";

static OPEN: Probe = Probe {
    suite: "permission",
    name: "open",
    statement: "userfaultfd(2) takes CAP_SYS_PTRACE or the sysctl, UFFD_USER_MODE_ONLY nothing, the device its \
                mode; EVENT_FORK always takes CAP_SYS_PTRACE; only UFFD_USER_MODE_ONLY leaves kernel-mode \
                faults out.",
    consumers: &[
        "QEMU: uffd_open(), util/userfaultfd.c",
        "Firecracker: userfaultfd in the jailer, #4025 and #4086",
        "Cloud Hypervisor: vmm/src/userfaultfd.rs, #8165 and #8735",
        "CRIU: kerndat_uffd(), criu/kerndat.c; #3035",
        "crosvm: EVENT_FORK can't be used in a user namespace, swap/",
        "userfaultfd-rs: #16, #56, #68",
        "libfabric and Android ART: UFFD_USER_MODE_ONLY",
    ],
};

/// How it is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    Syscall,
    UserModeOnly,
    Device(u32),
}

impl How {
    const ALL: &'static [Self] = &[
        Self::Syscall,
        Self::UserModeOnly,
        Self::Device(0o600),
        Self::Device(0o666),
        Self::Device(0o444),
        Self::Device(0),
    ];

    fn word(self) -> String {
        match self {
            Self::Syscall => "syscall".into(),
            Self::UserModeOnly => "user-mode-only".into(),
            Self::Device(mode) => format!("device-{mode:03o}"),
        }
    }

    const fn way(self) -> Way {
        match self {
            Self::Syscall => Way::Syscall,
            Self::UserModeOnly => Way::UserModeOnly,
            Self::Device(_) => Way::Device,
        }
    }
}

#[derive(Debug)]
struct Open {
    who: Who,
    sysctl: &'static str,
    how: How,
    fork: bool,
}

/// Whether an access of a kind to a fresh page is caught: `parks`, or how it ends.
pub(super) fn caught(
    stage: &Stage,
    uffd: &Uffd,
    block: &Block,
    kind: Kind,
    page: usize,
) -> Result<String, Stop> {
    let queue = QueueFile::open(uffd)?;
    let mut waiter = Waiter::start(stage, kind, block.range(page..page + 1))?;
    let fate = waiter.settle(uffd, &queue)?;
    if fate != Fate::Again {
        return Ok(stage.word(fate));
    }
    // Lets it go, so that the next one is alone.
    let (rc, _) = uffd.copy(block.range(page..page + 1), stage.source, 0);
    waiter.end()?;
    Ok(if rc.is_ok() { "parks".into() } else { format!("parks-copy:{rc}") })
}

impl Open {
    /// What the process of these credentials does; a word a fact.
    fn ask(&self, stage: &Stage, link: &Link) -> Result<(), Stop> {
        self.who.enter()?;
        let uffd = match Uffd::open(self.how.way()) {
            Ok(uffd) => uffd,
            Err(e) => return link.say(format_args!("{e:?}")),
        };
        link.say(0)?;
        let wanted = if self.fork { features::EVENT_FORK } else { 0 };
        let api = uffd.handshake(0xAA, wanted);
        link.say(api.rc)?;
        if !api.rc.is_ok() {
            // Refused, and so may be asked again without.
            link.say(uffd.handshake(0xAA, 0).rc)?;
        }
        let block = Block::map(Backing::Anon, BLOCK)?;
        let registered = uffd.register(block.range(0..PAGES), REGISTER_MODE_MISSING);
        registered.map_err(|e| Stop::Broken(format!("REGISTER: {e:?}")))?;
        link.say(caught(stage, &uffd, &block, Kind::UserRead, 1)?)?;
        link.say(caught(stage, &uffd, &block, Kind::SysRead, 2)?)
    }

    fn opens(&self, kernel: KernelVersion) -> (&'static str, &'static str) {
        let since = |major, minor| (kernel.major, kernel.minor) >= (major, minor);
        let allowed = self.who.may_trace() || self.sysctl == "1";
        match self.how {
            How::Syscall if allowed => ("0", SYSCALL),
            How::Syscall => ("EPERM", SYSCALL),
            How::UserModeOnly if since(5, 11) => ("0", USER_MODE),
            How::UserModeOnly if allowed => ("EINVAL", USER_MODE),
            How::UserModeOnly => ("EPERM", USER_MODE),
            How::Device(_) if !since(6, 1) => ("ENOENT", DEVICE),
            How::Device(mode) => {
                let owner = matches!(self.who, Who::Root | Who::NoCaps | Who::Userns);
                let bits = if owner { mode >> 6 } else { mode } & 6;
                let open = bits == 6 || self.who == Who::Root;
                (if open { "0" } else { "EACCES" }, DEVICE)
            }
        }
    }
}

impl Trial for Open {
    fn axes(&self) -> String {
        let Self { who, sysctl, how, fork } = self;
        let wanted = if *fork { "event-fork" } else { "none" };
        format!("who={},sysctl={sysctl},way={},features={wanted}", who.word(), how.word())
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        who::must_be_root()?;
        let _sysctl = Setting::sysctl(stage, self.sysctl)?;
        let _mode = match self.how {
            How::Device(mode) => Setting::mode(stage, mode)?,
            _ => Setting::Kept,
        };
        seen.step("ask");
        let mut child = Child::fork(stage, |link| self.ask(stage, link))?;
        let open = child.link().hear()?;
        seen.fact("open", &open);
        if open == "0" {
            let api = child.link().hear()?;
            seen.fact("api", &api);
            if api != "0" {
                seen.fact("api-again", child.link().hear()?);
            }
            seen.fact("user-fault", child.link().hear()?);
            seen.fact("kernel-fault", child.link().hear()?);
        }
        child.finish()
    }

    fn expect(&self, kernel: KernelVersion) -> Vec<Expected> {
        let (open, source) = self.opens(kernel);
        let mut facts = vec![Expected::new("open", open, source)];
        if open != "0" {
            return facts;
        }
        if self.fork && !self.who.may_trace() {
            facts.push(Expected::new("api", "EPERM", FORK));
            facts.push(Expected::new("api-again", "0", FORK));
        } else {
            facts.push(Expected::new("api", "0", FORK));
        }
        facts.push(Expected::new("user-fault", "parks", USER_MODE));
        let kernel_fault = if self.how == How::UserModeOnly { "EFAULT" } else { "parks" };
        facts.push(Expected::new("kernel-fault", kernel_fault, USER_MODE));
        facts
    }

    fn recipe(&self) -> Vec<String> {
        vec![
            format!(
                "vm.unprivileged_userfaultfd={}; a process as {}",
                self.sysctl,
                self.who.word()
            ),
            format!("a userfaultfd by {}; UFFDIO_API; REGISTER", self.how.word()),
            "a load from page 1; a read(2) into page 2".into(),
        ]
    }
}

/// The cases.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for who in Who::ALL {
        for sysctl in ["0", "1"] {
            for how in How::ALL {
                for fork in [false, true] {
                    let trial = Open { who: *who, sysctl, how: *how, fork };
                    cases.push(Case::trial(&OPEN, trial, true));
                }
            }
        }
    }
    cases
}
