//! `run`: ask this kernel, or other kernels in VMs, and show what they did.

use super::here::{Here, Nobody};
use super::report::{Format, Report};
use super::{CaseArgs, Exit, ExitCodes, choose, out, vm};
use crate::coverage;
use crate::filter;
use crate::interrupt;
use crate::journal::Outcomes;
use crate::kernels::Image;
use crate::store;
use crate::vm::Event;
use anyhow::{Result, bail};
use clap::Args;
use std::collections::HashSet;
use std::path::{Path, PathBuf};
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
    /// What the exit code means: ours, or kselftest's (0 pass, 1 fail or unusable, 4 skip).
    #[arg(long, value_enum, default_value_t, value_name = "CODES")]
    pub(super) exit_codes: ExitCodes,
    /// Cases that run side by side on this kernel, or VMs that share them (default: one a CPU, and in VMs
    /// fewer if there are few cases).
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    jobs: Option<u16>,
    /// Also write what was seen as a record.
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
    /// Write the counters of a kernel that was built with gcov to this new folder.
    #[arg(long, value_name = "DIR", requires = "kernel_image", conflicts_with = "jobs")]
    coverage: Option<PathBuf>,
    #[command(flatten)]
    kernel: choose::KernelArgs,
    #[command(flatten)]
    vm: choose::VmArgs,
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
        spare(path, cases)?;
    }
    let mut report = Report::new(args.format, args.verbose, 1)?;
    let here = match Here::find() {
        // Whoever runs all selftests as anybody has found nothing.
        Err(error) if args.exit_codes == ExitCodes::Kselftest && error.is::<Nobody>() => {
            out::error(&error);
            report.skip(&error)?;
            return Ok(Exit::Nothing);
        }
        found => told(&mut report, found)?,
    };
    let (kernel, environment) = (&here.kernel, &here.environment);
    report.begin(kernel, environment, cases.len())?;
    let mut shown = Ok(());
    let record = here.ask(cases, args.cases.limits(), args.jobs, &mut |case, outcome| {
        if shown.is_ok() {
            shown = report.case(case, outcome);
        }
    });
    let record = told(&mut report, record)?;
    let path = args.record.as_ref();
    let kept = path.map(|path| store::write(path, &record)).transpose();
    shown?;
    let exit = report.end(None)?;
    told(&mut report, kept.map_err(Into::into))?;
    report.finish()?;
    Ok(exit)
}

/// Fails if the file is a record with answers to what is not asked now: it would be lost.
fn spare(path: &Path, cases: &[Case]) -> Result<()> {
    let Some(record) = path.is_file().then(|| store::read(path).ok()).flatten() else {
        return Ok(());
    };
    let asked: HashSet<String> = cases.iter().map(Case::id).collect();
    let lost = record.cases.iter().filter(|(id, _)| !asked.contains(*id)).count();
    if lost > 0 {
        bail!(
            "{} is a record with {lost} cases that this run does not ask, which would be lost: remove it first, or \
             name another file",
            path.display()
        );
    }
    Ok(())
}

/// An answer; of an error the report's reader is told as well.
fn told<T>(report: &mut Report, answer: Result<T>) -> Result<T> {
    if let Err(error) = &answer {
        report.bail(error)?;
    }
    answer
}

fn in_vms(args: &RunArgs, cases: &[Case]) -> Result<Exit> {
    if args.record.is_some() {
        bail!("--record is for this kernel; `uffd-conform sweep` writes the records of others");
    }
    let (images, fetched) = args.kernel.all(&|text| out::note(text));
    let mut report = Report::new(args.format, args.verbose, images.len())?;
    if images.is_empty() || interrupt::caught().is_some() {
        return told(&mut report, fetched).map(|()| Exit::Nothing);
    }
    // A kernel that can't be had, or that does not answer, costs none of the others.
    let mut failed = fetched.err();
    failed.iter().for_each(out::error);
    let mut fail = |error| {
        out::error(&error);
        failed.get_or_insert(error);
    };
    let mut exit = Exit::Nothing;
    for image in &images {
        match in_vm(args, image, cases) {
            Ok((session, counters)) => {
                exit = worst(exit, tell(&session, cases, &mut report)?);
                // Behind the answers, which are there whatever becomes of the counters.
                match counters.map(coverage::Folder::finish).transpose() {
                    Ok(None | Some(0)) => {}
                    Ok(Some(n)) => {
                        out::note(&format!("{n} cases were lost to the counters with their VM"));
                    }
                    Err(error) => fail(error),
                }
            }
            Err(error) => fail(error),
        }
        if interrupt::caught().is_some() {
            break;
        }
    }
    if let Some(error) = &failed {
        report.bail(error)?;
        return Ok(Exit::Unusable);
    }
    report.finish()?;
    Ok(exit)
}

/// Asks a kernel in VMs.
fn in_vm(
    args: &RunArgs,
    image: &Image,
    cases: &[Case],
) -> Result<(vm::Session, Option<coverage::Folder>)> {
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
    let mut options = args.vm.options();
    if args.coverage.is_some() {
        // One VM: each one's counters would take the place of the others'.
        options.settings.insert(vm::COVERAGE.into(), "yes".into());
    } else {
        options.machines = args.jobs.map_or_else(choose::cpus, usize::from);
    }
    let session = vm::ask(image, cases, &Outcomes::new(), &args.cases, options, &mut on_event);
    bar.finish_and_clear();
    Ok((session?, counters))
}

/// Shows what a kernel answered.
fn tell(session: &vm::Session, cases: &[Case], report: &mut Report) -> Result<Exit> {
    for remark in vm::remarks(&session.report) {
        out::note(&remark);
    }
    let record = &session.record;
    report.begin(&record.kernel, &record.environment, cases.len())?;
    for (case, outcome) in vm::answers(cases, record) {
        report.case(case, outcome)?;
    }
    report.end(Some(session.report.took))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_outweighs_an_answer_and_an_answer_none() {
        let order = [Exit::Nothing, Exit::Expected, Exit::Different];
        for (i, a) in order.into_iter().enumerate() {
            for (j, b) in order.into_iter().enumerate() {
                assert_eq!(worst(a, b), order[i.max(j)], "{a:?} {b:?}");
            }
        }
    }
}
