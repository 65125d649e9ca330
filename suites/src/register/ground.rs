//! Kinds of memory to be registered.

use super::words::{self, MODE};
use crate::abi::{Range, Rc, newer};
use crate::edge::SPECIAL_REFUSED;
use crate::memory::{BLOCK, Block, PAGE, RW, map};
use crate::outcome::Stop;
use crate::point::{Backing, PAGES, axis};
use crate::stage::Stage;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::stat::Mode;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use uffd_results::KernelVersion;

axis! {
    /// A kind of memory.
    Kind {
        /// Private anonymous memory.
        Anon = "anon",
        /// A memfd, shared.
        Shmem = "shmem",
        /// A memfd, private.
        Private = "private-memfd",
        /// Shared anonymous memory.
        SharedAnon = "shared-anon",
        /// 2 MiB pages of a memfd, shared.
        HugetlbShared = "hugetlb-shared",
        /// 2 MiB pages, private.
        HugetlbPrivate = "hugetlb-private",
        /// Anonymous memory without access.
        ProtNone = "anon-prot-none",
        /// Anonymous memory that can only be read.
        ProtRead = "anon-read-only",
        /// Anonymous memory that can be executed.
        Exec = "anon-executable",
        /// Anonymous memory that grows down.
        GrowsDown = "anon-grows-down",
        /// Anonymous memory that is locked.
        Locked = "anon-locked",
        /// Anonymous memory without reserved swap.
        NoReserve = "anon-noreserve",
        /// Anonymous memory that is populated.
        Populated = "anon-populated",
        /// Anonymous memory that the kernel may drop (6.11).
        Droppable = "anon-droppable",
        /// /dev/zero, private.
        ZeroPrivate = "dev-zero-private",
        /// /dev/zero, shared.
        ZeroShared = "dev-zero-shared",
        /// A memfd, shared, mapped to be read.
        ShmemRead = "shmem-mapped-read",
        /// A memfd, shared, mapped without access.
        ShmemNone = "shmem-mapped-none",
        /// A memfd, shared, by a descriptor that can only be read.
        ShmemReadFd = "shmem-read-only-fd",
        /// A memfd, private, by a descriptor that can only be read.
        PrivateReadFd = "private-memfd-read-only-fd",
        /// A memfd with F_SEAL_WRITE, shared.
        SealWrite = "shmem-seal-write",
        /// A memfd with F_SEAL_WRITE, private.
        SealWritePrivate = "private-memfd-seal-write",
        /// A memfd with F_SEAL_FUTURE_WRITE that was mapped after the seal, shared.
        SealFuture = "shmem-seal-future-write",
        /// A memfd that was sealed with F_SEAL_FUTURE_WRITE when it was mapped already.
        SealedLater = "shmem-sealed-later",
        /// A regular file, private.
        FilePrivate = "file-private",
        /// A regular file by a descriptor that can only be read, shared.
        FileShared = "file-shared",
        /// The vdso.
        Vdso = "vdso",
        /// No mapping.
        Hole = "hole",
    }
}

/// Memory that was made.
#[derive(Debug)]
pub(super) struct Ground {
    /// Where.
    pub(super) range: Range,
    /// Size of its pages.
    pub(super) page: usize,
}

fn broken(what: &str, e: &dyn std::fmt::Display) -> Stop {
    Stop::Broken(format!("{what}: {e}"))
}

/// A memfd of the block's length.
fn memfd() -> Result<OwnedFd, Stop> {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let fd = memfd_create("ground", flags).map_err(|e| broken("memfd_create", &e))?;
    let len = i64::try_from(PAGES * PAGE).unwrap_or(i64::MAX);
    nix::unistd::ftruncate(&fd, len).map_err(|e| broken("ftruncate", &e))?;
    Ok(fd)
}

/// The same file by a descriptor that can only be read.
fn read_only(fd: &OwnedFd) -> Result<OwnedFd, Stop> {
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    nix::fcntl::open(path.as_str(), OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())
        .map_err(|e| broken("opening a memfd again", &e))
}

fn seal(fd: &OwnedFd, seal: SealFlag) -> Result<(), Stop> {
    fcntl(fd, FcntlArg::F_ADD_SEALS(seal)).map(drop).map_err(|e| broken("sealing a memfd", &e))
}

/// Where the kernel has put the vdso.
fn vdso() -> Result<Range, Stop> {
    let maps = std::fs::read_to_string("/proc/self/maps").map_err(|e| broken("maps", &e))?;
    let line = maps.lines().find(|line| line.ends_with("[vdso]"));
    let ends = line.and_then(|line| line.split(' ').next()?.split_once('-'));
    let (start, end) = ends.ok_or_else(|| Stop::Precondition("no vdso in this process".into()))?;
    let parse = |hex| usize::from_str_radix(hex, 16).map_err(|e| broken("maps", &e));
    let start = parse(start)?;
    Ok(Range { start, len: parse(end)? - start })
}

/// Why read-write protection refuses memory without access.
const NO_ACCESS: &str =
    "userfaultfd_register() (7.3): EINVAL for VM_UFFD_RWP of a mapping without access (PROT_NONE)";
const DROPPABLE: &str =
    "vma_can_userfault(): memory of MAP_DROPPABLE can't be registered; taken before 6.17";

/// Whether memory that may be dropped can't be registered: seen from 6.17.8 on, not in 6.16.12.
fn refuses_droppable(kernel: KernelVersion) -> bool {
    kernel >= KernelVersion::new(6, 17, 0)
}

impl Kind {
    /// The backing of the grid that it is.
    const fn backing(self) -> Option<Backing> {
        Some(match self {
            Self::Anon => Backing::Anon,
            Self::Shmem => Backing::Shmem,
            Self::Private => Backing::Private,
            Self::SharedAnon => Backing::SharedAnon,
            Self::HugetlbShared => Backing::HugetlbShared,
            Self::HugetlbPrivate => Backing::HugetlbPrivate,
            _ => return None,
        })
    }

    /// Whether migration programs register it.
    pub(super) const fn is_main(self) -> bool {
        matches!(self, Self::Anon | Self::Shmem | Self::Private | Self::HugetlbShared)
    }

    /// Whether its pages are huge.
    pub(super) const fn is_huge(self) -> bool {
        matches!(self, Self::HugetlbShared | Self::HugetlbPrivate)
    }

    /// Whether the kernel treats it as private anonymous memory.
    const fn is_anon(self) -> bool {
        matches!(
            self,
            Self::Anon
                | Self::ProtNone
                | Self::ProtRead
                | Self::Exec
                | Self::GrowsDown
                | Self::Locked
                | Self::NoReserve
                | Self::Populated
                | Self::Droppable
                | Self::ZeroPrivate
        )
    }

    /// Whether it stands where the suite places things.
    pub(super) const fn is_in_arena(self) -> bool {
        !matches!(self, Self::Vdso)
    }

    /// The letter of its pages without a registration.
    pub(super) const fn unregistered(self) -> char {
        if matches!(self, Self::Hole) { '-' } else { '.' }
    }

    /// Makes it.
    pub(super) fn make(self, stage: &Stage) -> Result<Ground, Stop> {
        let range = Range { start: BLOCK, len: PAGES * PAGE };
        if let Some(backing) = self.backing() {
            let block = Block::map(backing, BLOCK)?;
            return Ok(Ground { range: block.range(0..PAGES), page: block.page });
        }
        let anon = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let rc = match self {
            Self::ProtNone => map(range, libc::PROT_NONE, anon, None, 0),
            Self::ProtRead => map(range, libc::PROT_READ, anon, None, 0),
            Self::Exec => map(range, RW | libc::PROT_EXEC, anon, None, 0),
            Self::GrowsDown => map(range, RW, anon | libc::MAP_GROWSDOWN, None, 0),
            Self::Locked => map(range, RW, anon | libc::MAP_LOCKED, None, 0),
            Self::NoReserve => map(range, RW, anon | libc::MAP_NORESERVE, None, 0),
            Self::Populated => map(range, RW, anon | libc::MAP_POPULATE, None, 0),
            // In place of MAP_PRIVATE.
            Self::Droppable => map(range, RW, libc::MAP_DROPPABLE | libc::MAP_ANONYMOUS, None, 0),
            Self::ZeroPrivate | Self::ZeroShared => {
                let fd = nix::fcntl::open("/dev/zero", OFlag::O_RDWR, Mode::empty())
                    .map_err(|e| Stop::Precondition(format!("/dev/zero: {e:?}")))?;
                let private = self == Self::ZeroPrivate;
                let kind = if private { libc::MAP_PRIVATE } else { libc::MAP_SHARED };
                map(range, RW, kind, Some(fd.as_fd()), 0)
            }
            Self::FilePrivate | Self::FileShared => {
                let private = self == Self::FilePrivate;
                let kind = if private { libc::MAP_PRIVATE } else { libc::MAP_SHARED };
                map(range, libc::PROT_READ, kind, Some(stage.plain_fd()?), 0)
            }
            Self::Vdso => return Ok(Ground { range: vdso()?, page: PAGE }),
            Self::Hole => Rc::OK,
            _ => self.map_memfd(range)?,
        };
        match rc {
            Rc(None) => Ok(Ground { range, page: PAGE }),
            Rc(Some(Errno::EINVAL)) if self == Self::Droppable => {
                Err(Stop::Unsupported("mmap(MAP_DROPPABLE): EINVAL (6.11 brought it)".into()))
            }
            Rc(Some(Errno::EPERM)) if self == Self::SealWrite => Err(Stop::Unsupported(
                "mmap(2) of a memfd with F_SEAL_WRITE, shared and to be read: EPERM (before 6.7)"
                    .into(),
            )),
            rc => Err(Stop::Broken(format!("mapping memory of the kind {self}: {rc}"))),
        }
    }

    fn map_memfd(self, range: Range) -> Result<Rc, Stop> {
        let file = memfd()?;
        let map = |prot, kind, file: &OwnedFd| map(range, prot, kind, Some(file.as_fd()), 0);
        let (shared, private) = (libc::MAP_SHARED, libc::MAP_PRIVATE);
        Ok(match self {
            Self::ShmemRead => map(libc::PROT_READ, shared, &file),
            Self::ShmemNone => map(libc::PROT_NONE, shared, &file),
            Self::ShmemReadFd => map(libc::PROT_READ, shared, &read_only(&file)?),
            Self::PrivateReadFd => map(RW, private, &read_only(&file)?),
            Self::SealWrite => {
                seal(&file, SealFlag::F_SEAL_WRITE)?;
                map(libc::PROT_READ, shared, &file)
            }
            Self::SealWritePrivate => {
                seal(&file, SealFlag::F_SEAL_WRITE)?;
                map(RW, private, &file)
            }
            Self::SealFuture => {
                seal(&file, SealFlag::F_SEAL_FUTURE_WRITE)?;
                map(libc::PROT_READ, shared, &file)
            }
            _ => {
                let rc = map(RW, shared, &file);
                seal(&file, SealFlag::F_SEAL_FUTURE_WRITE)?;
                rc
            }
        })
    }

    /// What REGISTER returns: with asynchronous write protection `any` memory is taken, and `rwp`
    /// says whether that feature was asked for.
    pub(super) fn register(
        self,
        bits: u64,
        any: bool,
        rwp: bool,
        kernel: KernelVersion,
    ) -> (&'static str, &'static str) {
        let eperm = "userfaultfd_register(): EPERM for mappings without VM_MAYWRITE, which COPY would \
                     write to";
        let asynchronous = SPECIAL_REFUSED.source;
        let wanted = bits & newer::REGISTER_MODE_RWP;
        let plain = bits & !newer::REGISTER_MODE_RWP;
        let rwp_taken =
            wanted == 0 || rwp && plain & 2 == 0 && kernel >= KernelVersion::new(7, 3, 0);
        let rest = if wanted != 0 && plain == 0 { 1 } else { plain };
        let taken = rwp_taken && words::takes(rest, self.is_anon(), self.is_huge(), kernel);
        match self {
            Self::Hole => ("EINVAL", "ioctl_userfaultfd(2), EINVAL: no mapping in the range"),
            Self::Droppable if refuses_droppable(kernel) => ("EINVAL", DROPPABLE),
            Self::Vdso if any && !SPECIAL_REFUSED.is_known_in(kernel) => ("0", asynchronous),
            Self::Vdso if any => ("EINVAL", asynchronous),
            Self::FilePrivate if any => ("0", asynchronous),
            Self::FileShared if any => ("EPERM", eperm),
            Self::Vdso | Self::FilePrivate | Self::FileShared => ("EINVAL", MODE),
            Self::ProtNone | Self::ShmemNone if wanted != 0 => ("EINVAL", NO_ACCESS),
            _ if !taken => ("EINVAL", MODE),
            Self::ShmemReadFd | Self::SealWrite | Self::SealFuture => ("EPERM", eperm),
            _ => ("0", MODE),
        }
    }

    /// What UNREGISTER then returns.
    pub(super) fn unregister(
        self,
        registered: bool,
        kernel: KernelVersion,
    ) -> (&'static str, &'static str) {
        let says = "userfaultfd_unregister(): 0 for memory that could be registered for missing pages, \
                    EINVAL for other memory";
        match self {
            Self::Hole => ("EINVAL", says),
            Self::Vdso | Self::FilePrivate | Self::FileShared if !registered => ("EINVAL", says),
            Self::Droppable if refuses_droppable(kernel) => ("EINVAL", DROPPABLE),
            _ => ("0", says),
        }
    }
}
