//! COPY of 4 MiB in one call: two page tables, a thousand pages, and something in their middle.

use crate::abi::REGISTER_MODE_MISSING;
use crate::crowd::Crowd;
use crate::evidence::{self, QueueFile};
use crate::expect::Expected;
use crate::memory::{self, BLOCK, Block, HUGE, PAGE, RW, tag};
use crate::model::source;
use crate::outcome::{Seen, Stop};
use crate::point::{Backing, Waiter, axis};
use crate::probe::{Case, Probe, Trial};
use crate::stage::Stage;
use crate::touch;
use uffd_results::KernelVersion;

static LONG: Probe = Probe {
    suite: "copy",
    name: "long",
    statement: "COPY of 4 MiB in one call places every page and wakes every waiter; up to a present page it \
                places all, fails with EAGAIN, stores their length and wakes their waiters only; of a range \
                with a hole or a replaced page in its middle it places nothing.",
    consumers: &[
        "Firecracker UFFD handlers: populate_from_file() of a whole region",
        "CRIU lazy-pages: uffd_copy() of a whole range",
        "crosvm: uffd_copy_all()",
    ],
};

axis! {
    /// What is in the middle.
    Middle {
        /// Missing pages, as everywhere.
        Missing = "missing",
        /// A page that was written to before.
        Present = "present",
        /// A page that was written to, the last but one.
        PresentLate = "present-at-the-end",
        /// A page that was unmapped.
        Hole = "hole",
        /// A page that was replaced by other memory.
        Replaced = "replaced",
        /// A mapping ends there and another, registered as well, begins.
        Split = "split",
        /// The source can't be read from there on.
        NoSource = "source-unreadable",
    }
}

axis! {
    /// How the rest comes after a call that stopped.
    Mode {
        /// All in one call.
        Once = "once",
        /// The caller goes on behind the page that stopped it, as crosvm and CRIU do.
        Resumed = "resumed",
    }
}

#[derive(Clone, Copy, Debug)]
struct Long {
    backing: Backing,
    middle: Middle,
    mode: Mode,
}

const LEN: usize = 2 * HUGE;
const PAGES: usize = LEN / PAGE;

impl Middle {
    /// The page that is special.
    const fn page(self) -> usize {
        if matches!(self, Self::PresentLate) { PAGES - 2 } else { PAGES / 2 }
    }

    /// Whether the call stops there, with what came before placed.
    const fn stops(self) -> bool {
        matches!(self, Self::Present | Self::PresentLate | Self::NoSource)
    }
}

/// Equal letters and how many follow each other: `c512,k1,-511`.
fn runs(letters: &str) -> String {
    let mut runs: Vec<(char, usize)> = Vec::new();
    for letter in letters.chars() {
        match runs.last_mut() {
            Some((last, n)) if *last == letter => *n += 1,
            _ => runs.push((letter, 1)),
        }
    }
    runs.iter().map(|(letter, n)| format!("{letter}{n}")).collect::<Vec<_>>().join("+")
}

impl Trial for Long {
    fn axes(&self) -> String {
        let Self { backing, middle, mode } = self;
        format!("backing={backing},middle={middle},call={mode}")
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        let Self { backing, middle, mode } = *self;
        seen.step("set-up");
        let block = Block::map_many(backing, BLOCK, PAGES)?;
        let special = block.range(middle.page()..middle.page() + 1);
        if matches!(middle, Middle::Present | Middle::PresentLate) {
            touch::store(special.start, tag::KEPT)
                .map_err(|signal| Stop::Broken(format!("writing to a page: {signal}")))?;
        }
        let uffd = stage.uffd(0)?;
        let queue = QueueFile::open(&uffd)?;
        uffd.register(block.range(0..PAGES), REGISTER_MODE_MISSING)
            .map_err(|e| Stop::Unsupported(format!("REGISTER of 4 MiB: {e:?}")))?;
        let from =
            if middle == Middle::NoSource { stage.half_source()? } else { stage.long_source()? };
        seen.step("park");
        let mut crowd = Crowd::new(stage);
        // In front of the middle and behind it, at both ends.
        for page in [0, PAGES - 1] {
            crowd.park(stage, Waiter::UserRead, block.range(page..page + 1), &queue)?;
            uffd.read().map_err(|e| Stop::Broken(format!("reading a fault: {e:?}")))?;
        }
        let anon = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let half = block.range(PAGES / 2..PAGES);
        let rc = match middle {
            Middle::Hole => memory::unmap(special),
            Middle::Replaced => memory::map(special, RW, anon, None, 0),
            Middle::Split => memory::advise(half, libc::MADV_DONTFORK),
            _ => crate::abi::Rc::OK,
        };
        if !rc.is_ok() {
            return Err(Stop::Broken(format!("making {middle}: {rc}")));
        }
        seen.step("copy");
        let (rc, field) = uffd.copy(block.range(0..PAGES), from, 0);
        seen.fact("copy", rc);
        seen.fact("field", field);
        tell(["first", "last"], &mut crowd, &queue, seen)?;
        survey("pages", stage, &block, seen)?;
        if mode == Mode::Resumed {
            seen.step("resume");
            let at = middle.page();
            let stopped = uffd.copy(block.range(at..PAGES), from, 0);
            seen.fact("stopped", stopped.0);
            seen.fact("stopped-field", stopped.1);
            let rest = uffd.copy(block.range(at + 1..PAGES), from, 0);
            seen.fact("rest", rest.0);
            seen.fact("rest-field", rest.1);
            tell(["first-then", "last-then"], &mut crowd, &queue, seen)?;
            survey("pages-then", stage, &block, seen)?;
        }
        drop(uffd);
        crowd.await_all()
    }

    fn expect(&self, _: KernelVersion) -> Vec<Expected> {
        let Self { middle, mode, .. } = *self;
        let at = middle.page();
        let mut facts = Vec::new();
        let mut say = |name, value: String, says| facts.push(Expected::new(name, value, says));
        let part = "ioctl_userfaultfd(2), UFFDIO_COPY: a partial copy fails with EAGAIN and stores the \
                    bytes copied, whose waiters are woken";
        let says = if middle.stops() { part } else { source::COPY_ENOENT };
        let whole = middle == Middle::Missing;
        let (rc, field) = match middle {
            Middle::Missing => ("0", LEN.to_string()),
            _ if middle.stops() => ("EAGAIN", (at * PAGE).to_string()),
            _ => ("ENOENT", "-2".to_owned()),
        };
        say("copy", rc.to_owned(), says);
        say("field", field, says);
        let woken = |yes: bool| if yes { "ran:copied" } else { "asleep" }.to_owned();
        say("first", woken(whole || middle.stops()), says);
        say("last", woken(whole), says);
        let pages = match middle {
            Middle::Missing => format!("c{PAGES}"),
            Middle::NoSource => format!("c{at}+-{}", PAGES - at),
            _ if middle.stops() => format!("c{at}+k1+-{}", PAGES - at - 1),
            _ => format!("-{PAGES}"),
        };
        say("pages", pages, says);
        if mode == Mode::Resumed {
            say("stopped", "EEXIST".into(), "ioctl_userfaultfd(2), UFFDIO_COPY, EEXIST");
            say("stopped-field", "-17".into(), "ioctl_userfaultfd(2), UFFDIO_COPY, EEXIST");
            say("rest", "0".into(), source::COPY);
            say("rest-field", ((PAGES - at - 1) * PAGE).to_string(), source::COPY);
            say("first-then", woken(true), source::COPY);
            say("last-then", woken(true), source::COPY);
            say("pages-then", format!("c{at}+k1+c{}", PAGES - at - 1), source::COPY);
        }
        facts
    }

    fn recipe(&self) -> Vec<String> {
        let Self { backing, middle, mode } = self;
        vec![
            format!("map and register 4 MiB ({backing}); in their middle: {middle}"),
            "a thread loads from the first page, another from the last; read both messages"
                .to_owned(),
            "UFFDIO_COPY of all 4 MiB; look at both threads and at every page".to_owned(),
            match mode {
                Mode::Once => "close the userfaultfd".to_owned(),
                Mode::Resumed => {
                    "UFFDIO_COPY from the page on that stopped it, then from the one behind it on"
                        .to_owned()
                }
            },
        ]
    }
}

fn tell(
    names: [&'static str; 2],
    crowd: &mut Crowd,
    queue: &QueueFile,
    seen: &mut Seen<'_>,
) -> Result<(), Stop> {
    for (name, fate) in names.into_iter().zip(crowd.settle(&[queue])?) {
        seen.fact(name, fate);
    }
    Ok(())
}

fn survey(
    name: &'static str,
    stage: &Stage,
    block: &Block,
    seen: &mut Seen<'_>,
) -> Result<(), Stop> {
    let letter = |value| stage.letter(value);
    seen.fact(name, runs(&evidence::pages(block.range(0..PAGES), PAGE, &letter)?));
    Ok(())
}

/// The cases.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for backing in [Backing::Anon, Backing::Shmem, Backing::Private, Backing::SharedAnon] {
        for middle in Middle::ALL {
            for mode in Mode::ALL {
                let resumes = matches!(middle, Middle::Present | Middle::PresentLate);
                if *mode == Mode::Once || resumes {
                    let trial = Long { backing, middle: *middle, mode: *mode };
                    cases.push(Case::trial(&LONG, trial, true));
                }
            }
        }
    }
    cases
}

#[cfg(test)]
mod tests {
    use super::runs;

    #[test]
    fn equal_letters_are_counted() {
        assert_eq!(runs("cck--"), "c2+k1+-2");
    }
}
