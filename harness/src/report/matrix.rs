//! MATRIX.md: statements against recorded kernels, differences first. Made from records alone, so
//! equal records give equal bytes.

use super::markdown::{code, head, row};
use super::series::{self, Series};
use super::{changes, claims, contracts};
use crate::judge::judge;
use crate::known::Known;
use crate::notes::Note;
use anyhow::Result;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Write as _;
use uffd_results::{Dataset, Record, Verdict};
use uffd_suites::probe::{Case, Probe};

/// What the words of the matrix mean.
pub const LEGEND: &str = "\
A *case* is one question with one value for every axis; a *statement* covers all cases of a probe.
A cell counts cases by verdict:

| word | meaning |
| --- | --- |
| pass | every expected fact was seen |
| differs | the case ended and saw something else than expected |
| hang, killed, panic | an operation did not end, the process died, the kernel went down |
| unsupported | this kernel lacks the feature |
| precondition | the machine under the kernel lacks something |
| flaky, broken, not-run | repetitions disagree, the harness is at fault, it was not asked |

A column is a series; `a → b` is what its recorded releases say in turn, from the oldest to the
newest. `uffd-conform show CASE` prints everything that is known of a case.
";

/// The text of the matrix; `known` is what the records make, `notes` what a person has found out about them.
pub fn markdown(records: &[Record], known: &Known, notes: &[Note]) -> Result<String> {
    let cases = uffd_suites::cases();
    let columns = series::all(records)?;
    let changes = changes::changes(&known.data, &cases, notes);
    let mut out = String::from("# Compatibility matrix\n\n");
    let revisions: HashSet<&str> = records.iter().map(|r| r.suite.revision.as_str()).collect();
    let _ = writeln!(
        out,
        "What {} kernels of {} series did. Written by `uffd-conform matrix` from `records/`; do not \
         edit.{}\n",
        records.len(),
        columns.len(),
        if revisions.len() > 1 { " **The records are of different suite revisions.**" } else { "" },
    );
    out += "## How to read it\n\n";
    out += LEGEND;
    out += "\n## What was claimed\n\n";
    out += &claims::table(records)?;
    out += "\n## What differs between kernels\n\n";
    out += &differences(&known.data, &changes);
    out += "\n## Statements\n\nStatements whose facts differ between kernels come first.\n\n";
    let marked: HashSet<&str> =
        changes.iter().flat_map(|change| change.probes.iter().map(String::as_str)).collect();
    out += &statements(&cases, &columns, &marked);
    if !known.contracts.is_empty() {
        out += "\n## What programs assume\n\n";
        out += &contracts::tables(known, &columns);
    }
    out += "\n## Kernels\n\n";
    out += &kernels(records);
    Ok(out)
}

fn differences(data: &Dataset, changes: &[changes::Change]) -> String {
    let (skips, changes): (Vec<_>, Vec<_>) = changes.iter().partition(|c| c.is_only_skip());
    if changes.is_empty() && skips.is_empty() {
        return "Nothing: every kernel gave the same answers.\n".to_owned();
    }
    let mut out = String::from(
        "Each row is two recorded releases that stand side by side, and the first fact in which cases \
         differ between them; what follows from it is not named. `(none)` is a fact that was not \
         observed. The reason is the source of what is expected of the newer one, or what the one of \
         the two lacks.\n\n",
    );
    let names = ["between", "fact", "values", "probes", "cases", "why"];
    out += &head(names.map(str::to_owned).into());
    for change in changes.into_iter().chain(skips) {
        let fact = if change.is_only_skip() { "could not be asked" } else { &change.fact };
        out += &row([
            change.pair(data),
            format!("`{fact}`"),
            change.turn_in_code(),
            change.probes_in_code(),
            change.cases(),
            change.why(),
        ]);
    }
    out
}

fn statements(cases: &[Case], columns: &[Series<'_>], changed: &HashSet<&str>) -> String {
    let mut probes: Vec<&'static Probe> = Vec::new();
    for case in cases {
        if !probes.iter().any(|known| std::ptr::eq(*known, case.probe)) {
            probes.push(case.probe);
        }
    }
    probes.sort_by_key(|probe| !changed.contains(probe.to_string().as_str()));
    let tallies = Tallies::new(cases, columns);
    let names = columns.iter().map(|series| series.name.clone());
    let mut out = head(std::iter::once("statement".to_owned()).chain(names).collect());
    for probe in probes {
        let id = probe.to_string();
        let mark = if changed.contains(id.as_str()) { " (differs between kernels)" } else { "" };
        let statement = format!("{}{mark} <br>`{id}`", probe.statement);
        let cells = columns.iter().map(|series| series.cell(|record| tallies.cell(record, &id)));
        out += &row(std::iter::once(statement).chain(cells));
    }
    out
}

/// Verdicts counted by record and probe.
struct Tallies(HashMap<Place, BTreeMap<Verdict, usize>>);

/// Machine and release of a record, and a probe: one release can be recorded on two machines.
type Place = (String, String, String);

fn place(record: &Record, probe: String) -> Place {
    (record.kernel.machine.clone(), record.kernel.release.clone(), probe)
}

impl Tallies {
    fn new(cases: &[Case], columns: &[Series<'_>]) -> Self {
        let known: HashMap<String, &Case> = cases.iter().map(|case| (case.id(), case)).collect();
        let mut tallies: HashMap<_, BTreeMap<Verdict, usize>> = HashMap::new();
        for record in columns.iter().flat_map(|series| &series.records) {
            let Ok(version) = record.upstream() else { continue };
            for (id, outcome) in record.cases.iter() {
                let Some(case) = known.get(id) else { continue };
                let verdict = judge(case, outcome, version).verdict;
                let place = place(record, case.probe.to_string());
                *tallies.entry(place).or_default().entry(verdict).or_default() += 1;
            }
        }
        Self(tallies)
    }

    fn cell(&self, record: &Record, probe: &str) -> String {
        let Some(tally) = self.0.get(&place(record, probe.to_owned())) else {
            return "not asked".to_owned();
        };
        let words: Vec<String> =
            tally.iter().map(|(verdict, n)| format!("{verdict} {n}")).collect();
        words.join(", ")
    }
}

fn kernels(records: &[Record]) -> String {
    let names =
        ["kernel", "release", "package", "accelerator", "suite", "cases", "features of UFFDIO_API"];
    let mut out = head(names.map(str::to_owned).into());
    for record in records {
        let Record { kernel, environment, suite, cases, .. } = record;
        let package = kernel
            .package
            .as_ref()
            .map_or("own image".to_owned(), |p| format!("{} {}", code(&p.name), code(&p.version)));
        out += &row([
            kernel.upstream.clone(),
            code(&kernel.release),
            package,
            code(&environment.how()),
            code(&suite.revision),
            cases.len().to_string(),
            code(&environment.uffd_features.join(" ")),
        ]);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::known;
    use crate::store::Store;
    use std::path::Path;

    /// Of each case one of both shows something else: each is counted for itself.
    #[test]
    fn a_release_on_two_machines_is_counted_for_each() {
        let folder = tempfile::tempdir().expect("a folder");
        let (golden, store) = (
            Store::new(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden"))),
            Store::new(folder.path()),
        );
        let one = golden.load().expect("stored records").remove(0);
        let mut other = one.clone();
        other.kernel.machine = "aarch64".into();
        for record in [&one, &other] {
            store.save(record).expect("written");
        }
        let markdown = |store: &Store| {
            let records = store.load().expect("records");
            let known = known::of(&records, store).expect("known");
            let text = markdown(&records, &known, &[]).expect("versions");
            assert_eq!(Dataset::parse(&known.data.to_text()), Ok(known.data));
            let all = text.lines().filter(|line| line.contains("<br>`")).map(str::to_owned);
            (records.len(), all.collect::<Vec<_>>())
        };
        let (count, both) = markdown(&store);
        std::fs::remove_file(store.path(&other.kernel).expect("a place")).expect("removed");
        let (_, alone) = markdown(&store);
        assert_eq!((count, alone.len() > 50), (2, true));
        assert_eq!(both, alone, "two that agree are one cell, with the cases of one");
    }
}
