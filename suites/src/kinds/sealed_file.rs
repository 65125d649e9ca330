//! Files with seals (fcntl(2), F_ADD_SEALS) behind registered memory: what a seal refuses, and what goes
//! on through a mapping from before the seal.

use crate::abi::{
    REGISTER_MODE_MINOR, REGISTER_MODE_MISSING, REGISTER_MODE_WP, WRITEPROTECT_MODE_WP, features,
};
use crate::expect::Expected;
use crate::memory::tag;
use crate::model::source;
use crate::point::{Backing, PAGES, Waiter, axis};
use crate::probe::{Case, Probe};
use crate::script::{Call, Ctx, Memory, Place, REMOVE, Script, Span, Step, Treat};
use uffd_results::KernelVersion;

static SEALED: Probe = Probe {
    suite: "kinds",
    name: "file-seal",
    statement: "Through a mapping from before the seal COPY, ZEROPAGE, CONTINUE, WRITEPROTECT and \
                POISON work whatever is sealed; a seal against writing refuses to remove pages, and is \
                itself refused while a shared mapping could write.",
    consumers: &[
        "E2B, Firecracker: memfds that are handed to a handler",
        "vhost-user: QEMU seals its memfds with F_SEAL_GROW, F_SEAL_SHRINK and F_SEAL_SEAL",
    ],
};

axis! {
    /// A seal.
    Kind {
        /// None: the control.
        None = "none",
        /// F_SEAL_SEAL.
        Seal = "seal",
        /// F_SEAL_SHRINK.
        Shrink = "shrink",
        /// F_SEAL_GROW.
        Grow = "grow",
        /// F_SEAL_WRITE of a file that is mapped shared.
        Write = "write",
        /// F_SEAL_FUTURE_WRITE.
        FutureWrite = "future-write",
        /// F_SEAL_WRITE of a file that is mapped private.
        WritePrivate = "write-private",
        /// F_SEAL_FUTURE_WRITE of a file that is mapped private.
        FutureWritePrivate = "future-write-private",
    }
}

axis! {
    /// What is done after the seal.
    Act {
        /// UFFDIO_COPY.
        Copy = "copy",
        /// UFFDIO_ZEROPAGE.
        Zeropage = "zeropage",
        /// UFFDIO_CONTINUE.
        Continue = "continue",
        /// UFFDIO_WRITEPROTECT of the page that is there, and a store to it.
        Protect = "protect",
        /// UFFDIO_POISON.
        Poison = "poison",
        /// fallocate(FALLOC_FL_PUNCH_HOLE) of the page that is there.
        Punch = "punch-hole",
        /// MADV_REMOVE of the page that is there.
        Remove = "remove",
        /// ftruncate(2) to two pages and back again.
        Truncate = "truncate",
    }
}

impl Kind {
    const fn flag(self) -> Option<(i32, &'static str)> {
        Some(match self {
            Self::None => return None,
            Self::Seal => (libc::F_SEAL_SEAL, "F_SEAL_SEAL"),
            Self::Shrink => (libc::F_SEAL_SHRINK, "F_SEAL_SHRINK"),
            Self::Grow => (libc::F_SEAL_GROW, "F_SEAL_GROW"),
            Self::Write | Self::WritePrivate => (libc::F_SEAL_WRITE, "F_SEAL_WRITE"),
            Self::FutureWrite | Self::FutureWritePrivate => {
                (libc::F_SEAL_FUTURE_WRITE, "F_SEAL_FUTURE_WRITE")
            }
        })
    }

    const fn private(self) -> bool {
        matches!(self, Self::WritePrivate | Self::FutureWritePrivate)
    }

    /// Whether pages of the file can't be removed.
    const fn keeps_pages(self) -> bool {
        matches!(self, Self::FutureWrite | Self::WritePrivate | Self::FutureWritePrivate)
    }
}

/// The cases.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for seal in Kind::ALL {
        for act in Act::ALL {
            if !(seal.private() && matches!(act, Act::Continue | Act::Remove)) {
                cases.push(Case::trial(&SEALED, script(*seal, *act), true));
            }
        }
    }
    cases
}

const fn at(first: usize, count: usize) -> Span {
    Span::new(Place::Block, first, count)
}

const ALL: Span = at(0, PAGES);

fn script(seal: Kind, act: Act) -> Script {
    let backing = if seal.private() { Backing::Private } else { Backing::Shmem };
    let (missing, there) = (at(2, 1), at(3, 1));
    let mut steps = vec![Step::Map(ALL, Memory::Sealable(backing)), Step::Fill(there, tag::KEPT)];
    if act == Act::Continue {
        steps.push(Step::Cache(missing));
    }
    let mode = match act {
        Act::Continue => REGISTER_MODE_MINOR,
        Act::Protect => REGISTER_MODE_MISSING | REGISTER_MODE_WP,
        _ => REGISTER_MODE_MISSING,
    };
    steps.extend([
        Step::Open(Ctx::First, 0),
        Step::Set(Ctx::First, Call::Register(ALL, mode)),
        Step::Park(Ctx::First, Waiter::UserRead, missing),
    ]);
    let sealed = seal.flag().map(|(flag, name)| Treat::SealFile(flag, name));
    steps.extend(sealed.map(|treat| Step::Treat(treat, ALL, "seal")));
    let call = |call| Step::Do(Ctx::First, call, "op", "field");
    steps.push(match act {
        Act::Copy => call(Call::Copy(missing, 0)),
        Act::Zeropage => call(Call::Zeropage(missing, 0)),
        Act::Continue => call(Call::Continue(missing, 0)),
        Act::Protect => call(Call::Wp(there, WRITEPROTECT_MODE_WP)),
        Act::Poison => call(Call::Poison(missing, 0)),
        Act::Punch => Step::Treat(Treat::Punch, there, "op"),
        Act::Remove => Step::Treat(REMOVE, there, "op"),
        Act::Truncate => Step::Treat(Treat::TruncateAndGrow, at(2, 1), "op"),
    });
    steps.extend([
        Step::Look(Ctx::First),
        Step::Survey(at(0, 4), "reg", "pages"),
        Step::Rescue(Ctx::First),
        Step::Touch(Ctx::First, Waiter::UserWrite, there, "store"),
    ]);
    let needs = if act == Act::Poison { features::POISON } else { 0 };
    Script::new(format!("seal={seal},op={act}"), needs, steps, move |kernel| {
        expect(seal, act, kernel)
    })
}

fn expect(seal: Kind, act: Act, _: KernelVersion) -> Vec<Expected> {
    let sealing = "memfd_add_seals() in mm/memfd.c: F_SEAL_WRITE is EBUSY while a shared mapping may \
                   write";
    let keeps = "shmem_fallocate() and shmem_setattr() in mm/shmem.c: a hole is EPERM with F_SEAL_WRITE \
                 and F_SEAL_FUTURE_WRITE, a shorter file with F_SEAL_SHRINK, a longer one with F_SEAL_GROW";
    let mut facts = Vec::new();
    if seal.flag().is_some() {
        let rc = if seal == Kind::Write { "EBUSY" } else { "0" };
        facts.push(Expected::new("seal", rc, sealing));
    }
    let filled = |op, waiter| (op, waiter, source::COPY);
    let (op, waiter, says) = match act {
        Act::Copy => filled("0", "ran:copied"),
        Act::Zeropage => filled("0", "ran:zero"),
        Act::Continue => ("0", "ran:kept", source::CONTINUE),
        Act::Poison => ("0", crate::poison::SIGBUS, source::POISON),
        Act::Protect => ("0", "asleep", source::WRITEPROTECT),
        Act::Punch | Act::Remove if seal.keeps_pages() => ("EPERM", "asleep", keeps),
        Act::Truncate if matches!(seal, Kind::Shrink | Kind::Grow) => ("EPERM", "asleep", keeps),
        Act::Punch | Act::Remove | Act::Truncate => ("0", "asleep", keeps),
    };
    facts.push(Expected::new("op", op, says));
    facts.push(Expected::new("waiter", waiter, says));
    if waiter == "asleep" {
        let beyond = act == Act::Truncate && seal == Kind::Grow;
        let rescued = if beyond { "BUS_ADRERR" } else { "again" };
        facts.push(Expected::new("rescued", rescued, source::RERUN));
    }
    let gone = op == "0" && matches!(act, Act::Punch | Act::Remove | Act::Truncate);
    let store = match (act, seal) {
        (Act::Protect, _) => "parks:wp-write",
        (Act::Truncate, Kind::Grow) => "BUS_ADRERR",
        // The private copy of a page outlives a hole, and not the end of the file.
        (Act::Punch, seal) if seal.private() => "ran",
        _ if gone => "parks:write",
        _ => "ran",
    };
    facts.push(Expected::new("store", store, says));
    facts
}
