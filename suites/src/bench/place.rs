//! The ioctls that place, move and protect pages, by size and backing, without anybody who waits.

use super::clock::stamp;
use super::ground::{Ground, fill, must, register};
use super::{Operation, Work};
use crate::abi::{
    REGISTER_MODE_MINOR, REGISTER_MODE_MISSING, REGISTER_MODE_WP, Range, Rc, Uffd,
    WRITEPROTECT_MODE_WP, features,
};
use crate::memory::{self, HUGE, PAGE};
use crate::outcome::Stop;
use crate::point::Backing;
use crate::stage::Stage;
use nix::errno::Errno;

/// Bytes that a round works on, and the most calls that it makes.
pub(super) const SPAN: usize = 4 << 20;
const CALLS: usize = 64;

/// How long a call's range is: the word and the bytes.
pub(super) const SIZES: [(&str, usize); 4] =
    [("4k", PAGE), ("64k", 64 << 10), ("1m", 1 << 20), ("4m", 4 << 20)];
/// The same for memory of huge pages.
pub(super) const HUGE_SIZES: [(&str, usize); 2] = [("2m", HUGE), ("4m", 2 * HUGE)];

/// The sizes that a call has on a backing.
pub(super) fn sizes(backing: Backing) -> &'static [(&'static str, usize)] {
    if backing.is_huge() { &HUGE_SIZES } else { &SIZES }
}

/// The ranges that a round's calls are for.
pub(super) fn pieces(ground: &Ground, size: usize) -> impl Iterator<Item = Range> + use<> {
    let start = ground.range.start;
    (0..(SPAN / size).min(CALLS)).map(move |n| Range { start: start + n * size, len: size })
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call {
    Copy,
    Zeropage,
    Continue,
    Move,
    Protect,
}

impl Call {
    const ALL: [Self; 5] = [Self::Copy, Self::Zeropage, Self::Continue, Self::Move, Self::Protect];

    const fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Copy => ("copy", "UFFDIO_COPY of missing pages."),
            Self::Zeropage => ("zeropage", "UFFDIO_ZEROPAGE of missing pages."),
            Self::Continue => ("continue", "UFFDIO_CONTINUE of pages that are in the page cache."),
            Self::Move => ("move", "UFFDIO_MOVE of present pages to missing ones."),
            Self::Protect => ("writeprotect", "UFFDIO_WRITEPROTECT with MODE_WP of present pages."),
        }
    }

    const fn backings(self) -> &'static [Backing] {
        match self {
            Self::Copy => &[Backing::Anon, Backing::Shmem, Backing::HugetlbShared],
            Self::Zeropage | Self::Protect => &[Backing::Anon, Backing::Shmem],
            Self::Continue => &[Backing::Shmem, Backing::HugetlbShared],
            Self::Move => &[Backing::Anon],
        }
    }

    const fn mode(self) -> u64 {
        match self {
            Self::Copy | Self::Zeropage | Self::Move => REGISTER_MODE_MISSING,
            Self::Continue => REGISTER_MODE_MINOR,
            Self::Protect => REGISTER_MODE_WP,
        }
    }

    const fn features(self, backing: Backing) -> u64 {
        match (self, backing) {
            (Self::Move, _) => features::MOVE,
            (Self::Continue, Backing::HugetlbShared) => features::MINOR_HUGETLBFS,
            (Self::Continue, _) => features::MINOR_SHMEM,
            (Self::Protect, Backing::Anon) => features::PAGEFAULT_FLAG_WP,
            (Self::Protect, _) => features::WP_HUGETLBFS_SHMEM,
            (_, Backing::Shmem) => features::MISSING_SHMEM,
            (_, Backing::HugetlbShared) => features::MISSING_HUGETLBFS,
            _ => 0,
        }
    }

    /// What does the same without userfaultfd.
    fn limit(self, backing: Backing, size: &str) -> String {
        match (self, backing) {
            (Self::Copy, _) | (Self::Zeropage, Backing::Shmem) => {
                format!("limit/populate[backing={backing},size={size}]")
            }
            (Self::Zeropage, _) => format!("limit/read-fault[size={size}]"),
            (Self::Continue, _) => format!("limit/cached[backing={backing},size={size}]"),
            (Self::Move, _) => format!("limit/mremap[size={size}]"),
            (Self::Protect, _) => format!("limit/mprotect[backing={backing},size={size}]"),
        }
    }
}

/// Where the pages stand that MOVE takes, behind the operation's range.
const ORIGIN: usize = 64 << 20;

struct Place {
    call: Call,
    size: usize,
    uffd: Uffd,
    source: usize,
    ground: Ground,
    /// The memory that MOVE takes pages from.
    origin: Option<Ground>,
}

impl Place {
    fn new(
        stage: &Stage,
        at: usize,
        call: Call,
        backing: Backing,
        size: usize,
    ) -> Result<Self, Stop> {
        let features = call.features(backing);
        stage.must_offer(features)?;
        let uffd = stage.uffd(features)?;
        let ground = Ground::map(backing, at, SPAN)?;
        if matches!(call, Call::Continue | Call::Protect) {
            ground.fill()?;
        }
        let origin = (call == Call::Move)
            .then(|| Ground::map(Backing::Anon, at + ORIGIN, SPAN))
            .transpose()?;
        let source = source(stage, size)?;
        let place = Self { call, size, uffd, source, ground, origin };
        place.prepare()?;
        Ok(place)
    }

    /// Makes the memory what the calls need, before each round.
    fn prepare(&self) -> Result<(), Stop> {
        match self.call {
            Call::Copy | Call::Zeropage => {
                self.ground.empty()?;
                register(&self.uffd, self.ground.range, self.call.mode())
            }
            Call::Continue => {
                self.ground.map_again()?;
                register(&self.uffd, self.ground.range, self.call.mode())
            }
            Call::Move => {
                self.ground.empty()?;
                register(&self.uffd, self.ground.range, self.call.mode())?;
                fill(self.origin.as_ref().map_or(self.ground.range, |o| o.range), PAGE)
            }
            Call::Protect => {
                register(&self.uffd, self.ground.range, self.call.mode())?;
                let rc = self.uffd.writeprotect(self.ground.range, 0);
                must("lifting the protection", rc)
            }
        }
    }

    fn call(&self, piece: Range) -> Rc {
        match self.call {
            Call::Copy => self.uffd.copy(piece, self.source, 0).0,
            Call::Zeropage => self.uffd.zeropage(piece, 0).0,
            Call::Continue => self.uffd.resume(piece, 0).0,
            Call::Move => {
                let from = self.origin.as_ref().map_or(0, |o| o.range.start);
                self.uffd.relocate(piece, from + (piece.start - self.ground.range.start), 0).0
            }
            Call::Protect => self.uffd.writeprotect(piece, WRITEPROTECT_MODE_WP),
        }
    }
}

impl Work for Place {
    fn round(&mut self, ticks: &mut Vec<u64>) -> Result<(), Stop> {
        for piece in pieces(&self.ground, self.size) {
            let start = stamp();
            let rc = self.call(piece);
            let end = stamp();
            match rc.0 {
                None => ticks.push(end - start),
                // A page of the origin is on a list of this CPU's, not yet on the kernel's own: MOVE
                // wants it to be tried again.
                Some(Errno::EAGAIN | Errno::EBUSY) if self.call == Call::Move => {}
                Some(Errno::ENOTTY) => {
                    return Err(Stop::Unsupported(format!("{:?}: ENOTTY", self.call)));
                }
                Some(errno) => {
                    return Err(Stop::Broken(format!("{:?} at {piece:x?}: {errno:?}", self.call)));
                }
            }
        }
        self.prepare()
    }
}

pub(super) fn operations() -> Vec<Operation> {
    let mut all = Vec::new();
    for call in Call::ALL {
        let (group, about) = call.words();
        for &backing in call.backings() {
            for &(word, size) in sizes(backing) {
                // The suites' own cases of these groups have other names.
                let id = (group, "pages", format!("backing={backing},size={word}"));
                all.push(
                    Operation::new(id, about, move |stage: &Stage, at| {
                        Place::new(stage, at, call, backing, size)
                    })
                    .of_pages(size / PAGE)
                    .against(call.limit(backing, word)),
                );
            }
        }
    }
    all
}

/// A buffer that a call of this size can copy from.
pub(super) fn source(stage: &Stage, size: usize) -> Result<usize, Stop> {
    if size <= HUGE { Ok(stage.source) } else { stage.long_source() }
}

/// Memory that stays as long as its operation, with its pages taken away.
pub(super) fn emptied(backing: Backing, at: usize) -> Result<Ground, Stop> {
    let ground = Ground::map(backing, at, SPAN)?;
    if backing != Backing::Anon {
        ground.empty()?;
    }
    must("MADV_NOHUGEPAGE", ok_without_thp(memory::advise(ground.range, libc::MADV_NOHUGEPAGE)))?;
    Ok(ground)
}

/// A kernel without transparent huge pages refuses to be asked for none.
fn ok_without_thp(rc: Rc) -> Rc {
    if rc == Rc(Some(Errno::EINVAL)) { Rc::OK } else { rc }
}
