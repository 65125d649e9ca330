//! The last huge page of the pool, and a COPY whose source has to be faulted in first.

use super::hugetlb_empty::{block, take_all_but};
use crate::abi::{REGISTER_MODE_MISSING, Range};
use crate::evidence;
use crate::expect::Expected;
use crate::lab::{outcome, want};
use crate::memory::{self, HUGE, PAGE, RW, SPARE, map, tag};
use crate::model::source;
use crate::outcome::{Seen, Stop};
use crate::point::{Backing, PAGES, axis};
use crate::probe::{Case, Probe, Trial};
use crate::stage::Stage;
use crate::touch;
use uffd_results::KernelVersion;

static LAST: Probe = Probe {
    suite: "kinds",
    name: "hugetlb-last",
    statement: "Where the pool has one page left for a mapping without reservations, COPY from memory that is in no \
                page table fails with ENOMEM, from 5.14 on, and the same call works when it is repeated; with a \
                reservation, or from a source that is there, the first one works.",
    consumers: &[
        "Firecracker, Cloud Hypervisor: guest memory of hugetlb memfds without reservations",
        "QEMU: postcopy_place_page() of hugetlb RAM",
    ],
};

axis! {
    /// Where the source's pages are.
    From {
        /// In memory and in no page table.
        Absent = "absent",
        /// In the page table.
        Resident = "resident",
    }
}

axis! {
    /// Whether pages of the pool are promised to the mapping.
    Reserved {
        /// MAP_NORESERVE.
        No = "no",
        /// As is usual.
        Yes = "yes",
    }
}

#[derive(Debug)]
struct Last {
    backing: Backing,
    reserved: Reserved,
    from: From,
}

/// The page that is copied to.
const TARGET: usize = 3;
/// Where the source stands.
const SOURCE: Range = Range { start: SPARE, len: HUGE };

/// Makes the source, of pages that stay in memory when they leave the page table.
fn make_source(from: From) -> Result<(), Stop> {
    let rc = map(SOURCE, RW, libc::MAP_SHARED | libc::MAP_ANONYMOUS, None, 0);
    if !rc.is_ok() {
        return Err(Stop::Broken(format!("mapping a source: {rc}")));
    }
    for at in (SOURCE.start..SOURCE.end()).step_by(PAGE) {
        touch::store(at, tag::COPIED)
            .map_err(|signal| Stop::Broken(format!("writing a source: {signal}")))?;
    }
    match from {
        From::Resident => Ok(()),
        From::Absent => match memory::dontneed(SOURCE) {
            rc if rc.is_ok() => Ok(()),
            rc => Err(Stop::Broken(format!("MADV_DONTNEED of a source: {rc}"))),
        },
    }
}

impl Trial for Last {
    fn axes(&self) -> String {
        format!("backing={},reserved={},source={}", self.backing, self.reserved, self.from)
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        seen.step("set-up");
        if !stage.disposable {
            let why = "takes all huge pages of the machine: only asked in a VM";
            return Err(Stop::Precondition(why.into()));
        }
        let flags = if self.reserved == Reserved::No { libc::MAP_NORESERVE } else { 0 };
        let block = block(self.backing, flags)?;
        make_source(self.from)?;
        let uffd = stage.uffd(0)?;
        uffd.register(block.range(0..PAGES), REGISTER_MODE_MISSING)
            .map_err(|e| Stop::Unsupported(format!("REGISTER: {e:?}")))?;
        let target = block.range(TARGET..TARGET + 1);
        take_all_but(1)?;
        let letter = |value| stage.letter(value);
        for (op, field, pages) in
            [("copy", "field", "pages"), ("again", "again-field", "again-pages")]
        {
            seen.step(op);
            outcome((op, field), uffd.copy(target, SOURCE.start, 0), seen);
            seen.fact(pages, evidence::pages(block.range(0..PAGES), HUGE, &letter)?);
        }
        Ok(())
    }

    fn expect(&self, kernel: KernelVersion) -> Vec<Expected> {
        const TEMPORARY: &str = "hugetlb_mfill_atomic_pte() gives its page back and takes one from the pool for the \
                                 copy from a source that has to be faulted in, since commit 8cc5fcbb5be8 (5.14); then \
                                 the pool has none for the mapping: ENOMEM";
        const RESIDENT: &str = "hugetlb_mfill_atomic_pte(): the failed call has left the source in the page table, \
                                and its page in the pool";
        const PRESENT: &str =
            "ioctl_userfaultfd(2), UFFDIO_COPY, EEXIST: the first call has placed the page";
        let one = HUGE.to_string();
        let kept = self.from == From::Resident || self.reserved == Reserved::Yes;
        if kept || kernel < KernelVersion::new(5, 14, 0) {
            let mut facts =
                want(source::COPY, &[("copy", "0"), ("field", &one), ("pages", "---c--")]);
            let again = [("again", "EEXIST"), ("again-field", "-17"), ("again-pages", "---c--")];
            facts.extend(want(PRESENT, &again));
            return facts;
        }
        let mut facts =
            want(TEMPORARY, &[("copy", "ENOMEM"), ("field", "-12"), ("pages", "------")]);
        let again = [("again", "0"), ("again-field", &*one), ("again-pages", "---c--")];
        facts.extend(want(RESIDENT, &again));
        facts
    }

    fn recipe(&self) -> Vec<String> {
        let flags = if self.reserved == Reserved::No { " with MAP_NORESERVE" } else { "" };
        let mut recipe = vec![
            format!(
                "map a {} block of {PAGES} pages{flags} and register it (missing)",
                self.backing
            ),
            "map 2 MiB of shared anonymous memory and store to each of its pages".to_owned(),
        ];
        if self.from == From::Absent {
            recipe.push("MADV_DONTNEED of that memory, which empties its page table".to_owned());
        }
        recipe.extend([
            "map private huge pages elsewhere, with a reservation of all 2 MiB pages but one that are free"
                .to_owned(),
            format!("UFFDIO_COPY from that memory to page {TARGET}; which pages are there?"),
            "the same UFFDIO_COPY again".to_owned(),
        ]);
        recipe
    }

    fn uses_huge_pages(&self) -> bool {
        true
    }
}

/// The cases.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for backing in [Backing::HugetlbShared, Backing::HugetlbPrivate] {
        for reserved in Reserved::ALL {
            for from in From::ALL {
                let trial = Last { backing, reserved: *reserved, from: *from };
                cases.push(Case::trial(&LAST, trial, true));
            }
        }
    }
    cases
}
