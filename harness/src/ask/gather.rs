//! What kernels said of some cases, condensed: kernels on which every case went the same way stand
//! together, and so do cases that went the same way.

use super::{Asked, distinct};
use crate::cli::which::{Found, Which, changes};
use anyhow::Result;
use std::collections::HashMap;
use uffd_results::{Certainty, Dataset, End, Extent, Outcome, Recorded, Support, Why};

/// Facts that name places and pages and not what became of anybody: of points of the grid they are
/// shown, but cases that differ in nothing else are said to go the same way.
const GEOMETRY: [&str; 7] = ["fault", "queue", "reg", "pages", "new-reg", "new-pages", "claim"];

/// What a case showed, as far as it is told in words.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Seen {
    /// How it ended.
    pub(crate) end: End,
    /// Why, unless it ran to its end.
    pub(crate) detail: String,
    /// The facts, in the order of observation.
    pub(crate) facts: Vec<(String, String)>,
}

impl Seen {
    /// What an outcome says in words; of a point of the grid less its geometry.
    pub(crate) fn of(outcome: &Outcome, is_point: bool) -> Self {
        let facts = outcome
            .facts
            .iter()
            .filter(|fact| !is_point || !GEOMETRY.contains(&fact.name.as_ref()))
            .map(|fact| (fact.name.to_string(), value(fact.name.as_ref(), &fact.value)));
        Self { end: outcome.end, detail: outcome.detail.clone(), facts: facts.collect() }
    }

    /// The value of a fact.
    pub(crate) fn fact(&self, name: &str) -> Option<&str> {
        self.facts.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }
}

/// The result field of an ioctl that did all that was asked holds the length, whatever pages are.
pub(crate) const LENGTH: &str = "length";

fn value(name: &str, value: &str) -> String {
    let is_length = name == "field" && value.parse::<u64>().is_ok_and(|bytes| bytes > 0);
    if is_length { LENGTH.to_owned() } else { value.to_owned() }
}

/// What is known of one case on one kernel that was named.
#[derive(Clone, Debug)]
pub(crate) struct Cell<'d> {
    /// What it showed, by its place in [`Table::seen`]; `None` if that is not known.
    pub(crate) seen: Option<usize>,
    /// How sure that is.
    pub(crate) certainty: Certainty,
    /// Why it is not known.
    pub(crate) why: Option<Why>,
    /// The recorded kernels that it rests on, with what each showed.
    pub(crate) basis: Vec<(&'d Recorded, usize)>,
}

impl Cell<'_> {
    /// Whether two say the same; of two that are recorded it does not matter which kernel did.
    fn agrees(&self, other: &Self) -> bool {
        let exact = |cell: &Self| cell.certainty == Certainty::Exact;
        self.seen == other.seen
            && self.certainty == other.certainty
            && self.why == other.why
            && (exact(self) || self.basis == other.basis)
    }

    /// Whether a recorded kernel gave no answer.
    fn is_silent(&self) -> bool {
        self.seen.is_none() && self.basis.is_empty()
    }
}

/// Cases and what they showed on every recorded kernel.
pub(crate) struct Table<'d> {
    /// The recorded facts.
    pub(crate) data: &'d Dataset,
    /// The cases.
    pub(crate) cases: Vec<Asked>,
    /// Every way in which one went.
    pub(crate) seen: Vec<Seen>,
    rows: Vec<Vec<Option<usize>>>,
}

/// Kernels on which every case went the same way.
#[derive(Debug)]
pub(crate) struct Span<'d> {
    /// The kernels: `5.10.218 to 6.12.118, 7.3.4`, or the release that was named.
    pub(crate) label: String,
    /// From when or until when, as far as recorded; empty where that says no more.
    pub(crate) extent: String,
    /// The cases that answered, those together that went the same way.
    pub(crate) groups: Vec<Group<'d>>,
    /// The first recorded kernel of it, or one that it rests on.
    pub(crate) kernel: Option<usize>,
}

/// Cases that went the same way.
#[derive(Debug)]
pub(crate) struct Group<'d> {
    /// The cases, by their places in the table.
    pub(crate) cases: Vec<usize>,
    /// How they went.
    pub(crate) cell: Cell<'d>,
}

/// Everything that is said of some cases.
#[derive(Debug)]
pub(crate) struct Told<'d> {
    /// The answers.
    pub(crate) spans: Vec<Span<'d>>,
    /// Kernels that gave no answer in some case, with a reason: `6.19.6 to 7.1.13: no KVM`.
    pub(crate) silent: Vec<String>,
}

/// One kernel that was named, or a recorded one.
pub(crate) struct Column<'d> {
    /// Its name.
    pub(crate) label: String,
    /// The recorded kernel that it is or rests on.
    pub(crate) kernel: Option<usize>,
    /// What each case showed.
    pub(crate) cells: Vec<Cell<'d>>,
}

impl Column<'_> {
    /// Whether it is a recorded kernel itself, and not another one that recorded ones speak for.
    fn is_recorded(&self) -> bool {
        self.cells.iter().all(|cell| cell.certainty == Certainty::Exact || cell.is_silent())
    }
}

impl<'d> Table<'d> {
    /// The table of some cases, which must be recorded to be in it.
    pub(crate) fn of(cases: Vec<Asked>, data: &'d Dataset) -> Self {
        let mut table = Self { data, cases, seen: Vec::new(), rows: Vec::new() };
        let mut places: HashMap<Seen, usize> = HashMap::new();
        for asked in &table.cases {
            let case = data.case(&asked.id);
            let is_point = asked.is_point();
            let place = |kernel| {
                let seen = Seen::of(case?.answer(kernel)?, is_point);
                Some(*places.entry(seen).or_insert_with_key(|seen| {
                    table.seen.push(seen.clone());
                    table.seen.len() - 1
                }))
            };
            table.rows.push((0..data.kernels().len()).map(place).collect());
        }
        table
    }

    /// What the cases showed on the kernels that are named; on all of them if none is.
    pub(crate) fn tell(&self, which: &[Which]) -> Result<Told<'d>> {
        let columns = self.columns(which)?;
        let mut spans: Vec<(Vec<usize>, Vec<Cell<'d>>)> = Vec::new();
        let mut silent: Vec<usize> = Vec::new();
        for (at, column) in columns.iter().enumerate() {
            if column.cells.iter().any(Cell::is_silent) {
                silent.push(at);
            }
            if column.cells.iter().all(Cell::is_silent) {
                continue;
            }
            let span = spans.iter_mut().rev().find(|(_, cells)| fits(cells, &column.cells));
            if let Some((of, cells)) = span {
                of.push(at);
                for (cell, new) in cells.iter_mut().zip(&column.cells) {
                    if cell.is_silent() {
                        *cell = new.clone();
                    }
                }
            } else {
                spans.push((vec![at], column.cells.clone()));
            }
        }
        let answers = |columns: &[Column<'_>]| {
            let place = |at: usize| spans.iter().position(|(of, _)| of.contains(&at));
            Support::of((0..columns.len()).filter_map(|at| Some((at, place(at)?))))
        };
        let support = which.is_empty().then(|| answers(&columns));
        let spans = spans.iter().enumerate().map(|(i, (of, cells))| {
            let extent = support.as_ref().map(|support| support.extent(i));
            let extent =
                extent.filter(|e| matches!(e, Extent::Since { .. } | Extent::Until { .. }));
            Span {
                label: ranges(&columns, of),
                extent: extent.map_or(String::new(), |e| e.say(self.data.kernels())),
                groups: group(cells),
                kernel: of.first().and_then(|at| columns[*at].kernel),
            }
        });
        Ok(Told { spans: spans.collect(), silent: self.silent(&columns, &silent) })
    }

    /// What each case showed, kernel by kernel.
    pub(crate) fn columns(&self, which: &[Which]) -> Result<Vec<Column<'d>>> {
        let kernels = self.data.kernels();
        if which.is_empty() {
            let column = |(at, kernel): (usize, &'d Recorded)| Column {
                label: kernel.label.clone(),
                kernel: Some(at),
                cells: self.rows.iter().map(|row| exact(kernel, row[at])).collect(),
            };
            return Ok(kernels.iter().enumerate().map(column).collect());
        }
        let mut columns: Vec<Column<'d>> = Vec::new();
        for which in which {
            let first = columns.len();
            for (i, row) in self.rows.iter().enumerate() {
                let found = which.look_up(self.data, |kernel| row[kernel])?;
                let asked = &self.cases[i];
                let otherwise = |kernel: usize, version| {
                    let shown = self.data.case(&asked.id).and_then(|case| case.answer(kernel));
                    shown.is_some_and(|shown| {
                        !changes(&asked.case, shown, &kernels[kernel], version).is_empty()
                    })
                };
                let found = found
                    .into_iter()
                    .map(|one| one.unless_expected_otherwise(which, self.data, otherwise));
                for (j, Found { label, answer }) in found.enumerate() {
                    if i == 0 {
                        columns.push(Column { label, kernel: None, cells: Vec::new() });
                    }
                    let Some(column) = columns.get_mut(first + j) else { continue };
                    let basis = answer.basis.first().map(|(kernel, _)| *kernel);
                    let place = |b: &Recorded| kernels.iter().position(|k| std::ptr::eq(k, b));
                    column.kernel = column.kernel.or_else(|| basis.and_then(place));
                    column.cells.push(Cell {
                        seen: answer.value,
                        certainty: answer.certainty,
                        why: answer.why,
                        basis: answer.basis,
                    });
                }
            }
        }
        Ok(columns)
    }

    /// Which kernels gave no answer in some case, and why.
    fn silent(&self, columns: &[Column<'_>], at: &[usize]) -> Vec<String> {
        let mut reasons: Vec<(String, Vec<usize>)> = Vec::new();
        for at in at {
            let column = &columns[*at];
            let silent = column.cells.iter().zip(&self.cases).filter(|(cell, _)| cell.is_silent());
            for (cell, asked) in silent {
                let kernel =
                    self.data.kernels().iter().position(|kernel| kernel.label == column.label);
                let outcome = kernel.and_then(|k| self.data.case(&asked.id)?.outcome(k));
                let reason = match (outcome, cell.why) {
                    (Some(outcome), _) if outcome.detail.is_empty() => {
                        outcome.end.word().to_owned()
                    }
                    (Some(outcome), _) => format!("{}: {}", outcome.end.word(), outcome.detail),
                    (None, Some(why)) => why.to_string(),
                    (None, None) => "not asked".to_owned(),
                };
                match reasons.iter_mut().find(|(r, _)| *r == reason) {
                    Some((_, columns)) if columns.contains(at) => {}
                    Some((_, columns)) => columns.push(*at),
                    None => reasons.push((reason, vec![*at])),
                }
            }
        }
        let say =
            |(reason, at): (String, Vec<usize>)| format!("{}: {reason}", ranges(columns, &at));
        reasons.into_iter().map(say).collect()
    }

    /// The axes that decide which way cases of a span go: as few as do, three at most; none where all
    /// go the same way or more would be needed. Where several sets of as few do, all of them: the
    /// cases don't tell which it is.
    pub(crate) fn deciding(&self, groups: &[Group<'_>]) -> Vec<Vec<&str>> {
        if groups.len() < 2 {
            return Vec::new();
        }
        let cases: Vec<&Asked> =
            groups.iter().flat_map(|g| &g.cases).map(|at| &self.cases[*at]).collect();
        let axes = varying(&cases);
        let decides = |names: &[&str]| {
            let mut known: HashMap<Vec<Option<&str>>, usize> = HashMap::new();
            groups.iter().enumerate().all(|(i, group)| {
                group.cases.iter().all(|at| {
                    let values = names.iter().map(|name| self.cases[*at].axis(name)).collect();
                    *known.entry(values).or_insert(i) == i
                })
            })
        };
        let mut tries: Vec<Vec<&str>> = vec![Vec::new()];
        for _ in 0..3 {
            // Every set of one axis more, its axes in their order.
            let larger = tries.iter().flat_map(|set| {
                let last = set.last().and_then(|last| axes.iter().position(|v| v == last));
                let next = axes.iter().skip(last.map_or(0, |last| last + 1));
                next.map(|axis| set.iter().chain([axis]).copied().collect())
            });
            tries = larger.collect();
            let sets: Vec<Vec<&str>> = tries.iter().filter(|set| decides(set)).cloned().collect();
            // Of a change's own axes only cases of that change could tell more.
            let is_had = |axis: &&str| cases.iter().all(|asked| asked.axis(axis).is_some());
            let had: Vec<_> = sets.iter().filter(|set| set.iter().all(is_had)).cloned().collect();
            if !sets.is_empty() {
                return if had.is_empty() { sets } else { had };
            }
        }
        Vec::new()
    }
}

/// The axes in which cases differ; those of the grid in the order in which people ask.
pub(crate) fn varying<'a>(cases: &[&'a Asked]) -> Vec<&'a str> {
    let mut names = distinct(cases.iter().flat_map(|asked| asked.axes()).map(|(name, _)| name));
    names.retain(|name| cases.iter().any(|asked| asked.axis(name) != cases[0].axis(name)));
    let grid = super::words::GRID;
    names.sort_by_key(|name| grid.iter().position(|g| g == name).unwrap_or(grid.len()));
    names
}

fn exact(kernel: &Recorded, seen: Option<usize>) -> Cell<'_> {
    let (certainty, why) = match seen {
        Some(_) => (Certainty::Exact, None),
        None => (Certainty::Unknown, Some(Why::NotAsked)),
    };
    Cell { seen, certainty, why, basis: seen.map(|seen| (kernel, seen)).into_iter().collect() }
}

/// Whether two columns say nothing different, and both say something of a case.
fn fits(a: &[Cell<'_>], b: &[Cell<'_>]) -> bool {
    let both = || a.iter().zip(b).filter(|(a, b)| !a.is_silent() && !b.is_silent());
    both().next().is_some() && both().all(|(a, b)| a.agrees(b))
}

fn group<'d>(cells: &[Cell<'d>]) -> Vec<Group<'d>> {
    let mut groups: Vec<Group<'d>> = Vec::new();
    for (at, cell) in cells.iter().enumerate().filter(|(_, cell)| !cell.is_silent()) {
        match groups.iter_mut().find(|group| group.cell.agrees(cell)) {
            Some(group) => group.cases.push(at),
            None => groups.push(Group { cases: vec![at], cell: cell.clone() }),
        }
    }
    groups.sort_by_key(|group| std::cmp::Reverse(group.cases.len()));
    groups
}

/// Columns by their labels, neighbours as a range: of what was named only recorded kernels between which there
/// is no other.
fn ranges(columns: &[Column<'_>], at: &[usize]) -> String {
    let place = |at: usize| columns[at].kernel.filter(|_| columns[at].is_recorded());
    let next = |a: usize, b: usize| {
        a + 1 == b && place(a).zip(place(b)).is_some_and(|(older, newer)| older + 1 == newer)
    };
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for at in at {
        match runs.last_mut() {
            Some((_, last)) if next(*last, *at) => *last = *at,
            _ => runs.push((*at, *at)),
        }
    }
    let name = |at: usize| columns[at].label.as_str();
    let run = |(first, last): &(usize, usize)| match last - first {
        0 => name(*first).to_owned(),
        1 => format!("{}, {}", name(*first), name(*last)),
        _ => format!("{} to {}", name(*first), name(*last)),
    };
    runs.iter().map(run).collect::<Vec<_>>().join(", ")
}
