//! Signs, words and small pieces that several kinds of pages show.

use super::links::Here;
use super::world::World;
pub(super) use crate::report::count;
use maud::{Markup, html};
use uffd_results::{CLAIMS, Case, Held, Kept, ProbeCases, Recorded};

/// How something stands on a kernel: a class for its colour, a sign and a word, so that nothing is told
/// by colour alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sign {
    /// The class that colours it.
    pub(super) class: &'static str,
    /// One character.
    pub(super) mark: &'static str,
    /// The word, also of the filters.
    pub(super) word: &'static str,
}

/// The sign of a statement on a kernel.
pub(super) const fn held(held: Option<Held>) -> Sign {
    match held {
        Some(Held::Holds) => Sign { class: "y", mark: "✓", word: "holds" },
        Some(Held::Partly) => Sign { class: "p", mark: "◐", word: "partly" },
        Some(Held::Fails) => Sign { class: "n", mark: "✗", word: "fails" },
        Some(Held::Unsupported) => Sign { class: "u", mark: "–", word: "lacks" },
        None => Sign { class: "q", mark: "?", word: "not asked" },
    }
}

/// The sign of an assumption on a kernel.
pub(super) const fn kept(kept: Option<Kept>) -> Sign {
    match kept {
        Some(Kept::Kept) => Sign { class: "y", mark: "✓", word: "kept" },
        Some(Kept::Broken) => Sign { class: "n", mark: "✗", word: "broken" },
        Some(Kept::Unsupported) => Sign { class: "u", mark: "–", word: "lacks" },
        None => Sign { class: "q", mark: "?", word: "unknown" },
    }
}

impl Sign {
    /// Within a text.
    pub(super) fn inline(self) -> Markup {
        html! { b class=(self.class) { (self.mark) " " (self.word) } }
    }
}

/// How many of a probe's cases that answered on a kernel showed what is stated.
pub(super) fn share(probe: ProbeCases<'_>, kernel: usize) -> (usize, usize) {
    let answered = probe.cases().filter(|case| case.answer(kernel).is_some());
    let of = |case: Case<'_>| match case.fact(kernel, "claim").filter(|_| probe.suite() == CLAIMS) {
        Some("true") => (1, 1),
        Some("false") => (0, 1),
        Some(_) => (0, 0),
        None => (usize::from(case.is_as_expected(kernel)), 1),
    };
    answered.map(of).fold((0, 0), |(good, all), (yes, one)| (good + yes, all + one))
}

/// A kernel's upstream version, with a link to its page.
pub(super) fn kernel(here: &Here, kernel: &Recorded) -> Markup {
    html! { a href=(here.kernel(kernel)) { (kernel.label) } }
}

/// The word that names a kernel on the command line.
pub(super) fn word(kernel: &Recorded) -> String {
    let upstream = kernel.upstream.to_string();
    if kernel.label == upstream { upstream } else { kernel.release.clone() }
}

/// The heads of a table's columns, one a kernel below one a series; to be written into `thead` behind
/// `before`, the names of the columns to the left.
pub(super) fn columns(world: &World<'_>, here: &Here, before: &[&str]) -> Markup {
    html! {
        tr {
            @for name in before { th scope="col" rowspan="2" { (name) } }
            @for series in &world.series {
                th scope="colgroup" colspan=(series.kernels.len()) { (series.name) }
            }
        }
        tr.versions {
            @for kernel in world.kernels() {
                th scope="col" { (self::kernel(here, kernel)) }
            }
        }
    }
}

/// What the signs of a table mean.
pub(super) fn legend(signs: &[(Sign, &str)]) -> Markup {
    html! {
        ul.legend aria-label="What the signs mean" {
            @for (sign, meaning) in signs {
                li { (sign.inline()) ": " (meaning) }
            }
        }
    }
}
