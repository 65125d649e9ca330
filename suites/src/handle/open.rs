//! Making a userfaultfd: its flags, and what the new descriptor is.

use crate::abi::{Uffd, Way};
use crate::expect::{Expected, OBSERVED};
use crate::outcome::{Seen, Stop};
use crate::permission::must_show_device;
use crate::probe::{Case, Probe, Trial};
use crate::process::with_room;
use crate::stage::Stage;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use std::os::fd::{AsFd, AsRawFd};
use uffd_results::KernelVersion;

const MAN: &str = "userfaultfd(2): O_CLOEXEC, O_NONBLOCK and UFFD_USER_MODE_ONLY (5.11); any other \
    flag is EINVAL";

static FLAGS: Probe = Probe {
    suite: "handle",
    name: "flags",
    statement: "A userfaultfd takes O_CLOEXEC, O_NONBLOCK and UFFD_USER_MODE_ONLY, refuses every other \
                flag with EINVAL, and shows the first two in its descriptor.",
    consumers: &[
        "QEMU: uffd_open(), util/userfaultfd.c",
        "userfaultfd-rs: UffdBuilder::create()",
        "libfabric: prov/util/src/uffd_mem_monitor.c",
    ],
};
static DEVICE: Probe = Probe {
    suite: "handle",
    name: "device-ioctl",
    statement: "/dev/userfaultfd knows USERFAULTFD_IOC_NEW and refuses every other ioctl.",
    consumers: &[
        "QEMU: uffd_open(), util/userfaultfd.c",
        "userfaultfd-rs: UffdBuilder::open_file_descriptor()",
    ],
};

static FULL: Probe = Probe {
    suite: "handle",
    name: "no-descriptor",
    statement: "A userfaultfd that no descriptor is left for is EMFILE, and can be made when one is free again.",
    consumers: &["handlers of many processes: CRIU lazy-pages, crosvm"],
};

/// Opens a userfaultfd in one way, or says why this machine can't.
pub(super) fn made(stage: &Stage, way: Way, flags: i32) -> Result<Uffd, Stop> {
    stage.way.clone()?;
    match Uffd::open_with(way, flags) {
        Ok(uffd) => Ok(uffd),
        Err(Errno::ENOENT) if way == Way::Device => {
            must_show_device()?;
            Err(Stop::Unsupported("no /dev/userfaultfd (6.1 brought it)".into()))
        }
        Err(Errno::EINVAL) if way == Way::UserModeOnly => {
            Err(Stop::Unsupported("no UFFD_USER_MODE_ONLY (5.11 brought it)".into()))
        }
        Err(e @ (Errno::EPERM | Errno::EACCES)) => {
            Err(Stop::Denied(format!("a userfaultfd by {}: {e:?}", way.word())))
        }
        Err(e) => Err(Stop::Broken(format!("a userfaultfd by {}: {e:?}", way.word()))),
    }
}

/// A userfaultfd with some flags.
#[derive(Debug)]
struct Flags {
    way: Way,
    flags: (&'static str, i32),
}

/// What userfaultfd(2) knows, with what it does since when.
const KNOWN: i32 = libc::O_CLOEXEC | libc::O_NONBLOCK;
/// `UFFD_USER_MODE_ONLY`.
const USER_MODE: i32 = 1;

impl Trial for Flags {
    fn axes(&self) -> String {
        format!("way={},flags={}", self.way.word(), self.flags.0)
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        drop(made(stage, self.way, 0)?);
        let uffd = match Uffd::open_with(self.way, self.flags.1) {
            Ok(uffd) => uffd,
            Err(e) => {
                seen.fact("open", format_args!("{e:?}"));
                return Ok(());
            }
        };
        let fail = |e| Stop::Broken(format!("fcntl: {e:?}"));
        seen.fact("open", 0);
        let yes = |is| if is { "yes" } else { "no" };
        seen.fact("cloexec", yes(uffd.is_cloexec().map_err(fail)?));
        let status = uffd.status().map_err(fail)?;
        seen.fact("nonblock", yes(status.contains(OFlag::O_NONBLOCK)));
        seen.fact("access", access(status));
        seen.fact("link", link(&uffd)?);
        seen.fact("api", uffd.handshake(0xAA, 0).rc);
        Ok(())
    }

    fn expect(&self, kernel: KernelVersion) -> Vec<Expected> {
        let flags = self.flags.1;
        let user_mode = flags & USER_MODE != 0;
        let old = (kernel.major, kernel.minor) < (5, 11);
        if flags & !(KNOWN | USER_MODE) != 0 || (user_mode && old) {
            return vec![Expected::new("open", "EINVAL", MAN)];
        }
        let yes = |is| if is { "yes" } else { "no" };
        vec![
            Expected::new("open", "0", MAN),
            Expected::new("cloexec", yes(flags & libc::O_CLOEXEC != 0), MAN),
            Expected::new("nonblock", yes(flags & libc::O_NONBLOCK != 0), MAN),
            Expected::new("access", "read", super::calls::READ_ONLY),
            Expected::new("link", "anon_inode:[userfaultfd]", "anon_inode_getfile(): the name"),
            Expected::new("api", "0", MAN),
        ]
    }

    fn recipe(&self) -> Vec<String> {
        vec![
            format!("open a userfaultfd by {} with flags {:#x}", self.way.word(), self.flags.1),
            "fcntl(F_GETFD), fcntl(F_GETFL), readlink of its /proc/self/fd entry; UFFDIO_API"
                .into(),
        ]
    }
}

/// The word for how a descriptor was opened.
fn access(status: OFlag) -> &'static str {
    match status.bits() & libc::O_ACCMODE {
        libc::O_RDONLY => "read",
        libc::O_WRONLY => "write",
        _ => "read-write",
    }
}

/// What /proc/self/fd says that a descriptor is.
pub(super) fn link(uffd: &Uffd) -> Result<String, Stop> {
    let path = format!("/proc/self/fd/{}", uffd.as_fd().as_raw_fd());
    std::fs::read_link(&path)
        .map(|link| link.to_string_lossy().into_owned())
        .map_err(|e| Stop::Broken(format!("readlink {path}: {e}")))
}

/// A userfaultfd while no descriptor is left for it.
#[derive(Debug)]
struct Full(Way);

impl Trial for Full {
    fn axes(&self) -> String {
        format!("way={}", self.0.word())
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        let any = made(stage, self.0, libc::O_CLOEXEC)?;
        // The device takes one itself.
        let room = u64::from(self.0 == Way::Device);
        let open = || Uffd::open_with(self.0, libc::O_CLOEXEC).err();
        let word =
            |errno: Option<Errno>| errno.map_or_else(|| "0".to_owned(), |e| format!("{e:?}"));
        let full = with_room(&any, room, open);
        seen.fact("full", word(full.map_err(|e| Stop::Broken(format!("the limit: {e:?}")))?));
        seen.fact("later", word(open()));
        Ok(())
    }

    fn expect(&self, _: KernelVersion) -> Vec<Expected> {
        let says = "userfaultfd(2), EMFILE: the limit on open descriptors";
        vec![Expected::new("full", "EMFILE", says), Expected::new("later", "0", says)]
    }

    fn recipe(&self) -> Vec<String> {
        vec![
            "setrlimit(RLIMIT_NOFILE) so that no descriptor is left (for the device: one)".into(),
            format!("open a userfaultfd by {}; lift the limit; the same again", self.0.word()),
        ]
    }
}

/// An ioctl on the device.
#[derive(Debug)]
struct Device(&'static str, u64);

impl Trial for Device {
    fn axes(&self) -> String {
        format!("ioctl={}", self.0)
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        drop(made(stage, Way::Device, libc::O_CLOEXEC)?);
        let device = nix::fcntl::open(
            "/dev/userfaultfd",
            OFlag::O_RDWR | OFlag::O_CLOEXEC,
            nix::sys::stat::Mode::empty(),
        )
        .map_err(|e| Stop::Broken(format!("/dev/userfaultfd: {e:?}")))?;
        // The handle's methods are one system call each, on whatever descriptor it holds.
        let device = Uffd::from_fd(device);
        seen.fact("ioctl", device.raw(self.1, crate::memory::SPARE));
        Ok(())
    }

    fn expect(&self, _: KernelVersion) -> Vec<Expected> {
        vec![Expected::new("ioctl", "EINVAL", "userfaultfd_dev_ioctl() in fs/userfaultfd.c (6.1)")]
    }

    fn recipe(&self) -> Vec<String> {
        vec![format!("open /dev/userfaultfd; ioctl {:#x}", self.1)]
    }
}

/// The link of a descriptor in what was opened by an fd's path.
#[derive(Debug)]
struct Reopen;

static REOPEN: Probe = Probe {
    suite: "handle",
    name: "reopen",
    statement: "A userfaultfd can't be opened again through /proc/self/fd.",
    consumers: &["QEMU: the fd must be passed, not opened again"],
};

impl Trial for Reopen {
    fn axes(&self) -> String {
        "path=proc-self-fd".into()
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        let uffd = stage.uffd(0)?;
        let path = format!("/proc/self/fd/{}", uffd.as_fd().as_raw_fd());
        let opened = std::fs::File::open(path);
        seen.fact(
            "open",
            match opened {
                Ok(_) => "0".into(),
                Err(e) => format!("{:?}", Errno::from_raw(e.raw_os_error().unwrap_or(0))),
            },
        );
        Ok(())
    }

    fn expect(&self, _: KernelVersion) -> Vec<Expected> {
        vec![Expected::new("open", "ENXIO", OBSERVED)]
    }

    fn recipe(&self) -> Vec<String> {
        vec!["open a userfaultfd; open(2) of its /proc/self/fd entry".into()]
    }
}

/// The cases.
pub(super) fn cases() -> Vec<Case> {
    let flags = [
        ("none", 0),
        ("cloexec", libc::O_CLOEXEC),
        ("nonblock", libc::O_NONBLOCK),
        ("cloexec+nonblock", KNOWN),
        ("user-mode-only", USER_MODE),
        ("user-mode-only+cloexec", USER_MODE | libc::O_CLOEXEC),
        ("user-mode-only+nonblock", USER_MODE | libc::O_NONBLOCK),
        ("bit-1", 2),
        ("bit-2", 4),
        ("user-mode-only+bit-1", 3),
        ("append", libc::O_APPEND),
        ("direct", libc::O_DIRECT),
        ("async", libc::O_ASYNC),
        ("creat", libc::O_CREAT),
        ("nonblock+append", libc::O_NONBLOCK | libc::O_APPEND),
        ("bit-30", 1 << 30),
        ("sign", i32::MIN),
        ("all", -1),
    ];
    let mut cases = Vec::new();
    for way in [Way::Syscall, Way::Device] {
        for flags in flags {
            cases.push(Case::trial(&FLAGS, Flags { way, flags }, true));
        }
        cases.push(Case::trial(&FULL, Full(way), true));
    }
    for (name, number) in [
        ("zero", 0),
        ("api", 0xc018_aa3f),
        ("register", 0xc020_aa00),
        ("new-read", 0x8000_aa00),
        ("next", 0xaa01),
    ] {
        cases.push(Case::trial(&DEVICE, Device(name, number), true));
    }
    cases.push(Case::trial(&REOPEN, Reopen, true));
    cases
}
