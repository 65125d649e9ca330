//! Columns: the recorded kernels of a series side by side, and one cell for all of them.

use uffd_results::{KernelVersion, Record, VersionError};

/// The records of one series, from the oldest release to the newest.
#[derive(Debug)]
pub(super) struct Series<'a> {
    pub(super) name: String,
    pub(super) records: Vec<&'a Record>,
}

/// The series of all records, which are sorted.
pub(super) fn all(records: &[Record]) -> Result<Vec<Series<'_>>, VersionError> {
    let mut series: Vec<Series<'_>> = Vec::new();
    for record in records {
        let name = record.upstream().map(KernelVersion::series)?;
        match series.last_mut() {
            Some(last) if last.name == name => last.records.push(record),
            _ => series.push(Series { name, records: vec![record] }),
        }
    }
    Ok(series)
}

impl Series<'_> {
    /// One cell: what its kernels agree on, or what they say in turn.
    pub(super) fn cell(&self, of: impl Fn(&Record) -> String) -> String {
        let mut cells: Vec<String> = self.records.iter().map(|record| of(record)).collect();
        cells.dedup();
        cells.join(" → ")
    }
}

/// A row of a Markdown table; cells can't break out of it.
pub(super) fn row(cells: impl IntoIterator<Item = String>) -> String {
    let cells: Vec<String> = cells.into_iter().map(|cell| cell.replace('|', "\\|")).collect();
    format!("| {} |\n", cells.join(" | "))
}

/// The head of a Markdown table: names, and the line below them.
pub(super) fn head(cells: Vec<String>) -> String {
    let rule = row(cells.iter().map(|_| "---".to_owned()));
    row(cells) + &rule
}

/// Text from a record, safe to show in Markdown as code.
pub(super) fn code(text: &str) -> String {
    let safe: String = text.chars().filter(|c| !c.is_control() && *c != '`').collect();
    format!("`{safe}`")
}
