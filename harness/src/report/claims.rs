//! The table of the mail thread's claims, true or false on each series.

use super::series::{self, Series};
use anyhow::Result;
use uffd_results::Record;

/// How often a claim was true among the cases where it is not moot.
fn truth(record: &Record, probe: &str) -> String {
    let prefix = format!("{probe}[");
    let claims = record
        .cases
        .iter()
        .filter(|(id, _)| id.starts_with(&prefix))
        .filter_map(|(_, outcome)| outcome.facts.get("claim"));
    let (mut yes, mut no) = (0, 0);
    for claim in claims {
        match claim {
            "true" => yes += 1,
            "false" => no += 1,
            _ => {}
        }
    }
    match (yes, no) {
        (0, 0) => "not asked".to_owned(),
        (_, 0) => "true".to_owned(),
        (0, _) => "**false**".to_owned(),
        (yes, no) => format!("true in {yes} of {}", yes + no),
    }
}

/// The table in Markdown: a claim a row, a series a column.
pub fn table(records: &[Record]) -> Result<String> {
    let columns = series::all(records)?;
    let name = |series: &Series<'_>| series.name.clone();
    let mut out =
        series::head(std::iter::once("claim".to_owned()).chain(columns.iter().map(name)).collect());
    let mut last = None;
    for case in uffd_suites::cases().iter().filter(|case| case.probe.suite == "claims") {
        if last == Some(case.probe.name) {
            continue;
        }
        last = Some(case.probe.name);
        let probe = case.probe.to_string();
        let statement = format!("{} <br>`{probe}`", case.probe.statement);
        let cells = columns.iter().map(|series| series.cell(|record| truth(record, &probe)));
        out += &series::row(std::iter::once(statement).chain(cells));
    }
    Ok(out)
}
