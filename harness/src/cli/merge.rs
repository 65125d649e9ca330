//! `merge`: the records of several results folders in one, whichever comes first.

use super::{Exit, matrix, out};
use crate::import::{Disagreement, contradiction, join};
use crate::store::{Store, StoreError};
use anyhow::{Context, Result, bail};
use clap::Args;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use uffd_results::{Record, printable};

/// Options of `merge`.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit codes: 0 all are merged · 1 some disagree: of those kernels nothing was written, all \
                  others are merged · 2 refused: nothing was written"
)]
pub(crate) struct MergeArgs {
    /// Results folders, as `sweep --shard I/N --results DIR` leaves them.
    #[arg(required = true, value_name = "DIR")]
    folder: Vec<PathBuf>,
}

/// What is known of one kernel, and from where.
#[derive(Default)]
struct Found {
    records: Vec<Record>,
    /// Whether one of them is ours.
    is_here: bool,
}

pub(crate) fn merge(args: &MergeArgs, store: &Store) -> Result<Exit> {
    store.check_writable()?;
    let mut found: BTreeMap<PathBuf, Found> = BTreeMap::new();
    match store.load() {
        Ok(records) => {
            for record in records {
                let kernel = found.entry(store.path(&record.kernel)?).or_default();
                kernel.is_here = true;
                kernel.records.push(record);
            }
        }
        Err(StoreError::Empty(_)) => {}
        Err(e) => return Err(e.into()),
    }
    // All are read and joined before the first is written.
    let (mut read, mut empty) = (0, None);
    for folder in &args.folder {
        let name = printable(&folder.display().to_string());
        if !folder.is_dir() {
            bail!("there is no folder {name}: name those that `--results DIR sweep` has made");
        }
        let records = match Store::new(folder).load_foreign() {
            Ok(records) => records,
            // So a part with no kernel leaves it.
            Err(error @ StoreError::Empty(_)) => {
                out::note(&format!(
                    "{name} has no records, as after a part without kernels: skipped"
                ));
                empty.get_or_insert((name, error));
                continue;
            }
            Err(error) => return Err(error).with_context(|| reading(&name)),
        };
        read += 1;
        for record in records {
            if let Some(why) = contradiction(&record) {
                bail!("{name}: {}: not a record: {why}", record.kernel.release);
            }
            found.entry(store.path(&record.kernel)?).or_default().records.push(record);
        }
    }
    if let Some((name, error)) = empty.filter(|_| read == 0) {
        return Err(error).with_context(|| reading(&name));
    }
    let mut lines = found.values().flat_map(|found| &found.records).map(|r| &r.environment.append);
    if let Some(line) = lines.next()
        && let Some(other) = lines.find(|other| *other != line)
    {
        return Err(store.other_line(line, other).into());
    }
    let mut exit = Exit::Expected;
    let mut joined = Vec::new();
    for Found { records, is_here } in found.into_values() {
        let release = records.first().map_or(String::new(), |r| r.kernel.release.clone());
        let of = join(&records).map_err(|why| {
            anyhow::anyhow!("the records of {release} are not of one kernel and suite: {why}")
        })?;
        if of.1.is_empty() {
            store.check(&of.0).with_context(|| {
                format!("the records of {release} can't be joined, so nothing is merged")
            })?;
        }
        joined.push((release, of, is_here.then(|| records.into_iter().next()).flatten()));
    }
    let changed = joined.iter().filter_map(|(release, (record, disagreements), ours)| {
        (disagreements.is_empty() && ours.as_ref() != Some(record)).then_some((release, record))
    });
    let paths = store.save_all(changed.clone().map(|(_, record)| record))?;
    for ((release, _), path) in changed.zip(&paths) {
        writeln!(out::stdout(), "{release}: {}", path.display())?;
    }
    let written = paths.len();
    for (release, (_, disagreements), _) in &joined {
        if disagreements.is_empty() {
            continue;
        }
        exit = Exit::Different;
        let n = disagreements.len();
        writeln!(out::stdout(), "{release}: {n} answers disagree, nothing is written")?;
        for Disagreement { case, fact, values } in disagreements {
            writeln!(out::stdout(), "  {case}: {fact} is {}", values.join(" or "))?;
        }
    }
    writeln!(out::stdout(), "{written} records written")?;
    if written > 0 {
        matrix::write(store)?;
    }
    Ok(exit)
}

fn reading(name: &str) -> String {
    format!("reading the records of {name}")
}
