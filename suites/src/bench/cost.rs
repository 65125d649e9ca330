//! What a registration adds to the calls that change mappings, with and without events.

use super::clock::stamp;
use super::ground::{Cpus, Ground, Pinned, blocking, must, register};
use super::handler::{Duty, Handler, Wait};
use super::{Operation, Work};
use crate::abi::{REGISTER_MODE_MISSING, Range, Uffd, features};
use crate::memory::{self, PAGE};
use crate::outcome::Stop;
use crate::point::Backing;
use crate::process;
use crate::stage::Stage;
use crate::touch;
use nix::sys::wait::waitpid;
use std::sync::Arc;

/// Pages of the memory that is changed, all present.
const PAGES: usize = 16;
/// Where mremap moves it, and where the page stands that ends the handler.
const ELSEWHERE: usize = 32 << 20;
const LAST: usize = 64 << 20;
/// Calls of a round.
const CALLS: usize = 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call {
    Munmap,
    MmapOver,
    Mremap,
    Madvise,
    Fork,
}

impl Call {
    const ALL: [Self; 5] = [Self::Munmap, Self::MmapOver, Self::Mremap, Self::Madvise, Self::Fork];

    const fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Munmap => ("munmap", "munmap(2) of 16 present pages."),
            Self::MmapOver => ("mmap-over", "mmap(2) over 16 present pages."),
            Self::Mremap => ("mremap", "mremap(2) of 16 present pages to another place."),
            Self::Madvise => ("madvise", "madvise(MADV_DONTNEED) of 16 present pages."),
            Self::Fork => ("fork", "fork(2) with 16 present pages beside the program's own."),
        }
    }

    const fn event(self) -> u64 {
        match self {
            Self::Munmap | Self::MmapOver => features::EVENT_UNMAP,
            Self::Mremap => features::EVENT_REMAP,
            Self::Madvise => features::EVENT_REMOVE,
            Self::Fork => features::EVENT_FORK,
        }
    }
}

/// Whether the memory is registered, and whether the calls raise events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Watched {
    No,
    Silently,
    WithEvents,
}

impl Watched {
    const ALL: [Self; 3] = [Self::No, Self::Silently, Self::WithEvents];

    const fn axes(self) -> &'static str {
        match self {
            Self::No => "registered=no,events=no",
            Self::Silently => "registered=yes,events=no",
            Self::WithEvents => "registered=yes,events=yes",
        }
    }
}

struct Changed {
    call: Call,
    uffd: Option<Arc<Uffd>>,
    /// Reads the events, and the page whose fault ends it.
    reader: Option<(Handler, Ground)>,
    ground: Ground,
    _pinned: Pinned,
}

impl Changed {
    fn new(stage: &Stage, at: usize, call: Call, watched: Watched) -> Result<Self, Stop> {
        let pinned = Pinned::new(Cpus::Same)?;
        let ground = Ground::map(Backing::Anon, at, PAGES * PAGE)?;
        let features = if watched == Watched::WithEvents { call.event() } else { 0 };
        let uffd = match watched {
            Watched::No => None,
            _ => Some(Arc::new(blocking(stage, features)?)),
        };
        let reader = match &uffd {
            Some(uffd) if watched == Watched::WithEvents => {
                let last = Ground::map(Backing::Anon, at + LAST, PAGE)?;
                let duty = Duty {
                    uffd: uffd.clone(),
                    wait: Wait::Read,
                    source: stage.source,
                    last: last.range.start,
                    cpu: Some(pinned.partner),
                    delay: 0,
                    moments: None,
                };
                Some((Handler::start(duty)?, last))
            }
            _ => None,
        };
        Ok(Self { call, uffd, reader, ground, _pinned: pinned })
    }

    fn elsewhere(&self) -> Range {
        Range { start: self.ground.range.start + ELSEWHERE, len: self.ground.range.len }
    }

    /// Maps, fills and registers the memory, after whatever a call has left of it.
    fn prepare(&self) -> Result<(), Stop> {
        if self.call != Call::Madvise {
            self.ground.map_again()?;
        }
        self.ground.fill()?;
        match &self.uffd {
            Some(uffd) => register(uffd, self.ground.range, REGISTER_MODE_MISSING),
            None => Ok(()),
        }
    }

    /// Makes the call; how long it took.
    fn change(&self) -> Result<u64, Stop> {
        let range = self.ground.range;
        let start = stamp();
        let rc = match self.call {
            Call::Munmap => memory::unmap(range),
            Call::MmapOver => {
                memory::map(range, memory::RW, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, None, 0)
            }
            Call::Mremap => {
                let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
                memory::remap(range, range.len, flags, self.elsewhere().start)
            }
            Call::Madvise => memory::dontneed(range),
            Call::Fork => {
                // Not by fork(3), which holds locks that the reader may need, while it waits for the reader.
                let child = process::fork_with(0, || 0)
                    .map_err(|e| Stop::Broken(format!("clone: {e:?}")))?;
                let end = stamp();
                waitpid(child, None).map_err(|e| Stop::Broken(format!("waitpid: {e:?}")))?;
                return Ok(end - start);
            }
        };
        let end = stamp();
        must("the change", rc)?;
        Ok(end - start)
    }
}

impl Work for Changed {
    fn round(&mut self, ticks: &mut Vec<u64>) -> Result<(), Stop> {
        self.watch_last(true)?;
        for _ in 0..CALLS {
            self.unregister()?;
            self.prepare()?;
            ticks.push(self.change()?);
            if self.call == Call::Mremap {
                must("munmap", memory::unmap(self.elsewhere()))?;
            }
        }
        // What is registered costs every fork of this process, the limit's too.
        if self.call == Call::Fork {
            self.unregister()?;
            self.watch_last(false)?;
        }
        Ok(())
    }
}

impl Changed {
    /// Registers the page whose fault ends the reader, or not.
    fn watch_last(&self, on: bool) -> Result<(), Stop> {
        match (&self.uffd, &self.reader) {
            (Some(uffd), Some((_, last))) if on => {
                register(uffd, last.range, REGISTER_MODE_MISSING)
            }
            (Some(uffd), Some((_, last))) => must("UFFDIO_UNREGISTER", uffd.unregister(last.range)),
            _ => Ok(()),
        }
    }

    /// A registered page that is missing would have the next store wait for a handler.
    fn unregister(&self) -> Result<(), Stop> {
        match (&self.uffd, self.call) {
            (Some(uffd), Call::Madvise | Call::Fork) => {
                must("UFFDIO_UNREGISTER", uffd.unregister(self.ground.range))
            }
            _ => Ok(()),
        }
    }
}

impl Drop for Changed {
    fn drop(&mut self) {
        let _ = self.unregister();
        if self.watch_last(true).is_err() {
            return;
        }
        if let Some((handler, last)) = &mut self.reader
            && touch::store(last.range.start, 1).is_ok()
        {
            let _ = handler.join();
        }
    }
}

pub(super) fn operations() -> Vec<Operation> {
    let mut all = Vec::new();
    for call in Call::ALL {
        let (name, about) = call.words();
        for watched in Watched::ALL {
            let id = ("cost", name, watched.axes().to_owned());
            let set_up = move |stage: &Stage, at| Changed::new(stage, at, call, watched);
            let one = Operation::new(id, about, set_up);
            all.push(match watched {
                Watched::No => one,
                Watched::Silently => one.against(format!("cost/{name}[{}]", Watched::No.axes())),
                Watched::WithEvents => {
                    one.by_several().against(format!("cost/{name}[{}]", Watched::No.axes()))
                }
            });
        }
    }
    all
}
