//! `record`: takes in what somebody else ran on a kernel that we do not have.

use super::{Exit, out};
use crate::import::{Conflict, Merged, contradiction, merge, remarks};
use crate::known;
use crate::store::{self, Store};
use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use std::collections::HashMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use uffd_results::{Record, is_answer, printable};
use uffd_suites::probe::Case;

/// Options of `record`.
#[derive(Debug, Args)]
pub(crate) struct RecordArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Say whether a file is a record, and what there is to say of it; writes nothing.
    Check {
        /// Files that `run --record FILE` wrote.
        #[arg(required = true)]
        file: Vec<PathBuf>,
    },
    /// Take records of other kernels into the results folder.
    Import(ImportArgs),
}

#[derive(Debug, Args)]
#[command(
    after_help = "Exit codes: 0 taken · 1 taken, but with answers that disagree with what is \
                  recorded, which was kept · 2 refused: nothing was written"
)]
struct ImportArgs {
    /// Files that `run --record FILE` wrote.
    #[arg(required = true)]
    file: Vec<PathBuf>,
    /// Who made them; stands in the record.
    #[arg(long, value_name = "NAME")]
    by: Option<String>,
    /// Take the place of what is recorded of the same kernel.
    #[arg(long, conflicts_with = "merge")]
    replace: bool,
    /// Add only cases that the record of the same kernel lacks.
    #[arg(long)]
    merge: bool,
}

pub(crate) fn record(args: &RecordArgs, store: &Store) -> Result<Exit> {
    match &args.what {
        What::Check { file } => Ok(check(file)),
        What::Import(args) => import(args, store),
    }
}

fn check(files: &[PathBuf]) -> Exit {
    let cases = known::cases();
    let mut exit = Exit::Expected;
    for file in files {
        // Whatever is wrong with one, somebody wants to know of the others.
        if let Err(error) = read(file, &cases) {
            out::error(&error);
            exit = Exit::Unusable;
        }
    }
    exit
}

/// Reads a file and says what it is.
fn read(file: &Path, cases: &HashMap<String, Case>) -> Result<Record> {
    let (record, text) = store::read_foreign(file)?;
    let name = printable(&file.display().to_string());
    if let Some(why) = contradiction(&record) {
        bail!("{name}: not a record: {why}");
    }
    let kernel = &record.kernel;
    let answers = record.cases.iter().filter(|(_, outcome)| is_answer(outcome.end)).count();
    let by = record.by.as_ref().map(|by| format!(", by {by}")).unwrap_or_default();
    writeln!(
        out::stdout(),
        "{name}: {} ({}), {}, {} cases, {answers} answered{by}",
        out::bold(&kernel.release),
        kernel.upstream,
        record.environment.how(),
        record.cases.len(),
    )?;
    for remark in remarks(&record, &text, cases) {
        out::note(&format!("{name}: {remark}"));
    }
    Ok(record)
}

/// A record that is to be written.
struct Planned {
    record: Record,
    how: String,
    conflicts: Vec<Conflict>,
}

fn import(args: &ImportArgs, store: &Store) -> Result<Exit> {
    let cases = known::cases();
    let mut planned: Vec<Planned> = Vec::new();
    // All are looked at before the first is written.
    for file in &args.file {
        let mut record = read(file, &cases)?;
        if let Some(by) = &args.by {
            record.by = Some(by.clone());
        }
        let line = &record.environment.append;
        store.check_line(line)?;
        // What is here after the others of this call are written.
        if let Some(other) =
            planned.iter().map(|p| &p.record.environment.append).find(|l| *l != line)
        {
            return Err(store.other_line(line, other).into());
        }
        let path = store.path(&record.kernel)?;
        if planned.iter().any(|p| store.path(&p.record.kernel).is_ok_and(|other| other == path)) {
            let release = &record.kernel.release;
            bail!("{release} is in two of the files: import one after the other, with --merge");
        }
        let plan = plan(args, record, &path)?;
        // What --by and merging add must be read again as what is there.
        Record::read(plan.record.to_json().as_bytes()).with_context(|| {
            let by = args.by.as_deref().map(|by| format!(" with --by {by:?}")).unwrap_or_default();
            format!("{}{by} can't stand in a record", printable(&file.display().to_string()))
        })?;
        planned.push(plan);
    }
    let mut exit = Exit::Expected;
    let paths = store.save_all(planned.iter().map(|plan| &plan.record))?;
    for (Planned { how, conflicts, .. }, path) in planned.iter().zip(paths) {
        writeln!(out::stdout(), "{how}: {}", path.display())?;
        for Conflict { case, fact, ours, theirs } in conflicts {
            exit = Exit::Different;
            let line = format!("{fact} is {ours} here, {theirs} in the file");
            writeln!(out::stdout(), "  kept {case}: {line}")?;
        }
    }
    out::note("`uffd-conform matrix` makes the matrix and the library's data anew");
    Ok(exit)
}

fn plan(args: &ImportArgs, record: Record, path: &Path) -> Result<Planned> {
    let release = &record.kernel.release;
    if !path.exists() {
        return Ok(Planned { how: format!("{release} is new"), record, conflicts: Vec::new() });
    }
    if args.replace {
        let how = format!("{release} is replaced");
        return Ok(Planned { record, how, conflicts: Vec::new() });
    }
    if !args.merge {
        let path = path.display();
        bail!(
            "{release} is recorded already, in {path}: --merge adds the cases that it lacks, \
             --replace takes its place, `uffd-conform diff` compares the two"
        );
    }
    let ours = store::read(path)?;
    let merged = merge(&ours, &record).map_err(|why| {
        anyhow::anyhow!("{release} can't be merged: {why}; --replace takes its place")
    })?;
    let Merged { record, added, skipped, conflicts } = merged;
    let kept = [(skipped, "have an answer in only one"), (conflicts.len(), "disagree")];
    let kept = kept.into_iter().filter(|(n, _)| *n > 0);
    let kept: Vec<String> = kept.map(|(n, what)| format!(", {n} {what} and are kept")).collect();
    let how = format!("{added} cases are added to {}{}", record.kernel.release, kept.concat());
    Ok(Planned { record, how, conflicts })
}
