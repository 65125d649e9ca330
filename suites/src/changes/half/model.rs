//! What a call that fails at one of several mappings has done by then: the kernel's order of checks
//! and changes as a pure function.

use super::How;
use crate::events::ground::Wants;
use crate::expect::Expected;
use crate::memory::ONE_PAGE;
use crate::model::source;
use crate::point::{Backing, PAGES};
use uffd_results::KernelVersion;

const ONE_BY_ONE: &str = "remap_move() in mm/mremap.c (6.17): each mapping is checked, its target \
    unmapped and it moved, before the next is looked at; none that userfaultfd holds";
const TARGET_FIRST: &str = "mremap_to() in mm/mremap.c before 6.17: the target is unmapped before the \
    source is looked at";
const LIMITED: &str =
    "mremap_to() in mm/mremap.c: the target is unmapped before RLIMIT_AS is asked";
const SEALED: &str = "mseal(2): EPERM; vms_gather_munmap_vmas() in mm/vma.c asks every mapping before it \
    unmaps any";
const FALSE_EVENT: &str = "vms_gather_munmap_vmas() and __vm_munmap() in mm/vma.c (6.12): the mappings \
    before the sealed one have queued the UNMAP event, which is raised although nothing was unmapped";
const COUNTED: &str = "__split_vma(), vms_gather_munmap_vmas(), move_vma(): ENOMEM at vm.max_map_count, \
    before anything is changed";
const STAYS: &str = "a waiter hangs on its context; no change of mappings wakes it";

/// Rows of the block's place, of the other memory's, and of the empty place.
struct Rows {
    reg: [Vec<u8>; 3],
    pages: [Vec<u8>; 3],
}

/// The block's place, the other memory's, and the empty place, as indexes of [`Rows`].
const HERE: usize = 0;
const OTHER: usize = 1;
const NEW: usize = 2;

impl Rows {
    fn new(how: How) -> Self {
        let none = || vec![b'-'; PAGES];
        let mut rows = Self { reg: [none(), none(), none()], pages: [none(), none(), none()] };
        for page in 0..PAGES {
            rows.reg[HERE][page] = if how.registered().contains(&page) { b'm' } else { b'.' };
            rows.pages[HERE][page] = if page == how.page() { b'-' } else { b'k' };
            if how.is_onto() && !(how == How::OntoHole && (2..4).contains(&page)) {
                let registered = how == How::OntoRegisteredLast && page >= 4;
                rows.reg[OTHER][page] = if registered { b'm' } else { b'.' };
                rows.pages[OTHER][page] = b'n';
            }
        }
        rows
    }

    fn unmap(&mut self, place: usize, pages: std::ops::Range<usize>) {
        self.reg[place][pages.clone()].fill(b'-');
        self.pages[place][pages].fill(b'-');
    }

    fn travel(&mut self, from: usize, to: usize, pages: std::ops::Range<usize>) {
        for page in pages.clone() {
            self.reg[to][page] = self.reg[from][page];
            self.pages[to][page] = self.pages[from][page];
        }
        self.unmap(from, pages);
    }
}

/// What the call returns and raises, and who says so.
struct Done {
    rc: &'static str,
    events: Vec<String>,
    says: &'static str,
}

fn perform(how: How, backing: Backing, rows: &mut Rows, kernel: KernelVersion) -> Done {
    let since = |major, minor| kernel >= KernelVersion::new(major, minor, 0);
    let one_by_one = since(6, 17);
    let unmapped = |pages: std::ops::Range<usize>| format!("unmap({}..{})", pages.start, pages.end);
    let mut events = Vec::new();
    let (rc, says) = match how {
        How::MoveFirst | How::MoveMiddle | How::MoveLast => {
            let done = if one_by_one { how.registered().start } else { 0 };
            rows.travel(HERE, NEW, 0..done);
            ("EFAULT", if one_by_one { ONE_BY_ONE } else { TARGET_FIRST })
        }
        How::OntoSeveral | How::OntoHole | How::OntoSealedLast | How::OntoRegisteredLast
            if one_by_one =>
        {
            let parts: &[std::ops::Range<usize>] = match how {
                How::OntoSeveral => &[0..2, 2..4, 4..6],
                How::OntoHole => &[0..2, 4..6],
                _ => &[0..2, 2..4],
            };
            for pages in parts {
                rows.travel(OTHER, HERE, pages.clone());
                events.push(unmapped(pages.clone()));
            }
            let rc = match how {
                How::OntoSealedLast => "EPERM",
                How::OntoRegisteredLast => "EFAULT",
                _ => "0",
            };
            (rc, ONE_BY_ONE)
        }
        // The first mapping alone is asked before the target goes.
        How::OntoSealedFirst | How::UnmapSealedFirst => ("EPERM", SEALED),
        How::OntoSealedLast if !since(6, 12) => ("EPERM", SEALED),
        How::OntoSeveral | How::OntoHole | How::OntoSealedLast | How::OntoRegisteredLast => {
            rows.unmap(HERE, 0..PAGES);
            events.push(unmapped(0..PAGES));
            ("EFAULT", TARGET_FIRST)
        }
        How::OntoLimited => {
            rows.unmap(HERE, 0..PAGES);
            events.push(unmapped(0..PAGES));
            if backing != Backing::Anon && !since(5, 13) {
                ("EINVAL", source::DONTUNMAP)
            } else {
                ("ENOMEM", LIMITED)
            }
        }
        How::OntoSealed | How::UnmapSealedLast | How::OverSealedLast => {
            if since(6, 12) {
                events.push(unmapped(0..PAGES));
            }
            ("EPERM", if since(6, 12) { FALSE_EVENT } else { SEALED })
        }
        How::UnmapCounted | How::MoveCounted | How::OverCounted | How::ProtectCounted => {
            ("ENOMEM", COUNTED)
        }
    };
    Done { rc, events, says }
}

/// The facts that are to be seen.
pub(super) fn expect(
    how: How,
    backing: Backing,
    wants: Wants,
    kernel: KernelVersion,
) -> Vec<Expected> {
    let mut rows = Rows::new(how);
    let Done { rc, events, says } = perform(how, backing, &mut rows, kernel);
    let events =
        if wants.bits == 0 || events.is_empty() { "none".into() } else { events.join(",") };
    let text = |row: &[u8]| String::from_utf8_lossy(row).into_owned();
    let mut facts = vec![
        Expected::new("events", events, says),
        Expected::new("call", rc, says),
        Expected::new("waiter", "asleep", STAYS),
    ];
    let names = [("reg", "pages"), ("other-reg", "other-pages"), ("new-reg", "new-pages")];
    for (n, (reg, pages)) in names.into_iter().enumerate() {
        facts.push(Expected::new(reg, text(&rows.reg[n]), says));
        facts.push(Expected::new(pages, text(&rows.pages[n]), says));
    }
    let page = how.page();
    let registered = rows.reg[HERE][page] == b'm';
    facts.push(Expected::new("copy", if registered { "0" } else { "ENOENT" }, source::COPY_ENOENT));
    facts.push(Expected::new(
        "field",
        if registered { ONE_PAGE } else { "-2" },
        source::COPY_ENOENT,
    ));
    let fate = if registered { "ran:copied" } else { "asleep" };
    facts.push(Expected::new("copied", fate, source::COPY_ENOENT));
    if !registered {
        let met = match (rows.reg[HERE][page], rows.pages[HERE][page]) {
            (b'-', _) => "SEGV_MAPERR",
            (_, b'n') => "ran:new",
            _ => "ran:zero",
        };
        facts.push(Expected::new("rescued", met, source::RERUN));
    }
    facts
}
