//! Costs of operations: where they stand, how they are measured, what is said of them.
//!
//! Below `bench` of a results folder: `x86_64/<series>/<release>.json` has a kernel's costs in instructions,
//! `native/<release>.json` those of a running kernel in nanoseconds, and `kvm/<machine>/<series>/<release>.json`
//! those of a kernel that ran under KVM.

pub mod check;
pub mod convert;
pub mod notes;
pub mod report;
pub mod show;
#[cfg(test)]
pub(crate) mod testing;

use crate::store::{self, Store, StoreError};
use std::path::{Path, PathBuf};
use uffd_results::bench::{Measured, Unit};

/// The folder below a results folder.
const FOLDER: &str = "bench";

/// Every file of costs below a results folder; emulated kernels first, from the oldest to the newest.
/// None is no error.
pub fn load(results: &Path) -> Result<Vec<Measured>, StoreError> {
    let mut files = Vec::new();
    store::collect(&results.join(FOLDER), &mut files)?;
    let mut all = files.iter().map(|path| read(path)).collect::<Result<Vec<_>, _>>()?;
    all.sort_by_cached_key(|measured| {
        (
            measured.unit,
            measured.environment.accelerator.clone(),
            measured.upstream().ok(),
            measured.kernel.release.clone(),
        )
    });
    Ok(all)
}

/// Reads one file.
pub fn read(path: &Path) -> Result<Measured, StoreError> {
    Measured::read(&store::bytes(path)?)
        .map_err(|error| StoreError::Measured { path: path.to_owned(), error })
}

/// Writes costs in their place; the path.
pub fn save(store: &Store, measured: &Measured) -> Result<PathBuf, StoreError> {
    let path = path(store, measured)?;
    store::replace(&path, measured.to_json().as_bytes())?;
    Ok(path)
}

/// Where costs stand.
fn path(store: &Store, measured: &Measured) -> Result<PathBuf, StoreError> {
    let Measured { kernel, environment, unit, .. } = measured;
    if *unit == Unit::Instructions {
        return store.place(FOLDER, kernel);
    }
    let below = format!("{FOLDER}/{}", environment.accelerator);
    let path = store.place(&below, kernel)?;
    if environment.accelerator != "native" {
        return Ok(path);
    }
    // Whoever's machine it is has few kernels.
    let name = path.file_name().map(ToOwned::to_owned).unwrap_or_default();
    Ok(store.folder().join(below).join(name))
}
