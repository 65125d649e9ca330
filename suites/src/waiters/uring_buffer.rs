//! Buffers that are registered with io_uring: their pages are pinned once, and never faulted in again.

use super::uring::{no_ring, scene};
use crate::abi::Range;
use crate::abi::uring::{READ, READ_FIXED, Request, Ring};
use crate::access::Access;
use crate::expect::{Expected, OBSERVED};
use crate::memory::tag;
use crate::model::source;
use crate::outcome::{Seen, Stop};
use crate::point::{Backing, Change, Discard, axis};
use crate::probe::{Case, Probe, Trial};
use crate::stage::Stage;
use crate::touch;
use crate::waiter::{Fate, Waiter};
use nix::errno::Errno;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use uffd_results::KernelVersion;

static BUFFERS: Probe = Probe {
    suite: "waiters",
    name: "uring-buffer",
    statement: "Registering a missing page as a buffer parks the caller until COPY, or fails with EFAULT \
                where the kernel pins under its lock; once registered, a buffer is the page that was \
                pinned: after a discard a request on it neither faults nor fills the page, where one on \
                the address does.",
    consumers: &[
        "QEMU: BDRV_REQ_REGISTERED_BUF with io_uring, and postcopy",
        "Firecracker, crosvm: guest RAM registered as fixed buffers",
    ],
};

axis! {
    /// What is done.
    Deed {
        /// IORING_REGISTER_BUFFERS of a missing page.
        Register = "register-missing",
        /// The page is present when it is registered: the control.
        RegisterPresent = "register-present",
        /// IORING_OP_READ_FIXED into a page that was registered and then discarded.
        Fixed = "read-fixed-discarded",
        /// IORING_OP_READ into such a page, by its address: the control.
        Plain = "read-discarded",
    }
}

#[derive(Debug)]
struct Buffer {
    backing: Backing,
    deed: Deed,
}

impl Buffer {
    const fn registers(&self) -> bool {
        matches!(self.deed, Deed::Register | Deed::RegisterPresent)
    }
}

/// Whether pages are pinned without the lock of the address space, so that a fault may wait.
fn pins_unlocked(kernel: KernelVersion) -> bool {
    kernel >= KernelVersion::new(6, 9, 0)
}

impl Trial for Buffer {
    fn axes(&self) -> String {
        format!("backing={},deed={}", self.backing, self.deed)
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        seen.step("set-up");
        let scene = scene(stage, self.backing)?;
        let target = scene.target();
        let ring = Ring::new(0).map_err(no_ring)?;
        let broken =
            |what: &str, why: &dyn std::fmt::Display| Stop::Broken(format!("{what}: {why}"));
        if self.deed != Deed::Register {
            let rc = scene.uffd.copy(target, stage.source, 0).0;
            touch::store(target.start, tag::KEPT).map_err(|s| broken("page 2", &s))?;
            if !rc.is_ok() {
                return Err(broken("COPY of page 2", &rc));
            }
        }
        let (near, far) = UnixStream::pair().map_err(|e| broken("a socket", &e))?;
        if !self.registers() {
            nix::unistd::write(&far, &tag::WROTE.to_ne_bytes())
                .map_err(|e| broken("writing to the socket", &e))?;
            let rc = ring.instance().register_buffer(target);
            let how = if self.backing.is_private() { Discard::DontNeed } else { Discard::Remove };
            let discarded = scene.block.discard(how, 2..3)?;
            seen.fact("register", rc);
            seen.fact("discard", discarded);
        }
        seen.step("deed");
        let (registers, fixed) = (self.registers(), self.deed == Deed::Fixed);
        let mut waiter = Waiter::begin(stage, move || {
            let ended = if registers {
                ring.instance().register_buffer(target).0.map_or(Ok(()), Err)
            } else {
                ring.push(Request {
                    opcode: if fixed { READ_FIXED } else { READ },
                    flags: 0,
                    fd: near.as_raw_fd(),
                    buffer: Range { len: 8, ..target },
                });
                ring.submit_and_wait().and_then(|n| if n == 8 { Ok(()) } else { Err(Errno::EIO) })
            };
            // The buffer stays pinned for as long as the case.
            std::mem::forget((ring, near, far));
            ended.map_or_else(Access::Failed, |()| Access::Ran(None))
        })?;
        let fate = waiter.settle(&scene.uffd, &scene.queue)?;
        seen.fact("deed", fate);
        seen.fact("queue", scene.queue.read()?);
        if fate == Fate::Again {
            seen.fact("fault", scene.read_fault()?);
            seen.step("copy");
            seen.fact("copy", scene.uffd.copy(target, stage.source, 0).0);
            seen.fact("waiter", waiter.look(&scene.uffd, &scene.queue)?);
        }
        scene.survey(Change::None, seen)
    }

    fn expect(&self, kernel: KernelVersion) -> Vec<Expected> {
        let mut facts = Vec::new();
        let mut say =
            |name, value: &'static str, says| facts.push(Expected::new(name, value, says));
        if !self.registers() {
            say("register", "0", PINNED);
            say("discard", "0", "madvise(2)");
        }
        let (deed, says) = match self.deed {
            Deed::Register if !pins_unlocked(kernel) => ("EFAULT", LOCKED),
            Deed::Register => ("again", UNLOCKED),
            Deed::RegisterPresent | Deed::Fixed => ("ran", PINNED),
            Deed::Plain => ("again", source::QUEUE),
        };
        say("deed", deed, says);
        let page = if deed == "again" {
            say("queue", "1/1", says);
            say("fault", "write@2", OBSERVED);
            say("copy", "0", source::COPY);
            say("waiter", "ran", source::COPY);
            if self.deed == Deed::Plain { "--w---" } else { "--c---" }
        } else {
            say("queue", "0/0", says);
            if self.deed == Deed::RegisterPresent { "--k---" } else { "------" }
        };
        say("reg", "mmmmmm", source::QUEUE);
        say("pages", page, says);
        facts
    }

    fn recipe(&self) -> Vec<String> {
        let mut steps = vec!["map and register a block of 6 pages".to_owned()];
        match self.deed {
            Deed::Register => {}
            Deed::RegisterPresent => steps.push("UFFDIO_COPY of page 2; write to it".into()),
            Deed::Fixed | Deed::Plain => steps.push(
                "UFFDIO_COPY of page 2; write to it; IORING_REGISTER_BUFFERS of it; discard it"
                    .into(),
            ),
        }
        steps.push(match self.deed {
            Deed::Register | Deed::RegisterPresent => {
                "a thread registers page 2: IORING_REGISTER_BUFFERS".into()
            }
            Deed::Fixed => {
                "a thread submits IORING_OP_READ_FIXED of a socket into that buffer".into()
            }
            Deed::Plain => "a thread submits IORING_OP_READ of a socket into page 2".into(),
        });
        steps.push("does it wait? If so, UFFDIO_COPY; what is in the page?".into());
        steps
    }
}

const PINNED: &str = "io_uring_register(2), IORING_REGISTER_BUFFERS: the pages are pinned";
const LOCKED: &str =
    "io_pin_pages() in io_uring: pins with mmap_lock held, where no fault may wait";
const UNLOCKED: &str = "io_pin_pages() in io_uring: pin_user_pages_fast() faults in without a lock";

/// The cases.
pub(super) fn cases(cases: &mut Vec<Case>) {
    for backing in [Backing::Anon, Backing::Shmem, Backing::SharedAnon] {
        for deed in Deed::ALL {
            let by_default = backing != Backing::SharedAnon;
            cases.push(Case::trial(&BUFFERS, Buffer { backing, deed: *deed }, by_default));
        }
    }
}
