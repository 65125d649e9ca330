//! Which events a call raises and what it leaves, as documented: a pure function, held against what
//! the kernels do.

use super::call::{Advice, Call, How, What};
use super::ground::{MISSING, WINDOW, Wants};
use crate::abi::features;
use crate::edge::REMOVE_READ_ONLY;
use crate::expect::{Expected, OBSERVED};
use crate::point::{Backing, PAGES};
use uffd_results::KernelVersion;

/// Registration and content, a letter a page.
#[derive(Clone, Debug)]
struct Rows {
    reg: Vec<u8>,
    pages: Vec<u8>,
    new_reg: Vec<u8>,
    new_pages: Vec<u8>,
}

/// What a call does.
struct Done {
    rc: &'static str,
    says: &'static str,
    events: Vec<String>,
    rows: Rows,
}

const UNMAP: &str = "userfaultfd(2), UFFD_FEATURE_EVENT_UNMAP; userfaultfd_unmap_prep(): one event \
                     with the range of the call for all mappings of a context";
const REMAP: &str = "userfaultfd(2), UFFD_FEATURE_EVENT_REMAP; mremap(2) raises UNMAP of the target, \
                     REMAP, then UNMAP of what was cut off and of the old place";
const REMOVE: &str = "userfaultfd(2), UFFD_FEATURE_EVENT_REMOVE; userfaultfd_remove() is called for \
                      each mapping before its pages go";
const ROUNDED: &str = "madvise_dontneed_free_valid_vma(): of hugetlb memory the length is rounded down to huge \
                       pages, and of none nothing is done";
const KILLABLE: &str = "userfaultfd_event_wait_completion(): TASK_KILLABLE until the event is read";
const NOTHING: &str = "userfaultfd_read(): EAGAIN when nothing is queued";

fn start(call: Call) -> Rows {
    let mut rows = Rows {
        reg: vec![b'-'; WINDOW],
        pages: vec![b'-'; WINDOW],
        new_reg: vec![b'-'; WINDOW],
        new_pages: vec![b'-'; WINDOW],
    };
    for page in 0..PAGES {
        rows.reg[page] = if call.registered().contains(&page) { b'm' } else { b'.' };
        rows.pages[page] = if page == MISSING { b'-' } else { b'k' };
    }
    rows
}

/// Everything that is to be seen.
pub(super) fn expect(
    call: Call,
    wants: Wants,
    backing: Backing,
    kernel: KernelVersion,
) -> Vec<Expected> {
    let done = perform(call, wants, backing, kernel);
    let text = |row: &[u8]| String::from_utf8_lossy(row).into_owned();
    let mut facts = Vec::new();
    if !done.events.is_empty() {
        facts.push(Expected::new("caller", "D", KILLABLE));
        // A discard waits before it discards; everything else has been done.
        let early = if matches!(call, Call::Advise(..)) { start(call) } else { done.rows.clone() };
        facts.push(Expected::new("early-reg", text(&early.reg), done.says));
        facts.push(Expected::new("early-pages", text(&early.pages), done.says));
        facts.push(Expected::new("early-new-reg", text(&early.new_reg), done.says));
        facts.push(Expected::new("early-new-pages", text(&early.new_pages), done.says));
    }
    let events = done.events.join(",");
    let events = if events.is_empty() { "none".to_owned() } else { events };
    facts.push(Expected::new("events", events, done.says));
    facts.push(Expected::new("call", done.rc, done.says));
    facts.push(Expected::new("left", "EAGAIN", NOTHING));
    facts.push(Expected::new("reg", text(&done.rows.reg), done.says));
    facts.push(Expected::new("pages", text(&done.rows.pages), done.says));
    facts.push(Expected::new("new-reg", text(&done.rows.new_reg), done.says));
    facts.push(Expected::new("new-pages", text(&done.rows.new_pages), done.says));
    facts
}

fn perform(call: Call, wants: Wants, backing: Backing, kernel: KernelVersion) -> Done {
    let mut done = Done { rc: "0", says: UNMAP, events: Vec::new(), rows: start(call) };
    let unmaps = wants.has(features::EVENT_UNMAP);
    match call {
        Call::Unmap(What::Unregistered) | Call::Over(What::Unregistered, _) => {}
        Call::Unmap(what) => {
            done.unmap(what, b'-');
            if unmaps {
                done.events.push(format!("unmap({})", span(what)));
            }
        }
        Call::Over(what, _) => {
            done.unmap(what, b'.');
            if unmaps {
                done.events.push(format!("unmap({})", span(what)));
            }
        }
        Call::Remap(how) => done.remap(how, wants, backing, kernel),
        Call::Advise(advice, what) => {
            done.says = REMOVE;
            done.discard(advice, what, wants.has(features::EVENT_REMOVE), backing, kernel);
        }
    }
    done
}

/// The range of a call, in pages from the block's start.
fn span(what: What) -> String {
    if what == What::Around {
        return "-1..7".to_owned();
    }
    let pages = what.pages();
    format!("{}..{}", pages.start, pages.end)
}

impl Done {
    fn unmap(&mut self, what: What, reg: u8) {
        let mut pages = what.pages();
        if what == What::Around && reg == b'.' {
            pages.end += 1;
        }
        for page in pages {
            self.rows.reg[page] = reg;
            self.rows.pages[page] = b'-';
        }
    }

    fn refused(&mut self, rc: &'static str, says: &'static str) {
        self.rc = rc;
        self.says = says;
    }

    fn remap(&mut self, how: How, wants: Wants, backing: Backing, kernel: KernelVersion) {
        self.says = REMAP;
        let since = |major, minor| kernel >= KernelVersion::new(major, minor, 0);
        if backing.is_huge() && !since(5, 16) {
            return self.refused("EINVAL", crate::model::source::MREMAP_HUGE);
        }
        match how {
            How::Split => return self.refused("EFAULT", "mremap(2), EFAULT: several mappings"),
            How::Misaligned => return self.refused("EINVAL", "mremap(2), EINVAL"),
            How::DontUnmap if backing != Backing::Anon && !since(5, 13) => {
                return self.refused("EINVAL", crate::model::source::DONTUNMAP);
            }
            _ => {}
        }
        let follows = wants.has(features::EVENT_REMAP);
        let reg = if follows { b'm' } else { b'.' };
        let mut events = Vec::new();
        let mut say = |feature, text: &str| {
            if wants.has(feature) {
                events.push(text.to_owned());
            }
        };
        let (remap, unmap) = (features::EVENT_REMAP, features::EVENT_UNMAP);
        let old = self.rows.clone();
        let rows = &mut self.rows;
        let moved = |rows: &mut Rows, pages: std::ops::Range<usize>, grown: usize| {
            for (to, from) in pages.clone().enumerate() {
                rows.new_reg[to] = reg;
                rows.new_pages[to] = old.pages[from];
            }
            for to in pages.len()..pages.len() + grown {
                rows.new_reg[to] = reg;
            }
        };
        let gone = |rows: &mut Rows, pages: std::ops::Range<usize>| {
            rows.reg[pages.clone()].fill(b'-');
            rows.pages[pages].fill(b'-');
        };
        match how {
            How::Move | How::ShortLength | How::MoveGrow => {
                moved(rows, 0..PAGES, if how == How::MoveGrow { 2 } else { 0 });
                gone(rows, 0..PAGES);
                say(remap, "remap(0..6>new)");
                say(unmap, "unmap(0..6)");
            }
            How::MovePart => {
                moved(rows, 2..4, 0);
                gone(rows, 2..4);
                say(remap, "remap(2..4>new)");
                say(unmap, "unmap(2..4)");
            }
            How::Grow => rows.reg.fill(b'm'),
            How::Shrink => {
                gone(rows, 4..6);
                say(unmap, "unmap(4..6)");
            }
            How::MoveShrink => {
                moved(rows, 0..4, 0);
                gone(rows, 0..6);
                self.says = "mremap_userfaultfd_complete(): the length of the call up to 6.12, the \
                             length that moved in 6.16.3 and later, after a rework of mm/mremap.c";
                say(remap, if since(6, 16) { "remap(0..4>new)" } else { "remap(0..6>new)" });
                say(unmap, "unmap(4..6)");
                say(unmap, "unmap(0..4)");
            }
            How::Onto => {
                rows.reg[..PAGES].fill(b'.');
                rows.pages[..PAGES].fill(b'n');
                say(unmap, "unmap(0..6)");
            }
            How::OntoOther => {
                gone(rows, 0..6);
                say(remap, "remap(0..6>other)");
                say(unmap, "unmap(0..6)");
            }
            How::OntoSelf => {
                gone(rows, 0..2);
                rows.reg[4..6].fill(reg);
                say(unmap, "unmap(4..6)");
                say(remap, "remap(0..2>4)");
                say(unmap, "unmap(0..2)");
            }
            How::DontUnmap => {
                moved(rows, 0..PAGES, 0);
                rows.pages.fill(b'-');
                say(remap, "remap(0..6>new)");
            }
            How::Duplicate => {
                self.says = OBSERVED;
                rows.new_reg[..PAGES].fill(reg);
                say(remap, "remap(0..0>new)");
            }
            How::Split | How::Misaligned => {}
        }
        self.events = events;
    }

    fn discard(
        &mut self,
        advice: Advice,
        what: What,
        wanted: bool,
        backing: Backing,
        kernel: KernelVersion,
    ) {
        let since = |major, minor| kernel >= KernelVersion::new(major, minor, 0);
        let is_shared = !backing.is_private();
        match advice {
            Advice::DontNeed if backing.is_huge() && !since(5, 18) => {
                return self.refused("EINVAL", crate::model::source::DONTNEED_HUGE);
            }
            Advice::DontNeed if backing.is_huge() && what == What::Byte => {
                self.says = ROUNDED;
                return;
            }
            Advice::DontNeedLocked if !since(5, 18) => {
                return self.refused("EINVAL", "madvise(2), MADV_DONTNEED_LOCKED (5.18)");
            }
            Advice::Remove if !is_shared => {
                let rc = if backing == Backing::Private { "EACCES" } else { "EINVAL" };
                return self.refused(rc, "madvise(2), MADV_REMOVE: only of shared writable memory");
            }
            Advice::Guard if !since(6, 13) || (backing != Backing::Anon && !since(6, 15)) => {
                return self.refused(
                    "EINVAL",
                    "madvise(2), MADV_GUARD_INSTALL (6.13; of files and shared memory 6.15)",
                );
            }
            _ => {}
        }
        // Registration cuts the block where it ends, mprotect at both ends of the middle.
        let mut mappings: Vec<std::ops::Range<usize>> = match what {
            What::Split => vec![0..2, 2..4, 4..6],
            What::HalfRegistered => vec![0..3, 3..6],
            What::Unregistered => Vec::new(),
            _ => vec![what.pages()],
        };
        if what == What::Around {
            self.rc = "ENOMEM";
        }
        match advice {
            Advice::Free if backing != Backing::Anon => {
                // The first mapping refuses, after its event.
                mappings.truncate(1);
                self.refused(
                    "EINVAL",
                    "madvise_dontneed_free(): the event comes before \
                                        madvise_free_single_vma() refuses what is not anonymous",
                );
            }
            Advice::Remove if what == What::Split && !REMOVE_READ_ONLY.is_known_in(kernel) => {
                mappings.truncate(1);
                self.refused("EACCES", REMOVE_READ_ONLY.source);
            }
            _ => {}
        }
        let raises = matches!(
            advice,
            Advice::DontNeed | Advice::Free | Advice::Remove | Advice::DontNeedLocked
        );
        let zaps = match advice {
            Advice::Free | Advice::Cold => false,
            Advice::Punch => is_shared,
            _ => true,
        };
        for pages in mappings {
            if raises && wanted && self.rows.reg[pages.start] == b'm' {
                self.events.push(format!("remove({}..{})", pages.start, pages.end));
            }
            if zaps {
                self.rows.pages[pages].fill(b'-');
            }
        }
    }
}
