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
