//! JUnit XML: a test suite a kernel, a test case a case, written when all is known.

use super::super::out;
use super::{Head, Result3, Seen, Tally, Writer, suite};
use anyhow::{Context, Result};
use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};
use std::io::Write;
use std::time::Duration;
use uffd_results::{End, Verdict, printable};

pub(super) struct Junit {
    report: Report,
    suite: Option<TestSuite>,
}

impl Junit {
    pub(super) fn new() -> Self {
        Self { report: Report::new("uffd-conform"), suite: None }
    }

    /// Adds why the run could not go on, behind what it has told until then.
    fn add_error(&mut self, why: &str) {
        if let Some(suite) = self.suite.take() {
            self.report.add_test_suite(suite);
        }
        let mut status = TestCaseStatus::non_success(NonSuccessKind::Error);
        status.set_type("error").set_message(printable(why));
        let mut suite = TestSuite::new("uffd-conform");
        suite.add_test_case(TestCase::new("run", status));
        self.report.add_test_suite(suite);
    }

    fn xml(&self) -> Result<String> {
        self.report.to_string().context("writing JUnit XML")
    }
}

/// Why a case failed, with a fact a line.
fn reasons(Seen { outcome, judgement, .. }: &Seen<'_>) -> String {
    let mut lines = vec![printable(&outcome.to_string())];
    for d in &judgement.differences {
        let (e, seen) = (&d.expected, d.seen.as_deref().unwrap_or("nothing"));
        let source = e.source.split_whitespace().collect::<Vec<_>>().join(" ");
        lines.push(format!(
            "{}: expected {}, seen {} ({source})",
            e.fact,
            e.value,
            printable(seen)
        ));
    }
    lines.join("\n")
}

/// Whether it is the run's fault and not the kernel's.
const fn is_ours(verdict: Verdict) -> bool {
    matches!(verdict, Verdict::Ended(End::Broken | End::Flaky | End::NotRun))
}

fn status(seen: &Seen<'_>) -> TestCaseStatus {
    let verdict = seen.judgement.verdict;
    let mut status = match Result3::of(verdict) {
        Result3::Pass => return TestCaseStatus::success(),
        Result3::Skip => TestCaseStatus::skipped(),
        // An error is one of the harness or the machine, a failure one of the kernel.
        Result3::Fail if is_ours(verdict) => TestCaseStatus::non_success(NonSuccessKind::Error),
        Result3::Fail => TestCaseStatus::non_success(NonSuccessKind::Failure),
    };
    let detail = printable(&seen.outcome.detail);
    let message =
        if detail.is_empty() { verdict.to_string() } else { format!("{verdict}: {detail}") };
    status.set_type(verdict.word()).set_message(message);
    if Result3::of(verdict) == Result3::Fail {
        status.set_description(reasons(seen));
    }
    status
}

impl Writer for Junit {
    fn begin(&mut self, head: &Head<'_>) -> Result<()> {
        let mut new = TestSuite::new(format!("{} {}", head.upstream, head.kernel.release));
        for (name, value) in [
            ("release", head.kernel.release.as_str()),
            ("version", head.kernel.version.as_str()),
            ("machine", head.kernel.machine.as_str()),
            ("accelerator", head.environment.accelerator.as_str()),
            ("append", head.environment.append.as_str()),
            ("suite", suite().revision.as_str()),
        ] {
            if value.is_empty() {
                continue;
            }
            new.add_property((name, printable(value).as_str()));
        }
        self.suite = Some(new);
        Ok(())
    }

    fn case(&mut self, seen: &Seen<'_>) -> Result<()> {
        let mut case = TestCase::new(seen.case.id(), status(seen));
        case.set_classname(seen.case.probe.to_string());
        if let Some(suite) = &mut self.suite {
            suite.add_test_case(case);
        }
        Ok(())
    }

    fn end(&mut self, _tally: &Tally, took: Duration) -> Result<()> {
        if let Some(mut suite) = self.suite.take() {
            suite.set_time(took);
            self.report.add_test_suite(suite);
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<()> {
        writeln!(out::stdout(), "{}", self.xml()?.trim_end())?;
        Ok(())
    }

    fn bail(&mut self, why: &str) -> Result<()> {
        self.add_error(why);
        self.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uffd_results::{Facts, KernelVersion, Outcome};

    /// The kernels that have ended, and the one that is being told, stand before the reason.
    #[test]
    fn what_was_told_outlives_an_error() {
        let of = crate::bench::testing::measured("6.12", &[]);
        let (kernel, environment) = (&of.kernel, &of.environment);
        let mut junit = Junit::new();
        let case = uffd_suites::cases()[0];
        for (end, version) in [(true, "6.12"), (false, "6.13")] {
            let upstream = KernelVersion::parse(version).expect("a version");
            let head = Head { kernel, upstream, environment, cases: 1 };
            junit.begin(&head).expect("begun");
            let outcome = Outcome::ended(End::NotRun, "no VM came up", Facts::new());
            let judgement = crate::judge::judge(&case, &outcome, upstream);
            let seen = Seen { case: &case, outcome: &outcome, judgement: &judgement };
            junit.case(&seen).expect("told");
            if end {
                junit.end(&Tally::default(), Duration::ZERO).expect("ended");
            }
        }
        junit.add_error("no room");
        let xml = junit.xml().expect("a document");
        assert!(xml.contains(r#"tests="3" skipped="0" failures="0" errors="3""#), "{xml}");
        let at = |text: &str| xml.find(text).unwrap_or_else(|| panic!("no {text} in {xml}"));
        assert!(at("6.12.0 ") < at("6.13.0 ") && at("6.13.0 ") < at("no room"), "{xml}");
        assert!(xml.contains("not-run: no VM came up"), "{xml}");
    }
}
