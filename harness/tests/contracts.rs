//! The contracts of `results/contracts` say what is true of the suite: filters find cases that are
//! asked by default, no id stands twice, nothing is left blank.

use std::collections::BTreeSet;
use std::path::Path;
use uffd_harness::contracts;
use uffd_results::{Assumption, Contract, Dataset, SHARED, id_matches};
use uffd_suites::probe::Case;

fn loaded() -> Vec<Contract> {
    let results = Path::new(env!("CARGO_MANIFEST_DIR")).join("../results");
    contracts::load(&results).unwrap_or_else(|e| panic!("{e}"))
}

/// Every assumption with the contract that it stands in.
fn assumptions(contracts: &[Contract]) -> impl Iterator<Item = (&Contract, &Assumption)> {
    contracts.iter().flat_map(|c| c.assumptions.iter().map(move |a| (c, a)))
}

fn ends_a_sentence(text: &str) -> bool {
    text.ends_with('.') && text.len() > 10
}

#[test]
fn every_assumption_is_whole() {
    let contracts = loaded();
    assert!(assumptions(&contracts).count() >= 150, "{}", assumptions(&contracts).count());
    let is_word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || ".-".contains(c);
    let mut wrong = Vec::new();
    for (contract, assumption) in assumptions(&contracts) {
        let Assumption { id, says, r#where, effect, not_asked, .. } = assumption;
        let mut object = |is_wrong: bool, what: &str| {
            if is_wrong {
                wrong.push(format!("{}.toml, {id}: {what}", contract.name));
            }
        };
        object(!id.chars().all(is_word), "lower-case words joined by '.' and '-'");
        object(!ends_a_sentence(says), "`says` is a sentence");
        object(!ends_a_sentence(effect), "`effect` is a sentence");
        object(r#where.is_empty() || r#where.iter().any(String::is_empty), "`where` is blank");
        object(not_asked.as_ref().is_some_and(|why| !ends_a_sentence(why)), "`not-asked` says why");
    }
    for contract in &contracts {
        for share in &contract.shares {
            if share.r#where.is_empty() || !ends_a_sentence(&share.effect) {
                wrong.push(format!("{}.toml, shares {}: where, effect", contract.name, share.id));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn no_assumption_stands_twice() {
    let contracts = loaded();
    let mut seen = BTreeSet::new();
    let mut twice: Vec<String> = assumptions(&contracts)
        .filter(|(_, assumption)| !seen.insert(&assumption.id))
        .map(|(contract, assumption)| format!("{}.toml, {}", contract.name, assumption.id))
        .collect();
    for contract in &contracts {
        let mut seen = BTreeSet::new();
        let again = contract.shares.iter().filter(|share| !seen.insert(&share.id));
        twice.extend(again.map(|share| format!("{}.toml shares {}", contract.name, share.id)));
    }
    assert!(twice.is_empty(), "{twice:#?}");
}

#[test]
fn every_shared_assumption_is_used() {
    let contracts = loaded();
    let used: BTreeSet<&str> =
        contracts.iter().flat_map(|c| &c.shares).map(|share| share.id.as_str()).collect();
    let shared: BTreeSet<&str> = contracts::shared(&contracts).into_keys().collect();
    let unused: Vec<&&str> = shared.difference(&used).collect();
    assert!(shared.len() > 30 && unused.is_empty(), "{SHARED}.toml, used by none: {unused:#?}");
}

#[test]
fn every_filter_finds_a_case_that_is_asked_by_default() {
    let ids: Vec<String> =
        uffd_suites::cases().iter().filter(|case| case.by_default).map(Case::id).collect();
    let contracts = loaded();
    let mut lost = BTreeSet::new();
    for (contract, assumption) in assumptions(&contracts) {
        for need in &assumption.needs {
            let counts = |id: &&String| !need.except.iter().any(|filter| id_matches(filter, id));
            for filter in &need.cases {
                if !ids.iter().filter(counts).any(|id| id_matches(filter, id)) {
                    lost.insert(format!("{}.toml, {}: {filter}", contract.name, assumption.id));
                }
            }
            for filter in &need.except {
                if !ids.iter().any(|id| id_matches(filter, id)) {
                    lost.insert(format!("{}.toml, {}: {filter}", contract.name, assumption.id));
                }
            }
        }
    }
    assert!(lost.is_empty(), "these find nothing: {lost:#?}");
}

/// Whatever revision recorded it: between a change of the suites and the next sweep, a fact that no record has is as
/// much a mistake as at any other time, unless a case is new.
#[test]
fn every_fact_was_recorded() {
    let data = Dataset::recorded();
    let old = data.kernels().iter().filter(|k| k.revision != uffd_suites::REVISION).count();
    let wrong = contracts::lint(&loaded(), data);
    assert!(
        wrong.is_empty(),
        "{wrong:#?}\n{old} of {} kernels were recorded by another revision of the suites{}",
        data.kernels().len(),
        if old > 0 { ": if what is named is new, record again with ./scripts/sweep" } else { "" },
    );
}
