//! A process that aborts while pages of its block are missing, and the core dump that it leaves.

mod file;

use crate::abi::{Range, Uffd, WRITEPROTECT_MODE_WP};
use crate::evidence::QueueFile;
use crate::expect::{Expected, OBSERVED};
use crate::lab::For;
use crate::memory::{BLOCK, Block, PAGE, tag};
use crate::model::source;
use crate::mover;
use crate::outcome::{Seen, Stop};
use crate::point::{Backing, PAGES, Waiter as Kind, axis};
use crate::probe::{Case, Probe, Trial};
use crate::process::{Child, Link};
use crate::scenario::fault_word;
use crate::stage::Stage;
use crate::touch;
use crate::waiter::Waiter;
use file::{Core, Pattern};
use nix::sys::resource::{RLIM_INFINITY, Resource, setrlimit};
use nix::sys::signal::Signal;
use std::os::fd::AsFd;
use uffd_results::KernelVersion;

static DUMP: Probe = Probe {
    suite: "lifetime",
    name: "core-dump",
    statement: "A core dump waits for no page: a process that aborts while pages of its block are missing \
                ends at once and raises no message, threads that wait in a fault leave the queue, and the \
                core has a hole for each page whose fault would have raised a message.",
    consumers: &[
        "QEMU, Firecracker, Cloud Hypervisor: a VMM that aborts during postcopy or lazy restore",
        "systemd-coredump, crash reports: what a core of a guest's memory is worth",
        "handlers in another process, which see no end of their client but by other means",
    ],
};

axis! {
    /// What happens before the abort.
    First {
        /// Nothing.
        Nothing = "nothing",
        /// A thread loads from a missing page and waits.
        Parked = "parked",
        /// A thread has read(2) store to it and waits.
        ParkedCall = "parked-in-read",
        /// The thread that will abort loads from it, and is served: the control.
        Served = "served",
    }
}

#[derive(Debug)]
struct Dump {
    backing: Backing,
    mode: For,
    first: First,
}

/// Pages that the process has stored to.
const KEPT: [usize; 2] = [0, 3];
/// The page that is waited for; it is missing, as page 1 and the last are.
const TARGET: usize = 2;
/// The page that is in the page cache and not in the page table, of memory with a file.
const CACHED: usize = 4;

/// Messages that a thread that dies in read(2) can raise at most.
const MESSAGES: usize = 8;

const REFUSED: &str = "handle_userfault() in fs/userfaultfd.c: a task that dumps core (PF_DUMPCORE) does \
    not wait, its fault is VM_FAULT_SIGBUS; dump_user_range() in fs/coredump.c leaves a hole then";
const HOLE: &str = "no_page_table() in mm/gup.c: with FOLL_DUMP what has no page of anonymous memory is a \
    hole, with no fault at all";

impl Dump {
    /// The life of the process that aborts.
    fn live(&self, stage: &Stage, link: &Link) -> Result<(), Stop> {
        let block = Block::map(self.backing, BLOCK)?;
        for page in KEPT {
            touch::store(block.range(page..page + 1).start, tag::KEPT)
                .map_err(|signal| Stop::Broken(format!("a store: {signal}")))?;
        }
        if block.file.is_some() {
            block.fill_cache(CACHED)?;
        }
        let uffd = stage.uffd(0)?;
        let all = block.range(0..PAGES);
        let modes = self.mode.bits();
        if modes != 0 {
            uffd.register(all, modes).map_err(|e| Stop::Unsupported(format!("REGISTER: {e:?}")))?;
        }
        if self.mode == For::Wp {
            let rc = uffd.writeprotect(all, WRITEPROTECT_MODE_WP);
            if !rc.is_ok() {
                return Err(Stop::Broken(format!("WRITEPROTECT: {rc}")));
            }
        }
        let queue = QueueFile::open(&uffd)?;
        let target = block.range(TARGET..TARGET + 1);
        let waiter = match self.first {
            First::Parked => Some(Kind::UserRead),
            First::ParkedCall => Some(Kind::SysRead),
            First::Nothing | First::Served => None,
        };
        if let Some(kind) = waiter {
            Waiter::park_beside(stage, kind, target, &queue)?;
        }
        // The block, and as little as can be of what else the process has.
        let kinds = if self.backing == Backing::Shmem { "0x2" } else { "0x1" };
        std::fs::write("/proc/self/coredump_filter", kinds)
            .map_err(|e| Stop::Precondition(format!("/proc/self/coredump_filter: {e}")))?;
        crate::bump::keep_out_of_dumps();
        setrlimit(Resource::RLIMIT_CORE, RLIM_INFINITY, RLIM_INFINITY)
            .map_err(|e| Stop::Precondition(format!("RLIMIT_CORE: {e:?}")))?;
        link.pass(uffd.as_fd())?;
        drop(uffd);
        link.hear()?;
        if self.first == First::Served {
            link.say(super::touched(stage, target.start, None))?;
            link.hear()?;
        }
        let raised = nix::sys::signal::raise(Signal::SIGABRT);
        Err(Stop::Broken(format!("alive after SIGABRT: {raised:?}")))
    }

    const fn is_parked(&self) -> bool {
        matches!(self.first, First::Parked | First::ParkedCall)
    }
}

fn read_fault(uffd: &Uffd) -> Result<String, Stop> {
    match uffd.read() {
        Ok(crate::abi::Message::Pagefault { flags, .. }) => Ok(fault_word(flags)),
        other => Err(Stop::Broken(format!("reading a message: {other:?}"))),
    }
}

impl Trial for Dump {
    fn axes(&self) -> String {
        let Self { backing, mode, first } = self;
        format!("backing={backing},mode={mode},first={first}")
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        seen.step("set-up");
        let _pattern = Pattern::set(stage)?;
        let mut child = Child::fork(stage, |link| self.live(stage, link))?;
        let uffd = Uffd::from_fd(child.link().take()?);
        let queue = QueueFile::open(&uffd)?;
        let core = Core::of(child.pid());
        let at = |page| Range { start: BLOCK + page * PAGE, len: PAGE };
        if self.first == First::Served {
            seen.step("serve");
            child.link().say("load")?;
            if !child.link().faults_first(&uffd)? {
                return Err(Stop::Broken("the load raised no message".into()));
            }
            seen.fact("fault", read_fault(&uffd)?);
            seen.fact("copy", uffd.copy(at(TARGET), stage.source, 0).0);
            seen.fact("loaded", child.link().hear()?);
        } else if self.is_parked() {
            seen.fact("fault", read_fault(&uffd)?);
            seen.fact("before", queue.read()?);
        }
        seen.step("abort");
        child.link().say("abort")?;
        // Its end of the link is closed once the dump is done.
        let comes = child.link().faults_first(&uffd)?;
        if self.first == First::ParkedCall {
            // A thread that dies in its call may fault once more: a message that goes with the thread. To see
            // it is luck, so nothing is said of it.
            for _ in 0..if comes { MESSAGES } else { 0 } {
                let _ = uffd.read();
                if !child.link().faults_first(&uffd)? {
                    break;
                }
            }
        } else {
            seen.fact("message", if comes { mover::word(uffd.read()) } else { "none".to_owned() });
        }
        let (end, has_core) = child.wait_with_core()?;
        seen.fact("child", end);
        seen.fact("core", if has_core { "dumped" } else { "none" });
        if has_core {
            core.inspect(stage, seen)?;
        }
        seen.step("afterwards");
        seen.fact("read", mover::word(uffd.read()));
        seen.fact("queue", queue.read()?);
        if self.mode == For::Missing {
            seen.fact("late", uffd.copy(at(1), stage.source, 0).0);
        }
        Ok(())
    }

    fn expect(&self, _: KernelVersion) -> Vec<Expected> {
        let core = "core(5)";
        let anon = self.backing == Backing::Anon;
        let mut facts = Vec::new();
        if self.first == First::Served {
            facts.push(Expected::new("fault", "read", source::QUEUE));
            facts.push(Expected::new("copy", "0", source::COPY));
            facts.push(Expected::new("loaded", "ran:copied", source::COPY));
        } else if self.is_parked() {
            let fault = if self.first == First::ParkedCall { "write" } else { "read" };
            facts.push(Expected::new("fault", fault, source::QUEUE));
            facts.push(Expected::new("before", "1/0", source::QUEUE));
        }
        if self.first != First::ParkedCall {
            facts.push(Expected::new("message", "none", if anon { HOLE } else { REFUSED }));
        }
        facts.extend([
            Expected::new("child", "killed:SIGABRT", core),
            Expected::new("core", "dumped", core),
            Expected::new("segment", "6/6", core),
        ]);
        let target = if self.first == First::Served { "c" } else { "-" };
        let (row, says) = match self.mode {
            _ if anon => (format!("k-{target}k--"), HOLE),
            For::Missing => (format!("k-{target}kk-"), REFUSED),
            For::Minor => ("k00k-0".to_owned(), REFUSED),
            For::Nothing | For::Wp => ("k00kk0".to_owned(), OBSERVED),
        };
        facts.push(Expected::new("core-pages", row, says));
        let killed = "handle_userfault() in fs/userfaultfd.c: a waiter that gets a fatal signal leaves the \
                      queue";
        facts.push(Expected::new("read", "EAGAIN", killed));
        facts.push(Expected::new("queue", "0/0", killed));
        if self.mode == For::Missing {
            let says = "userfaultfd_copy(): ESRCH once nobody has the memory (4.13)";
            facts.push(Expected::new("late", "ESRCH", says));
        }
        facts
    }

    fn recipe(&self) -> Vec<String> {
        let Self { backing, mode, first } = self;
        let mut recipe = vec![
            "set kernel.core_pattern to a file of a tmpfs, and put it back in the end".to_owned(),
            format!(
                "a child maps a {backing} block of {PAGES} pages, stores to pages 0 and 3, registers it \
                 ({mode}) and passes the userfaultfd"
            ),
        ];
        if *backing != Backing::Anon {
            recipe.insert(
                2,
                "before that it puts page 4 into the page cache through another mapping".into(),
            );
        }
        match first {
            First::Nothing => {}
            First::Parked | First::ParkedCall => recipe.push(format!(
                "a thread of it reaches page {TARGET} ({first}) and parks; read its message"
            )),
            First::Served => recipe.push(format!(
                "it loads from page {TARGET}; read the message, and UFFDIO_COPY of the page"
            )),
        }
        recipe.extend([
            "with RLIMIT_CORE unlimited it raises SIGABRT; does a message come before its end?".to_owned(),
            "its status; the segment of the block in the core, and each of its pages (lseek(2), SEEK_DATA)"
                .to_owned(),
            "read(2), fdinfo, and a UFFDIO_COPY".to_owned(),
        ]);
        recipe
    }
}

/// The cases.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for backing in [Backing::Anon, Backing::Shmem, Backing::Private] {
        for mode in For::ALL {
            for first in First::ALL {
                let fits = match mode {
                    For::Missing => true,
                    For::Minor => *first == First::Nothing && backing == Backing::Shmem,
                    For::Nothing | For::Wp => *first == First::Nothing,
                };
                if fits {
                    let trial = Dump { backing, mode: *mode, first: *first };
                    cases.push(Case::trial(&DUMP, trial, backing != Backing::Private));
                }
            }
        }
    }
    cases
}
