//! Two registered blocks that change places, each with a waiter: CRIU's and collectors' pattern.

use crate::abi::{REGISTER_MODE_MISSING, Range, Uffd};
use crate::crowd::Crowd;
use crate::edge::UNREGISTER_OWN;
use crate::events::ground::{FOLLOW, NONE, Wants, follow, write};
use crate::evidence::{self, QueueFile};
use crate::expect::Expected;
use crate::memory::{BLOCK, Block, ELSEWHERE, ONE_PAGE, OTHER, remap, tag};
use crate::model::source;
use crate::mover::Mover;
use crate::outcome::{Seen, Stop};
use crate::point::{Backing, PAGES, Waiter, axis};
use crate::probe::{Case, Probe, Trial};
use crate::stage::Stage;
use uffd_results::KernelVersion;

static EXCHANGE: Probe = Probe {
    suite: "changes",
    name: "exchange",
    statement: "Two registered blocks that change places by mremap take their registration along with \
                EVENT_REMAP and lose it without; no waiter goes along or wakes: each is found by its \
                old address, and meets the other block there.",
    consumers: &[
        "CRIU: restores mappings at a temporary place and moves them, criu/pie/restorer.c",
        "Android ART: from- and to-space change places, mark_compact.cc",
    ],
};

axis! {
    /// How the second block comes to the first's place.
    How {
        /// The first moves away, the second takes its place, the first takes the second's.
        Swap = "swap",
        /// The second moves onto the first, which so is gone.
        Onto = "onto",
    }
}

axis! {
    /// Who owns the blocks.
    Owners {
        /// One context.
        One = "one",
        /// Two.
        Two = "two",
    }
}

axis! {
    /// What is done then.
    Then {
        /// COPY to where the first waiter waits, through its context.
        Copy = "copy-first",
        /// The same through the context of the block that stands there now.
        CopyCross = "copy-first-through-second",
        /// COPY to where the second waiter waits, through its context.
        CopySecond = "copy-second",
        /// UNREGISTER of the first's place through the first context.
        Unregister = "unregister-first",
        /// The first context is closed.
        Close = "close-first",
        /// Nothing.
        Look = "look",
    }
}

#[derive(Clone, Copy, Debug)]
struct Exchange {
    backing: Backing,
    how: How,
    events: Wants,
    owners: Owners,
    then: Then,
}

/// The page that each waits for; nobody has written to it.
const HERE: std::ops::Range<usize> = 2..3;
const ALL: std::ops::Range<usize> = 0..PAGES;

struct Ground {
    first: Block,
    uffds: [Uffd; 2],
    queues: [QueueFile; 2],
}

/// Both blocks, all pages but the missing ones written to, and registered.
fn set(stage: &Stage, asked: Exchange) -> Result<Ground, Stop> {
    let blocks = [BLOCK, OTHER].map(|at| Block::map(asked.backing, at));
    let [first, second] = blocks;
    let (first, second) = (first?, second?);
    for page in ALL.filter(|page| !HERE.contains(page)) {
        write(&first, BLOCK, page, tag::KEPT)?;
        write(&second, OTHER, page, tag::NEW)?;
    }
    // A mapping keeps its file.
    drop(second);
    let one = stage.uffd(asked.events.bits)?;
    // One owner: a second descriptor of its context.
    let two = match asked.owners {
        Owners::Two => stage.uffd(asked.events.bits)?,
        Owners::One => one
            .duplicate_from(0)
            .map_err(|e| Stop::Broken(format!("a second descriptor: {e:?}")))?,
    };
    for (uffd, at) in [(&one, BLOCK), (&two, OTHER)] {
        uffd.register(first.at(at, ALL), REGISTER_MODE_MISSING)
            .map_err(|e| Stop::Unsupported(format!("REGISTER of a block: {e:?}")))?;
    }
    let queues = [QueueFile::open(&one)?, QueueFile::open(&two)?];
    Ok(Ground { first, uffds: [one, two], queues })
}

impl Exchange {
    /// The moves, from and to.
    fn moves(self) -> &'static [(usize, usize)] {
        match self.how {
            How::Swap => &[(BLOCK, ELSEWHERE), (OTHER, BLOCK), (ELSEWHERE, OTHER)],
            How::Onto => &[(OTHER, BLOCK)],
        }
    }

    const fn follows(self) -> bool {
        self.events.bits != 0
    }

    const fn is_one(self) -> bool {
        matches!(self.owners, Owners::One)
    }
}

impl Trial for Exchange {
    fn axes(&self) -> String {
        let Self { backing, how, events, owners, then } = self;
        format!("backing={backing},how={how},events={},contexts={owners},then={then}", events.word)
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        seen.step("set-up");
        let Ground { first, uffds: [one, two], queues } = set(stage, *self)?;
        let (here, there) = (first.at(BLOCK, HERE), first.at(OTHER, HERE));
        let watched = if self.is_one() { 1 } else { 2 };
        let looked: Vec<&QueueFile> = queues.iter().take(watched).collect();
        seen.step("park");
        let mut crowd = Crowd::new(stage);
        for (page, queue, uffd) in [(here, &queues[0], &one), (there, &queues[1], &two)] {
            crowd.park(stage, Waiter::UserRead, page, queue)?;
            uffd.read().map_err(|e| Stop::Broken(format!("reading a fault: {e:?}")))?;
        }
        let names = ["move", "move-2", "move-3"];
        let events = ["events", "events-2", "events-3"];
        for (n, (from, to)) in self.moves().iter().enumerate() {
            seen.step(names[n]);
            let (from, to) = (first.at(*from, ALL), *to);
            let moving = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
            let mover = Mover::start(stage, move || remap(from, from.len, moving, to))?;
            let both = [&one, &two];
            seen.fact(events[n], follow(&mover, &both[..watched], first.page)?);
            seen.fact(names[n], mover.join()?);
        }
        tell(["moved-first", "moved-second"], &crowd.settle(&looked)?, seen);
        survey(stage, &first, seen)?;
        seen.step("then");
        let (mut one, two) = (Some(one), two);
        match (self.then, &one) {
            (Then::Copy, Some(one)) => copy(one, here, stage, seen),
            (Then::CopyCross, _) => copy(&two, here, stage, seen),
            (Then::CopySecond, _) => copy(&two, there, stage, seen),
            (Then::Unregister, Some(one)) => {
                seen.fact("unregister", one.unregister(first.at(BLOCK, ALL)));
            }
            _ => {}
        }
        // With one owner, the second descriptor keeps the context.
        if self.then == Then::Close {
            one = None;
        }
        let looked = if one.is_none() { &looked[watched - 1..] } else { &looked[..] };
        tell(["first", "second"], &crowd.settle(looked)?, seen);
        seen.step("wake");
        // Before anybody wakes, who could send a message anew.
        for uffd in one.iter().chain([&two]) {
            while uffd.read().is_ok() {}
        }
        for (page, uffd) in [(here, one.as_ref()), (there, Some(&two))] {
            if let Some(uffd) = uffd {
                uffd.wake(page);
            }
        }
        tell(["woken-first", "woken-second"], &crowd.settle(looked)?, seen);
        seen.step("close");
        drop(one);
        drop(two);
        crowd.await_all()?;
        tell(["ended-first", "ended-second"], &crowd.settle(&[])?, seen);
        Ok(())
    }

    fn expect(&self, kernel: KernelVersion) -> Vec<Expected> {
        expect(*self, kernel)
    }

    fn recipe(&self) -> Vec<String> {
        let Self { backing, how, events, owners, then } = self;
        vec![
            format!("map two blocks of 6 pages ({backing}); write to all pages but page 2 of each"),
            format!(
                "register them with {owners} userfaultfd(s), event features {}; a thread loads from \
                 page 2 of each and parks; read both messages",
                events.word
            ),
            match how {
                How::Swap => {
                    "mremap: the first to an empty place, the second to the first's, the \
                              first to the second's; read the events"
                }
                How::Onto => "mremap of the second onto the first; read the events",
            }
            .to_owned(),
            format!("{then}: look at both waiters"),
            "UFFDIO_WAKE of both pages, each through its own; look; close everything; look"
                .to_owned(),
        ]
    }
}

fn tell(names: [&'static str; 2], fates: &[String], seen: &mut Seen<'_>) {
    for (name, fate) in names.into_iter().zip(fates) {
        seen.fact(name, fate);
    }
}

fn copy(uffd: &Uffd, page: Range, stage: &Stage, seen: &mut Seen<'_>) {
    let (rc, field) = uffd.copy(page, stage.source, 0);
    seen.fact("copy", rc);
    seen.fact("field", field);
}

/// Registration and content at both places.
fn survey(stage: &Stage, block: &Block, seen: &mut Seen<'_>) -> Result<(), Stop> {
    let places = [BLOCK, OTHER].map(|at| (block.at(at, ALL), block.page));
    let rows = evidence::registration(&places)?;
    let letter = |value| stage.letter(value);
    let names = [("reg", "pages"), ("other-reg", "other-pages")];
    for (((range, page), reg), (reg_name, pages_name)) in places.into_iter().zip(rows).zip(names) {
        seen.fact(reg_name, reg);
        seen.fact(pages_name, evidence::pages(range, page, &letter)?);
    }
    Ok(())
}

const EVENTS: &str = "mremap(2): UNMAP of the target, REMAP, UNMAP of the old place; each to the context \
    of its mapping";
const STAYS: &str = "handle_userfault(): a waiter hangs on its context with its address; mremap(2) touches \
    neither";
const KEEPS: &str = "mremap_userfaultfd_prep(): the context goes along if it asked for EVENT_REMAP, else \
    the moved mapping has none";

fn expect(asked: Exchange, kernel: KernelVersion) -> Vec<Expected> {
    let Exchange { how, owners, then, .. } = asked;
    let (follows, one) = (asked.follows(), asked.is_one());
    let mut facts = Vec::new();
    let mut say = |name, value: &str, says| {
        facts.push(Expected::new(name, value.to_owned(), says));
    };
    let [a, b] = if one { ["", ""] } else { ["a:", "b:"] };
    let all = |text: String| if follows { text } else { "none".to_owned() };
    match how {
        How::Swap => {
            say("events", &all(format!("{a}remap(0..6>new),{a}unmap(0..6)")), EVENTS);
            say("move", "0", EVENTS);
            let second = format!("{b}remap(other..other+6>0),{b}unmap(other..other+6)");
            say("events-2", &all(second), EVENTS);
            say("move-2", "0", EVENTS);
            let third = format!("{a}remap(new..new+6>other),{a}unmap(new..new+6)");
            // Without the event the first has lost its context at its first move.
            say("events-3", &all(third), EVENTS);
            say("move-3", "0", EVENTS);
        }
        How::Onto => {
            let moved = format!("{b}remap(other..other+6>0),{b}unmap(other..other+6)");
            say("events", &all(format!("{a}unmap(0..6),{moved}")), EVENTS);
            say("move", "0", EVENTS);
        }
    }
    say("moved-first", "asleep", STAYS);
    say("moved-second", "asleep", STAYS);
    let reg = if follows { "mmmmmm" } else { "......" };
    let swapped = how == How::Swap;
    say("reg", reg, KEEPS);
    say("pages", "nn-nnn", KEEPS);
    say("other-reg", if swapped { reg } else { "------" }, KEEPS);
    say("other-pages", if swapped { "kk-kkk" } else { "------" }, KEEPS);
    // What a woken waiter meets, with its page filled or not.
    let first = if follows { "again" } else { "ran:zero" };
    let second = if swapped { first } else { "SEGV_MAPERR" };
    let asleep = "asleep";
    let copied = "ran:copied";
    let refused = !one && UNREGISTER_OWN.is_known_in(kernel);
    let (mut fate_a, mut fate_b, mut woken_a, mut woken_b) = (asleep, asleep, first, second);
    // Whether the copy has filled the page that the waiter then finds.
    let mut closed = false;
    match then {
        Then::Look => {}
        Then::Copy | Then::CopyCross | Then::CopySecond => {
            let hole = then == Then::CopySecond && !swapped;
            let done = follows && !hole;
            say("copy", if done { "0" } else { "ENOENT" }, source::COPY_ENOENT);
            say("field", if done { ONE_PAGE } else { "-2" }, source::COPY_ENOENT);
            if done {
                match then {
                    Then::CopySecond => (fate_b, woken_b) = (copied, copied),
                    Then::CopyCross if !one => woken_a = copied,
                    _ => (fate_a, woken_a) = (copied, copied),
                }
            }
        }
        Then::Unregister => {
            let refused = refused && follows;
            // Where both have followed, the second's block stands there now.
            let foreign = follows && !one;
            let says = if foreign { UNREGISTER_OWN.source } else { source::UNREGISTER };
            say("unregister", if refused { "EINVAL" } else { "0" }, says);
            if follows && !refused {
                woken_a = "ran:zero";
                if one {
                    fate_a = "ran:zero";
                }
            }
        }
        Then::Close => closed = true,
    }
    if closed && owners == Owners::Two {
        // Woken by its context's end; the block that stands there now belongs to the other, where it
        // waits on as nobody's first, or to none.
        fate_a = first;
        woken_a = if first == "again" { asleep } else { first };
        if swapped && follows {
            // The first's block, at the second's place, has lost its context.
            woken_b = "ran:zero";
        }
    }
    say("first", fate_a, STAYS);
    say("second", fate_b, STAYS);
    say("woken-first", woken_a, source::RERUN);
    say("woken-second", woken_b, source::RERUN);
    let ended =
        |fate: &'static str| if ["again", asleep].contains(&fate) { "ran:zero" } else { fate };
    say("ended-first", ended(woken_a), source::CLOSE);
    say("ended-second", ended(woken_b), source::CLOSE);
    facts
}

/// The cases.
pub(super) fn cases(cases: &mut Vec<Case>) {
    for backing in [Backing::Anon, Backing::Shmem, Backing::Private] {
        for how in How::ALL {
            for events in [NONE, FOLLOW] {
                for owners in Owners::ALL {
                    for then in Then::ALL {
                        let (how, owners, then) = (*how, *owners, *then);
                        if owners == Owners::One && matches!(then, Then::CopyCross | Then::Close) {
                            continue;
                        }
                        let by_default = backing == Backing::Anon
                            || backing == Backing::Shmem && events.bits != 0;
                        let trial = Exchange { backing, how, events, owners, then };
                        cases.push(Case::trial(&EXCHANGE, trial, by_default));
                    }
                }
            }
        }
    }
}
