//! `kernels`: which kernels can be had, what is cached, how large it is.

use super::choose::{KernelArgs, OwnArgs};
use super::{Exit, Format, out};
use crate::kernels::{self, Cache, Lock};
use anyhow::Result;
use clap::Args;
use serde_json::json;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Options of `kernels`.
#[derive(Debug, Args)]
pub(crate) struct KernelsArgs {
    /// Ask the archive anew and bring the lock file up to date: what it holds stays in it.
    #[arg(long)]
    update: bool,
    /// The lock file (default: the one built in; with --update, `kernels.lock` here).
    #[arg(long, value_name = "FILE")]
    lock: Option<PathBuf>,
    /// Fetch these kernels (as `sweep --newest -k` takes them) and print where their images are.
    #[arg(long, value_name = "KERNEL", num_args = 0.., conflicts_with_all = ["update", "format"])]
    fetch: Option<Vec<String>>,
    /// Output format.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub(crate) fn kernels(args: &KernelsArgs) -> Result<Exit> {
    if let Some(patterns) = &args.fetch {
        return fetch(args, patterns);
    }
    let target = args.update.then(|| args.lock.as_deref().unwrap_or(Path::new("kernels.lock")));
    let known = match target {
        // What is to be replaced: no entry of it is dropped. A new one begins with what the one built in knows.
        Some(path) => Some(path).filter(|path| path.exists()),
        None => args.lock.as_deref(),
    };
    let mut lock = Lock::open(known)?;
    if let Some(path) = target {
        let changes = kernels::refresh(&mut lock, &|text| out::note(text))?;
        lock.save(path)?;
        for suite in &changes.unread {
            out::note(&format!("NOT READ, its entries stand as they were: {suite}"));
        }
        let (added, gone) = (changes.added, changes.gone);
        out::note(&format!("{}: added {added:?}, gone {gone:?}", path.display()));
    }
    let cache = Cache::open()?;
    let mut out = out::stdout();
    let (mut cached, mut bytes) = (0, 0);
    for kernel in lock.kernels() {
        let image = cache.cached(kernel);
        let package = kernel.package();
        let size = image.as_ref().and_then(|i| std::fs::metadata(&i.path).ok()).map(|m| m.len());
        cached += usize::from(size.is_some());
        bytes += size.unwrap_or(0);
        let state = match (size.is_some(), kernel.gone) {
            (true, _) => "cached",
            (false, true) => "gone",
            (false, false) => "archive",
        };
        match args.format {
            Format::Human => writeln!(
                out,
                "{:<10} {state:<8} {:>5.1} MiB  {} {}",
                out::bold(format!("{:<10}", kernel.upstream)),
                mib(size.unwrap_or(kernel.image.size)),
                package.name,
                out::dim(&package.version),
            )?,
            Format::Jsonl => {
                let upstream = kernel.upstream.to_string();
                let line = json!({"upstream": upstream, "series": kernel.series(), "state": state,
                    "package": package, "suites": kernel.suites, "download_bytes": kernel.image.size,
                    "cached_bytes": size});
                writeln!(out, "{line}")?;
            }
        }
    }
    if args.format == Format::Human {
        let all = lock.kernels().len();
        writeln!(out, "{all} kernels, {cached} of them cached ({:.0} MiB)", mib(bytes))?;
    }
    Ok(Exit::Expected)
}

fn fetch(args: &KernelsArgs, patterns: &[String]) -> Result<Exit> {
    let (kernel, lock) = (patterns.to_vec(), args.lock.clone());
    let chosen = KernelArgs { kernel, newest: true, own: OwnArgs::default(), lock, shard: None };
    chosen.each(&|text| out::note(text), &mut |image| {
        Ok(writeln!(out::stdout(), "{}", image.path.display())?)
    })?;
    Ok(Exit::Expected)
}

#[expect(clippy::cast_precision_loss, reason = "a size to be shown")]
fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
