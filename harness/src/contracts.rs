//! Contracts on disk: `contracts/*.toml` of a results folder, read and held against what they name.

use crate::toml_file;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use uffd_results::{Assumption, Contract, Dataset, SHARED};

/// Why contracts can't be read.
#[derive(Debug, thiserror::Error)]
pub enum ContractError {
    /// A file or folder could not be read.
    #[error("reading {path}: {error}")]
    Read {
        /// What was read.
        path: PathBuf,
        /// Why it failed.
        error: std::io::Error,
    },
    /// A file is not a contract.
    #[error("{path} is not a contract, mend it or take it out of that folder: {error}")]
    Toml {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, with the place.
        error: Box<toml::de::Error>,
    },
    /// What a file says can't be.
    #[error(
        "{path} is no contract that can be used, mend it or take it out of that folder: {what}"
    )]
    Wrong {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
}

/// The contracts of a results folder, by name; those that are built in if it has none, as a folder with records
/// alone.
pub fn load(results: &Path) -> Result<Vec<Contract>, ContractError> {
    let folder = results.join("contracts");
    let read = |path: &Path, error| ContractError::Read { path: path.to_owned(), error };
    let entries = match fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            return Ok(uffd_results::contracts().to_vec());
        }
        Err(e) => return Err(read(&folder, e)),
    };
    let mut contracts = BTreeMap::new();
    for entry in entries {
        let path = entry.map_err(|e| read(&folder, e))?.path();
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        if path.extension().is_none_or(|e| e != "toml") || name.starts_with('.') {
            continue;
        }
        if !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)) {
            let what = "its name is not of letters, digits and dashes".to_owned();
            return Err(ContractError::Wrong { path, what });
        }
        let text = fs::read_to_string(&path).map_err(|e| read(&path, e))?;
        contracts.insert(name.clone(), parse(&name, &text, &path)?);
    }
    let contracts: Vec<Contract> = contracts.into_values().collect();
    let ids: HashSet<&str> = shared(&contracts).keys().copied().collect();
    for contract in &contracts {
        if let Some(share) = contract.shares.iter().find(|s| !ids.contains(s.id.as_str())) {
            let path = folder.join(format!("{}.toml", contract.name));
            let what = format!("shares {:?}, which {SHARED}.toml does not have", share.id);
            return Err(ContractError::Wrong { path, what });
        }
    }
    Ok(contracts)
}

/// Reads one contract.
pub(crate) fn parse(name: &str, text: &str, path: &Path) -> Result<Contract, ContractError> {
    let mut contract: Contract = toml_file::parse(text)
        .map_err(|e| ContractError::Toml { path: path.to_owned(), error: Box::new(e) })?;
    name.clone_into(&mut contract.name);
    let wrong = |what: String| Err(ContractError::Wrong { path: path.to_owned(), what });
    for Assumption { id, needs, not_asked, .. } in &contract.assumptions {
        match (needs.is_empty(), not_asked) {
            (true, None) => return wrong(format!("{id}: neither `needs` nor `not-asked`")),
            (false, Some(_)) => return wrong(format!("{id}: both `needs` and `not-asked`")),
            _ => {}
        }
        if let Some(need) = needs.iter().find(|n| n.cases.is_empty() || n.facts.is_empty()) {
            return wrong(format!("{id}: a need without cases or facts: {need:?}"));
        }
    }
    Ok(contract)
}

/// The assumptions that others share, by id.
pub fn shared(contracts: &[Contract]) -> HashMap<&str, &Assumption> {
    let shared = contracts.iter().filter(|contract| contract.name == SHARED);
    shared.flat_map(|c| &c.assumptions).map(|a| (a.id.as_str(), a)).collect()
}

/// What is wrong with contracts, given what was recorded: ids that stand twice, filters that find
/// no case, facts that no such case shows.
pub fn lint(contracts: &[Contract], data: &Dataset) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut seen = HashSet::new();
    let ids: Vec<String> = data.cases().map(uffd_results::Case::id).collect();
    for (contract, assumption) in
        contracts.iter().flat_map(|c| c.assumptions.iter().map(move |a| (c, a)))
    {
        let place = format!("{}.toml, {}", contract.name, assumption.id);
        if !seen.insert(&assumption.id) {
            wrong.push(format!("{place}: this id stands twice"));
        }
        if assumption.r#where.is_empty() {
            wrong.push(format!("{place}: where does the program rely on it?"));
        }
        for need in &assumption.needs {
            for filter in need.cases.iter().chain(&need.except) {
                if !ids.iter().any(|id| uffd_results::id_matches(filter, id)) {
                    wrong.push(format!("{place}: no recorded case matches {filter:?}"));
                }
            }
            for fact in need.facts.keys() {
                let shows = data.cases().filter(|case| need.takes(&case.id())).any(|case| {
                    let mut all = 0..data.kernels().len();
                    fact == "end"
                        || all.any(|i| case.answer(i).is_some_and(|o| o.facts.get(fact).is_some()))
                });
                if !shows {
                    wrong.push(format!("{place}: no such case shows the fact {fact:?}"));
                }
            }
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    const GOOD: &str = r#"
        title = "Test"
        about = "Tests."
        snapshot = "1.0"
        [[assumption]]
        id = "test.a"
        says = "It fills."
        where = ["file.c: function()"]
        breaks = "hang"
        effect = "It hangs."
        needs = [{ cases = ["copy/"], facts = { copy = "0" } }]
    "#;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("folder");
        fs::create_dir(folder.path().join("contracts")).expect("folder");
        for (name, text) in files {
            fs::write(folder.path().join("contracts").join(name), text).expect("written");
        }
        folder
    }

    #[test]
    fn a_file_is_a_contract_by_its_name() {
        let folder = folder(&[("b.toml", GOOD), ("a.toml", GOOD), ("notes.txt", "no")]);
        let contracts = load(folder.path()).expect("contracts");
        assert_eq!(contracts.iter().map(|c| c.name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        let built_in = load(&folder.path().join("none")).expect("those that are built in");
        assert!(built_in.iter().any(|contract| contract.name == "qemu-postcopy"));
    }

    #[rstest]
    #[case("needs = [", "title = [", "is not a contract")]
    #[case("\"hang\"", "\"sadness\"", "is not a contract")]
    #[case("says", "sais", "is not a contract")]
    #[case("It fills.", "\\u001b[2J", "can't be shown")]
    #[case("needs = [{ cases = [\"copy/\"], facts = { copy = \"0\" } }]", "", "neither `needs`")]
    #[case("needs =", "not-asked = \"x\"\nneeds =", "both `needs`")]
    #[case("[\"copy/\"]", "[]", "without cases or facts")]
    #[case(
        "[[assumption]]",
        "[[shares]]\nid=\"z\"\nwhere=[]\nbreaks=\"hang\"\neffect=\"\"\n[[assumption]]",
        "shares \"z\""
    )]
    fn wrong_files_are_refused(#[case] from: &str, #[case] to: &str, #[case] message: &str) {
        let folder = folder(&[("a.toml", &GOOD.replacen(from, to, 1))]);
        let error = load(folder.path()).expect_err("refused").to_string();
        assert!(error.contains("a.toml") && error.contains(message), "{error}");
    }

    #[test]
    fn a_name_that_can_not_be_shown_is_refused() {
        let folder = folder(&[("a\u{1b}[2J.toml", GOOD)]);
        let error = load(folder.path()).expect_err("refused").to_string();
        assert!(error.contains("its name is not"), "{error}");
    }

    #[test]
    fn shared_assumptions_come_with_the_place_of_their_user() {
        let share = "[[shares]]\nid=\"test.a\"\nwhere=[\"mine.c: f()\"]\nbreaks=\"crash\"\neffect=\"Dies.\"";
        let text = format!("title=\"\"\nabout=\"\"\nsnapshot=\"\"\n{share}");
        let folder = folder(&[("shared.toml", GOOD), ("mine.toml", &text)]);
        let contracts = load(folder.path()).expect("contracts");
        let all = contracts[0].all(&contracts);
        assert_eq!(all.len(), 1);
        assert_eq!((all[0].says.as_str(), all[0].effect.as_str()), ("It fills.", "Dies."));
    }

    #[test]
    fn the_lint_objects() {
        let data = Dataset::recorded();
        let folder = folder(&[
            ("a.toml", GOOD),
            ("b.toml", &GOOD.replace("[\"copy/\"]", "[\"copy/nowhere\"]")),
            ("c.toml", &GOOD.replace("{ copy =", "{ nothing =").replace("test.a", "test.c")),
        ]);
        let wrong = lint(&load(folder.path()).expect("contracts"), data).join("\n");
        for message in ["this id stands twice", "matches \"copy/nowhere\"", "the fact \"nothing\""]
        {
            assert!(wrong.contains(message), "{wrong}");
        }
    }
}
