//! A file of a tmpfs that is full, as /dev/shm of a container may be.

use crate::abi::{Field, REGISTER_MODE_MISSING, Rc, Uffd};
use crate::evidence::{self, QueueFile};
use crate::expect::Expected;
use crate::files;
use crate::memory::{BLOCK, Block, ONE_PAGE, PAGE, RW, map, tag};
use crate::model::source;
use crate::outcome::{Seen, Stop};
use crate::point::{Backing, Discard, PAGES, Waiter as Kind, axis};
use crate::probe::{Case, Probe, Trial};
use crate::scenario::fault_word;
use crate::stage::Stage;
use crate::touch;
use crate::waiter::Waiter;
use std::os::fd::AsFd;
use uffd_results::KernelVersion;

static FULL: Probe = Probe {
    suite: "kinds",
    name: "tmpfs-full",
    statement: "COPY and ZEROPAGE of shared memory on a tmpfs that is full fail with ENOMEM, place nothing and \
                wake nobody; once a page of it is removed they work. A waiter that is let go in place of that gets \
                SIGBUS.",
    consumers: &[
        "QEMU: memory-backend-file on /dev/shm",
        "crosvm, Firecracker handlers in containers with a small /dev/shm",
    ],
};

axis! {
    /// What the handler does.
    Deed {
        /// UFFDIO_COPY.
        Copy = "copy",
        /// UFFDIO_ZEROPAGE.
        Zeropage = "zeropage",
    }
}

axis! {
    /// How it goes on.
    Then {
        /// MADV_REMOVE of another page, and the same again.
        Remove = "remove",
        /// UFFDIO_WAKE, then as above.
        Wake = "wake",
        /// UFFDIO_UNREGISTER.
        Unregister = "unregister",
        /// The last close.
        Close = "close",
    }
}

#[derive(Debug)]
struct Full {
    backing: Backing,
    deed: Deed,
    then: Then,
    waiter: Kind,
}

/// The page that is waited for.
const TARGET: usize = 3;
/// Pages that the file system has room for, all of which the file has.
const ROOM: usize = 2;

impl Full {
    fn block(&self) -> Result<Block, Stop> {
        let file = files::limited(ROOM, PAGES * PAGE)?;
        let block = Block { backing: Backing::Shmem, page: PAGE, file: Some(file) };
        let fixed = libc::MAP_FIXED_NOREPLACE;
        let rc = block.map_pages(0..PAGES, BLOCK, fixed);
        if !rc.is_ok() {
            return Err(Stop::Broken(format!("mapping the file: {rc}")));
        }
        for page in 0..ROOM {
            touch::store(block.range(page..page + 1).start, tag::KEPT)
                .map_err(|signal| Stop::Broken(format!("filling the file system: {signal}")))?;
        }
        if self.backing == Backing::Private {
            // The same pages of the same full file, which a private mapping takes as they are.
            let file = block.file.as_ref().map(AsFd::as_fd);
            let rc = map(block.range(0..PAGES), RW, libc::MAP_PRIVATE, file, 0);
            if !rc.is_ok() {
                return Err(Stop::Broken(format!("mapping the file again: {rc}")));
            }
        }
        Ok(block)
    }

    fn act(&self, stage: &Stage, uffd: &Uffd, block: &Block) -> (Rc, Field) {
        let target = block.range(TARGET..TARGET + 1);
        match self.deed {
            Deed::Copy => uffd.copy(target, stage.source, 0),
            Deed::Zeropage => uffd.zeropage(target, 0),
        }
    }

    /// Whether the deed takes a page of the file system.
    fn takes_room(&self) -> bool {
        self.backing == Backing::Shmem
    }
}

fn read_fault(uffd: &Uffd) -> Result<String, Stop> {
    match uffd.read() {
        Ok(crate::abi::Message::Pagefault { flags, .. }) => Ok(fault_word(flags)),
        other => Err(Stop::Broken(format!("reading the waiter's message: {other:?}"))),
    }
}

impl Trial for Full {
    fn axes(&self) -> String {
        let Self { backing, deed, then, waiter } = self;
        format!("backing={backing},deed={deed},then={then},waiter={waiter}")
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        seen.step("set-up");
        let block = self.block()?;
        let all = block.range(0..PAGES);
        // Those that the file has may be mapped together with another page.
        let rest = block.range(ROOM..PAGES);
        let target = block.range(TARGET..TARGET + 1);
        let uffd = stage.uffd(0)?;
        uffd.register(all, REGISTER_MODE_MISSING)
            .map_err(|e| Stop::Unsupported(format!("REGISTER: {e:?}")))?;
        let queue = QueueFile::open(&uffd)?;
        let letter = |value| stage.letter(value);
        seen.step("park");
        let mut waiter = Waiter::park(stage, self.waiter, target, &uffd, &queue)?;
        seen.fact("fault", read_fault(&uffd)?);
        seen.step("op");
        let (rc, field) = self.act(stage, &uffd, &block);
        seen.fact("op", rc);
        seen.fact("field", field);
        let fate = waiter.look(&uffd, &queue)?;
        seen.fact("waiter", stage.word(fate));
        seen.fact("queue", queue.read()?);
        seen.fact("pages", evidence::pages(rest, PAGE, &letter)?);
        if !fate.waits() {
            return Ok(());
        }
        seen.step("then");
        match self.then {
            Then::Remove | Then::Wake => {
                if self.then == Then::Wake {
                    seen.fact("wake", uffd.wake(target));
                    seen.fact("woken", stage.word(waiter.look(&uffd, &queue)?));
                    read_fault(&uffd)?;
                }
                seen.fact("remove", block.discard(Discard::Remove, 0..1)?);
                let (rc, field) = self.act(stage, &uffd, &block);
                seen.fact("later", rc);
                seen.fact("later-field", field);
                seen.fact("last", stage.word(waiter.look(&uffd, &queue)?));
            }
            Then::Unregister => {
                seen.fact("unregister", uffd.unregister(all));
                seen.fact("last", stage.word(waiter.look(&uffd, &queue)?));
            }
            Then::Close => {
                drop(uffd);
                seen.fact("last", stage.word(waiter.end()?));
            }
        }
        seen.fact("later-pages", evidence::pages(rest, PAGE, &letter)?);
        Ok(())
    }

    fn expect(&self, _: KernelVersion) -> Vec<Expected> {
        let says = "shmem_mfill_filemap_add() in mm/shmem.c (7.1; shmem_mfill_atomic_pte() up to 6.19): a file \
                    system without room is ENOMEM (shmem_inode_acct_blocks())";
        let bus = "shmem_get_folio_gfp() returns ENOSPC for a full file system, which vmf_error() makes a SIGBUS";
        let stores = self.waiter.stores();
        let (brings, filled, does) = match self.deed {
            Deed::Copy => ("copied", 'c', source::COPY),
            Deed::Zeropage => ("zero", '0', source::ZEROPAGE),
        };
        let filled = if stores { 'w' } else { filled };
        let fault = if stores { "write" } else { "read" };
        let mut facts = vec![Expected::new("fault", fault, source::QUEUE)];
        let mut say = |fact, value: String, says| facts.push(Expected::new(fact, value, says));
        if !self.takes_room() {
            let why = "mfill_atomic_pte() fills a private mapping with pages of its own, whatever the file has";
            say("op", "0".into(), why);
            say("field", ONE_PAGE.into(), why);
            say("waiter", self.waiter.ran(brings), does);
            say("queue", "0/0".into(), source::QUEUE);
            say("pages", format!("-{filled}--"), does);
            return facts;
        }
        say("op", "ENOMEM".into(), says);
        say("field", "-12".into(), says);
        say("waiter", "asleep".into(), says);
        say("queue", "1/0".into(), says);
        say("pages", "----".into(), says);
        if self.then == Then::Wake {
            say("wake", "0".into(), source::WAKE);
            say("woken", "again".into(), source::RERUN);
        }
        match self.then {
            Then::Remove | Then::Wake => {
                say("remove", "0".into(), "madvise(2), MADV_REMOVE: frees the page");
                say("later", "0".into(), does);
                say("later-field", ONE_PAGE.into(), does);
                say("last", self.waiter.ran(brings), does);
                say("later-pages", format!("-{filled}--"), does);
            }
            Then::Unregister | Then::Close => {
                if self.then == Then::Unregister {
                    say("unregister", "0".into(), source::UNREGISTER);
                }
                let end = if self.waiter.in_kernel() { "EFAULT" } else { "BUS_ADRERR" };
                say("last", end.into(), bus);
                say("later-pages", "----".into(), bus);
            }
        }
        facts
    }

    fn recipe(&self) -> Vec<String> {
        let Self { backing, deed, then, waiter } = self;
        let op = format!("UFFDIO_{}", deed.to_string().to_uppercase());
        let kind = if *backing == Backing::Shmem { "MAP_SHARED" } else { "MAP_PRIVATE" };
        vec![
            format!(
                "a file of {PAGES} pages on a tmpfs with size={ROOM} pages: store to its first {ROOM} through a \
                 shared mapping"
            ),
            format!("map it with {kind}, register it (missing)"),
            format!("a thread accesses page {TARGET} ({waiter}) and parks; read its message"),
            format!("{op} of the page; look at the waiter and at pages {ROOM} to {}", PAGES - 1),
            match then {
                Then::Remove => format!("MADV_REMOVE of page 0, and {op} again"),
                Then::Wake => format!("UFFDIO_WAKE; MADV_REMOVE of page 0, and {op} again"),
                Then::Unregister => "UFFDIO_UNREGISTER, if it still waits".to_owned(),
                Then::Close => "close the userfaultfd, if it still waits".to_owned(),
            },
        ]
    }
}

/// The cases.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for deed in Deed::ALL {
        for waiter in [Kind::UserRead, Kind::UserWrite, Kind::SysWrite, Kind::SysRead] {
            for then in Then::ALL {
                let by_default = match waiter {
                    Kind::UserRead => *deed == Deed::Copy || *then == Then::Remove,
                    Kind::SysWrite => *deed == Deed::Copy && *then == Then::Close,
                    _ => false,
                };
                let (deed, then) = (*deed, *then);
                let trial = Full { backing: Backing::Shmem, deed, then, waiter };
                cases.push(Case::trial(&FULL, trial, by_default));
            }
            let trial = Full { backing: Backing::Private, deed: *deed, then: Then::Remove, waiter };
            let by_default = waiter == Kind::UserRead && *deed == Deed::Copy;
            cases.push(Case::trial(&FULL, trial, by_default));
        }
    }
    cases
}
