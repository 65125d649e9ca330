//! What differs between two recorded kernels: the table that several pages show, and a page a pair of
//! neighbouring series.

use super::links::{self, Here};
use super::page::{Kind, Page};
use super::words::count;
use super::world::World;
use crate::diff::{Category, Comparer, Side};
use crate::report::group::{Group, group};
use maud::{Markup, html};

/// The list of all pairs.
pub(super) const LIST: &str = "changes.html";

/// Differences of one fact for one reason in cases of one category.
type Change = Group<Category>;

/// What differs, worst first; cases that could not be asked on one of the two last.
pub(super) fn between(
    world: &World<'_>,
    comparer: &Comparer,
    older: usize,
    newer: usize,
) -> Vec<Change> {
    let side = |kernel| Side { data: world.data, kernel };
    let found = comparer.kernels((side(older), side(newer)), &|_| true);
    let mut groups = group(found.differences);
    // What one of the two lacks altogether says less than what both answer.
    groups.sort_by_key(|group| (group.is_only_skip(), group.place, group.fact == "end"));
    groups
}

/// The table of what differs.
pub(super) fn table(here: &Here, changes: &[Change], label: &str) -> Markup {
    if changes.is_empty() {
        return html! { p { "Nothing: both gave the same answers to every case." } };
    }
    html! {
        div.wide tabindex="0" role="region" aria-label=(label) {
            table {
                thead { tr {
                    @for name in ["What", "Fact", "Values", "Statements", "Cases", "Why"] { th scope="col" { (name) } }
                } }
                tbody {
                    @for change in changes { (row(here, change)) }
                }
            }
        }
    }
}

fn row(here: &Here, change: &Change) -> Markup {
    let (class, sign) = match change.place {
        Category::Regression => ("n", "✗"),
        Category::Fixed => ("y", "✓"),
        Category::Skipped => ("q", "?"),
        Category::Changed | Category::New | Category::Gone => ("p", "Δ"),
    };
    html! {
        tr {
            td class=(class) { (sign) " " (change.place) }
            td { code { (change.fact) } }
            td.text { (change.turn(str::to_owned)) }
            td.text { @for probe in &change.probes { a href=(here.probe(probe)) { (probe) } " " } }
            td.text { (cases(change)) }
            td.text { (change.reason.as_deref().unwrap_or("no source is named")) }
        }
    }
}

/// So many characters of axes are shown at once.
const SHORT: usize = 160;

/// Which cases differ; a long list of axes only on request.
fn cases(change: &Change) -> Markup {
    let (n, axes) = (count(change.count(), "case"), change.axes());
    html! {
        @if axes.len() <= SHORT {
            (n) @if !axes.is_empty() { ": " (axes) }
        } @else {
            details { summary { (n) } (axes) }
        }
    }
}

/// What the words of the first column mean.
pub(super) fn words() -> Markup {
    html! {
        p.hint {
            "regression: the older was as expected, the newer is not; fixed: the other way round; changed: both are "
            "as expected of their releases; new and gone: asked of one only; skipped: one of them could not be asked. "
            "Of facts that differ the first is named; what follows from it is not."
        }
    }
}

/// The list, and a page a pair: the newest of a series and the oldest of the next.
pub(super) fn pages(world: &World<'_>, comparer: &Comparer) -> Vec<Page> {
    let mut pages = Vec::new();
    let mut rows = Vec::new();
    for pair in world.series.windows(2) {
        let (Some(older), Some(newer)) = (pair[0].kernels.last(), pair[1].kernels.first()) else {
            continue;
        };
        let changes = between(world, comparer, *older, *newer);
        let cases: usize = changes.iter().filter(|c| !c.is_only_skip()).map(Change::count).sum();
        rows.push((pair[0].name.clone(), pair[1].name.clone(), cases));
        pages.push(page(world, (&pair[0].name, &pair[1].name), (*older, *newer), &changes, cases));
    }
    pages.insert(0, list(&rows));
    pages
}

fn page(
    world: &World<'_>,
    (a, b): (&str, &str),
    (older, newer): (usize, usize),
    changes: &[Change],
    cases: usize,
) -> Page {
    let path = links::pair(a, b);
    let here = Here::at(&path);
    let [old, new] = [older, newer].map(|at| &world.kernels()[at]);
    let summary = format!(
        "{} answered otherwise by {} than by {}.",
        count(cases, "case"),
        new.label,
        old.label
    );
    let body = html! {
        p { (summary) " These are the last recorded release of " (a) " (" (super::words::kernel(&here, old))
            ") and the first of " (b) " (" (super::words::kernel(&here, new)) ")." }
        (table(&here, changes, "What differs"))
        (words())
        p { "The same on a command line: " code { "uffd-conform diff " (super::words::word(old)) " " (super::words::word(new)) } }
    };
    Page {
        title: format!("From {a} to {b}"),
        kind: Kind::Changes,
        summary,
        words: changes
            .iter()
            .flat_map(|change| change.probes.iter().chain([&change.fact]))
            .map(String::as_str)
            .collect::<Vec<_>>()
            .join(" "),
        scripts: &[],
        body,
        path,
    }
}

fn list(rows: &[(String, String, usize)]) -> Page {
    let here = Here::at(LIST);
    let body = html! {
        p { "Kernels do not follow their numbers: stable releases carry changes too, so each pair names the two "
            "releases that were asked." }
        ul {
            @for (a, b, cases) in rows {
                li { a href=(here.pair(a, b)) { "From " (a) " to " (b) } ": " (count(*cases, "case")) " answered otherwise" }
            }
        }
        p { "Changes within a series stand on the pages of its kernels." }
    };
    Page {
        path: LIST.to_owned(),
        title: "What changed between series".to_owned(),
        kind: Kind::Page,
        summary: "Which answers differ between neighbouring kernel series, and why.".to_owned(),
        words: "changes differences upgrade versions".to_owned(),
        scripts: &[],
        body,
    }
}
