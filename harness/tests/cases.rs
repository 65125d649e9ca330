//! Every default case as a test of its own on the running kernel, named by its id: for `cargo test`
//! and `cargo nextest`. A case that can't be asked here is ignored with the reason, never passed.

use libtest_mimic::{Arguments, Completion, Failed, Trial};
use std::cell::OnceCell;
use std::fmt::Write as _;
use std::time::Duration;
use uffd_harness::environment::Uname;
use uffd_harness::judge::judge;
use uffd_harness::runner::Runner;
use uffd_results::{KernelVersion, Verdict};
use uffd_suites::probe::Case;

/// Bound on a case.
const DEADLINE: Duration = Duration::from_secs(30);

fn main() {
    let mut arguments = Arguments::from_args();
    // The runner forks, so this process must keep to one thread.
    arguments.test_threads = Some(1);
    let kernel = Uname::read().map_err(|e| e.to_string());
    let kernel = kernel.and_then(|uname| uname.upstream().map_err(|e| e.to_string()));
    let trial = |case: Case| {
        let kernel = kernel.clone();
        Trial::ignorable_test(case.id(), move || run(&case, kernel?))
    };
    let cases = uffd_suites::cases().into_iter().filter(|case| case.by_default);
    libtest_mimic::run(&arguments, cases.map(trial).collect()).exit();
}

thread_local! {
    static RUNNER: OnceCell<Runner> = const { OnceCell::new() };
}

fn run(case: &Case, kernel: KernelVersion) -> Result<Completion, Failed> {
    let outcome = RUNNER.with(|cell| {
        if cell.get().is_none() {
            let _ = cell.set(Runner::new(DEADLINE).map_err(|e| e.to_string())?);
        }
        cell.get().map(|runner| runner.run(case)).ok_or_else(|| "no runner".to_owned())
    })?;
    let judgement = judge(case, &outcome, kernel);
    match judgement.verdict {
        Verdict::Pass => Ok(Completion::Completed),
        verdict if !verdict.is_trouble() => Ok(Completion::ignored_with(outcome.to_string())),
        verdict => {
            let mut text = format!("{verdict}: {outcome}");
            for difference in &judgement.differences {
                let expected = &difference.expected;
                let seen = difference.seen.as_deref().unwrap_or("nothing");
                let (fact, value, source) = (expected.fact, &expected.value, expected.source);
                let _ = write!(text, "\n  {fact}: expected {value} ({source}), saw {seen}");
            }
            Err(text.into())
        }
    }
}
