//! What every case of one worker process shares, made once before the cases are forked off.

use crate::abi::{Range, Uffd, Way};
use crate::bump::{self, map, room};
use crate::evidence;
use crate::memory::{HUGE, PAGE, RW, tag};
use crate::outcome::Stop;
use crate::waiter::{Access, Fate};
use nix::errno::Errno;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

/// Size of a thread's stack, in bytes; the C library asks for twice 64 KiB on arm64.
pub(crate) const STACK: usize = if cfg!(target_arch = "x86_64") { 64 << 10 } else { 256 << 10 };
/// Threads that a case can have.
const STACKS: usize = 32;

/// Size of [`Stage::notes`], in bytes.
pub const NOTES: usize = 16 * 1024;
/// Where the page behind the notes begins, in the shared memory, and where the source buffer does.
const FLAGS: usize = NOTES.next_multiple_of(PAGE);
const SOURCE: usize = FLAGS + PAGE;

/// Shared ground of the cases of one process.
#[derive(Debug)]
pub struct Stage {
    /// How userfaultfds can be made here; with the reason where they can't.
    pub way: Result<Way, Stop>,
    /// Features that `UFFDIO_API` offers.
    pub features: u64,
    /// Address of [`NOTES`] bytes, zero at first, that this process shares with the cases it forks: for
    /// what its runner and they have to say to each other.
    pub notes: usize,
    /// Address of a readable buffer of one huge page whose first bytes are [`tag::COPIED`].
    pub source: usize,
    /// A regular file, which userfaultfd does not handle; absent if it is on a tmpfs.
    pub plain_file: Option<File>,
    /// Memory of the case's own, made before any case: see [`Ground`].
    ground: Ground,
    /// What the regular file begins with.
    pub plain_tag: u64,
    /// What is known of KVM; shared by the cases of this process.
    kvm: &'static AtomicU8,
    /// Whether the kernel is a VM's of ours, where a case may do what would harm a host.
    pub disposable: bool,
    /// Bound on whatever should end: not evidence, only a way out.
    pub patience: Duration,
}

impl Stage {
    /// Prepares this process and what its children inherit: signal handlers and mask, no
    /// transparent huge pages (a COPY beside a touched page would meet EEXIST), shared buffers.
    pub fn prepare(patience: Duration) -> Result<Self, Stop> {
        let broken = |what: &str, e: &dyn std::fmt::Display| Stop::Broken(format!("{what}: {e}"));
        crate::touch::install().map_err(|e| broken("installing the fault handler", &e))?;
        block_signals().map_err(|e| broken("blocking signals", &e))?;
        // SAFETY: this prctl takes plain numbers and concerns only this process.
        unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0) };
        crate::thread::prepare()?;
        let way = find_way();
        let features = match way {
            Ok(way) => Uffd::open(way)
                .and_then(|uffd| uffd.api(0))
                .map_err(|e| broken("UFFDIO_API", &format_args!("{e:?}")))?,
            Err(_) => 0,
        };
        let ground = Ground::map().map_err(|e| broken("mapping memory", &e))?;
        let (plain_file, plain_tag) = plain_file().map_err(|e| broken("/proc/self/exe", &e))?;
        Ok(Self {
            way,
            features,
            source: fill(ground.shared + SOURCE, HUGE),
            notes: ground.shared,
            plain_file,
            plain_tag,
            kvm: flag(ground.shared + FLAGS),
            ground,
            disposable: nix::unistd::getpid().as_raw() == 1,
            patience,
        })
    }

    /// A userfaultfd after `UFFDIO_API` with `features`.
    pub fn uffd(&self, features: u64) -> Result<Uffd, Stop> {
        let uffd = Uffd::open(self.way.clone()?)
            .map_err(|e| Stop::Broken(format!("making a userfaultfd: {e:?}")))?;
        match uffd.api(features) {
            Ok(_) => Ok(uffd),
            Err(Errno::EINVAL) => {
                Err(Stop::Unsupported(format!("UFFDIO_API refuses features {features:#x}")))
            }
            Err(Errno::EPERM) => {
                Err(Stop::Denied(format!("UFFDIO_API with features {features:#x}: EPERM")))
            }
            Err(e) => Err(Stop::Broken(format!("UFFDIO_API with features {features:#x}: {e:?}"))),
        }
    }

    /// Stops a case on a kernel that does not offer `features`.
    pub fn must_offer(&self, features: u64) -> Result<(), Stop> {
        let missing = features & !self.features;
        if missing == 0 {
            return Ok(());
        }
        let names = crate::abi::newer::feature_names(missing).join(", ");
        Err(Stop::Unsupported(format!("UFFDIO_API does not offer {names}")))
    }

    /// Gives this process, which was forked for one case, a heap of its own; see [`bump`].
    pub fn enter_case(&self) {
        // SAFETY: the range is mapped, never touched by the parent, and this process's alone.
        unsafe { bump::enter(self.ground.heap) }
    }

    /// A stack for a thread of this case.
    pub fn take_stack(&self) -> Result<Range, Stop> {
        let n = bump::next_stack();
        if n >= STACKS {
            return Err(Stop::Broken(format!("a case has more than {STACKS} threads")));
        }
        Ok(Range { start: self.ground.first_stack - n * STACK, len: STACK })
    }

    /// Address of a readable buffer of two huge pages, made by the case that needs it: [`Stage::source`] twice.
    pub fn long_source(&self) -> Result<usize, Stop> {
        let made = map(None, 2 * HUGE, libc::PROT_NONE, libc::MAP_PRIVATE).and_then(|start| {
            for at in [start, start + HUGE] {
                let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
                let (from, at) = (self.source as *mut libc::c_void, at as *mut libc::c_void);
                // SAFETY: an old size of 0 maps shared pages once more, in place of room that was made above.
                let ret = unsafe { libc::mremap(from, 0, HUGE, flags, at) };
                if ret == libc::MAP_FAILED {
                    return Err(Errno::last());
                }
            }
            Ok(start)
        });
        let start = made.map_err(|e| Stop::Broken(format!("mapping a source buffer: {e:?}")))?;
        for page in (start..start + 2 * HUGE).step_by(PAGE) {
            // SAFETY: mapped above; the kernel finds each page in the page table then, as of the short one.
            unsafe { std::ptr::with_exposed_provenance::<u64>(page).read_volatile() };
        }
        Ok(start)
    }

    /// As [`Stage::long_source`], of which only the first half can be read.
    pub(crate) fn half_source(&self) -> Result<usize, Stop> {
        let start = self.long_source()?;
        // SAFETY: the second half of a mapping that was made above and that nobody else knows.
        let ret = unsafe { libc::mprotect((start + HUGE) as *mut _, HUGE, libc::PROT_NONE) };
        if ret == 0 {
            return Ok(start);
        }
        Err(Stop::Broken(format!("cutting a source buffer: {:?}", Errno::last())))
    }

    /// The content's tag, with the regular file's head taken as new data.
    pub fn tag(&self, value: u64) -> u64 {
        if value == self.plain_tag { tag::NEW } else { value }
    }

    /// The letter for a page's content.
    pub fn letter(&self, value: u64) -> char {
        crate::waiter::letter(self.tag(value))
    }

    /// The word for a waiter's fate.
    pub fn word(&self, fate: Fate) -> String {
        match fate {
            Fate::Ended(Access::Ran(Some(value))) => Access::Ran(Some(self.tag(value))).to_string(),
            other => other.to_string(),
        }
    }
}

/// The strongest way to make a userfaultfd that this process may use.
pub fn find_way() -> Result<Way, Stop> {
    let mut first = None;
    for way in [Way::Syscall, Way::Device, Way::UserModeOnly] {
        match Uffd::open(way) {
            Ok(_) => return Ok(way),
            Err(e) => first = first.or(Some(e)),
        }
    }
    Err(match first {
        Some(Errno::ENOSYS) => {
            Stop::Unsupported("this kernel has no userfaultfd(2) (CONFIG_USERFAULTFD)".into())
        }
        Some(Errno::EPERM) => Stop::Denied(
            "userfaultfd(2) is not permitted: run as root, set vm.unprivileged_userfaultfd=1, give \
             access to /dev/userfaultfd, or allow the call in the seccomp filter"
                .into(),
        ),
        other => Stop::Broken(format!("userfaultfd(2): {other:?}")),
    })
}

/// Blocks every signal but those that faults raise: a signal to a kernel-mode waiter can make it
/// fault again and again. Threads and children inherit the mask.
fn block_signals() -> nix::Result<()> {
    use nix::sys::signal::{SigSet, Signal};
    let mut set = SigSet::all();
    for signal in [Signal::SIGSEGV, Signal::SIGBUS, Signal::SIGILL, Signal::SIGFPE, Signal::SIGABRT]
    {
        set.remove(signal);
    }
    set.thread_set_mask()
}

/// Memory that is there before any case, in two mappings: each one costs each case its copying.
///
/// What nearly every case touches lies between two addresses of huge pages, where it takes one table of the
/// kernel's: the first stack, the heap, and the shared memory's head.
#[derive(Debug)]
struct Ground {
    /// Address of the first thread's stack, with those of later ones below it. This process touches neither
    /// them nor the heap, so that children get them empty and cheaply.
    first_stack: usize,
    /// Address of [`bump::SIZE`] bytes.
    heap: usize,
    /// Address of the notes, a page, a huge page of a source buffer, and what passes: shared with children, so
    /// that fork need not copy page tables. A first access brings what lies beside it, too.
    shared: usize,
}

impl Ground {
    fn map() -> nix::Result<Self> {
        let below = (STACKS - 1) * STACK;
        let private = STACKS * STACK + bump::SIZE;
        let whole = private + SOURCE + HUGE + bump::PASSING;
        let begin = room(whole, below)?;
        let first_stack = begin + below;
        let heap = first_stack + STACK;
        let shared = heap + bump::SIZE;
        map(Some(begin), private, RW, libc::MAP_PRIVATE)?;
        map(Some(shared), whole - private, RW, libc::MAP_SHARED)?;
        // SAFETY: the last part of the shared memory, which is never unmapped and nobody else's.
        unsafe { bump::pass_at(shared + SOURCE + HUGE) };
        Ok(Self { first_stack, heap, shared })
    }
}

/// Has each page of a source buffer begin with the tag of what is copied.
fn fill(start: usize, len: usize) -> usize {
    for at in (start..start + len).step_by(PAGE) {
        // SAFETY: a page of memory that was made for this and is never given back.
        unsafe { std::ptr::with_exposed_provenance_mut::<u64>(at).write(tag::COPIED) };
    }
    start
}

/// The running program, if it is on a file system whose files userfaultfd does not handle.
fn plain_file() -> std::io::Result<(Option<File>, u64)> {
    let mut file = File::open("/proc/self/exe")?;
    let mut head = [0; 8];
    file.read_exact(&mut head)?;
    let kind = nix::sys::statfs::fstatfs(&file)?.filesystem_type();
    let handled =
        kind == nix::sys::statfs::TMPFS_MAGIC || kind == nix::sys::statfs::HUGETLBFS_MAGIC;
    Ok(((!handled).then_some(file), u64::from_ne_bytes(head)))
}

/// What is known of this machine's KVM.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KvmProof {
    /// Nothing yet.
    Open,
    /// A guest ran.
    Works,
    /// There is none, or it can't make a vCPU.
    Absent,
    /// A guest did not end.
    Hangs,
    /// A guest failed, or took its process down.
    Fails,
}

impl KvmProof {
    /// The one with this number.
    pub(crate) fn of(number: u8) -> Self {
        let all = [Self::Works, Self::Absent, Self::Hangs, Self::Fails];
        all.into_iter().find(|proof| *proof as u8 == number).unwrap_or(Self::Open)
    }
}

impl Stage {
    /// What an earlier case has found of KVM.
    pub(crate) fn kvm_proof(&self) -> KvmProof {
        KvmProof::of(self.kvm.load(Ordering::Acquire))
    }

    /// Tells later cases.
    pub(crate) fn set_kvm_proof(&self, proof: KvmProof) {
        self.kvm.store(proof as u8, Ordering::Release);
    }
}

/// The flag at an address of the shared memory.
fn flag(at: usize) -> &'static AtomicU8 {
    // SAFETY: a byte of a shared mapping of zeros that is never unmapped; nobody else uses it.
    unsafe { &*std::ptr::with_exposed_provenance::<AtomicU8>(at) }
}

impl Stage {
    /// Proves that the arena holds no mapping, so that its holes are holes.
    pub fn check_arena(&self) -> Result<(), Stop> {
        match evidence::mappings_in(crate::memory::ARENA)? {
            0 => Ok(()),
            n => Err(Stop::Broken(format!("{n} mappings in the arena before the first case"))),
        }
    }

    /// The regular file's descriptor, or the reason why there is none.
    pub fn plain_fd(&self) -> Result<BorrowedFd<'_>, Stop> {
        self.plain_file.as_ref().map(AsFd::as_fd).ok_or_else(|| {
            Stop::Precondition("the program lies on a tmpfs: no regular file to map".into())
        })
    }
}
