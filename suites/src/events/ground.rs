//! What the suite's cases stand on: a registered block, calls that raise events, and the words for
//! what is read.

use crate::abi::{Message, REGISTER_MODE_MISSING, Range, Uffd, event_name, features};
use crate::evidence::{self, QueueFile, Thread, ThreadFile};
use crate::memory::{ARENA, BLOCK, Block, ELSEWHERE, OTHER, SPARE, tag};
use crate::mover::Mover;
use crate::outcome::{Seen, Stop};
use crate::point::{Backing, PAGES};
use crate::stage::Stage;
use crate::touch;
use std::time::Instant;

/// The page of a block that nobody has written to.
pub(crate) const MISSING: usize = 2;
/// Pages looked at: two more than the block has.
pub(crate) const WINDOW: usize = 8;

/// A set of event features as case ids write it, and its bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wants {
    /// The word: the events, joined by `+`.
    pub(crate) word: &'static str,
    /// The bits for UFFDIO_API.
    pub(crate) bits: u64,
}

impl Wants {
    /// Whether one of `bits` is among them.
    pub(crate) const fn has(self, bits: u64) -> bool {
        self.bits & bits != 0
    }
}

/// No event.
pub(crate) const NONE: Wants = Wants { word: "none", bits: 0 };
/// Only REMAP.
pub(crate) const REMAP: Wants = Wants { word: "remap", bits: features::EVENT_REMAP };
/// Only REMOVE.
pub(crate) const REMOVE: Wants = Wants { word: "remove", bits: features::EVENT_REMOVE };
/// Only UNMAP.
pub(crate) const UNMAP: Wants = Wants { word: "unmap", bits: features::EVENT_UNMAP };
/// What CRIU and MPI libraries need to follow mappings.
pub(crate) const FOLLOW: Wants =
    Wants { word: "remap+unmap", bits: features::EVENT_REMAP | features::EVENT_UNMAP };
/// Every event but FORK, which needs a permission of its own.
pub(crate) const ALL: Wants = Wants {
    word: "remap+remove+unmap",
    bits: features::EVENT_REMAP | features::EVENT_REMOVE | features::EVENT_UNMAP,
};
/// Every set.
pub(crate) const WANTS: &[Wants] = &[NONE, REMAP, REMOVE, UNMAP, FOLLOW, ALL];

/// A block with every page but one written to, registered for missing pages.
#[derive(Debug)]
pub(crate) struct Ground<'a> {
    pub(crate) stage: &'a Stage,
    pub(crate) block: Block,
    pub(crate) uffd: Uffd,
    pub(crate) queue: QueueFile,
}

impl<'a> Ground<'a> {
    /// Maps a block, writes to all its pages but [`MISSING`], and registers all of it.
    pub(crate) fn set(stage: &'a Stage, backing: Backing, features: u64) -> Result<Self, Stop> {
        Self::set_part(stage, backing, features, 0..PAGES)
    }

    /// As [`Ground::set`], with only `pages` registered.
    pub(crate) fn set_part(
        stage: &'a Stage,
        backing: Backing,
        features: u64,
        pages: std::ops::Range<usize>,
    ) -> Result<Self, Stop> {
        stage.must_offer(features)?;
        let block = Block::map(backing, BLOCK)?;
        for page in (0..PAGES).filter(|page| *page != MISSING) {
            write(&block, BLOCK, page, tag::KEPT)?;
        }
        let uffd = stage.uffd(features)?;
        register(&uffd, block.range(pages))?;
        let queue = QueueFile::open(&uffd)?;
        Ok(Self { stage, block, uffd, queue })
    }

    /// The range of the missing page.
    pub(crate) fn target(&self) -> Range {
        self.block.range(MISSING..MISSING + 1)
    }

    /// Reads one message and names it.
    pub(crate) fn read(&self) -> String {
        word(&self.uffd, self.block.page)
    }

    /// Records registration and content of the block's place and of where mremap moves it.
    pub(crate) fn survey(&self, names: [&'static str; 4], seen: &mut Seen<'_>) -> Result<(), Stop> {
        let page = self.block.page;
        let places = [BLOCK, ELSEWHERE].map(|base| (self.block.at(base, 0..WINDOW), page));
        let registered = evidence::registration(&places)?;
        let letter = |value| self.stage.letter(value);
        for (n, ((range, page), reg)) in places.into_iter().zip(registered).enumerate() {
            seen.fact(names[2 * n], reg);
            seen.fact(names[2 * n + 1], evidence::pages(range, page, &letter)?);
        }
        Ok(())
    }

    /// Content of every page of the block's place.
    pub(crate) fn pages(&self) -> Result<String, Stop> {
        let letter = |value| self.stage.letter(value);
        evidence::pages(self.block.range(0..PAGES), self.block.page, &letter)
    }

    /// Registration of every page of the block's place.
    pub(crate) fn registration(&self) -> Result<String, Stop> {
        let mut rows = evidence::registration(&[(self.block.range(0..PAGES), self.block.page)])?;
        Ok(rows.remove(0))
    }
}

/// Registers for missing pages.
pub(crate) fn register(uffd: &Uffd, range: Range) -> Result<(), Stop> {
    let done = uffd.register(range, REGISTER_MODE_MISSING);
    done.map(|_| ()).map_err(|e| Stop::Unsupported(format!("REGISTER of the block: {e:?}")))
}

/// Writes to a page of a block at `base`.
pub(crate) fn write(block: &Block, base: usize, page: usize, value: u64) -> Result<(), Stop> {
    touch::store(block.at(base, page..page + 1).start, value)
        .map_err(|signal| Stop::Broken(format!("writing to a block: {signal}")))
}

/// An address in words: pages from the block's start, or from a named place.
fn place(address: usize, page: usize) -> String {
    if !(ARENA.start..ARENA.end()).contains(&address) {
        return "outside".to_owned();
    }
    let (name, base) = match address {
        a if a >= SPARE => ("spare", SPARE),
        a if a >= OTHER => ("other", OTHER),
        a if a + page >= ELSEWHERE => ("new", ELSEWHERE),
        _ => ("", BLOCK),
    };
    let offset = address.cast_signed() - base.cast_signed();
    let page = page.cast_signed();
    match (name, offset) {
        ("", o) if o % page == 0 => (o / page).to_string(),
        (name, 0) => name.to_owned(),
        (name, o) if o % page == 0 => format!("{name}{:+}", o / page),
        _ => "unaligned".to_owned(),
    }
}

/// Reads one message and names it with its payload: `unmap(0..6)`, `remap(0..6>new)`, `pagefault@2`,
/// or the errno.
pub(crate) fn word(uffd: &Uffd, page: usize) -> String {
    match uffd.read() {
        Ok(message) => describe(message, page),
        Err(errno) => format!("{errno:?}"),
    }
}

/// A message in words.
pub(crate) fn describe(message: Message, page: usize) -> String {
    let name = event_name(message.number());
    match message {
        Message::Pagefault { address, .. } => format!("{name}@{}", place(address, page)),
        Message::Fork { .. } | Message::Other(_) => name,
        Message::Remap { from, to, len } => {
            format!(
                "{name}({}..{}>{})",
                place(from, page),
                place(from + len, page),
                place(to, page)
            )
        }
        Message::Remove { start, end } | Message::Unmap { start, end } => {
            format!("{name}({}..{})", place(start, page), place(end, page))
        }
    }
}

/// Reads the events that a call raises through one or several contexts until it has returned, in
/// words, each with its context's letter if there are several; or `none`. No fault may be unread.
pub(crate) fn follow(mover: &Mover, uffds: &[&Uffd], page: usize) -> Result<String, Stop> {
    let mut events = String::with_capacity(256);
    while let Some(n) = mover.blocks_on_one_of(uffds)? {
        if !events.is_empty() {
            events.push(',');
        }
        if uffds.len() > 1 {
            events.push_str(if n == 0 { "a:" } else { "b:" });
        }
        events.push_str(&word(uffds[n], page));
    }
    Ok(if events.is_empty() { "none".to_owned() } else { events })
}

/// The thread of a call that waits for its event to be read, once it is off the CPU.
pub(crate) fn asleep(stage: &Stage, mover: &Mover) -> Result<(ThreadFile, Thread), Stop> {
    let deadline = Instant::now() + stage.patience;
    let file = ThreadFile::open(mover.tid())?;
    loop {
        if let Some(thread) = file.asleep()? {
            return Ok((file, thread));
        }
        if Instant::now() > deadline {
            return Err(Stop::Hang("the call's thread never slept".into()));
        }
        std::thread::yield_now();
    }
}

/// Starts a second call whose event queues behind one that is unread already: the descriptor polls
/// readable anyway, so only the thread tells. True if it waits, false if it has returned.
pub(crate) fn queues_behind(stage: &Stage, mover: &Mover) -> Result<bool, Stop> {
    let deadline = Instant::now() + stage.patience;
    while mover.tid() == 0 {
        if Instant::now() > deadline {
            return Err(Stop::Hang("the second call's thread never ran".into()));
        }
        std::thread::yield_now();
    }
    let Ok(file) = ThreadFile::open(mover.tid()) else { return Ok(false) };
    loop {
        if mover.returned() {
            return Ok(false);
        }
        // Killable, and still so at a second look: it waits for a reader and not for a lock.
        if let Ok(Some(first)) = file.asleep()
            && file.state() == Ok('D')
            && file.asleep() == Ok(Some(first))
        {
            return Ok(true);
        }
        if Instant::now() > deadline {
            return Err(Stop::Hang("the second call neither waits nor returns".into()));
        }
        std::thread::yield_now();
    }
}
