//! Guarantees: what every recorded kernel keeps, what never to rely on, and what to do everywhere; all of
//! it worked out of the assumptions that contracts tie to facts.

use super::contracts::strip;
use super::links::Here;
use super::page::{Kind, Page};
use super::words::{self, count, kept};
use super::world::{Assumed, World};
use crate::recipes::{Recipe, Step};
use maud::{Markup, html};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use uffd_results::Kept;

const PATH: &str = "guarantees.html";

/// The page.
pub(super) fn page(world: &World<'_>, recipes: &[Recipe]) -> Page {
    let here = Here::at(PATH);
    let all = by_id(world);
    let shared: Vec<&Assumed> = world.assumed.get("shared").into_iter().flatten().collect();
    let safe: Vec<&Assumed> = shared.into_iter().filter(|a| is_kept_wherever_asked(a)).collect();
    let never: Vec<(&str, &Assumed)> =
        all.values().filter(|(_, a)| !a.breaches.is_empty()).copied().collect();
    let summary = format!(
        "{} that several programs rely on and every recorded kernel keeps that has the feature, {} never to rely on, \
         and what works everywhere.",
        count(safe.len(), "statement"),
        never.len()
    );
    let body = html! {
        p { (summary) " Recorded are " (count(world.kernels().len(), "kernel")) ", from "
            (first(world)) " to " (last(world)) "; nothing is said of others." }
        ul {
            li { a href="#recipes" { "What to do" } }
            li { a href="#never" { "What never to rely on" } }
            li { a href="#always" { "What holds everywhere" } }
        }
        h2 #recipes { "What to do, on any of these kernels" }
        @for recipe in recipes { (self::recipe(world, &here, &all, recipe)) }
        h2 #never { "Never rely on this" }
        p { "Each of these is believed by some program, and broken by some recorded kernel." }
        @for (contract, assumed) in never {
            section.card.bad {
                p { "That " b { (lower(&assumed.assumption.says)) } }
                p { (assumed.assumption.effect) " "
                    a href=(format!("{}#{}", here.contract(contract), assumed.assumption.id)) { (assumed.assumption.id) } }
                (strip(world, &here, assumed))
            }
        }
        h2 #always { "This holds on every recorded kernel" }
        p { "As far as a kernel has the feature. The link leads to the cases that decide it." }
        @for (subject, list) in by_subject(&safe) {
            h3 { (subject) }
            ul { @for assumed in list {
                li #(assumed.assumption.id) {
                    (assumed.assumption.says) " "
                    a href=(format!("{}#{}", here.contract("shared"), assumed.assumption.id)) { (assumed.assumption.id) }
                    " " span.soft { "(" (rests_on(world, assumed)) ")" }
                }
            } }
        }
    };
    Page {
        path: PATH.to_owned(),
        title: "Guarantees".to_owned(),
        kind: Kind::Page,
        summary,
        words: recipes
            .iter()
            .map(|r| format!("{} {}", r.title, r.when))
            .collect::<Vec<_>>()
            .join(" "),
        scripts: &[],
        body,
    }
}

/// Every assumption once, with a contract that has it.
fn by_id<'w>(world: &'w World<'_>) -> BTreeMap<&'w str, (&'w str, &'w Assumed)> {
    let each = world.contracts.iter().flat_map(|contract| {
        let assumed = world.assumed.get(contract.name.as_str()).into_iter().flatten();
        assumed.map(|a| (a.assumption.id.as_str(), (contract.name.as_str(), a)))
    });
    // What several share stands where it is said for all of them.
    let is_shared = |place: &(&str, (&str, &Assumed))| place.1.0 == "shared";
    let (shared, own): (Vec<_>, Vec<_>) = each.partition(is_shared);
    own.into_iter().chain(shared).collect()
}

fn is_kept_wherever_asked(assumed: &Assumed) -> bool {
    assumed.breaches.is_empty() && assumed.kept.contains(&Some(Kept::Kept))
}

/// The kernels that a statement rests on.
fn rests_on(world: &World<'_>, assumed: &Assumed) -> String {
    let of = |want: Option<Kept>| assumed.kept.iter().filter(|kept| **kept == want).count();
    let (good, lacks, silent) = (of(Some(Kept::Kept)), of(Some(Kept::Unsupported)), of(None));
    let mut text = if good == world.kernels().len() {
        format!("all {}", count(good, "kernel"))
    } else {
        format!("{good} of {}", count(world.kernels().len(), "kernel"))
    };
    if lacks > 0 {
        let _ = write!(text, "; {lacks} lack the feature");
    }
    if silent > 0 {
        let _ = write!(text, "; {silent} could not be asked");
    }
    text
}

fn recipe(
    world: &World<'_>,
    here: &Here,
    all: &BTreeMap<&str, (&str, &Assumed)>,
    recipe: &Recipe,
) -> Markup {
    let steps: Vec<(&Step, Vec<(&str, &Assumed)>)> = recipe
        .steps
        .iter()
        .map(|step| {
            (step, step.rests_on.iter().filter_map(|id| all.get(id.as_str()).copied()).collect())
        })
        .collect();
    let holds = steps.iter().flat_map(|(_, on)| on).all(|(_, a)| is_kept_wherever_asked(a));
    html! {
        section.card.good[holds].bad[!holds] id=(recipe.id) {
            h3 { (recipe.title) }
            p { (recipe.when) }
            ol {
                @for (step, on) in &steps {
                    li {
                        (step.does) br;
                        @for (contract, assumed) in on {
                            (kept(worst(assumed)).inline()) " "
                            a.soft href=(format!("{}#{}", here.contract(contract), assumed.assumption.id)) {
                                (assumed.assumption.id) }
                            " " span.soft { "(" (rests_on(world, assumed)) ")" } " "
                        }
                    }
                }
            }
        }
    }
}

/// The worst that any kernel says.
fn worst(assumed: &Assumed) -> Option<Kept> {
    let seen = |kept: Kept| assumed.kept.contains(&Some(kept)).then_some(kept);
    seen(Kept::Broken).or(seen(Kept::Kept)).or(seen(Kept::Unsupported))
}

/// Statements under the first word of their ids.
fn by_subject<'a>(all: &[&'a Assumed]) -> BTreeMap<&'static str, Vec<&'a Assumed>> {
    let mut subjects: BTreeMap<&'static str, Vec<&Assumed>> = BTreeMap::new();
    for assumed in all {
        let id = assumed.assumption.id.as_str();
        let subject = match id.split('.').next().unwrap_or(id) {
            "copy" => "Filling pages",
            "mmap-changing" | "event" | "remove" | "fork" => "Events",
            "mremap" | "waiter" => "Changed mappings and who waits in them",
            "wake" => "WAKE",
            "unregister" => "UNREGISTER",
            "register" => "REGISTER",
            "close" | "dead-mm" => "The end: close, and dead processes",
            _ => "Faults and descriptors",
        };
        subjects.entry(subject).or_default().push(assumed);
    }
    subjects
}

/// A sentence as what follows `That`.
fn lower(sentence: &str) -> String {
    let mut chars = sentence.chars();
    match chars.next() {
        // Names of calls and of operations stay as they are.
        Some(first) if !chars.as_str().starts_with(|c: char| c.is_uppercase() || c == '_') => {
            first.to_lowercase().chain(chars).collect()
        }
        _ => sentence.to_owned(),
    }
}

fn first(world: &World<'_>) -> String {
    world.kernels().first().map_or(String::new(), |kernel| kernel.label.clone())
}

fn last(world: &World<'_>) -> String {
    world.kernels().last().map_or(String::new(), |kernel| kernel.label.clone())
}

/// The sign of a recipe's whole, for pages that name it.
pub(super) fn sign(world: &World<'_>, recipe: &Recipe) -> words::Sign {
    let all = by_id(world);
    let mut on =
        recipe.steps.iter().flat_map(|s| &s.rests_on).filter_map(|id| all.get(id.as_str()));
    let holds = on.all(|(_, assumed)| is_kept_wherever_asked(assumed));
    kept(Some(if holds { Kept::Kept } else { Kept::Broken }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("Filling works.", "filling works.")]
    #[case("UNREGISTER works.", "UNREGISTER works.")]
    #[case("A page stays.", "a page stays.")]
    fn sentences_go_on_behind_a_word(#[case] sentence: &str, #[case] text: &str) {
        assert_eq!(lower(sentence), text);
    }
}
