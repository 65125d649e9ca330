//! The two processes, and what both have mapped.

use super::Deed;
use crate::abi::{Range, Rc, Uffd};
use crate::evidence::{self, QueueFile};
use crate::memory::{FAR, HUGE, tag};
use crate::outcome::{Seen, Stop};
use crate::point::Waiter as Kind;
use crate::process::Child;
use crate::scenario::fault_word;
use crate::stage::Stage;
use crate::touch;
use crate::waiter::{Fate, Waiter, content};

/// Pages that are looked at: 0 both touch, 1 the first process brings, 2 it brings once it is registered,
/// 3 the other one stores to, 4 nobody touches.
pub(super) const LOOKED_AT: usize = 5;

/// A huge page of the mapping.
pub(super) fn page(n: usize) -> Range {
    Range { start: FAR.start + n * HUGE, len: HUGE }
}

/// Has this process store to one.
fn store(n: usize, value: u64) -> Result<(), Stop> {
    touch::store(page(n).start, value)
        .map_err(|signal| Stop::Broken(format!("a store to page {n}: {signal}")))
}

/// How a load or store of the other process ended.
pub(super) fn access(stage: &Stage, word: &str) -> String {
    let (kind, n) = word.split_once(' ').unwrap_or((word, ""));
    let at = page(n.parse().unwrap_or(LOOKED_AT)).start;
    let done = match kind {
        "store" => touch::store(at, tag::NEW).map(|()| "ran".to_owned()),
        _ => touch::load(at).map(|value| format!("ran:{}", content(stage.tag(value)))),
    };
    done.unwrap_or_else(|signal| signal.to_string())
}

/// The process that is registered, and the other one.
#[derive(Debug)]
pub(super) struct Two<'a> {
    pub(super) stage: &'a Stage,
    pub(super) uffd: Uffd,
    pub(super) queue: QueueFile,
    pub(super) other: Child,
}

impl Two<'_> {
    /// What the page tables of both have: own, other's.
    pub(super) fn tables(&self) -> Result<[String; 2], Stop> {
        let looked_at = Range { start: FAR.start, len: LOOKED_AT * HUGE };
        let of = |process: &str| evidence::entries(process, looked_at, HUGE);
        Ok([of("self")?, of(&self.other.pid().to_string())?])
    }

    /// Has the other process make an access.
    pub(super) fn other(&self, word: &str) -> Result<String, Stop> {
        self.other.link().say(word)?;
        self.other.link().hear()
    }

    /// Brings a page: how that ended.
    pub(super) fn bring(&self, n: usize, deed: Deed) -> Result<String, Stop> {
        match deed {
            Deed::Touch => store(n, tag::WROTE).map(|()| "ran".to_owned()),
            Deed::Copy => Ok(self.uffd.copy(page(n), self.stage.source, 0).0.to_string()),
        }
    }

    /// Accesses a page, and serves itself if it must.
    pub(super) fn reach(
        &self,
        (kind, n): (Kind, usize),
        serve: impl Fn(&Uffd) -> Rc,
        seen: &mut Seen<'_>,
    ) -> Result<(), Stop> {
        let Self { stage, uffd, queue, .. } = self;
        let mut waiter = Waiter::start(stage, kind, page(n))?;
        let fate = waiter.settle(uffd, queue)?;
        seen.fact("access", stage.word(fate));
        if fate != Fate::Again {
            return Ok(());
        }
        match uffd.read() {
            Ok(crate::abi::Message::Pagefault { flags, .. }) => {
                seen.fact("fault", fault_word(flags));
            }
            other => return Err(Stop::Broken(format!("reading the message: {other:?}"))),
        }
        seen.fact("serve", serve(uffd));
        seen.fact("waiter", stage.word(waiter.look(uffd, queue)?));
        Ok(())
    }
}
