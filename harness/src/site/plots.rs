//! Plots over the recorded releases: how a statement and its facts went on, and the axis that plots share.

use super::probes::ways;
use super::words;
use super::world::{Question, World};
use maud::{Markup, html};
use uffd_results::{NONE, ProbeCases, Support};

/// Width of a kernel on the axis, in a plot's own units.
pub(super) const STEP: i32 = 44;
/// Facts that are shown at once; the table of changes has all of them.
const ROWS: usize = 8;

/// A run of equal values on the axis.
struct Bar {
    first: usize,
    last: usize,
    class: &'static str,
    label: String,
}

/// The heads of a plot: series, and a version a kernel.
pub(super) fn axis(world: &World<'_>, left: i32) -> Markup {
    html! {
        @for series in &world.series {
            @if let (Some(first), Some(last)) = (series.kernels.first(), series.kernels.last()) {
                @let (x, end) = (place(left, *first), place(left, *last + 1));
                text x=(i32::midpoint(x, end)) y="14" class="mid head" { (series.name) }
                path d=(format!("M{} 20V34", x)) class="line" {}
                @for at in &series.kernels {
                    text x=(place(left, *at) + STEP / 2) y="31" class="mid soft small" { (patch(world, *at)) }
                }
            }
        }
    }
}

/// The part of a version that the series does not have: `.118`.
fn patch(world: &World<'_>, at: usize) -> String {
    let upstream = world.kernels()[at].upstream;
    let version = upstream.to_string();
    version.strip_prefix(&upstream.series()).unwrap_or(&version).to_owned()
}

/// Where a kernel begins on the axis.
pub(super) fn place(left: i32, kernel: usize) -> i32 {
    left + STEP * i32::try_from(kernel).unwrap_or(0)
}

/// The statement over the releases, and each fact that turned.
pub(super) fn timeline(world: &World<'_>, question: &Question, probe: ProbeCases<'_>) -> Markup {
    let kernels = world.kernels();
    let mut rows: Vec<(String, Vec<Bar>)> = Vec::new();
    let held = Support::of((0..kernels.len()).map(|at| (at, probe.stands(at))));
    let bars = held.runs().iter().map(|run| {
        let sign = words::held(run.value);
        let label = format!("{} {}", sign.mark, sign.word);
        Bar { first: run.first, last: run.last, class: sign.class, label }
    });
    rows.push(("the statement".to_owned(), bars.collect()));
    let mut more = 0;
    for statement in world.statements(&question.name) {
        for way in ways(statement, kernels).iter().filter(|way| way.changes()) {
            if rows.len() > ROWS {
                more += 1;
                continue;
            }
            let cases = words::count(way.cases.len(), "case");
            let bars = way.runs().iter().enumerate().map(|(i, run)| Bar {
                first: run.first,
                last: run.last,
                class: if i % 2 == 0 { "one" } else { "two" },
                label: if run.value == NONE { "not there".into() } else { run.value.to_owned() },
            });
            rows.push((format!("{} in {cases}", statement.fact), bars.collect()));
        }
    }
    if rows.len() == 1 {
        // The table above says as much.
        return html! {};
    }
    let (width, height) =
        (place(2, kernels.len()) + 2, 40 + 44 * i32::try_from(rows.len()).unwrap_or(0));
    let say = |(name, bars): &(String, Vec<Bar>)| {
        let version = |at: usize| kernels[at].label.clone();
        let bar = |b: &Bar| format!("{} from {} to {}", b.label, version(b.first), version(b.last));
        format!("{name}: {}.", bars.iter().map(bar).collect::<Vec<_>>().join(", "))
    };
    html! {
        figure.picture {
            div.plot.long tabindex="0" role="region" aria-label="Timeline" {
                svg viewBox=(format!("0 0 {width} {height}")) width=(width) role="img" {
                    title { "Over the releases: " (question.name) }
                    desc { (rows.iter().map(say).collect::<Vec<_>>().join(" ")) }
                    (axis(world, 2))
                    @for (n, (name, bars)) in rows.iter().enumerate() {
                        (row(name, bars, 40 + 44 * i32::try_from(n).unwrap_or(0)))
                    }
                }
            }
            figcaption {
                "Over the releases: the statement, and facts that turned. A thick line is where one did."
                @if more > 0 { " " (more) " more stand among the changes." }
            }
        }
    }
}

fn row(name: &str, bars: &[Bar], y: i32) -> Markup {
    html! {
        text x="2" y=(y + 13) class="soft" { (name) }
        @for (n, bar) in bars.iter().enumerate() {
            @let (x, end) = (place(2, bar.first), place(2, bar.last + 1));
            g {
                title { (bar.label) }
                rect x=(x) y=(y + 18) width=(end - x) height="20" class=(format!("bar {}", bar.class)) {}
                text x=(x + 5) y=(y + 32) class=(format!("on {}", bar.class)) { (short(&bar.label, end - x - 8)) }
            }
            @if n > 0 { path d=(format!("M{x} {}v24", y + 16)) class="turn" {} }
        }
    }
}

/// A text as far as there is room for it.
fn short(text: &str, room: i32) -> String {
    let room = usize::try_from(room / 7).unwrap_or(0).max(2);
    if text.chars().count() <= room {
        return text.to_owned();
    }
    text.chars().take(room - 1).chain(['…']).collect()
}
