//! `lint`: whether everything odd in the records is explained, and every explanation is about
//! something.

use super::{Exit, Format, out};
use crate::known;
use crate::lint::{Finding, lint as find};
use crate::notes;
use crate::store::Store;
use anyhow::Result;
use clap::Args;
use serde_json::json;
use std::io::Write;

/// Options of `lint`.
#[derive(Debug, Args)]
pub(crate) struct LintArgs {
    /// Output format.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub(crate) fn lint(args: &LintArgs, store: &Store) -> Result<Exit> {
    let records = store.load()?;
    let known = known::of(&records, store)?;
    let findings = find(&known, &notes::load(store.folder())?, &known::cases());
    let mut out = out::stdout();
    for Finding { kind, place, what } in &findings {
        match args.format {
            Format::Human => {
                writeln!(out, "{} {}\n             {what}", out::warning(*kind), out::bold(place))?;
            }
            Format::Jsonl => {
                writeln!(out, "{}", json!({"kind": kind.word(), "place": place, "what": what}))?;
            }
        }
    }
    if findings.is_empty() {
        return Ok(Exit::Expected);
    }
    let (n, folder) = (findings.len(), store.folder().display());
    out::note(&format!(
        "{n} findings; what is true and explained belongs into {folder}/notes.toml"
    ));
    Ok(Exit::Different)
}
