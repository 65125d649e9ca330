//! What `run` and `sweep` share: choosing kernels and asking one in a VM.

use super::{CaseArgs, report};
use crate::coverage;
use crate::environment::{check_pages, environment};
use crate::interrupt;
use crate::journal::Outcomes;
use crate::kernels::{self, Cache, Image, Lock, Slot, UserKernel};
use crate::runner::{Limits, Runner};
use crate::vm::guest::{Agent, Files};
use crate::vm::{self, Event, Options, Plan, SessionReport};
use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use std::cell::OnceCell;
use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;
use uffd_results::{Cases, End, Facts, Outcome, Record, SCHEMA};
use uffd_suites::explore::Sequence;
use uffd_suites::probe::Case;

/// The plan's setting by which a guest hands out the kernel's counters.
pub(super) const COVERAGE: &str = "coverage";

/// The plan's setting that says in how many rounds operations are measured.
pub(super) const ROUNDS: &str = "rounds";

/// The plan's setting with the words that the user has added to the kernel's command line.
const APPEND: &str = "append";

/// The options of [`OwnArgs`]. All are named where one conflicts: of an option that conflicts with what is given
/// nobody is told that another one requires it.
const OWN: [&str; 4] = ["kernel_image", "modules", "config", "program"];

/// Which kernels to ask.
#[derive(Clone, Debug, Args)]
pub(crate) struct KernelArgs {
    /// A series (6.12: its oldest and newest release), a version (6.12.43) or a pattern (7.*).
    #[arg(short, long = "kernel", value_name = "KERNEL", conflicts_with_all = OWN)]
    pub(crate) kernel: Vec<String>,
    /// Only the newest release of each series.
    #[arg(long)]
    pub(crate) newest: bool,
    #[command(flatten)]
    pub(crate) own: OwnArgs,
    /// The lock file that says which kernels there are (default: the one built in).
    #[arg(long, value_name = "FILE")]
    pub(crate) lock: Option<PathBuf>,
    /// Only the I-th of N parts of them, for several machines; `merge` puts their results together.
    #[arg(long, value_name = "I/N", conflicts_with_all = OWN)]
    pub(crate) shard: Option<Shard>,
}

/// A kernel of the user's own.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct OwnArgs {
    /// A kernel of your own: bzImage or vmlinux, or a package (deb, rpm, tar) with it. It needs serial console,
    /// devtmpfs and userfaultfd built in.
    #[arg(long, value_name = "PATH")]
    pub(crate) kernel_image: Option<PathBuf>,
    /// Its modules: the folder lib/modules/RELEASE, or a package with it; may be given again.
    #[arg(long, value_name = "PATH", requires = "kernel_image")]
    modules: Vec<PathBuf>,
    /// Its configuration, for the record, where no package brings it.
    #[arg(long, value_name = "FILE", requires = "kernel_image")]
    config: Option<PathBuf>,
    /// This program for a kernel of another architecture, as scripts/arm64-program builds it.
    #[arg(long, value_name = "FILE", requires = "kernel_image")]
    program: Option<PathBuf>,
}

impl OwnArgs {
    /// The kernel, if one is named.
    pub(super) fn image(&self, say: &dyn Fn(&str)) -> Result<Option<Image>> {
        let Some(image) = self.kernel_image.clone() else { return Ok(None) };
        let files = UserKernel {
            image,
            modules: self.modules.clone(),
            config: self.config.clone(),
            program: self.program.clone(),
        };
        Ok(Some(kernels::user_image(&files, say)?))
    }
}

/// One of so many parts of the chosen kernels, each of which a machine of its own can ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shard {
    /// Which part, from 1.
    part: usize,
    of: usize,
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let numbers = text.split_once('/').and_then(|(part, of)| {
            let number = |text: &str| text.parse::<u16>().ok().map(usize::from);
            Some((number(part)?, number(of)?))
        });
        match numbers {
            Some((part, of)) if (1..=of).contains(&part) => Ok(Self { part, of }),
            _ => Err("want I/N, such as 2/5: the second of five parts".to_owned()),
        }
    }
}

impl Shard {
    /// The part of a list: every N-th, so that old and new kernels are spread evenly.
    fn take<T>(self, all: Vec<T>) -> Vec<T> {
        all.into_iter().skip(self.part - 1).step_by(self.of).collect()
    }
}

/// How guests are run.
#[derive(Clone, Debug, Args)]
pub(crate) struct VmArgs {
    /// What runs the guests' code (default: tcg): KVM is used only after it has proved itself.
    #[arg(long, value_enum, value_name = "ACCEL")]
    accelerator: Option<Accel>,
    #[command(flatten)]
    line: LineArgs,
}

/// What the kernels are told at boot.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct LineArgs {
    /// More words for the kernel's command line, such as `lru_gen=n`; records say which.
    #[arg(long, value_name = "WORDS", value_parser = words, allow_hyphen_values = true)]
    append: Vec<String>,
}

/// Longest addition to a command line, in bytes: the kernel takes 2048 in all.
const LONGEST_LINE: usize = 512;

/// Words that a command line can hold and a record can show.
fn words(text: &str) -> Result<String, String> {
    let words: Vec<&str> = text.split(' ').filter(|word| !word.is_empty()).collect();
    if words.is_empty() || words.concat().bytes().any(|b| !b.is_ascii_graphic()) {
        return Err("want words of printable ASCII characters".into());
    }
    // Behind it all words are the first program's, which is ours.
    if words.contains(&"--") {
        return Err("-- ends what the kernel reads: leave it out".into());
    }
    let words = words.join(" ");
    if words.len() > LONGEST_LINE {
        return Err(format!("want at most {LONGEST_LINE} bytes"));
    }
    Ok(words)
}

impl LineArgs {
    /// Puts the words behind those of the program's own, and has the record say so.
    pub(super) fn add_to(&self, options: &mut Options) {
        if self.append.is_empty() {
            return;
        }
        options.append.extend(self.append.iter().cloned());
        options.settings.insert(APPEND.into(), self.text());
    }

    /// The words as a record has them: empty if there are none.
    pub(super) fn text(&self) -> String {
        self.append.join(" ")
    }

    /// The option that the user has given, if any.
    pub(super) fn named(&self) -> Option<&'static str> {
        (!self.append.is_empty()).then_some("--append")
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Accel {
    /// Emulation: the same everywhere, and what the committed records are made with.
    Tcg,
    /// KVM, or nothing.
    Kvm,
    /// KVM if it proves itself, else emulation.
    Auto,
}

impl VmArgs {
    const fn choice(&self) -> vm::accel::Choice {
        match self.accelerator {
            None | Some(Accel::Tcg) => vm::accel::Choice::Tcg,
            Some(Accel::Kvm) => vm::accel::Choice::Kvm,
            Some(Accel::Auto) => vm::accel::Choice::Auto,
        }
    }

    /// The option that the user has given, if any.
    pub(super) fn named(&self) -> Option<&'static str> {
        self.accelerator.map(|_| "--accelerator").or(self.line.named())
    }

    /// What VMs are like by these options.
    pub(super) fn options(&self) -> Options {
        let mut options = Options { accelerator: self.choice(), ..Options::default() };
        self.line.add_to(&mut options);
        options
    }

    /// The words that are added to the kernels' command line.
    pub(super) fn line(&self) -> String {
        self.line.text()
    }
}

impl KernelArgs {
    /// Whether a kernel other than the running one is named.
    pub(crate) fn names_any(&self) -> bool {
        self.own.kernel_image.is_some()
            || !self.kernel.is_empty()
            || self.newest
            || self.shard.is_some()
    }

    /// The chosen places of the lock file; none for a kernel of the user's own.
    pub(crate) fn slots(&self) -> Result<Vec<Slot>> {
        if self.own.kernel_image.is_some() {
            return Ok(Vec::new());
        }
        let lock = Lock::open(self.lock.as_deref())?;
        let slots = kernels::select(&lock, &self.kernel, self.newest)?;
        Ok(match self.shard {
            Some(shard) => shard.take(slots),
            None => slots,
        })
    }

    /// The kernels, fetched one after the other and handed out as they come.
    pub(crate) fn each(
        &self,
        say: &dyn Fn(&str),
        hand_out: &mut dyn FnMut(Image) -> Result<()>,
    ) -> Result<()> {
        if let Some(image) = self.own.image(say)? {
            return hand_out(image);
        }
        let slots = self.slots()?;
        // Before anything is downloaded for it.
        vm::qemu_version(None)?;
        let _guard = interrupt::guard();
        let cache = Cache::open()?;
        let mut taken: Vec<Image> = Vec::new();
        for slot in slots {
            let filled = cache.fill(&slot, &taken, say);
            interrupt::check()?;
            if let Some(image) = filled? {
                hand_out(image.clone())?;
                taken.push(image);
            }
        }
        if taken.is_empty() {
            bail!(
                "none of the chosen kernels can be had: see the notes above, and `uffd-conform kernels`"
            );
        }
        Ok(())
    }

    /// The kernels, all fetched.
    pub(crate) fn images(&self, say: &dyn Fn(&str)) -> Result<Vec<Image>> {
        let mut images = Vec::new();
        self.each(say, &mut |image| {
            images.push(image);
            Ok(())
        })?;
        Ok(images)
    }
}

/// A kernel that was asked.
#[derive(Debug)]
pub(crate) struct Session {
    /// Everything that it has shown.
    pub(crate) record: Record,
    /// How the VMs fared.
    pub(crate) report: SessionReport,
}

/// Asks a kernel in a VM, but for the outcomes that are given; with `coverage`, its counters come as files
/// among the events.
pub(crate) fn ask(
    image: &Image,
    cases: &[Case],
    given: &Outcomes,
    how: &CaseArgs,
    vm: &VmArgs,
    coverage: bool,
    on_event: &mut dyn FnMut(Event<'_>),
) -> Result<Session> {
    let mut options = vm.options();
    if coverage {
        options.settings.insert(COVERAGE.into(), "yes".into());
    }
    ask_by(image, cases, given, how, options, on_event)
}

/// The ids of the cases that are not among the given outcomes; events count within these.
pub(crate) fn to_ask(cases: &[Case], given: &Outcomes) -> Vec<String> {
    cases.iter().map(Case::id).filter(|id| !given.contains_key(id)).collect()
}

/// Asks a kernel in a VM that is like `options`.
pub(crate) fn ask_by(
    image: &Image,
    cases: &[Case],
    given: &Outcomes,
    how: &CaseArgs,
    mut options: Options,
    on_event: &mut dyn FnMut(Event<'_>),
) -> Result<Session> {
    let ids = to_ask(cases, given);
    of_image(image, &mut options);
    options.limits.silence += Duration::from_secs(how.deadline) * how.repeat;
    options.settings.insert("deadline".into(), how.deadline.to_string());
    options.settings.insert("repeat".into(), how.repeat.to_string());
    // Of all cases: what a guest has loaded is part of where the others were asked.
    give_modules(image, cases, &mut options)?;
    let report = vm::run_vm(&image.path, &placed(&ids), &options, on_event)
        .with_context(|| format!("asking {}", image.identity.release))?;
    let hello = &report.hello;
    let kernel = image.identity.kernel(&hello.release, &hello.version, &hello.machine);
    let mut outcomes: Vec<(String, Outcome)> =
        ids.into_iter().zip(report.outcomes.iter().cloned()).collect();
    let known = |case: &Case| given.get_key_value(&case.id());
    outcomes.extend(cases.iter().filter_map(known).map(|(id, o)| (id.clone(), o.clone())));
    let record = Record {
        schema: SCHEMA,
        kernel,
        environment: hello.environment.clone(),
        suite: hello.suite.clone(),
        by: None,
        cases: Cases::new(outcomes),
    };
    Ok(Session { record, report })
}

/// Asks a kernel in a VM for sequences of operations: one outcome each, in their order.
pub(crate) fn ask_sequences(
    image: &Image,
    sequences: &[Sequence],
    deadline: Duration,
    vm: &VmArgs,
) -> Result<SessionReport> {
    let ids: Vec<String> = sequences.iter().map(Sequence::id).collect();
    let mut options = vm.options();
    of_image(image, &mut options);
    options.limits.silence += deadline;
    options.settings.insert("deadline".into(), deadline.as_secs().to_string());
    vm::run_vm(&image.path, &ids, &options, &mut |_| {})
        .with_context(|| format!("asking {}", image.identity.release))
}

/// What a VM must be like for a kernel.
pub(super) fn of_image(image: &Image, options: &mut Options) {
    options.arch = image.arch;
    options.program.clone_from(&image.program);
}

/// Gives the guest the modules that the cases need, of those that there are for the kernel.
fn give_modules(image: &Image, cases: &[Case], options: &mut Options) -> Result<()> {
    let needed: BTreeSet<&str> = cases.iter().flat_map(Case::modules).copied().collect();
    let Some(tar) = image.modules.as_deref().filter(|_| !needed.is_empty()) else { return Ok(()) };
    let needed: Vec<&str> = needed.into_iter().collect();
    let modules = kernels::read_modules(tar, &needed)
        .with_context(|| format!("reading the modules of {}", image.identity.release))?;
    options.give_modules(modules);
    Ok(())
}

/// What a person should know of a session, a sentence each.
pub(crate) fn remarks(report: &SessionReport) -> Vec<String> {
    let release = &report.hello.release;
    let mut remarks: Vec<String> = report
        .lost
        .iter()
        .map(|lost| format!("{release}: a VM was lost and started again: {}", lost.why))
        .collect();
    remarks.extend(
        report.complaints.iter().map(|c| format!("{release}: the kernel says: {}", c.line)),
    );
    if report.more_complaints > 0 {
        remarks.push(format!("{release}: the kernel says {} lines more", report.more_complaints));
    }
    remarks.extend(report.gave_up.iter().map(|why| format!("{release}: not all was asked: {why}")));
    remarks
}

/// The guest's side: PID 1 runs each case, or the user's program, in a child of its own.
pub(super) fn agent(plan: &Plan) -> Agent<'static> {
    super::exec::agent(plan).unwrap_or_else(|| cases_agent(plan))
}

/// In a guest, hands out the kernel's counters if the plan asks for them.
pub(super) fn counters(plan: &Plan) -> Files<'static> {
    if plan.setting(COVERAGE).is_none() {
        return Box::new(|| Ok(Vec::new()));
    }
    let opened = coverage::open();
    Box::new(move || opened.clone().and_then(|()| coverage::read()))
}

fn cases_agent(plan: &Plan) -> Agent<'static> {
    let number = |name: &str| plan.setting(name).and_then(|n| n.parse::<u32>().ok());
    let limits = Limits {
        deadline: Duration::from_secs(number("deadline").unwrap_or(30).into()),
        repeat: number("repeat").unwrap_or(1),
    };
    let cases = uffd_suites::bump::keeping(|| known(&plan.cases));
    if let Some(rounds) = number(ROUNDS) {
        uffd_suites::bench::set_rounds(rounds);
    }
    let runner =
        check_pages().and_then(|()| Runner::new(limits.deadline).map_err(|e| e.to_string()));
    let accelerator = plan.setting("accelerator").unwrap_or_default();
    let memory = plan.setting("memory-mib").and_then(|n| n.parse().ok());
    let stage = runner.as_ref().ok().map(Runner::stage);
    let mut environment = environment(stage, accelerator, memory);
    plan.setting(APPEND).unwrap_or_default().clone_into(&mut environment.append);
    let run = move |index: usize, _: &str| match (&runner, cases.get(index)) {
        (Ok(runner), Some(Some(case))) => runner.run_repeated(case, limits.repeat),
        (Err(e), _) => Outcome::ended(End::Broken, format!("preparing: {e}"), Facts::new()),
        (_, _) => Outcome::ended(End::Broken, "the guest does not know the case", Facts::new()),
    };
    Agent { suite: report::suite(), environment, run: Box::new(run), files: counters(plan) }
}

/// Every case that a guest can be asked for; host and guest are one program, so a place means the
/// same in both.
fn askable() -> impl Iterator<Item = Case> {
    uffd_suites::registry()
        .into_iter()
        .chain(uffd_suites::hidden_cases())
        .chain(uffd_suites::bench::cases())
}

/// The ids with the places of their cases before them: a guest that had to make all ids to find a few
/// thousand would take seconds for it under emulation.
fn placed(ids: &[String]) -> Vec<String> {
    let mut places: HashMap<&str, Option<usize>> =
        ids.iter().map(|id| (id.as_str(), None)).collect();
    for (place, case) in askable().enumerate() {
        if let Some(known) = places.get_mut(case.id().as_str()) {
            *known = Some(place);
        }
    }
    let place = |id: &String| match places.get(id.as_str()).copied().flatten() {
        Some(place) => format!("{place} {id}"),
        None => id.clone(),
    };
    ids.iter().map(place).collect()
}

/// The cases of a plan.
fn known(plan: &[String]) -> Vec<Option<Case>> {
    let all = OnceCell::new();
    let find = |line: &String| {
        if let Some(case) = Sequence::case_of(line) {
            return Some(case);
        }
        let all: &Vec<Case> = all.get_or_init(|| askable().collect());
        // A plan of somebody else's names cases by their ids alone.
        let Some((place, id)) = line.split_once(' ') else {
            return all.iter().find(|case| case.id() == *line).copied();
        };
        // A program that is built for another architecture may have it in another place.
        let here = all.get(place.parse::<usize>().ok()?).copied().filter(|case| case.id() == id);
        here.or_else(|| all.iter().find(|case| case.id() == id).copied())
    };
    plan.iter().map(find).collect()
}

/// The cases that a record answers, in the order of the cases.
pub(crate) fn answers<'a>(
    cases: &'a [Case],
    record: &'a Record,
) -> impl Iterator<Item = (&'a Case, &'a Outcome)> {
    cases.iter().filter_map(|case| Some((case, record.cases.get(&case.id())?)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(1)]
    #[case(3)]
    #[case(30)]
    fn the_parts_are_all_of_it_and_no_kernel_is_in_two(#[case] of: usize) {
        let all: Vec<usize> = (0..21).collect();
        let parts = (1..=of).flat_map(|part| Shard { part, of }.take(all.clone()));
        let mut parts: Vec<usize> = parts.collect();
        parts.sort_unstable();
        assert_eq!(parts, all);
    }

    #[rstest]
    #[case("0/3")]
    #[case("4/3")]
    #[case("1")]
    #[case("1/0")]
    #[case("-1/2")]
    #[case("1/99999999")]
    fn odd_parts_are_refused(#[case] text: &str) {
        assert!(text.parse::<Shard>().is_err());
        assert_eq!("2/3".parse(), Ok(Shard { part: 2, of: 3 }));
    }
}
