//! What a command answers from, of which its reader is told what the answers do not show: that the kernels were asked
//! with other words on their command line than the usual ones.

use super::out;
use crate::known::{self, Known};
use crate::store::Store;
use anyhow::Result;
use uffd_results::Record;

/// As [`known::load`], told.
pub(super) fn load(store: &Store) -> Result<Known> {
    let known = known::load(store)?;
    tell(&known.line, &store.folder().display().to_string());
    Ok(known)
}

/// Tells of records that come from `place`, a folder or a file.
pub(super) fn of(records: &[Record], place: &str) {
    // A folder has records with one line alone.
    tell(&known::line(records), place);
}

fn tell(line: &str, place: &str) {
    if let Some(text) = words(line, place) {
        out::note(&text);
    }
}

fn words(line: &str, place: &str) -> Option<String> {
    (!line.is_empty()).then(|| {
        format!(
            "{place}: asked with {line:?} added to the kernel's command line, so a kernel as it is shipped may answer \
             otherwise"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_another_line_is_told() {
        assert_eq!(words("", "results"), None);
        let told = words("lru_gen=n", "other").expect("something to tell");
        assert!(told.starts_with("other: asked with \"lru_gen=n\" added"), "{told}");
    }
}
