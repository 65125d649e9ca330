//! The export as one JSON document; `results/schema/export-1.json` describes it.

use super::Selection;
use crate::known::Known;
use serde_json::{Map, Value, json};
use std::collections::HashMap;
use uffd_results::{Assumption, Contract, Dataset, End, Kept, Outcome};

/// The version of the document's format.
pub const SCHEMA: u32 = 1;

/// Everything that is known. An outcome stands once; what a case showed is the places of its outcomes,
/// a kernel a column.
pub fn json(known: &Known, selection: &Selection) -> Value {
    let data = &known.data;
    let kernels: Vec<Value> = data
        .kernels()
        .iter()
        .map(|k| {
            json!({
                "upstream": k.upstream.to_string(), "release": k.release, "version": k.version,
                "machine": k.machine, "package": k.package, "image_sha256": k.image_sha256,
                "accelerator": k.accelerator, "suite_revision": k.revision,
            })
        })
        .collect();
    let (cases, outcomes) = cases(data, selection);
    let probes: Vec<Value> = data
        .probes()
        .filter(|probe| probe.cases().any(|case| selection.takes(&case.id())))
        .map(|p| json!({"name": p.name(), "statement": p.statement(), "consumers": p.consumers()}))
        .collect();
    let contracts: Vec<Value> =
        known.contracts.iter().map(|one| contract(one, &known.contracts, data)).collect();
    json!({
        "format": "uffd-conform export", "schema": SCHEMA, "kernels": kernels, "probes": probes,
        "outcomes": outcomes, "cases": cases, "contracts": contracts,
    })
}

fn cases(data: &Dataset, selection: &Selection) -> (Vec<Value>, Vec<Value>) {
    let (mut cases, mut outcomes) = (Vec::new(), Vec::new());
    let mut places: HashMap<String, usize> = HashMap::new();
    let kernels = 0..data.kernels().len();
    for (id, case) in selection.cases(data) {
        let mut place = |kernel: usize| {
            let outcome = case.outcome(kernel)?;
            Some(*places.entry(outcome.to_string()).or_insert_with(|| {
                outcomes.push(self::outcome(outcome));
                outcomes.len() - 1
            }))
        };
        let seen: Vec<Option<usize>> = kernels.clone().map(&mut place).collect();
        let done = |kernel: &usize| case.outcome(*kernel).is_some_and(|o| o.end == End::Done);
        let unexpected: Vec<usize> =
            kernels.clone().filter(done).filter(|kernel| !case.is_as_expected(*kernel)).collect();
        let mut line = json!({"id": id, "probe": case.probe().name(), "outcomes": seen});
        if !unexpected.is_empty() {
            line["unexpected"] = json!(unexpected);
        }
        cases.push(line);
    }
    (cases, outcomes)
}

fn outcome(outcome: &Outcome) -> Value {
    let mut value = json!({"end": outcome.end.word(), "facts": facts(outcome)});
    if !outcome.detail.is_empty() {
        value["detail"] = json!(outcome.detail);
    }
    value
}

/// Facts by name, in the order of observation.
pub(crate) fn facts(outcome: &Outcome) -> Map<String, Value> {
    let facts = outcome.facts.iter();
    facts.map(|fact| (fact.name.to_string(), fact.value.clone().into())).collect()
}

fn contract(contract: &Contract, all: &[Contract], data: &Dataset) -> Value {
    let assumption = |assumption: &Assumption| {
        let bound = assumption.bind(data);
        let verdicts: Vec<Option<&str>> =
            (0..data.kernels().len()).map(|kernel| bound.kept(kernel).map(Kept::word)).collect();
        let Assumption { id, says, r#where, breaks, effect, not_asked, .. } = assumption;
        let mut value = json!({
            "id": id, "says": says, "where": r#where, "breaks": breaks, "effect": effect,
            "verdicts": verdicts,
        });
        if let Some(why) = not_asked {
            value["not-asked"] = json!(why);
        }
        value
    };
    let Contract { name, title, about, snapshot, .. } = contract;
    let assumptions: Vec<Value> = contract.all(all).iter().map(assumption).collect();
    json!({
        "name": name, "title": title, "about": about, "snapshot": snapshot,
        "assumptions": assumptions,
    })
}
