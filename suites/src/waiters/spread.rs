//! Waiters on several pages: an operation wakes those of its own range, and no other.

use crate::abi::{COPY_MODE_DONTWAKE, Message};
use crate::crowd::Crowd;
use crate::expect::Expected;
use crate::memory::BLOCK;
use crate::model::source;
use crate::outcome::{Seen, Stop};
use crate::point::{Backing, Change, Mode, Msg, Op, PAGES, Point, Waiter};
use crate::probe::{Case, Probe, Trial};
use crate::scenario::Scene;
use crate::stage::Stage;
use uffd_results::KernelVersion;

static OWN_RANGE: Probe = Probe {
    suite: "waiters",
    name: "spread",
    statement: "With a waiter on every missing page, an operation wakes the waiters of the pages that \
                it has done and nobody else; their messages are read in the order of the faults.",
    consumers: &[
        "QEMU: postcopy_place_page()",
        "CRIU: xfer_pages() of several pages",
        "Firecracker: one COPY of a whole region",
    ],
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    Copy,
    CopyDontWake,
    Zeropage,
    Unregister,
    Wake,
}

impl Act {
    const ALL: [Self; 5] =
        [Self::Copy, Self::CopyDontWake, Self::Zeropage, Self::Unregister, Self::Wake];

    const fn word(self) -> &'static str {
        match self {
            Self::Copy => "copy",
            Self::CopyDontWake => "copy-dontwake",
            Self::Zeropage => "zeropage",
            Self::Unregister => "unregister",
            Self::Wake => "wake",
        }
    }
}

/// Pages with a waiter: all but page 3, which is present.
const WAITED: [usize; 5] = [0, 1, 2, 4, 5];

#[derive(Debug)]
struct Spread {
    backing: Backing,
    waiter: Waiter,
    act: Act,
    first: usize,
    end: usize,
    /// Whether the messages are read first.
    read: bool,
}

impl Spread {
    /// How many pages the operation does.
    const fn done(&self) -> usize {
        let fills = matches!(self.act, Act::Copy | Act::CopyDontWake | Act::Zeropage);
        if fills && self.first <= 3 && 3 < self.end {
            3 - self.first
        } else {
            self.end - self.first
        }
    }

    /// The letter of a page's waiter after the operation and after the last close.
    fn letters(&self, page: usize) -> (char, char) {
        let letter = |content| if self.waiter.loads() { content } else { 'w' };
        let concerned = self.first <= page && page < self.first + self.done();
        match self.act {
            _ if page == 3 => ('-', '-'),
            Act::Copy if concerned => (letter('c'), letter('c')),
            Act::CopyDontWake if concerned => ('z', letter('c')),
            Act::Zeropage | Act::Unregister if concerned => (letter('0'), letter('0')),
            Act::Wake if concerned => ('m', letter('0')),
            _ => ('z', letter('0')),
        }
    }
}

/// One letter a page: `-` nobody waited, `z` asleep, `m` woken and parked again, `c`, `0`, `w` ended
/// with copied data, with zeros, or without a load; `!` failed.
fn row(crowd: &Crowd) -> Result<String, Stop> {
    let mut row = ['-'; PAGES];
    for (page, fate) in WAITED.iter().zip(crowd.fates()?) {
        row[*page] = match fate.as_str() {
            "asleep" => 'z',
            "moved" => 'm',
            "ran:copied" => 'c',
            "ran:zero" => '0',
            "ran" => 'w',
            _ => '!',
        };
    }
    Ok(row.iter().collect())
}

impl Trial for Spread {
    fn axes(&self) -> String {
        let Self { backing, waiter, act, first, end, read } = self;
        let msg = if *read { "read" } else { "unread" };
        format!(
            "backing={backing},waiter={waiter},msg={msg},op={},first={first},end={end}",
            act.word()
        )
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        seen.step("set-up");
        let point = Point {
            backing: self.backing,
            mode: Mode::Missing,
            change: Change::None,
            waiter: Waiter::None,
            msg: Msg::Unread,
            op: Op::Look,
        };
        let scene = Scene::set(stage, point)?;
        let (block, uffd) = (&scene.block, &scene.uffd);
        let mut crowd = Crowd::new(stage);
        seen.step("park");
        for page in WAITED {
            crowd.park(stage, self.waiter, block.range(page..page + 1), &scene.queue)?;
        }
        if self.read {
            let mut order = String::new();
            for _ in WAITED {
                match uffd.read() {
                    Ok(Message::Pagefault { address, .. }) => {
                        order.push_str(&((address - BLOCK) / block.page).to_string());
                    }
                    other => return Err(Stop::Broken(format!("reading messages: {other:?}"))),
                }
            }
            seen.fact("order", order);
        }
        seen.step("act");
        let range = block.range(self.first..self.end);
        match self.act {
            Act::Copy | Act::CopyDontWake => {
                let mode = if self.act == Act::Copy { 0 } else { COPY_MODE_DONTWAKE };
                let (rc, field) = uffd.copy(range, stage.source, mode);
                seen.fact("copy", rc);
                seen.fact("field", field);
            }
            Act::Zeropage => {
                let (rc, field) = uffd.zeropage(range, 0);
                seen.fact("zeropage", rc);
                seen.fact("field", field);
            }
            Act::Unregister => seen.fact("unregister", uffd.unregister(range)),
            Act::Wake => {
                while uffd.read().is_ok() {}
                seen.fact("wake", uffd.wake(range));
            }
        }
        let woken = (self.first..self.end).filter(|page| WAITED.contains(page)).count();
        if self.act == Act::Wake {
            seen.fact("queue", crowd.await_again(&scene.queue, woken)?);
        } else {
            let queue = scene.queue.read()?;
            seen.fact("queue", queue);
            crowd.await_ended(crowd.len().saturating_sub(queue.total as usize))?;
        }
        seen.fact("waiters", row(&crowd)?);
        seen.step("close");
        drop(scene);
        crowd.await_all()?;
        seen.fact("closed", row(&crowd)?);
        Ok(())
    }

    fn expect(&self, _: KernelVersion) -> Vec<Expected> {
        let mut facts = Vec::new();
        let mut say = |name, value: String, says| facts.push(Expected::new(name, value, says));
        if self.read {
            say("order", "01245".into(), ORDER);
        }
        let bytes = self.done() * crate::memory::PAGE;
        let (rc, field) = match (self.done(), self.done() == self.end - self.first) {
            (_, true) => ("0", bytes.to_string()),
            (0, false) => ("EEXIST", "-17".to_owned()),
            (_, false) => ("EAGAIN", bytes.to_string()),
        };
        let says = match self.act {
            Act::Copy | Act::CopyDontWake => {
                say("copy", rc.into(), source::COPY);
                say("field", field, source::COPY);
                source::COPY
            }
            Act::Zeropage => {
                say("zeropage", rc.into(), source::ZEROPAGE);
                say("field", field, source::ZEROPAGE);
                source::ZEROPAGE
            }
            Act::Unregister => {
                say("unregister", "0".into(), source::UNREGISTER);
                source::UNREGISTER_WAKES
            }
            Act::Wake => {
                say("wake", "0".into(), source::WAKE);
                source::WAKE
            }
        };
        let letters: Vec<_> = (0..PAGES).map(|page| self.letters(page)).collect();
        let now: String = letters.iter().map(|l| l.0).collect();
        let count = |letter| now.chars().filter(|l| *l == letter).count();
        let (asleep, again) = (count('z'), count('m'));
        // Before a WAKE everything is read.
        let unread = if self.read || self.act == Act::Wake { again } else { asleep };
        say("queue", format!("{}/{unread}", asleep + again), says);
        say("waiters", now.clone(), says);
        say("closed", letters.iter().map(|l| l.1).collect(), source::CLOSE);
        facts
    }

    fn recipe(&self) -> Vec<String> {
        vec![
            "map and register a block of 6 pages; write to page 3".into(),
            format!("a thread ({}) a page accesses pages 0, 1, 2, 4, 5 and parks", self.waiter),
            format!("{} of pages {}..{}", self.act.word(), self.first, self.end),
            "look at every thread; close the userfaultfd; look again".into(),
        ]
    }
}

const ORDER: &str = "userfaultfd_ctx_read() in fs/userfaultfd.c: the oldest of the queue first";

/// The cases.
pub(super) fn cases(cases: &mut Vec<Case>) {
    let spans = [(2, 3), (1, 3), (0, 3), (4, 6), (2, 5), (3, 4), (3, 6), (0, 6)];
    for backing in [Backing::Anon, Backing::Shmem, Backing::Private] {
        for waiter in [Waiter::UserRead, Waiter::UserWrite, Waiter::SysWrite] {
            for act in Act::ALL {
                for (first, end) in spans {
                    for read in [true, false] {
                        let by_default = read
                            && waiter == Waiter::UserRead
                            && (backing == Backing::Anon
                                || backing == Backing::Shmem && act == Act::Copy)
                            || !read && backing == Backing::Anon && act == Act::Copy;
                        let trial = Spread { backing, waiter, act, first, end, read };
                        cases.push(Case::trial(&OWN_RANGE, trial, by_default));
                    }
                }
            }
        }
    }
}
