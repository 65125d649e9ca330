//! Answers: for each operation and each change a page that says, for every kind of waiter and every
//! kernel, what the operation returns, who is still stuck and how to free them. Needs no script.

use super::axes::{self, KINDS};
use super::links::{self, Here};
use super::page::{Kind, Page};
use super::words::count;
use super::world::World;
use crate::ask::compare::{Compared, said};
use crate::ask::gather::{Group, Span, Table};
use crate::ask::say::Clause;
use crate::ask::words::GRID;
use crate::ask::{Asked, distinct};
use anyhow::Result;
use maud::{Markup, html};
use std::collections::BTreeSet;
use uffd_results::End;

/// The pages, and the points that they are about.
pub(super) fn pages(world: &World<'_>, points: &[Asked]) -> Result<Vec<Page>> {
    axes::pairs(points).into_iter().map(|(op, change)| page(world, points, op, change)).collect()
}

/// The title of a page, as a person would ask.
pub(super) fn title(op: &str, change: &str) -> String {
    match (op, change) {
        ("look", change) => {
            format!(
                "After {}, with no operation: who is still stuck, how to free them",
                axes::change(change)
            )
        }
        (op, "unchanged") => {
            format!("{} with no change: what it returns, whom it wakes", axes::ioctl(op))
        }
        (op, change) => format!(
            "{} after {}: what it returns, who is still stuck, how to free them",
            axes::ioctl(op),
            axes::change(change)
        ),
    }
}

/// What is said of all cases on all kernels, and whether that is all there is to say.
fn in_short(table: &Table<'_>) -> Result<(Vec<Clause>, bool)> {
    let told = table.tell(&[])?;
    let subject = crate::ask::say::subject(table.cases.iter().map(|asked| asked.axis("waiter")));
    // A waiter whose own call the kernel lacks says nothing of the operation.
    let is_asked = |group: &&Group<'_>| {
        group.cell.seen.is_none_or(|seen| table.seen[seen].end != End::Unsupported)
    };
    let groups = told.spans.iter().flat_map(|span| &span.groups).filter(is_asked);
    let all: Vec<Vec<Clause>> = groups.map(|group| said(table, group, subject)).collect();
    let in_all = |clause: &&Clause| all.iter().all(|said| said.contains(clause));
    let common = all.first().into_iter().flatten().filter(in_all).cloned().collect();
    Ok((common, all.len() < 2))
}

fn page(world: &World<'_>, points: &[Asked], op: &str, change: &str) -> Result<Page> {
    let path = links::answer(op, change);
    let here = Here::at(&path);
    let of: Vec<&Asked> = points.iter().filter(|asked| axes::is_at(asked, op, change)).collect();
    let modes = axes::modes(&of);
    let usual = modes.first().copied().unwrap_or("missing");
    let stuck =
        |asked: &&&Asked| asked.axis("mode") == Some(usual) && asked.axis("waiter") != Some("none");
    let waits = of.iter().any(|asked| stuck(&asked));
    let in_question = of.iter().filter(|asked| stuck(asked) || !waits);
    let waiting: Vec<Asked> = in_question.map(|asked| (*asked).clone()).collect();
    let whoever = if waits { ", whoever waits" } else { ", where nobody waits" };
    let (common, is_all) = in_short(&Table::of(waiting, world.data))?;
    let kernels = count(world.kernels().len(), "recorded kernel");
    let said: Vec<&str> = common.iter().map(|clause| clause.text.as_str()).collect();
    let summary = match said[..] {
        [] => format!("It depends on who waits and how: {}, {kernels}.", count(of.len(), "case")),
        _ => format!("On every kernel that answered{whoever}: {}", said.join(" ")),
    };
    let (mut sections, mut places) = (Vec::new(), Vec::new());
    for mode in &modes {
        let mut first = modes.len() > 1;
        for kind in &KINDS {
            let is_of = |asked: &&&Asked| {
                asked.axis("mode") == Some(mode)
                    && asked.axis("waiter").map(axes::kind) == Some(kind.anchor)
            };
            let cases: Vec<Asked> = of.iter().filter(is_of).map(|asked| (*asked).clone()).collect();
            if cases.is_empty() {
                continue;
            }
            let (anchor, heading) = if *mode == usual {
                (kind.anchor.to_owned(), kind.heading.to_owned())
            } else {
                let meaning = axes::meaning("mode", mode);
                (format!("{mode}-{}", kind.anchor), format!("{} ({meaning})", kind.heading))
            };
            let asked = Section { world, here: &here, op, change, mode, kind: kind.anchor };
            let body = asked.body(&Table::of(cases, world.data))?;
            sections.push(html! {
                @if first { h2 id=(format!("mode-{mode}")) { "Registered for " (axes::meaning("mode", mode)) } }
                section.answer {
                    @if modes.len() > 1 { h3 #(anchor) { (heading) } } @else { h2 #(anchor) { (heading) } }
                    (body)
                }
            });
            places.push((anchor, heading));
            first = false;
        }
    }
    let body = html! {
        @if common.is_empty() {
            p { (summary) }
        } @else {
            div.card.good {
                p { b { "In short" } ", on every kernel that answered" (whoever)
                    @if modes.len() > 1 { " (registered for " (axes::meaning("mode", usual)) ")" } ":" }
                (sentences(&common))
                @if !is_all { p.soft { "The rest depends on who waits and how: see below." } }
            }
        }
        nav.jump aria-label="Who waits" { ul {
            @for (anchor, heading) in &places { li { a href=(format!("#{anchor}")) { (heading) } } }
            li { a href=(here.to(&format!("ask.html#op={op}&change={change}"))) { "Ask for one backing, part or kernel" } }
        } }
        @for section in &sections { (section) }
        (meanings(&of))
    };
    Ok(Page {
        title: title(op, change),
        kind: Kind::Answer,
        summary,
        words: search_words(world, &of, places.iter().map(|(anchor, _)| anchor.as_str())),
        scripts: &[],
        body,
        path,
    })
}

/// A kind of waiter on a page.
struct Section<'a> {
    world: &'a World<'a>,
    here: &'a Here,
    op: &'a str,
    change: &'a str,
    mode: &'a str,
    kind: &'a str,
}

impl Section<'_> {
    fn body(&self, table: &Table<'_>) -> Result<Markup> {
        let told = table.tell(&[])?;
        let probes = distinct(table.cases.iter().map(|asked| probe(&asked.id)));
        let id = table.cases.first().map_or("", |asked| asked.id.as_str());
        let waiters = distinct(table.cases.iter().filter_map(|asked| asked.axis("waiter")));
        let series = self.world.series.last().map_or("", |series| series.name.as_str());
        let link = format!(
            "ask.html#op={}&change={}&waiter={}&mode={}",
            self.op, self.change, self.kind, self.mode
        );
        Ok(html! {
            @for span in &told.spans { (self.span(table, span)) }
            @for silent in &told.silent { p.soft { "No answer on " (silent) "." } }
            details {
                summary { (count(table.cases.len(), "case")) ", and how to repeat them" }
                p { "Probes: " @for (i, name) in probes.iter().enumerate() {
                    @if i > 0 { ", " } a href=(self.here.probe(name)) { (name) }
                } }
                pre { "uffd-conform ask --op " (self.op) " --change " (self.change) " --mode " (self.mode)
                    " --waiter " (waiters.join(",")) "\n"
                    "uffd-conform run -k " (series) " '" (id) "'" }
                @for span in &told.spans { (self.facts(table, span)) }
                p { a href=(self.here.to(&link)) { "Each case in ask" } }
            }
        })
    }

    fn span(&self, table: &Table<'_>, span: &Span<'_>) -> Markup {
        let compared = Compared::of(table, span);
        let own = || compared.parts.iter().flat_map(|part| &part.own);
        let has_notes = compared.parts.iter().any(|part| !part.note.is_empty());
        let (has_more, has_way_out) =
            (has_notes || own().any(|c| !is_way_out(c)), own().any(is_way_out));
        // Every waiter that stays asleep has one: it is tried on each of them.
        let none = if compared.common.iter().any(is_way_out) { "as above" } else { "none needed" };
        html! {
            h4 { "Linux " (span.label) @if !span.extent.is_empty() { " " span.soft { "(" (span.extent) ")" } } }
            @if !compared.note.is_empty() { p { (compared.note) } }
            (sentences(&compared.common))
            @if !compared.parts.is_empty() {
                p { b { "What differs" (compared.by()) ":" } }
                div.scroll tabindex="0" role="region" aria-label=(format!("{}: what differs on Linux {}", self.kind, span.label)) {
                    table.answers {
                        thead { tr {
                            th scope="col" { "Where" }
                            @if has_more { th scope="col" { "What happens" } }
                            @if has_way_out { th scope="col" { "The way out" } }
                        } }
                        tbody { @for part in &compared.parts { tr {
                            th scope="row" { @for (i, label) in part.label.iter().enumerate() { @if i > 0 { br; } (label) } }
                            @if has_more { td {
                                @if !part.note.is_empty() { p { (part.note) } }
                                @for clause in part.own.iter().filter(|c| !is_way_out(c)) { p { (clause.text) } }
                                @if part.own.iter().all(is_way_out) { p.soft { "as above" } }
                            } }
                            @if has_way_out { td.y {
                                @for clause in part.own.iter().filter(|c| is_way_out(c)) { p { (clause.text) } }
                                @if !part.own.iter().any(is_way_out) { p.soft { (none) } }
                            } }
                        } } }
                    }
                }
            }
        }
    }

    /// What the first case of each group showed, in the words of a record.
    fn facts(&self, table: &Table<'_>, span: &Span<'_>) -> Markup {
        let Some(kernel) = span.kernel else { return html! {} };
        let shown = span.groups.iter().filter_map(|group| {
            let asked = &table.cases[*group.cases.first()?];
            Some((asked, self.world.data.case(&asked.id)?.outcome(kernel)?))
        });
        html! {
            p { "Facts on " (self.world.kernels()[kernel].label) ":" }
            @for (asked, outcome) in shown { pre { (asked.id) "\n  " (outcome) } }
        }
    }
}

/// Whether a sentence says how a waiter comes free.
fn is_way_out(clause: &Clause) -> bool {
    matches!(clause.key.as_str(), "rescue" | "rescued" | "unprotect" | "closed")
}

/// Sentences, those of the way out set apart.
fn sentences(clauses: &[Clause]) -> Markup {
    html! {
        @if !clauses.iter().all(is_way_out) {
            ul.said { @for clause in clauses.iter().filter(|c| !is_way_out(c)) { li { (clause.text) } } }
        }
        @if clauses.iter().any(is_way_out) {
            div.card.way { p { b { "The way out. " }
                @for clause in clauses.iter().filter(|c| is_way_out(c)) { (clause.text) " " } } }
        }
    }
}

/// What the values mean that cases have.
fn meanings(cases: &[&Asked]) -> Markup {
    let values = |axis: &str| distinct(cases.iter().filter_map(|asked| asked.axis(axis)));
    html! {
        h2 #words { "The words" }
        dl.pairs {
            @for axis in GRID.into_iter().filter(|axis| !["op", "change"].contains(axis)) {
                @for value in values(axis) {
                    dt { code { (axis) "=" (value) } } dd { (axes::meaning(axis, value)) }
                }
            }
        }
    }
}

/// The name of a case's probe.
fn probe(id: &str) -> &str {
    id.split_once('[').map_or(id, |(name, _)| name)
}

/// What search finds a page by, beside its title: anchors of kinds, what ioctls returned, waiters, kernels.
fn search_words<'a>(
    world: &World<'_>,
    cases: &[&Asked],
    anchors: impl Iterator<Item = &'a str>,
) -> String {
    let mut words: BTreeSet<String> = BTreeSet::new();
    for asked in cases {
        words.extend(asked.axes().map(|(_, value)| value.to_owned()));
        let Some(case) = world.data.case(&asked.id) else { continue };
        for outcome in (0..world.kernels().len()).filter_map(|kernel| case.answer(kernel)) {
            let values = outcome.facts.iter().map(|fact| &fact.value);
            let told = values.filter(|value| value.starts_with(|c: char| c.is_ascii_uppercase()));
            words.extend(told.map(ToString::to_string));
        }
    }
    for kernel in world.kernels() {
        words.extend([kernel.upstream.to_string(), kernel.upstream.series()]);
    }
    let kinds = KINDS.iter().filter(|kind| {
        cases.iter().any(|asked| asked.axis("waiter").map(axes::kind) == Some(kind.anchor))
    });
    let anchors = anchors.map(|anchor| format!("#{anchor}"));
    let all = anchors.chain(kinds.map(|kind| kind.words.to_owned())).chain(words);
    format!("{} stuck asleep free wake returns errno", all.collect::<Vec<_>>().join(" "))
}
