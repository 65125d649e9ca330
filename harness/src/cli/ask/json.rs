//! The answer of `ask` for programs: a line for every case and kernel.

use super::super::Exit;
use super::AskArgs;
use crate::ask::Asked;
use crate::ask::choose::Chosen;
use crate::ask::gather::{Cell, Table};
use crate::ask::say::{clauses, subject};
use anyhow::Result;
use serde_json::{Map, Value, json};
use std::io::Write;
use uffd_results::Dataset;

pub(super) fn write(
    out: &mut dyn Write,
    args: &AskArgs,
    chosen: Chosen,
    data: &Dataset,
) -> Result<Exit> {
    let Chosen { recorded, others, .. } = chosen;
    let mut exit = Exit::Nothing;
    let table = Table::of(recorded, data);
    for column in table.columns(&args.kernel)? {
        for (asked, cell) in table.cases.iter().zip(&column.cells) {
            if cell.seen.is_some() {
                exit = Exit::Expected;
            }
            writeln!(out, "{}", line(&table, asked, &column.label, cell))?;
        }
    }
    for asked in others {
        let run = format!("uffd-conform run '{}'", asked.id);
        writeln!(
            out,
            "{}",
            json!({"case": asked.id, "axes": axes(&asked), "recorded": false, "run": run})
        )?;
    }
    Ok(exit)
}

fn line(table: &Table<'_>, asked: &Asked, kernel: &str, cell: &Cell<'_>) -> Value {
    let releases: Vec<&str> = cell.basis.iter().map(|(k, _)| k.release.as_str()).collect();
    let case = table.data.case(&asked.id);
    let place = cell.basis.first().and_then(|(basis, _)| {
        table.data.kernels().iter().position(|kernel| std::ptr::eq(kernel, *basis))
    });
    let outcome = cell.seen.and_then(|_| case?.answer(place?));
    let facts: Option<Map<String, Value>> = outcome.map(|outcome| {
        let facts = outcome.facts.iter();
        facts.map(|fact| (fact.name.to_string(), Value::from(fact.value.as_str()))).collect()
    });
    let subject = subject(std::iter::once(asked.axis("waiter")));
    let says: Vec<String> = cell.seen.map_or(Vec::new(), |seen| {
        let said = clauses(&table.seen[seen], asked.is_point(), subject);
        said.into_iter().map(|clause| clause.text).collect()
    });
    json!({
        "case": asked.id, "axes": axes(asked), "recorded": true, "kernel": kernel,
        "certainty": cell.certainty.word(), "why": cell.why.map(|why| why.to_string()),
        "rests_on": releases, "end": outcome.map(|o| o.end.word()), "says": says, "facts": facts,
    })
}

fn axes(asked: &Asked) -> Map<String, Value> {
    asked.axes().map(|(name, value)| (name.to_owned(), Value::from(value))).collect()
}
