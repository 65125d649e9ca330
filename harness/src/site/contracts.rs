//! A page a contract: what a program assumes, which kernels keep it, and what breaks otherwise.

use super::links::{self, Here};
use super::page::{Kind, Page};
use super::words::{self, count, kept, legend};
use super::world::{Assumed, World};
use maud::{Markup, html};
use uffd_results::{Breaks, Contract, Kept};

/// The list of all contracts.
pub(super) const LIST: &str = "contracts.html";

/// The list, and a page each.
pub(super) fn pages(world: &World<'_>) -> Vec<Page> {
    let one = |contract: &Contract| page(world, contract);
    std::iter::once(list(world)).chain(world.contracts.iter().map(one)).collect()
}

/// How many assumptions the newest kernel of a series keeps and breaks.
fn tally(assumed: &[Assumed], kernel: usize) -> (usize, usize) {
    let of = |kept: Kept| assumed.iter().filter(|a| a.kept[kernel] == Some(kept)).count();
    (of(Kept::Kept), of(Kept::Broken))
}

fn list(world: &World<'_>) -> Page {
    let here = Here::at(LIST);
    let summary = format!(
        "What {} programs assume of userfaultfd, and which recorded kernels keep it.",
        world.contracts.iter().filter(|c| c.name != "shared").count()
    );
    let body = html! {
        p { (summary) " Each assumption was read in the program's source and is decided by recorded cases, "
            "not by opinion. A cell counts those that the newest recorded kernel of a series keeps and breaks." }
        div.wide tabindex="0" role="region" aria-label="Contracts against series" {
            table {
                thead { tr {
                    th scope="col" { "Program" }
                    @for series in &world.series { th scope="col" { (series.name) } }
                } }
                tbody {
                    @for contract in world.contracts {
                        @let assumed = world.assumed.get(contract.name.as_str()).map_or(&[][..], Vec::as_slice);
                        tr {
                            th scope="row" { a href=(here.contract(&contract.name)) { (contract.title) } }
                            @for series in &world.series {
                                @let (good, bad) = series.kernels.last().map_or((0, 0), |at| tally(assumed, *at));
                                td class=(if bad == 0 { "y" } else { "n" }) {
                                    "✓ " (good)
                                    @if bad > 0 { " · ✗ " (bad) " broken" }
                                }
                            }
                        }
                    }
                }
            }
        }
    };
    Page {
        path: LIST.to_owned(),
        title: "What programs assume".to_owned(),
        kind: Kind::Page,
        summary,
        words: "contracts assumptions qemu criu firecracker cloud hypervisor crosvm".to_owned(),
        scripts: &[],
        body,
    }
}

fn page(world: &World<'_>, contract: &Contract) -> Page {
    let path = links::contract(&contract.name);
    let here = Here::at(&path);
    let assumed = world.assumed.get(contract.name.as_str()).map_or(&[][..], Vec::as_slice);
    let (broken, fine): (Vec<&Assumed>, Vec<&Assumed>) =
        assumed.iter().partition(|a| !a.breaches.is_empty());
    let body = html! {
        p { (contract.about) }
        p.soft { "Read in: " (contract.snapshot) ". On a host: " code { "uffd-conform check" } "; on a recorded kernel: "
            code { "uffd-conform contract " (contract.name) " -k 6.12" } }
        (verdict(world, &broken, assumed.len()))
        (legend(&[
            (kept(Some(Kept::Kept)), "every case that decides it showed what is assumed"),
            (kept(Some(Kept::Broken)), "some case did not"),
            (kept(Some(Kept::Unsupported)), "the kernel has no such feature"),
            (kept(None), "no case could be answered there"),
        ]))
        @for (title, id, list) in [("Broken somewhere", "broken", &broken), ("Kept wherever it was asked", "kept", &fine)] {
            @if !list.is_empty() {
                h2 id=(id) { (title) }
                @for breaks in Breaks::ALL {
                    @let some: Vec<&&Assumed> = list.iter().filter(|a| a.assumption.breaks == breaks).collect();
                    @if !some.is_empty() {
                        h3 { (consequence(breaks)) }
                        @for one in some { (assumption(world, &here, one)) }
                    }
                }
            }
        }
    };
    Page {
        title: contract.title.clone(),
        kind: Kind::Contract,
        summary: contract.about.clone(),
        words: assumed.iter().map(|a| a.assumption.id.as_str()).collect::<Vec<_>>().join(" "),
        scripts: &[],
        body,
        path,
    }
}

/// What it comes to, in a sentence or two.
fn verdict(world: &World<'_>, broken: &[&Assumed], all: usize) -> Markup {
    let newest = world.kernels().len().checked_sub(1);
    let on_newest = |a: &&&Assumed| newest.is_some_and(|at| a.kept[at] == Some(Kept::Broken));
    let now = broken.iter().filter(on_newest).count();
    html! {
        @if broken.is_empty() {
            p.card.good { "Every recorded kernel keeps all " (count(all, "assumption")) "." }
        } @else {
            p.card.bad {
                (broken.len()) " of " (count(all, "assumption")) " are broken by some recorded kernel"
                @if let Some(newest) = newest {
                    ", " (now) " by the newest (" (world.kernels()[newest].label) ")"
                }
                "."
            }
        }
    }
}

/// A consequence as a heading.
pub(super) const fn consequence(breaks: Breaks) -> &'static str {
    match breaks {
        Breaks::Corruption => "If broken: wrong data",
        Breaks::Hang => "If broken: a thread waits for ever",
        Breaks::Crash => "If broken: a process dies",
        Breaks::Abort => "If broken: the migration or restore is given up",
        Breaks::Refused => "If broken: it refuses to start",
        Breaks::Degraded => "If broken: slower, or counts wrongly",
        Breaks::Nothing => "If broken: nothing that a user would see",
    }
}

fn assumption(world: &World<'_>, here: &Here, assumed: &Assumed) -> Markup {
    let Assumed { assumption, probes, breaches, .. } = assumed;
    html! {
        section.card.bad[!breaches.is_empty()] id=(assumption.id) {
            p { b { (assumption.says) } " " a.soft href=(format!("#{}", assumption.id)) { code { (assumption.id) } } }
            p { (assumption.effect) }
            @if let Some(why) = &assumption.not_asked {
                p { b.q { "? not asked" } " " (why) }
            } @else {
                (strip(world, here, assumed))
            }
            @if let Some((kernel, breach)) = breaches.first() {
                p { "First broken by " (words::kernel(here, &world.kernels()[*kernel])) ": "
                    code { (breach.case) } " shows " code { (breach.fact) "=" (breach.seen) }
                    ", not " code { (breach.allowed) } "." }
            }
            details {
                summary { "Where it is relied on, and what decides it" }
                ul { @for place in &assumption.r#where { li { code { (place) } } } }
                p { @for probe in probes { a href=(here.probe(probe)) { (probe) } " " } }
            }
        }
    }
}

/// A small table: the kernels, neighbours that agree as one.
pub(super) fn strip(world: &World<'_>, here: &Here, assumed: &Assumed) -> Markup {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for at in 0..assumed.kept.len() {
        match runs.last_mut() {
            Some((first, last)) if assumed.kept[*first] == assumed.kept[at] => *last = at,
            _ => runs.push((at, at)),
        }
    }
    html! {
        p.strip {
            @for (first, last) in runs {
                span {
                    (kept(assumed.kept[first]).inline()) " "
                    (words::kernel(here, &world.kernels()[first]))
                    @if first != last { " to " (words::kernel(here, &world.kernels()[last])) }
                } " "
            }
        }
    }
}
