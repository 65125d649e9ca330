//! `sweep`: many kernels in VMs, a record each, and the matrix over all of them.

use super::report::Tally;
use super::{CaseArgs, Exit, choose, matrix, out, vm};
use crate::filter;
use crate::interrupt::{self, Interrupted};
use crate::journal::{Asked, Journal, JournalError};
use crate::judge::judge;
use crate::kernels::Image;
use crate::store::{self, Store};
use crate::vm::{Event, Options};
use anyhow::{Context, Result, bail};
use clap::Args;
use indicatif::{MultiProgress, ProgressBar};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
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
    /// Record kernels again whose record is up to date.
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

pub(crate) fn sweep(args: &SweepArgs, store: &Store) -> Result<Exit> {
    let cases = filter::choose(&[], args.cases.full)?;
    // What would stop everything is said first, what the user typed before what the machine lacks.
    let kernels = args.kernel.count()?;
    if kernels == 0 {
        out::note("this part has no kernel: there are fewer kernels than parts");
        return Ok(Exit::Expected);
    }
    store.check_writable()?;
    store.tidy();
    store.check_line(&args.vm.line())?;
    crate::vm::qemu_version(None)?;
    let _guard = interrupt::guard();
    let journals = Mutex::new(Vec::new());
    let jobs = args.jobs.map_or_else(choose::cpus, usize::from);
    let taken = AtomicUsize::new(0);
    let bars = MultiProgress::new();
    let (send_image, images) = sync_channel::<Image>(jobs);
    let (send_done, done) = sync_channel::<Done>(jobs);
    let images = Mutex::new(images);
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            let send_done = send_done.clone();
            let (images, cases, bars, journals) = (&images, &cases, &bars, &journals);
            let taken = &taken;
            scope.spawn(move || {
                // To the last one, also when told to stop: the fetcher waits for each to be taken.
                while let Some(image) = next(images) {
                    let bar = bars.add(out::progress(cases.len()));
                    let say = |text: &str| bars.suspend(|| out::note(text));
                    let machines = machines(taken.fetch_add(1, Ordering::Relaxed), kernels, jobs);
                    let image = &image;
                    let asking =
                        Asking { args, store, image, cases, machines, bar: &bar, say: &say };
                    let done = asking.record(journals).unwrap_or_else(|error| {
                        let release = &image.identity.release;
                        Done::Failed(error.context(format!("{release} is not recorded")))
                    });
                    bar.finish_and_clear();
                    if send_done.send(done).is_err() {
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
        let sum = collect(&done, &cases, store, &bars);
        let fetched =
            fetching.join().unwrap_or_else(|_| Err(anyhow::anyhow!("fetching kernels panicked")));
        let sum = sum?;
        if let Err(Interrupted(signal)) = interrupt::check() {
            let Sum { recorded, answers, .. } = sum;
            bail!(
                "interrupted by {signal}: {recorded} kernels are recorded, and of those that were being \
                 asked {answers} answers are kept; the same command with --resume goes on from there"
            );
        }
        fetched?;
        let exit = sum.exit.unwrap_or(Exit::Expected);
        if exit != Exit::Unusable {
            // Nothing is left to go on with.
            journals
                .lock()
                .iter()
                .flat_map(|all| all.iter())
                .for_each(|path| Journal::discard(path));
        }
        matrix::write(store)?;
        Ok(exit)
    })
}

/// How many VMs share the cases of a kernel, of which `taken` were taken before it: one, or more where the last ones
/// are fewer than there are VMs.
fn machines(taken: usize, kernels: usize, jobs: usize) -> usize {
    let last = kernels % jobs;
    if last > 0 && taken + last >= kernels { jobs / last } else { 1 }
}

fn next(images: &Mutex<Receiver<Image>>) -> Option<Image> {
    images.lock().ok()?.recv().ok()
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
    say: &'a dyn Fn(&str),
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
        let known = store::read(&path).ok();
        let is_current = known.as_ref().is_some_and(|record| up_to_date(record, image, self.cases));
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
        let session = match asked {
            Err(_) if interrupt::caught().is_some() => {
                return Ok(Done::Stopped(journal.map_or(0, |journal| journal.outcomes().len())));
            }
            asked => asked?,
        };
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
        loop {
            let given = journal.as_ref().map(|j| j.outcomes().clone()).unwrap_or_default();
            let ids = vm::to_ask(cases, &given);
            bar.set_position((cases.len() - ids.len()) as u64);
            let mut fit = true;
            let mut on_event = |event: Event<'_>| match event {
                Event::Boot { number, .. } if number > 1 => {
                    bar.set_message(format!("(VM {number})"));
                }
                Event::Up { hello, .. } => {
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

/// Whether the record is of this very image and answers just these cases as this program asks them, none of them
/// lost by our fault.
fn up_to_date(record: &Record, image: &Image, cases: &[Case]) -> bool {
    record.suite == super::report::suite()
        && record.kernel.image_sha256.as_ref() == Some(&image.identity.image_sha256)
        && record.cases.len() == cases.len()
        && cases.iter().all(|case| {
            let outcome = record.cases.get(&case.id());
            outcome.is_some_and(|outcome| !matches!(outcome.end, End::Broken | End::NotRun))
        })
}

fn collect(
    done: &Receiver<Done>,
    cases: &[Case],
    store: &Store,
    bars: &MultiProgress,
) -> Result<Sum> {
    let mut sum = Sum::default();
    let mut shown = Ok(());
    // To the end in any case: VMs and the fetcher wait for each result to be taken.
    for done in done {
        let this = bars.suspend(|| -> Result<()> {
            match done {
                Done::UpToDate(release) => {
                    println(&format!("{release}: the record is up to date (--force asks again)"))
                }
                Done::Stopped(answers) => {
                    sum.answers += answers;
                    Ok(())
                }
                Done::Failed(error) => {
                    out::error(&error);
                    sum.exit = Some(Exit::Unusable);
                    Ok(())
                }
                Done::Recorded(session) => {
                    sum.recorded += 1;
                    if ours(&session.record) > 0 {
                        sum.exit.get_or_insert(Exit::Different);
                    }
                    summary(&session, cases, store)
                }
            }
        });
        shown = shown.and(this);
    }
    shown.map(|()| sum)
}

/// Cases that say nothing of the kernel, through our fault or luck.
fn ours(record: &Record) -> usize {
    let bad = |end| matches!(end, End::Broken | End::Flaky | End::NotRun);
    record.cases.iter().filter(|(_, outcome)| bad(outcome.end)).count()
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
mod tests {
    use super::{harmless_first, machines};
    use rstest::rstest;
    use uffd_results::{Cases, End, Facts, Outcome};
    use uffd_suites::probe::Case;

    #[test]
    fn what_brought_the_kernel_down_is_asked_last() {
        let cases = &uffd_suites::registry()[..5];
        let ended = |n: usize, end| (cases[n].id(), Outcome::ended(end, "", Facts::new()));
        let known = [ended(0, End::Done), ended(1, End::Panic), ended(3, End::Hang)];
        let asked = harmless_first(cases, Some(&Cases::new(known.into())));
        let order = [0, 2, 4, 1, 3].map(|n: usize| cases[n].id());
        assert_eq!(asked.iter().map(Case::id).collect::<Vec<_>>(), order);
    }

    /// VMs of each kernel in turn.
    #[rstest]
    #[case(1, 1, &[1])]
    #[case(1, 2, &[2])]
    #[case(2, 2, &[1, 1])]
    #[case(3, 2, &[1, 1, 2])]
    #[case(3, 8, &[2, 2, 2])]
    #[case(5, 4, &[1, 1, 1, 1, 4])]
    #[case(3, 1, &[1, 1, 1])]
    fn no_vm_is_idle_at_the_end(
        #[case] kernels: usize,
        #[case] jobs: usize,
        #[case] each: &[usize],
    ) {
        let shared: Vec<usize> = (0..kernels).map(|n| machines(n, kernels, jobs)).collect();
        assert_eq!(shared, each);
    }
}
