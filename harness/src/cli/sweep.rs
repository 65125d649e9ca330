//! `sweep`: many kernels in VMs, a record each, and the matrix over all of them.

use super::report::Tally;
use super::{CaseArgs, Exit, matrix, out, vm};
use crate::filter;
use crate::judge::judge;
use crate::kernels::Image;
use crate::store::{self, Store};
use crate::vm::Event;
use anyhow::{Context, Result};
use clap::Args;
use indicatif::{MultiProgress, ProgressBar};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, sync_channel};
use uffd_results::{End, Record, Verdict};
use uffd_suites::probe::Case;

/// Options of `sweep`.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit codes: 0 every chosen kernel is recorded · 1 recorded, but cases are broken, \
                        flaky or were not run · 2 a kernel could not be recorded. That a kernel differs \
                        from the expectation is what records are for, and no failure."
)]
pub(crate) struct SweepArgs {
    #[command(flatten)]
    kernel: vm::KernelArgs,
    #[command(flatten)]
    cases: CaseArgs,
    #[command(flatten)]
    vm: vm::VmArgs,
    /// VMs side by side (default: one a CPU).
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    jobs: Option<u16>,
    /// Record kernels again whose record is up to date.
    #[arg(long)]
    force: bool,
}

/// What became of one kernel.
enum Done {
    Recorded(Box<vm::Session>),
    UpToDate(String),
    Failed(anyhow::Error),
}

pub(crate) fn sweep(args: &SweepArgs, store: &Store) -> Result<Exit> {
    let cases = filter::choose(&[], args.cases.full)?;
    // What would stop everything is said first, what the user typed before what the machine lacks.
    if args.kernel.own.kernel_image.is_none() && args.kernel.slots()?.is_empty() {
        out::note("this part has no kernel: there are fewer kernels than parts");
        return Ok(Exit::Expected);
    }
    store.check_writable()?;
    store.check_line(&args.vm.line())?;
    crate::vm::qemu_version(None)?;
    let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let jobs = args.jobs.map_or(cpus, usize::from);
    let bars = MultiProgress::new();
    let (send_image, images) = sync_channel::<Image>(jobs);
    let (send_done, done) = sync_channel::<Done>(jobs);
    let images = Mutex::new(images);
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            let send_done = send_done.clone();
            let (images, cases, bars) = (&images, &cases, &bars);
            scope.spawn(move || {
                while let Some(image) = next(images) {
                    let bar = bars.add(out::progress(cases.len()));
                    let outcome = record(args, store, &image, cases, &bar);
                    bar.finish_and_clear();
                    if send_done.send(outcome).is_err() {
                        break;
                    }
                }
            });
        }
        drop(send_done);
        let notes = bars.clone();
        let fetching = scope.spawn(move || {
            let say = |text: &str| notes.suspend(|| out::note(text));
            args.kernel.each(&say, &mut |image| {
                send_image.send(image).context("no VM is left to take a kernel")
            })
        });
        let exit = collect(&done, &cases, store, &bars)?;
        let fetched =
            fetching.join().unwrap_or_else(|_| Err(anyhow::anyhow!("fetching kernels panicked")));
        fetched?;
        matrix::write(store)?;
        Ok(exit)
    })
}

fn next(images: &Mutex<Receiver<Image>>) -> Option<Image> {
    images.lock().ok()?.recv().ok()
}

fn record(
    args: &SweepArgs,
    store: &Store,
    image: &Image,
    cases: &[Case],
    bar: &ProgressBar,
) -> Done {
    let identity = &image.identity;
    bar.set_prefix(identity.upstream.to_string());
    if !args.force && up_to_date(store, image, cases) {
        return Done::UpToDate(identity.release.clone());
    }
    let mut on_event = |event: Event<'_>| match event {
        Event::Boot { number, .. } if number > 1 => bar.set_message(format!("(VM {number})")),
        Event::Outcome { .. } => bar.inc(1),
        _ => {}
    };
    let asked = vm::ask(image, cases, &args.cases, &args.vm, false, &mut on_event);
    match asked.and_then(|session| {
        store.save(&session.record)?;
        Ok(session)
    }) {
        Ok(session) => Done::Recorded(Box::new(session)),
        Err(e) => Done::Failed(e.context(format!("{} is not recorded", identity.release))),
    }
}

/// Whether the record of this very image answers just these cases as this program asks them.
fn up_to_date(store: &Store, image: &Image, cases: &[Case]) -> bool {
    let release = &image.identity.release;
    let blank = image.identity.kernel(release, "", image.arch.word());
    let path = store.path(&blank);
    let Ok(record) = path.and_then(|path| store::read(&path)) else { return false };
    record.suite == super::report::suite()
        && record.kernel.image_sha256.as_ref() == Some(&image.identity.image_sha256)
        && record.cases.len() == cases.len()
        && cases.iter().all(|case| record.cases.get(&case.id()).is_some())
}

fn collect(
    done: &Receiver<Done>,
    cases: &[Case],
    store: &Store,
    bars: &MultiProgress,
) -> Result<Exit> {
    let mut exit = Exit::Expected;
    let mut shown = Ok(());
    // To the end in any case: VMs and the fetcher wait for each result to be taken.
    for done in done {
        let this = bars.suspend(|| -> Result<()> {
            match done {
                Done::UpToDate(release) => {
                    println(&format!("{release}: the record is up to date (--force asks again)"))
                }
                Done::Failed(error) => {
                    out::error(&error);
                    exit = Exit::Unusable;
                    Ok(())
                }
                Done::Recorded(session) => {
                    if ours(&session.record) > 0 && exit == Exit::Expected {
                        exit = Exit::Different;
                    }
                    summary(&session, cases, store)
                }
            }
        });
        shown = shown.and(this);
    }
    shown.map(|()| exit)
}

/// Cases that say nothing of the kernel, through our fault or luck.
fn ours(record: &Record) -> usize {
    let bad = |end| matches!(end, End::Broken | End::Flaky | End::NotRun);
    record.cases.iter().filter(|(_, outcome)| bad(outcome.end)).count()
}

fn summary(session: &vm::Session, cases: &[Case], store: &Store) -> Result<()> {
    let vm::Session { record, report } = session;
    let version = record.upstream()?;
    let mut tally = Tally::default();
    let mut troubles = Vec::new();
    for (case, outcome) in vm::answers(cases, record) {
        let verdict = judge(case, outcome, version).verdict;
        tally.add(verdict, outcome);
        if matches!(verdict, Verdict::Ended(_)) && verdict.is_trouble() {
            troubles.push(format!("  {} {}: {outcome}", out::verdict(verdict), case.id()));
        }
    }
    for remark in vm::remarks(report) {
        out::note(&remark);
    }
    let path = store.path(&record.kernel)?;
    println(&format!(
        "{} {} in {:.1} s (boot {:.1} s, {}): {}",
        out::bold(&record.kernel.release),
        out::dim(version),
        report.took.as_secs_f64(),
        report.booted_in.as_secs_f64(),
        record.environment.how(),
        tally.words(),
    ))?;
    for trouble in troubles {
        println(&trouble)?;
    }
    println(&format!("  {}", out::dim(path.display())))
}

fn println(text: &str) -> Result<()> {
    use std::io::Write;
    writeln!(out::stdout(), "{text}")?;
    Ok(())
}
