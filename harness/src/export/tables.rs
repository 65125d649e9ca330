//! The tables of an export that is compiled in: every text once, every row of answers once.

use super::{ExportError, Selection, facts_of};
use std::collections::HashMap;
use std::hash::Hash;
use uffd_results::{Apart, Dataset, KernelVersion, NONE};

/// What the C header and the Rust table hold. Numbers are places in the other lists.
pub(super) struct Tables {
    /// Values of facts. The first stands for no answer, the second for a fact that was not observed.
    pub(super) values: Vec<String>,
    /// Values, a kernel a column.
    pub(super) rows: Vec<Vec<usize>>,
    /// Names of facts.
    pub(super) facts: Vec<String>,
    /// Facts with their rows; each set begins with `end`.
    pub(super) sets: Vec<Vec<(usize, usize)>>,
    /// Ids in the order of their bytes, each with its set.
    pub(super) cases: Vec<(String, usize)>,
    /// Cases, facts and series, by major and minor number, for which the recorded kernels of other series don't speak.
    pub(super) apart: Vec<[usize; 4]>,
}

impl Tables {
    pub(super) fn of(data: &Dataset, selection: &Selection) -> Result<Self, ExportError> {
        let kernels = data.kernels().len();
        let (mut values, mut rows) = (Once::default(), Once::default());
        let (mut facts, mut sets) = (Once::default(), Once::default());
        values.place(String::new());
        values.place(NONE.to_owned());
        let mut cases = Vec::new();
        for (id, case) in selection.cases(data) {
            let mut set = Vec::new();
            for name in facts_of(case, kernels) {
                let value = |kernel| {
                    case.fact(kernel, name).map_or(0, |value| values.place(value.to_owned()))
                };
                let row = (0..kernels).map(value).collect();
                set.push((facts.place(name.to_owned()), rows.place(row)));
            }
            // Without an answer on any kernel there is nothing to look up.
            if !set.is_empty() {
                cases.push((id, sets.place(set)));
            }
        }
        cases.sort();
        let place = |apart: &Apart| {
            let case = cases.binary_search_by(|(id, _)| id.cmp(&apart.case)).ok()?;
            let fact = facts.items.iter().position(|name| *name == apart.fact)?;
            Some([case, fact, apart.series.0.into(), apart.series.1.into()])
        };
        let apart = data.apart().iter().filter_map(place).collect();
        let tables = Self {
            values: values.items,
            rows: rows.items,
            facts: facts.items,
            sets: sets.items,
            cases,
            apart,
        };
        tables.check()
    }

    fn check(self) -> Result<Self, ExportError> {
        let lists = [
            (self.values.len(), "values"),
            (self.rows.len(), "rows"),
            (self.sets.len(), "sets of facts"),
            (self.sets.iter().map(Vec::len).sum(), "facts of sets"),
            (self.cases.len(), "cases"),
        ];
        match lists.into_iter().find(|(length, _)| *length > usize::from(u16::MAX)) {
            Some((length, what)) => Err(ExportError::TooMany(length, what)),
            None => Ok(self),
        }
    }

    /// Where each set begins among all facts of all sets, and how many it has.
    pub(super) fn spans(&self) -> Vec<(usize, usize)> {
        let mut begin = 0;
        let span = |set: &Vec<_>| {
            let span = (begin, set.len());
            begin += set.len();
            span
        };
        self.sets.iter().map(span).collect()
    }
}

/// A version as the tables write it: a release sorts behind its candidates.
pub(crate) fn number(version: KernelVersion) -> [u16; 4] {
    [version.major, version.minor, version.patch, version.rc.unwrap_or(u16::MAX)]
}

/// Items in the order of their first appearance.
struct Once<T> {
    items: Vec<T>,
    places: HashMap<T, usize>,
}

impl<T> Default for Once<T> {
    fn default() -> Self {
        Self { items: Vec::new(), places: HashMap::new() }
    }
}

impl<T: Clone + Eq + Hash> Once<T> {
    fn place(&mut self, item: T) -> usize {
        *self.places.entry(item).or_insert_with_key(|item| {
            self.items.push(item.clone());
            self.items.len() - 1
        })
    }
}

/// Items in lines of a source file, each with a comma behind it.
pub(super) fn lines(items: impl IntoIterator<Item = String>) -> String {
    const WIDTH: usize = 110;
    let (mut out, mut line) = (String::new(), String::new());
    for item in items {
        if !line.is_empty() && line.len() + item.len() > WIDTH {
            out = out + "    " + line.trim_end() + "\n";
            line.clear();
        }
        line = line + &item + ", ";
    }
    if line.is_empty() { out } else { out + "    " + line.trim_end() + "\n" }
}

/// A text as C and Rust both write it; data holds printable ASCII, of which two need a backslash.
pub(super) fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}
