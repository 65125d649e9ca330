//! `matrix`: everything that is made from the records: MATRIX.md, the README's table of claims, and
//! the data that is built into the library.

use super::{Exit, out};
use crate::known;
use crate::report::{claims_table, matrix as text};
use crate::store::{self, Store};
use anyhow::{Context, Result};
use clap::Args;
use std::io::Write;
use std::path::PathBuf;

/// Options of `matrix`.
#[derive(Debug, Args)]
pub(crate) struct MatrixArgs {
    /// Print it in place of writing files.
    #[arg(long, conflicts_with = "check")]
    print: bool,
    /// Write nothing; exit with 1 if a file is not what the records make of it.
    #[arg(long)]
    check: bool,
}

pub(crate) fn matrix(args: &MatrixArgs, store: &Store) -> Result<Exit> {
    if args.print {
        let records = store.load()?;
        let known = known::of(&records, store)?;
        out::stdout().write_all(text::markdown(&records, &known)?.as_bytes())?;
        return Ok(Exit::Expected);
    }
    if !args.check {
        write(store)?;
        return Ok(Exit::Expected);
    }
    let old: Vec<PathBuf> =
        made(store)?.into_iter().filter(|made| !made.is_written()).map(|made| made.path).collect();
    for path in &old {
        writeln!(out::stdout(), "{} is not what the records make of it", path.display())?;
    }
    if old.is_empty() {
        return Ok(Exit::Expected);
    }
    out::note("`uffd-conform matrix` writes them anew");
    Ok(Exit::Different)
}

/// A file that is made from the records.
struct Made {
    path: PathBuf,
    text: String,
}

impl Made {
    fn is_written(&self) -> bool {
        std::fs::read_to_string(&self.path).is_ok_and(|text| text == self.text)
    }
}

/// Marks in a README between which the table of claims stands.
const MARKS: (&str, &str) =
    ("<!-- claims: written by `uffd-conform matrix` -->\n", "<!-- end of claims -->");

/// Everything that is made from the records of a folder: in a checkout also the README above it and
/// the library's data below it.
fn made(store: &Store) -> Result<Vec<Made>> {
    let records = store.load()?;
    let known = known::of(&records, store)?;
    let folder = store.folder();
    let text = text::markdown(&records, &known)?;
    let mut made = vec![Made { path: folder.join("MATRIX.md"), text }];
    let readme = folder.join("../README.md");
    if let Ok(text) = std::fs::read_to_string(&readme)
        && let Some(text) = with_claims(&text, &claims_table(&records)?)
    {
        made.push(Made { path: readme, text });
    }
    let library = folder.join("src/data");
    if library.is_dir() {
        let json = serde_json::to_string_pretty(&known.contracts);
        let text = json.context("writing contracts as JSON")? + "\n";
        made.push(Made { path: library.join("contracts.json"), text });
        made.push(Made { path: library.join("facts.txt"), text: known.data.to_text() });
    }
    Ok(made)
}

/// Writes what is made from the records.
pub(crate) fn write(store: &Store) -> Result<()> {
    for made in made(store)? {
        if !made.is_written() {
            store::replace(&made.path, made.text.as_bytes())?;
        }
        writeln!(out::stdout(), "{}", made.path.display())?;
    }
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
