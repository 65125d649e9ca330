//! What the facts of a sequence have told so far: rows of pages, and what is known of each page for sure.

use crate::explore::pages::WIDTH;
use crate::explore::{Ctx, Feature, Memory, Op, Pages, Place, Prot, Step, Treat};

const PAGES: usize = WIDTH as usize;

/// The word for a thread of which nothing is said.
pub(super) const ASLEEP: &str = "asleep";

/// The words of one step: `name=value`, joined by `;`.
pub(super) struct Words<'a>(Vec<(&'a str, &'a str)>);

impl<'a> Words<'a> {
    pub(super) fn new(said: &'a str) -> Self {
        Self(said.split(';').filter_map(|word| word.split_once('=')).collect())
    }

    pub(super) fn get(&self, name: &str) -> Option<&'a str> {
        self.0.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
    }

    /// The threads of which something is said, by the number of their step, with what became of them.
    fn fates(&self) -> impl Iterator<Item = (usize, &'a str)> + '_ {
        let number = |name: &str| name.strip_prefix('w')?.parse().ok();
        self.0.iter().filter_map(move |(name, value)| Some((number(name)?, *value)))
    }

    /// The words with another value of one of them; a thread that is asleep is not spoken of.
    pub(super) fn with(&self, name: &str, value: &str) -> String {
        let is_thread = name.strip_prefix('w').is_some_and(|n| n.parse::<usize>().is_ok());
        let mut words: Vec<String> = Vec::new();
        let mut is_new = true;
        for (known, old) in &self.0 {
            let is_it = *known == name;
            is_new &= !is_it;
            match (is_it, is_thread && value == ASLEEP) {
                (true, true) => {}
                (true, false) => words.push(format!("{known}={value}")),
                (false, _) => words.push(format!("{known}={old}")),
            }
        }
        if is_new {
            words.push(format!("{name}={value}"));
        }
        words.join(";")
    }
}

/// One page of a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Page {
    place: Place,
    number: u8,
}

impl Page {
    /// As steps name it.
    pub(super) const fn pages(self) -> Pages {
        Pages::new(self.place, self.number, 1)
    }
}

/// The pages of a range, one after the other.
pub(super) fn each(pages: Pages) -> impl Iterator<Item = Page> {
    (pages.first..pages.end()).map(move |number| Page { place: pages.place, number })
}

/// Whom a page's registration belongs to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Owner {
    #[default]
    Nobody,
    Context(Ctx),
    /// One of two, or it is not known.
    Unsure,
}

/// What is known of a page beside its letters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) memory: Option<Memory>,
    pub(super) prot: Option<Prot>,
    pub(super) owner: Owner,
    /// Poisoned, guarded or protected once: its entry may be a mark.
    pub(super) marked: bool,
}

/// A thread that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Waiting {
    /// The number of its step, from 1.
    pub(super) number: usize,
    page: Page,
    /// Whose queue it is in, where that is known.
    pub(super) ctx: Option<Ctx>,
}

impl Waiting {
    pub(super) fn is_in(self, pages: Pages) -> bool {
        pages.overlaps(self.page.pages())
    }
}

/// A letter a page of each place.
type Rows = [[u8; PAGES]; 3];

/// The state between two steps.
#[derive(Clone, Debug)]
pub(super) struct State {
    registered: Rows,
    present: Rows,
    known: [[Known; PAGES]; 3],
    features: [Option<Feature>; 2],
    pub(super) waiting: Vec<Waiting>,
}

impl Default for State {
    fn default() -> Self {
        let rows = [[b'-'; PAGES]; 3];
        Self {
            registered: rows,
            present: rows,
            known: [[Known::default(); PAGES]; 3],
            features: [None; 2],
            waiting: Vec::new(),
        }
    }
}

impl State {
    /// The letter of its registration.
    pub(super) fn registration(&self, page: Page) -> u8 {
        self.registered[page.place as usize][usize::from(page.number)]
    }

    /// The letter of its content; `-` if it is not present.
    pub(super) fn content(&self, page: Page) -> u8 {
        self.present[page.place as usize][usize::from(page.number)]
    }

    pub(super) fn known(&self, page: Page) -> Known {
        self.known[page.place as usize][usize::from(page.number)]
    }

    /// What the context has asked for, if it is open.
    pub(super) const fn feature(&self, ctx: Ctx) -> Option<Feature> {
        self.features[ctx.index()]
    }

    /// The state with the rows that a step has told.
    pub(super) fn with_rows(&self, words: &Words<'_>) -> Self {
        let mut after = self.clone();
        for place in Place::ALL {
            for (kind, rows) in [("reg", &mut after.registered), ("pages", &mut after.present)] {
                let told = words.get(&format!("{}-{kind}", place.letter())).map(str::as_bytes);
                if let Some(Ok(row)) = told.map(<[u8; PAGES]>::try_from) {
                    rows[place as usize] = row;
                }
            }
        }
        after
    }

    /// The name of the first row of registration of `after` that is not as `wanted` has it, and the
    /// wanted row.
    pub(super) fn differing_registration(
        after: &Self,
        wanted: impl Fn(Page) -> u8,
    ) -> Option<(String, String)> {
        Self::differing("reg", &after.registered, wanted)
    }

    /// The same of content.
    pub(super) fn differing_content(
        after: &Self,
        wanted: impl Fn(Page) -> u8,
    ) -> Option<(String, String)> {
        Self::differing("pages", &after.present, wanted)
    }

    fn differing(kind: &str, rows: &Rows, wanted: impl Fn(Page) -> u8) -> Option<(String, String)> {
        Place::ALL.into_iter().find_map(|place| {
            let row: Vec<u8> = each(Pages::new(place, 0, WIDTH)).map(&wanted).collect();
            let name = || format!("{}-{kind}", place.letter());
            (row != rows[place as usize])
                .then(|| (name(), String::from_utf8_lossy(&row).into_owned()))
        })
    }

    fn set(&mut self, pages: Pages, change: impl Fn(&mut Known)) {
        for page in each(pages) {
            change(&mut self.known[page.place as usize][usize::from(page.number)]);
        }
    }

    /// Takes in what a step has done, whose rows are known already.
    pub(super) fn follow(&mut self, number: usize, step: Step, words: &Words<'_>) {
        let said = words.get(step.verb()).unwrap_or_default();
        let done = said == "0";
        self.mappings(step, done);
        match step {
            Step::Open(ctx, feature) if done => self.features[ctx.index()] = Some(feature),
            Step::Close(ctx) => self.features[ctx.index()] = None,
            Step::Register(ctx, _, pages) => {
                let owner = if done { Owner::Context(ctx) } else { Owner::Unsure };
                self.set(pages, |known| known.owner = owner);
            }
            Step::Call(_, Op::Poison | Op::Protect, pages, _)
            | Step::Treat(Treat::Guard, pages) => self.set(pages, |known| known.marked = true),
            Step::Call(.., pages, super::super::Extra::Wp) => {
                self.set(pages, |known| known.marked = true);
            }
            Step::Relocate(_, to, from, _) => {
                for pages in [to, from] {
                    self.set(pages, |known| known.marked = true);
                }
            }
            Step::Access(_, page) if said == "waits" => {
                let page = Page { place: page.place, number: page.first };
                self.waiting.push(Waiting { number, page, ctx: self.owner(page) });
            }
            _ => {}
        }
        self.owners();
        for (number, fate) in words.fates() {
            let again = self.waiting.iter().find(|w| w.number == number).map(|w| w.page);
            self.waiting.retain(|waiting| waiting.number != number);
            if let Some(page) = again.filter(|_| fate == "again") {
                self.waiting.push(Waiting { number, page, ctx: self.owner(page) });
            }
        }
    }

    fn owner(&self, page: Page) -> Option<Ctx> {
        match self.known(page).owner {
            Owner::Context(ctx) => Some(ctx),
            _ => None,
        }
    }

    /// What is mapped where, after a step that changes mappings.
    fn mappings(&mut self, step: Step, done: bool) {
        if !done {
            // One that fails may have done a part.
            if matches!(
                step,
                Step::Map(..) | Step::Treat(Treat::Unmap, _) | Step::Protect(..) | Step::Move(..)
            ) || matches!(step, Step::Resize(..))
            {
                for pages in step.pages() {
                    self.set(pages, |known| {
                        *known = Known { owner: Owner::Unsure, marked: true, ..Known::default() };
                    });
                }
            }
            return;
        }
        match step {
            Step::Map(memory, pages) => {
                let prot = if memory == Memory::None { Prot::None } else { Prot::Write };
                let (memory, prot) = (Some(memory), Some(prot));
                self.set(pages, |known| *known = Known { memory, prot, ..Known::default() });
            }
            Step::Treat(Treat::Unmap, pages) => self.set(pages, |known| *known = Known::default()),
            Step::Protect(prot, pages) => self.set(pages, |known| known.prot = Some(prot)),
            Step::Move(from, to, keeps) => {
                for (from, to) in each(from).zip(each(to)) {
                    let moved = self.known(from);
                    let carried = match moved.owner {
                        Owner::Context(ctx) if self.feature(ctx) == Some(Feature::Events) => {
                            moved.owner
                        }
                        Owner::Unsure => Owner::Unsure,
                        _ => Owner::Nobody,
                    };
                    self.set(to.pages(), |known| *known = Known { owner: carried, ..moved });
                    let left = if keeps { moved } else { Known::default() };
                    self.set(from.pages(), |known| *known = left);
                }
            }
            Step::Resize(pages, count) => {
                let all = Pages { count, ..pages };
                let last = each(pages).last().map(|page| self.known(page)).unwrap_or_default();
                for page in each(all).skip(usize::from(pages.count)) {
                    self.set(page.pages(), |known| {
                        *known = Known { owner: Owner::Unsure, ..last };
                    });
                }
                for page in each(pages).skip(usize::from(count)) {
                    self.set(page.pages(), |known| *known = Known::default());
                }
            }
            _ => {}
        }
    }

    /// Brings owners in line with what is registered.
    fn owners(&mut self) {
        for place in Place::ALL {
            for page in each(Pages::new(place, 0, WIDTH)) {
                let is_registered = !matches!(self.registration(page), b'-' | b'.');
                let known = &mut self.known[place as usize][usize::from(page.number)];
                match known.owner {
                    _ if !is_registered => known.owner = Owner::Nobody,
                    Owner::Nobody => known.owner = Owner::Unsure,
                    _ => {}
                }
            }
        }
    }
}
