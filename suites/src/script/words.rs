//! The steps of a script in sentences, so that a reader can repeat them with a program of their own.

use super::{Call, Ctx, Memory, Span, Step, Treat};
use crate::memory::PAGE;
use crate::point::{Backing, Waiter};
use crate::waiter::content;
use std::fmt;

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { place, first, count, unit } = self;
        let size = if *unit == PAGE { "" } else { "2 MiB " };
        if *count == 1 {
            write!(f, "{size}page {first} of {}", place.word())
        } else {
            write!(f, "{size}pages {first}..{} of {}", first + count, place.word())
        }
    }
}

fn memory(memory: Memory) -> &'static str {
    match memory {
        Memory::Of(Backing::Shmem) => "a memfd, MAP_SHARED",
        Memory::Of(Backing::Private) => "a memfd, MAP_PRIVATE",
        Memory::Of(Backing::SharedAnon) => "MAP_SHARED|MAP_ANONYMOUS",
        Memory::Of(Backing::HugetlbShared) => "a memfd of 2 MiB hugetlb pages, MAP_SHARED",
        Memory::Of(Backing::HugetlbPrivate) => "MAP_PRIVATE|MAP_ANONYMOUS|MAP_HUGETLB, 2 MiB pages",
        Memory::Anon(libc::PROT_NONE) => "private anonymous memory, PROT_NONE",
        Memory::Anon(libc::PROT_READ) => "private anonymous memory, PROT_READ",
        Memory::Anon(_) | Memory::Of(Backing::Anon) => "private anonymous memory",
        Memory::Thp => "private anonymous memory, MADV_HUGEPAGE, with PR_SET_THP_DISABLE 0",
        Memory::ThpShmem => "a memfd, MAP_SHARED, with PR_SET_THP_DISABLE 0",
        Memory::GrowsDown => "private anonymous memory, MAP_GROWSDOWN",
        Memory::File => "a regular file, MAP_PRIVATE",
        Memory::BlockAgain => "the block's file at offset 0, MAP_SHARED",
        Memory::HugeFile => {
            "a file of 4 MiB on a tmpfs with huge=always, MAP_SHARED, with PR_SET_THP_DISABLE 0"
        }
        Memory::LongFile => "a memfd of 4 MiB, MAP_SHARED, with PR_SET_THP_DISABLE 0",
        Memory::Secret => "memfd_secret(2), MAP_SHARED",
        Memory::Sealable(Backing::Private) => "a memfd with MFD_ALLOW_SEALING, MAP_PRIVATE",
        Memory::Sealable(_) => "a memfd with MFD_ALLOW_SEALING, MAP_SHARED",
    }
}

fn ctx(ctx: Ctx) -> &'static str {
    match ctx {
        Ctx::First => "",
        Ctx::Second => ", through the second userfaultfd",
    }
}

impl Treat {
    /// The call, without what it is made on.
    pub(super) fn call(self) -> String {
        match self {
            Self::Advise(_, name) => format!("madvise({name})"),
            Self::Punch => "fallocate(FALLOC_FL_PUNCH_HOLE)".into(),
            Self::Unmap => "munmap".into(),
            Self::MapOver(over) => format!("mmap(MAP_FIXED) of {} over", memory(over)),
            Self::MoveTo(place) => {
                format!("mremap(MREMAP_MAYMOVE|MREMAP_FIXED) to {},", place.word())
            }
            Self::DontUnmapTo(place) => {
                format!("mremap with MREMAP_DONTUNMAP to {},", place.word())
            }
            Self::Protect(libc::PROT_NONE) => "mprotect(PROT_NONE)".into(),
            Self::Protect(libc::PROT_READ) => "mprotect(PROT_READ)".into(),
            Self::Protect(_) => "mprotect(PROT_READ|PROT_WRITE)".into(),
            Self::LockOnFault => "mlock2(MLOCK_ONFAULT)".into(),
            Self::Lock => "mlock".into(),
            Self::Seal => "mseal".into(),
            Self::SealFile(_, name) => format!("fcntl(F_ADD_SEALS, {name}) of the file behind"),
            Self::HwPoison => "madvise(MADV_HWPOISON)".into(),
            Self::Fork => "fork of a child that stays and so shares".into(),
            Self::ForkGone => "fork of a child that ends at once, having shared".into(),
            Self::Pin => "io_uring_register(IORING_REGISTER_BUFFERS)".into(),
            Self::Splice => "vmsplice into a pipe".into(),
            Self::TruncateAndGrow => "ftruncate, and back to the full length,".into(),
        }
    }
}

fn waiter(kind: Waiter) -> &'static str {
    crate::recipe::waiter(kind).unwrap_or("nobody touches")
}

fn call(call: Call) -> String {
    let with = |mode: u64| if mode == 0 { String::new() } else { format!(", mode {mode:#x}") };
    match call {
        Call::Copy(span, mode) => format!("UFFDIO_COPY to {span}{}", with(mode)),
        Call::CopyFrom(to, from) => format!("UFFDIO_COPY to {to} from {from}"),
        Call::Zeropage(span, mode) => format!("UFFDIO_ZEROPAGE of {span}{}", with(mode)),
        Call::Continue(span, mode) => format!("UFFDIO_CONTINUE of {span}{}", with(mode)),
        Call::Wp(span, mode) => format!("UFFDIO_WRITEPROTECT of {span}{}", with(mode)),
        Call::Poison(span, mode) => format!("UFFDIO_POISON of {span}{}", with(mode)),
        Call::Move(to, from, mode) => format!("UFFDIO_MOVE to {to} from {from}{}", with(mode)),
        Call::Register(span, mode) => format!("UFFDIO_REGISTER of {span}{}", with(mode)),
        Call::Unregister(span) => format!("UFFDIO_UNREGISTER of {span}"),
        Call::Wake(span) => format!("UFFDIO_WAKE of {span}"),
    }
}

/// A step in a sentence.
pub(super) fn step(step: Step) -> String {
    match step {
        Step::OnlyInVm => "only where the machine may go down".into(),
        Step::Map(span, what) => format!("map {}: {span}", memory(what)),
        Step::Fill(span, tag) => format!("store \"{}\" at the start of {span}", content(tag)),
        Step::Load(span) => format!("load from {span}"),
        Step::Cache(span) => {
            format!("write to {span} through a second mapping of the file, and unmap that")
        }
        Step::MustBeHuge(span) => {
            format!("smaps must say AnonHugePages or ShmemPmdMapped of {span}")
        }
        Step::ForbidHuge => "PR_SET_THP_DISABLE 1, for khugepaged".into(),
        Step::Open(which, features) => {
            let features = if features == 0 {
                "no features".into()
            } else {
                format!("features {features:#x}")
            };
            format!(
                "make a userfaultfd with {features}{}",
                match which {
                    Ctx::First => "",
                    Ctx::Second => ": the second",
                }
            )
        }
        Step::Set(which, what) | Step::Do(which, what, ..) => {
            format!("{}{}", call(what), ctx(which))
        }
        Step::WhilePinned(_, what) => format!(
            "{} by a thread; once it has returned, or used 200 ms of CPU time in the kernel without \
             returning, close the ring and wait for it",
            call(what)
        ),
        Step::Prepare(what, span) | Step::Treat(what, span, _) => {
            format!("{} {span}", what.call())
        }
        Step::Park(_, kind, span) => {
            format!("{} {span} and parks; its message is read", waiter(kind))
        }
        Step::Look(_) | Step::Glance(..) => {
            "look at fdinfo and /proc: was the waiter woken?".into()
        }
        Step::Rescue(_) => "if it still waits: UFFDIO_WAKE of its page".into(),
        Step::Survey(span, ..) => format!("read smaps and pagemap of {span}"),
        Step::Huge(span, _) => {
            format!("read AnonHugePages and ShmemPmdMapped of smaps for {span}")
        }
        Step::Bits(span, _) => format!("read the bits of pagemap of {span}"),
        Step::Touch(_, kind, span, _) => format!("{} {span}: what does it meet?", waiter(kind)),
        Step::ChildLoads(span, _) => format!("a child loads from {span}: what does it meet?"),
    }
}
