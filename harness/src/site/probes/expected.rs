//! What is expected of a probe's cases, and who says so: facts that one source backs stand together.

use super::cases::Axes;
use crate::site::world::{Question, World};
use maud::{Markup, html};
use std::collections::HashMap;
use uffd_results::{KernelVersion, Recorded, Support};

/// A value that a source backs, with the kernels and cases of which that is expected.
#[derive(Debug)]
struct Backed {
    fact: &'static str,
    value: String,
    /// Whether each kernel is one of those.
    kernels: Vec<bool>,
    cases: Vec<String>,
}

/// Sources with what they back, in the order in which cases name them.
fn by_source(question: &Question, versions: &[KernelVersion]) -> Vec<(&'static str, Vec<Backed>)> {
    // A case's expectation of one fact by one source: the value and the kernels.
    type Key = (&'static str, &'static str, String, Vec<bool>);
    let mut order: Vec<Key> = Vec::new();
    let mut cases: HashMap<Key, Vec<String>> = HashMap::new();
    for case in &question.cases {
        let mut of: Vec<Key> = Vec::new();
        for (at, version) in versions.iter().enumerate() {
            for e in case.expect(*version) {
                let same =
                    |(s, f, v, _): &&mut Key| *s == e.source && *f == e.fact && *v == e.value;
                if let Some(key) = of.iter_mut().find(same) {
                    key.3[at] = true;
                } else {
                    let mut kernels = vec![false; versions.len()];
                    kernels[at] = true;
                    of.push((e.source, e.fact, e.value.into_owned(), kernels));
                }
            }
        }
        let axes = case.axes();
        for key in of {
            let known = cases.entry(key.clone()).or_insert_with(|| {
                order.push(key);
                Vec::new()
            });
            known.push(axes.clone());
        }
    }
    let mut sources: Vec<(&'static str, Vec<Backed>)> = Vec::new();
    for key in order {
        let cases = cases.remove(&key).unwrap_or_default();
        let (source, fact, value, kernels) = key;
        let backed = Backed { fact, value, kernels, cases };
        match sources.iter_mut().find(|(known, _)| *known == source) {
            Some((_, all)) => all.push(backed),
            None => sources.push((source, vec![backed])),
        }
    }
    sources
}

/// The table.
pub(super) fn table(world: &World<'_>, question: &Question, axes: &Axes<'_>) -> Markup {
    let kernels = world.kernels();
    let versions: Vec<KernelVersion> = kernels.iter().map(|kernel| kernel.upstream).collect();
    html! {
        div.wide tabindex="0" role="region" aria-label="Expectations and their sources" {
            table.facts {
                thead { tr { th scope="col" { "Source" } th scope="col" { "Expected" } th scope="col" { "Of kernels" } th scope="col" { "Of cases" } } }
                @for (source, backed) in by_source(question, &versions) {
                    tbody {
                        @for (i, row) in rows(&backed, kernels, axes).into_iter().enumerate() {
                            tr {
                                @if i == 0 { th.long scope="rowgroup" rowspan=(count(&backed, kernels, axes)) { (source) } }
                                td.long { @for (n, text) in row.facts.iter().enumerate() { @if n > 0 { " " } code { (text) } } }
                                td { (row.kernels) }
                                td { (row.cases) }
                            }
                        }
                    }
                }
            }
        }
        p.soft { code { "?" } " stands for any character, " code { "|" } " between values that the kernel's configuration decides between." }
    }
}

struct Row {
    facts: Vec<String>,
    kernels: String,
    cases: String,
}

fn count(backed: &[Backed], kernels: &[Recorded], axes: &Axes<'_>) -> usize {
    rows(backed, kernels, axes).len()
}

/// What is expected of the same kernels and cases stands in one row.
fn rows(backed: &[Backed], kernels: &[Recorded], axes: &Axes<'_>) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    for Backed { fact, value, kernels: on, cases } in backed {
        let support = Support::of(on.iter().copied().enumerate());
        let of: Vec<&str> = cases.iter().map(String::as_str).collect();
        let (kernels, cases) = (support.extent(true).say(kernels), axes.tell(&of).text);
        let fact = format!("{fact}={value}");
        match rows.iter_mut().find(|row| row.kernels == kernels && row.cases == cases) {
            Some(row) => row.facts.push(fact),
            None => rows.push(Row { facts: vec![fact], kernels, cases }),
        }
    }
    rows
}
