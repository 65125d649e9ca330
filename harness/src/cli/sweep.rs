//! `sweep`: many kernels in VMs, a record each, and the matrix over all of them.

mod recorded;

use super::report::Tally;
use super::{CaseArgs, Exit, choose, matrix, out, vm, workers};
use crate::arch::Arch;
use crate::filter;
use crate::interrupt::{self, Interrupted};
use crate::journal::{Asked, Journal, JournalError};
use crate::judge::judge;
use crate::kernels::Image;
use crate::store::{self, Store};
use crate::vm::{Event, Options, VmError};
use anyhow::{Result, anyhow, bail};
use clap::Args;
use indicatif::{MultiProgress, ProgressBar};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use uffd_results::{Cases, End, Record, Verdict};
use uffd_suites::probe::Case;

/// Options of `sweep`.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit codes: 0 every chosen kernel is recorded · 1 recorded, but cases are broken, \
                        flaky or were not run · 2 a kernel could not be recorded. That a kernel differs \
                        from the expectation is what records are for, and no failure. Told to stop \
                        (SIGINT, SIGTERM, SIGHUP), it ends its VMs and dies of the signal; --resume \
                        goes on."
)]
pub(crate) struct SweepArgs {
    #[command(flatten)]
    kernel: choose::KernelArgs,
    #[command(flatten)]
    cases: CaseArgs,
    #[command(flatten)]
    vm: choose::VmArgs,
    /// VMs side by side (default: one a CPU). A kernel has one, or as many as there are for each where fewer
    /// kernels than that are left.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    jobs: Option<u16>,
    /// Record kernels again whose record is up to date, and replace records of other builds and files that can't be
    /// read.
    #[arg(long)]
    force: bool,
    /// Go on with a sweep that was interrupted or killed: answers that it had are not asked again, nor are
    /// kernels that it had recorded, if both were with --force.
    #[arg(long)]
    resume: bool,
}

/// What became of one kernel.
enum Done {
    Recorded(Box<vm::Session>),
    UpToDate(String),
    /// With so many answers kept.
    Stopped(usize),
    Failed(anyhow::Error),
}

/// What became of all.
#[derive(Default)]
struct Sum {
    recorded: usize,
    /// Answers of kernels that are not recorded yet.
    answers: usize,
    exit: Option<Exit>,
}

impl Sum {
    /// Takes and tells what became of a kernel.
    fn take(&mut self, done: Done, cases: &[Case], store: &Store) -> Result<()> {
        match done {
            Done::UpToDate(release) => {
                println(&format!("{release}: the record is up to date (--force asks again)"))
            }
            Done::Stopped(answers) => {
                self.answers += answers;
                Ok(())
            }
            Done::Failed(error) => {
                out::error(&error);
                self.exit = Some(Exit::Unusable);
                Ok(())
            }
            Done::Recorded(session) => {
                self.recorded += 1;
                if has_troubles(&session.record, cases) {
                    self.exit.get_or_insert(Exit::Different);
                }
                summary(&session, cases, store)
            }
        }
    }
}

pub(crate) fn sweep(args: &SweepArgs, store: &Store) -> Result<Exit> {
    let cases = filter::choose(&[], args.cases.full)?;
    // What would stop everything is said first, what the user typed before what the machine lacks.
    let kernels = args.kernel.count()?;
    if kernels == 0 {
        out::note(choose::NO_KERNEL);
        store.make()?;
        return Ok(Exit::Expected);
    }
    store.check_writable()?;
    store.tidy();
    store.check_line(&args.vm.line())?;
    let _guard = interrupt::guard();
    let own = args.kernel.own.image(&|text| out::note(text))?;
    check_qemu(own.as_ref().map_or(Arch::X86, |image| image.arch))?;
    let journals = Mutex::new(Vec::new());
    let jobs = args.jobs.map_or_else(choose::cpus, usize::from);
    let taken = AtomicUsize::new(0);
    let bars = MultiProgress::new();
    let fetch = |hand_out: &mut dyn FnMut(Image) -> Result<()>| match own {
        Some(image) => hand_out(image),
        None => args.kernel.each(&|text| bars.suspend(|| out::note(text)), hand_out),
    };
    // To the last one, also when told to stop: the fetcher waits for each to be taken.
    let record = |image: Image| {
        let bar = bars.add(out::progress(cases.len()));
        let say = |text: &str| bars.suspend(|| out::note(text));
        let machines = machines(taken.fetch_add(1, Ordering::Relaxed), kernels, jobs);
        let (image, cases) = (&image, &cases);
        let asking = Asking { args, store, image, cases, machines, bar: &bar, say: &say };
        let done = whatever_happens(&image.identity.release, || asking.record(&journals));
        bar.finish_and_clear();
        done
    };
    let (mut sum, mut shown) = (Sum::default(), Ok(()));
    let fetched = workers::share(jobs, fetch, record, |done| {
        let this = bars.suspend(|| sum.take(done, &cases, store));
        shown = std::mem::replace(&mut shown, Ok(())).and(this);
    });
    shown?;
    if let Err(Interrupted(signal)) = interrupt::check() {
        let Sum { recorded, answers, .. } = sum;
        bail!(
            "interrupted by {signal}: {recorded} kernels are recorded, and of those that were being \
             asked {answers} answers are kept; the same command with --resume goes on from there"
        );
    }
    let exit = end(fetched, &sum, store)?;
    if exit != Exit::Unusable {
        // Nothing is left to go on with.
        let journals = journals.into_inner().unwrap_or_else(PoisonError::into_inner);
        for path in &journals {
            Journal::discard(path);
        }
    }
    Ok(exit)
}

/// The end of a sweep: whatever became of fetching further kernels, the matrix says what this one has recorded.
fn end(fetched: Result<()>, sum: &Sum, store: &Store) -> Result<Exit> {
    if let Err(error) = fetched {
        if sum.recorded > 0
            && let Err(matrix) = matrix::write(store)
        {
            out::error(&matrix);
        }
        return Err(error);
    }
    // Nothing is new, and what went wrong was said.
    if sum.recorded > 0 || sum.exit.is_none() {
        matrix::write(store)?;
    }
    Ok(sum.exit.unwrap_or(Exit::Expected))
}

/// Fails unless there is the QEMU for kernels of an architecture.
fn check_qemu(arch: Arch) -> Result<()> {
    let (name, package) = arch.qemu();
    match crate::vm::qemu_version(Some(Path::new(name))) {
        Err(VmError::NoQemu(name, _)) => Err(VmError::NoQemu(name, package).into()),
        version => Ok(version.map(drop)?),
    }
}

/// What becomes of a kernel, also where asking it fails or panics: that costs this kernel alone.
fn whatever_happens(release: &str, record: impl FnOnce() -> Result<Done>) -> Done {
    let failed =
        |error: anyhow::Error| Done::Failed(error.context(format!("{release} is not recorded")));
    match catch_unwind(AssertUnwindSafe(record)) {
        Ok(done) => done.unwrap_or_else(failed),
        Err(_) => failed(anyhow!("this program panicked: report what it said above")),
    }
}

/// How many VMs share the cases of a kernel, of which `taken` were taken before it: one, or more where the last ones
/// are fewer than there are VMs.
fn machines(taken: usize, kernels: usize, jobs: usize) -> usize {
    let last = kernels % jobs;
    if last > 0 && taken + last >= kernels { jobs / last } else { 1 }
}

/// One kernel that is to be recorded.
struct Asking<'a> {
    args: &'a SweepArgs,
    store: &'a Store,
    image: &'a Image,
    cases: &'a [Case],
    /// VMs that share the cases.
    machines: usize,
    bar: &'a ProgressBar,
    say: &'a (dyn Fn(&str) + Sync),
}

impl Asking<'_> {
    /// Asks and records it. The journals of what a forced sweep has recorded are noted: they are kept until
    /// all is done.
    fn record(&self, journals: &Mutex<Vec<PathBuf>>) -> Result<Done> {
        let Self { args, store, image, .. } = *self;
        if interrupt::caught().is_some() {
            return Ok(Done::Stopped(0));
        }
        let identity = &image.identity;
        self.bar.set_prefix(identity.upstream.to_string());
        let blank = identity.kernel(&identity.release, "", image.arch.word());
        let path = store.path(&blank)?;
        // Before it is asked for hours.
        store::check_file(&path)?;
        let known = recorded::find(&path, image, args.kernel.is_own(), args.force)?;
        let is_current =
            known.as_ref().is_some_and(|old| recorded::is_current(old, image, self.cases));
        let place = path.with_extension("journal");
        if is_current && !args.force {
            Journal::discard(&place);
            return Ok(Done::UpToDate(identity.release.clone()));
        }
        let mut journal = self.journal(&place)?;
        if is_current && journal.as_ref().is_some_and(Journal::is_recorded) {
            keep(journals, place);
            return Ok(Done::UpToDate(identity.release.clone()));
        }
        let asked =
            self.ask(&harmless_first(self.cases, known.as_ref().map(|r| &r.cases)), &mut journal);
        if let Some(why) = journal.as_ref().and_then(Journal::trouble) {
            (self.say)(&format!("{}: {why}: --resume will ask some cases again", place.display()));
        }
        let mut session = match asked {
            Err(_) if interrupt::caught().is_some() => {
                return Ok(Done::Stopped(journal.map_or(0, |journal| journal.outcomes().len())));
            }
            asked => asked?,
        };
        if let Some(old) = &known
            && let Some(lost) = recorded::keep_others(&mut session.record, old, args.force)?
        {
            (self.say)(&lost);
        }
        store.save(&session.record)?;
        // Of cases that were not run the journal holds nothing: --resume asks those alone.
        if let Some(journal) = journal.filter(|_| session.report.gave_up.is_none()) {
            journal.finish(args.force);
            if args.force {
                keep(journals, place);
            }
        }
        Ok(Done::Recorded(Box::new(session)))
    }

    /// The kernel's journal; a sweep can do without.
    fn journal(&self, place: &Path) -> Result<Option<Journal>> {
        let CaseArgs { deadline, repeat, .. } = self.args.cases;
        let image_sha256 = self.image.identity.image_sha256.clone();
        let asked = Asked { suite: super::report::suite(), image_sha256, deadline, repeat };
        match Journal::open(place, asked, self.args.resume) {
            Ok(journal) => Ok(Some(journal)),
            Err(error @ JournalError::InUse(_)) => Err(error.into()),
            Err(error) => {
                (self.say)(&format!("{error}: if this sweep is interrupted, its answers are lost"));
                Ok(None)
            }
        }
    }

    /// Asks what the journal does not hold.
    fn ask(&self, cases: &[Case], journal: &mut Option<Journal>) -> Result<vm::Session> {
        let Self { args, image, bar, .. } = *self;
        let release = &image.identity.release;
        loop {
            let given = journal.as_ref().map(|j| j.outcomes().clone()).unwrap_or_default();
            let ids = vm::to_ask(cases, &given);
            bar.set_position((cases.len() - ids.len()) as u64);
            let (mut fit, mut is_up) = (true, false);
            let mut on_event = |event: Event<'_>| match event {
                Event::Boot { number, .. } if number > 1 => {
                    bar.set_message(format!("(VM {number})"));
                }
                // At once: one that never comes up takes minutes.
                Event::Lost(lost) if !is_up => {
                    (self.say)(&format!("{release}: a VM did not come up: {}", lost.why));
                }
                Event::Up { hello, .. } => {
                    is_up = true;
                    fit &= journal.as_mut().is_none_or(|j| j.begin(&hello.environment));
                }
                Event::Outcome { index, outcome } => {
                    if let (Some(journal), Some(id)) = (journal.as_mut(), ids.get(index)) {
                        journal.take(id, outcome);
                    }
                    bar.inc(1);
                }
                _ => {}
            };
            let options = Options { machines: self.machines, ..args.vm.options() };
            let session = vm::ask(image, cases, &given, &args.cases, options, &mut on_event)?;
            if fit {
                return Ok(session);
            }
            // What was given comes from another environment, and is asked here now.
        }
    }
}

fn keep(journals: &Mutex<Vec<PathBuf>>, path: PathBuf) {
    journals.lock().unwrap_or_else(PoisonError::into_inner).push(path);
}

/// The cases, with those behind that brought this kernel down before: no VM is booted for others after them.
fn harmless_first(cases: &[Case], known: Option<&Cases>) -> Vec<Case> {
    let harms = |case: &Case| {
        let outcome = known.and_then(|known| known.get(&case.id()));
        outcome.is_some_and(|outcome| matches!(outcome.end, End::Panic | End::Hang))
    };
    let mut cases = cases.to_vec();
    cases.sort_by_cached_key(harms);
    cases
}

/// Whether cases that were asked say nothing of the kernel, through our fault or luck.
fn has_troubles(record: &Record, cases: &[Case]) -> bool {
    let is_bad = |end| matches!(end, End::Broken | End::Flaky | End::NotRun);
    vm::answers(cases, record).any(|(_, outcome)| is_bad(outcome.end))
}

/// Cases that are shown one by one; a machine that can't be had makes thousands.
const TROUBLES: usize = 20;

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
    for trouble in troubles.iter().take(TROUBLES) {
        println(trouble)?;
    }
    if troubles.len() > TROUBLES {
        println(&format!("  and {} more", troubles.len() - TROUBLES))?;
    }
    println(&format!("  {}", out::dim(path.display())))
}

fn println(text: &str) -> Result<()> {
    use std::io::Write;
    writeln!(out::stdout(), "{text}")?;
    Ok(())
}

#[cfg(test)]
#[path = "sweep_tests.rs"]
mod tests;
