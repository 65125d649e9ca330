//! A block and a userfaultfd for questions that register and ask in their own way: steps that
//! record one fact each.

use crate::abi::{
    Field, Message, REGISTER_MODE_MINOR, REGISTER_MODE_MISSING, REGISTER_MODE_WP, Range, Rc, Uffd,
};
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

axis! {
    /// What a block is registered for.
    For {
        /// Nothing: the comparison.
        Nothing = "none",
        /// Missing pages.
        Missing = "missing",
        /// Write protection.
        Wp = "wp",
        /// Minor faults.
        Minor = "minor",
    }
}

impl For {
    /// The modes of REGISTER.
    pub(crate) const fn bits(self) -> u64 {
        match self {
            Self::Nothing => 0,
            Self::Missing => REGISTER_MODE_MISSING,
            Self::Wp => REGISTER_MODE_WP,
            Self::Minor => REGISTER_MODE_MINOR,
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
    pub(crate) fn access(&self, who: Kind, page: usize) -> Result<(Waiter, Fate), Stop> {
        let mut waiter = Waiter::start(self.stage, who, self.page(page))?;
        let fate = waiter.settle(&self.uffd, &self.queue)?;
        if matches!(who, Kind::PopulateRead | Kind::PopulateWrite)
            && fate == Fate::Ended(Access::Failed(Errno::EINVAL))
        {
            let why = "madvise(MADV_POPULATE_*): EINVAL (5.14 brought it)";
            return Err(Stop::Unsupported(why.into()));
        }
        Ok((waiter, fate))
    }

    /// Has somebody access `page` and records `name`: `parks`, or how the access ended; then
    /// `fault`, its message, if it parked. The waiter, if it waits.
    pub(crate) fn meet(
        &self,
        (name, fault): (&'static str, &'static str),
        who: Kind,
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

    /// Wakes a waiter of `page` that sleeps on and records `rescue` and `rescued`; whether it waits even then.
    pub(crate) fn rescue(
        &self,
        waiter: &mut Waiter,
        page: usize,
        seen: &mut Seen<'_>,
    ) -> Result<bool, Stop> {
        seen.step("rescue");
        // A message of its own would be taken for the unread old one.
        while self.uffd.read().is_ok() {}
        seen.fact("rescue", self.uffd.wake(self.page(page)));
        self.look("rescued", waiter, seen)
    }

    /// Closes the context, which frees whoever waits, and records how the waiter's access `closed`.
    pub(crate) fn close(self, waiter: &Waiter, seen: &mut Seen<'_>) -> Result<(), Stop> {
        seen.step("close");
        drop(self.uffd);
        seen.fact("closed", self.stage.word(waiter.end()?));
        Ok(())
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
