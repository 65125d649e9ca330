//! MADV_COLLAPSE of registered memory in which somebody waits: does it fill what is awaited?

use crate::abi::{
    REGISTER_MODE_MINOR, REGISTER_MODE_MISSING, REGISTER_MODE_WP, WRITEPROTECT_MODE_WP, features,
};
use crate::expect::Expected;
use crate::memory::{HUGE, ONE_PAGE, PAGE, tag};
use crate::model::source;
use crate::point::{Waiter, axis};
use crate::probe::{Case, Probe};
use crate::script::{COLLAPSE, Call, Ctx, Memory, Place, Script, Span, Step, Treat};
use uffd_results::KernelVersion;

static COLLAPSES: Probe = Probe {
    suite: "changes",
    name: "collapse",
    statement: "MADV_COLLAPSE of registered memory wakes no waiter and fills no page that is awaited as \
                missing (but it did in 6.1, of shared memory); of shared memory registered for minor \
                faults it fills and maps everything, and CONTINUE then is EEXIST (in 6.1 it is EINVAL \
                and maps nothing).",
    consumers: &[
        "Google's live migration: MADV_COLLAPSE after postcopy (commit 7d8faaf15545)",
        "Cloud Hypervisor, vhost-user backends: huge pages of shared guest memory",
    ],
};

axis! {
    /// What backs the range of 2 MiB.
    Kind {
        /// Private anonymous memory.
        Anon = "anon",
        /// A memfd, shared.
        Shmem = "shmem",
    }
}

axis! {
    /// For what it is registered.
    Mode {
        /// Missing pages; the waiter's page is one.
        Missing = "missing",
        /// Write protection; the waiter stores to a protected page.
        Wp = "wp",
        /// Minor faults; the waiter's page is in the page cache.
        Minor = "minor",
        /// Missing pages and write protection; the waiter's page is missing.
        Both = "missing+wp",
        /// Nothing: the control, where nobody waits.
        None = "none",
    }
}

axis! {
    /// Which pages are there.
    Present {
        /// The one behind the waiter's, and the waiter's where it is there.
        Few = "few",
        /// All, but the waiter's where it must be missing.
        Most = "most",
    }
}

axis! {
    /// What is done afterwards.
    Then {
        /// Nothing; at the end WAKE.
        Look = "look",
        /// What serves the fault: COPY, CONTINUE, or the end of the protection.
        Serve = "serve",
        /// UNREGISTER.
        Unregister = "unregister",
    }
}

#[derive(Clone, Copy, Debug)]
struct Asked {
    kind: Kind,
    mode: Mode,
    present: Present,
    then: Then,
}

const fn at(first: usize, count: usize) -> Span {
    Span::new(Place::Block, first, count)
}

const ALL: Span = Span::new(Place::Block, 0, 1).huge();
const HERE: Span = at(5, 1);
const PAGES: usize = HUGE / PAGE;

impl Asked {
    /// Whether the waiter's page is there.
    const fn is_there(self) -> bool {
        matches!(self.mode, Mode::Wp | Mode::Minor)
    }

    fn steps(self) -> Vec<Step> {
        let Self { kind, mode, present, then } = self;
        let anon = kind == Kind::Anon;
        let mut steps = vec![Step::Map(ALL, if anon { Memory::Thp } else { Memory::ThpShmem })];
        if anon {
            // No fault makes a huge page then.
            let small = Treat::Advise(libc::MADV_NOHUGEPAGE, "MADV_NOHUGEPAGE");
            steps.push(Step::Prepare(small, ALL));
        }
        let fill = |span| {
            if mode == Mode::Minor { Step::Cache(span) } else { Step::Fill(span, tag::KEPT) }
        };
        let first = if self.is_there() { 5 } else { 6 };
        match present {
            Present::Few => steps.push(fill(at(first, 7 - first))),
            Present::Most => steps.extend([fill(at(0, 5)), fill(at(first, PAGES - first))]),
        }
        steps.push(Step::Open(Ctx::First, 0));
        let bits = match mode {
            Mode::Missing => REGISTER_MODE_MISSING,
            Mode::Wp => REGISTER_MODE_WP,
            Mode::Minor => REGISTER_MODE_MINOR,
            Mode::Both => REGISTER_MODE_MISSING | REGISTER_MODE_WP,
            Mode::None => 0,
        };
        if mode != Mode::None {
            steps.push(Step::Set(Ctx::First, Call::Register(ALL, bits)));
        }
        if mode == Mode::Wp {
            steps.push(Step::Set(Ctx::First, Call::Wp(HERE, WRITEPROTECT_MODE_WP)));
        }
        if anon {
            // Only now: khugepaged runs when it likes, and passes over what is registered.
            let huge = Treat::Advise(libc::MADV_HUGEPAGE, "MADV_HUGEPAGE");
            steps.push(Step::Prepare(huge, ALL));
        }
        if mode != Mode::None {
            let waiter = if mode == Mode::Wp { Waiter::UserWrite } else { Waiter::UserRead };
            steps.push(Step::Park(Ctx::First, waiter, HERE));
        }
        steps.extend([
            Step::Treat(COLLAPSE, ALL, "collapse"),
            Step::Survey(at(4, 4), "reg", "pages"),
            Step::Huge(ALL, "huge"),
        ]);
        let serve = match mode {
            Mode::Missing | Mode::Both => Call::Copy(HERE, 0),
            Mode::Wp => Call::Wp(HERE, 0),
            Mode::Minor => Call::Continue(HERE, 0),
            Mode::None => return steps,
        };
        steps.push(Step::Look(Ctx::First));
        match then {
            Then::Look => {}
            Then::Serve => steps.push(Step::Do(Ctx::First, serve, "op", "field")),
            Then::Unregister => {
                steps.push(Step::Do(Ctx::First, Call::Unregister(ALL), "op", "field"));
            }
        }
        steps.push(Step::Glance(Ctx::First, "waiter-then"));
        steps.push(Step::Rescue(Ctx::First));
        steps.push(Step::Survey(at(4, 4), "reg-then", "pages-then"));
        steps
    }

    fn script(self) -> Script {
        let Self { kind, mode, present, then } = self;
        let axes = format!("backing={kind},mode={mode},present={present},then={then}");
        let needs = match (kind, mode) {
            (_, Mode::Minor) => features::MINOR_SHMEM,
            (Kind::Shmem, Mode::Wp | Mode::Both) => features::WP_HUGETLBFS_SHMEM,
            _ => 0,
        };
        Script::new(axes, needs, self.steps(), move |kernel| self.expect(kernel))
    }

    fn expect(self, kernel: KernelVersion) -> Vec<Expected> {
        let Self { mode, then, .. } = self;
        let Done { rc, says, leaves } = self.collapse(kernel);
        let filled = matches!(leaves, Leaves::Filled | Leaves::Mapped);
        let mapped = leaves == Leaves::Mapped;
        let mut facts = Vec::new();
        let mut say = |name, value: &str, says| {
            facts.push(Expected::new(name, value.to_owned(), says));
        };
        if mode != Mode::None {
            let fault = match mode {
                Mode::Wp => "wp-write",
                Mode::Minor => "minor-read",
                _ => "read",
            };
            say("fault", fault, source::QUEUE);
        }
        say("collapse", rc, says);
        say("pages", &self.row(leaves), says);
        say("huge", if mapped { "1" } else { "0" }, says);
        if mode == Mode::None {
            return facts;
        }
        say("waiter", "asleep", WAKES);
        say("queue", "1/0", WAKES);
        // What the waiter meets when it is woken, and what serving its fault gives.
        let (met, served) = match mode {
            Mode::Wp => ("again", "ran"),
            Mode::Minor if mapped => ("ran:kept", ""),
            Mode::Minor => ("again", "ran:kept"),
            _ if filled => ("ran:zero", ""),
            _ => ("again", "ran:copied"),
        };
        let (fate, met) = match (then, mode) {
            (Then::Look, _) => ("asleep", met),
            (Then::Serve, _) if served.is_empty() => ("asleep", met),
            (Then::Serve, _) => (served, ""),
            (Then::Unregister, Mode::Wp) => ("asleep", "ran"),
            (Then::Unregister, Mode::Minor) => ("asleep", "ran:kept"),
            (Then::Unregister, _) => ("ran:zero", ""),
        };
        match then {
            Then::Look => {}
            Then::Serve if mode == Mode::Wp => say("op", "0", source::WRITEPROTECT),
            Then::Serve => {
                let exists = served.is_empty();
                say("op", if exists { "EEXIST" } else { "0" }, says);
                say("field", if exists { "-17" } else { ONE_PAGE }, says);
            }
            Then::Unregister => say("op", "0", source::UNREGISTER),
        }
        say(
            "waiter-then",
            fate,
            if then == Then::Unregister { source::UNREGISTER_WAKES } else { says },
        );
        if fate == "asleep" {
            say("rescued", met, says);
        }
        facts
    }

    /// What MADV_COLLAPSE does.
    fn collapse(self, kernel: KernelVersion) -> Done {
        let before = |major, minor| kernel < KernelVersion::new(major, minor, 0);
        // Asked were 6.1 and, as the next, 6.12.
        let old = before(6, 2);
        let done = |rc, says, leaves| Done { rc, says, leaves };
        if before(6, 1) {
            return done("EINVAL", "madvise(2), MADV_COLLAPSE (6.1)", Leaves::Untouched);
        }
        match (self.kind, self.mode) {
            (_, Mode::None) => done("0", "madvise(2), MADV_COLLAPSE (6.1)", Leaves::Mapped),
            (Kind::Anon, Mode::Wp) if self.present == Present::Most => {
                done("EINVAL", ANON, Leaves::Untouched)
            }
            (Kind::Anon, _) => done(if old { "EINVAL" } else { "EBUSY" }, ANON, Leaves::Untouched),
            (Kind::Shmem, Mode::Missing) if old => done("0", OLD, Leaves::Mapped),
            (Kind::Shmem, Mode::Both | Mode::Minor) if old => done("EINVAL", OLD, Leaves::Filled),
            (Kind::Shmem, Mode::Missing | Mode::Both) => done("EBUSY", MISSING, Leaves::Unmapped),
            (Kind::Shmem, Mode::Wp) => done("EINVAL", PROTECTED, Leaves::Filled),
            (Kind::Shmem, Mode::Minor) => done("0", FILLS, Leaves::Mapped),
        }
    }

    /// What pages 4..8 then show.
    fn row(self, leaves: Leaves) -> String {
        let there = |page: usize| match page {
            5 => self.is_there(),
            6 => true,
            _ => self.present == Present::Most,
        };
        let letter = |page| match (leaves, there(page)) {
            (Leaves::Mapped, false) => '0',
            (Leaves::Mapped, true) => 'k',
            (Leaves::Untouched, true) if self.mode != Mode::Minor => 'k',
            _ => '-',
        };
        (4..8).map(letter).collect()
    }
}

/// What a collapse returns and leaves.
struct Done {
    rc: &'static str,
    says: &'static str,
    leaves: Leaves,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leaves {
    /// All as it was.
    Untouched,
    /// The file as it was, but nothing mapped.
    Unmapped,
    /// One huge page in the file, with zeros where nothing was, but nothing mapped.
    Filled,
    /// The same, mapped.
    Mapped,
}

const WAKES: &str = "mm/khugepaged.c knows of no waiter";
const ANON: &str = "collapse_scan_pmd() and madvise_collapse_errno() in mm/khugepaged.c: an empty or a \
    protected entry of registered memory ends the scan";
const MISSING: &str = "collapse_file() in mm/khugepaged.c: the old pages are unmapped, then a mapping that is \
    registered for missing pages makes it go back";
const OLD: &str = "observed only: collapse_file() of 6.1 does not ask for mappings that are registered for \
    missing pages, and fills what they wait for with zeros";
const PROTECTED: &str = "try_collapse_pte_mapped_thp() in mm/khugepaged.c: the file has its huge page by \
    then, but a mapping registered for write protection keeps its page table";
const FILLS: &str = "collapse_file() in mm/khugepaged.c: registrations for minor faults get no promise that \
    the kernel fills no page; set_huge_pmd() then maps all of it";

/// The cases.
pub(super) fn cases(cases: &mut Vec<Case>) {
    for kind in Kind::ALL {
        for mode in Mode::ALL {
            for present in Present::ALL {
                for then in Then::ALL {
                    let (kind, mode, present, then) = (*kind, *mode, *present, *then);
                    let is_moot = mode == Mode::Minor && kind == Kind::Anon
                        || mode == Mode::None && then != Then::Look;
                    if !is_moot {
                        let asked = Asked { kind, mode, present, then };
                        cases.push(Case::trial(
                            &COLLAPSES,
                            asked.script(),
                            then != Then::Unregister,
                        ));
                    }
                }
            }
        }
    }
}
