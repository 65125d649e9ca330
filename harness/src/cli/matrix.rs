//! `matrix`: MATRIX.md from the records.

use super::{Exit, out};
use crate::report::matrix as text;
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

/// Writes `MATRIX.md` beside the records.
pub(crate) fn write(store: &Store) -> Result<()> {
    let records = store.load()?;
    let path = store.folder().join("MATRIX.md");
    store::replace(&path, text::markdown(&records)?.as_bytes())?;
    let n = records.len();
    writeln!(out::stdout(), "{}: {n} kernels", path.display())?;
    Ok(())
}
