//! Ask: any recorded point of the grid by its axes, on any kernel. A form for those who have a script, a
//! table of all answer pages for everybody; and the points themselves, for the script.

use super::axes::{self, KINDS};
use super::links::{self, Here};
use super::page::{self, Kind, Page};
use super::words::count;
use super::world::World;
use crate::ask::Asked;
use crate::ask::gather::Seen;
use crate::ask::say::{clauses, subject};
use crate::ask::words;
use crate::export::{WHYS, number};
use anyhow::Result;
use maud::{Markup, html};
use serde::Serialize;
use std::collections::{BTreeMap, HashMap};
use uffd_results::{Certainty, Origin, Release, is_answer};

const PATH: &str = "ask.html";

/// The axes in the order in which the form asks for them; what can be chosen follows from those before.
const ORDER: [&str; 9] =
    ["op", "change", "waiter", "mode", "part", "over", "how", "backing", "msg"];

/// The page.
pub(super) fn page(world: &World<'_>, points: &[Asked]) -> Page {
    let here = Here::at(PATH);
    let summary = format!(
        "What an operation returns after a change, who is still stuck and how to free them: {} on {}.",
        count(points.len(), "recorded point"),
        count(world.kernels().len(), "kernel"),
    );
    let body = html! {
        p { (summary) }
        (form(world, points))
        p #status.hint role="status" {}
        div #answer {}
        h2 #all { "All answers" }
        p { "Each of these pages has every kind of waiter and every kernel, and needs no script." }
        (table(&here, points))
    };
    Page {
        path: PATH.to_owned(),
        title: "Ask".to_owned(),
        kind: Kind::Page,
        summary,
        words: "form choose stuck free backing waiter operation change kernel uname".to_owned(),
        scripts: &["ask-data.js", "lookup.js", "ask.js"],
        body,
    }
}

/// The form that the script reads; without one nothing of it is shown.
fn form(world: &World<'_>, points: &[Asked]) -> Markup {
    let has = |axis: &str, value: &str| points.iter().any(|asked| asked.axis(axis) == Some(value));
    let options =
        |axis: &'static str| words::values(axis).into_iter().filter(move |value| has(axis, value));
    let option = |axis: &str, value: &str| {
        let meaning = axes::meaning(axis, value);
        html! { option value=(value) { @if meaning == value { (value) } @else { (value) ": " (meaning) } } }
    };
    html! {
        form.ask hidden aria-label="Ask" {
            @for axis in ORDER {
                label data-axis=(axis) { (axes::question(axis)) " " select name=(axis) {
                    @if axis == "waiter" {
                        option value="" { "anybody, or nobody" }
                        @for kind in &KINDS[..3] { option value=(kind.anchor) { "any " (one_of(kind.anchor)) } }
                    } @else if !["op", "change", "mode"].contains(&axis) {
                        option value="" { "any" }
                    }
                    @for value in options(axis) { (option(axis, value)) }
                } }
            }
            label { "Kernel " input name="kernel" list="kernels" autocomplete="off" spellcheck="false"
                placeholder="all; or what uname -r prints"; }
            datalist #kernels {
                @for series in &world.series { option value=(series.name) {} }
                @for kernel in world.kernels() { option value=(kernel.release) {} }
            }
            button #copy type="button" { "Copy link" }
        }
    }
}

fn one_of(kind: &str) -> &'static str {
    match kind {
        "vcpu" => "vCPU",
        "thread" => "thread in user mode",
        _ => "system call",
    }
}

/// Links to every answer page: an operation a row, a change a column.
fn table(here: &Here, points: &[Asked]) -> Markup {
    let pairs = axes::pairs(points);
    let changes = words::values("change");
    let changes: Vec<&str> =
        changes.into_iter().filter(|c| pairs.iter().any(|(_, change)| change == c)).collect();
    let ops = crate::ask::distinct(pairs.iter().map(|(op, _)| *op));
    html! {
        div.scroll tabindex="0" role="region" aria-label="All answers" {
            table #answers {
                thead { tr {
                    th scope="col" { "Operation" }
                    @for change in &changes { th scope="col" { "after " (axes::change(change)) } }
                } }
                tbody { @for op in ops { tr {
                    th scope="row" { (axes::meaning("op", op)) }
                    @for change in &changes { td {
                        @if pairs.contains(&(op, change)) {
                            a href=(here.to(&links::answer(op, change))) aria-label=(format!("{op}, {change}")) {
                                (op) ", " (change) }
                        } @else { span.soft { "not recorded" } }
                    } }
                } } }
            }
        }
    }
}

/// A recorded kernel, for the script.
#[derive(Serialize)]
struct Kernel<'a> {
    version: String,
    number: [u16; 4],
    release: &'a str,
    machine: &'a str,
    series: String,
    url: String,
}

/// What the script's lookup says and knows of release strings, in the library's words.
#[derive(Serialize)]
struct Lookup {
    /// Words that show who built a kernel.
    words: BTreeMap<&'static str, &'static [&'static str]>,
    /// Words that name a machine, and what `uname -m` calls it.
    machines: &'static [(&'static str, &'static str)],
    /// How sure an answer is.
    certainty: BTreeMap<&'static str, &'static str>,
    /// Why one is unknown.
    why: BTreeMap<&'static str, String>,
}

impl Lookup {
    fn new() -> Self {
        let words = [
            ("ubuntu", Origin::Ubuntu),
            ("debian", Origin::Debian),
            ("followers", Origin::Follower),
            ("downstream", Origin::Downstream),
        ];
        let certainty = [
            ("exact", Certainty::Exact),
            ("within", Certainty::WithinSeries),
            ("between", Certainty::BetweenSeries),
            ("unknown", Certainty::Unknown),
        ];
        Self {
            words: words.map(|(name, origin)| (name, origin.words())).into(),
            machines: Release::MACHINES,
            certainty: certainty.map(|(name, certainty)| (name, certainty.word())).into(),
            why: WHYS.map(|(name, why)| (name, why.to_string())).into(),
        }
    }
}

/// What the script reads. Sentences are made here, so that there is one way to say a fact.
#[derive(Serialize)]
struct Data<'a> {
    kernels: Vec<Kernel<'a>>,
    /// For what is said of kernels that are not recorded.
    lookup: Lookup,
    /// Axes in the form's order.
    order: [&'static str; 9],
    /// Waiters by the kinds that the form offers.
    kinds: BTreeMap<&'static str, Vec<&'static str>>,
    /// Probes, with their pages.
    probes: Vec<(String, String)>,
    /// Answer pages by operation and change.
    answers: Vec<(&'static str, &'static str, String)>,
    /// Every sentence.
    texts: Vec<String>,
    /// What a case showed: keys and sentences; for one that gave no answer the key is `silent`.
    said: Vec<Vec<(String, usize)>>,
    /// What a case showed on each kernel, by its place in `said`; -1 if it was not asked.
    rows: Vec<Vec<i64>>,
    /// Operation, change, mode, probe, the case's own axes, and its row.
    points: Vec<(&'a str, &'a str, &'a str, usize, &'a str, usize)>,
}

/// Places of things that are written once.
struct Once<T> {
    all: Vec<T>,
    places: HashMap<T, usize>,
}

impl<T> Default for Once<T> {
    fn default() -> Self {
        Self { all: Vec::new(), places: HashMap::new() }
    }
}

impl<T: Clone + Eq + std::hash::Hash> Once<T> {
    fn place(&mut self, thing: T) -> usize {
        *self.places.entry(thing).or_insert_with_key(|thing| {
            self.all.push(thing.clone());
            self.all.len() - 1
        })
    }
}

/// The script that holds every point.
pub(super) fn data(world: &World<'_>, points: &[Asked]) -> Result<String> {
    let (mut texts, mut seen, mut rows) = (Once::default(), Once::default(), Once::default());
    let mut said: Vec<Vec<(String, usize)>> = Vec::new();
    let mut probes: Once<(String, String)> = Once::default();
    let mut listed = Vec::new();
    for asked in points {
        let Some(case) = world.data.case(&asked.id) else { continue };
        let subject = subject(std::iter::once(asked.axis("waiter")));
        let mut row = Vec::new();
        for kernel in 0..world.kernels().len() {
            let Some(outcome) = case.outcome(kernel) else {
                row.push(-1);
                continue;
            };
            // Two outcomes are the same where `uffd-conform ask` takes them for the same, so that both
            // agree on what recorded kernels agree on.
            let outcome = Seen::of(outcome, true);
            let place = seen.place((outcome.clone(), subject));
            row.push(i64::try_from(place)?);
            if place < said.len() {
                continue;
            }
            let clauses: Vec<(String, String)> = if is_answer(outcome.end) {
                let told = clauses(&outcome, true, subject);
                told.into_iter().map(|clause| (clause.key, clause.text)).collect()
            } else {
                vec![("silent".to_owned(), format!("{}: {}", outcome.end.word(), outcome.detail))]
            };
            let clauses = clauses.into_iter().map(|(key, text)| (key, texts.place(text)));
            said.push(clauses.collect());
        }
        let name = case.probe().name();
        let probe = probes.place((name.to_owned(), links::probe(name)));
        let axis = |name| asked.axis(name).unwrap_or_default();
        let row = rows.place(row);
        listed.push((axis("op"), axis("change"), axis("mode"), probe, case.axes(), row));
    }
    let kernels = world.kernels().iter().map(|kernel| Kernel {
        version: kernel.upstream.to_string(),
        number: number(kernel.upstream),
        release: &kernel.release,
        machine: &kernel.machine,
        series: kernel.upstream.series(),
        url: links::kernel(kernel),
    });
    let of_kind = |anchor: &str| {
        let values = words::values("waiter").into_iter();
        values.filter(|waiter| axes::kind(waiter) == anchor).collect::<Vec<_>>()
    };
    let answers = axes::pairs(points).into_iter();
    let data = Data {
        kernels: kernels.collect(),
        lookup: Lookup::new(),
        order: ORDER,
        kinds: KINDS[..3].iter().map(|kind| (kind.anchor, of_kind(kind.anchor))).collect(),
        probes: probes.all,
        answers: answers.map(|(op, change)| (op, change, links::answer(op, change))).collect(),
        texts: texts.all,
        said,
        rows: rows.all,
        points: listed,
    };
    page::data("ASK", &data)
}
