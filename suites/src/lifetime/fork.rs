//! fork(2) of a process with registered memory: what the child has, what the parent keeps.

use crate::abi::{Range, Uffd, features};
use crate::evidence;
use crate::expect::Expected;
use crate::memory::{Block, PAGE, RW, SPARE, map, tag};
use crate::model::source;
use crate::outcome::{Seen, Stop};
use crate::point::{Backing, Change, Mode, Msg, Op, PAGES, Point, Waiter as Kind};
use crate::probe::{Case, Probe, Trial};
use crate::process::Child;
use crate::scenario::Scene;
use crate::stage::Stage;
use crate::touch;
use uffd_results::KernelVersion;

const RESET: &str = "dup_userfaultfd() in fs/userfaultfd.c: without EVENT_FORK the child's mapping loses its \
    context";
/// Only the owner may move pages.
pub(super) const OWN_MEMORY: &str = "userfaultfd_move() in fs/userfaultfd.c: EINVAL unless the caller's memory is \
    the owner's";
/// Whose memory an ioctl acts on.
pub(super) const OWNER: &str = "userfaultfd(2): a userfaultfd is bound to the memory of the process that made it, \
    whoever uses the descriptor";

static CLEAN: Probe = Probe {
    suite: "lifetime",
    name: "fork-child",
    statement: "Without EVENT_FORK a forked child's memory is not registered: missing pages are filled by the \
                kernel, protected pages are not protected; parent and its waiter notice nothing.",
    consumers: &[
        "Firecracker: never forks after REGISTER",
        "crosvm: each forked device makes its own userfaultfd before it touches memory",
        "QEMU: qemu_madvise(QEMU_MADV_DONTFORK) of guest memory",
    ],
};
static INHERITED: Probe = Probe {
    suite: "lifetime",
    name: "fork-ioctl",
    statement: "An ioctl that a forked child makes on an inherited userfaultfd acts on the parent's memory and \
                wakes the parent's waiter; the child's memory stays as it is.",
    consumers: &[
        "CRIU: ioctls of the lazy-pages daemon act on the owner's memory",
        "crosvm: swap/ monitor process serves device processes",
        "QEMU: postcopy_wake_shared() on a vhost-user client's userfaultfd",
    ],
};

fn point(backing: Backing, mode: Mode, waiter: Kind, msg: Msg) -> Point {
    Point { backing, mode, change: Change::None, waiter, msg, op: Op::Look }
}

/// What the child does to page 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Touch {
    Load,
    Store,
}

#[derive(Debug)]
struct Clean {
    backing: Backing,
    mode: Mode,
    waiter: Kind,
    msg: Msg,
    touch: Touch,
}

impl Clean {
    /// In the child: its registration, its pages, and what page 2 then does.
    fn look(&self, stage: &Stage, block: &Block) -> Result<[String; 4], Stop> {
        let all = block.range(0..PAGES);
        let page = block.range(2..3);
        let reg = evidence::registration(&[(all, block.page)])?.remove(0);
        let letter = |value| stage.letter(value);
        let pages = evidence::pages(all, block.page, &letter)?;
        let store = (self.touch == Touch::Store).then_some(tag::NEW);
        let touched = super::touched(stage, page.start, store);
        Ok([reg, pages, touched, evidence::pages(page, block.page, &letter)?])
    }
}

impl Trial for Clean {
    fn axes(&self) -> String {
        let touch = if self.touch == Touch::Load { "load" } else { "store" };
        let Self { backing, mode, waiter, msg, .. } = self;
        let msg = if *waiter == Kind::None { String::new() } else { format!(",msg={msg}") };
        format!("backing={backing},mode={mode},child={touch},waiter={waiter}{msg}")
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        let point = point(self.backing, self.mode, self.waiter, self.msg);
        let scene = Scene::set(stage, point)?;
        let mut waiter = scene.park(point, seen)?;
        seen.step("fork");
        let mut child = Child::fork(stage, |link| {
            for word in self.look(stage, &scene.block)? {
                link.say(word)?;
            }
            Ok(())
        })?;
        for name in ["child-reg", "child-pages", "child-touch", "child-page"] {
            seen.fact(name, child.link().hear()?);
        }
        child.finish()?;
        scene.conclude(point, waiter.as_mut(), seen)
    }

    fn expect(&self, _: KernelVersion) -> Vec<Expected> {
        let shared = matches!(self.backing, Backing::Shmem | Backing::SharedAnon);
        let wp = self.mode == Mode::Wp;
        let touched = match (self.touch, self.mode, shared) {
            (Touch::Store, ..) => "ran",
            (Touch::Load, Mode::Missing, _) => "ran:zero",
            (Touch::Load, ..) => "ran:kept",
        };
        let parent = match self.mode {
            Mode::Missing => "mmmmmm",
            Mode::Wp => "wwwwww",
            Mode::Minor => "iiiiii",
        };
        let mut facts = vec![
            Expected::new("child-reg", "......", RESET),
            Expected::new("child-touch", touched, RESET),
        ];
        if self.touch == Touch::Store {
            facts.push(Expected::new("child-page", "n", RESET));
        }
        if self.waiter != Kind::None {
            let unread = u8::from(self.msg == Msg::Unread);
            facts.push(Expected::new("waiter", "asleep", source::QUEUE));
            facts.push(Expected::new("queue", format!("1/{unread}"), source::QUEUE));
        }
        facts.push(Expected::new("reg", parent, RESET));
        if !shared {
            // Private memory: the child's store is the child's own.
            let pages = if wp { "--kk--" } else { "---k--" };
            facts.push(Expected::new("pages", pages, RESET));
        }
        facts
    }

    fn recipe(&self) -> Vec<String> {
        vec![
            format!("map a {} block, register it for {} faults", self.backing, self.mode),
            "fork; in the child: registration, pages, an access to page 2".into(),
            "in the parent: the waiter, registration, pages".into(),
        ]
    }
}

const IOCTLS: &[(&str, Mode, u64)] = &[
    ("copy", Mode::Missing, 0),
    ("copy-own-source", Mode::Missing, 0),
    ("zeropage", Mode::Missing, 0),
    ("wake", Mode::Missing, 0),
    ("unregister", Mode::Missing, 0),
    ("poison", Mode::Missing, features::POISON),
    ("move", Mode::Missing, features::MOVE),
    ("unprotect", Mode::Wp, 0),
    ("continue", Mode::Minor, features::MINOR_SHMEM),
    ("close", Mode::Missing, 0),
];

#[derive(Debug)]
struct Inherited {
    ioctl: &'static str,
    mode: Mode,
    needs: u64,
    backing: Backing,
    msg: Msg,
}

impl Inherited {
    fn waiter(&self) -> Kind {
        if self.mode == Mode::Wp { Kind::UserWrite } else { Kind::UserRead }
    }

    fn call(&self, stage: &Stage, uffd: &Uffd, block: &Block) -> Result<String, Stop> {
        let page = block.range(2..3);
        Ok(match self.ioctl {
            "copy" => uffd.copy(page, stage.source, 0).0.to_string(),
            "copy-own-source" => uffd.copy(page, SPARE, 0).0.to_string(),
            "zeropage" => uffd.zeropage(page, 0).0.to_string(),
            "wake" => uffd.wake(page).to_string(),
            "unregister" => uffd.unregister(block.range(0..PAGES)).to_string(),
            "poison" => uffd.poison(page, 0).0.to_string(),
            "move" => uffd.relocate(page, SPARE, 0).0.to_string(),
            "unprotect" => uffd.writeprotect(page, 0).to_string(),
            "continue" => uffd.resume(page, 0).0.to_string(),
            _ => {
                use std::os::fd::AsFd;
                crate::process::close_inherited(uffd.as_fd())?;
                "0".into()
            }
        })
    }
}

impl Trial for Inherited {
    fn axes(&self) -> String {
        let Self { backing, ioctl, msg, .. } = self;
        format!("backing={backing},ioctl={ioctl},msg={msg}")
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        stage.must_offer(self.needs)?;
        let point = point(self.backing, self.mode, self.waiter(), self.msg);
        let spare = Range { start: SPARE, len: PAGE };
        let rc = map(spare, RW, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, None, 0);
        let store = |value| {
            touch::store(SPARE, value)
                .map_err(|signal| Stop::Broken(format!("writing a page: {signal}")))
        };
        if !rc.is_ok() {
            return Err(Stop::Broken(format!("mapping a page: {rc}")));
        }
        store(tag::KEPT)?;
        let scene = Scene::set(stage, point)?;
        let mut waiter = scene.park(point, seen)?;
        seen.step("fork");
        let mut child = Child::fork(stage, |link| {
            // Now the page at SPARE is the child's own, with other content than the parent's.
            store(tag::NEW)?;
            link.say(self.call(stage, &scene.uffd, &scene.block)?)?;
            let all = scene.block.range(0..PAGES);
            let letter = |value| stage.letter(value);
            link.say(evidence::pages(all, scene.block.page, &letter)?)?;
            link.must_hear("end")
        })?;
        seen.fact("rc", child.link().hear()?);
        seen.fact("child-pages", child.link().hear()?);
        seen.step("look");
        let mut kept = None;
        if let Some(waiter) = &mut waiter {
            let fate = waiter.look(&scene.uffd, &scene.queue)?;
            seen.fact("waiter", stage.word(fate));
            seen.fact("queue", scene.queue.read()?);
            kept = Some(fate);
        }
        scene.survey(Change::None, seen)?;
        child.link().say("end")?;
        child.finish()?;
        drop(scene);
        if let (Some(waiter), Some(true)) = (&waiter, kept.map(crate::waiter::Fate::waits)) {
            seen.fact("closed", stage.word(waiter.end()?));
        }
        Ok(())
    }

    fn expect(&self, _: KernelVersion) -> Vec<Expected> {
        let shared = self.backing == Backing::Shmem;
        let (waiter, pages) = match self.ioctl {
            "copy" => ("ran:copied", "--ck--"),
            "copy-own-source" => ("ran:new", "--nk--"),
            "zeropage" | "unregister" => ("ran:zero", "--0k--"),
            "wake" => ("again", "---k--"),

            "unprotect" => ("ran", "--wk--"),
            "continue" => ("ran:kept", "--kk--"),
            "close" | "move" => ("asleep", "---k--"),
            // SIGBUS, whose code depends on how the kernel was configured.
            _ => ("", "---k--"),
        };
        let mut facts = vec![match self.ioctl {
            "move" => Expected::new("rc", "EINVAL", OWN_MEMORY),
            _ => Expected::new("rc", "0", OWNER),
        }];
        if !shared {
            let child = if self.mode == Mode::Wp { "--kk--" } else { "---k--" };
            facts.push(Expected::new("child-pages", child, OWNER));
        }
        if !waiter.is_empty() {
            facts.push(Expected::new("waiter", waiter, OWNER));
        }
        let unread = u8::from(self.msg == Msg::Unread);
        let queue = match self.ioctl {
            "close" | "move" => format!("1/{unread}"),
            "wake" => "1/1".into(),
            _ => "0/0".into(),
        };
        facts.push(Expected::new("queue", queue, OWNER));
        let reg = match (self.ioctl, self.mode) {
            ("unregister", _) => "......",
            (_, Mode::Missing) => "mmmmmm",
            (_, Mode::Wp) => "wwwwww",
            (_, Mode::Minor) => "iiiiii",
        };
        facts.push(Expected::new("reg", reg, OWNER));
        facts.push(Expected::new("pages", pages, OWNER));
        if matches!(self.ioctl, "wake" | "close" | "move") {
            facts.push(Expected::new("closed", "ran:zero", source::CLOSE));
        }
        facts
    }

    fn recipe(&self) -> Vec<String> {
        vec![
            format!("map and register a {} block; a thread parks on page 2", self.backing),
            format!(
                "fork; in the child: {} of page 2 through the inherited userfaultfd",
                self.ioctl
            ),
            "in the parent: the waiter, registration, pages".into(),
        ]
    }
}

/// The cases.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let minor = (Backing::Shmem, Mode::Minor);
    for (backing, mode) in super::INHERITED.into_iter().chain([minor]) {
        for (waiter, msg) in
            [(Kind::None, Msg::Read), (Kind::UserWrite, Msg::Read), (Kind::UserWrite, Msg::Unread)]
        {
            for touch in [Touch::Load, Touch::Store] {
                let trial = Clean { backing, mode, waiter, msg, touch };
                // A store into shared memory fills the page of the parent too.
                cases.push(Case::trial(&CLEAN, trial, true));
            }
        }
    }
    for (ioctl, mode, needs) in IOCTLS {
        for msg in [Msg::Read, Msg::Unread] {
            let backing = if *mode == Mode::Minor { Backing::Shmem } else { Backing::Anon };
            let trial = Inherited { ioctl, mode: *mode, needs: *needs, backing, msg };
            cases.push(Case::trial(&INHERITED, trial, true));
        }
    }
    cases
}
