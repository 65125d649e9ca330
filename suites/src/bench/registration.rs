//! REGISTER and UNREGISTER by how long the range is, and by how many mappings it has.

use super::clock::stamp;
use super::ground::{Ground, must, register};
use super::{Operation, Work};
use crate::abi::{REGISTER_MODE_MISSING, Range, Uffd};
use crate::memory::{self, PAGE};
use crate::outcome::Stop;
use crate::point::Backing;
use crate::stage::Stage;

/// What is registered: pages of one mapping, or mappings of a page each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layout {
    Pages(usize),
    Mappings(usize),
}

impl Layout {
    const ALL: [Self; 6] = [
        Self::Pages(1),
        Self::Pages(1024),
        Self::Pages(16_384),
        Self::Mappings(1),
        Self::Mappings(16),
        Self::Mappings(256),
    ];

    fn name(self) -> (&'static str, String) {
        match self {
            Self::Pages(n) => ("pages", format!("n={n}")),
            Self::Mappings(n) => ("vmas", format!("n={n}")),
        }
    }

    /// Maps it. Neighbours differ in their protection, so that they are no one mapping.
    fn map(self, at: usize) -> Result<Ground, Stop> {
        let (Self::Pages(n) | Self::Mappings(n)) = self;
        let ground = Ground::map(Backing::Anon, at, n * PAGE)?;
        if matches!(self, Self::Mappings(_)) {
            for page in (1..n).step_by(2) {
                let rc = memory::protect(ground.part(page * PAGE, PAGE), libc::PROT_READ);
                must("mprotect", rc)?;
            }
        }
        Ok(ground)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call {
    Register,
    Unregister,
    /// madvise(2) that sets a flag of each mapping, as REGISTER does.
    Advise,
}

struct Registration {
    call: Call,
    uffd: Uffd,
    ground: Ground,
}

/// Calls of a round.
const CALLS: usize = 8;

impl Registration {
    fn set(&self, range: Range) -> Result<(), Stop> {
        match self.call {
            Call::Advise => must("madvise", memory::advise(range, libc::MADV_DONTFORK)),
            _ => register(&self.uffd, range, REGISTER_MODE_MISSING),
        }
    }

    fn unset(&self, range: Range) -> Result<(), Stop> {
        match self.call {
            Call::Advise => must("madvise", memory::advise(range, libc::MADV_DOFORK)),
            _ => must("UFFDIO_UNREGISTER", self.uffd.unregister(range)),
        }
    }
}

impl Work for Registration {
    fn round(&mut self, ticks: &mut Vec<u64>) -> Result<(), Stop> {
        let range = self.ground.range;
        for _ in 0..CALLS {
            let start = stamp();
            self.set(range)?;
            let set = stamp();
            self.unset(range)?;
            let unset = stamp();
            ticks.push(if self.call == Call::Unregister { unset - set } else { set - start });
        }
        Ok(())
    }
}

pub(super) fn operations() -> Vec<Operation> {
    let mut all = Vec::new();
    for (call, group, about) in [
        (Call::Register, "register", "UFFDIO_REGISTER for missing pages, of memory without any."),
        (Call::Unregister, "unregister", "UFFDIO_UNREGISTER of memory without pages."),
        (Call::Advise, "limit", "madvise(MADV_DONTFORK), which sets a flag of the mappings."),
    ] {
        for layout in Layout::ALL {
            let (name, axes) = layout.name();
            let limit = format!("limit/{name}[{axes}]");
            let one = Operation::new((group, name, axes), about, move |stage: &Stage, at| {
                Ok(Registration { call, uffd: stage.uffd(0)?, ground: layout.map(at)? })
            });
            all.push(if call == Call::Advise { one } else { one.against(limit) });
        }
    }
    all
}
