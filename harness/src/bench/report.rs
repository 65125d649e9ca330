//! BENCH.md: what operations cost on every recorded kernel, in instructions; which changed from one kernel
//! to the next, and why.

use super::notes::Note;
use super::show::cost;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use uffd_results::bench::{Measured, Operation, Unit};

/// A change that is a finding, in per cent.
pub const FINDING: u64 = 5;

fn is_finding((old, new): (u64, u64)) -> bool {
    old.abs_diff(new) * 100 > old * FINDING
}

/// How an operation's cost has changed from one kernel to the next.
#[derive(Clone, Debug, PartialEq)]
pub struct Change<'a> {
    /// The operation.
    pub id: &'a str,
    /// The newer kernel's place among the kernels.
    pub kernel: usize,
    /// The older kernel's cost, the newer one's.
    pub costs: (u64, u64),
    /// What explains it, if anything does.
    pub note: Option<&'a Note>,
}

impl Change<'_> {
    /// In per cent of the older cost.
    pub fn per_cent(&self) -> f64 {
        per_cent(self.costs)
    }
}

#[expect(clippy::cast_precision_loss, reason = "costs of one call stay below 2^52")]
fn per_cent((old, new): (u64, u64)) -> f64 {
    (new as f64 / old.max(1) as f64 - 1.0) * 100.0
}

/// The kernels of the table: those whose instructions were counted, from the oldest to the newest.
pub fn counted(all: &[Measured]) -> Vec<&Measured> {
    all.iter().filter(|measured| measured.unit == Unit::Instructions).collect()
}

/// Every change between neighbours that is large enough to be a finding, by kernel and operation.
pub fn changes<'a>(kernels: &[&'a Measured], notes: &'a [Note]) -> Vec<Change<'a>> {
    let mut found = Vec::new();
    for (n, pair) in kernels.windows(2).enumerate() {
        let (old, new) = (pair[0], pair[1]);
        for operation in &new.operations {
            let before = old.operation(&operation.id).and_then(Operation::best);
            let Some(costs) = before.zip(operation.best()) else { continue };
            if is_finding(costs) {
                let note = notes.iter().find(|note| note.covers(&operation.id, new));
                found.push(Change { id: &operation.id, kernel: n + 1, costs, note });
            }
        }
    }
    found
}

/// Notes that explain no change.
pub fn idle<'a>(changes: &[Change<'_>], notes: &'a [Note]) -> Vec<&'a Note> {
    let used = |note: &&Note| changes.iter().any(|change| change.note == Some(note));
    notes.iter().filter(|note| !used(note)).collect()
}

const HEAD: &str = "\
# What operations cost

Instructions that a guest executes for one call, kernel and program together, on one emulated CPU: the least
of all calls. They repeat on any machine; they are no times, and a cache miss costs as much as a hit. How they
are counted, and how to read them: [docs/benchmarks.md](../docs/benchmarks.md). Written by `uffd-conform
matrix` from the files below `bench`.

";

/// The page; `None` if no kernel's instructions were counted.
pub fn markdown(all: &[Measured], notes: &[Note]) -> Option<String> {
    let kernels = counted(all);
    let newest = kernels.last()?;
    let changes = changes(&kernels, notes);
    let mut text = HEAD.to_owned();
    table(&mut text, &kernels, newest);
    findings(&mut text, &kernels, &changes);
    limits(&mut text, newest);
    Some(text)
}

/// Versions as heads of columns.
fn versions(kernels: &[&Measured]) -> Vec<String> {
    kernels.iter().map(|measured| measured.kernel.upstream.clone()).collect()
}

fn table(text: &mut String, kernels: &[&Measured], newest: &Measured) {
    text.push_str(
        "## Every kernel\n\nInstructions, and in brackets the change in per cent against the column before \
         where it is more than 5; a dash where the kernel lacks it.\n\n",
    );
    let _ = writeln!(text, "| operation | {} |", versions(kernels).join(" | "));
    let _ = writeln!(text, "| --- |{}", " ---: |".repeat(kernels.len()));
    let mut lacking = Vec::new();
    for operation in &newest.operations {
        let id = &operation.id;
        let costs: Vec<Option<u64>> =
            kernels.iter().map(|k| k.operation(id).and_then(Operation::best)).collect();
        if costs.iter().all(Option::is_none) {
            lacking.push(format!(
                "- `{id}`: {}",
                operation.missing.as_deref().unwrap_or("not measured")
            ));
            continue;
        }
        let _ = write!(text, "| `{id}` |");
        for (n, now) in costs.iter().enumerate() {
            let before = n.checked_sub(1).and_then(|before| costs[before]);
            let Some(now) = *now else {
                text.push_str(" - |");
                continue;
            };
            let _ = write!(text, " {}", cost(now, Unit::Instructions));
            match before.map(|before| (before, now)).filter(|costs| is_finding(*costs)) {
                Some(costs) => {
                    let _ = write!(text, " ({:+.0}) |", per_cent(costs));
                }
                None => text.push_str(" |"),
            }
        }
        text.push('\n');
    }
    if !lacking.is_empty() {
        let _ = writeln!(text, "\nMeasured on no kernel here:\n\n{}", lacking.join("\n"));
    }
}

fn findings(text: &mut String, kernels: &[&Measured], changes: &[Change<'_>]) {
    let explained = changes.iter().filter(|change| change.note.is_some()).count();
    let _ = writeln!(
        text,
        "\n## What changed\n\n{} changes of more than {FINDING} % between neighbours, {explained} of them \
         explained.",
        changes.len()
    );
    let mut by_kernel: BTreeMap<usize, Vec<&Change<'_>>> = BTreeMap::new();
    for change in changes {
        by_kernel.entry(change.kernel).or_default().push(change);
    }
    for (kernel, changes) in by_kernel {
        let (old, new) = (&kernels[kernel - 1].kernel, &kernels[kernel].kernel);
        let _ = writeln!(text, "\n### {} to {}\n", old.upstream, new.upstream);
        let mut notes: Vec<&Note> = changes.iter().filter_map(|change| change.note).collect();
        notes.dedup();
        let mut told: Vec<&Note> = Vec::new();
        for note in notes {
            if told.contains(&note) {
                continue;
            }
            told.push(note);
            let of_it: Vec<String> =
                changes.iter().filter(|c| c.note == Some(note)).map(|c| line(c)).collect();
            let _ = writeln!(text, "- {} ({})\n{}", note.says, note.source, indented(&of_it));
        }
        let rest: Vec<String> =
            changes.iter().filter(|c| c.note.is_none()).map(|c| line(c)).collect();
        if !rest.is_empty() {
            let _ = writeln!(text, "- No explanation found:\n{}", indented(&rest));
        }
    }
}

fn line(change: &Change<'_>) -> String {
    let (old, new) = change.costs;
    let cost = |n| cost(n, Unit::Instructions);
    format!("`{}` {} to {} ({:+.0} %)", change.id, cost(old), cost(new), change.per_cent())
}

fn indented(lines: &[String]) -> String {
    lines.iter().map(|line| format!("  - {line}")).collect::<Vec<_>>().join("\n")
}

/// The newest kernel's costs beside their limits.
fn limits(text: &mut String, newest: &Measured) {
    let _ = writeln!(
        text,
        "\n## Beside the limits\n\nOn {}: half of the calls cost no more, the limit the same, and how many \
         times the limit that is.\n\n| operation | p50 | p99 | limit | p50 of it | times |\n| --- | ---: | \
         ---: | --- | ---: | ---: |",
        newest.kernel.upstream
    );
    for operation in &newest.operations {
        let (Some(sample), Some(limit)) = (operation.sample, &operation.limit) else { continue };
        let cost = |n| cost(n, Unit::Instructions);
        let of_limit = operation.limit_sample.map_or_else(
            || operation.limit_missing.clone().unwrap_or_default(),
            |limit| cost(limit.p50),
        );
        let times = operation.ratio.map_or_else(String::new, |ratio| format!("{:.2}", ratio.mid));
        let _ = writeln!(
            text,
            "| `{}` | {} | {} | `{limit}` | {of_limit} | {times} |",
            operation.id,
            cost(sample.p50),
            cost(sample.p99)
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::testing::measured;

    const COPY: &str = "copy/pages[backing=anon,size=4k]";
    const WAKE: &str = "wake/parked[waiters=1]";

    fn note(operation: &str, kernel: &str) -> Note {
        let (operation, kernel) = (operation.into(), kernel.into());
        Note { operation, kernel, says: "Folios.".into(), source: "a commit".into() }
    }

    #[test]
    fn only_a_change_of_more_than_five_per_cent_is_one() {
        let old = measured("6.1.1", &[(COPY, 1000), (WAKE, 1000)]);
        let new = measured("6.12.1", &[(COPY, 1050), (WAKE, 949)]);
        let notes = [note("wake/", "6.12"), note("copy/", "6.12")];
        let found = changes(&[&old, &new], &notes);
        let [change] = &found[..] else { panic!("{found:?}") };
        assert_eq!((change.id, change.costs, change.note), (WAKE, (1000, 949), Some(&notes[0])));
        assert_eq!(idle(&found, &notes), [&notes[1]]);
    }

    #[test]
    fn what_a_kernel_lacks_is_no_change() {
        let old = measured("6.1.1", &[(COPY, 1000)]);
        let new = measured("6.12.1", &[(COPY, 1000), (WAKE, 949)]);
        assert_eq!(changes(&[&old, &new], &[]), []);
    }

    #[test]
    fn the_page_tells_explained_and_unexplained_changes_apart() {
        let old = measured("6.1.1", &[(COPY, 1000), (WAKE, 1000)]);
        let new = measured("6.12.1", &[(COPY, 1200), (WAKE, 500)]);
        let text = markdown(&[old, new], &[note("copy/", "6.12")]).expect("a page");
        assert!(
            text.contains("2 changes of more than 5 % between neighbours, 1 of them"),
            "{text}"
        );
        assert!(text.contains("- Folios. (a commit)\n  - `copy/pages"), "{text}");
        assert!(text.contains("- No explanation found:\n  - `wake/parked"), "{text}");
        assert!(text.contains("| 1000 | 1200 (+20) |"), "{text}");
    }

    #[test]
    fn times_are_not_on_the_page() {
        let mut times = measured("6.1.1", &[(COPY, 1000)]);
        times.unit = Unit::Nanoseconds;
        assert_eq!(markdown(&[times], &[]), None);
    }
}
