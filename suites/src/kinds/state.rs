//! Private anonymous memory in states that the grid does not have: locked, read-only, without access,
//! shared with a forked child; and waiters of protected and of cached pages whose memory gets into one.

use crate::abi::{
    REGISTER_MODE_MINOR, REGISTER_MODE_MISSING, REGISTER_MODE_WP, WRITEPROTECT_MODE_WP, features,
};
use crate::expect::Expected;
use crate::memory::{ONE_PAGE, RW, tag};
use crate::model::source;
use crate::point::{Backing, PAGES, Waiter, axis};
use crate::probe::{Case, Probe};
use crate::script::{Call, Ctx, DONTNEED, GUARD, Memory, Place, REMOVE, Script, Span, Step, Treat};
use uffd_results::KernelVersion;

static STATE: Probe = Probe {
    suite: "kinds",
    name: "state",
    statement: "Neither a lock nor a protection nor a child that shares the page changes what COPY, \
                ZEROPAGE, POISON, WRITEPROTECT and UNREGISTER do; MOVE takes no page that is shared or \
                can't be written, and a store to a shared page raises no message.",
    consumers: &[
        "QEMU: mem-lock=on-fault, and fork of helpers",
        "CRIU lazy-pages: mappings without access, criu/uffd.c",
        "Android ART: mark_compact.cc",
    ],
};
static WAITER: Probe = Probe {
    suite: "kinds",
    name: "state-waiter",
    statement: "Who waits for a protected page, or for one of the page cache, is not woken by a change of \
                its memory's state; then unprotected or continued, it meets that state.",
    consumers: &["QEMU: background-snapshot", "Cloud Hypervisor, Firecracker: minor faults"],
};

axis! {
    /// The state of the page, and of its mapping.
    State {
        /// Locked by mlock2(MLOCK_ONFAULT), and written.
        Locked = "locked",
        /// Locked, and missing.
        LockedMissing = "locked-missing",
        /// Populated and locked by mlock(2).
        Populated = "mlocked",
        /// Read-only, written before.
        ReadOnly = "read-only",
        /// Read-only, and missing.
        ReadOnlyMissing = "read-only-missing",
        /// Without access, written before.
        NoAccess = "no-access",
        /// Without access, and missing.
        NoAccessMissing = "no-access-missing",
        /// Shared with a child that lives.
        Shared = "shared-by-fork",
        /// Shared with a child that is gone.
        SharedOnce = "child-gone",
        /// The zero page, shared with a child that lives.
        SharedZero = "zero-page-shared-by-fork",
    }
}

axis! {
    /// What is done to the page.
    Act {
        /// UFFDIO_COPY.
        Copy = "copy",
        /// UFFDIO_ZEROPAGE.
        Zeropage = "zeropage",
        /// UFFDIO_POISON.
        Poison = "poison",
        /// UFFDIO_WRITEPROTECT.
        Protect = "protect",
        /// UFFDIO_MOVE to another page of the block.
        Move = "move",
        /// UFFDIO_UNREGISTER.
        Unregister = "unregister",
        /// MADV_DONTNEED.
        Dontneed = "dontneed",
    }
}

axis! {
    /// What happens to the memory that a thread waits for.
    Turn {
        /// Nothing: the control.
        Nothing = "none",
        /// mlock2(MLOCK_ONFAULT).
        Lock = "lock-on-fault",
        /// mprotect(PROT_READ).
        Read = "read-only",
        /// mprotect(PROT_NONE).
        None = "no-access",
        /// A fork, whose child stays.
        Fork = "fork",
        /// A guard (MADV_GUARD_INSTALL).
        Guard = "guard",
        /// mseal(2).
        Seal = "mseal",
        /// MADV_DONTNEED.
        Dontneed = "dontneed",
        /// MADV_REMOVE.
        Remove = "remove",
    }
}

/// The cases.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for access in [Waiter::UserWrite, Waiter::UserRead, Waiter::SysWrite] {
        for state in State::ALL {
            for act in Act::ALL {
                let by_default = access == Waiter::UserWrite;
                cases.push(Case::trial(&STATE, stated(*state, *act, access), by_default));
            }
        }
    }
    for minor in [false, true] {
        let waiters = if minor {
            [Waiter::UserRead, Waiter::UserWrite, Waiter::SysWrite]
        } else {
            [Waiter::UserWrite, Waiter::SysRead, Waiter::VmWrite]
        };
        for turn in Turn::ALL {
            for waiter in waiters {
                if minor || *turn != Turn::Remove {
                    cases.push(Case::trial(&WAITER, waits(minor, *turn, waiter), true));
                }
            }
        }
    }
    cases
}

const fn at(first: usize, count: usize) -> Span {
    Span::new(Place::Block, first, count)
}

const ALL: Span = at(0, PAGES);
const PAGE: Span = at(2, 1);

impl State {
    const fn missing(self) -> bool {
        matches!(self, Self::LockedMissing | Self::ReadOnlyMissing | Self::NoAccessMissing)
    }

    const fn locked(self) -> bool {
        matches!(self, Self::Locked | Self::LockedMissing | Self::Populated)
    }

    const fn shared(self) -> bool {
        matches!(self, Self::Shared | Self::SharedOnce)
    }

    const fn unwritable(self) -> bool {
        matches!(
            self,
            Self::ReadOnly | Self::ReadOnlyMissing | Self::NoAccess | Self::NoAccessMissing
        )
    }

    const fn treat(self) -> Treat {
        match self {
            Self::Locked | Self::LockedMissing => Treat::LockOnFault,
            Self::Populated => Treat::Lock,
            Self::ReadOnly | Self::ReadOnlyMissing => Treat::Protect(libc::PROT_READ),
            Self::NoAccess | Self::NoAccessMissing => Treat::Protect(libc::PROT_NONE),
            Self::Shared | Self::SharedZero => Treat::Fork,
            Self::SharedOnce => Treat::ForkGone,
        }
    }
}

fn stated(state: State, act: Act, access: Waiter) -> Script {
    let mut steps = vec![Step::Map(ALL, Memory::Anon(RW))];
    if state == State::SharedZero {
        steps.push(Step::Load(PAGE));
    } else if !state.missing() {
        steps.push(Step::Fill(PAGE, tag::KEPT));
    }
    steps.extend([
        Step::Prepare(state.treat(), ALL),
        Step::Open(Ctx::First, 0),
        Step::Set(Ctx::First, Call::Register(ALL, REGISTER_MODE_MISSING | REGISTER_MODE_WP)),
    ]);
    let call = |call| Step::Do(Ctx::First, call, "op", "field");
    steps.push(match act {
        Act::Copy => call(Call::Copy(PAGE, 0)),
        Act::Zeropage => call(Call::Zeropage(PAGE, 0)),
        Act::Poison => call(Call::Poison(PAGE, 0)),
        Act::Protect => call(Call::Wp(PAGE, WRITEPROTECT_MODE_WP)),
        Act::Move => call(Call::Move(at(4, 1), PAGE, 0)),
        Act::Unregister => call(Call::Unregister(ALL)),
        Act::Dontneed => Step::Treat(DONTNEED, PAGE, "op"),
    });
    steps.extend([
        Step::Bits(PAGE, "bits"),
        Step::Touch(Ctx::First, access, PAGE, "touch"),
        Step::Bits(ALL, "end-bits"),
    ]);
    let needs = match act {
        Act::Poison => features::POISON,
        Act::Move => features::MOVE,
        _ => 0,
    };
    let axes = format!("page={state},op={act},access={access}");
    Script::new(axes, needs, steps, move |_| expect(state, act, access))
}

/// What the page holds after the act.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Left {
    Missing,
    Holds(&'static str),
    Protected(&'static str),
    Poisoned,
}

fn expect(state: State, act: Act, access: Waiter) -> Vec<Expected> {
    let held = if state == State::SharedZero { "zero" } else { "kept" };
    let before = if state.missing() { Left::Missing } else { Left::Holds(held) };
    let filled = |left, says| {
        if state.missing() {
            ("0", ONE_PAGE, left, says)
        } else {
            ("EEXIST", "-17", before, "mfill_atomic_install_pte(): only an empty entry is free")
        }
    };
    let (op, field, left, says) = match act {
        Act::Copy => filled(Left::Holds("copied"), source::COPY),
        Act::Zeropage => filled(Left::Holds("zero"), source::ZEROPAGE),
        Act::Poison => filled(Left::Poisoned, source::POISON),
        Act::Protect if state.missing() => ("0", "", before, source::WRITEPROTECT),
        Act::Protect => ("0", "", Left::Protected(held), source::WRITEPROTECT),
        Act::Move if state.unwritable() => ("EINVAL", "-22", before, crate::relocate::says::EINVAL),
        Act::Move if state == State::Populated => {
            ("EEXIST", "-17", before, "mlock(2) has populated the destination")
        }
        Act::Move if state.missing() => ("ENOENT", "-2", before, crate::relocate::says::ENOENT),
        Act::Move if state.shared() => ("EBUSY", "-16", before, crate::relocate::says::EBUSY),
        Act::Move => ("0", ONE_PAGE, Left::Missing, crate::relocate::says::MOVED),
        Act::Unregister => ("0", "", before, source::UNREGISTER),
        Act::Dontneed if state.locked() => {
            ("EINVAL", "", before, "madvise(2), MADV_DONTNEED: not of locked pages")
        }
        Act::Dontneed => ("0", "", Left::Missing, "madvise(2), MADV_DONTNEED"),
    };
    let stores = access.stores();
    let no_access = matches!(state, State::NoAccess | State::NoAccessMissing);
    let refused = no_access || (state.unwritable() && stores);
    let loaded = |content| {
        if access.loads() { format!("ran:{content}") } else { "ran".to_owned() }
    };
    let touch = match left {
        _ if refused && access.in_kernel() => "EFAULT".into(),
        _ if refused => "SEGV_ACCERR".into(),
        Left::Missing if act == Act::Unregister => loaded("zero"),
        Left::Missing if stores => "parks:write".into(),
        Left::Missing => "parks:read".into(),
        Left::Protected(_) if stores => "parks:wp-write".into(),
        Left::Holds(content) | Left::Protected(content) => loaded(content),
        Left::Poisoned if access.in_kernel() => "EFAULT".into(),
        Left::Poisoned => crate::poison::SIGBUS.into(),
    };
    let mut facts = vec![Expected::new("op", op, says)];
    if !field.is_empty() {
        facts.push(Expected::new("field", field, says));
    }
    facts.push(Expected::new("touch", touch, says));
    facts
}

impl Turn {
    const fn treat(self) -> Option<Treat> {
        Some(match self {
            Self::Nothing => return None,
            Self::Lock => Treat::LockOnFault,
            Self::Read => Treat::Protect(libc::PROT_READ),
            Self::None => Treat::Protect(libc::PROT_NONE),
            Self::Fork => Treat::Fork,
            Self::Guard => GUARD,
            Self::Seal => Treat::Seal,
            Self::Dontneed => DONTNEED,
            Self::Remove => REMOVE,
        })
    }
}

fn waits(minor: bool, turn: Turn, waiter: Waiter) -> Script {
    let mut steps = if minor {
        vec![
            Step::Map(ALL, Memory::Of(Backing::Shmem)),
            Step::Cache(PAGE),
            Step::Open(Ctx::First, 0),
            Step::Set(Ctx::First, Call::Register(ALL, REGISTER_MODE_MINOR)),
        ]
    } else {
        vec![
            Step::Map(ALL, Memory::Anon(RW)),
            Step::Fill(PAGE, tag::KEPT),
            Step::Open(Ctx::First, 0),
            Step::Set(Ctx::First, Call::Register(ALL, REGISTER_MODE_WP)),
            Step::Set(Ctx::First, Call::Wp(PAGE, WRITEPROTECT_MODE_WP)),
        ]
    };
    steps.push(Step::Park(Ctx::First, waiter, PAGE));
    let span = if matches!(turn, Turn::Guard | Turn::Dontneed | Turn::Remove) { PAGE } else { ALL };
    steps.extend(turn.treat().map(|treat| Step::Treat(treat, span, "change")));
    let call = if minor { Call::Continue(PAGE, 0) } else { Call::Wp(PAGE, 0) };
    steps.extend([
        Step::Glance(Ctx::First, "after-change"),
        Step::Do(Ctx::First, call, "op", "field"),
        Step::Look(Ctx::First),
        Step::Rescue(Ctx::First),
        Step::Bits(ALL, "bits"),
    ]);
    let mode = if minor { "minor" } else { "protection" };
    let axes = format!("waits-for={mode},change={turn},waiter={waiter}");
    Script::new(axes, 0, steps, move |kernel| expect_waits(minor, turn, waiter, kernel))
}

fn expect_waits(minor: bool, turn: Turn, waiter: Waiter, kernel: KernelVersion) -> Vec<Expected> {
    let says = if minor { source::CONTINUE } else { source::WRITEPROTECT };
    let refused = |signal: &'static str| if waiter.in_kernel() { "EFAULT" } else { signal };
    let ran = |content: &'static str| if waiter.loads() { content } else { "ran" };
    let since = KernelVersion::new(6, if minor { 15 } else { 13 }, 0);
    let guarded = turn == Turn::Guard && kernel >= since;
    // CONTINUE takes a guard for an empty entry before 6.19, as COPY does: see kinds/guard.
    let fills = minor && kernel < KernelVersion::new(6, 19, 0);
    let end = match turn {
        Turn::None => refused("SEGV_ACCERR"),
        Turn::Read if waiter.stores() => refused("SEGV_ACCERR"),
        Turn::Guard if guarded && !fills => refused("SEGV_MAPERR"),
        Turn::Remove => ran("ran:zero"),
        // Protected memory holds the page no longer, and is not registered for missing ones.
        Turn::Dontneed if !minor => ran("ran:zero"),
        _ => ran("ran:kept"),
    };
    let op = match turn {
        Turn::Remove => "EFAULT",
        Turn::Guard if guarded && minor && !fills => "EEXIST",
        _ => "0",
    };
    let mut facts = Vec::new();
    if turn == Turn::Guard {
        let rc = if guarded { "0" } else { "EINVAL" };
        let says = "madvise(2), MADV_GUARD_INSTALL: 6.13, files 6.15";
        facts.push(Expected::new("change", rc, says));
    }
    facts.push(Expected::new("after-change", "asleep", source::QUEUE));
    facts.push(Expected::new("op", op, says));
    let fails = op != "0";
    facts.push(Expected::new("waiter", if fails { "asleep" } else { end }, says));
    if fails {
        facts.push(Expected::new("rescued", end, source::RERUN));
    }
    facts
}
