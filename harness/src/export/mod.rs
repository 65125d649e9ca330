//! What is known, written for programs that do not use this workspace.
//!
//! Belongs here: the forms of the export and the choice of cases. How a question is answered stands in
//! the `results` crate; the C header and the site's `lookup.js` have those rules again, since C and
//! JavaScript can't call them, and `tests/export.rs` and `tests/site_lookup.rs` hold both to the same
//! answers. The Rust table copies them as they are.

mod c_header;
mod csv;
mod json;
mod rust;
mod tables;

pub(crate) use c_header::WHYS;
pub use c_header::c_header;
pub use csv::csv;
pub(crate) use json::facts;
pub use json::{SCHEMA, json};
pub use rust::rust;
pub(crate) use tables::number;

use uffd_results::{Case, Dataset, NONE, id_matches};

/// The cases of a table to compile in unless others are chosen: what decides how to clean up after
/// changed mappings, and what result fields hold.
pub const SMALL: [&str; 4] = ["claims/*", "unregister/*", "wake/*", "copy/event-unread*"];

/// The cases that an export has.
#[derive(Clone, Debug, Default)]
pub struct Selection(Vec<String>);

/// Why nothing can be exported.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExportError {
    /// A filter finds nothing.
    #[error(
        "no recorded case matches {0:?}: give a part of a case id, or a pattern with * for the whole \
         id; `uffd-conform list` shows the ids"
    )]
    Nothing(String),
    /// An empty word, as of a shell's unset variable.
    #[error("a filter is empty: give a part of a case id, or leave --only out for what is usual")]
    Empty,
    /// A compiled table counts in 16 bits.
    #[error("{0} {1} are more than a compiled table holds: choose fewer cases with --only")]
    TooMany(usize, &'static str),
}

impl Selection {
    /// The cases that any of these filters finds; all of them without filters.
    pub fn new(filters: Vec<String>, data: &Dataset) -> Result<Self, ExportError> {
        for filter in &filters {
            if filter.is_empty() {
                return Err(ExportError::Empty);
            }
            if found(&[filter], data).is_empty() {
                return Err(ExportError::Nothing(filter.clone()));
            }
        }
        Ok(Self(filters))
    }

    fn takes(&self, id: &str) -> bool {
        self.0.is_empty() || self.0.iter().any(|filter| id_matches(filter, id))
    }

    /// The chosen cases with their ids.
    fn cases<'d>(&self, data: &'d Dataset) -> impl Iterator<Item = (String, Case<'d>)> {
        data.cases().map(|case| (case.id(), case)).filter(|(id, _)| self.takes(id))
    }

    /// The filters in words.
    fn words(&self) -> String {
        if self.0.is_empty() { "all cases".to_owned() } else { self.0.join(" ") }
    }
}

/// Those filters that find a case.
pub fn found(filters: &[&str], data: &Dataset) -> Vec<String> {
    let finds = |filter: &&&str| data.cases().any(|case| id_matches(filter, &case.id()));
    filters.iter().filter(finds).map(|filter| (*filter).to_owned()).collect()
}

/// The facts that some kernel showed in a case, `end` first, then in the order of observation.
fn facts_of(case: Case<'_>, kernels: usize) -> Vec<&str> {
    let mut names = vec!["end"];
    for outcome in (0..kernels).filter_map(|kernel| case.answer(kernel)) {
        for fact in outcome.facts.iter() {
            if !names.contains(&fact.name.as_ref()) {
                names.push(&fact.name);
            }
        }
    }
    names.retain(|name| (0..kernels).any(|k| case.fact(k, name).is_some_and(|v| v != NONE)));
    names
}
