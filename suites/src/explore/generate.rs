//! Sequences at random, and yet the same for a seed on every machine and in every version.

use super::axes::{Ctx, Extra, Feature, Memory, Mode, Op, Prot, Treat};
use super::offer::Offer;
use super::pages::{Pages, Place, WIDTH};
use super::step::Step;
use super::{LONGEST, Sequence};
use crate::point::PAGES;

/// A generator of numbers: a counter whose bits are mixed (SplitMix64). Its own, since a library's
/// sequence of numbers may change with its version, and a seed's sequences must not.
struct Numbers(u64);

impl Numbers {
    /// Those of a sequence of a seed.
    fn new(seed: u64, index: u64) -> Self {
        let mut first = Self(seed);
        Self(first.next() ^ Self(index).next())
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`.
    fn below(&mut self, bound: u8) -> u8 {
        // The remainder of so many bits is as good as even.
        u8::try_from(self.next() % u64::from(bound.max(1))).unwrap_or(0)
    }

    /// True `n` times out of `of`.
    fn chance(&mut self, n: u8, of: u8) -> bool {
        self.below(of) < n
    }

    /// One of several, each with its weight.
    fn pick<T: Copy>(&mut self, weighted: &[(u8, T)]) -> T {
        let total: u64 = weighted.iter().map(|(weight, _)| u64::from(*weight)).sum();
        let mut at = self.next() % total.max(1);
        for (weight, value) in weighted {
            match at.checked_sub(u64::from(*weight)) {
                Some(rest) => at = rest,
                None => return *value,
            }
        }
        weighted[0].1
    }
}

/// Makes the sequences of a seed.
#[derive(Clone, Debug)]
pub struct Generator {
    seed: u64,
    length: usize,
    offers: Vec<Offer>,
}

impl Generator {
    /// Of sequences of `length` steps (3 to [`LONGEST`]), with what `offers` names and no other
    /// operation that some kernels lack.
    pub fn new(seed: u64, length: usize, offers: Vec<Offer>) -> Self {
        Self { seed, length: length.clamp(3, LONGEST), offers }
    }

    /// The sequence with this number; equal for equal generators.
    pub fn sequence(&self, index: u64) -> Sequence {
        let mut draft = Draft {
            numbers: Numbers::new(self.seed, index),
            offers: &self.offers,
            steps: Vec::with_capacity(self.length),
            open: [false; 2],
            opened: [false; 2],
            mapped: [[None; WIDTH as usize]; 3],
        };
        if draft.numbers.chance(7, 8) {
            draft.begin();
        }
        while draft.steps.len() < self.length {
            let step = draft.any();
            draft.take(step);
        }
        Sequence::new(draft.steps).unwrap_or_else(|e| unreachable!("a generated sequence: {e}"))
    }
}

/// Kinds of steps to choose from.
#[derive(Clone, Copy)]
enum Kind {
    Open,
    Close,
    Read,
    Map,
    Treat(Treat),
    Protect,
    Move,
    Resize,
    Fork,
    Access,
    Register,
    Op(Op),
    Relocate,
}

/// How often each kind is chosen.
const KINDS: &[(u8, Kind)] = &[
    (3, Kind::Open),
    (2, Kind::Close),
    (3, Kind::Read),
    (7, Kind::Map),
    (5, Kind::Treat(Treat::Unmap)),
    (5, Kind::Treat(Treat::DontNeed)),
    (2, Kind::Treat(Treat::Remove)),
    (1, Kind::Treat(Treat::DontFork)),
    (1, Kind::Treat(Treat::WipeOnFork)),
    (1, Kind::Treat(Treat::Lock)),
    (1, Kind::Treat(Treat::Unlock)),
    (2, Kind::Treat(Treat::Guard)),
    (1, Kind::Treat(Treat::Unguard)),
    (1, Kind::Treat(Treat::Seal)),
    (3, Kind::Protect),
    (8, Kind::Move),
    (3, Kind::Resize),
    (2, Kind::Fork),
    (15, Kind::Access),
    (7, Kind::Register),
    (6, Kind::Op(Op::Unregister)),
    (5, Kind::Op(Op::Wake)),
    (10, Kind::Op(Op::Copy)),
    (4, Kind::Op(Op::Zeropage)),
    (3, Kind::Op(Op::Continue)),
    (3, Kind::Op(Op::Poison)),
    (6, Kind::Op(Op::Protect)),
    (4, Kind::Op(Op::Lift)),
    (5, Kind::Relocate),
];

/// A sequence that is being made.
struct Draft<'a> {
    numbers: Numbers,
    offers: &'a [Offer],
    steps: Vec<Step>,
    open: [bool; 2],
    opened: [bool; 2],
    /// What was last mapped at each page, as far as it is told without the kernel.
    mapped: [[Option<Memory>; WIDTH as usize]; 3],
}

impl Draft<'_> {
    /// A registered block, as nearly all questions begin.
    fn begin(&mut self) {
        let block = Pages::new(Place::A, 0, u8::try_from(PAGES).unwrap_or(WIDTH));
        let memory = self.memory();
        self.take(Step::Map(memory, block));
        let feature = self.feature();
        self.take(Step::Open(Ctx::First, feature));
        let mode = self.mode(memory);
        let pages = if self.numbers.chance(3, 4) { block } else { self.pages() };
        self.take(Step::Register(Ctx::First, mode, pages));
    }

    /// Adds a step if every kernel has what it needs.
    fn take(&mut self, step: Step) {
        if Offer::of(step).is_some_and(|offer| !self.offers.contains(&offer)) {
            return;
        }
        match step {
            Step::Open(ctx, _) => {
                self.open[ctx.index()] = true;
                self.opened[ctx.index()] = true;
            }
            Step::Close(ctx) => self.open[ctx.index()] = false,
            Step::Map(memory, pages) => self.note(pages, Some(memory)),
            Step::Treat(Treat::Unmap, pages) => self.note(pages, None),
            Step::Move(from, to, keeps) => {
                let memory = self.at(from);
                self.note(to, memory);
                if !keeps {
                    self.note(from, None);
                }
            }
            _ => {}
        }
        self.steps.push(step);
    }

    fn note(&mut self, pages: Pages, memory: Option<Memory>) {
        self.mapped[pages.place as usize][usize::from(pages.first)..usize::from(pages.end())]
            .fill(memory);
    }

    fn at(&self, pages: Pages) -> Option<Memory> {
        self.mapped[pages.place as usize][usize::from(pages.first)]
    }

    fn any(&mut self) -> Step {
        let kind = self.numbers.pick(KINDS);
        match kind {
            Kind::Open => {
                let ctx = if self.opened[0] { Ctx::Second } else { Ctx::First };
                let feature = self.feature();
                if self.opened[ctx.index()] { self.access() } else { Step::Open(ctx, feature) }
            }
            Kind::Close => self.with_context(Step::Close),
            Kind::Read => self.with_context(Step::Read),
            Kind::Map => {
                let memory = self.memory();
                Step::Map(memory, self.pages())
            }
            Kind::Treat(treat) => Step::Treat(treat, self.pages()),
            Kind::Protect => {
                let prot = self.numbers.pick(&[(2, Prot::Read), (2, Prot::None), (3, Prot::Write)]);
                Step::Protect(prot, self.pages())
            }
            Kind::Move => self.remap(),
            Kind::Resize => {
                let pages = self.pages();
                // Any other number of pages.
                let count = 1 + self.numbers.below(WIDTH - pages.first - 1);
                Step::Resize(pages, if count < pages.count { count } else { count + 1 })
            }
            Kind::Fork => Step::Fork(self.page()),
            Kind::Access => self.access(),
            Kind::Register => {
                let pages = self.pages();
                let mode = self.mode(self.at(pages).unwrap_or(Memory::Anon));
                self.with_context(|ctx| Step::Register(ctx, mode, pages))
            }
            Kind::Op(op) => {
                let pages = self.pages();
                let extra = match op.options() {
                    [first, ..] if self.numbers.chance(1, 6) => *first,
                    [_, second] if self.numbers.chance(1, 6) => *second,
                    _ => Extra::Nothing,
                };
                self.with_context(|ctx| Step::Call(ctx, op, pages, extra))
            }
            Kind::Relocate => {
                let (to, from) = self.two();
                let extra = self.numbers.pick(&[
                    (6, Extra::Nothing),
                    (1, Extra::DontWake),
                    (1, Extra::Holes),
                ]);
                self.with_context(|ctx| Step::Relocate(ctx, to, from, extra))
            }
        }
    }

    /// A step of a context that is open; the opening of one if none is.
    fn with_context(&mut self, step: impl FnOnce(Ctx) -> Step) -> Step {
        let second = self.numbers.chance(1, 4);
        match self.open {
            [true, true] => step(if second { Ctx::Second } else { Ctx::First }),
            [true, false] => step(Ctx::First),
            [false, true] => step(Ctx::Second),
            [false, false] => {
                let feature = self.feature();
                match self.opened {
                    [false, _] => Step::Open(Ctx::First, feature),
                    [true, false] => Step::Open(Ctx::Second, feature),
                    [true, true] => self.access(),
                }
            }
        }
    }

    fn feature(&mut self) -> Feature {
        let all = [
            (12, Feature::Nothing),
            (4, Feature::Events),
            (1, Feature::Sigbus),
            (1, Feature::WpAsync),
            (2, Feature::WpUnpopulated),
        ];
        let feature = self.numbers.pick(&all);
        let needs = Offer::of(Step::Open(Ctx::First, feature));
        if needs.is_none_or(|offer| self.offers.contains(&offer)) {
            feature
        } else {
            Feature::Nothing
        }
    }

    fn memory(&mut self) -> Memory {
        let all = [
            (10, Memory::Anon),
            (2, Memory::SharedAnon),
            (6, Memory::Shmem),
            (3, Memory::Private),
            (1, Memory::File),
            (1, Memory::None),
            (1, Memory::Droppable),
        ];
        let memory = self.numbers.pick(&all);
        let needs = Offer::of(Step::Map(memory, Pages::new(Place::A, 0, 1)));
        if needs.is_none_or(|offer| self.offers.contains(&offer)) { memory } else { Memory::Anon }
    }

    /// A mode that the memory can be registered for, or nearly always.
    fn mode(&mut self, memory: Memory) -> Mode {
        let minor = if memory.is_shmem() { 4 } else { 0 };
        let wp = if self.offers.contains(&Offer::Wp) { 4 } else { 0 };
        let both = u8::from(minor > 0 && wp > 0);
        let minor = if self.offers.contains(&Offer::Minor) { minor } else { 0 };
        self.numbers.pick(&[
            (8, Mode::Missing),
            (wp, Mode::Wp),
            (wp, Mode::MissingWp),
            (minor, Mode::Minor),
            (minor / 2, Mode::MissingMinor),
            (if minor > 0 { both } else { 0 }, Mode::MinorWp),
        ])
    }

    fn place(&mut self) -> Place {
        let place = self.numbers.pick(&[(14, Place::A), (4, Place::B), (2, Place::C)]);
        let is_mapped = self.mapped[place as usize].iter().any(Option::is_some);
        if is_mapped || self.numbers.chance(1, 10) { place } else { Place::A }
    }

    fn pages(&mut self) -> Pages {
        let place = self.place();
        let whole = u8::try_from(PAGES).unwrap_or(WIDTH);
        match self.numbers.below(8) {
            0 => Pages::new(place, 0, whole),
            1..=3 => {
                let first = self.numbers.below(whole);
                Pages::new(place, first, 1 + self.numbers.below(WIDTH - first))
            }
            _ => self.page_of(place),
        }
    }

    fn page(&mut self) -> Pages {
        let place = self.place();
        self.page_of(place)
    }

    fn page_of(&mut self, place: Place) -> Pages {
        // Few numbers, so that steps meet.
        let first = self.numbers.pick(&[(1, 0), (2, 1), (5, 2), (2, 3), (1, 5)]);
        Pages::new(place, first, 1)
    }

    fn access(&mut self) -> Step {
        let [load, store, sys_load, sys_store] = Step::ACCESSES;
        let kind = self.numbers.pick(&[(6, load), (6, store), (2, sys_load), (2, sys_store)]);
        Step::Access(kind, self.page())
    }

    /// Pages to move something to, and as many to move, which don't overlap.
    fn two(&mut self) -> (Pages, Pages) {
        let to = self.pages();
        let place = self.place();
        let first = self.numbers.below(WIDTH - to.count + 1);
        let from = to.at(place, first);
        if from.overlaps(to) {
            let other = if to.place == Place::B { Place::A } else { Place::B };
            return (to, to.at(other, first));
        }
        (to, from)
    }

    fn remap(&mut self) -> Step {
        let from = self.pages();
        let place = self.numbers.pick(&[(4, Place::A), (8, Place::B), (3, Place::C)]);
        let same = self.numbers.chance(2, 3);
        let first = if same { from.first } else { self.numbers.below(WIDTH - from.count + 1) };
        let mut to = from.at(place, first);
        if to.overlaps(from) {
            to = from.at(if from.place == Place::B { Place::C } else { Place::B }, first);
        }
        Step::Move(from, to, self.numbers.chance(1, 5))
    }
}
