//! Everything that was recorded, in one place: kernels, probes, cases and what each case showed on
//! each kernel.
//!
//! Belongs here: the table itself and how it is made of records. How it is written down stands in
//! `text`, what the sources expect where nothing was recorded in `apart`, what it answers in [`lookup`](crate::lookup), [`support`](crate::support) and
//! [`contract`](crate::contract).

mod apart;
mod text;

pub use apart::Apart;
pub use text::DataError;

use crate::outcome::{End, Outcome};
use crate::record::{Record, join_id, split_id};
use crate::version::{KernelVersion, VersionError};
use std::collections::HashMap;

/// A kernel that was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// What it is called beside the others of its dataset: its upstream version; where another has the same,
    /// its release as well, and its machine where that is the same too.
    pub label: String,
    /// Upstream version.
    pub upstream: KernelVersion,
    /// `uname -r`.
    pub release: String,
    /// `uname -v`.
    pub version: String,
    /// `uname -m`.
    pub machine: String,
    /// Version of the distribution's package, if it came from one.
    pub package: Option<String>,
    /// SHA-256 of the boot image, lower-case hex, where it is known.
    pub image_sha256: Option<String>,
    /// `native`, `tcg` or `kvm`.
    pub accelerator: String,
    /// Revision of the suites that asked it.
    pub revision: String,
}

impl Recorded {
    /// What kernels are sorted by: one release can be built for two machines.
    fn order(&self) -> (KernelVersion, &str, &str) {
        (self.upstream, &self.release, &self.machine)
    }

    /// Labels the kernels of a dataset.
    fn label(kernels: &mut [Self]) {
        let labels: Vec<String> = kernels
            .iter()
            .map(|kernel| {
                let Self { upstream, release, machine, .. } = kernel;
                let alike = || kernels.iter().filter(|other| other.upstream == *upstream);
                if alike().count() == 1 {
                    upstream.to_string()
                } else if alike().filter(|other| other.release == *release).count() == 1 {
                    format!("{upstream} ({release})")
                } else {
                    format!("{upstream} ({release}, {machine})")
                }
            })
            .collect();
        for (kernel, label) in kernels.iter_mut().zip(labels) {
            kernel.label = label;
        }
    }
}

/// What a case showed on one kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Cell {
    outcome: u32,
    /// Whether every expected fact was seen; true if the case did not run to its end.
    expected: bool,
}

/// A question of the suite, for [`Dataset::of`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// `suite/name`.
    pub name: String,
    /// What is expected to hold, in one sentence; empty if the suite no longer has it.
    pub statement: String,
    /// Who relies on it.
    pub consumers: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Probe {
    question: Question,
    /// Axes and row of each case, in the order of the axes.
    cases: Vec<(String, u32)>,
}

/// Why a fact differs between a kernel and the one before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    /// Place of the newer kernel among [`Dataset::kernels`].
    pub newer: usize,
    /// `suite/name`.
    pub probe: String,
    /// The fact; `end` where cases ended in different ways.
    pub fact: String,
    /// The source that the newer kernel's expectation names, or what one of the two lacks.
    pub why: String,
}

/// What was recorded: kernels from the oldest to the newest, and every case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dataset {
    kernels: Vec<Recorded>,
    outcomes: Vec<Outcome>,
    rows: Vec<Vec<Option<Cell>>>,
    probes: Vec<Probe>,
    reasons: Vec<Reason>,
    apart: Vec<Apart>,
}

/// A case and what it showed.
#[derive(Clone, Copy, Debug)]
pub struct Case<'d> {
    data: &'d Dataset,
    probe: &'d Probe,
    axes: &'d str,
    row: u32,
}

/// A probe and its cases.
#[derive(Clone, Copy, Debug)]
pub struct ProbeCases<'d> {
    data: &'d Dataset,
    probe: &'d Probe,
}

impl Dataset {
    /// The table of some records, which may be in any order. `questions` are those that the suite
    /// has now; `expected` says of an outcome whether it shows what the suite expects of a kernel,
    /// or nothing for a case that the suite no longer has, which is left out.
    pub fn of(
        records: &[Record],
        questions: Vec<Question>,
        mut expected: impl FnMut(&str, &Outcome, KernelVersion) -> Option<bool>,
    ) -> Result<Self, VersionError> {
        let mut kernels = Vec::new();
        for record in records {
            kernels.push((recorded(record)?, record));
        }
        kernels.sort_by(|(a, _), (b, _)| a.order().cmp(&b.order()));
        let mut cells: HashMap<&str, Vec<Option<Cell>>> = HashMap::new();
        let (mut outcomes, mut places) = (Vec::new(), HashMap::new());
        for (at, (kernel, record)) in kernels.iter().enumerate() {
            for (id, outcome) in record.cases.iter() {
                let Some(expected) = expected(id, outcome, kernel.upstream) else { continue };
                let place = *places.entry(outcome.to_string()).or_insert_with(|| {
                    outcomes.push(outcome.clone());
                    u32::try_from(outcomes.len() - 1).unwrap_or(u32::MAX)
                });
                let expected = outcome.end != End::Done || expected;
                let row = cells.entry(id).or_insert_with(|| vec![None; kernels.len()]);
                row[at] = Some(Cell { outcome: place, expected });
            }
        }
        let mut data = Self {
            kernels: kernels.into_iter().map(|(kernel, _)| kernel).collect(),
            outcomes,
            ..Self::default()
        };
        Recorded::label(&mut data.kernels);
        data.fill(cells, questions);
        Ok(data)
    }

    fn fill(&mut self, cells: HashMap<&str, Vec<Option<Cell>>>, questions: Vec<Question>) {
        let mut questions: HashMap<String, Question> =
            questions.into_iter().map(|q| (q.name.clone(), q)).collect();
        let mut cases: Vec<_> = cells.into_iter().collect();
        cases.sort_by_cached_key(|(id, _)| {
            let (probe, axes) = split_id(id);
            (probe.to_owned(), axes.to_owned())
        });
        let mut rows: HashMap<Vec<Option<Cell>>, u32> = HashMap::new();
        for (id, row) in cases {
            let (name, axes) = split_id(id);
            if self.probes.last().is_none_or(|p| p.question.name != name) {
                let unknown = || Question {
                    name: name.to_owned(),
                    statement: String::new(),
                    consumers: Vec::new(),
                };
                let question = questions.remove(name).unwrap_or_else(unknown);
                self.probes.push(Probe { question, cases: Vec::new() });
            }
            let next = u32::try_from(rows.len()).unwrap_or(u32::MAX);
            let at = *rows.entry(row).or_insert_with_key(|row| {
                self.rows.push(row.clone());
                next
            });
            if let Some(probe) = self.probes.last_mut() {
                probe.cases.push((axes.to_owned(), at));
            }
        }
    }

    /// Adds why facts differ between neighbours.
    pub fn explain(&mut self, reasons: Vec<Reason>) {
        self.reasons = reasons;
    }

    /// Every reason that is known.
    pub fn reasons(&self) -> &[Reason] {
        &self.reasons
    }

    /// Why a fact of a probe is another one on a kernel than on the one before it.
    pub fn why(&self, newer: usize, probe: &str, fact: &str) -> Option<&str> {
        let fits = |r: &&Reason| r.newer == newer && r.probe == probe && r.fact == fact;
        self.reasons.iter().find(fits).map(|reason| reason.why.as_str())
    }

    /// The kernels, from the oldest upstream version to the newest.
    pub fn kernels(&self) -> &[Recorded] {
        &self.kernels
    }

    /// The probes, by name.
    pub fn probes(&self) -> impl Iterator<Item = ProbeCases<'_>> {
        self.probes.iter().map(|probe| ProbeCases { data: self, probe })
    }

    /// A probe by its name, `suite/name`.
    pub fn probe(&self, name: &str) -> Option<ProbeCases<'_>> {
        let at = self.probes.binary_search_by(|p| p.question.name.as_str().cmp(name)).ok()?;
        Some(ProbeCases { data: self, probe: &self.probes[at] })
    }

    /// Whether any case shows a fact of that name; all have an `end`.
    pub fn shows(&self, fact: &str) -> bool {
        fact == "end" || self.outcomes.iter().any(|outcome| outcome.facts.get(fact).is_some())
    }

    /// Every case, by probe and axes.
    pub fn cases(&self) -> impl Iterator<Item = Case<'_>> {
        self.probes().flat_map(ProbeCases::cases)
    }

    /// A case by its id.
    pub fn case(&self, id: &str) -> Option<Case<'_>> {
        let (name, axes) = split_id(id);
        let ProbeCases { data, probe } = self.probe(name)?;
        let at = probe.cases.binary_search_by(|(a, _)| a.as_str().cmp(axes)).ok()?;
        let (axes, row) = &probe.cases[at];
        Some(Case { data, probe, axes, row: *row })
    }
}

impl<'d> ProbeCases<'d> {
    /// `suite/name`.
    pub fn name(self) -> &'d str {
        &self.probe.question.name
    }

    /// The suite.
    pub fn suite(self) -> &'d str {
        self.name().split_once('/').map_or(self.name(), |(suite, _)| suite)
    }

    /// What is expected to hold, in one sentence.
    pub fn statement(self) -> &'d str {
        &self.probe.question.statement
    }

    /// Who relies on it.
    pub fn consumers(self) -> &'d [String] {
        &self.probe.question.consumers
    }

    /// Its cases, by their axes.
    pub fn cases(self) -> impl Iterator<Item = Case<'d>> {
        let Self { data, probe } = self;
        probe.cases.iter().map(move |(axes, row)| Case { data, probe, axes, row: *row })
    }
}

impl<'d> Case<'d> {
    /// The id.
    pub fn id(self) -> String {
        join_id(&self.probe.question.name, self.axes)
    }

    /// Its probe.
    pub fn probe(self) -> ProbeCases<'d> {
        ProbeCases { data: self.data, probe: self.probe }
    }

    /// Its axes as the id writes them, without brackets.
    pub fn axes(self) -> &'d str {
        self.axes
    }

    /// The value of an axis.
    pub fn axis(self, name: &str) -> Option<&'d str> {
        self.axes
            .split(',')
            .filter_map(|a| a.split_once('='))
            .find(|(n, _)| *n == name)
            .map(|a| a.1)
    }

    fn cell(self, kernel: usize) -> Option<Cell> {
        *self.data.rows.get(self.row as usize)?.get(kernel)?
    }

    /// What it showed on a kernel, by its place among [`Dataset::kernels`].
    pub fn outcome(self, kernel: usize) -> Option<&'d Outcome> {
        self.data.outcomes.get(self.cell(kernel)?.outcome as usize)
    }

    /// What it showed, unless that is no answer: a skip says nothing of the kernel, but that it
    /// lacks the feature does.
    pub fn answer(self, kernel: usize) -> Option<&'d Outcome> {
        self.outcome(kernel).filter(|outcome| is_answer(outcome.end))
    }

    /// Whether it ran to its end and showed every fact that the suite expects of that kernel.
    pub fn is_as_expected(self, kernel: usize) -> bool {
        let done = self.outcome(kernel).is_some_and(|outcome| outcome.end == End::Done);
        done && self.cell(kernel).is_some_and(|cell| cell.expected)
    }

    /// A fact on a kernel: `None` unless that kernel was asked and answered; [`NONE`] if it
    /// answered and the fact was not observed. The fact `end` is how the case ended.
    pub fn fact(self, kernel: usize, name: &str) -> Option<&'d str> {
        Some(self.answer(kernel)?.value(name))
    }
}

/// The value of a fact that was not observed.
pub const NONE: &str = "(none)";

/// Whether a case that ended so says something of the kernel.
pub const fn is_answer(end: End) -> bool {
    matches!(end, End::Done | End::Hang | End::Killed | End::Panic | End::Unsupported)
}

fn recorded(record: &Record) -> Result<Recorded, VersionError> {
    let kernel = &record.kernel;
    Ok(Recorded {
        label: String::new(),
        upstream: record.upstream()?,
        release: kernel.release.clone(),
        version: kernel.version.clone(),
        machine: kernel.machine.clone(),
        package: kernel.package.as_ref().map(|package| package.version.clone()),
        image_sha256: kernel.image_sha256.clone(),
        accelerator: record.environment.accelerator.clone(),
        revision: record.suite.revision.clone(),
    })
}

#[cfg(test)]
pub(crate) mod tests;
