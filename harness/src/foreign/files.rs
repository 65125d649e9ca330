//! Files: records, costs, the library's table, and the TOML that people write.

use super::{Held, must, odd_text, plain, same};
use crate::{bench, contracts, notes, recipes, toml_file};
use std::path::Path;
use uffd_results::bench::Measured;
use uffd_results::{Contract, Dataset};

/// What must hold of records is said in the library, which anybody may use.
pub(super) fn record(bytes: &[u8]) -> Held {
    uffd_results::holds(bytes).map(|record| record.is_ok())
}

/// Costs are what their own text gives again, and refusals are lines that can be shown.
pub(super) fn costs(bytes: &[u8]) -> Held {
    let measured = match Measured::read(bytes) {
        Ok(measured) => measured,
        Err(error) => return plain("why costs are refused", &error.to_string()).map(|()| false),
    };
    let text = measured.to_json();
    let again = Measured::parse(&text).map_err(|e| format!("its own text is refused: {e}"))?;
    same("costs", &again, &measured)?;
    same("the text of costs", &again.to_json(), &text)?;
    plain("the text of costs", &text).map(|()| true)
}

/// The table is what its own text gives again.
pub(super) fn table(bytes: &[u8]) -> Held {
    let Ok(data) = Dataset::parse(&String::from_utf8_lossy(bytes)) else { return Ok(false) };
    let text = data.to_text();
    let again = Dataset::parse(&text).map_err(|e| format!("its own text is refused: {e}"))?;
    // The text leaves out what the kernels have in common, so that is what is compared.
    same("the text of a table", &again.to_text(), &text)?;
    Ok(true)
}

/// A file is taken as a contract, notes or recipes, and nothing that a contract says steers a terminal.
pub(super) fn toml(bytes: &[u8]) -> Held {
    let text = String::from_utf8_lossy(bytes);
    let contract = contracts::parse("name", &text, Path::new("name.toml")).ok();
    if let Some(contract) = &contract {
        let json = serde_json::to_string(contract).map_err(|e| e.to_string())?;
        let again: Contract = serde_json::from_str(&json).map_err(|e| e.to_string())?;
        same("a contract", &again, contract)?;
        let all = serde_json::to_value(contract).map_err(|e| e.to_string())?;
        let odd = odd_text(&all);
        must(odd.is_none(), || format!("{odd:?} can't be shown"))?;
    }
    let notes = toml_file::parse::<notes::File>(&text).is_ok();
    let costs = toml_file::parse::<bench::notes::File>(&text).is_ok();
    let recipes = toml_file::parse::<recipes::File>(&text).is_ok();
    Ok(contract.is_some() || notes || costs || recipes)
}
