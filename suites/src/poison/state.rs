//! What is poisoned, what comes afterwards, and what takes the poison away.

use super::{
    CODE, NEEDS, QEMU, SIGBUS, asleep, block, length, map_block, open, poison, poisoned, returned,
};
use crate::abi::{
    REGISTER_MODE_MINOR, REGISTER_MODE_MISSING, REGISTER_MODE_WP, WRITEPROTECT_MODE_WP, features,
};
use crate::expect::{Expected, OBSERVED};
use crate::memory::tag;
use crate::model::source;
use crate::point::{Backing, PAGES, Waiter};
use crate::probe::{Case, Probe};
use crate::script::{
    Call, Ctx, DONTNEED, FREE, GUARD, Memory, Place, REMOVE, Script, Span, Step, Treat,
};

static STATE: Probe = Probe {
    suite: "poison",
    name: "state",
    statement: "POISON takes an empty entry, whether the page cache has a page for it or not; \
                anything else gives EEXIST, stays as it was, and nobody is woken.",
    consumers: &[QEMU],
};
static THEN: Probe = Probe {
    suite: "poison",
    name: "then",
    statement: "COPY and CONTINUE, and ZEROPAGE of shared memory, put a page in the place of the \
                poison; other ZEROPAGE and POISON give EEXIST; WAKE, WRITEPROTECT and UNREGISTER leave the poison where it is.",
    consumers: &[QEMU],
};
static CLEARS: Probe = Probe {
    suite: "poison",
    name: "clears",
    statement: "MADV_DONTNEED, truncation, or a new mapping over the page take the poison away; a hole \
                punched into a shared memory file does not, nor a change of protection or of place.",
    consumers: &[QEMU],
};

/// Whether a case is asked by default.
fn by_default(backing: Backing, important: bool) -> bool {
    !backing.is_huge() || important
}

/// The suite's cases about states.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for backing in Backing::ALL.iter().copied() {
        for (state, word) in STATES {
            if can_be(state, backing) {
                let default = by_default(backing, state == State::Present);
                cases.push(Case::trial(&STATE, about(state, word, backing), default));
            }
        }
        for (next, word) in NEXT {
            if next != Next::Continue || backing.has_cache() {
                let default = by_default(backing, next == Next::Copy);
                cases.push(Case::trial(&THEN, then(next, word, backing), default));
            }
        }
        for (how, word) in HOW {
            if can(how, backing) {
                let default = by_default(backing, how == How::DontNeed);
                cases.push(Case::trial(&CLEARS, clears(how, word, backing), default));
            }
        }
    }
    cases
}

impl Backing {
    /// Whether its pages lie in a file's page cache that a second mapping can fill.
    const fn has_cache(self) -> bool {
        matches!(self, Self::Shmem | Self::HugetlbShared)
    }

    /// Whether there is a memfd behind it.
    const fn has_file(self) -> bool {
        matches!(self, Self::Shmem | Self::Private | Self::HugetlbShared)
    }
}

/// What stands at the page before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Missing,
    Present,
    Zero,
    Cached,
    CachedAround,
    Marker,
    Poisoned,
    Guard,
    Discarded,
    Locked,
    ReadOnly,
}

const STATES: [(State, &str); 11] = [
    (State::Missing, "missing"),
    (State::Present, "present"),
    (State::Zero, "read-before"),
    (State::Cached, "cached"),
    (State::CachedAround, "cached-and-read-beside"),
    (State::Marker, "protection-marker"),
    (State::Poisoned, "poisoned"),
    (State::Guard, "guard"),
    (State::Discarded, "discarded"),
    (State::Locked, "locked-on-fault"),
    (State::ReadOnly, "read-only"),
];

fn can_be(state: State, backing: Backing) -> bool {
    match state {
        State::Cached => backing.has_file(),
        // A read fault maps small pages around it.
        State::CachedAround => backing.has_file() && !backing.is_huge(),
        // Guard regions of huge pages there are none; of files from 6.15 on.
        State::Guard | State::Locked => !backing.is_huge(),
        _ => true,
    }
}

fn about(state: State, word: &str, backing: Backing) -> Script {
    let (page, all) = (block(backing, 2, 1), block(backing, 0, PAGES));
    let mut steps = map_block(backing);
    match state {
        State::Present => steps.push(Step::Fill(page, tag::KEPT)),
        State::Discarded => {
            steps.extend([Step::Fill(page, tag::KEPT), Step::Prepare(DONTNEED, page)]);
        }
        State::Zero => steps.push(Step::Load(page)),
        State::Cached | State::CachedAround => steps.push(Step::Cache(page)),
        State::Guard => steps.push(Step::Prepare(GUARD, page)),
        State::Locked => steps.push(Step::Prepare(Treat::LockOnFault, all)),
        _ => {}
    }
    let marker = state == State::Marker;
    let mode = if marker { REGISTER_MODE_WP } else { 0 };
    steps.extend([
        Step::Open(Ctx::First, if marker { features::WP_UNPOPULATED } else { 0 }),
        Step::Set(Ctx::First, Call::Register(all, REGISTER_MODE_MISSING | mode)),
    ]);
    match state {
        State::Marker => steps.push(Step::Set(Ctx::First, Call::Wp(page, WRITEPROTECT_MODE_WP))),
        State::Poisoned => steps.push(poisoned(page)),
        State::ReadOnly => steps.push(Step::Prepare(Treat::Protect(libc::PROT_READ), all)),
        _ => {}
    }
    // The waiter waits for the page before: none can wait for one that is there. A read fault on a
    // file maps what the page cache has around it; a write fault does not.
    let waiter = match state {
        State::Cached | State::Discarded => Waiter::UserWrite,
        _ => Waiter::UserRead,
    };
    steps.extend([
        Step::Park(Ctx::First, waiter, block(backing, 1, 1)),
        poison(page, 0),
        Step::Look(Ctx::First),
        Step::Survey(all, "reg", "pages"),
        Step::Rescue(Ctx::First),
        Step::Touch(Ctx::First, Waiter::UserRead, page, "touch"),
    ]);
    let axes = format!("backing={backing},state={word}");
    let needs = NEEDS | if marker { features::WP_UNPOPULATED } else { 0 };
    Script::new(axes, needs, steps, move |_| {
        let taken = matches!(
            state,
            State::Present
                | State::Zero
                | State::CachedAround
                | State::Marker
                | State::Poisoned
                | State::Guard
        );
        let says = source::POISON;
        let mut facts = if taken {
            returned(
                "EEXIST",
                -17,
                "mfill_atomic_pte_poison() in mm/userfaultfd.c: overwrites no \
                                     entry, not even a marker",
            )
        } else {
            returned("0", length(backing), says)
        };
        facts.extend(asleep(says));
        let letter = match state {
            State::Present | State::CachedAround => 'k',
            State::Zero => '0',
            _ => '-',
        };
        facts.push(Expected::new("pages", format!("--{letter}--k"), says));
        let touch = match state {
            State::Present | State::CachedAround => "ran:kept",
            State::Zero => "ran:zero",
            State::Marker => "parks:read",
            State::Guard => "SEGV_MAPERR",
            _ => SIGBUS,
        };
        facts.push(Expected::new("touch", touch, CODE));
        facts
    })
}

const REPLACES: &str = "mfill_atomic_install_pte() in mm/userfaultfd.c: an entry that holds only a \
    marker counts as empty, so the page replaces the poison";

/// What is done to the poisoned page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Copy,
    Zeropage,
    Continue,
    Poison,
    Protect,
    Unprotect,
    Wake,
    Unregister,
    Register,
}

const NEXT: [(Next, &str); 9] = [
    (Next::Copy, "copy"),
    (Next::Zeropage, "zeropage"),
    (Next::Continue, "continue"),
    (Next::Poison, "poison"),
    (Next::Protect, "protect"),
    (Next::Unprotect, "unprotect"),
    (Next::Wake, "wake"),
    (Next::Unregister, "unregister"),
    (Next::Register, "register-again"),
];

fn then(next: Next, word: &str, backing: Backing) -> Script {
    let (page, all) = (block(backing, 2, 1), block(backing, 0, PAGES));
    let mut steps = map_block(backing);
    let protects = matches!(next, Next::Protect | Next::Unprotect);
    let mode = match next {
        Next::Continue => REGISTER_MODE_MINOR,
        _ if protects => REGISTER_MODE_MISSING | REGISTER_MODE_WP,
        _ => REGISTER_MODE_MISSING,
    };
    if next == Next::Continue {
        steps.push(Step::Cache(page));
    }
    steps.extend([
        Step::Open(Ctx::First, 0),
        Step::Set(Ctx::First, Call::Register(all, mode)),
        poisoned(page),
    ]);
    let call = match next {
        Next::Copy => Call::Copy(page, 0),
        Next::Zeropage => Call::Zeropage(page, 0),
        Next::Continue => Call::Continue(page, 0),
        Next::Poison => Call::Poison(page, 0),
        Next::Protect => Call::Wp(page, WRITEPROTECT_MODE_WP),
        Next::Unprotect => Call::Wp(page, 0),
        Next::Wake => Call::Wake(page),
        Next::Unregister => Call::Unregister(all),
        Next::Register => Call::Register(all, mode),
    };
    steps.extend([
        Step::Do(Ctx::First, call, "then", "then-field"),
        Step::Survey(all, "reg", "pages"),
        Step::Touch(Ctx::First, Waiter::UserRead, page, "touch"),
        Step::Touch(Ctx::First, Waiter::UserWrite, page, "touch-write"),
    ]);
    let axes = format!("backing={backing},then={word}");
    Script::new(axes, NEEDS, steps, move |_| {
        // COPY takes any marker for an empty entry, POISON takes none. Shared memory is zeroed by a
        // COPY of zeros, the rest by mapping the zero page.
        let shared = matches!(backing, Backing::Shmem | Backing::SharedAnon);
        let (content, read) = match next {
            Next::Copy => ('c', "ran:copied"),
            Next::Zeropage if shared => ('0', "ran:zero"),
            Next::Continue => ('k', "ran:kept"),
            _ => ('-', SIGBUS),
        };
        let replaces = content != '-';
        let (rc, field) = match next {
            Next::Zeropage if backing.is_huge() => ("EINVAL", Some("-22".to_owned())),
            _ if replaces => ("0", Some(length(backing).to_string())),
            Next::Zeropage | Next::Poison => ("EEXIST", Some("-17".to_owned())),
            _ => ("0", None),
        };
        let says = if replaces { REPLACES } else { source::POISON };
        let mut facts = vec![Expected::new("then", rc, says)];
        facts.extend(field.map(|field| Expected::new("then-field", field, says)));
        facts.push(Expected::new("pages", format!("--{content}--k"), says));
        facts.push(Expected::new("touch", read, says));
        facts.push(Expected::new("touch-write", if replaces { "ran" } else { SIGBUS }, says));
        facts
    })
}

/// What is done to the mapping of the poisoned page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    DontNeed,
    Free,
    Remove,
    Punch,
    MapOver,
    Truncate,
    Move,
    DontUnmap,
    NoAccessAndBack,
    Lock,
    Cold,
}

impl How {
    /// Who says that the call works.
    const fn call(self) -> &'static str {
        match self {
            Self::DontNeed => "madvise(2), MADV_DONTNEED",
            Self::Free => "madvise(2), MADV_FREE",
            Self::Remove => "madvise(2), MADV_REMOVE",
            Self::Punch => "fallocate(2), FALLOC_FL_PUNCH_HOLE",
            Self::MapOver => "mmap(2), MAP_FIXED",
            Self::Truncate => "ftruncate(2)",
            Self::Move => source::MREMAP,
            Self::DontUnmap => source::DONTUNMAP,
            Self::NoAccessAndBack => "mprotect(2)",
            Self::Lock => "mlock2(2), MLOCK_ONFAULT",
            Self::Cold => "madvise(2), MADV_COLD",
        }
    }
}

const HOW: [(How, &str); 11] = [
    (How::DontNeed, "dontneed"),
    (How::Free, "madv-free"),
    (How::Remove, "remove"),
    (How::Punch, "punch-hole"),
    (How::MapOver, "mmap-over"),
    (How::Truncate, "truncate-and-grow"),
    (How::Move, "mremap"),
    (How::DontUnmap, "mremap-dontunmap"),
    (How::NoAccessAndBack, "mprotect-and-back"),
    (How::Lock, "lock-on-fault"),
    (How::Cold, "cold"),
];

fn can(how: How, backing: Backing) -> bool {
    match how {
        How::Free => backing == Backing::Anon,
        How::Remove => {
            matches!(backing, Backing::Shmem | Backing::SharedAnon | Backing::HugetlbShared)
        }
        How::Punch | How::Truncate => backing.has_file(),
        How::DontUnmap | How::Lock | How::Cold => !backing.is_huge(),
        How::Move => backing != Backing::HugetlbPrivate,
        _ => true,
    }
}

fn clears(how: How, word: &str, backing: Backing) -> Script {
    let (page, all) = (block(backing, 2, 1), block(backing, 0, PAGES));
    let mut steps = map_block(backing);
    steps.extend(open(backing));
    steps.push(poisoned(page));
    let asked = |treat, span| Step::Treat(treat, span, "change");
    match how {
        How::DontNeed => steps.push(asked(DONTNEED, page)),
        How::Free => steps.push(asked(FREE, page)),
        How::Remove => steps.push(asked(REMOVE, page)),
        How::Punch => steps.push(asked(Treat::Punch, page)),
        How::MapOver => steps.push(asked(Treat::MapOver(Memory::Of(backing)), page)),
        How::Truncate => steps.push(asked(Treat::TruncateAndGrow, page)),
        How::Move => steps.push(asked(Treat::MoveTo(Place::Elsewhere), all)),
        How::DontUnmap => steps.push(asked(Treat::DontUnmapTo(Place::Elsewhere), all)),
        How::NoAccessAndBack => steps.extend([
            Step::Prepare(Treat::Protect(libc::PROT_NONE), page),
            asked(Treat::Protect(crate::memory::RW), page),
        ]),
        How::Lock => steps.push(asked(Treat::LockOnFault, page)),
        How::Cold => steps.push(asked(Treat::Advise(libc::MADV_COLD, "MADV_COLD"), page)),
    }
    let moves = matches!(how, How::Move | How::DontUnmap);
    steps.extend([
        Step::Survey(all, "reg", "pages"),
        Step::Touch(Ctx::First, Waiter::UserRead, page, "touch"),
    ]);
    if moves {
        let new = Span::of(backing, Place::Elsewhere, 2, 1);
        steps.push(Step::Bits(new, "new-bits"));
        steps.push(Step::Touch(Ctx::First, Waiter::UserRead, new, "new-touch"));
    }
    let axes = format!("backing={backing},how={word}");
    Script::new(axes, NEEDS, steps, move |_| expect_clears(how, backing))
}

fn expect_clears(how: How, backing: Backing) -> Vec<Expected> {
    let mut facts = vec![Expected::new("change", "0", how.call())];
    let clears = "zap_pte_range() in mm/memory.c: a discard or unmapping removes the marker";
    let (touch, says) = match how {
        How::Remove | How::Punch if !backing.is_huge() => (
            SIGBUS,
            "shmem_fallocate() unmaps without even_cows; should_zap_cows() in mm/memory.c is then \
             false, and zap_pte_range() keeps the marker of poison",
        ),
        How::DontNeed | How::Free | How::Remove | How::Punch | How::Truncate => {
            ("parks:read", clears)
        }
        How::MapOver => ("ran:zero", clears),
        How::Move => ("SEGV_MAPERR", source::MREMAP),
        How::DontUnmap => ("parks:read", source::DONTUNMAP),
        How::NoAccessAndBack | How::Lock | How::Cold => (SIGBUS, CODE),
    };
    facts.push(Expected::new("touch", touch, says));
    if matches!(how, How::Move | How::DontUnmap) {
        facts.push(Expected::new("new-touch", SIGBUS, OBSERVED));
    }
    facts
}
