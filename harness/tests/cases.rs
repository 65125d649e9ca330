//! Every default case as a test of its own on the running kernel, named by its id: for `cargo test`
//! and `cargo nextest`. A case that can't be asked here is ignored, never passed. nextest takes what
//! is ignored from the list of tests only, so what is known beforehand is ignored there.

use libtest_mimic::{Arguments, Completion, Failed, Trial};
use std::cell::OnceCell;
use std::fmt::Write as _;
use std::time::Duration;
use uffd_harness::environment::Uname;
use uffd_harness::judge::judge;
use uffd_harness::runner::Runner;
use uffd_results::{KernelVersion, Verdict};
use uffd_suites::abi::Way;
use uffd_suites::point::{Change, PAGES, Remap, Waiter};
use uffd_suites::probe::{Ask, Case};
use uffd_suites::stage::find_way;

/// Bound on a case.
const DEADLINE: Duration = Duration::from_secs(30);

fn main() {
    // A case's child executes this program again, and only asks for its version.
    if std::env::args().nth(1).as_deref() == Some("--version") {
        return;
    }
    let mut arguments = Arguments::from_args();
    // The runner forks, so this process must keep to one thread.
    arguments.test_threads = Some(1);
    let kernel = Uname::read().map_err(|e| e.to_string());
    let kernel = kernel.and_then(|uname| uname.upstream().map_err(|e| e.to_string()));
    let here = Here::look();
    let trial = |case: Case| {
        let kernel = kernel.clone();
        let cant = here.cant_ask(&case);
        Trial::ignorable_test(case.id(), move || run(&case, kernel?)).with_ignored_flag(cant)
    };
    let cases = uffd_suites::cases().into_iter().filter(|case| case.by_default);
    libtest_mimic::run(&arguments, cases.map(trial).collect()).exit();
}

/// What is known of this machine before any case.
struct Here {
    way: Option<Way>,
    free_huge_pages: u64,
}

impl Here {
    fn look() -> Self {
        let pool = "/sys/kernel/mm/hugepages/hugepages-2048kB";
        let read = |name: &str| {
            let text = std::fs::read_to_string(format!("{pool}/{name}")).ok()?;
            text.trim().parse::<u64>().ok()
        };
        let number = |name| read(name).unwrap_or(0);
        let free_huge_pages = number("free_hugepages").saturating_sub(number("resv_hugepages"));
        Self { way: find_way().ok(), free_huge_pages }
    }

    fn cant_ask(&self, case: &Case) -> bool {
        let (waiter, change) = match &case.ask {
            Ask::Point(point) | Ask::Claim(point, _) => (point.waiter, point.change),
            Ask::Trial(..) => (Waiter::None, Change::None),
        };
        let huge = case.is_exclusive();
        let leaks = huge && change == Change::Mremap(Remap::MovePart);
        self.way.is_none()
            || (self.way == Some(Way::UserModeOnly) && waiter.in_kernel())
            || (huge && self.free_huge_pages < 2 * PAGES as u64)
            || leaks
    }
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
        verdict if !verdict.is_trouble() && std::env::var_os("NEXTEST").is_none() => {
            Ok(Completion::ignored_with(outcome.to_string()))
        }
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
