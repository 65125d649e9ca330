//! What consumers do with write protection, step by step.

use super::{BACKGROUND, E2B, FAULTS, LIFTS, SHOWN, UMAP, UNPOPULATED, row};
use crate::abi::{COPY_MODE_WP, REGISTER_MODE_MISSING, REGISTER_MODE_WP, WRITEPROTECT_MODE_WP};
use crate::expect::Expected;
use crate::lab::{Lab, SMALL, length, outcome, want};
use crate::memory::dontneed;
use crate::model::source;
use crate::outcome::{Seen, Stop};
use crate::point::{Backing, PAGES, Waiter as Kind, axis};
use crate::probe::{Case, Probe, Trial};
use crate::stage::Stage;
use crate::touch;
use uffd_results::KernelVersion;

static SNAPSHOT: Probe = Probe {
    suite: "writeprotect",
    name: "background-snapshot",
    statement: "A block that was read once and is then protected as a whole parks every writer until its \
                page is saved and freed; UNREGISTER leaves the last one parked and close frees it.",
    consumers: &[BACKGROUND],
};
static SILENT: Probe = Probe {
    suite: "writeprotect",
    name: "background-snapshot-unpopulated",
    statement: "Anonymous pages that were never touched are not protected: a writer goes through and the \
                snapshot has the new content.",
    consumers: &[BACKGROUND, E2B],
};
static PAGER: Probe = Probe {
    suite: "writeprotect",
    name: "pager",
    statement: "A pager that places pages protected and frees them at the first write sees a read fault, a \
                write-protect fault, and a missing fault again after it evicts the page.",
    consumers: &[UMAP],
};
static SUBRANGE: Probe = Probe {
    suite: "writeprotect",
    name: "rearm-for-wp",
    statement: "A part that is unregistered and registered again for write protection only is filled with \
                zeros by the kernel, while the rest still raises missing faults.",
    consumers: &[E2B],
};

axis! {
    /// What is done to every page before the block is protected.
    Before {
        /// It is written to.
        Written = "written",
        /// It is read.
        Read = "read",
        /// Nothing.
        Untouched = "untouched",
    }
}

#[derive(Clone, Copy, Debug)]
struct Snapshot {
    backing: Backing,
    before: Before,
    who: Kind,
}

#[derive(Clone, Copy, Debug)]
struct Pager {
    backing: Backing,
    who: Kind,
}

#[derive(Clone, Copy, Debug)]
struct Subrange {
    backing: Backing,
    who: Kind,
}

/// The cases.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for backing in Backing::ALL.iter().copied() {
        let by_default = SMALL.contains(&backing);
        for before in Before::ALL.iter().copied() {
            for who in [Kind::UserWrite, Kind::SysRead, Kind::VmWrite] {
                let silent = before == Before::Untouched;
                let probe = if silent { &SILENT } else { &SNAPSHOT };
                let brief = who != Kind::VmWrite;
                // The close after UNREGISTER must free the writer of a huge page, as one alone does not.
                let qemu = before == Before::Written && who == Kind::UserWrite;
                let by_default = by_default && brief || backing.is_huge() && qemu;
                cases.push(Case::trial(probe, Snapshot { backing, before, who }, by_default));
            }
        }
        for who in [Kind::UserWrite, Kind::SysRead, Kind::VmWrite] {
            cases.push(Case::trial(&PAGER, Pager { backing, who }, by_default));
        }
        for who in [Kind::UserRead, Kind::UserWrite, Kind::SysRead] {
            cases.push(Case::trial(&SUBRANGE, Subrange { backing, who }, by_default));
        }
    }
    cases
}

impl Trial for Snapshot {
    fn axes(&self) -> String {
        format!("backing={},pages={},who={}", self.backing, self.before, self.who)
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        let lab = Lab::new(stage, self.backing, 0)?;
        match self.before {
            Before::Written => lab.fill(0..PAGES)?,
            Before::Read => {
                for page in 0..PAGES {
                    touch::load(lab.page(page).start)
                        .map_err(|signal| Stop::Broken(format!("reading: {signal}")))?;
                }
            }
            Before::Untouched => {}
        }
        lab.register(0..PAGES, REGISTER_MODE_WP)?;
        seen.fact("protect", lab.uffd.writeprotect(lab.all(), WRITEPROTECT_MODE_WP));
        lab.entries("protected", seen)?;
        if let Some(mut first) = lab.meet(("write", "fault"), self.who, 2, seen)? {
            lab.contents("saved", seen)?;
            seen.fact("lift", lab.uffd.writeprotect(lab.page(2), 0));
            lab.look("writer", &mut first, seen)?;
        }
        let last = lab.meet(("write-2", "fault-2"), self.who, 4, seen)?;
        lab.contents("pages", seen)?;
        seen.step("unregister");
        seen.fact("unregister", lab.uffd.unregister(lab.all()));
        if let Some(mut last) = last {
            lab.look("last", &mut last, seen)?;
            lab.close(&last, seen)?;
        }
        Ok(())
    }

    fn expect(&self, kernel: KernelVersion) -> Vec<Expected> {
        let Self { backing, before, .. } = *self;
        let silent = before == Before::Untouched && backing.is_anon();
        let mut facts = want(super::PROTECTS, &[("protect", "0")]);
        let entries = match before {
            _ if silent => "------",
            Before::Untouched => "nnnnnn",
            _ => "wwwwww",
        };
        facts.extend(want(UNPOPULATED, &[("protected", &row(entries, kernel))]));
        let there = match before {
            Before::Written => "k",
            Before::Read => "0",
            Before::Untouched => "-",
        };
        if silent {
            facts.extend(want(UNPOPULATED, &[("write", "ran"), ("write-2", "ran")]));
            facts.extend(want(UNPOPULATED, &[("pages", "--w-w-")]));
            return facts;
        }
        facts.extend(want(FAULTS, &[("write", "parks"), ("fault", "wp-write@2")]));
        // An untouched page of a file is there once its writer has met the mark.
        let saved = if before == Before::Untouched { "--0---".to_owned() } else { there.repeat(6) };
        facts.extend(want(FAULTS, &[("saved", &saved)]));
        facts.extend(want(LIFTS, &[("lift", "0"), ("writer", "ran")]));
        facts.extend(want(FAULTS, &[("write-2", "parks"), ("fault-2", "wp-write@4")]));
        let pages = if before == Before::Untouched {
            "--w-0-".to_owned()
        } else {
            format!("{there}{there}w{there}{there}{there}")
        };
        facts.extend(want(FAULTS, &[("pages", &pages)]));
        facts.extend(want(source::UNREGISTER_WAKES, &[("unregister", "0"), ("last", "asleep")]));
        facts.extend(want(source::CLOSE, &[("closed", "ran")]));
        facts
    }

    fn recipe(&self) -> Vec<String> {
        let Self { backing, before, who } = self;
        vec![
            format!("every page of a {backing} block is {before}"),
            "register it for write protection and protect it as a whole".into(),
            format!(
                "a thread writes to page 2 ({who}); if it parks, read the pages and free page 2"
            ),
            format!("another thread writes to page 4 ({who}); look at the pages"),
            "UNREGISTER, look at the second thread, close".into(),
        ]
    }

    fn uses_huge_pages(&self) -> bool {
        self.backing.is_huge()
    }
}

impl Trial for Pager {
    fn axes(&self) -> String {
        format!("backing={},who={}", self.backing, self.who)
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        let lab = Lab::new(stage, self.backing, 0)?;
        lab.register(0..PAGES, REGISTER_MODE_MISSING | REGISTER_MODE_WP)?;
        let Some(mut reader) = lab.meet(("read", "fault"), Kind::UserRead, 2, seen)? else {
            return Ok(());
        };
        let placed = lab.uffd.copy(lab.page(2), stage.source, COPY_MODE_WP);
        outcome(("copy", "field"), placed, seen);
        lab.look("reader", &mut reader, seen)?;
        if let Some(mut writer) = lab.meet(("write", "fault-2"), self.who, 2, seen)? {
            seen.fact("lift", lab.uffd.writeprotect(lab.page(2), 0));
            lab.look("writer", &mut writer, seen)?;
        }
        lab.entries("dirty", seen)?;
        lab.contents("pages", seen)?;
        seen.step("evict");
        seen.fact("evict", dontneed(lab.page(2)));
        lab.meet(("read-again", "fault-3"), Kind::UserRead, 2, seen)?;
        Ok(())
    }

    fn expect(&self, kernel: KernelVersion) -> Vec<Expected> {
        let Self { backing, .. } = *self;
        let mut facts = want(source::QUEUE, &[("read", "parks"), ("fault", "read@2")]);
        facts.extend(want(source::COPY, &[("copy", "0"), ("field", &length(backing))]));
        facts.extend(want(source::COPY, &[("reader", "ran:copied")]));
        facts.extend(want(FAULTS, &[("write", "parks"), ("fault-2", "wp-write@2")]));
        facts.extend(want(LIFTS, &[("lift", "0"), ("writer", "ran")]));
        facts.extend(want(SHOWN, &[("dirty", &row("--p---", kernel)), ("pages", "--w---")]));
        if backing.is_huge() && kernel < KernelVersion::new(5, 18, 0) {
            return facts;
        }
        facts.extend(want("madvise(2)", &[("evict", "0")]));
        // A file keeps the page; private copies of it are lost, and the file has none.
        let again = match backing {
            Backing::Anon | Backing::Private | Backing::HugetlbPrivate => "parks",
            _ => "ran:wrote",
        };
        facts.extend(want("madvise(2), MADV_DONTNEED", &[("read-again", again)]));
        facts
    }

    fn recipe(&self) -> Vec<String> {
        let Self { backing, who } = self;
        vec![
            format!("register an empty {backing} block for missing pages and write protection"),
            "a thread loads from page 2 and parks: COPY with MODE_WP".into(),
            format!("a thread writes to page 2 ({who}) and parks: WRITEPROTECT(0)"),
            "MADV_DONTNEED of page 2; a thread loads from it: does it park?".into(),
        ]
    }

    fn uses_huge_pages(&self) -> bool {
        self.backing.is_huge()
    }
}

impl Trial for Subrange {
    fn axes(&self) -> String {
        format!("backing={},who={}", self.backing, self.who)
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        let lab = Lab::new(stage, self.backing, 0)?;
        lab.register(0..PAGES, REGISTER_MODE_MISSING | REGISTER_MODE_WP)?;
        let part = lab.range(2..4);
        seen.fact("unregister", lab.uffd.unregister(part));
        let rc = lab.uffd.register(part, REGISTER_MODE_WP);
        seen.fact("register", crate::abi::Rc(rc.err()));
        lab.registered("reg", seen)?;
        lab.meet(("inside", "fault-inside"), self.who, 2, seen)?;
        let waiter = lab.meet(("outside", "fault"), self.who, 4, seen)?;
        if let Some(mut waiter) = waiter {
            let placed = lab.uffd.copy(lab.page(4), stage.source, COPY_MODE_WP);
            outcome(("copy", "field"), placed, seen);
            lab.look("waiter", &mut waiter, seen)?;
        }
        lab.entries("entries", seen)?;
        lab.uffd.leave_open();
        Ok(())
    }

    fn expect(&self, kernel: KernelVersion) -> Vec<Expected> {
        let Self { backing, who } = *self;
        let mut facts = want(source::UNREGISTER, &[("unregister", "0"), ("register", "0")]);
        facts.extend(want(source::UNREGISTER, &[("reg", "WWwwWW")]));
        facts.extend(want(FAULTS, &[("inside", &who.ran("zero"))]));
        let writes = who.write_faults(backing);
        let fault = if writes { "write@4" } else { "read@4" };
        facts.extend(want(source::QUEUE, &[("outside", "parks"), ("fault", fault)]));
        facts.extend(want(source::COPY, &[("copy", "0"), ("field", &length(backing))]));
        let fate = if writes { "again".to_owned() } else { who.ran("copied") };
        facts.extend(want(FAULTS, &[("waiter", &fate)]));
        facts.extend(want(SHOWN, &[("entries", &row("--p-w-", kernel))]));
        facts
    }

    fn recipe(&self) -> Vec<String> {
        let Self { backing, who } = self;
        vec![
            format!("register an empty {backing} block for missing pages and write protection"),
            "UNREGISTER pages 2 and 3 and register them for write protection only".into(),
            format!("a thread accesses page 2: {who}"),
            format!("another accesses page 4 ({who}) and parks: COPY with MODE_WP"),
        ]
    }

    fn uses_huge_pages(&self) -> bool {
        self.backing.is_huge()
    }
}
