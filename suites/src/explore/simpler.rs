//! What a step could be instead, with less to understand in it.

use super::Sequence;
use super::axes::{Ctx, Extra, Feature, Memory, Mode};
use super::pages::{Pages, Place};
use super::step::Step;
use std::collections::HashSet;

/// Steps of which every choice of a few is tried: a difference is seldom about more.
const FEW: u32 = 5;
/// Steps up to which that is done: there are a few hundred choices then.
const MANY: usize = 10;

impl Sequence {
    /// Sequences that are simpler than this one: of some of its steps, or with steps that are plainer
    /// by themselves. Those that can't be performed are left out.
    pub fn simpler(&self) -> Vec<Self> {
        let steps = self.steps();
        let all = fewer_steps(steps).into_iter().chain(plainer_steps(steps));
        let all = all.filter_map(|steps| Self::new(steps).ok());
        let mut seen = HashSet::new();
        all.filter(|one| one.cost() < self.cost() && seen.insert(one.clone())).collect()
    }
}

/// Some of the steps, in their order.
fn fewer_steps(steps: &[Step]) -> Vec<Vec<Step>> {
    let n = steps.len();
    let mut all = Vec::new();
    let kept = |keep: &dyn Fn(usize) -> bool| {
        let kept = steps.iter().enumerate().filter(|(n, _)| keep(*n));
        kept.map(|(_, step)| *step).collect::<Vec<_>>()
    };
    if n <= MANY {
        // The last step is the one that differs.
        let choices = (0_u32..1 << (n - 1)).filter(|choice| choice.count_ones() < FEW);
        all.extend(choices.map(|choice| kept(&|at| at == n - 1 || choice >> at & 1 == 1)));
    } else {
        for len in [n / 2, n / 4] {
            for start in (0..n).step_by(len) {
                all.push(kept(&|at| !(start..start + len).contains(&at)));
            }
        }
    }
    for one in 0..n {
        all.push(kept(&|at| at != one));
        all.extend((one + 1..n).map(|two| kept(&|at| at != one && at != two)));
    }
    all
}

/// All the steps, with one of them plainer, or with several as plain as they can be.
fn plainer_steps(steps: &[Step]) -> Vec<Vec<Step>> {
    let mut all = Vec::new();
    for (n, step) in steps.iter().enumerate() {
        for simpler in step.simpler() {
            let mut changed = steps.to_vec();
            changed[n] = simpler;
            all.push(changed);
        }
    }
    // One context in place of the second, everywhere.
    all.push(steps.iter().map(|step| step.with_context(Ctx::First)).collect());
    if steps.len() <= FEW as usize + 1 {
        let plainest: Vec<Step> = steps.iter().map(|step| step.plainest()).collect();
        let choice = |choice: u32| {
            let both = steps.iter().zip(&plainest).enumerate();
            both.map(|(n, (step, plain))| if choice >> n & 1 == 1 { *plain } else { *step })
                .collect()
        };
        all.extend((1_u32..1 << steps.len()).map(choice));
    }
    all
}

impl Step {
    /// The step as plain as it can be by itself.
    fn plainest(self) -> Self {
        let simpler = self.simpler().into_iter().filter(|step| step.fault().is_none());
        let least = simpler.min_by_key(|step| step.cost()).filter(|step| step.cost() < self.cost());
        least.map_or(self, Self::plainest)
    }

    /// The same step with one part of it simpler.
    fn simpler(self) -> Vec<Self> {
        match self {
            Self::Open(ctx, feature) if feature != Feature::Nothing => {
                vec![Self::Open(ctx, Feature::Nothing)]
            }
            Self::Open(..) | Self::Close(_) | Self::Read(_) => Vec::new(),
            Self::Map(memory, pages) => {
                let kinds =
                    [Memory::Anon, Memory::Shmem].into_iter().filter(|kind| *kind != memory);
                let kinds = kinds.map(|kind| Self::Map(kind, pages));
                kinds.chain(fewer(pages).map(|pages| Self::Map(memory, pages))).collect()
            }
            Self::Treat(treat, pages) => fewer(pages).map(|p| Self::Treat(treat, p)).collect(),
            Self::Protect(prot, pages) => fewer(pages).map(|p| Self::Protect(prot, p)).collect(),
            Self::Move(from, to, keeps) => {
                let kept = keeps.then_some(Self::Move(from, to, false));
                let moved = pairs(from, to).map(|(from, to)| Self::Move(from, to, keeps));
                kept.into_iter().chain(moved).collect()
            }
            Self::Resize(pages, count) => fewer(pages).map(|p| Self::Resize(p, count)).collect(),
            Self::Fork(page) => elsewhere(page).map(Self::Fork).collect(),
            Self::Access(kind, page) => {
                let kinds = Self::ACCESSES.into_iter().take_while(|simpler| *simpler != kind);
                let kinds = kinds.map(|kind| Self::Access(kind, page));
                kinds.chain(elsewhere(page).map(|page| Self::Access(kind, page))).collect()
            }
            Self::Register(ctx, mode, pages) => {
                let modes = Mode::ALL.iter().take_while(|simpler| **simpler != mode);
                let modes = modes.map(|mode| Self::Register(ctx, *mode, pages));
                modes.chain(fewer(pages).map(|p| Self::Register(ctx, mode, p))).collect()
            }
            Self::Call(ctx, op, pages, extra) => {
                let plain = Self::Call(ctx, op, pages, Extra::Nothing);
                let plain = (extra != Extra::Nothing).then_some(plain);
                let fewer = fewer(pages).map(|p| Self::Call(ctx, op, p, extra));
                plain.into_iter().chain(fewer).collect()
            }
            Self::Relocate(ctx, to, from, extra) => {
                let plain = Self::Relocate(ctx, to, from, Extra::Nothing);
                let plain = (extra != Extra::Nothing).then_some(plain);
                let fewer = pairs(to, from).map(|(to, from)| Self::Relocate(ctx, to, from, extra));
                plain.into_iter().chain(fewer).collect()
            }
        }
    }

    /// The same step through another context, if it uses one.
    fn with_context(self, ctx: Ctx) -> Self {
        match self {
            Self::Open(_, feature) => Self::Open(ctx, feature),
            Self::Close(_) => Self::Close(ctx),
            Self::Read(_) => Self::Read(ctx),
            Self::Register(_, mode, pages) => Self::Register(ctx, mode, pages),
            Self::Call(_, op, pages, extra) => Self::Call(ctx, op, pages, extra),
            Self::Relocate(_, to, from, extra) => Self::Relocate(ctx, to, from, extra),
            other => other,
        }
    }
}

/// A part of some pages: one, or all but the first or the last.
fn fewer(pages: Pages) -> impl Iterator<Item = Pages> {
    let Pages { place, first, count } = pages;
    let parts = [
        (first, 1),
        (first, count / 2),
        (first + 1, count.saturating_sub(1)),
        (first, count.saturating_sub(1)),
    ];
    let parts = parts.into_iter().filter(move |(_, n)| (1..count).contains(n));
    parts.map(move |(first, count)| Pages::new(place, first, count)).chain(elsewhere(pages))
}

/// The same number of pages in the first place.
fn elsewhere(pages: Pages) -> impl Iterator<Item = Pages> {
    (pages.place != Place::A).then_some(Pages { place: Place::A, ..pages }).into_iter()
}

/// Parts of two rows of pages of one length, and the second of them in a place nearer to the first.
fn pairs(one: Pages, two: Pages) -> impl Iterator<Item = (Pages, Pages)> {
    let count = one.count;
    let parts =
        [(0, 1), (0, count / 2), (1, count.saturating_sub(1)), (0, count.saturating_sub(1))];
    let parts = parts.into_iter().filter(move |(_, n)| (1..count).contains(n));
    let cut = move |pages: Pages, skip, count| Pages::new(pages.place, pages.first + skip, count);
    let cuts = parts.map(move |(skip, n)| (cut(one, skip, n), cut(two, skip, n)));
    let nearer = (two.place == Place::C).then_some((one, Pages { place: Place::B, ..two }));
    cuts.chain(nearer)
}
