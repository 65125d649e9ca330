//! What happens to a registration afterwards: protection that changes, pages that were there before.

use super::words::MODE;
use crate::abi::REGISTER_MODE_MISSING;
use crate::evidence::{self, QueueFile};
use crate::expect::Expected;
use crate::memory::{BLOCK, Block, PAGE, RW, dontneed, protect, tag};
use crate::model::source;
use crate::outcome::{Seen, Stop};
use crate::point::{Backing, PAGES, Waiter as Kind, axis};
use crate::probe::{Case, Probe, Trial};
use crate::stage::Stage;
use crate::touch;
use crate::waiter::{Fate, Waiter};
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
        let block = Block::map(self.backing, BLOCK)?;
        let (all, target) = (block.range(0..PAGES), block.range(2..3));
        let rc = protect(all, self.at_register.bits());
        if !rc.is_ok() {
            return Err(Stop::Broken(format!("mprotect before REGISTER: {rc}")));
        }
        let uffd = stage.uffd(0)?;
        let queue = QueueFile::open(&uffd)?;
        let rc = uffd.register(all, REGISTER_MODE_MISSING);
        seen.fact("register", rc.map_or_else(|e| format!("{e:?}"), |_| "0".to_owned()));
        seen.step("mprotect");
        seen.fact("mprotect", protect(all, self.later.bits()));
        seen.fact("reg", evidence::registration(&[(all, block.page)])?.concat());
        seen.step("touch");
        let mut waiter = Waiter::start(stage, self.waiter, target)?;
        let fate = waiter.settle(&uffd, &queue)?;
        seen.fact("touch", if fate == Fate::Again { "parks".into() } else { stage.word(fate) });
        if fate == Fate::Again {
            while uffd.read().is_ok() {}
        }
        seen.step("copy");
        let (rc, field) = uffd.copy(target, stage.source, 0);
        seen.fact("copy", rc);
        seen.fact("field", field);
        if fate == Fate::Again {
            seen.fact("waiter", stage.word(waiter.look(&uffd, &queue)?));
        }
        Ok(())
    }

    fn expect(&self, _: KernelVersion) -> Vec<Expected> {
        let says = "mprotect_fixup() in mm/mprotect.c: the context stays with the mapping that it splits or changes";
        let page = if self.backing.is_huge() { crate::memory::HUGE } else { PAGE };
        let mut facts = vec![
            Expected::new("register", "0", MODE),
            Expected::new("mprotect", "0", "mprotect(2)"),
            Expected::new("reg", "mmmmmm", says),
        ];
        let parks = self.later.allows(self.waiter);
        let refused = if self.waiter.in_kernel() { "EFAULT" } else { "SEGV_ACCERR" };
        facts.push(Expected::new("touch", if parks { "parks" } else { refused }, source::QUEUE));
        facts.push(Expected::new("copy", "0", source::COPY));
        facts.push(Expected::new("field", page.to_string(), source::COPY));
        if parks {
            let ran = if self.waiter.loads() { "ran:copied" } else { "ran" };
            facts.push(Expected::new("waiter", ran, source::COPY));
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
        let block = Block::map(self.backing, BLOCK)?;
        let (all, target) = (block.range(0..PAGES), block.range(2..3));
        let fail = |signal| Stop::Broken(format!("touching the page: {signal}"));
        match self.before {
            Before::Never => {}
            Before::Cached => block.fill_cache(2)?,
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
        let uffd = stage.uffd(0)?;
        let queue = QueueFile::open(&uffd)?;
        let rc = uffd.register(all, REGISTER_MODE_MISSING);
        seen.fact("register", rc.map_or_else(|e| format!("{e:?}"), |_| "0".to_owned()));
        let letter = |value| stage.letter(value);
        seen.fact("pages", evidence::pages(all, block.page, &letter)?);
        seen.step("touch");
        let mut waiter = Waiter::start(stage, self.waiter, target)?;
        let fate = waiter.settle(&uffd, &queue)?;
        seen.fact("touch", if fate == Fate::Again { "parks".into() } else { stage.word(fate) });
        if fate == Fate::Again {
            while uffd.read().is_ok() {}
        }
        seen.step("copy");
        let (rc, field) = uffd.copy(target, stage.source, 0);
        seen.fact("copy", rc);
        seen.fact("field", field);
        if fate == Fate::Again {
            seen.fact("waiter", stage.word(waiter.look(&uffd, &queue)?));
        }
        Ok(())
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
            let page = if self.backing.is_huge() { crate::memory::HUGE } else { PAGE };
            let ran = if self.waiter.loads() { "ran:copied" } else { "ran" };
            facts.push(Expected::new("copy", "0", source::COPY));
            facts.push(Expected::new("field", page.to_string(), source::COPY));
            facts.push(Expected::new("waiter", ran, source::COPY));
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
