//! `bench/notes.toml` of a results folder: what explains changes of a cost, each with its source.

use crate::toml_file::{self, TomlError};
use serde::Deserialize;
use std::path::Path;
use uffd_results::bench::Measured;
use uffd_results::id_matches;

/// What explains a change of some operations on a kernel, against the one before it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Note {
    /// The operations: a part of their ids, or a pattern with `*`.
    pub operation: String,
    /// The newer kernel of the two: a series, an upstream version or a release.
    pub kernel: String,
    /// What is the matter, in a sentence or two.
    pub says: String,
    /// Who says so: a commit, a function of the kernel.
    pub source: String,
}

impl Note {
    /// Whether it explains how an operation has changed on a kernel.
    pub fn covers(&self, operation: &str, kernel: &Measured) -> bool {
        let Ok(upstream) = kernel.upstream() else { return false };
        let named = self.kernel == upstream.series()
            || self.kernel == upstream.to_string()
            || self.kernel == kernel.kernel.release;
        named && id_matches(&self.operation, operation)
    }
}

/// What a file of notes holds.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct File {
    #[serde(default)]
    note: Vec<Note>,
}

/// The notes of a results folder; none if it has no such file.
pub fn load(results: &Path) -> Result<Vec<Note>, TomlError> {
    let file: File = toml_file::read(&results.join(super::FOLDER).join("notes.toml"), "notes")?;
    Ok(file.note)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::testing::measured;
    use rstest::rstest;

    #[rstest]
    #[case("copy/", "6.12", true)]
    #[case("copy/*size=4k]", "6.12.43", true)]
    #[case("copy/*size=4m]", "6.12", false)]
    #[case("copy/", "6.1", false)]
    #[case("copy/", "6.12.43-test", true)]
    #[case("move/", "6.12", false)]
    fn a_note_is_about_what_it_names(
        #[case] operation: &str,
        #[case] kernel: &str,
        #[case] covers: bool,
    ) {
        let note = Note {
            operation: operation.into(),
            kernel: kernel.into(),
            says: "so".into(),
            source: "there".into(),
        };
        let id = "copy/pages[backing=anon,size=4k]";
        assert_eq!(note.covers(id, &measured("6.12.43", &[])), covers);
    }

    #[test]
    fn a_note_with_another_member_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("bench/notes.toml");
        let note = "[[note]]\noperation = \"a\"\nkernel = \"6.1\"\nsays = \"b\"\nsource = \"c\"\n";
        crate::store::replace(&path, note.as_bytes()).expect("written");
        assert_eq!(load(folder.path()).expect("notes").len(), 1);
        crate::store::replace(&path, format!("{note}why = \"d\"\n").as_bytes()).expect("written");
        assert!(load(folder.path()).expect_err("refused").to_string().contains("why"));
    }
}
