//! What is written from records: the matrix, and the table of claims that the README shows.

mod changes;
mod claims;
mod contracts;
pub mod matrix;
mod series;

pub(crate) use changes::reason;
pub use claims::table as claims_table;
