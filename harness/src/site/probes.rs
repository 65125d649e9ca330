//! A page a probe: what it states, a picture, its facts kernel by kernel, who expects what, who
//! relies on it, what changed, and how to repeat it.

mod cases;
mod expected;
mod facts;

use super::links::{self, Here, plain};
use super::page::{Kind, Page};
use super::picture::{self, Shown};
use super::words::{self, count, share};
use super::world::{Question, World};
use super::{matrix, plots};
use anyhow::Result;
use cases::Axes;
use maud::{Markup, html};
use std::collections::BTreeSet;
use uffd_results::{CLAIMS, End, ProbeCases, is_answer};
use uffd_suites::probe::Case;

pub(super) use facts::{turns, ways};

/// A page a recorded probe.
pub(super) fn pages(world: &World<'_>) -> Result<Vec<Page>> {
    let mut pages = Vec::new();
    for question in &world.questions {
        if let Some(probe) = world.data.probe(&question.name) {
            pages.push(page(world, question, probe)?);
        }
    }
    Ok(pages)
}

fn page(world: &World<'_>, question: &Question, probe: ProbeCases<'_>) -> Result<Page> {
    let path = links::probe(&question.name);
    let here = Here::at(&path);
    let axes = Axes::of(probe);
    let typical = Typical::of(world, question);
    let meaning = facts::in_words(world, question, &axes)?;
    let notes = notes(world, question);
    let body = html! {
        p.lead #statement { (question.probe.statement) }
        p { "Suite " a href=(format!("{}#suite={}", here.to("matrix.html"), question.probe.suite)) { (question.probe.suite) }
            ": " (matrix::about(question.probe.suite)) ". " (count(question.cases.len(), "case")) " asked of "
            (count(world.kernels().len(), "kernel")) "." }
        @if question.probe.suite == CLAIMS {
            p.card { "This is a claim that others made. It holds where it is true, and fails where kernels showed that it is false." }
        }
        nav.toc aria-label="On this page" { ul {
            li { a href="#kernels" { "Kernels" } } li { a href="#picture" { "Picture" } }
            @if meaning.is_some() { li { a href="#meaning" { "In words" } } }
            li { a href="#facts" { "Facts" } } li { a href="#expected" { "Expected, and why" } }
            li { a href="#changes" { "Changes" } } li { a href="#consumers" { "Who relies on it" } }
            @if notes.is_some() { li { a href="#notes" { "Notes" } } }
            li { a href="#repeat" { "Repeat it" } } li { a href="#cases" { "All cases" } }
        } }
        h2 #kernels { "Kernels" }
        (strip(world, &here, probe))
        (plots::timeline(world, question, probe))
        @if let Some(typical) = &typical {
            h2 #picture { "Picture" }
            (picture::figure(typical.shown(world)?, &format!("Linux {}", world.kernels()[typical.kernel].label)))
        }
        @if let Some(meaning) = meaning {
            h2 #meaning { "In words" }
            (meaning)
        }
        h2 #facts { "Facts" }
        p.hint { "A row is a value, with the kernels that showed it. Cases that went the same way on all kernels stand together." }
        (facts::table(world.statements(&question.name), &axes, world.kernels()))
        h2 #expected { "Expected, and who says so" }
        (expected::table(world, question, &axes))
        h2 #changes { "Changes" }
        (facts::changes(world, &here, question, &axes))
        h2 #consumers { "Who relies on it" }
        (consumers(world, &here, question))
        @if let Some(notes) = notes {
            h2 #notes { "Notes" }
            (notes)
        }
        @if let Some(typical) = &typical { (repeat(world, typical)) }
        (list(world, question))
    };
    Ok(Page {
        title: question.name.clone(),
        kind: Kind::Probe,
        summary: question.probe.statement.to_owned(),
        words: search_words(question),
        scripts: &[],
        body,
        path,
    })
}

/// The values of the axes by which people look for a probe.
fn search_words(question: &Question) -> String {
    let axes = ["backing", "waiter", "how", "over", "part", "ioctl", "event", "events", "op"];
    let values: BTreeSet<String> = axes.iter().flat_map(|axis| question.values(axis)).collect();
    values.into_iter().collect::<Vec<_>>().join(" ")
}

/// How the statement stands on each kernel.
fn strip(world: &World<'_>, here: &Here, probe: ProbeCases<'_>) -> Markup {
    let kernels = 0..world.kernels().len();
    html! {
        div.wide.full tabindex="0" role="region" aria-label="The statement on each kernel" {
            table {
                thead { (words::columns(world, here, &["Kernel"])) }
                tbody {
                    tr {
                        th scope="row" { "Statement" }
                        @for at in kernels.clone() {
                            @let sign = words::held(probe.stands(at));
                            td class=(sign.class) { (sign.mark) " " (sign.word) }
                        }
                    }
                    tr {
                        th scope="row" { "Cases" }
                        @for at in kernels {
                            @let (good, all) = share(probe, at);
                            td { (good) "/" (all) }
                        }
                    }
                }
            }
        }
    }
}

/// A case that stands for the probe, with the kernel that it is shown on.
#[derive(Debug)]
struct Typical<'w> {
    case: &'w Case,
    id: String,
    kernel: usize,
}

/// What a reader knows best, axis by axis.
const KNOWN: [(&str, &[&str]); 7] = [
    ("backing", &["anon", "shmem"]),
    ("waiter", &["user-read", "vcpu-read", "user-write"]),
    ("part", &["middle"]),
    ("over", &["anon"]),
    ("msg", &["read"]),
    ("how", &["move", "dontneed"]),
    ("memory", &["anon"]),
];

impl<'w> Typical<'w> {
    /// A case that answered on the newest kernel possible, with its facts if any has some, and with
    /// axes as well known as can be.
    fn of(world: &World<'_>, question: &'w Question) -> Option<Self> {
        let found = question.cases.iter().enumerate().filter_map(|(place, case)| {
            let id = case.id();
            let recorded = world.data.case(&id)?;
            let newest = |wanted: &dyn Fn(End) -> bool| {
                let ends = |at: &usize| recorded.outcome(*at).is_some_and(|o| wanted(o.end));
                (0..world.kernels().len()).rev().find(ends)
            };
            let done = newest(&|end| end == End::Done);
            let kernel = done.or_else(|| newest(&is_answer)).or_else(|| newest(&|_| true))?;
            let odd: usize =
                KNOWN.iter().map(|(axis, known)| rank(recorded.axis(axis), known)).sum();
            Some((
                (done.is_none(), std::cmp::Reverse(kernel), odd, place),
                Self { case, id, kernel },
            ))
        });
        found.min_by_key(|(key, _)| *key).map(|(_, typical)| typical)
    }

    fn shown<'a>(&'a self, world: &'a World<'_>) -> Result<Shown<'a>> {
        let outcome = world.data.case(&self.id).and_then(|case| case.outcome(self.kernel));
        let outcome = outcome.ok_or_else(|| anyhow::anyhow!("{} lost its outcome", self.id))?;
        Ok(Shown { case: self.case, outcome })
    }
}

fn rank(value: Option<&str>, known: &[&str]) -> usize {
    value.map_or(0, |value| known.iter().position(|k| *k == value).unwrap_or(known.len()))
}

/// Who relies on it: by hand in the suite, and the contracts that one of its cases decides.
fn consumers(world: &World<'_>, here: &Here, question: &Question) -> Markup {
    html! {
        ul { @for consumer in question.probe.consumers { li { (consumer) } } }
        @if !question.contracts.is_empty() {
            p { "Its cases decide what these programs assume:" }
            ul {
                @for contract in world.contracts.iter().filter(|c| question.contracts.contains(&c.name)) {
                    li {
                        a href=(here.contract(&contract.name)) { (contract.title) }
                        @for assumed in world.assumed.get(contract.name.as_str()).into_iter().flatten() {
                            @if assumed.probes.contains(&question.name) {
                                br;
                                a.soft href=(format!("{}#{}", here.contract(&contract.name), assumed.assumption.id)) { (assumed.assumption.says) }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// What is noted of it, for kernels that are recorded.
fn notes(world: &World<'_>, question: &Question) -> Option<Markup> {
    let about = |note: &&crate::notes::Note| {
        note.names_probe(&question.name) && world.kernels().iter().any(|k| note.names_kernel(k))
    };
    let notes: Vec<_> = world.notes.iter().filter(about).collect();
    (!notes.is_empty()).then(|| {
        html! {
            @for note in notes {
                div.card {
                    p {
                        b { @if note.kernels.is_empty() { "Every kernel" } @else { (note.kernels.join(", ")) } }
                        @if !note.facts.is_empty() { ", " @for fact in &note.facts { code { (fact) } " " } }
                    }
                    p { (note.says) }
                    p.soft { (note.source) }
                }
            }
        }
    })
}

/// The typical case step by step, and the commands that repeat it.
fn repeat(world: &World<'_>, typical: &Typical<'_>) -> Markup {
    let series = world.kernels()[typical.kernel].upstream.series();
    html! {
        h2 #repeat { "Repeat it" }
        p { "What " code { (typical.id) } " does:" }
        ol { @for step in typical.case.recipe() { li { (step) } } }
        pre { code { "uffd-conform run -k " (series) " '" (typical.id) "'\nuffd-conform show '" (typical.id) "'" } }
        p.hint { "The first line asks that kernel in a VM; without -k it asks the kernel that runs. The second shows all that is recorded of the case." }
    }
}

/// Every case, with what it showed on the newest kernel that was asked.
fn list(world: &World<'_>, question: &Question) -> Markup {
    html! {
        h2 #cases { "All cases" }
        details {
            summary { (count(question.cases.len(), "case")) ", each with what the newest kernel that answered showed" }
            ul.ids {
                @for case in &question.cases {
                    @let id = case.id();
                    @let recorded = world.data.case(&id);
                    @let newest = (0..world.kernels().len()).rev().find_map(|at| Some((at, recorded?.answer(at)?)));
                    li id=(format!("case-{}", plain(&case.axes()))) {
                        code { (id) }
                        @if let Some((at, outcome)) = newest {
                            br; span.soft { (world.kernels()[at].label) ": " (outcome.to_string()) }
                        } @else { br; span.soft { "no kernel answered" } }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
