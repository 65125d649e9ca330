//! Markdown for the summary of a GitHub job: `uffd-conform run --format github >> "$GITHUB_STEP_SUMMARY"`.

use super::super::out;
use super::{Head, Seen, Tally, Writer};
use crate::report::markdown::{code, head, row};
use anyhow::Result;
use std::io::Write;
use std::time::Duration;

/// GitHub takes a MiB a step: so many cases are named, the others counted.
const NAMED: usize = 100;

#[derive(Default)]
pub(super) struct Github {
    title: String,
    trouble: Vec<String>,
    more: usize,
}

impl Writer for Github {
    fn begin(&mut self, head: &Head<'_>) -> Result<()> {
        let release = code(&head.kernel.release);
        self.title = format!("{} ({release}, {})", head.upstream, head.environment.how());
        (self.trouble, self.more) = (Vec::new(), 0);
        Ok(())
    }

    fn case(&mut self, Seen { case, outcome, judgement }: &Seen<'_>) -> Result<()> {
        if !judgement.verdict.is_trouble() {
            return Ok(());
        }
        if self.trouble.len() == NAMED {
            self.more += 1;
            return Ok(());
        }
        let differs = judgement.differences.iter().map(|d| {
            let seen = d.seen.as_deref().unwrap_or("nothing");
            format!(
                "{}: expected {}, seen {}",
                code(d.expected.fact),
                code(&d.expected.value),
                code(seen)
            )
        });
        let why: Vec<String> = differs.collect();
        let why = if why.is_empty() { code(&outcome.to_string()) } else { why.join("; ") };
        self.trouble.push(row([judgement.verdict.to_string(), code(&case.id()), why]));
        Ok(())
    }

    fn end(&mut self, tally: &Tally, took: Duration) -> Result<()> {
        let mut out = out::stdout();
        let sign = if self.trouble.is_empty() { "✅" } else { "❌" };
        writeln!(out, "### {sign} userfaultfd on Linux {}\n", self.title)?;
        let (all, seconds) = (tally.count(|_| true), took.as_secs_f64());
        writeln!(
            out,
            "{} in {seconds:.1} s: {}.\n",
            crate::report::count(all, "case"),
            tally.words()
        )?;
        if !self.trouble.is_empty() {
            let names = ["verdict", "case", "why"].map(str::to_owned);
            write!(out, "{}{}", head(names.into()), self.trouble.concat())?;
            if self.more > 0 {
                writeln!(out, "\n{} more.", self.more)?;
            }
            writeln!(out)?;
        }
        if !tally.reasons.is_empty() {
            writeln!(out, "<details><summary>What was not asked, and why</summary>\n")?;
            for ((verdict, why), n) in &tally.reasons {
                writeln!(out, "- {n} × {verdict}: {}", code(why))?;
            }
            writeln!(out, "\n</details>\n")?;
        }
        Ok(())
    }

    fn bail(&mut self, why: &str) -> Result<()> {
        writeln!(out::stdout(), "### ❌ userfaultfd: could not go on\n\n{}\n", code(why))?;
        Ok(())
    }
}
