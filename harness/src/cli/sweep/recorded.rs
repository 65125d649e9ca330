//! What is recorded of a kernel already: whether it need not be asked, and what of it a sweep may replace unless it
//! is told to.

use crate::kernels::{self, Image};
use crate::store::{self, StoreError};
use anyhow::{Result, bail};
use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::Path;
use uffd_results::{Cases, End, Record};
use uffd_suites::probe::Case;

/// What stands at `path`, where the record of an image belongs. Fails if a record of that image must not take its place
/// without --force: it can't be read, so nobody knows what would be lost, or it is of another build. A kernel of the
/// archive may follow an earlier version of its package.
pub(super) fn find(
    path: &Path,
    image: &Image,
    is_own: bool,
    force: bool,
) -> Result<Option<Record>> {
    let record = match store::read(path) {
        Ok(record) => record,
        Err(StoreError::Read { error, .. }) if error.kind() == ErrorKind::NotFound => {
            return Ok(None);
        }
        Err(_) if force => return Ok(None),
        Err(error) => bail!("{error}; --force records the kernel anew in its place"),
    };
    if force || is_of_image(&record, image) || !is_own && is_of_package(&record, image) {
        return Ok(Some(record));
    }
    let of = match &record.kernel.image_sha256 {
        Some(sha256) => {
            format!("another build of {} (its image's SHA-256 is {sha256})", image.identity.release)
        }
        None => format!("{}, and does not say of which image", image.identity.release),
    };
    bail!(
        "{} is the record of {of}: name another results folder with --results for this image, whose SHA-256 is {}, \
         or replace that record with --force",
        path.display(),
        image.identity.image_sha256
    )
}

fn is_of_image(record: &Record, image: &Image) -> bool {
    record.kernel.image_sha256.as_ref() == Some(&image.identity.image_sha256)
}

fn is_of_package(record: &Record, image: &Image) -> bool {
    match (&record.kernel.package, &image.identity.package) {
        (Some(old), Some(new)) => old.name == new.name,
        _ => false,
    }
}

/// Whether the record is of this very image and answers these cases, maybe among others, as this program asks them,
/// none of them lost by our fault or for want of what there is now.
pub(super) fn is_current(record: &Record, image: &Image, cases: &[Case]) -> bool {
    let has_config = !record.kernel.config.is_empty() || image.identity.config.is_empty();
    let answered = |case: &Case| {
        let outcome = record.cases.get(&case.id());
        outcome.is_some_and(|outcome| !matches!(outcome.end, End::Broken | End::NotRun))
    };
    record.suite == crate::cli::report::suite()
        && is_of_image(record, image)
        && has_config
        && cases.iter().all(answered)
        && !modules_would_help(record, image, cases)
}

/// Whether a case could not be asked that needs a module which there is for the image.
fn modules_would_help(record: &Record, image: &Image, cases: &[Case]) -> bool {
    let Some(tar) = &image.modules else { return false };
    let lacked = |case: &&Case| {
        let outcome = record.cases.get(&case.id());
        outcome.is_some_and(|outcome| outcome.end == End::Precondition)
    };
    // The first is the one that it is about.
    let wanted = cases.iter().filter(lacked).filter_map(|case| case.modules().first());
    let wanted: Vec<&str> = wanted.copied().collect::<BTreeSet<_>>().into_iter().collect();
    // What can't be read is an error once it is needed.
    !wanted.is_empty() && kernels::read_modules(tar, &wanted).is_ok_and(|found| !found.is_empty())
}

/// Adds to what a kernel has just shown the old record's answers to cases that were not asked now, if they are of the
/// same image, suite and environment. Where they are not and get lost, a note says so; what `force` must allow fails.
pub(super) fn keep_others(new: &mut Record, old: &Record, force: bool) -> Result<Option<String>> {
    let others: Vec<_> = old.cases.iter().filter(|(id, _)| new.cases.get(id).is_none()).collect();
    let (n, release) = (others.len(), &new.kernel.release);
    if n == 0 || old.kernel.image_sha256 != new.kernel.image_sha256 {
        return Ok(None);
    }
    if old.suite != new.suite {
        return Ok(Some(format!(
            "{release}: {n} answers to cases that were not asked now are gone from the record, since another suite \
             revision had asked them: --full asks all there are"
        )));
    }
    if old.environment == new.environment {
        let all = new.cases.iter().chain(others).map(|(id, o)| (id.to_owned(), o.clone()));
        new.cases = Cases::new(all.collect());
        new.by.clone_from(&old.by);
        return Ok(None);
    }
    if force {
        return Ok(Some(format!(
            "{release}: {n} answers to cases that were not asked now are gone from the record, since they come from \
             another environment"
        )));
    }
    bail!(
        "the record has {n} answers to cases that were not asked now, and they come from another environment, so the \
         two make no record: --full --resume asks these as well, --force --resume drops them"
    )
}

#[cfg(test)]
#[path = "recorded_tests.rs"]
mod tests;
