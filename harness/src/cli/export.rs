//! `export`: what is known, for programs that do not use this workspace.

use super::{Exit, out, told};
use crate::export::{self, SMALL, Selection};
use crate::store::{self, Store, StoreError};
use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use std::io::Write;
use std::path::PathBuf;

/// Options of `export`.
#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    /// Form of the export.
    #[arg(long, value_enum)]
    format: Form,
    /// Only these cases: a part of an id, or a pattern with `*`; may be given more than once. By default
    /// all, in a C header or Rust table those of claims, unregister, wake and copy/event-unread.
    #[arg(long, value_name = "FILTER")]
    only: Vec<String>,
    /// Write to this file in place of standard output.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Forms of the export.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Form {
    /// One document: kernels, probes, cases, contracts with their verdicts.
    Json,
    /// A line a case, fact and run of kernels that agree.
    Csv,
    /// A C99 header with tables and a lookup by release string.
    CHeader,
    /// A Rust module with the same, which needs `core` only.
    Rust,
}

pub(crate) fn export(args: &ExportArgs, store: &Store) -> Result<Exit> {
    let known = told::load(store)?;
    if known.data.kernels().is_empty() {
        bail!(
            "no kernel is recorded: run `uffd-conform sweep` first, or name a folder with --results"
        );
    }
    let compiled = matches!(args.format, Form::CHeader | Form::Rust);
    let filters = match args.only.as_slice() {
        // Records of a folder can lack a suite that the default has.
        [] if compiled => export::found(&SMALL, &known.data),
        only => only.to_vec(),
    };
    let selection = Selection::new(filters, &known.data)?;
    let text = match args.format {
        Form::Json => export::json(&known, &selection).to_string() + "\n",
        Form::Csv => export::csv(&known.data, &selection),
        Form::CHeader => export::c_header(&known.data, &selection)?,
        Form::Rust => export::rust(&known.data, &selection)?,
    };
    match &args.output {
        Some(path) => store::replace(path, text.as_bytes()).map_err(StoreError::of_output)?,
        None => out::stdout().write_all(text.as_bytes())?,
    }
    Ok(Exit::Expected)
}
