//! What is written from records: the matrix, and the table of claims that the README shows.

mod changes;
pub(crate) mod claims;
mod contracts;
pub(crate) mod group;
pub(crate) mod markdown;
pub mod matrix;
mod series;

pub(crate) use changes::{Step, reason, steps};
pub use claims::table as claims_table;

/// A count with its noun: `1 case`, `2 cases`.
pub(crate) fn count(n: usize, noun: &str) -> String {
    if n == 1 { format!("1 {noun}") } else { format!("{n} {noun}s") }
}
