//! A waiter of one context whose page now belongs to another.

use crate::evidence::QueueFile;
use crate::expect::Expected;
use crate::memory::{BLOCK, ONE_PAGE, unmap};
use crate::model::source;
use crate::outcome::{Seen, Stop};
use crate::point::{Backing, Change, PAGES, Point, Waiter};
use crate::probe::{Case, Probe, Trial};
use crate::scenario::Scene;
use crate::stage::Stage;
use crate::waiter::Fate;
use uffd_results::KernelVersion;

static ADOPT: Probe = Probe {
    suite: "changes",
    name: "adopt-by-other",
    statement: "Memory mapped anew in a waiter's place and registered with another context: COPY works \
                through both, but only what is done through the waiter's own context wakes it, and it \
                then waits with the other's.",
    consumers: &["crosvm: swap/ after a device restarts", "QEMU: a second postcopy after recovery"],
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    Look,
    CopyOwn,
    CopyOther,
    WakeOwn,
    WakeOther,
    UnregisterOwn,
    UnregisterOther,
    CloseOwn,
    CloseOther,
}

impl Act {
    const ALL: [Self; 9] = [
        Self::Look,
        Self::CopyOwn,
        Self::CopyOther,
        Self::WakeOwn,
        Self::WakeOther,
        Self::UnregisterOwn,
        Self::UnregisterOther,
        Self::CloseOwn,
        Self::CloseOther,
    ];

    const fn word(self) -> &'static str {
        match self {
            Self::Look => "look",
            Self::CopyOwn => "copy-own",
            Self::CopyOther => "copy-other",
            Self::WakeOwn => "wake-own",
            Self::WakeOther => "wake-other",
            Self::UnregisterOwn => "unregister-own",
            Self::UnregisterOther => "unregister-other",
            Self::CloseOwn => "close-own",
            Self::CloseOther => "close-other",
        }
    }
}

#[derive(Debug)]
struct Adopted {
    backing: Backing,
    /// munmap(2) first, or mmap(MAP_FIXED) over.
    over: bool,
    waiter: Waiter,
    act: Act,
}

/// The pages that change owner.
const ADOPTED: std::ops::Range<usize> = 2..4;

impl Trial for Adopted {
    fn axes(&self) -> String {
        let Self { backing, over, waiter, act } = self;
        let how = if *over { "mmap-over" } else { "munmap" };
        format!("backing={backing},how={how},waiter={waiter},op={}", act.word())
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        seen.step("set-up");
        let point = Point::missing(self.backing, self.waiter);
        let scene = Scene::set(stage, point)?;
        let other = stage.uffd(0)?;
        let other_queue = QueueFile::open(&other)?;
        let (target, adopted) = (scene.target(), scene.block.range(ADOPTED));
        let Some(mut waiter) = scene.park(point, seen)? else {
            return Err(Stop::Broken("nobody to wait".into()));
        };
        seen.step("change");
        if !self.over {
            seen.fact("munmap", unmap(adopted));
        }
        seen.fact("mmap", scene.block.map_pages(ADOPTED, BLOCK, 0));
        let registered = other.register(adopted, crate::abi::REGISTER_MODE_MISSING);
        seen.fact("register", crate::abi::Rc(registered.err()));
        seen.step("act");
        let (mut scene, mut other) = (Some(scene), Some(other));
        if let (Some(own), Some(theirs)) = (&scene, &other) {
            match self.act {
                Act::Look | Act::CloseOwn | Act::CloseOther => {}
                Act::CopyOwn | Act::CopyOther => {
                    let through = if self.act == Act::CopyOwn { &own.uffd } else { theirs };
                    let (rc, field) = through.copy(target, stage.source, 0);
                    seen.fact("copy", rc);
                    seen.fact("field", field);
                }
                Act::WakeOwn => seen.fact("wake", own.uffd.wake(target)),
                Act::WakeOther => seen.fact("wake", theirs.wake(target)),
                Act::UnregisterOwn => seen.fact("unregister", own.uffd.unregister(adopted)),
                Act::UnregisterOther => seen.fact("unregister", theirs.unregister(adopted)),
            }
        }
        match self.act {
            Act::CloseOwn => scene = None,
            Act::CloseOther => other = None,
            _ => {}
        }
        // Once it has left its own queue it can only wait in the other's.
        let mut fate = Fate::Asleep;
        let mut asleep = false;
        if let Some(own) = &scene {
            let queue = own.queue.read()?;
            seen.fact("own-queue", queue);
            asleep = queue.total == 1;
        }
        if let Some(own) = scene.as_ref().filter(|_| asleep) {
            seen.fact("waiter", waiter.look(&own.uffd, &own.queue)?);
            seen.fact("other-queue", counters(other.as_ref().map(|_| &other_queue))?);
            own.survey(Change::None, seen)?;
            seen.step("rescue");
            seen.fact("rescue", own.uffd.wake(target));
        }
        fate = match &other {
            Some(theirs) => waiter.settle(theirs, &other_queue)?,
            None if asleep => waiter.end()?,
            None => fate,
        };
        seen.fact(if asleep { "rescued" } else { "waiter" }, stage.word(fate));
        seen.fact("other-queue-then", counters(other.as_ref().map(|_| &other_queue))?);
        if fate.waits() {
            seen.step("close");
            drop(other);
            seen.fact("closed", stage.word(waiter.end()?));
        }
        Ok(())
    }

    fn expect(&self, kernel: KernelVersion) -> Vec<Expected> {
        let mut facts = vec![Expected::new("fault", self.fault(), source::QUEUE)];
        let mut say = |name, value: &str, says| {
            facts.push(Expected::new(name, value.to_owned(), says));
        };
        if !self.over {
            say("munmap", "0", "munmap(2)");
        }
        say("mmap", "0", "mmap(2)");
        say("register", "0", "ioctl_userfaultfd(2), UFFDIO_REGISTER");
        let zero = if self.waiter.loads() { "ran:zero" } else { "ran" };
        let copied = if self.waiter.loads() { "ran:copied" } else { "ran" };
        let refused = kernel >= KernelVersion::new(6, 17, 0);
        match self.act {
            Act::CopyOwn | Act::CopyOther => {
                say("copy", "0", COPY_ANY);
                say("field", ONE_PAGE, COPY_ANY);
            }
            Act::WakeOwn | Act::WakeOther => say("wake", "0", source::WAKE),
            Act::UnregisterOwn => {
                say("unregister", if refused { "EINVAL" } else { "0" }, UNREGISTER_OWN);
            }
            Act::UnregisterOther => say("unregister", "0", source::UNREGISTER),
            Act::Look | Act::CloseOwn | Act::CloseOther => {}
        }
        let woken = matches!(self.act, Act::CopyOwn | Act::WakeOwn | Act::CloseOwn);
        if self.act != Act::CloseOwn {
            say("own-queue", if woken { "0/0" } else { "1/0" }, COPY_ANY);
        }
        let freed = match self.act {
            Act::UnregisterOwn => !refused,
            Act::UnregisterOther | Act::CloseOther => true,
            _ => false,
        };
        if !woken {
            say("waiter", "asleep", COPY_ANY);
            say(
                "other-queue",
                if self.act == Act::CloseOther { "closed" } else { "0/0" },
                source::QUEUE,
            );
            say("reg", if freed { "mm..mm" } else { "mmmmmm" }, source::UNREGISTER);
            let page = if self.act == Act::CopyOther { 'c' } else { '-' };
            say("pages", &format!("--{page}---"), COPY_ANY);
            say("rescue", "0", source::WAKE);
        }
        let name = if woken { "waiter" } else { "rescued" };
        let fate = match self.act {
            Act::CopyOwn | Act::CopyOther => copied,
            _ if freed => zero,
            _ => "again",
        };
        say(name, fate, source::RERUN);
        let then = match fate {
            "again" => "1/1",
            _ if self.act == Act::CloseOther => "closed",
            _ => "0/0",
        };
        say("other-queue-then", then, source::QUEUE);
        if fate == "again" {
            say("closed", zero, source::CLOSE);
        }
        facts
    }

    fn recipe(&self) -> Vec<String> {
        vec![
            format!(
                "map and register a block of {PAGES} pages; write to page 3; a thread ({}) accesses \
                 page 2 and parks; read its message",
                self.waiter
            ),
            format!(
                "{} pages 2..4, so that the same memory stands there anew; UFFDIO_REGISTER of them with \
                 a second userfaultfd",
                if self.over { "mmap(MAP_FIXED) over" } else { "munmap and mmap" }
            ),
            format!("{} (own: the first userfaultfd; other: the second)", self.act.word()),
            "look at the waiter and both queues; if it sleeps: UFFDIO_WAKE through the first"
                .into(),
            "if it then waits with the second: close that".into(),
        ]
    }
}

/// The queue's counters, or that the context is closed.
fn counters(file: Option<&QueueFile>) -> Result<String, Stop> {
    file.map_or(Ok("closed".into()), |file| file.read().map(|queue| queue.to_string()))
}

impl Adopted {
    const fn fault(&self) -> &'static str {
        if self.waiter.stores() { "write@2" } else { "read@2" }
    }
}

const COPY_ANY: &str = "validate_dst_vma() (find_dst_vma() in 5.10 and 6.1) and userfaultfd_copy(): any context of the \
    mapping will do for the page, but the wake-up goes to the caller's queue";
const UNREGISTER_OWN: &str = "userfaultfd_unregister() (6.17): EINVAL for a mapping of another context; \
    before, it was unregistered";

/// The cases.
pub(super) fn cases(cases: &mut Vec<Case>) {
    for backing in [Backing::Anon, Backing::Shmem, Backing::Private] {
        for over in [false, true] {
            for waiter in [Waiter::UserRead, Waiter::UserWrite, Waiter::SysWrite] {
                for act in Act::ALL {
                    let by_default = backing != Backing::Private && waiter == Waiter::UserRead
                        || backing == Backing::Anon && waiter == Waiter::SysWrite && !over;
                    cases.push(Case::trial(
                        &ADOPT,
                        Adopted { backing, over, waiter, act },
                        by_default,
                    ));
                }
            }
        }
    }
}
