//! The Test Anything Protocol in two dialects: version 14, and the kernel's. A kernel is a subtest where
//! there are several. A skip is `ok` with the directive SKIP, as both dialects want it; what should have been asked and
//! was not is `not ok`.

use super::super::out;
use super::{Head, Result3, Seen, Tally, Writer};
use anyhow::Result;
use serde_json::Value;
use std::fmt::Write as _;
use std::io::Write;
use std::time::Duration;
use uffd_results::printable;

/// Which protocol is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    /// Documentation/dev-tools/ktap.rst of the kernel.
    Kernel,
    /// Version 14 of the specification.
    Fourteen,
}

pub(super) struct Tap {
    dialect: Dialect,
    /// Whether each kernel is a subtest.
    nested: bool,
    /// The kernel that is being told.
    kernel: String,
    kernels: usize,
    cases: usize,
    sums: [usize; 3],
    all: [usize; 3],
}

impl Tap {
    /// Begins a report of so many kernels.
    pub(super) fn begin(dialect: Dialect, kernels: usize) -> Result<Self> {
        let nested = kernels > 1;
        if nested {
            writeln!(out::stdout(), "{}\n1..{kernels}", version(dialect))?;
        }
        let kernel = String::new();
        Ok(Self { dialect, nested, kernel, kernels: 0, cases: 0, sums: [0; 3], all: [0; 3] })
    }

    fn line(&self, text: &str) -> Result<()> {
        let indent = match (self.nested, self.dialect) {
            (false, _) => "",
            (true, Dialect::Kernel) => "  ",
            (true, Dialect::Fourteen) => "    ",
        };
        let mut out = out::stdout();
        for line in text.lines() {
            writeln!(out, "{indent}{line}")?;
        }
        Ok(())
    }

    fn totals(&self, [pass, fail, skip]: [usize; 3]) -> Option<String> {
        (self.dialect == Dialect::Kernel).then(|| {
            format!("# Totals: pass:{pass} fail:{fail} xfail:0 xpass:0 skip:{skip} error:0")
        })
    }
}

const fn version(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::Kernel => "KTAP version 1",
        Dialect::Fourteen => "TAP version 14",
    }
}

/// The line of a test; `name` stands as it is, but for what would read as a directive.
fn result(dialect: Dialect, n: usize, name: &str, result: Result3, why: &str) -> String {
    let name = printable(name).replace('\\', "\\\\").replace('#', "\\#");
    let ok = if result == Result3::Fail { "not ok" } else { "ok" };
    let dash = if dialect == Dialect::Fourteen { "- " } else { "" };
    let mut line = format!("{ok} {n} {dash}{name}");
    if result == Result3::Skip {
        let _ = write!(line, " # SKIP {}", printable(why));
    }
    line
}

/// What stands with a test that failed: YAML in version 14, comments in the kernel's dialect.
fn diagnosis(dialect: Dialect, Seen { outcome, judgement, .. }: &Seen<'_>) -> String {
    let quoted = |text: &str| Value::from(printable(text)).to_string();
    let mut text = String::new();
    match dialect {
        Dialect::Kernel => {
            let _ = writeln!(text, "# {}: {}", judgement.verdict, printable(&outcome.to_string()));
            for d in &judgement.differences {
                let seen = d.seen.as_deref().unwrap_or("nothing");
                let (e, seen) = (&d.expected, printable(seen));
                let source = e.source.split_whitespace().collect::<Vec<_>>().join(" ");
                let _ =
                    writeln!(text, "# {}: expected {}, seen {seen} ({source})", e.fact, e.value);
            }
        }
        Dialect::Fourteen => {
            let _ = writeln!(text, "  ---\n  verdict: {}", judgement.verdict);
            let _ = writeln!(text, "  seen: {}", quoted(&outcome.to_string()));
            if !judgement.differences.is_empty() {
                text += "  differences:\n";
            }
            for d in &judgement.differences {
                let e = &d.expected;
                let seen = d.seen.as_deref().map_or("null".to_owned(), quoted);
                let _ =
                    writeln!(text, "    - fact: {}\n      expected: {}", e.fact, quoted(&e.value));
                let _ = writeln!(text, "      seen: {seen}\n      source: {}", quoted(e.source));
            }
            text += "  ...\n";
        }
    }
    text
}

impl Writer for Tap {
    fn begin(&mut self, head: &Head<'_>) -> Result<()> {
        let name = format!("{} {}", head.upstream, printable(&head.kernel.release));
        (self.cases, self.sums) = (0, [0; 3]);
        self.kernels += 1;
        if self.nested && self.dialect == Dialect::Fourteen {
            self.line(&format!("# Subtest: {name}\n1..{}", head.cases))?;
        } else {
            let version = version(self.dialect);
            self.line(&format!("{version}\n# Subtest: {name}\n1..{}", head.cases))?;
        }
        self.kernel = name;
        Ok(())
    }

    fn case(&mut self, seen: &Seen<'_>) -> Result<()> {
        self.cases += 1;
        let of = Result3::of(seen.judgement.verdict);
        self.sums[of as usize] += 1;
        let why = match seen.outcome.detail.as_str() {
            "" => seen.judgement.verdict.word().to_owned(),
            detail => format!("{}: {detail}", seen.judgement.verdict),
        };
        let line = result(self.dialect, self.cases, &seen.case.id(), of, &why);
        match (of, self.dialect) {
            (Result3::Fail, Dialect::Kernel) => {
                self.line(&format!("{}{line}", diagnosis(self.dialect, seen)))
            }
            (Result3::Fail, Dialect::Fourteen) => {
                self.line(&format!("{line}\n{}", diagnosis(self.dialect, seen)))
            }
            _ => self.line(&line),
        }
    }

    fn end(&mut self, _tally: &Tally, _took: Duration) -> Result<()> {
        if let Some(totals) = self.totals(self.sums) {
            self.line(&totals)?;
        }
        if !self.nested {
            return Ok(());
        }
        let of = match self.sums {
            [_, fail, _] if fail > 0 => Result3::Fail,
            [0, _, _] => Result3::Skip,
            _ => Result3::Pass,
        };
        self.all[of as usize] += 1;
        let why = "nothing was answered";
        writeln!(out::stdout(), "{}", result(self.dialect, self.kernels, &self.kernel, of, why))?;
        Ok(())
    }

    fn finish(&mut self) -> Result<()> {
        if self.nested
            && let Some(totals) = self.totals(self.all)
        {
            writeln!(out::stdout(), "{totals}")?;
        }
        Ok(())
    }

    fn skip(&mut self, why: &str) -> Result<()> {
        writeln!(out::stdout(), "{}\n1..0 # SKIP {}", version(self.dialect), printable(why))?;
        Ok(())
    }

    fn bail(&mut self, why: &str) -> Result<()> {
        if !self.nested && self.kernel.is_empty() {
            writeln!(out::stdout(), "{}", version(self.dialect))?;
        }
        writeln!(out::stdout(), "Bail out! {}", printable(why))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(Dialect::Fourteen, Result3::Pass, "ok 7 - a/b[c=d]")]
    #[case(Dialect::Kernel, Result3::Fail, "not ok 7 a/b[c=d]")]
    #[case(Dialect::Kernel, Result3::Skip, "ok 7 a/b[c=d] # SKIP no KVM")]
    fn a_skip_says_so(#[case] dialect: Dialect, #[case] of: Result3, #[case] line: &str) {
        assert_eq!(result(dialect, 7, "a/b[c=d]", of, "no KVM"), line);
    }

    #[test]
    fn a_name_is_no_directive_and_stays_on_its_line() {
        let line = result(Dialect::Fourteen, 1, "x # SKIP\nok 2", Result3::Fail, "");
        assert!(line.starts_with("not ok 1 - x \\# SKIP") && line.lines().count() == 1, "{line}");
    }
}
