//! Asking a kernel in a VM, and what this program does as PID 1 of one.

use super::choose::{APPEND, VmArgs};
use super::{CaseArgs, report};
use crate::coverage;
use crate::environment::{check_pages, environment};
use crate::journal::Outcomes;
use crate::kernels::{self, Image};
use crate::runner::{self, Limits, Runner};
use crate::vm::guest::{Agent, Files, Run};
use crate::vm::{self, Event, Options, Plan, SessionReport};
use anyhow::{Context, Result};
use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;
use uffd_results::{Cases, End, Facts, Outcome, Record, SCHEMA};
use uffd_suites::bump::{copying, keeping};
use uffd_suites::explore::Sequence;
use uffd_suites::probe::Case;

/// The plan's setting by which a guest hands out the kernel's counters.
pub(super) const COVERAGE: &str = "coverage";

/// The plan's setting that says in how many rounds operations are measured.
pub(super) const ROUNDS: &str = "rounds";

/// A kernel that was asked.
#[derive(Debug)]
pub(crate) struct Session {
    /// Everything that it has shown.
    pub(crate) record: Record,
    /// How the VMs fared.
    pub(crate) report: SessionReport,
}

/// The ids of the cases that are not among the given outcomes; events count within these.
pub(crate) fn to_ask(cases: &[Case], given: &Outcomes) -> Vec<String> {
    cases.iter().map(Case::id).filter(|id| !given.contains_key(id)).collect()
}

/// Asks a kernel in VMs that are like `options`, but for the outcomes that are given.
pub(crate) fn ask(
    image: &Image,
    cases: &[Case],
    given: &Outcomes,
    how: &CaseArgs,
    mut options: Options,
    on_event: &mut (dyn FnMut(Event<'_>) + Send),
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
    options.image_sha256 = Some(image.identity.image_sha256.clone());
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
    let cases = keeping(|| known(&plan.cases));
    let measured = number(ROUNDS);
    match measured {
        // What is measured is scheduled and forked as programs are: who wakes whom is a part of what it costs.
        Some(rounds) => uffd_suites::bench::set_rounds(rounds),
        // What can't be had costs time and nothing else.
        None => drop(uffd_suites::thread::yield_on_wake_up()),
    }
    let runner =
        check_pages().and_then(|()| Runner::new(limits.deadline).map_err(|e| e.to_string()));
    let runner = if measured.is_some() { runner } else { runner.map(Runner::pinning) };
    // There if the plan has a case that needs it.
    if Path::new("/dev/kvm").exists() {
        // What can't be had costs time and nothing else.
        let _ = uffd_suites::vcpu::keep_one();
    }
    let accelerator = plan.setting("accelerator").unwrap_or_default();
    let memory = plan.setting("memory-mib").and_then(|n| n.parse().ok());
    let stage = runner.as_ref().ok().map(Runner::stage);
    let mut environment = environment(stage, accelerator, memory);
    plan.setting(APPEND).unwrap_or_default().clone_into(&mut environment.append);
    let run = move |index: usize, _: &str| match (&runner, cases.get(index)) {
        (Ok(runner), Some(Some(case))) => {
            // On the stack: of what is kept, a case's process faults in each page that it reads.
            let case = std::hint::black_box(*case);
            runner.run_repeated(&case, limits.repeat)
        }
        (Err(e), _) => Outcome::ended(End::Broken, format!("preparing: {e}"), Facts::new()),
        (_, _) => Outcome::ended(End::Broken, "the guest does not know the case", Facts::new()),
    };
    // The runner, which each case reads from, lies in the box.
    let run: Run<'static> = copying(|| Box::new(run) as _);
    let is_used_up = runner::is_used_up;
    Agent { suite: report::suite(), environment, run, files: counters(plan), is_used_up }
}

/// Every case that a guest can be asked for, in two parts, one behind the other; host and guest are one program, so
/// a place means the same in both.
fn askable() -> [&'static [Case]; 2] {
    static BESIDE: OnceLock<Vec<Case>> = OnceLock::new();
    let beside = || uffd_suites::hidden_cases().into_iter().chain(uffd_suites::bench::cases());
    [uffd_suites::registry(), BESIDE.get_or_init(|| beside().collect())]
}

/// The ids with the places of their cases before them: a guest that had to make all ids to find a few
/// thousand would take seconds for it under emulation.
fn placed(ids: &[String]) -> Vec<String> {
    let mut places: HashMap<&str, Option<usize>> =
        ids.iter().map(|id| (id.as_str(), None)).collect();
    for (place, case) in askable().into_iter().flatten().enumerate() {
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
    let find = |line: &String| {
        if let Some(case) = Sequence::case_of(line) {
            return Some(case);
        }
        let [registry, beside] = askable();
        let named = |id: &str| registry.iter().chain(beside).find(|case| case.id() == id).copied();
        // A plan of somebody else's names cases by their ids alone.
        let Some((place, id)) = line.split_once(' ') else { return named(line) };
        let place = place.parse::<usize>().ok()?;
        let here = registry.get(place).or_else(|| beside.get(place.checked_sub(registry.len())?));
        // A program that is built for another architecture may have it in another place.
        here.copied().filter(|case| case.id() == id).or_else(|| named(id))
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
