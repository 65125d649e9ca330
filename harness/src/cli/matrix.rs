//! `matrix`: MATRIX.md from the records.

use super::{Exit, out};
use crate::report::{claims_table, matrix as text};
use crate::store::{self, Store};
use anyhow::Result;
use clap::Args;
use std::io::Write;

/// Options of `matrix`.
#[derive(Debug, Args)]
pub(crate) struct MatrixArgs {
    /// Print it in place of writing the file.
    #[arg(long)]
    print: bool,
}

pub(crate) fn matrix(args: &MatrixArgs, store: &Store) -> Result<Exit> {
    if args.print {
        let records = store.load()?;
        out::stdout().write_all(text::markdown(&records)?.as_bytes())?;
    } else {
        write(store)?;
    }
    Ok(Exit::Expected)
}

/// Marks in a README between which the table of claims stands.
const MARKS: (&str, &str) =
    ("<!-- claims: written by `uffd-conform matrix` -->\n", "<!-- end of claims -->");

/// Writes `MATRIX.md` beside the records, and the table of claims into the README above them.
pub(crate) fn write(store: &Store) -> Result<()> {
    let records = store.load()?;
    let readme = store.folder().join("../README.md");
    if let Ok(text) = std::fs::read_to_string(&readme)
        && let Some(new) = with_claims(&text, &claims_table(&records)?)
        && new != text
    {
        store::replace(&readme, new.as_bytes())?;
    }
    let path = store.folder().join("MATRIX.md");
    store::replace(&path, text::markdown(&records)?.as_bytes())?;
    let n = records.len();
    writeln!(out::stdout(), "{}: {n} kernels", path.display())?;
    Ok(())
}

/// The README with the table in its place; `None` if it has no place for one.
fn with_claims(readme: &str, table: &str) -> Option<String> {
    let (before, rest) = readme.split_once(MARKS.0)?;
    let (_, after) = rest.split_once(MARKS.1)?;
    Some(format!("{before}{}{table}{}{after}", MARKS.0, MARKS.1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_place_between_the_marks_changes() {
        let readme = format!("a\n{}old\n{}\nb\n", MARKS.0, MARKS.1);
        let new = with_claims(&readme, "| new |\n").expect("marks");
        assert_eq!(new, format!("a\n{}| new |\n{}\nb\n", MARKS.0, MARKS.1));
        assert_eq!(with_claims("no marks", "x"), None);
    }
}
