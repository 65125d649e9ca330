//! A second REGISTER of what is registered, and UNREGISTER of a part of it.

use super::words::{self, MODE, REPLACES, SPLITS};
use crate::abi::REGISTER_MODE_WP;
use crate::evidence;
use crate::expect::Expected;
use crate::memory::{BLOCK, Block};
use crate::model::source;
use crate::outcome::{Seen, Stop};
use crate::point::{Backing, PAGES, Part};
use crate::probe::{Case, Probe, Trial};
use crate::stage::Stage;
use uffd_results::KernelVersion;

static TWICE: Probe = Probe {
    suite: "register",
    name: "twice",
    statement: "A second REGISTER of a part changes the part's modes to the new ones, unless it has them \
                all already; from 7.3 on it is EBUSY if it would take write protection or RWP away. \
                Nothing is counted, and one UNREGISTER ends it.",
    consumers: &[
        "libfabric psm3: REGISTER twice is legal",
        "E2B: UNREGISTER, then REGISTER for WP only",
    ],
};
static PART: Probe = Probe {
    suite: "register",
    name: "unregister-part",
    statement: "UNREGISTER of a part ends the registration of exactly that part, in any mode, and can be \
                repeated; a later REGISTER of the whole makes one mapping of it again.",
    consumers: &[
        "CRIU lazy-pages: handle_remove()",
        "Firecracker: unregister_range()",
        "Android ART: mappings merge again after UNREGISTER",
    ],
};

/// REGISTER of all, then of a part with another mode.
#[derive(Clone, Copy, Debug)]
struct Twice {
    backing: Backing,
    first: u64,
    second: u64,
    part: Part,
}

/// What one ioctl left: registration of every page, and how many mappings there are.
fn look(block: &Block) -> Result<(String, usize), Stop> {
    let all = block.range(0..PAGES);
    let reg = evidence::registration(&[(all, block.page)])?.concat();
    Ok((reg, evidence::mappings_in(all)?))
}

/// How many runs of one letter there are: neighbours that are alike merge.
fn runs(reg: &str) -> usize {
    let letters: Vec<char> = reg.chars().collect();
    1 + letters.windows(2).filter(|pair| pair[0] != pair[1]).count()
}

/// The block's letters when `part` has one letter and the rest another.
fn row(rest: char, part: Part, inside: char) -> String {
    (0..PAGES).map(|page| if part.pages().contains(&page) { inside } else { rest }).collect()
}

impl Trial for Twice {
    fn axes(&self) -> String {
        let Self { backing, first, second, part } = self;
        let (first, second) = (words::mode(*first), words::mode(*second));
        format!("backing={backing},first={first},second={second},part={part}")
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        seen.step("set-up");
        let block = Block::map(self.backing, BLOCK)?;
        let uffd = stage.uffd(0)?;
        let rc = |result: Result<u64, nix::errno::Errno>| match result {
            Ok(_) => "0".to_owned(),
            Err(errno) => format!("{errno:?}"),
        };
        seen.step("register");
        seen.fact("first", rc(uffd.register(block.range(0..PAGES), self.first)));
        let second = uffd.register(block.range(self.part.pages()), self.second);
        if let Ok(mask) = second {
            seen.fact("ioctls", words::ioctls(mask));
        }
        seen.fact("second", rc(second));
        let (reg, mappings) = look(&block)?;
        seen.fact("reg", reg);
        seen.fact("mappings", mappings);
        seen.step("unregister");
        seen.fact("unregister", uffd.unregister(block.range(0..PAGES)));
        let (reg, mappings) = look(&block)?;
        seen.fact("reg-after", reg);
        seen.fact("mappings-after", mappings);
        Ok(())
    }

    fn expect(&self, kernel: KernelVersion) -> Vec<Expected> {
        let Self { backing, first, second, part } = *self;
        let taken = |bits| words::takes_backing(bits, backing, kernel);
        let rc = |bits| if taken(bits) { "0" } else { "EINVAL" };
        let before = if taken(first) { first } else { 0 };
        let keeps = before & REGISTER_MODE_WP != 0 && second & REGISTER_MODE_WP == 0;
        let busy = keeps && taken(second) && kernel >= KernelVersion::new(7, 3, 0);
        let inside = match second {
            bits if busy || !taken(bits) => before,
            bits if before & bits == bits => before,
            bits => bits,
        };
        let reg = row(words::letter(before), part, words::letter(inside));
        // Letters stand for several modes.
        let mappings = if before == inside { 1 } else { runs(&row('a', part, 'b')) };
        let mut facts = vec![Expected::new("first", rc(first), MODE)];
        if taken(second) && !busy {
            let offered = words::offered(second, backing.is_huge(), kernel);
            facts.push(Expected::new("ioctls", offered, words::OFFERED));
        }
        let says = "Documentation/admin-guide/mm/userfaultfd.rst (7.3); userfaultfd_register(): EBUSY where REGISTER \
                    would take the mode of write protection or RWP from a mapping; taken before";
        let (returned, says) = if busy { ("EBUSY", says) } else { (rc(second), MODE) };
        facts.push(Expected::new("second", returned, says));
        facts.push(Expected::new("reg", reg, REPLACES));
        facts.push(Expected::new("mappings", mappings.to_string(), SPLITS));
        facts.push(Expected::new("unregister", "0", source::UNREGISTER));
        facts.push(Expected::new("reg-after", "......", source::UNREGISTER));
        // Hugetlb mappings never merge (VM_DONTEXPAND).
        let merged = if backing.is_huge() { mappings } else { 1 };
        facts.push(Expected::new("mappings-after", merged.to_string(), SPLITS));
        facts
    }

    fn recipe(&self) -> Vec<String> {
        let Self { backing, first, second, part } = self;
        vec![
            format!("map a {backing} block of {PAGES} pages"),
            format!("UFFDIO_REGISTER of all with mode {}", words::mode(*first)),
            format!("UFFDIO_REGISTER of this part with mode {}: {part}", words::mode(*second)),
            "UFFDIO_UNREGISTER of all; count the mappings each time".into(),
        ]
    }

    fn uses_huge_pages(&self) -> bool {
        self.backing.is_huge()
    }
}

/// UNREGISTER of a part, twice, then REGISTER of all.
#[derive(Clone, Copy, Debug)]
struct Unregister {
    backing: Backing,
    bits: u64,
    part: Part,
}

impl Trial for Unregister {
    fn axes(&self) -> String {
        let Self { backing, bits, part } = self;
        format!("backing={backing},mode={},part={part}", words::mode(*bits))
    }

    fn run(&self, stage: &Stage, seen: &mut Seen<'_>) -> Result<(), Stop> {
        let Self { backing, bits, part } = *self;
        seen.step("set-up");
        let block = Block::map(backing, BLOCK)?;
        let uffd = stage.uffd(0)?;
        let all = block.range(0..PAGES);
        uffd.register(all, bits).map_err(|e| {
            let mode = words::mode(bits);
            Stop::Unsupported(format!("REGISTER of a {backing} block for {mode}: {e:?}"))
        })?;
        seen.step("unregister");
        seen.fact("unregister", uffd.unregister(block.range(part.pages())));
        let (reg, mappings) = look(&block)?;
        seen.fact("reg", reg);
        seen.fact("mappings", mappings);
        seen.fact("again", uffd.unregister(block.range(part.pages())));
        seen.step("register");
        let rc = uffd.register(all, bits);
        seen.fact("register", rc.map_or_else(|e| format!("{e:?}"), |_| "0".to_owned()));
        let (reg, mappings) = look(&block)?;
        seen.fact("reg-after", reg);
        seen.fact("mappings-after", mappings);
        Ok(())
    }

    fn expect(&self, _: KernelVersion) -> Vec<Expected> {
        let Self { backing, bits, part } = *self;
        let letter = words::letter(bits);
        let reg = row(letter, part, '.');
        // Hugetlb mappings never merge (VM_DONTEXPAND).
        let merged = if backing.is_huge() { runs(&reg) } else { 1 };
        vec![
            Expected::new("unregister", "0", source::UNREGISTER),
            Expected::new("reg", reg.clone(), source::UNREGISTER),
            Expected::new("mappings", runs(&reg).to_string(), SPLITS),
            Expected::new("again", "0", source::UNREGISTER),
            Expected::new("register", "0", MODE),
            Expected::new("reg-after", letter.to_string().repeat(PAGES), MODE),
            Expected::new("mappings-after", merged.to_string(), SPLITS),
        ]
    }

    fn recipe(&self) -> Vec<String> {
        let Self { backing, bits, part } = self;
        vec![
            format!("map and register a {backing} block with mode {}", words::mode(*bits)),
            format!("UFFDIO_UNREGISTER of this part, twice: {part}"),
            "UFFDIO_REGISTER of all again; count the mappings each time".into(),
        ]
    }

    fn uses_huge_pages(&self) -> bool {
        self.backing.is_huge()
    }
}

/// The cases.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for backing in Backing::ALL {
        let most = if backing.is_anon() { 4 } else { 8 };
        let plain = matches!(backing, Backing::Anon | Backing::Shmem);
        for part in Part::ALL {
            for first in 1..most {
                for second in 1..most {
                    let telling = plain && matches!(part, Part::Whole | Part::Middle);
                    let trial = Twice { backing: *backing, first, second, part: *part };
                    cases.push(Case::trial(&TWICE, trial, telling));
                }
                let telling = plain || matches!((first, part), (1, Part::Middle));
                let trial = Unregister { backing: *backing, bits: first, part: *part };
                cases.push(Case::trial(&PART, trial, telling));
            }
        }
    }
    cases
}
