//! What happens to a registration afterwards: protection that changes, pages that were there before.

use super::words::MODE;
use crate::abi::{REGISTER_MODE_MISSING, Rc};
use crate::expect::Expected;
use crate::lab::{Lab, length, outcome, want};
use crate::memory::{RW, dontneed, protect, tag};
use crate::model::source;
use crate::outcome::{Seen, Stop};
use crate::point::{Backing, Waiter as Kind, axis};
use crate::probe::{Case, Probe, Trial};
use crate::stage::Stage;
use crate::touch;
use crate::waiter::Waiter;
use uffd_results::KernelVersion;

static PROT: Probe = Probe {
    suite: "register",
    name: "mprotect-later",
    statement: "A registration outlives mprotect: memory that was registered without access faults to \
                userfaultfd once it may be accessed, and COPY serves it whatever its protection.",
    consumers: &[
        "QEMU libvhost-user: generate_faults() registers PROT_NONE memory, then mprotect(RW)",
        "Firecracker virtio-mem: PROT_NONE while unplugged",
    ],
};
static PRESENT: Probe = Probe {
    suite: "register",
    name: "present-before",
    statement: "Pages that are present when they are registered stay and raise no fault, the zero page \
                too; pages of the page cache that are not mapped raise none in missing mode.",
    consumers: &[
        "QEMU: discards RAM before REGISTER, ram_block_discard_range()",
        "crosvm, Cloud Hypervisor: guest memory of a memfd that was written before",
    ],
};

/// The page that is touched and placed.
const TOUCHED: usize = 2;

/// REGISTER of the whole block for missing pages, whose return value is recorded.
fn register(lab: &Lab<'_>, seen: &mut Seen<'_>) {
    let rc = lab.uffd.register(lab.all(), REGISTER_MODE_MISSING);
    seen.fact("register", Rc(rc.err()));
}

/// Has a thread touch page 2, copies to it, and looks at the thread if it has parked.
fn touch_and_copy(lab: &Lab<'_>, kind: Kind, seen: &mut Seen<'_>) -> Result<(), Stop> {
    let target = lab.page(TOUCHED);
    seen.step("touch");
    let mut waiter = Waiter::start(lab.stage, kind, target)?;
    let fate = waiter.settle(&lab.uffd, &lab.queue)?;
    let parks = fate.waits();
    seen.fact("touch", if parks { "parks".into() } else { lab.stage.word(fate) });
    if parks {
        while lab.uffd.read().is_ok() {}
    }
    seen.step("copy");
    outcome(("copy", "field"), lab.uffd.copy(target, lab.stage.source, 0), seen);
    if parks {
        lab.look("waiter", &mut waiter, seen)?;
    }
    Ok(())
}

/// What a COPY that places its page returns.
fn copied(backing: Backing) -> Vec<Expected> {
    want(source::COPY, &[("copy", "0"), ("field", &length(backing))])
}

axis! {
    /// A protection.
    Prot {
        /// No access.
        None = "none",
        /// Read.
        Read = "read",
        /// Read and write.
        Write = "write",
    }
}

impl Prot {
    const fn bits(self) -> i32 {
        match self {
            Self::None => libc::PROT_NONE,
            Self::Read => libc::PROT_READ,
            Self::Write => RW,
        }
    }

    /// Whether an access of this kind is allowed.
    fn allows(self, waiter: Kind) -> bool {
        match self {
            Self::None => false,
            Self::Read => !waiter.stores(),
            Self::Write => true,
        }
    }
}

/// mprotect after REGISTER.
#[derive(Clone, Copy, Debug)]
struct Protected {
    backing: Backing,
    at_register: Prot,
    later: Prot,
    waiter: Kind,
}

impl Trial for Protected {
    fn axes(&self) -> String {
        let Self { backing, at_register, later, waiter } = self;
        format!("backing={backing},registered={at_register},later={later},touch={waiter}")
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        seen.step("set-up");
        let lab = Lab::new(stage, self.backing, 0)?;
        let rc = protect(lab.all(), self.at_register.bits());
        if !rc.is_ok() {
            return Err(Stop::Broken(format!("mprotect before REGISTER: {rc}")));
        }
        register(&lab, seen);
        seen.step("mprotect");
        seen.fact("mprotect", protect(lab.all(), self.later.bits()));
        lab.registered("reg", seen)?;
        touch_and_copy(&lab, self.waiter, seen)
    }

    fn expect(&self, _: KernelVersion) -> Vec<Expected> {
        let says = "mprotect_fixup() in mm/mprotect.c: the context stays with the mapping that it splits or changes";
        let mut facts = vec![
            Expected::new("register", "0", MODE),
            Expected::new("mprotect", "0", "mprotect(2)"),
            Expected::new("reg", "mmmmmm", says),
        ];
        let parks = self.later.allows(self.waiter);
        let refused = if self.waiter.in_kernel() { "EFAULT" } else { "SEGV_ACCERR" };
        facts.push(Expected::new("touch", if parks { "parks" } else { refused }, source::QUEUE));
        facts.extend(copied(self.backing));
        if parks {
            facts.push(Expected::new("waiter", self.waiter.ran("copied"), source::COPY));
        }
        facts
    }

    fn recipe(&self) -> Vec<String> {
        let Self { backing, at_register, later, waiter } = self;
        vec![
            format!("map a {backing} block with this access: {at_register}; register it"),
            format!("mprotect it to this access: {later}"),
            format!("a {waiter} thread touches page 2; UFFDIO_COPY to page 2"),
        ]
    }

    fn uses_huge_pages(&self) -> bool {
        self.backing.is_huge()
    }
}

axis! {
    /// How a page came to be before it is registered.
    Before {
        /// It did not.
        Never = "never",
        /// It was written to.
        Written = "written",
        /// It was read: the zero page, or a page of the page cache.
        Read = "read",
        /// It was written to and discarded with MADV_DONTNEED.
        WrittenDiscarded = "written-then-dontneed",
        /// It was read and discarded with MADV_DONTNEED.
        ReadDiscarded = "read-then-dontneed",
        /// It was written to the file by another mapping.
        Cached = "cached",
    }
}

/// A page that is registered after something happened to it.
#[derive(Clone, Copy, Debug)]
struct Present {
    backing: Backing,
    before: Before,
    waiter: Kind,
}

impl Present {
    /// What the page is at REGISTER: missing, there with a content, or in the page cache alone.
    fn state(self) -> State {
        let private = self.backing.is_private();
        let file = !matches!(self.backing, Backing::Anon | Backing::HugetlbPrivate);
        match self.before {
            Before::Written => State::There('k'),
            Before::Read => State::There('0'),
            Before::Cached => State::Cached('k'),
            // A private copy is gone; what was in the page cache below it stays.
            Before::WrittenDiscarded if !private => State::Cached('k'),
            Before::WrittenDiscarded | Before::ReadDiscarded if file => State::Cached('0'),
            Before::Never | Before::WrittenDiscarded | Before::ReadDiscarded => State::Missing,
        }
    }
}

/// See [`Present::state`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Missing,
    There(char),
    Cached(char),
}

impl Trial for Present {
    fn axes(&self) -> String {
        let Self { backing, before, waiter } = self;
        format!("backing={backing},before={before},touch={waiter}")
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        seen.step("set-up");
        let lab = Lab::new(stage, self.backing, 0)?;
        let target = lab.page(TOUCHED);
        let fail = |signal| Stop::Broken(format!("touching the page: {signal}"));
        match self.before {
            Before::Never => {}
            Before::Cached => lab.block.fill_cache(TOUCHED)?,
            Before::Written | Before::WrittenDiscarded => {
                touch::store(target.start, tag::KEPT).map_err(fail)?;
            }
            Before::Read | Before::ReadDiscarded => {
                touch::load(target.start).map_err(fail)?;
            }
        }
        if matches!(self.before, Before::WrittenDiscarded | Before::ReadDiscarded) {
            seen.fact("madvise", dontneed(target));
        }
        register(&lab, seen);
        lab.contents("pages", seen)?;
        touch_and_copy(&lab, self.waiter, seen)
    }

    fn expect(&self, kernel: KernelVersion) -> Vec<Expected> {
        let says = "Documentation/admin-guide/mm/userfaultfd.rst: missing faults are of pages that are \
                    neither mapped nor in the page cache";
        let mut facts = Vec::new();
        let discards = matches!(self.before, Before::WrittenDiscarded | Before::ReadDiscarded);
        let mut state = self.state();
        if discards {
            let old = self.backing.is_huge() && kernel < KernelVersion::new(5, 18, 0);
            if old {
                state = Self { before: undone(self.before), ..*self }.state();
            }
            facts.push(Expected::new(
                "madvise",
                if old { "EINVAL" } else { "0" },
                source::DONTNEED_HUGE,
            ));
        }
        facts.push(Expected::new("register", "0", MODE));
        let here = if let State::There(letter) = state { letter } else { '-' };
        facts.push(Expected::new("pages", format!("--{here}---"), says));
        let load = |letter| if letter == 'k' { "ran:kept" } else { "ran:zero" };
        let touch = match state {
            State::Missing => "parks",
            _ if !self.waiter.loads() => "ran",
            State::There(letter) | State::Cached(letter) => load(letter),
        };
        facts.push(Expected::new("touch", touch, says));
        if touch == "parks" {
            facts.extend(copied(self.backing));
            facts.push(Expected::new("waiter", self.waiter.ran("copied"), source::COPY));
        } else {
            let says = "ioctl_userfaultfd(2), UFFDIO_COPY, EEXIST: the page is there";
            facts.push(Expected::new("copy", "EEXIST", says));
            facts.push(Expected::new("field", "-17", says));
        }
        facts
    }

    fn recipe(&self) -> Vec<String> {
        let Self { backing, before, waiter } = self;
        vec![
            format!("map a {backing} block; of page 2 before REGISTER: {before}"),
            format!("UFFDIO_REGISTER for missing pages; a {waiter} thread touches page 2"),
            "UFFDIO_COPY to page 2".into(),
        ]
    }

    fn uses_huge_pages(&self) -> bool {
        self.backing.is_huge()
    }
}

/// What happened to a page whose discard was refused.
const fn undone(before: Before) -> Before {
    match before {
        Before::WrittenDiscarded => Before::Written,
        Before::ReadDiscarded => Before::Read,
        other => other,
    }
}

/// The cases.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let touches = [Kind::UserRead, Kind::UserWrite, Kind::SysWrite, Kind::SysRead];
    for backing in Backing::ALL {
        for waiter in touches {
            let plain = !backing.is_huge() && !waiter.in_kernel();
            for at_register in Prot::ALL {
                for later in Prot::ALL {
                    let telling = plain
                        && (matches!(backing, Backing::Anon | Backing::Shmem)
                            || *at_register == Prot::None);
                    let trial = Protected {
                        backing: *backing,
                        at_register: *at_register,
                        later: *later,
                        waiter,
                    };
                    cases.push(Case::trial(&PROT, trial, telling));
                }
            }
            for before in Before::ALL {
                let file =
                    matches!(backing, Backing::Shmem | Backing::Private | Backing::HugetlbShared);
                if *before == Before::Cached && !file {
                    continue;
                }
                let trial = Present { backing: *backing, before: *before, waiter };
                cases.push(Case::trial(&PRESENT, trial, plain));
            }
        }
    }
    cases
}
