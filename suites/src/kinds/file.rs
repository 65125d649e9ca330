//! Files: mapped twice, regular, secret; and areas that grow down.

use crate::abi::{
    REGISTER_MODE_MINOR, REGISTER_MODE_MISSING, REGISTER_MODE_WP, WRITEPROTECT_MODE_WP, features,
};
use crate::expect::Expected;
use crate::memory::{ONE_PAGE, tag};
use crate::model::source;
use crate::point::{Backing, PAGES, Waiter};
use crate::probe::{Case, Probe};
use crate::script::{Call, Ctx, Memory, Place, Script, Span, Step};

const VHOST: &str = "vhost-user back-ends: one memfd mapped by two parties, QEMU libvhost-user";

static TWICE: Probe = Probe {
    suite: "kinds",
    name: "mapped-twice",
    statement: "A page that comes through a second, unregistered mapping of the memfd wakes nobody; a \
                COPY to it then gives EEXIST, WAKE lets the waiter see it, and CONTINUE maps it.",
    consumers: &[
        VHOST,
        "crosvm, E2B: no missing fault on what the page cache holds",
        "Cloud Hypervisor: issue 8663, filling elsewhere and waking",
    ],
};
static CONTROL: Probe = Probe {
    suite: "kinds",
    name: "mapped-twice-control",
    statement: "The same COPY to a page that nobody has brought places it, wakes the waiter, and shows \
                in the second mapping.",
    consumers: &[VHOST],
};
static REFUSED: Probe = Probe {
    suite: "kinds",
    name: "refused",
    statement: "REGISTER of a regular file fails with EINVAL in every mode.",
    consumers: &["QEMU: test_ramblock_postcopiable(), only tmpfs and hugetlbfs files"],
};
static PROTECTED: Probe = Probe {
    suite: "kinds",
    name: "file-protected",
    statement: "A regular file that is registered for asynchronous write protection can be protected, and \
                takes no page: COPY, ZEROPAGE, CONTINUE and POISON fail with EINVAL.",
    consumers: &["Wine: write watches of mapped files"],
};
static GROWS: Probe = Probe {
    suite: "kinds",
    name: "grows-down",
    statement: "Memory with MAP_GROWSDOWN faults, is placed and wakes as any other.",
    consumers: &["CRIU lazy-pages: stacks of restored tasks"],
};
static BELOW: Probe = Probe {
    suite: "kinds",
    name: "grows-down-below",
    statement: "A touch below memory with MAP_GROWSDOWN makes the mapping grow together with its registration, and \
                waits for the new page, which COPY refuses before and fills then; UNREGISTER of what was registered \
                leaves the new page registered and its waiter asleep.",
    consumers: &[
        "CRIU lazy-pages: stacks of restored tasks",
        "QEMU, ART: UNREGISTER by the range of REGISTER",
    ],
};

/// The suite's cases about files.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for mode in [REGISTER_MODE_MISSING, REGISTER_MODE_MINOR] {
        for waiter in &Waiter::THREADS[1..] {
            for op in ["copy", "continue", "wake", "unregister"] {
                let common =
                    matches!(waiter, Waiter::UserRead | Waiter::UserWrite | Waiter::SysWrite);
                if mode == REGISTER_MODE_MISSING {
                    cases.push(Case::trial(&TWICE, twice(*waiter, op, true), common));
                }
            }
        }
    }
    for waiter in &Waiter::THREADS[1..] {
        cases.push(Case::trial(&CONTROL, twice(*waiter, "copy", false), true));
        cases.push(Case::trial(&GROWS, grows(*waiter), true));
    }
    // get_user_pages() makes no mapping grow, but in 5.10.
    let grow =
        [Waiter::UserRead, Waiter::UserWrite, Waiter::SysRead, Waiter::SysWrite, Waiter::Futex];
    for waiter in grow {
        for then in ["copy", "unregister", "wake"] {
            let by_default = match waiter {
                Waiter::UserRead => then != "wake",
                Waiter::SysRead => then == "copy",
                _ => false,
            };
            cases.push(Case::trial(&BELOW, below(waiter, then), by_default));
        }
    }
    for (mode, word) in [
        (REGISTER_MODE_MISSING, "missing"),
        (REGISTER_MODE_WP, "protection"),
        (REGISTER_MODE_MINOR, "minor"),
        (REGISTER_MODE_MISSING | REGISTER_MODE_WP, "missing-and-protection"),
    ] {
        cases.push(Case::trial(&REFUSED, refused(mode, word), true));
    }
    for op in ["writeprotect", "copy", "zeropage", "continue", "poison"] {
        cases.push(Case::trial(&PROTECTED, protected(op), true));
    }
    cases
}

const fn block(first: usize, count: usize) -> Span {
    Span::new(Place::Block, first, count)
}

fn twice(waiter: Waiter, op: &'static str, fill: bool) -> Script {
    let (page, alias) = (block(2, 1), Span::new(Place::Other, 2, 1));
    let all = block(0, PAGES);
    let mut steps = vec![
        Step::Map(all, Memory::Of(Backing::Shmem)),
        Step::Map(Span::new(Place::Other, 0, PAGES), Memory::BlockAgain),
        Step::Open(Ctx::First, 0),
        Step::Set(Ctx::First, Call::Register(all, REGISTER_MODE_MISSING)),
        Step::Park(Ctx::First, waiter, page),
    ];
    if fill {
        steps.push(Step::Fill(alias, tag::NEW));
    }
    let call = match op {
        "copy" => Call::Copy(page, 0),
        "continue" => Call::Continue(page, 0),
        "wake" => Call::Wake(page),
        _ => Call::Unregister(all),
    };
    steps.extend([
        Step::Do(Ctx::First, call, "op", "field"),
        Step::Look(Ctx::First),
        Step::Survey(all, "reg", "pages"),
        Step::Rescue(Ctx::First),
        Step::Touch(Ctx::First, Waiter::UserRead, alias, "alias"),
    ]);
    Script::new(format!("op={op},waiter={waiter}"), 0, steps, move |kernel| {
        let ran = |read| if waiter.loads() { read } else { "ran" };
        let says = "shmem_get_folio_gfp() in mm/shmem.c: what the page cache holds raises no missing \
                    fault";
        let content = if waiter.stores() { "ran:wrote" } else { "ran:new" };
        if !fill {
            let content = if waiter.stores() { "ran:wrote" } else { "ran:copied" };
            return vec![
                Expected::new("op", "0", source::COPY),
                Expected::new("field", ONE_PAGE, source::COPY),
                Expected::new("waiter", ran("ran:copied"), source::COPY),
                Expected::new("alias", content, source::COPY),
            ];
        }
        let continues = uffd_results::KernelVersion::new(5, 13, 0);
        let mut facts = match op {
            "copy" => vec![
                Expected::new("op", "EEXIST", says),
                Expected::new("field", "-17", says),
                Expected::new("waiter", "asleep", says),
                Expected::new("queue", "1/0", says),
                Expected::new("rescued", ran("ran:new"), says),
            ],
            "continue" if kernel < continues => {
                vec![Expected::new("op", "EINVAL", source::CONTINUE)]
            }
            "wake" | "unregister" => vec![
                Expected::new("op", "0", source::WAKE),
                Expected::new("waiter", ran("ran:new"), says),
            ],
            _ => vec![
                Expected::new("op", "0", source::CONTINUE),
                Expected::new("waiter", ran("ran:new"), source::CONTINUE),
            ],
        };
        facts.push(Expected::new("alias", content, says));
        facts
    })
}

fn refused(mode: u64, word: &str) -> Script {
    let page = block(0, 1);
    let steps = vec![
        Step::Map(page, Memory::File),
        Step::Open(Ctx::First, 0),
        Step::Do(Ctx::First, Call::Register(page, mode), "register", "field"),
        Step::Touch(Ctx::First, Waiter::UserRead, page, "touch"),
    ];
    Script::new(format!("memory=file,mode={word}"), 0, steps, |_| {
        let says = "ioctl_userfaultfd(2), UFFDIO_REGISTER, EINVAL: an incompatible mapping";
        vec![Expected::new("register", "EINVAL", says), Expected::new("touch", "ran:new", says)]
    })
}

fn protected(op: &'static str) -> Script {
    let page = block(0, 1);
    let (call, needs) = match op {
        "writeprotect" => (Call::Wp(page, WRITEPROTECT_MODE_WP), 0),
        "copy" => (Call::Copy(page, 0), 0),
        "zeropage" => (Call::Zeropage(page, 0), 0),
        "continue" => (Call::Continue(page, 0), 0),
        _ => (Call::Poison(page, 0), features::POISON),
    };
    let steps = vec![
        Step::Map(page, Memory::File),
        Step::Open(Ctx::First, features::WP_ASYNC),
        Step::Set(Ctx::First, Call::Register(page, REGISTER_MODE_WP)),
        Step::Do(Ctx::First, call, "op", "field"),
        Step::Bits(page, "bits"),
        Step::Touch(Ctx::First, Waiter::UserRead, page, "touch"),
    ];
    Script::new(format!("op={op}"), features::WP_ASYNC | needs, steps, move |_| {
        let says = "mfill_get_vma() in mm/userfaultfd.c, and mfill_atomic() before: only anonymous memory, \
                    shared memory and hugetlb can be filled";
        let mut facts = if op == "writeprotect" {
            vec![
                Expected::new("op", "0", source::WRITEPROTECT),
                Expected::new("bits", "S", source::WRITEPROTECT),
            ]
        } else {
            vec![
                Expected::new("op", "EINVAL", says),
                Expected::new("field", "-22", says),
                Expected::new("bits", "-", says),
            ]
        };
        facts.push(Expected::new("touch", "ran:new", says));
        facts
    })
}

fn grows(waiter: Waiter) -> Script {
    let (page, all) = (block(2, 1), block(0, PAGES));
    let steps = vec![
        Step::Map(all, Memory::GrowsDown),
        Step::Open(Ctx::First, 0),
        Step::Set(Ctx::First, Call::Register(all, REGISTER_MODE_MISSING)),
        Step::Park(Ctx::First, waiter, page),
        Step::Do(Ctx::First, Call::Copy(page, 0), "copy", "field"),
        Step::Look(Ctx::First),
        Step::Survey(all, "reg", "pages"),
    ];
    Script::new(format!("waiter={waiter}"), 0, steps, move |_| {
        let says = source::COPY;
        let letter = if waiter.stores() { 'w' } else { 'c' };
        let ran = if waiter.loads() { "ran:copied" } else { "ran" };
        vec![
            Expected::new("copy", "0", says),
            Expected::new("field", ONE_PAGE, says),
            Expected::new("waiter", ran, says),
            Expected::new("reg", "mmmmmm", says),
            Expected::new("pages", format!("--{letter}---"), says),
        ]
    })
}

/// A block whose first page is the second of its place, and a touch of the page before.
fn below(waiter: Waiter, then: &'static str) -> Script {
    const FIRST: usize = 2;
    let (page, all) = (block(FIRST - 1, 1), block(FIRST, PAGES - FIRST));
    let whole = block(0, PAGES);
    let mut steps = vec![
        Step::Map(all, Memory::GrowsDown),
        Step::Open(Ctx::First, 0),
        Step::Set(Ctx::First, Call::Register(all, REGISTER_MODE_MISSING)),
        Step::Do(Ctx::First, Call::Copy(page, 0), "early", "early-field"),
        Step::Park(Ctx::First, waiter, page),
        Step::Survey(whole, "grown", "grown-pages"),
    ];
    match then {
        "unregister" => {
            steps.push(Step::Do(Ctx::First, Call::Unregister(all), "then", "then-field"));
        }
        "wake" => steps.push(Step::Do(Ctx::First, Call::Wake(page), "then", "then-field")),
        _ => {}
    }
    if then != "copy" {
        steps.push(Step::Glance(Ctx::First, "early-waiter"));
        steps.push(Step::Survey(whole, "then-reg", "then-pages"));
    }
    steps.extend([
        Step::Do(Ctx::First, Call::Copy(page, 0), "copy", "field"),
        Step::Look(Ctx::First),
        Step::Survey(whole, "reg", "pages"),
    ]);
    Script::new(format!("waiter={waiter},then={then}"), 0, steps, move |_| {
        let grows = "expand_downwards() (mm/mmap.c up to 6.12, mm/vma.c in 6.18) moves the start of the mapping, \
                     whose flags and userfaultfd stay as they are";
        let letter = if waiter.stores() { 'w' } else { 'c' };
        let mut facts = vec![
            Expected::new("early", "ENOENT", source::COPY_ENOENT),
            Expected::new("early-field", "-2", source::COPY_ENOENT),
            Expected::new("fault", if waiter.stores() { "write" } else { "read" }, grows),
            Expected::new("grown", "-mmmmm", grows),
            Expected::new("grown-pages", "------", grows),
        ];
        let reg = if then == "unregister" { "-m...." } else { "-mmmmm" };
        if then != "copy" {
            let says = if then == "wake" { source::RERUN } else { source::UNREGISTER };
            let fate = if then == "wake" { "again" } else { "asleep" };
            facts.extend([
                Expected::new("then", "0", says),
                Expected::new("early-waiter", fate, says),
                Expected::new("then-reg", reg, says),
                Expected::new("then-pages", "------", says),
            ]);
        }
        facts.extend([
            Expected::new("copy", "0", source::COPY),
            Expected::new("field", ONE_PAGE, source::COPY),
            Expected::new("waiter", waiter.ran("copied"), source::COPY),
            Expected::new("queue", "0/0", source::QUEUE),
            Expected::new("reg", reg, grows),
            Expected::new("pages", format!("-{letter}----"), source::COPY),
        ]);
        facts
    })
}
