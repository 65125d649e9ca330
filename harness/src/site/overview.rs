//! The overview: suites against kernels, and which suites' answers changed at which release.

use super::links::Here;
use super::matrix::about;
use super::page::{Kind, Page};
use super::plots::{STEP, axis, place};
use super::probes::turns;
use super::words::{self, columns, count};
use super::world::World;
use maud::{Markup, html};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use uffd_results::{Case, End, ProbeCases};

const PATH: &str = "overview.html";
/// Statements that are named at a release; the kernel's page has all of them.
const NAMED: usize = 25;

/// How many cases of a suite ran to their end on a kernel, and how many of these as expected.
type Share = (usize, usize);

/// What turned at a release in one probe.
#[derive(Debug, Default)]
struct Turned<'d> {
    facts: Vec<&'d str>,
    cases: BTreeSet<&'d str>,
    why: Vec<&'d str>,
}

/// What turned, by the newer kernel and then by probe.
type Turns<'d> = BTreeMap<usize, BTreeMap<&'d str, Turned<'d>>>;

/// The page.
pub(super) fn page(world: &World<'_>) -> Page {
    let here = Here::at(PATH);
    let (shares, turned) = (shares(world), turned(world));
    let releases = turned.len();
    let summary = format!(
        "{} suites against {} kernels: how much is as expected, and what changed at {releases} of the releases.",
        world.suites().len(),
        world.kernels().len()
    );
    let body = html! {
        p { (summary) }
        h2 #map { "Suites against kernels" }
        p { "Each cell: the share of cases that ran to their end and saw what is expected of that kernel; behind Δ, in how many cases a fact "
            "is another one than on the kernel before that answered. A cell leads to the suite's statements. Of claims it is expected whether they are true or false." }
        (map(world, &here, &shares, &turned))
        h2 #when { "What changed when" }
        (bubbles(world, &here, &turned))
        h2 #releases { "Release by release" }
        @for (kernel, probes) in turned.iter().rev() { (release(world, &here, *kernel, probes)) }
    };
    Page {
        path: PATH.to_owned(),
        title: "Overview".to_owned(),
        kind: Kind::Page,
        summary,
        words: "heat map suites kernels timeline changes when".to_owned(),
        scripts: &[],
        body,
    }
}

/// Shares, by suite and then by kernel.
fn shares(world: &World<'_>) -> HashMap<&'static str, Vec<Share>> {
    let mut shares: HashMap<&str, Vec<Share>> = HashMap::new();
    for question in &world.questions {
        let row = shares
            .entry(question.probe.suite)
            .or_insert_with(|| vec![(0, 0); world.kernels().len()]);
        for case in world.data.probe(&question.name).into_iter().flat_map(ProbeCases::cases) {
            for (at, (good, all)) in row.iter_mut().enumerate() {
                if answered(case, at) {
                    *all += 1;
                    *good += usize::from(case.is_as_expected(at));
                }
            }
        }
    }
    shares
}

/// Whether a case has an answer that can be as expected or not: that a feature is missing is neither.
fn answered(case: Case<'_>, kernel: usize) -> bool {
    case.answer(kernel).is_some_and(|outcome| outcome.end != End::Unsupported)
}

fn turned<'d>(world: &World<'d>) -> Turns<'d> {
    let mut all: Turns<'d> = BTreeMap::new();
    for question in &world.questions {
        let Some(probe) = world.data.probe(&question.name) else { continue };
        for turn in turns(world.statements(&question.name), world.kernels()) {
            let turned = all.entry(turn.newer).or_default().entry(probe.name()).or_default();
            turned.cases.extend(&turn.cases);
            if !turned.facts.contains(&turn.fact) {
                turned.facts.push(turn.fact);
                let why = world.data.why(turn.newer, probe.name(), turn.fact);
                turned.why.extend(why.filter(|why| !turned.why.contains(why)));
            }
        }
    }
    all
}

/// In how many cases of a suite a fact turned at a kernel.
fn cases_of(turned: &Turns<'_>, kernel: usize, suite: &str) -> usize {
    let of = |(name, turned): (&&str, &Turned<'_>)| {
        name.split_once('/').filter(|(s, _)| *s == suite).map_or(0, |_| turned.cases.len())
    };
    turned.get(&kernel).map_or(0, |probes| probes.iter().map(of).sum())
}

fn map(
    world: &World<'_>,
    here: &Here,
    shares: &HashMap<&str, Vec<Share>>,
    turned: &Turns<'_>,
) -> Markup {
    html! {
        div.wide.full tabindex="0" role="region" aria-label="Suites against kernels" {
            table.heat {
                caption.off { "Share of cases as expected, by suite and kernel" }
                thead { (columns(world, here, &["Suite"])) }
                tbody {
                    @for suite in world.suites() {
                        tr {
                            th scope="row" title=(about(suite)) { (suite) }
                            @for (at, share) in shares.get(suite).into_iter().flatten().enumerate() {
                                (cell(world, here, suite, at, *share, cases_of(turned, at, suite)))
                            }
                        }
                    }
                }
            }
        }
    }
}

fn cell(
    world: &World<'_>,
    here: &Here,
    suite: &str,
    at: usize,
    (good, all): Share,
    changed: usize,
) -> Markup {
    let version = &world.kernels()[at].label;
    // Not rounded up to all: 999 of 1000 is not 100 %.
    let percent = (good * 100).checked_div(all);
    let class = match percent {
        None => "q",
        Some(100) => "h3",
        Some(90..) => "h2",
        Some(_) => "h1",
    };
    let turned = if changed == 0 { String::new() } else { format!("; {changed} changed") };
    let text = format!("{suite} on {version}: {good} of {all} cases as expected{turned}");
    html! {
        td class=(class) {
            a href=(format!("{}#suite={suite}", here.to("matrix.html"))) title=(text) {
                @match percent { Some(percent) => { (percent) " %" } None => { "–" } }
                @if changed > 0 { " " b { "Δ" (changed) } }
            }
        }
    }
}

/// Suites against releases, a circle for what changed, with the number in it.
fn bubbles(world: &World<'_>, here: &Here, turned: &Turns<'_>) -> Markup {
    let suites: Vec<&str> = world
        .suites()
        .into_iter()
        .filter(|suite| turned.keys().any(|kernel| cases_of(turned, *kernel, suite) > 0))
        .collect();
    let row = |n: usize| 44 + 36 * i32::try_from(n).unwrap_or(0);
    let (left, height) = (110, row(suites.len()) + 4);
    let width = place(left, world.kernels().len()) + 2;
    let said = turned.iter().map(|(kernel, probes)| {
        let version = &world.kernels()[*kernel].label;
        let cases: usize = probes.values().map(|turned| turned.cases.len()).sum();
        format!("{version}: {} of {}.", count(cases, "case"), count(probes.len(), "statement"))
    });
    html! {
        figure.picture {
            div.plot.long tabindex="0" role="region" aria-label="What changed when" {
                svg viewBox=(format!("0 0 {width} {height}")) width=(width) role="img" {
                    title { "Cases with a fact that changed, by suite and release" }
                    desc { (said.collect::<Vec<_>>().join(" ")) }
                    (axis(world, left))
                    @for (n, suite) in suites.iter().enumerate() {
                        @let y = row(n) + 18;
                        path d=(format!("M0 {}H{width}", row(n))) class="grid" {}
                        text x=(left - 8) y=(y + 5) class="end" { (suite) }
                        @for kernel in turned.keys() {
                            @let cases = cases_of(turned, *kernel, suite);
                            @if cases > 0 { (bubble(place(left, *kernel) + STEP / 2, y, cases)) }
                        }
                    }
                }
            }
            figcaption { "In how many cases a fact is another one than on the kernel before. A larger circle is more; what it was stands below, and on the pages of the "
                a href=(here.to("kernels.html")) { "kernels" } "." }
        }
    }
}

fn bubble(x: i32, y: i32, cases: usize) -> Markup {
    let radius = (i32::try_from(cases).unwrap_or(i32::MAX).isqrt() + 8).min(17);
    html! {
        circle cx=(x) cy=(y) r=(radius) class="dot" {}
        text x=(x) y=(y + 4) class="mid small" { (cases) }
    }
}

/// What turned at one release: each statement with its facts, and why.
fn release(
    world: &World<'_>,
    here: &Here,
    kernel: usize,
    probes: &BTreeMap<&str, Turned<'_>>,
) -> Markup {
    let recorded = &world.kernels()[kernel];
    let cases: usize = probes.values().map(|turned| turned.cases.len()).sum();
    let mut most: Vec<(&&str, &Turned<'_>)> = probes.iter().collect();
    most.sort_by_key(|(_, turned)| std::cmp::Reverse(turned.cases.len()));
    html! {
        details id=(format!("at-{}", super::links::plain(&recorded.label))) {
            summary { b { (recorded.label) } ": " (count(cases, "case")) " of " (count(probes.len(), "statement")) }
            p { "Everything that differs: " (words::kernel(here, recorded)) }
            ul {
                @for (name, turned) in most.iter().take(NAMED) {
                    li {
                        a href=(format!("{}#changes", here.probe(name))) { (name) } ", " (count(turned.cases.len(), "case")) ": "
                        @for fact in &turned.facts { code { (fact) } " " }
                        @if let Some(why) = turned.why.first() { br; span.soft { (why) } }
                    }
                }
                @if most.len() > NAMED { li { (count(most.len() - NAMED, "statement")) " more" } }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::known;

    #[test]
    fn counts_are_those_of_the_facts() {
        let known = known::built_in();
        let world = World::of(&[], &known, &[]);
        let (shares, turned) = (shares(&world), turned(&world));
        assert_eq!(shares.len(), world.suites().len());
        assert!(shares.values().flatten().all(|(good, all)| good <= all));
        // The first kernel has none before it.
        assert!(!turned.contains_key(&0) && !turned.is_empty());
        let counted: usize = world.suites().iter().map(|suite| cases_of(&turned, 2, suite)).sum();
        assert_eq!(counted, turned[&2].values().map(|turned| turned.cases.len()).sum::<usize>());
        let (_, html) = page(&world).html();
        assert!(
            html.contains("overview.html\" aria-current=\"page\"")
                && html.contains("matrix.html#suite=copy")
        );
    }
}
