//! A block and a userfaultfd for questions that register and ask in their own way: steps that
//! record one fact each.

use crate::abi::{Field, Message, Range, Rc, Uffd};
use crate::access::Access;
use crate::evidence::{self, QueueFile};
use crate::expect::Expected;
use crate::memory::{BLOCK, Block, HUGE, PAGE, tag};
use crate::outcome::{Seen, Stop};
use crate::point::{Backing, PAGES, Waiter as Kind, axis};
use crate::scenario::fault_word;
use crate::stage::Stage;
use crate::touch;
use crate::waiter::{Fate, Waiter};
use nix::errno::Errno;
use std::fs::File;
use std::os::unix::fs::FileExt;

axis! {
    /// Who accesses a page, and how.
    Who {
        /// A load.
        UserRead = "user-read",
        /// A store.
        UserWrite = "user-write",
        /// read(2) into the page.
        SysRead = "sys-read",
        /// write(2) from the page.
        SysWrite = "sys-write",
        /// process_vm_readv(2).
        VmRead = "vm-read",
        /// process_vm_writev(2).
        VmWrite = "vm-write",
        /// madvise(MADV_POPULATE_READ).
        PopulateRead = "populate-read",
        /// madvise(MADV_POPULATE_WRITE).
        PopulateWrite = "populate-write",
        /// mlock(2).
        Mlock = "mlock",
        /// futex(2).
        Futex = "futex",
        /// pread(2) of /proc/self/mem.
        MemRead = "proc-mem-read",
        /// pwrite(2) to /proc/self/mem.
        MemWrite = "proc-mem-write",
    }
}

impl Who {
    /// The grid's waiter of this kind, if it has one.
    pub(crate) const fn kind(self) -> Option<Kind> {
        Some(match self {
            Self::UserRead => Kind::UserRead,
            Self::UserWrite => Kind::UserWrite,
            Self::SysRead => Kind::SysRead,
            Self::SysWrite => Kind::SysWrite,
            Self::VmRead => Kind::VmRead,
            Self::VmWrite => Kind::VmWrite,
            Self::PopulateRead => Kind::PopulateRead,
            Self::PopulateWrite => Kind::PopulateWrite,
            Self::Mlock => Kind::Mlock,
            Self::Futex => Kind::Futex,
            Self::MemRead | Self::MemWrite => return None,
        })
    }

    /// Whether its fault is one of a write.
    pub(crate) const fn write_faults(self, backing: Backing) -> bool {
        match self.kind() {
            Some(kind) => kind.write_faults(backing),
            None => matches!(self, Self::MemWrite),
        }
    }

    /// Whether it changes the page.
    pub(crate) const fn stores(self) -> bool {
        match self.kind() {
            Some(kind) => kind.stores(),
            None => matches!(self, Self::MemWrite),
        }
    }

    /// What it ends with where nothing stops it and the page holds `there`, a word of
    /// [`crate::waiter::content`].
    pub(crate) fn ran(self, there: &str) -> String {
        match self {
            Self::UserRead | Self::SysWrite | Self::VmRead | Self::MemRead => {
                format!("ran:{there}")
            }
            _ => "ran".to_owned(),
        }
    }
}

/// A block that is mapped and not yet registered, with a userfaultfd.
#[derive(Debug)]
pub(crate) struct Lab<'a> {
    /// The shared ground.
    pub(crate) stage: &'a Stage,
    /// The block.
    pub(crate) block: Block,
    /// The context.
    pub(crate) uffd: Uffd,
    /// Its fault queue.
    pub(crate) queue: QueueFile,
}

impl<'a> Lab<'a> {
    /// Maps a block, and makes a userfaultfd with `features`, which the kernel must offer.
    pub(crate) fn new(stage: &'a Stage, backing: Backing, features: u64) -> Result<Self, Stop> {
        stage.must_offer(features)?;
        let block = Block::map(backing, BLOCK)?;
        let uffd = stage.uffd(features)?;
        let queue = QueueFile::open(&uffd)?;
        Ok(Self { stage, block, uffd, queue })
    }

    /// The range of `pages`.
    pub(crate) fn range(&self, pages: std::ops::Range<usize>) -> Range {
        self.block.range(pages)
    }

    /// The range of one page.
    pub(crate) fn page(&self, page: usize) -> Range {
        self.range(page..page + 1)
    }

    /// The range of the whole block.
    pub(crate) fn all(&self) -> Range {
        self.range(0..PAGES)
    }

    /// Stores [`tag::KEPT`] in each of `pages`, which must not be caught.
    pub(crate) fn fill(&self, pages: std::ops::Range<usize>) -> Result<(), Stop> {
        for page in pages {
            touch::store(self.page(page).start, tag::KEPT)
                .map_err(|signal| Stop::Broken(format!("writing to page {page}: {signal}")))?;
        }
        Ok(())
    }

    /// REGISTER, which must succeed; a kernel that refuses does not support the question.
    pub(crate) fn register(&self, pages: std::ops::Range<usize>, mode: u64) -> Result<(), Stop> {
        let backing = self.block.backing;
        self.uffd.register(self.range(pages), mode).map(drop).map_err(|e| {
            Stop::Unsupported(format!("REGISTER of a {backing} block, mode {mode:#x}: {e:?}"))
        })
    }

    /// Starts an access to `page` and waits until it has parked or ended.
    pub(crate) fn access(&self, who: Who, page: usize) -> Result<(Waiter, Fate), Stop> {
        let mut waiter = self.begin(who, self.page(page))?;
        let fate = waiter.settle(&self.uffd, &self.queue)?;
        if matches!(who, Who::PopulateRead | Who::PopulateWrite)
            && fate == Fate::Ended(Access::Failed(Errno::EINVAL))
        {
            let why = "madvise(MADV_POPULATE_*): EINVAL (5.14 brought it)";
            return Err(Stop::Unsupported(why.into()));
        }
        Ok((waiter, fate))
    }

    /// Starts an access without waiting for it.
    pub(crate) fn begin(&self, who: Who, page: Range) -> Result<Waiter, Stop> {
        if let Some(kind) = who.kind() {
            return Waiter::start(self.stage, kind, page);
        }
        let mem = File::options()
            .read(true)
            .write(true)
            .open("/proc/self/mem")
            .map_err(|e| Stop::Broken(format!("opening /proc/self/mem: {e}")))?;
        let writes = who == Who::MemWrite;
        Waiter::begin(self.stage, move || through(&mem, page.start as u64, writes))
    }

    /// Has somebody access `page` and records `name`: `parks`, or how the access ended; then
    /// `fault`, its message, if it parked. The waiter, if it waits.
    pub(crate) fn meet(
        &self,
        (name, fault): (&'static str, &'static str),
        who: Who,
        page: usize,
        seen: &mut Seen<'_>,
    ) -> Result<Option<Waiter>, Stop> {
        seen.step(name);
        let (waiter, fate) = self.access(who, page)?;
        if fate != Fate::Again {
            seen.fact(name, self.stage.word(fate));
            return Ok(None);
        }
        seen.fact(name, "parks");
        seen.fact(fault, self.read_fault()?);
        Ok(Some(waiter))
    }

    /// Looks at a waiter and records its fate; whether it waits still.
    pub(crate) fn look(
        &self,
        name: &'static str,
        waiter: &mut Waiter,
        seen: &mut Seen<'_>,
    ) -> Result<bool, Stop> {
        seen.step(name);
        let fate = waiter.look(&self.uffd, &self.queue)?;
        seen.fact(name, self.stage.word(fate));
        Ok(fate.waits())
    }

    /// Reads one fault; `wp-write@2` for page 2.
    pub(crate) fn read_fault(&self) -> Result<String, Stop> {
        match self.uffd.read() {
            Ok(Message::Pagefault { address, flags, .. }) => {
                let page = address.wrapping_sub(BLOCK) / self.block.page;
                Ok(format!("{}@{page}", fault_word(flags)))
            }
            other => Err(Stop::Broken(format!("reading a fault: {other:?}"))),
        }
    }

    /// Records how the page table holds each page; see [`evidence::entries`].
    pub(crate) fn entries(&self, name: &'static str, seen: &mut Seen<'_>) -> Result<(), Stop> {
        let row = evidence::entries("self", self.all(), self.block.page)?;
        seen.fact(name, row);
        Ok(())
    }

    /// Records the content of each page; not while pages are protected against loads.
    pub(crate) fn contents(&self, name: &'static str, seen: &mut Seen<'_>) -> Result<(), Stop> {
        let letter = |value| self.stage.letter(value);
        seen.fact(name, evidence::pages(self.all(), self.block.page, &letter)?);
        Ok(())
    }

    /// Records the registration of each page.
    pub(crate) fn registered(&self, name: &'static str, seen: &mut Seen<'_>) -> Result<(), Stop> {
        let rows = evidence::registration(&[(self.all(), self.block.page)])?;
        seen.fact(name, rows.concat());
        Ok(())
    }
}

/// An access by way of /proc/self/mem, to which the page belongs to a foreign process.
fn through(mem: &File, at: u64, writes: bool) -> Access {
    let mut value = tag::WROTE.to_ne_bytes();
    let done = if writes { mem.write_at(&value, at) } else { mem.read_at(&mut value, at) };
    match done {
        Ok(0) => Access::Failed(Errno::EIO),
        Ok(_) if writes => Access::Ran(None),
        Ok(_) => Access::Ran(Some(u64::from_ne_bytes(value))),
        Err(e) => Access::Failed(Errno::from_raw(e.raw_os_error().unwrap_or(0))),
    }
}

/// Records what an operation with a result field returned.
pub(crate) fn outcome(names: (&'static str, &'static str), done: (Rc, Field), seen: &mut Seen<'_>) {
    seen.fact(names.0, done.0);
    seen.fact(names.1, done.1);
}

/// Expectations that have one source.
pub(crate) fn want(source: &'static str, facts: &[(&'static str, &str)]) -> Vec<Expected> {
    facts.iter().map(|(name, value)| Expected::new(name, (*value).to_owned(), source)).collect()
}

/// The size of a backing's pages, in words.
pub(crate) fn length(backing: Backing) -> String {
    (if backing.is_huge() { HUGE } else { PAGE }).to_string()
}

/// The backings with pages of the usual size.
pub(crate) const SMALL: [Backing; 4] =
    [Backing::Anon, Backing::Shmem, Backing::Private, Backing::SharedAnon];
