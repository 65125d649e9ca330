//! For people: what differs, and the sums.

use super::super::out;
use super::{Head, Seen, Tally, Writer};
use anyhow::Result;
use std::io::Write;
use std::time::Duration;
use uffd_results::Environment;

pub(super) struct Human {
    /// Whether every case is shown.
    pub(super) verbose: bool,
}

impl Writer for Human {
    fn begin(&mut self, head: &Head<'_>) -> Result<()> {
        let Environment { cpus, uffd, .. } = head.environment;
        let release = out::bold(&head.kernel.release);
        let version = head.upstream;
        let how = head.environment.how();
        let how = format!("{version}, {how}, {cpus} CPU, userfaultfd by {uffd}");
        writeln!(out::stdout(), "{release} {}", out::dim(how))?;
        Ok(())
    }

    fn case(&mut self, Seen { case, outcome, judgement }: &Seen<'_>) -> Result<()> {
        if !self.verbose && !judgement.verdict.is_trouble() {
            return Ok(());
        }
        let mut out = out::stdout();
        writeln!(out, "{} {}", out::verdict(judgement.verdict), case.id())?;
        writeln!(out, "             {outcome}")?;
        out::differences(&mut out, judgement)?;
        Ok(())
    }

    fn end(&mut self, tally: &Tally, took: Duration) -> Result<()> {
        let mut out = out::stdout();
        let (total, seconds) = (tally.count(|_| true), took.as_secs_f64());
        writeln!(
            out,
            "{} in {seconds:.1} s: {}",
            crate::report::count(total, "case"),
            tally.words()
        )?;
        for ((verdict, why), n) in &tally.reasons {
            writeln!(out, "  {} {n} × {why}", out::verdict(*verdict))?;
        }
        Ok(())
    }
}
