//! The facts of a probe: values, the kernels that showed them and the cases that did; what facts of the
//! grid mean in sentences; where facts turned.

use super::cases::Axes;
use crate::ask::gather::{Table, Told};
use crate::ask::{Asked, say};
use crate::site::links::{Here, plain};
use crate::site::words;
use crate::site::world::{Question, World};
use anyhow::Result;
use maud::{Markup, html};
use uffd_results::{NONE, Recorded, Run, Statement};

/// How a fact went over the kernels in some cases.
#[derive(Debug)]
pub(in crate::site) struct Way<'d> {
    /// The values in turn.
    runs: Vec<Run<&'d str>>,
    /// Each value, with the kernels that showed it.
    pub(super) values: Vec<(&'d str, String)>,
    /// The cases, by their axes.
    pub(in crate::site) cases: Vec<&'d str>,
}

/// The ways of a fact; cases that some kernel was not asked stand with those that went the same way
/// otherwise.
pub(in crate::site) fn ways<'d>(statement: &Statement<'d>, kernels: &[Recorded]) -> Vec<Way<'d>> {
    let mut ways: Vec<Way<'d>> = Vec::new();
    for group in &statement.groups {
        let runs = group.support.runs();
        let values: Vec<&str> = crate::ask::distinct(runs.iter().map(|run| run.value));
        let extent = |value| (value, group.support.extent(value).say(kernels));
        let values: Vec<_> = values.into_iter().map(extent).collect();
        let cases = group.cases.iter().map(|case| case.axes());
        match ways.iter_mut().find(|way| way.values == values) {
            Some(way) => way.cases.extend(cases),
            None => ways.push(Way { runs: runs.to_vec(), values, cases: cases.collect() }),
        }
    }
    ways.sort_by_key(|way| std::cmp::Reverse(way.cases.len()));
    ways
}

impl<'d> Way<'d> {
    /// Whether kernels differ.
    pub(in crate::site) fn changes(&self) -> bool {
        self.runs.len() > 1
    }

    /// The values in turn, each with the first and last kernel that showed it.
    pub(in crate::site) fn runs(&self) -> &[Run<&'d str>] {
        &self.runs
    }
}

/// What a fact of the grid is; facts of other cases are told by their recipe.
fn meaning(fact: &str) -> &'static str {
    match fact {
        "end" => "how the case ended",
        "fault" => "the fault that the waiter raised, at which page",
        "change" => "what the change returned",
        "copy" => "what UFFDIO_COPY returned",
        "zeropage" => "what UFFDIO_ZEROPAGE returned",
        "continue" => "what UFFDIO_CONTINUE returned",
        "writeprotect" => "what UFFDIO_WRITEPROTECT returned",
        "poison" => "what UFFDIO_POISON returned",
        "move" => "what UFFDIO_MOVE returned",
        "unregister" => "what UFFDIO_UNREGISTER returned",
        "wake" => "what UFFDIO_WAKE returned",
        "register" => "what UFFDIO_REGISTER returned",
        "field" => "the result field of the ioctl's struct",
        "waiter" => "what became of the waiter",
        "queue" => "waiters, and unread messages among them",
        "reg" => "registration, a letter a page",
        "pages" => "content, a letter a page",
        "new-reg" => "registration of the new place",
        "new-pages" => "content of the new place",
        "rescue" => "what UFFDIO_WAKE of the waiter's page returned",
        "rescued" | "unprotected" => "what the waiter did then",
        "unprotect" => "what UFFDIO_WRITEPROTECT without MODE_WP returned",
        "closed" => "what it did at the last close",
        "claim" => "whether the claim is true here",
        _ => "",
    }
}

/// The table of facts.
pub(super) fn table(statements: &[Statement<'_>], axes: &Axes<'_>, kernels: &[Recorded]) -> Markup {
    html! {
        div.wide tabindex="0" role="region" aria-label="Facts" {
            table.facts {
                thead { tr { th scope="col" { "Fact" } th scope="col" { "Value" } th scope="col" { "Kernels" } th scope="col" { "Cases" } } }
                @for statement in statements {
                    @let ways = ways(statement, kernels);
                    @if !is_plain_end(statement.fact, &ways) {
                        (fact(statement.fact, &ways, axes))
                    }
                }
            }
        }
    }
}

/// That every case ran to its end need not be said.
fn is_plain_end(fact: &str, ways: &[Way<'_>]) -> bool {
    fact == "end" && ways.iter().all(|way| way.values.iter().all(|(value, _)| *value == "done"))
}

fn fact(name: &str, ways: &[Way<'_>], axes: &Axes<'_>) -> Markup {
    let rows: usize = ways.iter().map(|way| way.values.len()).sum();
    html! {
        tbody id=(format!("fact-{}", plain(name))) {
            @for (i, way) in ways.iter().enumerate() {
                @for (j, (value, extent)) in way.values.iter().enumerate() {
                    tr {
                        @if i == 0 && j == 0 {
                            th scope="rowgroup" rowspan=(rows) {
                                a href=(format!("#fact-{}", plain(name))) { code { (name) } }
                                @if !meaning(name).is_empty() { br; span.soft { (meaning(name)) } }
                            }
                        }
                        td.v { (self::value(value)) }
                        td { (extent) }
                        @if j == 0 {
                            td rowspan=[(way.values.len() > 1).then_some(way.values.len())] { (cases(way, axes)) }
                        }
                    }
                }
            }
        }
    }
}

/// A value as code, or that there was none.
pub(super) fn value(value: &str) -> Markup {
    html! { @if value == NONE { span.soft { "not there" } } @else { code { (value) } } }
}

/// Which cases, in words; those that words don't tell are listed.
fn cases(way: &Way<'_>, axes: &Axes<'_>) -> Markup {
    let told = axes.tell(&way.cases);
    html! {
        @if told.exact || way.cases.len() > 60 { (told.text) } @else {
            details { summary { (told.text) } ul.ids { @for case in &way.cases { li { code { (case) } } } } }
        }
    }
}

/// Cases that went the same way over all spans of kernels: what each span showed, by its place.
type Course = (Vec<usize>, Vec<Option<usize>>);

/// What the facts of points of the grid mean, cases that went the same way together; nothing for other
/// probes.
pub(super) fn in_words(
    world: &World<'_>,
    question: &Question,
    axes: &Axes<'_>,
) -> Result<Option<Markup>> {
    let asked: Vec<Asked> = question.cases.iter().copied().map(Asked::new).collect();
    if !asked.first().is_some_and(Asked::is_point) {
        return Ok(None);
    }
    let table = Table::of(asked, world.data);
    let told = table.tell(&[])?;
    Ok(Some(html! {
        ul.ways {
            @for (cases, seen) in courses(&told, table.cases.len()) {
                li {
                    @let of: Vec<String> = cases.iter().map(|at| table.cases[*at].case.axes()).collect();
                    b { (axes.tell(&of.iter().map(String::as_str).collect::<Vec<_>>()).text) } ". "
                    @if let [only] = distinct_of(&seen)[..] {
                        (sentences(&table, &cases, only))
                    } @else {
                        ul { @for (span, seen) in told.spans.iter().zip(&seen) {
                            @if let Some(seen) = seen {
                                li { "Linux " (span.label) ": " (sentences(&table, &cases, *seen)) }
                            }
                        } }
                    }
                }
            }
        }
        @if !told.silent.is_empty() {
            p.soft { "No answer to some cases: " (told.silent.join("; ")) "." }
        }
    }))
}

/// The courses that cases took, those of most cases first.
fn courses(told: &Told<'_>, cases: usize) -> Vec<Course> {
    let mut all: Vec<Vec<Option<usize>>> = vec![vec![None; told.spans.len()]; cases];
    for (place, span) in told.spans.iter().enumerate() {
        for group in &span.groups {
            for case in &group.cases {
                all[*case][place] = group.cell.seen;
            }
        }
    }
    let mut courses: Vec<Course> = Vec::new();
    for (case, seen) in
        all.into_iter().enumerate().filter(|(_, seen)| seen.iter().any(Option::is_some))
    {
        let same = |(_, known): &&mut Course| {
            *known == seen
                || (distinct_of(known).len() == 1 && distinct_of(known) == distinct_of(&seen))
        };
        match courses.iter_mut().find(same) {
            Some((of, _)) => of.push(case),
            None => courses.push((vec![case], seen)),
        }
    }
    courses.sort_by_key(|(of, _)| std::cmp::Reverse(of.len()));
    courses
}

/// What spans showed, each once, without those that did not answer.
fn distinct_of(seen: &[Option<usize>]) -> Vec<usize> {
    let mut known: Vec<usize> = seen.iter().copied().flatten().collect();
    known.sort_unstable();
    known.dedup();
    known
}

fn sentences(table: &Table<'_>, cases: &[usize], seen: usize) -> Markup {
    let subject = say::subject(cases.iter().map(|at| table.cases[*at].axis("waiter")));
    let said =
        table.seen.get(seen).map(|seen| say::clauses(seen, true, subject)).unwrap_or_default();
    html! {
        @if said.is_empty() { "Nothing was asked after the change, and nobody waits: the facts tell where the pages are." }
        @for clause in &said { (clause.text) " " }
    }
}

/// A fact that turned between two neighbours among the kernels that answered.
#[derive(Debug)]
pub(in crate::site) struct Turn<'d> {
    /// The first kernel with the new value.
    pub(in crate::site) newer: usize,
    older: usize,
    /// The fact.
    pub(in crate::site) fact: &'d str,
    values: (&'d str, &'d str),
    /// The cases, by their axes.
    pub(in crate::site) cases: Vec<&'d str>,
}

/// Where facts turned, from the oldest kernel to the newest.
pub(in crate::site) fn turns<'d>(
    statements: &[Statement<'d>],
    kernels: &[Recorded],
) -> Vec<Turn<'d>> {
    let mut turns: Vec<Turn<'d>> = Vec::new();
    for statement in statements {
        for way in ways(statement, kernels) {
            for pair in way.runs().windows(2) {
                let (older, newer) = (pair[0].last, pair[1].first);
                let values = (pair[0].value, pair[1].value);
                let same = |turn: &&mut Turn<'_>| {
                    (turn.older, turn.newer, turn.fact) == (older, newer, statement.fact)
                        && turn.values == values
                };
                match turns.iter_mut().find(same) {
                    Some(turn) => turn.cases.extend(&way.cases),
                    None => turns.push(Turn {
                        newer,
                        older,
                        fact: statement.fact,
                        values,
                        cases: way.cases.clone(),
                    }),
                }
            }
        }
    }
    turns.sort_by_key(|turn| (turn.newer, turn.older));
    turns
}

/// Where facts turned, the first and the last time in words; and why.
pub(super) fn changes(
    world: &World<'_>,
    here: &Here,
    question: &Question,
    axes: &Axes<'_>,
) -> Markup {
    let kernels = world.kernels();
    let turns = turns(world.statements(&question.name), kernels);
    let (Some(first), Some(last)) = (turns.first(), turns.last()) else {
        return html! { p { "None: every case went the same way on every kernel that answered it." } };
    };
    let pair = |turn: &Turn<'_>| {
        html! { (words::kernel(here, &kernels[turn.older])) " → " (words::kernel(here, &kernels[turn.newer])) }
    };
    html! {
        p {
            "First change: " (pair(first))
            @if (first.older, first.newer) == (last.older, last.newer) { ", and none since." }
            @else { ". Last change: " (pair(last)) "." }
        }
        div.wide tabindex="0" role="region" aria-label="Changes" {
            table.facts {
                thead { tr { th scope="col" { "Between" } th scope="col" { "Fact" } th scope="col" { "Turned" } th scope="col" { "Cases" } th scope="col" { "Why" } } }
                tbody {
                    @for turn in &turns {
                        tr {
                            td { (pair(turn)) }
                            td { code { (turn.fact) } }
                            td { (value(turn.values.0)) " → " (value(turn.values.1)) }
                            td { (axes.tell(&turn.cases).text) }
                            td.long { (world.data.why(turn.newer, &question.name, turn.fact).unwrap_or("not explained here")) }
                        }
                    }
                }
            }
        }
    }
}
