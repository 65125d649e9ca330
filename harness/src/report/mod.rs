//! What is written from records: the matrix, and the table of claims that the README shows.

mod changes;
mod claims;
pub mod matrix;
mod series;

pub use claims::table as claims_table;
