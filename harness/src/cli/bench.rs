//! `bench`: what operations cost, on this kernel in time and on others in instructions.

mod json;
mod self_check;

use super::here::Here;
use super::{CaseArgs, Exit, Format, choose, out, vm};
use crate::bench::{self, check, convert, show};
use crate::interrupt;
use crate::journal::Outcomes;
use crate::kernels::Image;
use crate::store::Store;
use crate::vm::accel::Choice;
use crate::vm::{Options, VmError};
use anyhow::{Context, Result, anyhow, bail};
use clap::Args;
use std::io::Write;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use uffd_results::bench::{Measured, Operation, Unit};
use uffd_results::{Record, id_matches};
use uffd_suites::bench as operations;
use uffd_suites::probe::Case;

/// Rounds on this kernel, where time varies, and in an emulator, where counts repeat.
const ROUNDS: (u32, u32) = (60, 7);

/// Options of `bench`.
#[expect(clippy::struct_excessive_bools, reason = "one a flag of the command")]
#[derive(Debug, Args)]
#[command(
    after_help = "Exit codes: 0 measured, and as it must be · 1 an operation hung, died or broke, or \
                        what --self-check or --repeat hold against each other disagrees · 2 bad input or \
                        something missing, with what to do"
)]
pub(crate) struct BenchArgs {
    /// Parts of operations' ids, or patterns with `*`; all operations without.
    filter: Vec<String>,
    #[command(flatten)]
    kernel: choose::KernelArgs,
    #[command(flatten)]
    line: choose::LineArgs,
    /// In how many turns an operation and its limit are measured (default: 60, in an emulator 7).
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rounds: Option<u32>,
    /// Output format.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Measure time in VMs, not instructions: with KVM, where it proves itself.
    #[arg(long)]
    times: bool,
    /// Keep the costs in the results folder, below `bench`.
    #[arg(long, conflicts_with_all = ["filter", "append"])]
    record: bool,
    /// Measure each kernel N times, in fresh VMs, and see whether the counts agree.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100))]
    repeat: u32,
    /// See whether a delay of known length is found with its size, and nothing else.
    #[arg(long, conflicts_with_all = ["filter", "record", "repeat"])]
    self_check: bool,
    /// List the operations, with what is counted and what is their limit.
    #[arg(long)]
    list: bool,
    /// VMs side by side (default: one a CPU).
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    jobs: Option<u16>,
}

pub(crate) fn bench(args: &BenchArgs, store: &Store) -> Result<Exit> {
    let cases = choose(args)?;
    if args.list {
        return list(&cases, args.format);
    }
    if args.record {
        store.check_writable()?;
    }
    if args.kernel.names_any() { in_vms(args, &cases, store) } else { here(args, &cases, store) }
}

/// The operations that are asked for, with what says what a tick is worth.
fn choose(args: &BenchArgs) -> Result<Vec<Case>> {
    let filter = &args.filter;
    if filter.iter().any(String::is_empty) {
        bail!(
            "a filter is empty: give a part of an operation's id, or leave it out to measure all"
        );
    }
    let clocks = convert::clocks();
    let delays = operations::delays().map(|(id, _)| id);
    let all = operations::operations();
    let wanted = |operation: &operations::Operation, id: &str| {
        if args.self_check {
            return delays.iter().any(|d| d == id);
        }
        let chosen = filter.iter().any(|f| id_matches(f, id));
        let named = filter.iter().any(|f| f == id);
        (operation.is_listed() && (filter.is_empty() || chosen)) || named
    };
    for filter in filter {
        let found = |o: &operations::Operation| {
            let id = o.id();
            (o.is_listed() && id_matches(filter, &id)) || id == *filter
        };
        if !all.iter().any(found) {
            bail!(
                "no operation matches {filter:?}: give a part of an operation's id, or a pattern with * for \
                 the whole id; `uffd-conform bench --list` shows them"
            );
        }
    }
    let is_wanted = |case: &Case| {
        let id = case.id();
        let operation = operations::find(&id);
        clocks.contains(&id) || operation.is_some_and(|o| wanted(o, &id))
    };
    Ok(operations::cases().into_iter().filter(is_wanted).collect())
}

fn list(cases: &[Case], format: Format) -> Result<Exit> {
    let mut out = out::stdout();
    for operation in cases.iter().filter_map(|case| operations::find(&case.id())) {
        if format == Format::Jsonl {
            json::listed(&mut out, operation)?;
            continue;
        }
        writeln!(out, "{}\n    {}", out::bold(operation.id()), operation.about)?;
        if let Some(limit) = operation.limit.as_deref().and_then(operations::find) {
            let line = format!("limit: {}: {}", limit.id(), limit.about);
            writeln!(out, "    {}", out::dim(line))?;
        }
    }
    Ok(Exit::Expected)
}

/// How cases are run that measure: once each.
const HOW: CaseArgs = CaseArgs { full: false, repeat: 1, deadline: 120 };

fn here(args: &BenchArgs, cases: &[Case], store: &Store) -> Result<Exit> {
    let for_vms = args.times || args.jobs.is_some() || args.kernel.lock.is_some();
    if for_vms || args.line.named().is_some() {
        bail!(
            "--times, --jobs, --lock and --append are for kernels in VMs, and none is named: add `-k 6.12`, \
             `--newest` or `--kernel-image PATH`, or leave them out to measure this kernel"
        );
    }
    let rounds = args.rounds.unwrap_or(ROUNDS.0);
    operations::set_rounds(rounds);
    let load = load();
    let measure = || -> Result<(Measured, Record)> {
        let bar = out::progress(cases.len());
        // One after the other: they take the whole machine.
        let record = Here::find()?.ask(cases, HOW.limits(), Some(1), &mut |_, _| bar.inc(1))?;
        bar.finish_and_clear();
        let measured = convert::measured(&record, Unit::Nanoseconds, convert::cpu(), rounds)?;
        for remark in show::noise(&measured, load, cpus()) {
            out::note(&remark);
        }
        Ok((measured, record))
    };
    if args.self_check {
        // Whom this kernel can't answer at all it can't answer later either.
        Here::find()?;
        return self_check::in_time(args.format, || self_check::with_turn(&measure()?));
    }
    let runs = (0..args.repeat).map(|_| measure()).collect::<Result<Vec<_>>>()?;
    if let Some((measured, _)) = runs.first().filter(|_| args.record) {
        out::note(&format!("{} is kept", keep(measured, store)?.display()));
    }
    finish(args, &runs)
}

fn load() -> f64 {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().and_then(|word| word.parse().ok()).unwrap_or(0.0)
}

fn cpus() -> f64 {
    let n = choose::cpus();
    f64::from(u32::try_from(n).unwrap_or(u32::MAX))
}

fn in_vms(args: &BenchArgs, cases: &[Case], store: &Store) -> Result<Exit> {
    let (images, fetched) = args.kernel.all(&|text| out::note(text));
    // Those that could be had are measured all the same.
    if images.is_empty() || interrupt::caught().is_some() {
        return fetched.map(|()| Exit::Expected);
    }
    let repeat = usize::try_from(args.repeat).unwrap_or(1);
    let tasks = images.iter().flat_map(|image| std::iter::repeat_n(image, repeat)).enumerate();
    let jobs = args.jobs.map_or_else(choose::cpus, usize::from);
    let bar = out::progress(cases.len() * images.len() * repeat);
    let (tasks, done) = (Mutex::new(tasks), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                loop {
                    let task = tasks.lock().unwrap_or_else(PoisonError::into_inner).next();
                    let Some((number, image)) = task else { return };
                    let run = in_vm(args, image, cases, &|| bar.inc(1));
                    // At once: whatever becomes of the others, this one is not measured again.
                    let run = run.and_then(|run| {
                        if args.record && number % repeat == 0 {
                            out::note(&format!("{} is kept", keep(&run.0, store)?.display()));
                        }
                        Ok(run)
                    });
                    let run = run.with_context(|| format!("measuring {}", image.identity.release));
                    done.lock().unwrap_or_else(PoisonError::into_inner).push((number, run));
                }
            });
        }
    });
    bar.finish_and_clear();
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_by_key(|(number, _)| *number);
    let mut exit = Exit::Expected;
    let mut runs = Vec::new();
    for (_, run) in done {
        match run {
            Ok(run) => runs.push(run),
            Err(error) => {
                out::error(&error);
                exit = Exit::Unusable;
            }
        }
    }
    for runs in runs.chunk_by(|a, b| a.0.kernel.release == b.0.kernel.release) {
        let this = finish(args, runs)?;
        if exit == Exit::Expected {
            exit = this;
        }
    }
    fetched?;
    Ok(exit)
}

/// What there is to do where times can't be measured: the accelerator is no option of this command.
fn without_kvm(error: anyhow::Error) -> anyhow::Error {
    match error.chain().find_map(|cause| cause.downcast_ref()) {
        Some(VmError::Kvm(why)) => anyhow!(
            "--times measures under KVM, but {why}: leave --times out, which counts instructions in an emulator"
        ),
        _ => error,
    }
}

fn in_vm(
    args: &BenchArgs,
    image: &Image,
    cases: &[Case],
    tell: &(dyn Fn() + Sync),
) -> Result<(Measured, Record)> {
    let rounds = args.rounds.unwrap_or(if args.times { ROUNDS.0 } else { ROUNDS.1 });
    let mut options = Options {
        accelerator: if args.times { Choice::Kvm } else { Choice::Tcg },
        counts_instructions: !args.times,
        // Where things lie in memory is no property of the kernel, and costs differ by it.
        append: vec!["nokaslr".into(), "norandmaps".into()],
        ..Options::default()
    };
    args.line.add_to(&mut options);
    options.settings.insert(vm::ROUNDS.into(), rounds.to_string());
    let mut on_event = |event: crate::vm::Event<'_>| {
        if matches!(event, crate::vm::Event::Outcome { .. }) {
            tell();
        }
    };
    let session = vm::ask(image, cases, &Outcomes::new(), &HOW, options, &mut on_event)
        .map_err(without_kvm)?;
    for remark in vm::remarks(&session.report) {
        out::note(&remark);
    }
    let (unit, cpu) = if args.times {
        (Unit::Nanoseconds, convert::cpu())
    } else {
        (Unit::Instructions, String::new())
    };
    let measured = convert::measured(&session.record, unit, cpu, rounds)?;
    Ok((measured, session.record))
}

/// Shows and judges the runs on one kernel.
fn finish(args: &BenchArgs, runs: &[(Measured, Record)]) -> Result<Exit> {
    let Some(run @ (measured, _)) = runs.first() else { return Ok(Exit::Nothing) };
    if args.self_check {
        return self_check::once(run, args.format);
    }
    let mut out = out::stdout();
    match args.format {
        Format::Human => show::table(&mut out, measured)?,
        Format::Jsonl => json::costs(&mut out, measured)?,
    }
    let mut exit = Exit::Expected;
    for Operation { id, missing, .. } in &measured.operations {
        let is_trouble = |why: &str| {
            ["broken", "hang", "killed", "panic", "not-run", "flaky"]
                .iter()
                .any(|word| why.starts_with(word))
        };
        if let Some(why) = missing.as_deref().filter(|why| is_trouble(why)) {
            if args.format == Format::Jsonl {
                out::note(&format!("{}: {id}: {why}", measured.kernel.release));
            }
            exit = Exit::Different;
        }
    }
    if args.repeat > 1 {
        let all: Vec<Measured> = runs.iter().map(|(measured, _)| measured.clone()).collect();
        if !agree(&mut out, &all, args.format)? {
            exit = Exit::Different;
        }
    }
    Ok(exit)
}

/// Stores costs, if they can be read again; where.
fn keep(measured: &Measured, store: &Store) -> Result<PathBuf> {
    convert::is_readable(measured).context("reading again what is to be stored")?;
    Ok(bench::save(store, measured)?)
}

/// How far the runs are apart; false if that is too far. Times are shown and not judged.
fn agree(out: &mut dyn Write, runs: &[Measured], format: Format) -> Result<bool> {
    let all = check::apart(runs);
    let judged = runs.iter().all(|run| run.unit == Unit::Instructions);
    let bad = all.iter().filter(|apart| apart.by > apart.allowed).count();
    if format == Format::Jsonl {
        json::apart(out, runs, &all)?;
        return Ok(!judged || bad == 0);
    }
    writeln!(
        out,
        "{} runs, {} operations; how far their best rounds of each are apart, or of several threads the middle ones:",
        runs.len(),
        all.len()
    )?;
    for (n, apart) in all.iter().enumerate() {
        let is_bad = apart.by > apart.allowed;
        if n < 5 || (is_bad && judged) {
            let check::Apart { id, least, most, by, allowed } = apart;
            writeln!(out, "  {by:.2} % ({allowed} % allowed)  {id}: {least} to {most}")?;
        }
    }
    Ok(!judged || bad == 0)
}
