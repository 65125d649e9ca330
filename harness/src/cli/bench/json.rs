//! `bench --format jsonl`: an object a line, whatever is shown.

use crate::bench::check::{Apart, Found};
use anyhow::Result;
use serde_json::json;
use std::io::Write;
use uffd_results::bench::Measured;
use uffd_suites::bench::Operation;

/// An operation a line, each with the kernel that it was measured on.
pub(super) fn costs(out: &mut dyn Write, measured: &Measured) -> Result<()> {
    for operation in &measured.operations {
        let line = json!({
            "release": measured.kernel.release,
            "upstream": measured.kernel.upstream,
            "accelerator": measured.environment.accelerator,
            "unit": measured.unit,
            "operation": operation,
        });
        writeln!(out, "{line}")?;
    }
    Ok(())
}

/// How far the best of some runs are apart, an operation a line.
pub(super) fn apart(out: &mut dyn Write, runs: &[Measured], all: &[Apart]) -> Result<()> {
    let Some(first) = runs.first() else { return Ok(()) };
    for Apart { id, least, most, by, allowed } in all {
        let line = json!({
            "release": first.kernel.release,
            "unit": first.unit,
            "runs": runs.len(),
            "apart": {"id": id, "least": least, "most": most, "percent": by, "allowed": allowed},
        });
        writeln!(out, "{line}")?;
    }
    Ok(())
}

/// Whether the delay of the self-check was found.
pub(super) fn delay(out: &mut dyn Write, measured: &Measured, found: &Found) -> Result<()> {
    let Found { put_in, found: seen, tolerance } = found;
    let line = json!({
        "release": measured.kernel.release,
        "unit": measured.unit,
        "delay": {
            "put_in": put_in, "found": seen, "percent_off": found.off(), "allowed": tolerance,
            "holds": found.holds(),
        },
    });
    Ok(writeln!(out, "{line}")?)
}

/// An operation that can be measured.
pub(super) fn listed(out: &mut dyn Write, operation: &Operation) -> Result<()> {
    let line = json!({
        "id": operation.id(), "about": operation.about, "limit": operation.limit,
    });
    Ok(writeln!(out, "{line}")?)
}
