//! `UFFDIO_API`: versions, features, and what may come first and second.

use crate::abi::{Api, Uffd, Way, features};
use crate::evidence::QueueFile;
use crate::expect::Expected;
use crate::outcome::{Seen, Stop};
use crate::probe::{Case, Probe, Trial};
use crate::stage::Stage;
use uffd_results::KernelVersion;

const API: u64 = 0xAA;
/// What the context remembers beside the features: that there was a handshake.
const INITIALIZED: u64 = 1 << 31;

const MAN: &str = "ioctl_userfaultfd(2), UFFDIO_API: the features that the kernel offers, and the \
    ioctls API, REGISTER and UNREGISTER";
const REFUSED: &str = "ioctl_userfaultfd(2), UFFDIO_API, EINVAL: another version of the API, or a \
    feature that the kernel does not have; userfaultfd_api() zeroes the structure";
/// A feature that needs another one.
const ALONE: &str = "Documentation/admin-guide/mm/userfaultfd.rst (7.3), Read-Write Protection; userfaultfd_api(): \
    RWP_ASYNC needs RWP in the same call";
const TWICE: &str = "ioctl_userfaultfd(2), UFFDIO_API, EINVAL: a previous UFFDIO_API succeeded";
const FDINFO: &str = "userfaultfd_show_fdinfo() in fs/userfaultfd.c: version, features, ioctls";

static FEATURE: Probe = Probe {
    suite: "handle",
    name: "feature",
    statement: "UFFDIO_API with a feature that the kernel offers returns 0 and all offered features; \
                with any other it fails with EINVAL, zeroes them, and may be tried again.",
    consumers: &["LTP: userfaultfd feature checks", "userfaultfd-rs: UffdBuilder::create()"],
};
static SUBSET: Probe = Probe {
    suite: "handle",
    name: "probe-twice",
    statement: "UFFDIO_API without features on a throw-away descriptor shows what is offered, and a new \
                descriptor then accepts any subset of it.",
    consumers: &[
        "QEMU: receive_ufd_features() and request_ufd_features(), migration/postcopy-ram.c",
        "CRIU: setup_uffd(), criu/uffd.c",
        "Firecracker: UffdBuilder::require_features(), src/vmm/src/persist.rs",
        "Cloud Hypervisor: vmm/src/userfaultfd.rs",
    ],
};
static VERSION: Probe = Probe {
    suite: "handle",
    name: "version",
    statement: "UFFDIO_API with another version than 0xAA fails with EINVAL, zeroes the structure, and may \
                be tried again with the right one.",
    consumers: &["userfaultfd-rs: UffdBuilder::create()"],
};
static SECOND: Probe = Probe {
    suite: "handle",
    name: "api-twice",
    statement: "After a UFFDIO_API that succeeded every further one fails with EINVAL and changes \
                nothing.",
    consumers: &["Android ART: KernelSupportsUffd()"],
};

/// Bits of features, with the version that brought each.
const BITS: &[(u32, (u16, u16))] = &[
    (0, (5, 7)),
    (1, (4, 11)),
    (2, (4, 11)),
    (3, (4, 11)),
    (4, (4, 11)),
    (5, (4, 11)),
    (6, (4, 11)),
    (7, (4, 14)),
    (8, (4, 14)),
    (9, (5, 13)),
    (10, (5, 14)),
    (11, (5, 18)),
    (12, (5, 19)),
    (13, (6, 4)),
    (14, (6, 6)),
    (15, (6, 7)),
    (16, (6, 8)),
    (17, (7, 3)),
    (18, (7, 3)),
];

/// The features that a kernel offers.
pub(super) fn offered(kernel: KernelVersion) -> u64 {
    let has = |(major, minor): (u16, u16)| (kernel.major, kernel.minor) >= (major, minor);
    BITS.iter().filter(|(_, since)| has(*since)).map(|(bit, _)| 1 << bit).sum()
}

/// The ioctls that the handshake offers; SET_MODE since 7.3.
fn api_ioctls(kernel: KernelVersion) -> u64 {
    let set_mode = if (kernel.major, kernel.minor) >= (7, 3) { 1 << 0x0A } else { 0 };
    0x8000_0000_0000_0003 | set_mode
}

/// All ioctls, as fdinfo shows them.
pub(super) fn all_ioctls(kernel: KernelVersion) -> u64 {
    let since = [(0x07, (5, 13)), (0x08, (6, 6)), (0x05, (6, 8)), (0x09, (7, 3))];
    let more: u64 = since
        .iter()
        .filter(|(_, version)| (kernel.major, kernel.minor) >= *version)
        .map(|(nr, _)| 1 << nr)
        .sum();
    api_ioctls(kernel) | 0x5c | more
}

/// fdinfo's line of a context with `features`.
pub(crate) fn api_line(features: u64, kernel: KernelVersion) -> String {
    let wp_async = features & features::WP_ASYNC != 0;
    let more = if wp_async { features::WP_UNPOPULATED } else { 0 };
    format!("{API:x}:{:x}:{:x}", features | more | INITIALIZED, all_ioctls(kernel))
}

/// Records a handshake under three names.
fn record(names: [&'static str; 3], api: Api, seen: &mut Seen<'_>) {
    seen.fact(names[0], api.rc);
    seen.fact(names[1], format_args!("{:#x}", api.features));
    seen.fact(names[2], format_args!("{:#x}", api.ioctls));
}

fn good(names: [&'static str; 3], kernel: KernelVersion) -> Vec<Expected> {
    vec![
        Expected::new(names[0], "0", MAN),
        Expected::new(names[1], format!("{:#x}", offered(kernel)), MAN),
        Expected::new(names[2], format!("{:#x}", api_ioctls(kernel)), MAN),
    ]
}

fn bad(names: [&'static str; 3], source: &'static str) -> Vec<Expected> {
    vec![
        Expected::new(names[0], "EINVAL", source),
        Expected::new(names[1], "0x0", source),
        Expected::new(names[2], "0x0", source),
    ]
}

const FIRST_NAMES: [&str; 3] = ["api", "features", "ioctls"];
const SECOND_NAMES: [&str; 3] = ["second", "second-features", "second-ioctls"];

fn open(stage: &Stage) -> Result<Uffd, Stop> {
    Uffd::open(stage.way.clone()?).map_err(|e| Stop::Broken(format!("a userfaultfd: {e:?}")))
}

/// EVENT_FORK needs a capability, which is another suite's question.
fn may_fork(stage: &Stage, features: u64) -> Result<(), Stop> {
    let denied = features & features::EVENT_FORK != 0
        && open(stage)?.api(features::EVENT_FORK) == Err(nix::errno::Errno::EPERM);
    if denied { Err(Stop::Denied("EVENT_FORK needs CAP_SYS_PTRACE".into())) } else { Ok(()) }
}

/// A handshake with some features, and a second one without.
#[derive(Debug)]
struct Features {
    name: String,
    wanted: u64,
    /// What was offered is asked for besides.
    all: bool,
    /// Asked only where all of it is offered.
    offered: bool,
}

impl Features {
    fn wanted(&self, offered: u64) -> u64 {
        self.wanted | if self.all { offered } else { 0 }
    }
}

impl Trial for Features {
    fn axes(&self) -> String {
        if self.offered {
            format!("who={}", self.name)
        } else {
            format!("bit={},with={}", self.name, if self.all { "offered" } else { "nothing" })
        }
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        let wanted = self.wanted(stage.features);
        if self.offered {
            stage.must_offer(wanted)?;
        }
        may_fork(stage, wanted)?;
        let uffd = open(stage)?;
        record(FIRST_NAMES, uffd.handshake(API, wanted), seen);
        seen.fact("again", uffd.handshake(API, 0).rc);
        seen.fact("line", QueueFile::open(&uffd)?.line("API:")?);
        Ok(())
    }

    fn expect(&self, kernel: KernelVersion) -> Vec<Expected> {
        let offered = offered(kernel);
        let wanted = self.wanted(offered);
        let alone = wanted & features::RWP_ASYNC != 0 && wanted & features::RWP == 0;
        let (mut facts, again, line) = if wanted & !offered == 0 && alone {
            (bad(FIRST_NAMES, ALONE), ("0", MAN), api_line(0, kernel))
        } else if wanted & !offered == 0 {
            (good(FIRST_NAMES, kernel), ("EINVAL", TWICE), api_line(wanted, kernel))
        } else {
            (bad(FIRST_NAMES, REFUSED), ("0", MAN), api_line(0, kernel))
        };
        facts.push(Expected::new("again", again.0, again.1));
        facts.push(Expected::new("line", line, FDINFO));
        facts
    }

    fn recipe(&self) -> Vec<String> {
        vec![
            format!("UFFDIO_API with version 0xAA and features {:#x}", self.wanted),
            "UFFDIO_API without features; read fdinfo".into(),
        ]
    }
}

/// A handshake with another version, then a right one.
#[derive(Debug)]
struct Version(u64);

impl Trial for Version {
    fn axes(&self) -> String {
        format!("version={:#x}", self.0)
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        let uffd = open(stage)?;
        record(FIRST_NAMES, uffd.handshake(self.0, features::EVENT_REMOVE), seen);
        record(SECOND_NAMES, uffd.handshake(API, 0), seen);
        Ok(())
    }

    fn expect(&self, kernel: KernelVersion) -> Vec<Expected> {
        let mut facts = bad(FIRST_NAMES, REFUSED);
        facts.extend(good(SECOND_NAMES, kernel));
        facts
    }

    fn recipe(&self) -> Vec<String> {
        vec![
            format!("UFFDIO_API with version {:#x} and EVENT_REMOVE", self.0),
            "UFFDIO_API with version 0xAA without features".into(),
        ]
    }
}

/// A handshake that succeeds, then another.
#[derive(Debug)]
struct Twice {
    first: (&'static str, u64),
    second: (&'static str, u64, u64),
}

impl Trial for Twice {
    fn axes(&self) -> String {
        format!("first={},second={}", self.first.0, self.second.0)
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        may_fork(stage, self.first.1 | self.second.2)?;
        let uffd = open(stage)?;
        record(FIRST_NAMES, uffd.handshake(API, self.first.1), seen);
        record(SECOND_NAMES, uffd.handshake(self.second.1, self.second.2), seen);
        seen.fact("line", QueueFile::open(&uffd)?.line("API:")?);
        Ok(())
    }

    fn expect(&self, kernel: KernelVersion) -> Vec<Expected> {
        let mut facts = good(FIRST_NAMES, kernel);
        facts.extend(bad(SECOND_NAMES, TWICE));
        facts.push(Expected::new("line", api_line(self.first.1, kernel), FDINFO));
        facts
    }

    fn recipe(&self) -> Vec<String> {
        vec![
            format!("UFFDIO_API with features {:#x}", self.first.1),
            format!("UFFDIO_API with version {:#x}, features {:#x}", self.second.1, self.second.2),
            "read fdinfo".into(),
        ]
    }
}

/// fdinfo of a descriptor that was opened in a way, before and after the handshake.
#[derive(Debug)]
struct Fresh(Way);

static FRESH: Probe = Probe {
    suite: "handle",
    name: "before-api",
    statement: "Before UFFDIO_API fdinfo shows no features, poll(2) POLLERR, and read(2) fails with EINVAL.",
    consumers: &["QEMU: postcopy_ram_supported_by_host(), migration/postcopy-ram.c"],
};

impl Trial for Fresh {
    fn axes(&self) -> String {
        format!("way={}", self.0.word())
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        let uffd = super::open::made(stage, self.0, libc::O_CLOEXEC | libc::O_NONBLOCK)?;
        let queue = QueueFile::open(&uffd)?;
        seen.fact("line", queue.line("API:")?);
        seen.fact("queue", queue.read()?);
        seen.fact("poll", super::polling::poll(&uffd)?);
        seen.fact("read", uffd.read().map_or_else(|e| format!("{e:?}"), |_| "message".into()));
        seen.fact("api", uffd.handshake(API, 0).rc);
        seen.fact("line-after", queue.line("API:")?);
        seen.fact("poll-after", super::polling::poll(&uffd)?);
        seen.fact(
            "read-after",
            uffd.read().map_or_else(|e| format!("{e:?}"), |_| "message".into()),
        );
        Ok(())
    }

    fn expect(&self, kernel: KernelVersion) -> Vec<Expected> {
        const POLL: &str = "userfaultfd_poll() in fs/userfaultfd.c";
        let none = format!("{API:x}:0:{:x}", all_ioctls(kernel));
        vec![
            Expected::new("line", none, FDINFO),
            Expected::new("queue", "0/0", FDINFO),
            Expected::new("poll", "err", POLL),
            Expected::new("read", "EINVAL", "userfaultfd(2), read(2): EINVAL before UFFDIO_API"),
            Expected::new("api", "0", MAN),
            Expected::new("line-after", api_line(0, kernel), FDINFO),
            Expected::new("poll-after", "none", POLL),
            Expected::new("read-after", "EAGAIN", "userfaultfd(2): read(2) with O_NONBLOCK"),
        ]
    }

    fn recipe(&self) -> Vec<String> {
        vec![
            "open a userfaultfd; fdinfo, poll(2) and read(2)".into(),
            "UFFDIO_API; fdinfo, poll(2) and read(2)".into(),
        ]
    }
}

/// What programs ask for, by program.
const WANTED: &[(&str, u64)] = &[
    ("nobody", 0),
    ("qemu", features::THREAD_ID),
    (
        "criu",
        features::EVENT_FORK
            | features::EVENT_REMAP
            | features::EVENT_UNMAP
            | features::EVENT_REMOVE,
    ),
    ("firecracker", features::EVENT_REMOVE),
    ("cloud-hypervisor", features::MISSING_SHMEM | features::MISSING_HUGETLBFS),
    ("cloud-hypervisor-minor", features::MISSING_SHMEM | features::MINOR_SHMEM),
    ("art", features::SIGBUS | features::MISSING_SHMEM | features::MINOR_SHMEM),
    ("libfabric", features::EVENT_UNMAP | features::EVENT_REMOVE | features::EVENT_REMAP),
    ("umap", features::PAGEFAULT_FLAG_WP),
    ("e2b", features::EVENT_REMOVE | features::WP_ASYNC),
];

/// The cases.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for bit in (0..=20).chain([30, 31, 32, 33, 47, 62, 63]) {
        for all in [false, true] {
            let name = bit.to_string();
            let trial = Features { name, wanted: 1 << bit, all, offered: false };
            cases.push(Case::trial(&FEATURE, trial, true));
        }
    }
    for (name, wanted) in WANTED {
        let trial = Features { name: (*name).into(), wanted: *wanted, all: false, offered: true };
        cases.push(Case::trial(&SUBSET, trial, true));
    }
    let all = Features { name: "all-offered".into(), wanted: 0, all: true, offered: true };
    cases.push(Case::trial(&SUBSET, all, true));
    for version in [0, 1, 0xA9, 0xAB, 0xAA00, 0x1AA, 0xAAAA, 1 << 63, u64::MAX] {
        cases.push(Case::trial(&VERSION, Version(version), true));
    }
    let firsts = [
        ("none", 0),
        ("thread-id", features::THREAD_ID),
        ("remove", features::EVENT_REMOVE),
        ("fork", features::EVENT_FORK),
    ];
    let seconds = [
        ("none", API, 0),
        ("remove", API, features::EVENT_REMOVE),
        ("fork", API, features::EVENT_FORK),
        ("unknown", API, 1 << 40),
        ("version", 0xAB, 0),
    ];
    for first in firsts {
        for second in seconds {
            cases.push(Case::trial(&SECOND, Twice { first, second }, true));
        }
    }
    for way in [Way::Syscall, Way::Device, Way::UserModeOnly] {
        cases.push(Case::trial(&FRESH, Fresh(way), true));
    }
    cases
}
