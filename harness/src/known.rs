//! What is known, as one table: the records of a folder with what the suite expects, or, where there
//! is no folder, what is built in.

mod apart;

use crate::contracts;
use crate::judge::judge;
use crate::report::reason;
use crate::store::{Store, StoreError};
use anyhow::Result;
use std::collections::{HashMap, HashSet};
use uffd_results::{Contract, Dataset, Question, Reason, Record, Verdict};
use uffd_suites::probe::Case;

/// Facts and contracts.
#[derive(Debug)]
pub struct Known {
    /// The facts.
    pub data: Dataset,
    /// The contracts, by name.
    pub contracts: Vec<Contract>,
    /// Whether it is what was built in, for want of a folder with records.
    pub built_in: bool,
    /// What was added to the command line of the kernels that it is about; mostly nothing.
    pub line: String,
}

#[cfg(test)]
impl From<Dataset> for Known {
    /// Facts without contracts, of kernels as they are shipped.
    fn from(data: Dataset) -> Self {
        Self { data, contracts: Vec::new(), built_in: false, line: String::new() }
    }
}

/// What stands in a results folder, or what is built in if there is none.
pub fn load(store: &Store) -> Result<Known> {
    match store.load() {
        Ok(records) => of(&records, store),
        Err(StoreError::Empty(_)) => Ok(built_in()),
        Err(e) => Err(e.into()),
    }
}

/// What is built in.
pub fn built_in() -> Known {
    let data = Dataset::recorded().clone();
    Known {
        data,
        contracts: uffd_results::contracts().to_vec(),
        built_in: true,
        line: String::new(),
    }
}

/// What the records of a folder make, with the contracts beside them.
pub fn of(records: &[Record], store: &Store) -> Result<Known> {
    let contracts = contracts::load(store.folder())?;
    Ok(Known { data: dataset(records)?, contracts, built_in: false, line: line(records) })
}

/// What was added to the kernels' command line, which is one in all records of a folder.
pub(crate) fn line(records: &[Record]) -> String {
    records.first().map_or(String::new(), |record| record.environment.append.clone())
}

/// The cases that the suite has, by id.
pub(crate) fn cases() -> HashMap<String, Case> {
    uffd_suites::cases().into_iter().map(|case| (case.id(), case)).collect()
}

/// The table of some records, without cases that the suite does not have.
pub fn dataset(records: &[Record]) -> Result<Dataset> {
    made_of(records, None)
}

/// The table of some records with all of their cases. Of one that the suite does not have, nothing
/// is expected: whatever it shows passes.
pub fn whole_dataset(records: &[Record]) -> Result<Dataset> {
    made_of(records, Some(true))
}

fn made_of(records: &[Record], unknown: Option<bool>) -> Result<Dataset> {
    let cases = cases();
    let mut data = Dataset::of(records, questions(cases.values()), |id, outcome, kernel| {
        let case = cases.get(id);
        case.map(|case| judge(case, outcome, kernel).verdict == Verdict::Pass).or(unknown)
    })?;
    let reasons = reasons(&data, &cases);
    data.explain(reasons);
    let apart = apart::between_series(&data, &cases);
    data.set_apart(apart);
    Ok(data)
}

fn questions<'a>(cases: impl Iterator<Item = &'a Case>) -> Vec<Question> {
    let mut seen = HashSet::new();
    cases
        .filter(|case| seen.insert(case.probe.to_string()))
        .map(|case| Question {
            name: case.probe.to_string(),
            statement: case.probe.statement.to_owned(),
            consumers: case.probe.consumers.iter().map(|c| (*c).to_owned()).collect(),
        })
        .collect()
}

/// Why facts differ between neighbours, once for each probe, fact and kernel.
fn reasons(data: &Dataset, cases: &HashMap<String, Case>) -> Vec<Reason> {
    let (mut reasons, mut told) = (Vec::new(), HashSet::new());
    for statement in data.statements() {
        let (probe, fact) = (statement.probe.name(), statement.fact);
        for group in &statement.groups {
            for pair in group.support.runs().windows(2) {
                let (older, newer) = (pair[0].last, pair[1].first);
                if told.contains(&(newer, probe, fact)) {
                    continue;
                }
                let asked = group.cases[0];
                let why = (|| {
                    let outcomes = (asked.answer(older)?, asked.answer(newer)?);
                    let version = |at: usize| Some(data.kernels().get(at)?.upstream);
                    let versions = (version(older)?, version(newer)?);
                    reason(cases.get(&asked.id())?, fact, outcomes, versions)
                })();
                if let Some(why) = why {
                    told.insert((newer, probe, fact));
                    let (probe, fact) = (probe.to_owned(), fact.to_owned());
                    reasons.push(Reason { newer, probe, fact, why });
                }
            }
        }
    }
    reasons
}
