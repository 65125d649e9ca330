//! `matrix`: everything that is made from the records: MATRIX.md, BENCH.md, the README's table of claims and
//! its example, and the data that is built into the library.

use super::{Exit, ask, out};
use crate::bench;
use crate::report::{claims_table, matrix as text};
use crate::store::{self, Store};
use crate::{known, notes};
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
        out::stdout().write_all(
            text::markdown(&records, &known, &notes::load(store.folder())?)?.as_bytes(),
        )?;
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

/// Marks in a README between which something made stands.
type Marks = (&'static str, &'static str);

/// Between these stands the table of claims.
const CLAIMS: Marks =
    ("<!-- claims: written by `uffd-conform matrix` -->\n", "<!-- end of claims -->");

/// Between these stand a question and its answer.
const EXAMPLE: Marks =
    ("<!-- example: written by `uffd-conform matrix` -->\n", "<!-- end of the example -->");

/// Everything that is made from the records of a folder: of the folder that is the library's source also the
/// README above it and the library's data below it.
fn made(store: &Store) -> Result<Vec<Made>> {
    let records = store.load()?;
    let known = known::of(&records, store)?;
    let folder = store.folder();
    let text = text::markdown(&records, &known, &notes::load(folder)?)?;
    let mut made = vec![Made { path: folder.join("MATRIX.md"), text }];
    let (costs, notes) = (bench::load(folder)?, bench::notes::load(folder)?);
    let changes = bench::report::changes(&bench::report::counted(&costs), &notes);
    for note in bench::report::idle(&changes, &notes) {
        let bench::notes::Note { operation, kernel, .. } = note;
        out::note(&format!(
            "bench/notes.toml: the note about {operation} on {kernel} explains no change that is recorded: drop it"
        ));
    }
    if let Some(text) = bench::report::markdown(&costs, &notes) {
        made.push(Made { path: folder.join("BENCH.md"), text });
    }
    // Another results folder in the checkout is not what its README is about.
    let library = folder.join("src/data");
    if !library.is_dir() {
        return Ok(made);
    }
    let readme = folder.join("../README.md");
    if let Ok(mut text) = std::fs::read_to_string(&readme) {
        let mut has_places = false;
        for (marks, new) in [(CLAIMS, claims_table(&records)?), (EXAMPLE, ask::example(&known)?)] {
            if let Some(with) = between(&text, marks, &new) {
                (text, has_places) = (with, true);
            }
        }
        if has_places {
            made.push(Made { path: readme, text });
        }
    }
    let json = serde_json::to_string_pretty(&known.contracts);
    let text = json.context("writing contracts as JSON")? + "\n";
    made.push(Made { path: library.join("contracts.json"), text });
    made.push(Made { path: library.join("facts.txt"), text: known.data.to_text() });
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

/// The README with something new between two marks; `None` if it lacks them.
fn between(readme: &str, marks: Marks, new: &str) -> Option<String> {
    let (before, rest) = readme.split_once(marks.0)?;
    let (_, after) = rest.split_once(marks.1)?;
    Some(format!("{before}{}{new}{}{after}", marks.0, marks.1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_place_between_the_marks_changes() {
        let readme = |text: &str| format!("a\n{}{text}\n{}\nb\n", CLAIMS.0, CLAIMS.1);
        let new = between(&readme("old"), CLAIMS, "| new |\n").expect("marks");
        assert_eq!(new, readme("| new |"));
        assert_eq!(between("no marks", CLAIMS, "x"), None);
        assert_eq!(between(&new, EXAMPLE, "x"), None);
    }
}
