//! `run`: ask this kernel, or other kernels in VMs, and show what they did.

use super::report::{self, Report};
use super::{CaseArgs, Exit, Format, out, vm};
use crate::coverage;
use crate::environment::{Uname, environment};
use crate::filter;
use crate::runner::{Pool, Runner};
use crate::store;
use crate::vm::Event;
use anyhow::{Context, Result, bail};
use clap::Args;
use std::path::PathBuf;
use uffd_results::{Cases, Outcome, Record, SCHEMA};
use uffd_suites::outcome::Stop;
use uffd_suites::probe::Case;

/// Options of `run`.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// Parts of case ids, or patterns with `*`; all cases without.
    filter: Vec<String>,
    #[command(flatten)]
    cases: CaseArgs,
    /// Show every case, not only those that differ.
    #[arg(long, short)]
    verbose: bool,
    /// Output format.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Cases that run side by side on this kernel (default: one a CPU).
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    jobs: Option<u16>,
    /// Also write what was seen as a record.
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
    /// Write the counters of a kernel that was built with gcov to this new folder.
    #[arg(long, value_name = "DIR", requires = "kernel_image")]
    coverage: Option<PathBuf>,
    #[command(flatten)]
    kernel: vm::KernelArgs,
    #[command(flatten)]
    vm: vm::VmArgs,
}

pub(crate) fn run(args: &RunArgs) -> Result<Exit> {
    let cases = uffd_suites::bump::keeping(|| filter::choose(&args.filter, args.cases.full))?;
    if args.kernel.names_any() { in_vms(args, &cases) } else { here(args, &cases) }
}

fn here(args: &RunArgs, cases: &[Case]) -> Result<Exit> {
    if let Some(option) = args.kernel.lock.as_ref().map(|_| "--lock").or(args.vm.named()) {
        bail!(
            "{option} is for kernels in VMs, and none is named: add `-k 6.12`, `--newest` or \
             `--kernel-image PATH`, or leave {option} out to ask this kernel"
        );
    }
    if let Some(path) = &args.record {
        store::check_file(path)?;
    }
    if let Err(stop) = uffd_suites::stage::find_way() {
        bail!("{}", explain(&stop));
    }
    let uname = Uname::read().context("reading the kernel's name (uname)")?;
    let kernel = uname.kernel().context("reading the running kernel's version")?;
    let environment = in_child_environment()?;
    let mut report = Report::begin(args.format, args.verbose, &kernel, &environment, cases.len())?;
    let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let workers = args.jobs.map_or(cpus, usize::from);
    let mut seen: Vec<(String, Outcome)> = Vec::with_capacity(cases.len());
    let mut shown = Ok(());
    Pool::new(workers, args.cases.limits()).run(cases, &mut |index, outcome| {
        if shown.is_ok() {
            shown = report.case(&cases[index], &outcome);
        }
        seen.push((cases[index].id(), outcome));
    })?;
    if let Some(path) = &args.record {
        let (suite, cases) = (report::suite(), Cases::new(seen));
        let record = Record { schema: SCHEMA, kernel, environment, suite, cases };
        store::replace(path, record.to_json().as_bytes())?;
    }
    shown?;
    report.end(None)
}

/// Reads the environment in a child, since preparing for cases changes a process.
fn in_child_environment() -> Result<uffd_results::Environment> {
    let text = crate::runner::in_child(|| {
        let runner = Runner::new(std::time::Duration::from_secs(30)).map_err(|e| e.to_string())?;
        serde_json::to_string(&environment(Some(runner.stage()), "native", None))
            .map_err(|e| e.to_string())
    })?;
    serde_json::from_str(&text).context("reading the environment of the cases")
}

fn explain(stop: &Stop) -> String {
    match stop {
        Stop::Denied(why) => format!("no permission to ask this kernel: {why}"),
        Stop::Unsupported(why) => format!("this kernel can't be asked: {why}"),
        other => other.to_string(),
    }
}

fn in_vms(args: &RunArgs, cases: &[Case]) -> Result<Exit> {
    if args.record.is_some() {
        bail!("--record is for this kernel; `uffd-conform sweep` writes the records of others");
    }
    if args.jobs.is_some() {
        bail!(
            "--jobs is for this kernel; in a VM one case is asked after the other (`uffd-conform sweep \
             --jobs N` runs several VMs)"
        );
    }
    let images = args.kernel.images(&|text| out::note(text))?;
    let mut exit = Exit::Nothing;
    for image in images {
        let mut counters = args.coverage.as_deref().map(coverage::Folder::create).transpose()?;
        let bar = out::progress(cases.len());
        bar.set_prefix(image.identity.upstream.to_string());
        let mut on_event = |event: Event<'_>| {
            if matches!(event, Event::Outcome { .. }) {
                bar.inc(1);
            }
            if let Some(folder) = &mut counters {
                folder.take(&event);
            }
        };
        let counts = args.coverage.is_some();
        let session = vm::ask(&image, cases, &args.cases, &args.vm, counts, &mut on_event)?;
        bar.finish_and_clear();
        for remark in vm::remarks(&session.report) {
            out::note(&remark);
        }
        match counters.map(coverage::Folder::finish).transpose()? {
            None | Some(0) => {}
            Some(n) => out::note(&format!("{n} cases were lost to the counters with their VM")),
        }
        let record = &session.record;
        let (kernel, environment) = (&record.kernel, &record.environment);
        let mut report =
            Report::begin(args.format, args.verbose, kernel, environment, cases.len())?;
        for (case, outcome) in vm::answers(cases, record) {
            report.case(case, outcome)?;
        }
        exit = worst(exit, report.end(Some(session.report.took))?);
    }
    Ok(exit)
}

/// A difference outweighs an answer, and an answer outweighs none.
fn worst(a: Exit, b: Exit) -> Exit {
    if a == Exit::Different || b == Exit::Different {
        Exit::Different
    } else if a == Exit::Expected || b == Exit::Expected {
        Exit::Expected
    } else {
        Exit::Nothing
    }
}
