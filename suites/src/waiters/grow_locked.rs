//! mremap(2) that grows a locked, registered block, and so waits itself for the pages that it adds.

use crate::abi::{REGISTER_MODE_MISSING, Rc};
use crate::evidence::{self, QueueFile};
use crate::expect::{Expected, OBSERVED};
use crate::memory::{BLOCK, Block, RW, map, remap};
use crate::model::source;
use crate::outcome::{Seen, Stop};
use crate::point::{Backing, GROWN, PAGES, axis};
use crate::probe::{Case, Probe, Trial};
use crate::scenario::Scene;
use crate::stage::Stage;
use crate::treat;
use crate::waiter::{Access, Fate, Waiter};
use nix::errno::Errno;
use nix::sys::mman::{MlockAllFlags, mlockall};
use uffd_results::KernelVersion;

static GROWS: Probe = Probe {
    suite: "waiters",
    name: "grow-locked",
    statement: "mremap(2) that grows a locked, registered block in place waits for each page that it adds, \
                one message a page, and returns 0 once all are there or are registered no more; a handler \
                that grows the block itself waits for ever. It does not wait where the block is not \
                locked, or locked with MLOCK_ONFAULT, nor does mmap(2) with MAP_LOCKED over it, whose \
                memory is not registered.",
    consumers: &[
        "QEMU: -overcommit mem-lock=on and RAM blocks that are resized; userfault and mlock do not go \
         together, says postcopy_ram_supported_by_host(), and calls munlockall()",
        "realloc(3) of large blocks under mlockall(MCL_FUTURE)",
    ],
};

axis! {
    /// How the block comes to be locked.
    Lock {
        /// Not at all: the control.
        Nothing = "none",
        /// mlock(2), once it is registered and its pages are placed.
        Mlock = "mlock",
        /// The same with MLOCK_ONFAULT.
        OnFault = "mlock-onfault",
        /// It is mapped, and so filled, under mlockall(MCL_FUTURE), and registered then.
        Future = "future-before-map",
        /// mlockall(MCL_FUTURE) once it is mapped.
        FutureAfter = "future-after-map",
    }
}

axis! {
    /// The call.
    Call {
        /// mremap(2) to two more pages.
        Grow = "mremap-grow",
        /// mmap(2) with MAP_FIXED and MAP_LOCKED over the block.
        Over = "mmap-locked-over",
    }
}

axis! {
    /// What is done while the call waits.
    Then {
        /// Nothing, since it does not wait.
        Look = "none",
        /// UFFDIO_COPY of each page that is asked for.
        Copy = "copy",
        /// UFFDIO_WAKE of the page.
        Wake = "wake",
        /// UFFDIO_UNREGISTER of the block as it is now.
        Unregister = "unregister",
        /// UFFDIO_UNREGISTER of the range that was registered.
        UnregisterOld = "unregister-old-range",
        /// The last close.
        Close = "close",
    }
}

#[derive(Debug)]
struct Grows {
    backing: Backing,
    lock: Lock,
    call: Call,
    then: Then,
}

const POPULATES: &str = "mremap(2) ends with mm_populate() of what it has added to a locked mapping: a \
    fault for each page, and the registration is a flag of the mapping, which grew";
const ONE_BY_ONE: &str = "populate_vma_page_range() in mm/gup.c faults page by page";
const IGNORES: &str = "mm_populate() in include/linux/mm.h ignores what becomes of the faults";

/// mlockall(2) of what will be mapped.
fn lock_future() -> Result<(), Stop> {
    let locked = mlockall(MlockAllFlags::MCL_FUTURE).err();
    match locked {
        None => Ok(()),
        Some(Errno::EPERM) => Err(Stop::Denied("mlockall(MCL_FUTURE): EPERM".into())),
        Some(e) => Err(Stop::Precondition(format!("mlockall(MCL_FUTURE): {e:?}"))),
    }
}

impl Grows {
    /// A registered block with all its pages, locked.
    fn set<'a>(&self, stage: &'a Stage) -> Result<Scene<'a>, Stop> {
        if self.lock == Lock::Future {
            lock_future()?;
        }
        let block = Block::map(self.backing, BLOCK)?;
        let uffd = stage.uffd(0)?;
        let all = block.range(0..PAGES);
        uffd.register(all, REGISTER_MODE_MISSING)
            .map_err(|e| Stop::Unsupported(format!("REGISTER: {e:?}")))?;
        if self.lock != Lock::Future {
            let (rc, _) = uffd.copy(all, stage.source, 0);
            if !rc.is_ok() {
                return Err(Stop::Broken(format!("COPY of the block: {rc}")));
            }
        }
        let rc = match self.lock {
            Lock::Mlock => treat::lock(all, 0),
            Lock::OnFault => treat::lock(all, libc::MLOCK_ONFAULT),
            Lock::FutureAfter => {
                lock_future()?;
                Rc::OK
            }
            Lock::Nothing | Lock::Future => Rc::OK,
        };
        if !rc.is_ok() {
            return Err(Stop::Precondition(format!("mlock2(2): {rc}")));
        }
        let queue = QueueFile::open(&uffd)?;
        Ok(Scene { stage, block, uffd, queue, page: PAGES })
    }

    /// Makes the call in a thread of its own, until it has returned or waits.
    fn begin(&self, scene: &Scene<'_>) -> Result<(Waiter, Fate), Stop> {
        let (all, grown) = (scene.block.range(0..PAGES), scene.block.range(0..GROWN));
        let call = self.call;
        let mut waiter = Waiter::begin(scene.stage, move || {
            let rc = match call {
                Call::Grow => remap(all, grown.len, 0, 0),
                Call::Over => {
                    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_LOCKED;
                    map(all, RW, flags, None, 0)
                }
            };
            rc.0.map_or(Access::Ran(None), Access::Failed)
        })?;
        let fate = waiter.settle(&scene.uffd, &scene.queue)?;
        Ok((waiter, fate))
    }

    /// Whether the call waits.
    const fn waits(&self) -> bool {
        matches!((self.call, self.lock), (Call::Grow, Lock::Mlock | Lock::Future))
    }

    /// What is done while the call waits, and what becomes of it.
    fn act(
        &self,
        scene: &Scene<'_>,
        waiter: &mut Waiter,
        seen: &mut Seen<'_>,
    ) -> Result<Fate, Stop> {
        let Scene { stage, block, uffd, queue, .. } = scene;
        let page = |n: usize| block.range(n..n + 1);
        let done = match self.then {
            Then::Copy => uffd.copy(page(PAGES), stage.source, 0).0,
            Then::Wake => uffd.wake(page(PAGES)),
            Then::Unregister => uffd.unregister(block.range(0..GROWN)),
            Then::UnregisterOld => uffd.unregister(block.range(0..PAGES)),
            Then::Look | Then::Close => return Ok(Fate::Asleep),
        };
        seen.fact("then", done);
        let fate = waiter.look(uffd, queue)?;
        seen.fact("waiter", fate);
        if fate == Fate::Again {
            seen.fact("fault-2", scene.read_fault()?);
        }
        if self.then != Then::Copy || !fate.waits() {
            return Ok(fate);
        }
        seen.step("copy-2");
        seen.fact("copy-2", uffd.copy(page(PAGES + 1), stage.source, 0).0);
        let fate = waiter.look(uffd, queue)?;
        seen.fact("last", fate);
        Ok(fate)
    }
}

/// What each page of the block holds, with those that it has grown by.
fn content(stage: &Stage, block: &Block) -> Result<String, Stop> {
    evidence::pages(block.range(0..GROWN), block.page, &|value| stage.letter(value))
}

fn registered(block: &Block) -> Result<String, Stop> {
    Ok(evidence::registration(&[(block.range(0..GROWN), block.page)])?.concat())
}

impl Trial for Grows {
    fn axes(&self) -> String {
        let Self { backing, lock, call, then } = self;
        format!("backing={backing},call={call},lock={lock},then={then}")
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        seen.step("set-up");
        let scene = self.set(stage)?;
        seen.step("call");
        let (mut waiter, fate) = self.begin(&scene)?;
        seen.fact("call", fate);
        if !fate.waits() {
            seen.fact("queue", scene.queue.read()?);
            seen.fact("reg", registered(&scene.block)?);
            seen.fact("pages", content(stage, &scene.block)?);
            return Ok(());
        }
        seen.fact("fault", scene.read_fault()?);
        seen.fact("queue", scene.queue.read()?);
        seen.fact("reg", registered(&scene.block)?);
        seen.step("then");
        let fate = self.act(&scene, &mut waiter, seen)?;
        let Scene { block, uffd, .. } = scene;
        if fate.waits() {
            seen.step("close");
            drop(uffd);
            seen.fact("closed", waiter.end()?);
        }
        seen.fact("pages", content(stage, &block)?);
        Ok(())
    }

    fn expect(&self, _: KernelVersion) -> Vec<Expected> {
        let old = if self.lock == Lock::Future { "000000" } else { "cccccc" };
        if !self.waits() {
            let (reg, pages) = match (self.call, self.backing) {
                (Call::Over, _) => ("......--", "000000--".to_owned()),
                (Call::Grow, _) => ("mmmmmmmm", format!("{old}--")),
            };
            let says = match (self.call, self.lock) {
                (Call::Over, _) => {
                    "mmap(2): MAP_LOCKED fills what is mapped; a new mapping is not registered"
                }
                (_, Lock::OnFault) => {
                    "mlock2(2): with MLOCK_ONFAULT pages are locked when they are faulted in"
                }
                (_, Lock::FutureAfter) => {
                    "mlockall(2): MCL_FUTURE concerns mappings that are made later"
                }
                _ => source::REMAP,
            };
            return vec![
                Expected::new("call", "ran", says),
                Expected::new("queue", "0/0", says),
                Expected::new("reg", reg, source::REMAP),
                Expected::new("pages", pages, says),
            ];
        }
        let kind = if self.backing == Backing::Shmem { "read" } else { "write" };
        let kind_says = "populate_vma_page_range() in mm/gup.c: FOLL_WRITE for memory that is private and \
                         writable";
        let mut facts = vec![
            Expected::new("call", "again", POPULATES),
            Expected::new("fault", format!("{kind}@{PAGES}"), kind_says),
            Expected::new("queue", "1/0", source::QUEUE),
            Expected::new("reg", "mmmmmmmm", source::REMAP),
        ];
        let mut say =
            |name, value: &str, says| facts.push(Expected::new(name, value.to_owned(), says));
        match self.then {
            Then::Copy => {
                say("then", "0", source::COPY);
                say("waiter", "again", ONE_BY_ONE);
                say("fault-2", &format!("{kind}@{}", PAGES + 1), ONE_BY_ONE);
                say("copy-2", "0", source::COPY);
                say("last", "ran", "mremap(2)");
            }
            Then::Wake => {
                say("then", "0", source::WAKE);
                say("waiter", "again", source::RERUN);
                say("fault-2", &format!("{kind}@{PAGES}"), source::RERUN);
                say("closed", "ran", source::CLOSE);
            }
            Then::Unregister => {
                say("then", "0", source::UNREGISTER);
                say("waiter", "ran", IGNORES);
            }
            Then::UnregisterOld => {
                say("then", "0", source::UNREGISTER);
                say("waiter", "asleep", source::UNREGISTER_WAKES);
                say("closed", "ran", source::CLOSE);
            }
            Then::Look | Then::Close => say("closed", "ran", source::CLOSE),
        }
        let new = if self.then == Then::Copy { "cc" } else { "00" };
        say("pages", &format!("{old}{new}"), OBSERVED);
        facts
    }

    fn recipe(&self) -> Vec<String> {
        let Self { backing, lock, call, then } = self;
        let mut recipe = vec![
            format!(
                "map a {backing} block of {PAGES} pages, register it (missing) and place its pages"
            ),
            match lock {
                Lock::Nothing => "do not lock it".to_owned(),
                Lock::Mlock => "mlock(2) of the block".to_owned(),
                Lock::OnFault => "mlock2(2) of the block with MLOCK_ONFAULT".to_owned(),
                Lock::Future => {
                    "before it is mapped: mlockall(MCL_FUTURE); it is filled then, not placed"
                        .to_owned()
                }
                Lock::FutureAfter => "mlockall(MCL_FUTURE)".to_owned(),
            },
            match call {
                Call::Grow => {
                    format!("a thread calls mremap(2), in place, from {PAGES} to {GROWN} pages")
                }
                Call::Over => {
                    "a thread calls mmap(2) over the block: anonymous, MAP_FIXED and MAP_LOCKED"
                        .to_owned()
                }
            },
            "does the call return or wait, and for which page?".to_owned(),
        ];
        match then {
            Then::Look => {}
            Then::Copy => recipe.push(
                "UFFDIO_COPY of the page; read the next message; UFFDIO_COPY of its page"
                    .to_owned(),
            ),
            Then::Wake => {
                recipe.push("UFFDIO_WAKE of the page, the next message, the last close".to_owned());
            }
            Then::Unregister => recipe.push(format!("UFFDIO_UNREGISTER of {GROWN} pages")),
            Then::UnregisterOld => recipe.push(format!(
                "UFFDIO_UNREGISTER of the {PAGES} pages that were registered, then the last close"
            )),
            Then::Close => recipe.push("the last close".to_owned()),
        }
        recipe.push("what has the call returned, and what do the pages hold?".to_owned());
        recipe
    }
}

/// The cases.
pub(super) fn cases(cases: &mut Vec<Case>) {
    for backing in [Backing::Anon, Backing::Shmem, Backing::Private] {
        for call in Call::ALL {
            for lock in Lock::ALL {
                for then in Then::ALL {
                    let trial = Grows { backing, lock: *lock, call: *call, then: *then };
                    let fits = match call {
                        Call::Over => matches!(lock, Lock::Nothing | Lock::Mlock),
                        Call::Grow => true,
                    };
                    let rare = *lock == Lock::Future && !matches!(then, Then::Copy | Then::Close);
                    if fits && trial.waits() != (*then == Then::Look) && !rare {
                        cases.push(Case::trial(&GROWS, trial, backing != Backing::Private));
                    }
                }
            }
        }
    }
}
