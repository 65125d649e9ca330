//! Pictures of a case: the block before and after, who waits, what was done.
//!
//! Belongs here: from a case and what it showed to one drawing. A point of the grid is drawn as its
//! block (`block`), anything else as its steps between program, waiter and kernel (`lanes`). What
//! stands in a picture comes from the case's recipe and from recorded facts, never from a table of
//! our own.

mod block;
mod canvas;
mod lanes;

use maud::{Markup, html};
use uffd_results::{End, Outcome};
use uffd_suites::probe::{Ask, Case};

/// A case with what it showed on a kernel.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shown<'a> {
    /// The case.
    pub(super) case: &'a Case,
    /// What it showed.
    pub(super) outcome: &'a Outcome,
}

impl Shown<'_> {
    /// A fact, if it was observed.
    fn fact(&self, name: &str) -> Option<&str> {
        self.outcome.facts.get(name)
    }

    /// How it ended, unless it ran to its end.
    fn ended(&self) -> Option<String> {
        let Outcome { end, detail, .. } = self.outcome;
        (*end != End::Done).then(|| format!("It ended with {end}: {detail}.", end = end.word()))
    }
}

/// The picture of a case, with a line below it that says what was drawn.
pub(super) fn figure(shown: Shown<'_>, kernel: &str) -> Markup {
    let drawing = match &shown.case.ask {
        Ask::Point(point) | Ask::Claim(point, _) => block::draw(shown, *point),
        Ask::Trial(_) => lanes::draw(shown),
    };
    html! {
        figure.picture {
            div.plot { (drawing) }
            figcaption { "Drawn from what " (kernel) " showed in " code { (shown.case.id()) } "." }
        }
    }
}
