//! Requests of io_uring whose buffer is the missing page: who parks, and how it comes free.

use super::signal;
use crate::abi::uring::{ASYNC, FIXED_FILE, READ, Request, Ring, SETUP_SQPOLL, WRITE};
use crate::abi::{Message, REGISTER_MODE_MISSING, Range, features};
use crate::access::Access;
use crate::change::Prepared;
use crate::crowd::pause;
use crate::evidence::QueueFile;
use crate::expect::{Expected, OBSERVED};
use crate::memory::{BLOCK, Block, tag};
use crate::model::source;
use crate::outcome::{Seen, Stop};
use crate::point::{Backing, Change, Over, PAGES, Part, axis};
use crate::probe::{Case, Probe, Trial};
use crate::scenario::{Scene, fault_word};
use crate::stage::Stage;
use crate::waiter::{Fate, Waiter};
use nix::errno::Errno;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;
use uffd_results::KernelVersion;

static REQUESTS: Probe = Probe {
    suite: "waiters",
    name: "uring",
    statement: "A request of io_uring whose buffer is a missing page parks the thread that performs it: \
                the submitter inside io_uring_enter(2), a worker or the polling thread; COPY, \
                UNREGISTER, close and, after a change, WAKE end it as they end any other waiter.",
    consumers: &[
        "QEMU: block devices with aio=io_uring into guest RAM that is still missing",
        "Firecracker: block devices with the io_uring engine after a restore from a snapshot",
        "Cloud Hypervisor: io_uring block devices",
    ],
};

axis! {
    /// What is submitted, and who performs it.
    Submitted {
        /// IORING_OP_READ of a socket: the kernel stores to the page.
        ReadInline = "read-inline",
        /// The same with IOSQE_ASYNC.
        ReadAsync = "read-async",
        /// The same on a ring with a thread that polls.
        ReadPolled = "read-polled",
        /// IORING_OP_WRITE to a socket: the kernel loads from the page.
        WriteInline = "write-inline",
        /// The same with IOSQE_ASYNC.
        WriteAsync = "write-async",
        /// The same on a ring with a thread that polls.
        WritePolled = "write-polled",
    }
}

impl Submitted {
    pub(super) const fn stores(self) -> bool {
        matches!(self, Self::ReadInline | Self::ReadAsync | Self::ReadPolled)
    }

    /// Whether the submitter performs it.
    pub(super) const fn is_inline(self) -> bool {
        matches!(self, Self::ReadInline | Self::WriteInline)
    }

    const fn is_polled(self) -> bool {
        matches!(self, Self::ReadPolled | Self::WritePolled)
    }

    const fn is_async(self) -> bool {
        matches!(self, Self::ReadAsync | Self::WriteAsync)
    }
}

/// A request that is ready to be submitted, with the socket that it is of.
#[derive(Debug)]
pub(super) struct Io {
    what: Submitted,
    page: Range,
    ring: Ring,
    near: UnixStream,
    far: UnixStream,
    interrupted: AtomicU32,
}

/// Why there is no ring.
pub(super) fn no_ring(e: Errno) -> Stop {
    match e {
        Errno::ENOSYS => Stop::Unsupported("io_uring_setup: ENOSYS".into()),
        Errno::EPERM => Stop::Denied(
            "io_uring_setup: EPERM (kernel.io_uring_disabled, a seccomp filter, or, for a polling \
             thread, a kernel before 5.13 without privilege)"
                .into(),
        ),
        Errno::ENOMEM => Stop::Denied("io_uring_setup: ENOMEM (over RLIMIT_MEMLOCK)".into()),
        e => Stop::Broken(format!("io_uring_setup: {e:?}")),
    }
}

impl Io {
    /// Makes the ring and the socket.
    pub(super) fn new(what: Submitted, page: Range) -> Result<Self, Stop> {
        let ring = Ring::new(if what.is_polled() { SETUP_SQPOLL } else { 0 }).map_err(no_ring)?;
        let fail = |e: std::io::Error| Stop::Broken(format!("a socket for the request: {e}"));
        let (near, far) = UnixStream::pair().map_err(fail)?;
        if what.is_polled() {
            let rc = ring.instance().register_file(near.as_raw_fd());
            if !rc.is_ok() {
                return Err(Stop::Broken(format!("IORING_REGISTER_FILES: {rc}")));
            }
        }
        if what.stores() {
            nix::unistd::write(&far, &tag::WROTE.to_ne_bytes())
                .map_err(|e| Stop::Broken(format!("writing to the socket: {e:?}")))?;
        }
        Ok(Self { what, page, ring, near, far, interrupted: AtomicU32::new(0) })
    }

    /// Submits the request and waits for its completion.
    pub(super) fn go(&self) -> Access {
        let (fd, fixed) =
            if self.what.is_polled() { (0, FIXED_FILE) } else { (self.near.as_raw_fd(), 0) };
        self.ring.push(Request {
            opcode: if self.what.stores() { READ } else { WRITE },
            flags: fixed | if self.what.is_async() { ASYNC } else { 0 },
            fd,
            buffer: Range { len: 8, ..self.page },
        });
        // A submitter that ended now would take its workers along.
        let mut completed = self.ring.submit_and_wait();
        while completed == Err(Errno::EINTR) {
            self.interrupted.fetch_add(1, Ordering::Release);
            completed = self.ring.submit_and_wait();
        }
        match completed {
            Err(e) => Access::Failed(e),
            Ok(8) if self.what.stores() => Access::Ran(None),
            Ok(8) => {
                let mut value = [0; 8];
                match nix::unistd::read(&self.far, &mut value) {
                    Ok(_) => Access::Ran(Some(u64::from_ne_bytes(value))),
                    Err(e) => Access::Failed(e),
                }
            }
            Ok(_) => Access::Failed(Errno::EIO),
        }
    }

    /// Waits until a signal has ended the submitter's waiting.
    fn interrupted(&self, stage: &Stage) -> Result<(), Stop> {
        let deadline = Instant::now() + stage.patience;
        while self.interrupted.load(Ordering::Acquire) == 0 {
            pause(deadline, "the submitter was not interrupted")?;
        }
        Ok(())
    }
}

axis! {
    /// What happens while the request waits for its page.
    Then {
        /// UFFDIO_COPY: the control.
        Copy = "copy",
        /// UFFDIO_WAKE of the page, which is still missing.
        Wake = "wake",
        /// munmap(2), and later WAKE.
        Munmap = "munmap",
        /// mmap(2) of anonymous memory over the page, and later WAKE.
        MmapOver = "mmap-over",
        /// UFFDIO_UNREGISTER.
        Unregister = "unregister",
        /// The last close of the userfaultfd.
        Close = "close",
        /// A handled signal to the submitter, and later COPY.
        Signal = "signal",
    }
}

impl Then {
    const fn change(self) -> Change {
        match self {
            Self::Munmap => Change::Munmap(Part::Middle),
            Self::MmapOver => Change::MmapOver(Part::Middle, Over::Anon),
            _ => Change::None,
        }
    }
}

#[derive(Debug)]
struct Uring {
    backing: Backing,
    what: Submitted,
    then: Then,
}

/// A block whose faults name the thread that faults.
pub(super) fn scene(stage: &Stage, backing: Backing) -> Result<Scene<'_>, Stop> {
    stage.must_offer(features::THREAD_ID)?;
    let block = Block::map(backing, BLOCK)?;
    let uffd = stage.uffd(features::THREAD_ID)?;
    uffd.register(block.range(0..PAGES), REGISTER_MODE_MISSING)
        .map_err(|e| Stop::Unsupported(format!("REGISTER of a {backing} block: {e:?}")))?;
    let queue = QueueFile::open(&uffd)?;
    Ok(Scene { stage, block, uffd, queue, page: 2 })
}

/// Waits until the request has parked.
pub(super) fn parked(scene: &Scene<'_>, waiter: &mut Waiter) -> Result<(), Stop> {
    match waiter.settle(&scene.uffd, &scene.queue)? {
        Fate::Again => Ok(()),
        other => Err(Stop::Broken(format!("the request did not park: {other}"))),
    }
}

impl Uring {
    /// What became of the request, whose message was read. Who performs it is not always a thread of
    /// the case's; but one that was woken and has parked again has an unread message.
    fn look(&self, scene: &Scene<'_>, waiter: &mut Waiter) -> Result<Fate, Stop> {
        let queue = scene.queue.read()?;
        match (queue.total, queue.pending) {
            _ if self.what.is_inline() => waiter.look(&scene.uffd, &scene.queue),
            (0, _) => waiter.settle(&scene.uffd, &scene.queue),
            (_, 0) => Ok(Fate::Asleep),
            _ => Ok(Fate::Again),
        }
    }

    /// Sends the signal; the request then waits on, in whatever way, and COPY ends it.
    fn signal(
        &self,
        scene: &Scene<'_>,
        waiter: &mut Waiter,
        (io, signal): (&Io, i32),
        seen: &mut Seen<'_>,
    ) -> Result<(), Stop> {
        if self.what.is_inline() {
            seen.fact("signal", signal::effect(scene, waiter, (signal, true), 0)?);
        } else {
            signal::send(waiter.tid(), signal)?;
            io.interrupted(scene.stage)?;
            seen.fact("signal", "EINTR");
            seen.fact("queue", scene.queue.read()?);
        }
        seen.step("copy");
        seen.fact("copy", scene.uffd.copy(scene.target(), scene.stage.source, 0).0);
        seen.fact("waiter", scene.stage.word(waiter.end()?));
        Ok(())
    }
}

impl Trial for Uring {
    fn axes(&self) -> String {
        format!("backing={},request={},then={}", self.backing, self.what, self.then)
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        seen.step("set-up");
        let scene = scene(stage, self.backing)?;
        let change = Prepared::new(stage, self.then.change(), &scene.block)?;
        let io = Arc::new(Io::new(self.what, scene.target())?);
        let signal = signal::handle()?;
        seen.step("park");
        let submitter = Arc::clone(&io);
        let mut waiter = Waiter::begin(stage, move || {
            signal::admit(signal);
            submitter.go()
        })?;
        parked(&scene, &mut waiter)?;
        let Ok(Message::Pagefault { flags, tid, .. }) = scene.uffd.read() else {
            return Err(Stop::Broken("no message of the parked request".into()));
        };
        seen.fact("fault", fault_word(flags));
        let is_own = u32::try_from(waiter.tid()) == Ok(tid);
        seen.fact("parked", if is_own { "submitter" } else { "other-thread" });
        seen.step("then");
        let target = scene.target();
        match self.then {
            Then::Copy => seen.fact("copy", scene.uffd.copy(target, stage.source, 0).0),
            Then::Wake => seen.fact("wake", scene.uffd.wake(target)),
            Then::Unregister => {
                seen.fact("unregister", scene.uffd.unregister(scene.block.range(0..PAGES)));
            }
            Then::Munmap | Then::MmapOver => {
                seen.fact("change", change.apply(stage, &scene.block)?);
            }
            Then::Close => {
                drop(scene);
                seen.fact("closed", stage.word(waiter.end()?));
                return Ok(());
            }
            Then::Signal => return self.signal(&scene, &mut waiter, (&io, signal), seen),
        }
        let fate = self.look(&scene, &mut waiter)?;
        seen.fact("waiter", stage.word(fate));
        seen.fact("queue", scene.queue.read()?);
        if fate == Fate::Asleep {
            seen.step("rescue");
            seen.fact("rescue", scene.uffd.wake(target));
            seen.fact("rescued", stage.word(self.look(&scene, &mut waiter)?));
        } else if fate == Fate::Again {
            seen.step("close");
            drop(scene);
            seen.fact("closed", stage.word(waiter.end()?));
        }
        Ok(())
    }

    fn expect(&self, _: KernelVersion) -> Vec<Expected> {
        let ran = |content| if self.what.stores() { "ran" } else { content };
        let who = if self.what.is_inline() { "submitter" } else { "other-thread" };
        let fault = if self.what.stores() { "write" } else { "read" };
        let mut facts = vec![
            Expected::new("fault", fault, source::QUEUE),
            Expected::new("parked", who, PERFORMS),
        ];
        let mut say =
            |name, value: &'static str, says| facts.push(Expected::new(name, value, says));
        match self.then {
            Then::Copy => {
                say("copy", "0", source::COPY);
                say("waiter", ran("ran:copied"), source::COPY);
                say("queue", "0/0", source::COPY);
            }
            Then::Wake => {
                say("wake", "0", source::WAKE);
                say("waiter", "again", source::RERUN);
                say("queue", "1/1", source::RERUN);
                say("closed", ran("ran:zero"), source::CLOSE);
            }
            Then::Unregister => {
                say("unregister", "0", source::UNREGISTER);
                say("waiter", ran("ran:zero"), source::UNREGISTER_WAKES);
                say("queue", "0/0", source::UNREGISTER_WAKES);
            }
            Then::Munmap | Then::MmapOver => {
                let rescued = if self.then == Then::Munmap { "EFAULT" } else { ran("ran:zero") };
                say("change", "0", "mmap(2)");
                say("waiter", "asleep", source::QUEUE);
                say("queue", "1/0", source::QUEUE);
                say("rescue", "0", source::WAKE);
                say("rescued", rescued, source::RERUN);
            }
            Then::Close => say("closed", ran("ran:zero"), source::CLOSE),
            Then::Signal => {
                if self.what.is_inline() {
                    say("signal", "spins", OBSERVED);
                } else {
                    say("signal", "EINTR", ENTER);
                    say("queue", "1/0", ENTER);
                }
                say("copy", "0", source::COPY);
                say("waiter", ran("ran:copied"), source::COPY);
            }
        }
        facts
    }

    fn recipe(&self) -> Vec<String> {
        vec![
            "map a block of 6 pages; register it with UFFD_FEATURE_THREAD_ID".into(),
            format!(
                "a thread submits a request of 8 bytes of a socket with page 2 as its buffer ({}) and \
                 waits for its completion",
                self.what
            ),
            "it parks; read the message: which thread is it of?".into(),
            format!("then: {}; look at the queue", self.then),
            "UFFDIO_WAKE if it still sleeps; or close the userfaultfd".into(),
        ]
    }
}

const PERFORMS: &str = "io_uring_enter(2): requests are tried by the submitter; IOSQE_ASYNC hands them \
    to a worker, IORING_SETUP_SQPOLL to a thread of the kernel";
const ENTER: &str = "io_uring_enter(2), EINTR: only the waiting for completions ends";

/// The cases.
pub(super) fn cases(cases: &mut Vec<Case>) {
    for backing in [Backing::Anon, Backing::Shmem, Backing::Private, Backing::SharedAnon] {
        for what in Submitted::ALL {
            for then in Then::ALL {
                let by_default = matches!(backing, Backing::Anon | Backing::Shmem);
                let trial = Uring { backing, what: *what, then: *then };
                cases.push(Case::trial(&REQUESTS, trial, by_default));
            }
        }
    }
}
