//! Speed: what operations cost on every kernel whose instructions were counted, what changed by more than
//! a finding's share, and times beside their limits.

use super::links::Here;
use super::page::{Kind, Page};
use super::words::{self, count};
use super::world::World;
use crate::bench::notes::Note;
use crate::bench::report::{Change, FINDING, changes, counted};
use crate::bench::show::cost;
use maud::{Markup, html};
use std::collections::BTreeMap;
use uffd_results::bench::{Measured, Operation, Unit};

const PATH: &str = "bench.html";
/// From kernel to kernel in a strip, in its own units.
const STEP: i32 = 11;
/// Height of a strip's line.
const RISE: u64 = 22;

/// Costs, and what explains their changes.
#[derive(Clone, Copy, Debug)]
pub struct Costs<'a> {
    /// What was measured, from the oldest kernel to the newest; maybe nothing.
    pub measured: &'a [Measured],
    /// What explains changes.
    pub notes: &'a [Note],
}

/// The page.
pub(super) fn page(world: &World<'_>, costs: Costs<'_>) -> Page {
    let here = Here::at(PATH);
    let kernels = counted(costs.measured);
    let timed: Vec<&Measured> =
        costs.measured.iter().filter(|m| m.unit == Unit::Nanoseconds).collect();
    let changes = changes(&kernels, costs.notes);
    let summary = if costs.measured.is_empty() {
        "What operations cost: nothing is measured yet.".to_owned()
    } else {
        format!(
            "What operations cost on {}, and {} of more than {FINDING} %.",
            count(kernels.len(), "kernel"),
            count(changes.len(), "change")
        )
    };
    let body = html! {
        p { (summary) }
        @if costs.measured.is_empty() {
            p { "No file of costs is stored beside the records, so nothing can be said here. "
                code { "uffd-conform bench" } " measures them." }
        }
        @if !kernels.is_empty() {
            h2 #instructions { "Instructions of a call" }
            p { "The instructions that a guest executes for one call, kernel and program together, on one emulated CPU: "
                "the least of all calls. They repeat on any machine; they are no times, and a cache miss costs as much "
                "as a hit. In brackets the change against the kernel before, where it is more than " (FINDING) " %." }
            (table(world, &here, &kernels, &changes))
            h2 #changes { "What changed" }
            (findings(&kernels, &changes))
        }
        @for measured in timed { (times(measured)) }
    };
    Page {
        path: PATH.to_owned(),
        title: "Speed".to_owned(),
        kind: Kind::Page,
        summary,
        words: "benchmark cost instructions performance latency slow fast time".to_owned(),
        scripts: &[],
        body,
    }
}

/// A kernel's version, with a link to its page if it is recorded.
fn version(world: &World<'_>, here: &Here, measured: &Measured) -> Markup {
    let recorded = world.kernels().iter().find(|k| k.release == measured.kernel.release);
    html! {
        @match recorded {
            Some(kernel) => { (words::kernel(here, kernel)) }
            None => { (measured.kernel.upstream) }
        }
    }
}

/// The operations of any of the kernels, in the order of the newest that has them.
fn operations<'a>(kernels: &[&'a Measured]) -> Vec<&'a str> {
    let mut ids: Vec<&str> = Vec::new();
    for operation in kernels.iter().rev().flat_map(|measured| &measured.operations) {
        if !ids.contains(&operation.id.as_str()) {
            ids.push(&operation.id);
        }
    }
    ids
}

fn table(world: &World<'_>, here: &Here, kernels: &[&Measured], changes: &[Change<'_>]) -> Markup {
    let is_measured =
        |id: &&str| kernels.iter().any(|k| k.operation(id).and_then(Operation::best).is_some());
    let (measured, silent): (Vec<&str>, Vec<&str>) =
        operations(kernels).into_iter().partition(is_measured);
    let why = |id: &str| {
        let all = kernels.iter().rev().filter_map(|k| k.operation(id)?.missing.as_deref());
        all.take(1).collect::<String>()
    };
    let silent: Vec<(&str, String)> = silent.into_iter().map(|id| (id, why(id))).collect();
    html! {
        div.wide.full tabindex="0" role="region" aria-label="Instructions of a call, by kernel" {
            table.speed {
                caption.off { "Instructions of a call, operations against kernels" }
                thead { tr {
                    th scope="col" { "Operation" } th scope="col" { "Over the kernels" }
                    @for kernel in kernels { th scope="col" { (version(world, here, kernel)) } }
                } }
                tbody {
                    @for id in &measured { (row(id, kernels, changes)) }
                }
            }
        }
        @if !silent.is_empty() {
            details {
                summary { (count(silent.len(), "operation")) " could be measured on none of them" }
                ul { @for (id, why) in silent { li { code { (id) } ": " (why) } } }
            }
        }
    }
}

fn row(id: &str, kernels: &[&Measured], changes: &[Change<'_>]) -> Markup {
    let costs: Vec<Option<u64>> =
        kernels.iter().map(|k| k.operation(id).and_then(Operation::best)).collect();
    let found = |at: usize| changes.iter().find(|c| c.kernel == at && c.id == id);
    html! {
        tr {
            th scope="row" { code { (id) } }
            td { (strip(id, &costs, &|at| found(at).is_some())) }
            @for (at, best) in costs.iter().enumerate() {
                @match (best, found(at)) {
                    (Some(best), Some(change)) => {
                        td.p { (cost(*best, Unit::Instructions)) " (" (format!("{:+.0} %", change.per_cent())) ")" }
                    }
                    (Some(best), None) => { td { (cost(*best, Unit::Instructions)) } }
                    (None, _) => {
                        @let why = kernels[at].operation(id).and_then(|o| o.missing.as_deref());
                        td.u title=(why.unwrap_or("not measured")) { "–" }
                    }
                }
            }
        }
    }
}

/// A line over the kernels with its least and largest cost; a finding has a square in place of a dot.
fn strip(id: &str, costs: &[Option<u64>], is_found: &dyn Fn(usize) -> bool) -> Markup {
    let known = || costs.iter().flatten().copied();
    let (Some(low), Some(high)) = (known().min(), known().max()) else { return html! { "–" } };
    // Where all cost about the same, the line should look so.
    let span = (high - low).max(high / 10).max(1);
    let points: Vec<(usize, i32, i32)> = costs
        .iter()
        .enumerate()
        .filter_map(|(at, best)| Some((at, (*best)?)))
        .map(|(at, best)| {
            let rise = i32::try_from((best - low) * RISE / span).unwrap_or(0);
            (at, 6 + STEP * i32::try_from(at).unwrap_or(0), 30 - rise)
        })
        .collect();
    let path: Vec<String> = points.iter().map(|(_, x, y)| format!("{x} {y}")).collect();
    let end = 6 + STEP * i32::try_from(costs.len()).unwrap_or(0);
    let (least, most) = (cost(low, Unit::Instructions), cost(high, Unit::Instructions));
    html! {
        svg.spark viewBox=(format!("0 0 {} 38", end + 60)) width=(end + 60) height="38" role="img" {
            title { (id) ": from " (least) " to " (most) " instructions" }
            path d=(format!("M{}", path.join("L"))) class="curve" {}
            @for (at, x, y) in &points {
                @if is_found(*at) { rect x=(x - 4) y=(y - 4) width="8" height="8" class="found" {} }
                @else { circle cx=(x) cy=(y) r="2" class="point" {} }
            }
            text x=(end) y=(if low == high { "34" } else { "13" }) { (most) }
            @if low != high { text x=(end) y="34" { (least) } }
        }
    }
}

fn findings(kernels: &[&Measured], changes: &[Change<'_>]) -> Markup {
    let mut by_kernel: BTreeMap<usize, Vec<&Change<'_>>> = BTreeMap::new();
    for change in changes {
        by_kernel.entry(change.kernel).or_default().push(change);
    }
    html! {
        @if changes.is_empty() { p { "Nothing by more than " (FINDING) " % between neighbours." } }
        @for (kernel, changes) in by_kernel.iter().rev() {
            h3 { (kernels[kernel - 1].kernel.upstream) " to " (kernels[*kernel].kernel.upstream) }
            @for (note, of_it) in by_note(changes) {
                @match note {
                    Some(note) => { p { (note.says) " " span.soft { (note.source) } } }
                    None => { p { "No explanation is found for:" } }
                }
                ul { @for change in of_it {
                    li { code { (change.id) } ": " (cost(change.costs.0, Unit::Instructions)) " → "
                        (cost(change.costs.1, Unit::Instructions)) " (" (format!("{:+.0} %", change.per_cent())) ")" }
                } }
            }
        }
    }
}

/// Changes by what explains them; those that nothing does last.
fn by_note<'c, 'a>(changes: &[&'c Change<'a>]) -> Vec<(Option<&'a Note>, Vec<&'c Change<'a>>)> {
    let mut groups: Vec<(Option<&Note>, Vec<&Change<'_>>)> = Vec::new();
    for change in changes {
        match groups.iter_mut().find(|(note, _)| *note == change.note) {
            Some((_, of_it)) => of_it.push(change),
            None => groups.push((change.note, vec![change])),
        }
    }
    groups.sort_by_key(|(note, _)| note.is_none());
    groups
}

/// Times of one machine, each beside the limit that nothing of its kind can be below.
fn times(measured: &Measured) -> Markup {
    let Measured { kernel, environment, cpu, operations, .. } = measured;
    let time = |n| cost(n, Unit::Nanoseconds);
    html! {
        h2 id=(format!("times-{}", super::links::plain(&kernel.release))) { "Times on " (kernel.upstream) ", " (environment.accelerator) }
        p { "Of one machine (" (cpu) "), in turns with the limit: the least that an operation of its kind can cost. "
            "Times limit: the median over the turns, and the interval that holds the true one with 99 % certainty." }
        div.wide tabindex="0" role="region" aria-label="Times" {
            table {
                thead { tr { @for name in ["Operation", "Half below", "99 % below", "Limit", "Half of it below", "Times limit"] { th scope="col" { (name) } } } }
                tbody {
                    @for operation in operations {
                        tr {
                            th scope="row" { code { (operation.id) } }
                            @if let Some(sample) = operation.sample {
                                td { (time(sample.p50)) } td { (time(sample.p99)) }
                                td { @if let Some(limit) = &operation.limit { code { (limit) } } }
                                td { @if let Some(limit) = operation.limit_sample { (time(limit.p50)) } }
                                td { @if let Some(ratio) = operation.ratio {
                                    (format!("{:.2} ({:.2} to {:.2})", ratio.mid, ratio.low, ratio.high))
                                } }
                            } @else {
                                td.u colspan="5" { (operation.missing.as_deref().unwrap_or("not measured")) }
                            }
                        }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::testing::measured;
    use crate::known;

    fn html_of(measured: &[Measured], notes: &[Note]) -> String {
        let known = known::built_in();
        let world = World::of(&[], &known, &[]);
        page(&world, Costs { measured, notes }).html().1
    }

    const COPY: &str = "copy/pages[backing=anon,size=4k]";

    #[test]
    fn a_change_is_marked_and_explained() {
        let all = [measured("6.1.1", &[(COPY, 1000)]), measured("6.12.1", &[(COPY, 1200)])];
        let text = html_of(&all, &[]);
        assert!(text.contains("1200 (+20 %)") && text.contains("class=\"found\""), "{text}");
        assert!(text.contains("No explanation is found"));
        let (operation, kernel) = ("copy/".into(), "6.12".into());
        let note = Note { operation, kernel, says: "<b>Folios.".into(), source: "a commit".into() };
        let text = html_of(&all, &[note]);
        assert!(text.contains("&lt;b&gt;Folios.") && !text.contains("No explanation"), "{text}");
    }

    #[test]
    fn little_change_is_no_finding_and_nothing_is_said_so() {
        let all = [measured("6.1.1", &[(COPY, 1000)]), measured("6.12.1", &[(COPY, 1010)])];
        let text = html_of(&all, &[]);
        assert!(text.contains("Nothing by more than") && !text.contains("class=\"found\""));
        assert!(html_of(&[], &[]).contains("nothing is measured yet"));
    }
}
