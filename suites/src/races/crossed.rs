//! Two COPYs whose sources are missing pages, each the target of the other.

use super::stopped::{Copying, shut, word};
use crate::abi::{Range, Uffd};
use crate::events::ground::{self, Ground, MISSING};
use crate::evidence::{self, QueueFile};
use crate::expect::Expected;
use crate::memory::{self, Block, ONE_PAGE, OTHER, tag};
use crate::model::source as says;
use crate::outcome::{Seen, Stop};
use crate::point::{Backing, PAGES, axis};
use crate::probe::{Case, Probe, Trial};
use crate::stage::Stage;
use uffd_results::KernelVersion;

static CROSSED: Probe = Probe {
    suite: "races",
    name: "copy-crossed",
    statement: "Two COPYs whose sources are each other's targets wait for each other; one page from \
                elsewhere lets one of them place its page, and the other finds its own taken: EEXIST.",
    consumers: &["two postcopy handlers that read from each other's memory"],
};

axis! {
    /// What lets two COPYs go that wait for each other.
    Ends {
        /// COPY to the first one's target.
        Copy = "copy",
        /// ZEROPAGE of the first one's target.
        Zeropage = "zeropage",
        /// WAKE of both; then COPY to the first one's target.
        Wake = "wake-copy",
        /// UNREGISTER of the first block.
        UnregisterFirst = "unregister-first",
        /// UNREGISTER of the second block.
        UnregisterSecond = "unregister-second",
        /// The first context's descriptor is closed; then COPY to the second one's target.
        Close = "close-copy-second",
    }
}

#[derive(Debug)]
struct Crossed {
    backing: Backing,
    ends: Ends,
}

/// A block with a page missing, and its context.
struct Side {
    block: Block,
    base: usize,
    uffd: &'static Uffd,
    queue: QueueFile,
}

impl Side {
    fn target(&self) -> Range {
        self.block.at(self.base, MISSING..MISSING + 1)
    }

    fn all(&self) -> Range {
        self.block.at(self.base, 0..PAGES)
    }

    fn pages(&self, stage: &Stage) -> Result<String, Stop> {
        evidence::pages(self.all(), self.block.page, &|value| stage.letter(value))
    }
}

fn sides(stage: &Stage, backing: Backing) -> Result<[Side; 2], Stop> {
    let Ground { block, uffd, queue, .. } = Ground::set(stage, backing, 0)?;
    let one = Side { block, base: memory::BLOCK, uffd: Box::leak(Box::new(uffd)), queue };
    let block = Block::map(backing, OTHER)?;
    for page in (0..PAGES).filter(|page| *page != MISSING) {
        ground::write(&block, OTHER, page, tag::NEW)?;
    }
    let uffd: &'static Uffd = Box::leak(Box::new(stage.uffd(0)?));
    let queue = QueueFile::open(uffd)?;
    let two = Side { block, base: OTHER, uffd, queue };
    ground::register(uffd, two.all())?;
    Ok([one, two])
}

impl Trial for Crossed {
    fn axes(&self) -> String {
        format!("backing={},by={}", self.backing, self.ends)
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        seen.step("set-up");
        let [one, two] = sides(stage, self.backing)?;
        let copying = |to: &Side, from: &Side| {
            let at = from.target().start;
            Copying::start(stage, (at, (from.uffd, &from.queue)), to.uffd, (to.target(), at))
        };
        seen.step("copies");
        let mut first = copying(&one, &two)?;
        let mut second = copying(&two, &one)?;
        seen.fact("queues", format!("{}+{}", one.queue.read()?, two.queue.read()?));
        seen.step("act");
        let copy = |side: &Side| side.uffd.copy(side.target(), stage.source, 0).0;
        match self.ends {
            Ends::Copy => seen.fact("act", copy(&one)),
            Ends::Zeropage => seen.fact("act", one.uffd.zeropage(one.target(), 0).0),
            Ends::Wake => {
                one.uffd.wake(one.target());
                two.uffd.wake(two.target());
                let again = first.stopped.thread().look(two.uffd, &two.queue)?;
                seen.fact("woken-first", word(again));
                let again = second.stopped.thread().look(one.uffd, &one.queue)?;
                seen.fact("woken-second", word(again));
                seen.fact("act", copy(&one));
            }
            Ends::UnregisterFirst => seen.fact("act", one.uffd.unregister(one.all())),
            Ends::UnregisterSecond => seen.fact("act", two.uffd.unregister(two.all())),
            Ends::Close => {
                seen.fact("close", shut(one.uffd));
                let fates = [&mut first, &mut second]
                    .map(|copy| copy.stopped.thread().look_alone().map(word));
                let [one, other] = fates;
                seen.fact("closed", format!("{}+{}", one?, other?));
                seen.fact("act", copy(&two));
            }
        }
        let (rc, field) = first.end()?;
        seen.fact("first", rc);
        seen.fact("first-field", field);
        let (rc, field) = second.end()?;
        seen.fact("second", rc);
        seen.fact("second-field", field);
        seen.fact("pages", one.pages(stage)?);
        seen.fact("second-pages", two.pages(stage)?);
        Ok(())
    }

    fn expect(&self, _: KernelVersion) -> Vec<Expected> {
        let crossed = "mfill_atomic(): the first to get its source places its page and wakes the other, \
                       which finds its own target taken";
        let holds = "ioctl(2) holds the open file: the close is not the last reference";
        let mut facts = vec![Expected::new("queues", "1/0+1/0", says::QUEUE)];
        match self.ends {
            Ends::Wake => {
                facts.push(Expected::new("woken-first", "again", says::RERUN));
                facts.push(Expected::new("woken-second", "again", says::RERUN));
            }
            Ends::Close => {
                facts.push(Expected::new("close", "0", holds));
                facts.push(Expected::new("closed", "asleep+asleep", holds));
            }
            _ => {}
        }
        let (placed, taken, gone) = (("0", ONE_PAGE), ("EEXIST", "-17"), ("ENOENT", "-2"));
        let (one, two, page) = match self.ends {
            Ends::Copy | Ends::Wake => (taken, placed, 'c'),
            Ends::Zeropage => (taken, placed, '0'),
            Ends::UnregisterFirst => (gone, placed, '0'),
            Ends::UnregisterSecond => (placed, gone, '0'),
            Ends::Close => (placed, taken, 'c'),
        };
        facts.extend([
            Expected::new("act", "0", says::COPY),
            Expected::new("first", one.0, crossed),
            Expected::new("first-field", one.1, crossed),
            Expected::new("second", two.0, crossed),
            Expected::new("second-field", two.1, crossed),
            Expected::new("pages", format!("kk{page}kkk"), crossed),
            Expected::new("second-pages", format!("nn{page}nnn"), crossed),
        ]);
        facts
    }

    fn recipe(&self) -> Vec<String> {
        vec![
            format!(
                "map two blocks of 6 pages ({}) and register each with a userfaultfd of its own; page 2 \
                 of each is missing",
                self.backing
            ),
            "a thread copies page 2 of the second to page 2 of the first, and parks".to_owned(),
            "another copies page 2 of the first to page 2 of the second, and parks".to_owned(),
            format!("then: {}", self.ends),
            "what both returned; look at every page".to_owned(),
        ]
    }
}

/// The cases.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for backing in [Backing::Anon, Backing::Shmem, Backing::Private, Backing::SharedAnon] {
        let by_default = matches!(backing, Backing::Anon | Backing::Shmem);
        for ends in Ends::ALL {
            cases.push(Case::trial(&CROSSED, Crossed { backing, ends: *ends }, by_default));
        }
    }
    cases
}
