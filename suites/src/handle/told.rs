//! What a message tells: the thread, the address, the kind of access; and faults that tell nothing.

use super::setting::Setting;
use crate::abi::{Message, Range, Way, features};
use crate::expect::{Expected, OBSERVED};
use crate::memory::{BLOCK, ONE_PAGE};
use crate::outcome::{Seen, Stop};
use crate::point::Waiter as Kind;
use crate::probe::{Case, Probe, Trial};
use crate::scenario::fault_word;
use crate::stage::Stage;
use crate::waiter::{Access, Fate, Waiter};
use uffd_results::KernelVersion;

static THREAD: Probe = Probe {
    suite: "handle",
    name: "thread-id",
    statement: "With FEATURE_THREAD_ID a message names the thread that waits, without it 0.",
    consumers: &["QEMU: blocktime accounting, migration/postcopy-ram.c"],
};
static ADDRESS: Probe = Probe {
    suite: "handle",
    name: "address",
    statement: "A message holds the page's address; with FEATURE_EXACT_ADDRESS that of the access, where the \
                kernel knows it.",
    consumers: &[
        "QEMU: the fault's address must lie in a RAM block, postcopy_ram_fault_thread()",
        "Firecracker: page-aligns the address, examples/uffd",
        "crosvm: swap/ page offsets",
    ],
};
static USER_MODE: Probe = Probe {
    suite: "handle",
    name: "user-mode-only",
    statement: "On a userfaultfd for user-mode faults only an access by the kernel fails with EFAULT at once, \
                and an access by the program parks; on any other both park.",
    consumers: &[
        "libfabric: prov/util/src/uffd_mem_monitor.c opens with UFFD_USER_MODE_ONLY",
        "Android ART: mark_compact.cc",
        "Firecracker: user_mode_only(false), since KVM faults in the kernel",
    ],
};

/// Whether a kind of access wants to write, as the message says it.
fn writes(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::UserWrite | Kind::SysRead | Kind::VmWrite | Kind::PopulateWrite | Kind::Mlock
    )
}

fn message(setting: &Setting<'_>) -> Result<(usize, u64, u32), Stop> {
    match setting.uffd.read() {
        Ok(Message::Pagefault { address, flags, tid }) => Ok((address, flags, tid)),
        other => Err(Stop::Broken(format!("reading the message: {other:?}"))),
    }
}

#[derive(Debug)]
struct ThreadId {
    kind: Kind,
    asked: bool,
}

impl Trial for ThreadId {
    fn axes(&self) -> String {
        format!("feature={},waiter={}", if self.asked { "on" } else { "off" }, self.kind)
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        let uffd = stage.uffd(if self.asked { features::THREAD_ID } else { 0 })?;
        let setting = Setting::new(stage, uffd)?;
        let waiter = setting.park_one(self.kind, 2)?;
        let (_, flags, tid) = message(&setting)?;
        seen.fact("fault", fault_word(flags));
        let word = match i32::try_from(tid).unwrap_or(-1) {
            0 => "zero",
            tid if tid == waiter.tid() => "waiter",
            tid if tid == nix::unistd::getpid().as_raw() => "process",
            _ => "other",
        };
        seen.fact("tid", word);
        setting.release(&[waiter])
    }

    fn expect(&self, _: KernelVersion) -> Vec<Expected> {
        const TID: &str = "ioctl_userfaultfd(2), UFFD_FEATURE_THREAD_ID (4.14)";
        let fault = if writes(self.kind) { "write" } else { "read" };
        vec![
            Expected::new("fault", fault, "userfault_msg() in fs/userfaultfd.c: FAULT_FLAG_WRITE"),
            Expected::new("tid", if self.asked { "waiter" } else { "zero" }, TID),
        ]
    }

    fn recipe(&self) -> Vec<String> {
        vec![format!("a {} waiter parks; read its message", self.kind)]
    }
}

#[derive(Debug)]
struct Address {
    kind: Kind,
    exact: bool,
    offset: usize,
}

impl Trial for Address {
    fn axes(&self) -> String {
        let feature = if self.exact { "on" } else { "off" };
        format!("feature={feature},offset={},waiter={}", self.offset, self.kind)
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        let wanted = if self.exact { features::EXACT_ADDRESS } else { 0 };
        stage.must_offer(wanted)?;
        let setting = Setting::new(stage, stage.uffd(wanted)?)?;
        let page = setting.block.range(2..3);
        let at = Range { start: page.start + self.offset, len: page.len - self.offset };
        let waiter = Waiter::park(stage, self.kind, at, &setting.uffd, &setting.queue)?;
        let (address, ..) = message(&setting)?;
        let inside = address.wrapping_sub(BLOCK);
        seen.fact("page", inside / page.len);
        seen.fact("offset", inside % page.len);
        // A wake-up finds the waiter by its page, wherever in it the access was.
        let (rc, field) = setting.uffd.copy(page, stage.source, 0);
        seen.fact("copy", rc);
        seen.fact("field", field);
        seen.fact("queue", setting.queue.read()?);
        setting.release(&[waiter])
    }

    fn expect(&self, _: KernelVersion) -> Vec<Expected> {
        const EXACT: &str = "ioctl_userfaultfd(2), UFFD_FEATURE_EXACT_ADDRESS (5.18): otherwise the \
            address is masked to the page";
        const PINNED: &str = "get_user_pages() looks at whole pages: no offset is known";
        let pinned = self.kind == Kind::VmRead;
        let offset = if self.exact && !pinned { self.offset } else { 0 };
        vec![
            Expected::new("page", "2", EXACT),
            Expected::new("offset", offset.to_string(), if pinned { PINNED } else { EXACT }),
            Expected::new("copy", "0", EXACT),
            Expected::new("field", ONE_PAGE, EXACT),
            Expected::new("queue", "0/0", EXACT),
        ]
    }

    fn recipe(&self) -> Vec<String> {
        vec![
            format!("a {} waiter parks at byte {} of page 2", self.kind, self.offset),
            "read its message; UFFDIO_COPY of page 2".into(),
        ]
    }
}

#[derive(Debug)]
struct UserMode {
    kind: Kind,
    way: Way,
}

impl Trial for UserMode {
    fn axes(&self) -> String {
        format!("waiter={},way={}", self.kind, self.way.word())
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        let flags = libc::O_CLOEXEC | libc::O_NONBLOCK;
        let uffd = super::open::made(stage, self.way, flags)?;
        uffd.api(0).map_err(|e| Stop::Broken(format!("UFFDIO_API: {e:?}")))?;
        let setting = Setting::new(stage, uffd)?;
        let page = setting.block.range(2..3);
        let mut waiter = Waiter::start(stage, self.kind, page)?;
        let fate = waiter.settle(&setting.uffd, &setting.queue)?;
        let populates = matches!(self.kind, Kind::PopulateRead | Kind::PopulateWrite);
        if populates && fate == Fate::Ended(Access::Failed(nix::errno::Errno::EINVAL)) {
            return Err(Stop::Unsupported("no MADV_POPULATE_* (5.14 brought it)".into()));
        }
        seen.fact(
            "access",
            match fate {
                Fate::Again => "parks".into(),
                fate => stage.word(fate),
            },
        );
        seen.fact("queue", setting.queue.read()?);
        let message = setting.uffd.read();
        seen.fact(
            "message",
            match message {
                Ok(Message::Pagefault { flags, .. }) => fault_word(flags),
                Ok(_) => "other".into(),
                Err(e) => format!("{e:?}"),
            },
        );
        setting.release(&[waiter])
    }

    fn expect(&self, _: KernelVersion) -> Vec<Expected> {
        const EFAULT: &str = "userfaultfd(2), UFFD_USER_MODE_ONLY (5.11): a fault in kernel mode is not \
            handled; handle_userfault() returns VM_FAULT_SIGBUS";
        const MLOCK: &str = "__mlock_posix_error_return() in mm/mlock.c turns EFAULT into ENOMEM";
        let refused = self.way == Way::UserModeOnly && self.kind.in_kernel();
        if !refused {
            let fault = if writes(self.kind) { "write" } else { "read" };
            return vec![
                Expected::new("access", "parks", EFAULT),
                Expected::new("queue", "1/1", EFAULT),
                Expected::new("message", fault, EFAULT),
            ];
        }
        let (access, source) = match self.kind {
            Kind::Mlock => ("ENOMEM", MLOCK),
            Kind::PopulateRead | Kind::PopulateWrite => ("EFAULT", OBSERVED),
            _ => ("EFAULT", EFAULT),
        };
        vec![
            Expected::new("access", access, source),
            Expected::new("queue", "0/0", EFAULT),
            Expected::new("message", "EAGAIN", EFAULT),
        ]
    }

    fn recipe(&self) -> Vec<String> {
        vec![
            format!("a userfaultfd by {}; map and register a block", self.way.word()),
            format!("a thread accesses page 2: {}", self.kind),
        ]
    }
}

/// The cases.
pub(super) fn cases() -> Vec<Case> {
    let kinds = || Kind::THREADS.iter().copied().filter(|kind| *kind != Kind::None);
    let mut cases = Vec::new();
    for kind in kinds() {
        for asked in [false, true] {
            cases.push(Case::trial(&THREAD, ThreadId { kind, asked }, true));
        }
    }
    for (kind, offsets) in [
        (Kind::UserRead, &[0, 1, 8, 63, 511, 2048, 4087, 4088][..]),
        (Kind::UserWrite, &[0, 1, 8, 63, 511, 2048, 4087, 4088]),
        (Kind::SysRead, &[0, 8, 2048, 4088]),
        (Kind::SysWrite, &[0, 8, 2048, 4088]),
        (Kind::VmRead, &[0, 8, 4088]),
        (Kind::Futex, &[0, 8, 4092]),
    ] {
        for offset in offsets {
            for exact in [false, true] {
                let trial = Address { kind, exact, offset: *offset };
                cases.push(Case::trial(&ADDRESS, trial, true));
            }
        }
    }
    for kind in kinds() {
        for way in [Way::Syscall, Way::Device, Way::UserModeOnly] {
            cases.push(Case::trial(&USER_MODE, UserMode { kind, way }, true));
        }
    }
    cases
}
