//! One plan in several machines side by side, where CPUs would else have nothing to do.
//!
//! Each takes every nth case, so that dear ones are spread, in a session of its own: what brings a machine down
//! costs no other one anything. A session that fails costs its own cases, which are not run, if a guest of another one
//! has come up; guests that are not of one kind make no report.

use super::error::VmError;
use super::frame::Hello;
use super::session::{COMPLAINTS, Complaint, Event, Lost, SessionReport};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use uffd_results::{End, Facts, Outcome};

/// Cases for which a machine is worth its boot, which takes as long as five or six hundred of them but passes beside
/// those of the others.
const WORTH: usize = 400;

/// Who is told of events.
type Listener<'a> = &'a mut dyn FnMut(Event<'_>);

/// Asks the cases of one machine, until it is told to stop.
type Session<'a> =
    &'a (dyn Fn(&[String], &AtomicBool, Listener<'_>) -> Result<SessionReport, VmError> + Sync);

/// How many of `machines` a plan of so many cases is worth.
pub(super) fn worth(machines: usize, cases: usize) -> usize {
    machines.min(cases / WORTH).max(1)
}

/// Has `machines` sessions work on a plan, one thread each, and makes one report of theirs, but for the time that all
/// took. Events count within the whole plan.
pub(super) fn share(
    plan: &[String],
    machines: usize,
    on_event: &mut (dyn FnMut(Event<'_>) + Send),
    session: Session<'_>,
) -> Result<SessionReport, VmError> {
    let stop = AtomicBool::new(false);
    if machines <= 1 {
        return session(plan, &stop, on_event);
    }
    let told = Mutex::new(Told { on_event, hello: None, unlike: None });
    let work = |part: Part| {
        let cases: Vec<String> = part.of(plan).cloned().collect();
        let ended = session(&cases, &stop, &mut |event| {
            let mut told = lock(&told);
            if let Event::Up { hello, .. } = event {
                told.up(hello);
            }
            if told.unlike.is_some() {
                stop.store(true, Ordering::Relaxed);
            }
            part.tell(event, &mut *told.on_event);
        });
        // Nobody has an answer that could be kept.
        let is_vain = match &ended {
            Ok(_) => false,
            Err(VmError::Unlike(_)) => true,
            Err(_) => lock(&told).hello.is_none(),
        };
        if is_vain {
            stop.store(true, Ordering::Relaxed);
        }
        ended
    };
    let parts: Vec<Part> = (0..machines).map(|first| Part { first, step: machines }).collect();
    let ended: Vec<_> = std::thread::scope(|scope| {
        let running: Vec<_> = parts.iter().map(|part| scope.spawn(|| work(*part))).collect();
        running.into_iter().map(std::thread::ScopedJoinHandle::join).collect()
    });
    let reports = ended.into_iter().map(|end| end.unwrap_or_else(|p| std::panic::resume_unwind(p)));
    let reports: Vec<_> = reports.collect();
    if let Some(what) = lock(&told).unlike.take() {
        return Err(VmError::Unlike(what));
    }
    join(&parts, reports, plan)
}

/// What all sessions have in common while they run.
struct Told<'a> {
    on_event: &'a mut (dyn FnMut(Event<'_>) + Send),
    /// What the first guest said of itself.
    hello: Option<Hello>,
    /// In what another one was not like it.
    unlike: Option<String>,
}

impl Told<'_> {
    fn up(&mut self, hello: &Hello) {
        match &self.hello {
            None => self.hello = Some(hello.clone()),
            Some(first) => self.unlike = self.unlike.take().or_else(|| first.difference(hello)),
        }
    }
}

fn lock<'a, 'b>(told: &'a Mutex<Told<'b>>) -> MutexGuard<'a, Told<'b>> {
    told.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Which of a plan's cases a session has: each `step`th one from `first` on.
#[derive(Clone, Copy, Debug)]
struct Part {
    first: usize,
    step: usize,
}

impl Part {
    fn of<T>(self, plan: &[T]) -> impl Iterator<Item = &T> {
        plan.iter().skip(self.first).step_by(self.step)
    }

    /// Where a case of the part stands in the plan.
    const fn place(self, index: usize) -> usize {
        self.first + index * self.step
    }

    fn complaint(self, Complaint { near, line }: &Complaint) -> Complaint {
        Complaint { near: near.map(|n| self.place(n)), line: line.clone() }
    }

    fn lost(self, Lost { during, why }: &Lost) -> Lost {
        Lost { during: during.map(|n| self.place(n)), why: why.clone() }
    }

    /// Tells of an event, with the places of the plan.
    fn tell(self, event: Event<'_>, on_event: Listener<'_>) {
        match event {
            Event::Boot { number, from } => {
                on_event(Event::Boot { number, from: self.place(from) });
            }
            Event::Start { index } => on_event(Event::Start { index: self.place(index) }),
            Event::Outcome { index, outcome } => {
                on_event(Event::Outcome { index: self.place(index), outcome });
            }
            Event::Complaint(complaint) => {
                on_event(Event::Complaint(&self.complaint(complaint)));
            }
            Event::Lost(lost) => on_event(Event::Lost(&self.lost(lost))),
            same @ (Event::Up { .. } | Event::File { .. }) => on_event(same),
        }
    }
}

/// One report of all, in the order of the plan; of what has failed the cases are not run.
fn join(
    parts: &[Part],
    reports: Vec<Result<SessionReport, VmError>>,
    plan: &[String],
) -> Result<SessionReport, VmError> {
    let mut sum: Option<SessionReport> = None;
    let mut failed: Option<VmError> = None;
    let mut outcomes = Vec::new();
    for (part, report) in parts.iter().zip(reports) {
        let mut report = match report {
            Ok(report) => report,
            Err(error @ (VmError::Interrupted(_) | VmError::Unlike(_))) => return Err(error),
            Err(error) => {
                let not_run = Outcome::ended(End::NotRun, error.brief(), Facts::new());
                outcomes.push(vec![not_run; part.of(plan).count()].into_iter());
                // Who was stopped was so because of another one.
                if failed.as_ref().is_none_or(|failed| matches!(failed, VmError::Stopped)) {
                    failed = Some(error);
                }
                continue;
            }
        };
        report.hello.cases = plan.len();
        outcomes.push(std::mem::take(&mut report.outcomes).into_iter());
        report.lost = report.lost.iter().map(|lost| part.lost(lost)).collect();
        report.complaints = report.complaints.iter().map(|c| part.complaint(c)).collect();
        sum = Some(match sum {
            None => report,
            Some(sum) => add(sum, report)?,
        });
    }
    let Some(mut sum) = sum else {
        return Err(failed.unwrap_or_else(|| VmError::Plan("no machine is to take it".to_owned())));
    };
    sum.gave_up = sum.gave_up.or_else(|| failed.map(|error| error.brief()));
    // They take turns.
    let turns = (0..plan.len()).map_while(|n| outcomes.get_mut(n % parts.len())?.next());
    sum.outcomes = turns.collect();
    Ok(sum)
}

/// Two machines' reports as one, but for their outcomes.
fn add(mut sum: SessionReport, more: SessionReport) -> Result<SessionReport, VmError> {
    if let Some(what) = sum.hello.difference(&more.hello) {
        return Err(VmError::Unlike(what));
    }
    sum.boots += more.boots;
    sum.lost.extend(more.lost);
    sum.complaints.extend(more.complaints);
    sum.more_complaints += more.more_complaints + sum.complaints.len().saturating_sub(COMPLAINTS);
    sum.complaints.truncate(COMPLAINTS);
    sum.gave_up = sum.gave_up.or(more.gave_up);
    sum.booted_in = sum.booted_in.max(more.booted_in);
    sum.console = more.console;
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::interrupt::Interrupted;
    use crate::vm::session_tests::said;
    use nix::sys::signal::Signal;
    use rstest::rstest;
    use std::time::Duration;

    fn plan(len: usize) -> Vec<String> {
        (0..len).map(|n| format!("n{n}")).collect()
    }

    /// What a machine says that asks its cases, and loses itself once before its second one.
    fn asked(part: &[String], on_event: Listener<'_>, release: &str) -> SessionReport {
        let lost = Lost { during: Some(1), why: "lost".to_owned() };
        let complaint = Complaint { near: Some(1), line: "WARNING".to_owned() };
        on_event(Event::Boot { number: 2, from: 1 });
        on_event(Event::Lost(&lost));
        on_event(Event::Complaint(&complaint));
        let outcome = |id: &String| {
            Outcome::done(Facts::parse(&format!("id={id}")).expect("facts of this test"))
        };
        let outcomes: Vec<Outcome> = part.iter().map(outcome).collect();
        for (index, outcome) in outcomes.iter().enumerate() {
            on_event(Event::Start { index });
            on_event(Event::Outcome { index, outcome });
        }
        SessionReport {
            hello: said(release, part.len()),
            outcomes,
            boots: 2,
            lost: vec![lost],
            complaints: vec![complaint],
            more_complaints: 0,
            gave_up: None,
            booted_in: Duration::from_secs(part.len() as u64),
            took: Duration::ZERO,
            console: String::new(),
        }
    }

    #[rstest]
    #[case(1, 7)]
    #[case(2, 7)]
    #[case(3, 7)]
    #[case(3, 6)]
    fn each_case_is_asked_once_and_stands_in_its_place(
        #[case] machines: usize,
        #[case] cases: usize,
    ) {
        let plan = plan(cases);
        let mut told = vec![None; cases];
        let mut places = Vec::new();
        let mut on_event = |event: Event<'_>| match event {
            Event::Outcome { index, outcome } => {
                assert!(told[index].replace(outcome.facts.to_string()).is_none());
            }
            Event::Boot { from, .. } => places.push(from),
            Event::Lost(lost) => places.extend(lost.during),
            Event::Complaint(complaint) => places.extend(complaint.near),
            _ => {}
        };
        let report = share(&plan, machines, &mut on_event, &|part, _, on_event| {
            Ok(asked(part, on_event, "6.12"))
        });
        let report = report.expect("no machine fails");
        let wanted: Vec<String> = plan.iter().map(|id| format!("id={id}")).collect();
        let said: Vec<String> = report.outcomes.iter().map(|o| o.facts.to_string()).collect();
        assert_eq!(said, wanted);
        assert_eq!(told.into_iter().flatten().collect::<Vec<_>>(), wanted);
        assert_eq!((report.hello.cases, report.boots as usize), (cases, 2 * machines));
        places.sort_unstable();
        // The second case of each part.
        let second: Vec<usize> = (machines..2 * machines).flat_map(|n| [n; 3]).collect();
        assert_eq!(places, second);
        let lost: Vec<_> = report.lost.iter().filter_map(|lost| lost.during).collect();
        assert_eq!(lost, (machines..2 * machines).collect::<Vec<_>>());
    }

    fn up(part: &[String], on_event: Listener<'_>, release: &str) {
        on_event(Event::Up { hello: &said(release, part.len()), after: Duration::ZERO });
    }

    /// Waits to be told to stop.
    fn stopped(stop: &AtomicBool) -> Result<SessionReport, VmError> {
        let started = std::time::Instant::now();
        while !stop.load(Ordering::Relaxed) {
            assert!(started.elapsed() < Duration::from_secs(20), "it is not told to stop");
            std::thread::yield_now();
        }
        Err(VmError::Stopped)
    }

    /// Whether it is known at the end only, or from the first words.
    #[rstest]
    fn machines_that_differ_are_no_answer(#[values(true, false)] at_once: bool) {
        let differs = share(&plan(4), 2, &mut |_| {}, &|part, stop, on_event| {
            let release = if part[0] == "n0" { "6.12" } else { "6.13" };
            if at_once {
                up(part, on_event, release);
                return stopped(stop);
            }
            Ok(asked(part, on_event, release))
        });
        let error = differs.expect_err("two kernels").to_string();
        assert!(error.contains(r#"release is "6.12" and "6.13""#) || at_once, "{error}");
        assert!(error.contains("6.12") && error.contains("6.13"), "{error}");
    }

    fn full() -> VmError {
        VmError::file("writing")(std::io::Error::from_raw_os_error(libc::ENOSPC))
    }

    #[test]
    fn a_machine_that_fails_costs_its_own_cases() {
        let plan = plan(5);
        let is_up = AtomicBool::new(false);
        let report = share(&plan, 2, &mut |_| {}, &|part, _, on_event| {
            if part[0] == "n0" {
                up(part, on_event, "6.12");
                is_up.store(true, Ordering::Relaxed);
                return Ok(asked(part, on_event, "6.12"));
            }
            while !is_up.load(Ordering::Relaxed) {
                std::thread::yield_now();
            }
            Err(full())
        });
        let report = report.expect("what the others have said");
        let ends: Vec<End> = report.outcomes.iter().map(|outcome| outcome.end).collect();
        assert_eq!(ends, [End::Done, End::NotRun, End::Done, End::NotRun, End::Done]);
        let why = report.gave_up.expect("a reason");
        assert!(why.contains("No space left") && report.outcomes[1].detail == why, "{why}");
        assert_eq!(report.hello.cases, 5);
    }

    #[rstest]
    #[case::before_any_is_up(full, "No space left")]
    #[case::told_to_stop(|| Interrupted(Signal::SIGTERM).into(), "interrupted by SIGTERM")]
    fn what_leaves_no_answer_ends_all(#[case] error: fn() -> VmError, #[case] says: &str) {
        let failed = share(&plan(6), 3, &mut |_| {}, &|part, stop, _| match &*part[0] {
            "n1" => Err(error()),
            _ => stopped(stop),
        });
        let failed = failed.expect_err("one failed").to_string();
        assert!(failed.contains(says), "{failed}");
    }

    #[rstest]
    #[case(8, 4300, 8)]
    #[case(2, 1, 1)]
    #[case(4, 900, 2)]
    #[case(0, 4300, 1)]
    fn a_machine_is_worth_its_boot(
        #[case] machines: usize,
        #[case] cases: usize,
        #[case] worth_it: usize,
    ) {
        assert_eq!(worth(machines, cases), worth_it);
    }
}
