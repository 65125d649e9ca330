//! The matrix: every statement against every recorded kernel, with filters for those who have a script.

use super::links::Here;
use super::page::{Kind, Page};
use super::words::{self, Sign, columns, legend, share};
use super::world::{Question, World};
use maud::{Markup, html};
use std::collections::BTreeSet;
use uffd_results::{Held, ProbeCases};

const PATH: &str = "matrix.html";

/// The mark of a cell whose facts differ from those of the kernel before it.
const DIFFERS: Sign = Sign { class: "d", mark: "Δ", word: "differs" };

/// The page.
pub(super) fn page(world: &World<'_>) -> Page {
    let here = Here::at(PATH);
    let cases: usize = world.questions.iter().map(|q| q.cases.len()).sum();
    let summary = format!(
        "{} statements, asked by {cases} cases, against {} recorded kernels.",
        world.questions.len(),
        world.kernels().len()
    );
    let body = html! {
        p { (summary) " A row is a statement of what should be seen; a cell says whether every case that "
            "asks it saw that. A statement's page has the facts themselves." }
        (legend(&[
            (words::held(Some(Held::Holds)), "every case that answered saw what is stated"),
            (words::held(Some(Held::Partly)), "some did: how many of how many"),
            (words::held(Some(Held::Fails)), "none did"),
            (words::held(Some(Held::Unsupported)), "the kernel has no such feature"),
            (words::held(None), "this kernel could not be asked"),
            (DIFFERS, "behind a word: some case answered otherwise than on the kernel to the left"),
        ]))
        (filters(world))
        p #count role="status" {}
        div.wide.full tabindex="0" role="region" aria-label="Statements against kernels" {
            table #matrix {
                caption.off { "Statements against recorded kernels" }
                thead { (columns(world, &here, &["Statement"])) }
                @for suite in world.suites() {
                    tbody {
                        tr.suite {
                            th scope="rowgroup" colspan=(world.kernels().len() + 1) id=(format!("suite-{suite}")) {
                                (suite) ": " (about(suite))
                            }
                        }
                        @for question in world.questions.iter().filter(|q| q.probe.suite == suite) {
                            (row(world, &here, question))
                        }
                    }
                }
            }
        }
    };
    Page {
        path: PATH.to_owned(),
        title: "Matrix".to_owned(),
        kind: Kind::Page,
        summary,
        words: "statements kernels table compatibility all".to_owned(),
        scripts: &["matrix.js"],
        body,
    }
}

/// What a suite asks.
pub(super) fn about(suite: &str) -> &'static str {
    uffd_suites::SUITES.iter().find(|s| s.name == suite).map_or("", |s| s.about)
}

fn row(world: &World<'_>, here: &Here, question: &Question) -> Markup {
    let Some(probe) = world.data.probe(&question.name) else { return html! {} };
    let signs: Vec<Sign> =
        (0..world.kernels().len()).map(|at| words::held(probe.stands(at))).collect();
    let seen: BTreeSet<&str> = signs.iter().map(|sign| sign.word).collect();
    let list = |words: BTreeSet<String>| words.into_iter().collect::<Vec<_>>().join(" ");
    html! {
        tr data-p=(question.name)
            data-b=[some(list(question.values("backing")))]
            data-c=[some(list(question.contracts.clone()))]
            data-v=(seen.into_iter().map(|word| word.replace(' ', "-")).collect::<Vec<_>>().join(" "))
            data-d=[question.changes.then_some("1")] {
            th scope="row" {
                a href=(here.probe(&question.name)) { (question.name) }
                @if question.changes { " " abbr title="its facts differ between kernels" { "Δ" } }
                br;
                (question.probe.statement)
            }
            @for (at, sign) in signs.into_iter().enumerate() {
                td class=(sign.class) {
                    (sign.mark) " "
                    @if sign.word == "partly" {
                        @let (good, all) = share(probe, at);
                        (good) " of " (all)
                    } @else { (sign.word) }
                    @if at > 0 && differs(probe, at - 1, at) { " Δ" }
                }
            }
        }
    }
}

/// Whether some case that both kernels answered went otherwise on the second.
fn differs(probe: ProbeCases<'_>, older: usize, newer: usize) -> bool {
    probe.cases().any(|case| match (case.answer(older), case.answer(newer)) {
        (Some(a), Some(b)) => a != b,
        _ => false,
    })
}

fn some(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

/// The form that the script reads; without one nothing of it is shown.
fn filters(world: &World<'_>) -> Markup {
    let backings: BTreeSet<String> =
        world.questions.iter().flat_map(|question| question.values("backing")).collect();
    let verdicts = ["holds", "partly", "fails", "lacks", "not-asked"];
    html! {
        form #filters hidden aria-label="Filters" {
            label { "Words " input type="search" name="words" placeholder="copy mmap-over"; }
            label { "Suite " select name="suite" {
                option value="" { "all" }
                @for suite in world.suites() { option value=(suite) { (suite) } }
            } }
            label { "Backing " select name="backing" {
                option value="" { "all" }
                @for backing in backings { option value=(backing) { (backing) } }
            } }
            label { "Program " select name="contract" {
                option value="" { "all" }
                @for contract in world.contracts.iter().filter(|c| c.name != "shared") {
                    option value=(contract.name) { (contract.title) }
                }
            } }
            label { "On some kernel " select name="verdict" {
                option value="" { "anything" }
                @for verdict in verdicts { option value=(verdict) { (verdict.replace('-', " ")) } }
            } }
            label { input type="checkbox" name="changed" value="1"; " differs between kernels" }
            button type="reset" { "Show all" }
            p.hint { "The address keeps the filter: copy it to share what you see." }
        }
    }
}
