//! Files of a results folder that people write: TOML, each with one list of entries.

use serde::de::DeserializeOwned;
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

/// Reads a file; what an empty one holds, if it is not there. `what` names its entries in the plural.
pub(crate) fn read<T: DeserializeOwned + Default>(
    path: &Path,
    what: &'static str,
) -> Result<T, TomlError> {
    let path = path.to_owned();
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(T::default()),
        Err(error) => return Err(TomlError::Read { path, error }),
    };
    toml::from_str(&text).map_err(|e| TomlError::Toml { path, what, error: Box::new(e) })
}
