//! Where the argument struct stands: memory that can't be read, memory that can't be written, a
//! struct that is cut in two, one that is not aligned.

use super::ground::{ARGUMENT, Did, Ground, Verdict, Words, argument_page};
use super::range::TASK_SIZE;
use super::twist::{Called, Twist, Twisted, grounds};
use crate::abi::command::WORDS;
use crate::abi::{Range, Rc};
use crate::memory::{PAGE, RW, map, new_data, unmap};
use crate::outcome::{Seen, Stop};
use crate::point::{Backing, axis};
use crate::probe::{Case, Probe};
use crate::scenario::Scene;
use std::os::fd::AsFd;
use uffd_results::KernelVersion;

static UNREADABLE: Probe = Probe {
    suite: "arguments",
    name: "struct",
    statement: "An argument struct that can't be read is EFAULT and nothing is done; if only its \
                result can't be written, the work is done, EFAULT is returned and nobody is woken.",
    consumers: &[
        "bindings that pass a shorter or a constant struct: userfaultfd-rs, userfaultfd-sys",
    ],
};

axis! {
    /// The memory in which the end of a struct stands.
    Tail {
        /// None.
        Unmapped = "unmapped",
        /// Memory without access.
        ProtNone = "prot-none",
        /// Memory that can only be read.
        ReadOnly = "read-only",
    }
}

axis! {
    /// An address that holds no struct.
    Address {
        /// 0.
        Null = "null",
        /// The last word of user memory.
        LastUser = "last-user-word",
        /// The first address behind user memory.
        TaskSize = "task-size",
        /// An address that is not canonical.
        NonCanonical = "non-canonical",
        /// The kernel's memory.
        Kernel = "kernel",
        /// The last word of all.
        Last = "last-word",
    }
}

impl Address {
    const fn value(self) -> usize {
        match self {
            Self::Null => 0,
            Self::LastUser => TASK_SIZE - 8,
            Self::TaskSize => TASK_SIZE,
            Self::NonCanonical => 1 << 48,
            Self::Kernel => 0xffff_8880_0000_0000,
            Self::Last => usize::MAX - 7,
        }
    }
}

/// Where the struct stands.
#[derive(Clone, Copy, Debug)]
pub(super) enum Place {
    /// Its first words in good memory, the others behind the end of the page.
    Split(usize, Tail),
    /// Its result word half in good memory, half in memory that can only be read.
    HalfResult,
    /// This many bytes behind an aligned address, in good memory.
    Odd(usize),
    /// Good words in front of the end of a page, this many bytes of the last one behind it, in
    /// another good page.
    Across(usize),
    /// At an address that holds none.
    At(Address),
}

impl Place {
    /// The address of the struct.
    pub(super) fn address(self, ground: Ground) -> usize {
        let (end, words) = (ARGUMENT + PAGE, ground.command.words());
        match self {
            Self::Split(keeps, _) => end - 8 * keeps,
            Self::HalfResult => end - 8 * words + 4,
            Self::Odd(bytes) => ARGUMENT + 64 + bytes,
            Self::Across(bytes) => end - 8 * words + bytes,
            Self::At(address) => address.value(),
        }
    }

    /// Puts the words there.
    pub(super) fn put(self, ground: Ground, words: &Words) -> Result<(), Stop> {
        let at = self.address(ground);
        match self {
            Self::At(_) => Ok(()),
            Self::Odd(_) => {
                argument_page()?;
                ground.write(words, at)
            }
            Self::Across(_) => put_across(ground, words, at, None),
            Self::HalfResult => put_across(ground, words, at, Some(Tail::ReadOnly)),
            Self::Split(_, tail) => put_across(ground, words, at, Some(tail)),
        }
    }

    /// Where it stands, as ids write it.
    pub(super) fn word(self) -> String {
        match self {
            Self::Split(keeps, tail) => format!("{keeps}-words-then-{tail}"),
            Self::HalfResult => "half-a-result-then-read-only".into(),
            Self::Odd(bytes) => format!("odd-by-{bytes}"),
            Self::Across(bytes) => format!("across-pages-by-{bytes}"),
            Self::At(address) => format!("at-{address}"),
        }
    }
}

/// Puts words across the border of two pages, of which the second is then as `tail` says. Both are
/// pages of a file, which keeps the words while its mapping changes.
fn put_across(ground: Ground, words: &Words, at: usize, tail: Option<Tail>) -> Result<(), Stop> {
    let file = new_data(PAGE)?;
    let both = Range { start: ARGUMENT, len: 2 * PAGE };
    let second = Range { start: ARGUMENT + PAGE, len: PAGE };
    let broken = |rc: Rc| Stop::Broken(format!("mapping the pages of an argument: {rc}"));
    let checked = |rc: Rc| if rc.is_ok() { Ok(()) } else { Err(broken(rc)) };
    checked(map(both, RW, libc::MAP_SHARED, Some(file.as_fd()), 0))?;
    ground.write(words, at)?;
    let again = |prot| map(second, prot, libc::MAP_SHARED, Some(file.as_fd()), PAGE);
    match tail {
        None => Ok(()),
        Some(Tail::Unmapped) => checked(unmap(second)),
        Some(Tail::ProtNone) => checked(again(libc::PROT_NONE)),
        Some(Tail::ReadOnly) => checked(again(libc::PROT_READ)),
    }
}

impl Twist for Place {
    fn axis(&self) -> String {
        format!("struct={}", self.word())
    }

    fn applies(&self, ground: Ground) -> bool {
        match self {
            Self::Split(keeps, _) => *keeps < ground.command.words(),
            Self::HalfResult => ground.command.has_result(),
            _ => true,
        }
    }

    fn call(&self, ground: Ground, scene: &Scene<'_>, seen: &mut Seen<'_>) -> Result<Called, Stop> {
        self.put(ground, &ground.good(scene))?;
        let at = self.address(ground);
        seen.step("call");
        let rc = scene.uffd.raw(ground.command.request(), at);
        let readable =
            !matches!(self, Self::At(_) | Self::Split(_, Tail::Unmapped | Tail::ProtNone));
        Ok(Called { rc, field: if readable { ground.result(at)? } else { None } })
    }

    fn verdict(&self, ground: Ground, _: KernelVersion) -> Verdict {
        let command = ground.command;
        let reads = command.words() - usize::from(command.has_result());
        let efault = "ioctl_userfaultfd(2), EFAULT: the argument is outside of accessible memory";
        let half = "put_user() of the result comes before the wake-up: EFAULT leaves the work done and \
                    the waiter asleep";
        let unreadable = Verdict { field: None, ..Verdict::refused("EFAULT", efault) };
        let did = if ground.works() { Did::Silently } else { Did::Nothing };
        let unwritable = Verdict { did, ..Verdict::refused("EFAULT", half) };
        match self {
            Self::Odd(_) | Self::Across(_) => Verdict::done(ground, "x86-64 reads at any address"),
            Self::At(_) => unreadable,
            Self::Split(_, Tail::ReadOnly) if !command.has_result() => {
                Verdict::done(ground, "the kernel only reads the struct of this ioctl")
            }
            Self::Split(_, Tail::ReadOnly) | Self::HalfResult => unwritable,
            Self::Split(keeps, _) if *keeps < reads => unreadable,
            Self::Split(..) => Verdict { field: None, ..unwritable },
        }
    }

    fn says(&self, ground: Ground) -> String {
        format!("{} with a struct {}", ground.command, self.word())
    }
}

/// The cases: all by default on anonymous memory; on shared memory those that cut the struct.
pub(super) fn cases() -> Vec<Case> {
    let mut places: Vec<Place> = Vec::new();
    for tail in Tail::ALL {
        places.extend((0..WORDS).map(|keeps| Place::Split(keeps, *tail)));
    }
    places.extend([Place::HalfResult, Place::Across(1), Place::Across(4), Place::Across(7)]);
    places.extend([1, 4, 7].map(Place::Odd));
    places.extend(Address::ALL.iter().map(|address| Place::At(*address)));
    let mut cases = Vec::new();
    for (ground, plain) in grounds() {
        for place in &places {
            let cuts = matches!(place, Place::Split(_, Tail::ReadOnly) | Place::HalfResult);
            // CONTINUE has no anonymous memory.
            let telling = ground.backing == Backing::Anon
                || ground.command == crate::abi::command::Command::Continue
                || cuts;
            if cuts || !ground.backing.is_huge() {
                cases.extend(Twisted::case(&UNREADABLE, ground, *place, plain && telling));
            }
        }
    }
    cases
}
