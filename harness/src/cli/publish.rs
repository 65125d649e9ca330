//! `publish`: the compatibility site, made from the records.

use super::{Exit, out};
use crate::store::Store;
use crate::{bench, known, notes, recipes, site};
use anyhow::Result;
use clap::Args;
use std::io::Write;
use std::path::PathBuf;

/// Options of `publish`.
#[derive(Debug, Args)]
pub(crate) struct PublishArgs {
    /// Folder to write; a site that stands there is replaced, hidden files and CNAME stay (default: `site` in the
    /// results folder).
    #[arg(long, short, value_name = "DIR")]
    output: Option<PathBuf>,
}

pub(crate) fn publish(args: &PublishArgs, store: &Store) -> Result<Exit> {
    let records = store.load()?;
    let known = known::of(&records, store)?;
    let notes = notes::load(store.folder())?;
    let recipes = recipes::load(store.folder(), &known.contracts)?;
    let measured = bench::load(store.folder())?;
    let reasons = bench::notes::load(store.folder())?;
    let costs = site::Costs { measured: &measured, notes: &reasons };
    let site = site::build(&records, &known, &notes, &recipes, costs)?;
    let folder = args.output.clone().unwrap_or_else(|| store.folder().join("site"));
    site.write(&folder).map_err(|e| if args.output.is_some() { e.of_output() } else { e })?;
    let (files, bytes) =
        site.files().fold((0, 0), |(n, sum), (_, bytes)| (n + 1, sum + bytes.len()));
    writeln!(
        out::stdout(),
        "{}: {files} files, {} MB; open it in a browser, or copy the folder to any static host",
        folder.join("index.html").display(),
        bytes.div_ceil(1_000_000),
    )?;
    Ok(Exit::Expected)
}
