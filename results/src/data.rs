//! The recorded data itself, made of the records and contracts by `uffd-conform matrix`.

use crate::contract::Contract;
use crate::dataset::Dataset;
use std::sync::OnceLock;

static FACTS: &str = include_str!("data/facts.txt");
static CONTRACTS: &str = include_str!("data/contracts.json");

impl Dataset {
    /// What was recorded when this crate was made. Read at the first call, a few milliseconds.
    pub fn recorded() -> &'static Self {
        static DATA: OnceLock<Dataset> = OnceLock::new();
        DATA.get_or_init(|| {
            Self::parse(FACTS).unwrap_or_else(|e| unreachable!("a test reads the data: {e}"))
        })
    }
}

/// The contracts of programs, by name.
pub fn contracts() -> &'static [Contract] {
    static DATA: OnceLock<Vec<Contract>> = OnceLock::new();
    DATA.get_or_init(|| {
        serde_json::from_str(CONTRACTS).unwrap_or_else(|e| unreachable!("a test reads them: {e}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_data_is_whole() {
        let data = Dataset::parse(FACTS).expect("data");
        assert_eq!(data.to_text(), FACTS);
        assert!(data.kernels().len() > 10 && data.cases().count() > 4000);
        let contracts: Vec<Contract> = serde_json::from_str(CONTRACTS).expect("contracts");
        assert_eq!(contracts, super::contracts());
        assert!(FACTS.len() + CONTRACTS.len() < 2_000_000, "at most 2 MB in a binary");
    }
}
