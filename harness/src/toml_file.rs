//! Files of a results folder that people write: TOML. Their texts are shown on terminals and pages, and may
//! come from anybody.

use crate::foreign::odd_text;
use serde::de::{DeserializeOwned, Error};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

/// Why a file could not be read.
#[derive(Debug, thiserror::Error)]
pub enum TomlError {
    /// It is there, but can't be read.
    #[error("reading {path}: {error}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why it failed.
        error: std::io::Error,
    },
    /// It says something else.
    #[error("{path} does not hold {what} as they should be: {error}")]
    Toml {
        /// The file.
        path: PathBuf,
        /// What it should hold, in the plural.
        what: &'static str,
        /// What is wrong, with the place.
        error: Box<toml::de::Error>,
    },
}

/// Reads a file with a list of entries, which an empty one may lack; as empty, if it is not there. `what`
/// names the entries in the plural.
pub(crate) fn read<T: DeserializeOwned>(path: &Path, what: &'static str) -> Result<T, TomlError> {
    let path = path.to_owned();
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(TomlError::Read { path, error }),
    };
    parse(&text).map_err(|e| TomlError::Toml { path, what, error: Box::new(e) })
}

/// Reads a text, and refuses strings that hold more than can be shown.
pub(crate) fn parse<T: DeserializeOwned>(text: &str) -> Result<T, toml::de::Error> {
    let read = toml::from_str(text)?;
    let all: Value = toml::from_str(text)?;
    match odd_text(&all) {
        Some(odd) => {
            Err(Error::custom(format_args!("{odd:?} holds characters that can't be shown")))
        }
        None => Ok(read),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("a = 'ü\t × <b>'", true)]
    #[case("a = \"\"\"one\ntwo\"\"\"", true)]
    #[case("a = \"\\u001b[2J\"", false)]
    #[case("a = [{ b = \"\\u202e\" }]", false)]
    #[case("\"\\u009b\" = 1", false)]
    #[case("[a.\"\\u0007\"]", false)]
    fn what_can_not_be_shown_is_refused(#[case] text: &str, #[case] good: bool) {
        let read = parse::<toml::Table>(text);
        assert_eq!(read.is_ok(), good, "{read:?}");
        if let Err(error) = read {
            let words = error.to_string();
            assert!(words.contains("can't be shown") && !words.contains('\u{1b}'), "{words}");
        }
    }
}
