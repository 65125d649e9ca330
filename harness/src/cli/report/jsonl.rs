//! A JSON object a line; `results/schema/run-2.json` describes them.

use super::super::out;
use super::{Head, Seen, Tally, Writer, suite};
use crate::export::facts;
use anyhow::Result;
use serde_json::json;
use std::collections::BTreeMap;
use std::io::Write;
use std::time::Duration;

pub(super) struct Jsonl;

impl Writer for Jsonl {
    fn begin(&mut self, head: &Head<'_>) -> Result<()> {
        let head = json!({
            "type": "run", "schema": uffd_results::SCHEMA, "kernel": head.kernel,
            "environment": head.environment, "suite": suite(), "cases": head.cases,
        });
        writeln!(out::stdout(), "{head}")?;
        Ok(())
    }

    fn case(&mut self, Seen { case, outcome, judgement }: &Seen<'_>) -> Result<()> {
        let mut line = json!({
            "type": "case", "id": case.id(), "verdict": judgement.verdict.word(),
            "end": outcome.end.word(), "facts": facts(outcome),
        });
        if !outcome.detail.is_empty() {
            line["detail"] = outcome.detail.clone().into();
        }
        if !judgement.differences.is_empty() {
            line["differences"] = judgement
                .differences
                .iter()
                .map(|d| {
                    let e = &d.expected;
                    json!({"fact": e.fact, "expected": e.value, "seen": d.seen, "source": e.source})
                })
                .collect();
        }
        writeln!(out::stdout(), "{line}")?;
        Ok(())
    }

    fn end(&mut self, tally: &Tally, _took: Duration) -> Result<()> {
        let verdicts: BTreeMap<&str, usize> =
            tally.verdicts.iter().map(|(v, n)| (v.word(), *n)).collect();
        writeln!(out::stdout(), "{}", json!({"type": "end", "verdicts": verdicts}))?;
        Ok(())
    }
}
