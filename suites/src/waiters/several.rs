//! Several waiters of one page: whom an operation wakes, and that a change wakes none of them.

use crate::change::Prepared;
use crate::crowd::Crowd;
use crate::expect::Expected;
use crate::model::source;
use crate::outcome::{Seen, Stop};
use crate::point::{Backing, Change, Mode, Msg, Op, Over, Part, Point, Waiter};
use crate::probe::{Case, Probe, Trial};
use crate::scenario::Scene;
use crate::stage::Stage;
use uffd_results::KernelVersion;

static ALL_WAKE: Probe = Probe {
    suite: "waiters",
    name: "several",
    statement: "What resolves a page wakes every waiter of it, however many and in whatever way they \
                wait; what does not resolve it wakes none, and WAKE wakes them all: to park again, or \
                to meet what the mapping has become.",
    consumers: &["QEMU: postcopy_place_page(), several vCPUs on one page", "crosvm: swap/"],
};

/// What is then done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    Copy,
    Zeropage,
    Unregister,
    Wake,
    Close,
    /// COPY of another page: the control that wakes nobody.
    CopyOther,
    /// WAKE of another page.
    WakeOther,
    /// mmap(MAP_FIXED) of anonymous memory over the page.
    MmapOver,
    Munmap,
}

impl Act {
    const ALL: [Self; 9] = [
        Self::Copy,
        Self::Zeropage,
        Self::Unregister,
        Self::Wake,
        Self::Close,
        Self::CopyOther,
        Self::WakeOther,
        Self::MmapOver,
        Self::Munmap,
    ];

    const fn word(self) -> &'static str {
        match self {
            Self::Copy => "copy",
            Self::Zeropage => "zeropage",
            Self::Unregister => "unregister",
            Self::Wake => "wake",
            Self::Close => "close",
            Self::CopyOther => "copy-other",
            Self::WakeOther => "wake-other",
            Self::MmapOver => "mmap-over",
            Self::Munmap => "munmap",
        }
    }

    const fn change(self) -> Change {
        match self {
            Self::MmapOver => Change::MmapOver(Part::Middle, Over::Anon),
            Self::Munmap => Change::Munmap(Part::Middle),
            _ => Change::None,
        }
    }
}

/// Who they are.
const CROWDS: [(&str, &[Waiter]); 6] = [
    ("user-read", &[Waiter::UserRead]),
    ("user-write", &[Waiter::UserWrite]),
    ("sys-read", &[Waiter::SysRead]),
    ("sys-write", &[Waiter::SysWrite]),
    ("readers", &[Waiter::UserRead, Waiter::SysWrite, Waiter::VmRead, Waiter::Futex]),
    ("writers", &[Waiter::UserWrite, Waiter::SysRead, Waiter::VmWrite]),
];

#[derive(Debug)]
struct Several {
    backing: Backing,
    count: usize,
    who: (&'static str, &'static [Waiter]),
    /// How many messages are read before: none, half, all.
    read: &'static str,
    act: Act,
}

impl Several {
    const fn messages(&self) -> usize {
        match self.read.len() {
            // none and half have four letters, and all three.
            3 => self.count,
            _ if self.read.as_bytes()[0] == b'h' => self.count / 2,
            _ => 0,
        }
    }

    const fn point(&self) -> Point {
        let (backing, op) = (self.backing, Op::Look);
        let (change, waiter) = (Change::None, Waiter::None);
        Point { backing, mode: Mode::Missing, change, waiter, msg: Msg::Unread, op }
    }

    /// The fates' summary if all have met the same: what loads saw `content`, or all the signal.
    fn all(&self, content: &str, failed: Option<(&str, &str)>) -> String {
        let words: Vec<String> = (0..self.count)
            .map(|n| {
                let kind = self.who.1[n % self.who.1.len()];
                match failed {
                    Some((kernel, _)) if kind.in_kernel() => kernel.to_owned(),
                    Some((_, user)) => user.to_owned(),
                    None if kind.loads() => format!("ran:{content}"),
                    None => "ran".to_owned(),
                }
            })
            .collect();
        crate::crowd::summary(&words)
    }
}

impl Trial for Several {
    fn axes(&self) -> String {
        let Self { backing, count, who, read, act } = self;
        format!("backing={backing},waiters={count},who={},read={read},op={}", who.0, act.word())
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        seen.step("set-up");
        let scene = Scene::set(stage, self.point())?;
        let change = Prepared::new(stage, self.act.change(), &scene.block)?;
        let other = scene.block.range(4..5);
        let mut crowd = Crowd::new(stage);
        seen.step("park");
        for n in 0..self.count {
            let kind = self.who.1[n % self.who.1.len()];
            crowd.park(stage, kind, scene.target(), &scene.queue)?;
        }
        for _ in 0..self.messages() {
            scene.read_fault()?;
        }
        seen.fact("parked", scene.queue.read()?);
        seen.step("act");
        match self.act {
            Act::Copy => scene.act(Op::Copy, seen),
            Act::Zeropage => scene.act(Op::Zeropage, seen),
            Act::Unregister => scene.act(Op::Unregister, seen),
            Act::Wake => {
                while scene.uffd.read().is_ok() {}
                scene.act(Op::Wake, seen);
                seen.fact("queue", crowd.await_again(&scene.queue, self.count)?);
            }
            Act::Close => {}
            Act::CopyOther => seen.fact("copy", scene.uffd.copy(other, stage.source, 0).0),
            Act::WakeOther => seen.fact("wake", scene.uffd.wake(other)),
            Act::MmapOver | Act::Munmap => seen.fact("change", change.apply(stage, &scene.block)?),
        }
        if !matches!(self.act, Act::Wake | Act::Close) {
            let queue = scene.queue.read()?;
            seen.fact("queue", queue);
            crowd.await_ended(crowd.len().saturating_sub(queue.total as usize))?;
            seen.fact("fates", crowd.summary()?);
            if queue.total == 0 {
                return Ok(());
            }
            seen.step("rescue");
            while scene.uffd.read().is_ok() {}
            seen.fact("rescue", scene.uffd.wake(scene.target()));
            if self.act.change() == Change::None {
                seen.fact("again", crowd.await_again(&scene.queue, self.count)?);
            } else {
                // The context stays until all have ended: its end would wake those whom WAKE has not.
                seen.fact("left", scene.queue.read()?);
                crowd.await_all()?;
                seen.fact("ended", crowd.summary()?);
                return Ok(());
            }
        }
        seen.step("close");
        drop(scene);
        crowd.await_all()?;
        seen.fact("ended", crowd.summary()?);
        Ok(())
    }

    fn expect(&self, _: KernelVersion) -> Vec<Expected> {
        let n = self.count;
        let unread = n - self.messages();
        let mut facts = vec![Expected::new("parked", format!("{n}/{unread}"), source::QUEUE)];
        let mut say = |name, value: String, says| facts.push(Expected::new(name, value, says));
        let asleep = format!("{n}*asleep");
        let zero = self.all("zero", None);
        let woken = |say: &mut dyn FnMut(&'static str, String, &'static str), content, says| {
            say("queue", "0/0".into(), says);
            say("fates", self.all(content, None), says);
        };
        match self.act {
            Act::Copy => {
                say("copy", "0".into(), source::COPY);
                woken(&mut say, "copied", source::COPY);
            }
            Act::Zeropage => {
                say("zeropage", "0".into(), source::ZEROPAGE);
                woken(&mut say, "zero", source::ZEROPAGE);
            }
            Act::Unregister => {
                say("unregister", "0".into(), source::UNREGISTER);
                woken(&mut say, "zero", source::UNREGISTER_WAKES);
            }
            Act::Wake => {
                say("wake", "0".into(), source::WAKE);
                say("queue", format!("{n}/{n}"), source::RERUN);
                say("ended", zero, source::CLOSE);
            }
            Act::Close => say("ended", zero, source::CLOSE),
            Act::CopyOther | Act::WakeOther => {
                let name = if self.act == Act::CopyOther { "copy" } else { "wake" };
                say(name, "0".into(), source::WAKE);
                say("queue", format!("{n}/{unread}"), source::WAKE);
                say("fates", asleep, source::WAKE);
                say("rescue", "0".into(), source::WAKE);
                say("again", format!("{n}/{n}"), source::RERUN);
                say("ended", zero, source::CLOSE);
            }
            Act::MmapOver | Act::Munmap => {
                say("change", "0".into(), "mmap(2)");
                say("queue", format!("{n}/{unread}"), source::QUEUE);
                say("fates", asleep, source::QUEUE);
                say("rescue", "0".into(), source::WAKE);
                say("left", "0/0".into(), source::WAKE);
                let gone = (self.act == Act::Munmap).then_some(("EFAULT", "SEGV_MAPERR"));
                say("ended", self.all("zero", gone), source::RERUN);
            }
        }
        facts
    }

    fn recipe(&self) -> Vec<String> {
        vec![
            "map and register a block of 6 pages; write to page 3".into(),
            format!("{} threads ({}) access page 2 and park", self.count, self.who.0),
            format!("read the messages: {}", self.read),
            format!("{} (of page 2; the others of page 4)", self.act.word()),
            "look at fdinfo and at every thread; wake page 2; look again".into(),
            if self.act.change() == Change::None {
                "close the userfaultfd; wait until every thread has ended".into()
            } else {
                "wait until every thread has ended; close the userfaultfd".into()
            },
        ]
    }
}

/// The cases.
pub(super) fn cases(cases: &mut Vec<Case>) {
    for backing in [Backing::Anon, Backing::Shmem, Backing::Private, Backing::SharedAnon] {
        for count in [2, 8, 16] {
            for who in CROWDS {
                for read in ["none", "half", "all"] {
                    for act in Act::ALL {
                        let plain = count == 8 && read != "none" && who.1.len() > 1;
                        let by_default = match backing {
                            Backing::Anon => {
                                plain || count == 2 && read == "half" && who.1.len() == 1
                            }
                            Backing::Shmem => plain && read == "half",
                            _ => false,
                        };
                        let trial = Several { backing, count, who, read, act };
                        cases.push(Case::trial(&ALL_WAKE, trial, by_default));
                    }
                }
            }
        }
    }
}
