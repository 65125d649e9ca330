//! read(2) and its like: sizes, several messages, order, buffers that can't be written.

use super::setting::{MESSAGE, Setting, buffer, counted, messages};
use crate::abi::Range;
use crate::expect::{Expected, OBSERVED};
use crate::memory::{PAGE, RW, SPARE, map};
use crate::outcome::{Seen, Stop};
use crate::point::Waiter as Kind;
use crate::probe::{Case, Probe, Trial};
use crate::stage::Stage;
use nix::fcntl::OFlag;
use uffd_results::KernelVersion;

const READ: &str = "userfaultfd_read() in fs/userfaultfd.c: EINVAL for less than one message, then as \
    many whole messages as there are, and waits for the first only";
const FIFO: &str = "find_userfault() in fs/userfaultfd.c: the oldest of the queue first";
const LOST: &str = "userfaultfd_ctx_read() takes the message off the unread ones before \
    userfaultfd_read() copies it: a message that can't be copied is lost";
const KERNEL: &str =
    "vfs_read() in fs/read_write.c refuses a kernel address before it asks the userfaultfd";
/// readv(2) became one call.
const ITER: &str =
    "userfaultfd_read_iter() (6.10): one call for all pieces; before, one call a piece";

static SIZE: Probe = Probe {
    suite: "handle",
    name: "read-size",
    statement: "read(2) returns whole messages, oldest first, as many as there are and fit; a buffer of \
                less than 32 bytes is EINVAL.",
    consumers: &[
        "QEMU: postcopy_ram_fault_thread(): a short read ends the thread",
        "CRIU: handle_uffd_event(): a short read is fatal",
        "userfaultfd-rs: Uffd::read_events()",
    ],
};
static PIECES: Probe = Probe {
    suite: "handle",
    name: "read-vector",
    statement: "readv(2), pread(2) and preadv2(2) read messages as read(2) does, or refuse.",
    consumers: &["libfabric and others read one message a call"],
};
static UNWRITABLE: Probe = Probe {
    suite: "handle",
    name: "read-fault",
    statement: "A message that read(2) can't copy to its buffer is lost, with EFAULT if it is the first \
                of the read, and its waiter waits without a message until it is woken; an address of the \
                kernel's is refused before one is taken.",
    consumers: &["whoever reads into memory that is registered itself"],
};

const WAITERS: usize = 3;

/// read(2) of a number of bytes while a number of messages is unread.
#[derive(Debug)]
struct Size {
    bytes: usize,
    unread: usize,
    blocking: bool,
}

impl Trial for Size {
    fn axes(&self) -> String {
        let fd = if self.blocking { "blocking" } else { "nonblock" };
        format!("bytes={},fd={fd},unread={}", self.bytes, self.unread)
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        let at = buffer()?;
        let setting = Setting::new(stage, stage.uffd(0)?)?;
        // The last page first, so that the order is not that of addresses.
        let mut waiters = Vec::new();
        for page in (0..self.unread).rev() {
            waiters.push(setting.park_one(Kind::UserRead, page)?);
        }
        if self.blocking {
            setting.uffd.set_status(OFlag::empty());
        }
        seen.step("read");
        let read = setting.uffd.read_into((at, self.bytes));
        seen.fact("read", counted(read));
        seen.fact("pages", messages(at, read.unwrap_or(0))?);
        seen.fact("queue", setting.queue.read()?);
        setting.uffd.set_status(OFlag::O_NONBLOCK);
        let rest = setting.uffd.read_into((at, PAGE));
        seen.fact("rest", counted(rest));
        seen.fact("rest-pages", messages(at, rest.unwrap_or(0))?);
        setting.release(&waiters)
    }

    fn expect(&self, _: KernelVersion) -> Vec<Expected> {
        let first = self.unread.min(self.bytes / MESSAGE);
        let rest = self.unread - first;
        let word = |n: usize, empty: &str| match n {
            0 => empty.to_owned(),
            n => (n * MESSAGE).to_string(),
        };
        let pages = |from: usize, n: usize| {
            let words: Vec<_> =
                (from..from + n).map(|i| (self.unread - 1 - i).to_string()).collect();
            if words.is_empty() { "none".to_owned() } else { words.join(",") }
        };
        let empty = if self.bytes < MESSAGE { "EINVAL" } else { "EAGAIN" };
        vec![
            Expected::new("read", word(first, empty), READ),
            Expected::new("pages", pages(0, first), FIFO),
            Expected::new("queue", format!("{}/{rest}", self.unread), READ),
            Expected::new("rest", word(rest, "EAGAIN"), READ),
            Expected::new("rest-pages", pages(first, rest), FIFO),
        ]
    }

    fn recipe(&self) -> Vec<String> {
        vec![
            format!("{} threads park, the one on the last page first", self.unread),
            format!("read(2) of {} bytes; then of all that is left", self.bytes),
        ]
    }
}

/// Other calls that read.
#[derive(Debug)]
struct Pieces {
    how: &'static str,
    unread: usize,
}

/// `RWF_NOWAIT`.
const NOWAIT: i32 = 8;

impl Trial for Pieces {
    fn axes(&self) -> String {
        format!("call={},unread={}", self.how, self.unread)
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        let at = buffer()?;
        let setting = Setting::new(stage, stage.uffd(0)?)?;
        let waiters = setting.park(0..self.unread)?;
        let uffd = &setting.uffd;
        seen.step("read");
        let read = match self.how {
            "readv-one" => uffd.read_vector(&[(at, MESSAGE)]),
            "readv-two" => uffd.read_vector(&[(at, MESSAGE), (at + MESSAGE, MESSAGE)]),
            "readv-halves" => {
                uffd.read_vector(&[(at, MESSAGE / 2), (at + MESSAGE / 2, MESSAGE / 2)])
            }
            "readv-small-rest" => uffd.read_vector(&[(at, MESSAGE), (at + MESSAGE, 8)]),
            "readv-none" => uffd.read_vector(&[]),
            "pread" => uffd.read_at((at, MESSAGE), 0),
            "pread-offset" => uffd.read_at((at, MESSAGE), 64),
            "preadv2-here" => uffd.read_vector_at(&[(at, MESSAGE)], -1, 0),
            "preadv2-offset" => uffd.read_vector_at(&[(at, MESSAGE)], 64, 0),
            _ => {
                uffd.set_status(OFlag::empty());
                uffd.read_vector_at(&[(at, MESSAGE)], -1, NOWAIT)
            }
        };
        seen.fact("read", counted(read));
        seen.fact("pages", messages(at, read.unwrap_or(0))?);
        seen.fact("queue", setting.queue.read()?);
        setting.release(&waiters)
    }

    fn expect(&self, kernel: KernelVersion) -> Vec<Expected> {
        let iter = (kernel.major, kernel.minor) >= (6, 10);
        let (most, refused, source): (usize, Option<&str>, _) = match self.how {
            "readv-one" | "preadv2-here" => (1, None, READ),
            "readv-two" => (2, None, ITER),
            "readv-halves" => (1, (!iter).then_some("EINVAL"), ITER),
            "readv-small-rest" => (1, None, ITER),
            "readv-none" => (0, Some("0"), "readv(2)"),
            "preadv2-nowait" => (1, (!iter).then_some("EOPNOTSUPP"), ITER),
            _ => (0, Some("ESPIPE"), OBSERVED),
        };
        let n = self.unread.min(most);
        let read = match (refused, n) {
            (Some(refused), _) => refused.to_owned(),
            (None, 0) => "EAGAIN".to_owned(),
            (None, n) => (n * MESSAGE).to_string(),
        };
        let n = if refused.is_some() { 0 } else { n };
        let pages = ["none", "0", "0,1"][n];
        vec![
            Expected::new("read", read, source),
            Expected::new("pages", pages, source),
            Expected::new("queue", format!("{}/{}", self.unread, self.unread - n), source),
        ]
    }

    fn recipe(&self) -> Vec<String> {
        vec![format!("{} threads park", self.unread), format!("{} on the userfaultfd", self.how)]
    }
}

/// read(2) to where the kernel can't write.
#[derive(Debug)]
struct Unwritable {
    place: &'static str,
    unread: usize,
}

impl Unwritable {
    fn place(&self) -> Result<usize, Stop> {
        let at = Range { start: SPARE, len: PAGE };
        let anon = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let prot = match self.place {
            "hole" => return Ok(SPARE),
            "null" => return Ok(0),
            "kernel" => return Ok(usize::MAX - PAGE + 1),
            "read-only" => libc::PROT_READ,
            "prot-none" => libc::PROT_NONE,
            _ => RW,
        };
        let rc = map(at, prot, anon, None, 0);
        if !rc.is_ok() {
            return Err(Stop::Broken(format!("mapping a buffer: {rc}")));
        }
        Ok(match self.place {
            "half" => SPARE + PAGE - MESSAGE / 2,
            "second-outside" => SPARE + PAGE - MESSAGE,
            _ => SPARE,
        })
    }
}

impl Trial for Unwritable {
    fn axes(&self) -> String {
        format!("buffer={},unread={}", self.place, self.unread)
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        let at = self.place()?;
        let setting = Setting::new(stage, stage.uffd(0)?)?;
        let mut waiters = setting.park(0..self.unread)?;
        seen.step("read");
        seen.fact("read", counted(setting.uffd.read_into((at, 2 * MESSAGE))));
        seen.fact("queue", setting.queue.read()?);
        let rest = buffer()?;
        let again = setting.uffd.read_into((rest, PAGE));
        seen.fact("again", counted(again));
        seen.fact("pages", messages(rest, again.unwrap_or(0))?);
        // Who waits without a message is served all the same by one who knows of it.
        seen.fact("wake", setting.uffd.wake(setting.block.range(0..1)));
        if let (1, Some(waiter)) = (self.unread, waiters.first_mut()) {
            seen.fact("waiter", stage.word(waiter.look(&setting.uffd, &setting.queue)?));
        }
        setting.release(&waiters)
    }

    fn expect(&self, _: KernelVersion) -> Vec<Expected> {
        let (read, lost) = match self.place {
            // There is room for two.
            "good" => ((self.unread.min(2) * MESSAGE).to_string(), self.unread.min(2)),
            "second-outside" => (MESSAGE.to_string(), self.unread.min(2)),
            "kernel" => ("EFAULT".to_owned(), 0),
            _ => ("EFAULT".to_owned(), 1),
        };
        let kernel = self.place == "kernel";
        let read = if self.unread == 0 && !kernel { "EAGAIN".to_owned() } else { read };
        let lost = lost.min(self.unread);
        let left = self.unread - lost;
        let again = if left == 0 { "EAGAIN".to_owned() } else { (left * MESSAGE).to_string() };
        let pages: Vec<_> = (lost..self.unread).map(|page| page.to_string()).collect();
        let pages = if pages.is_empty() { "none".to_owned() } else { pages.join(",") };
        let mut facts = vec![
            Expected::new("read", read, if kernel { KERNEL } else { LOST }),
            Expected::new("queue", format!("{}/{left}", self.unread), LOST),
            Expected::new("again", again, LOST),
            Expected::new("pages", pages, LOST),
            Expected::new("wake", "0", LOST),
        ];
        if self.unread == 1 {
            facts.push(Expected::new("waiter", "again", LOST));
        }
        facts
    }

    fn recipe(&self) -> Vec<String> {
        vec![
            format!("{} threads park", self.unread),
            format!("read(2) of 64 bytes, to a buffer of the kind {:?}", self.place),
            "read(2) of what is left; UFFDIO_WAKE of the first page".into(),
        ]
    }
}

/// The cases.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for bytes in [0, 1, 16, 31, 32, 33, 63, 64, 65, 96, 128, PAGE] {
        for unread in 0..=WAITERS {
            for blocking in [false, true] {
                // A blocking read of no message waits for ever.
                if !blocking || unread > 0 || bytes < MESSAGE {
                    cases.push(Case::trial(&SIZE, Size { bytes, unread, blocking }, true));
                }
            }
        }
    }
    for how in [
        "readv-one",
        "readv-two",
        "readv-halves",
        "readv-small-rest",
        "readv-none",
        "pread",
        "pread-offset",
        "preadv2-here",
        "preadv2-offset",
        "preadv2-nowait",
    ] {
        for unread in 0..=2 {
            cases.push(Case::trial(&PIECES, Pieces { how, unread }, true));
        }
    }
    for place in
        ["good", "hole", "null", "kernel", "read-only", "prot-none", "half", "second-outside"]
    {
        for unread in 0..=WAITERS {
            cases.push(Case::trial(&UNWRITABLE, Unwritable { place, unread }, true));
        }
    }
    cases
}
