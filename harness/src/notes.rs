//! `notes.toml` of a results folder: what explains findings that neither an expectation nor a record
//! can explain, each with its source.

use crate::toml_file::{self, TomlError};
use serde::Deserialize;
use std::path::Path;
use uffd_results::{Recorded, id_matches};

/// What explains findings of some probes on some kernels.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Note {
    /// The probe, `suite/name`, or a pattern with `*`.
    pub probe: String,
    /// The kernels: series, upstream versions or releases; all of them if there is none.
    #[serde(default)]
    pub kernels: Vec<String>,
    /// The facts; all of them if there is none.
    #[serde(default)]
    pub facts: Vec<String>,
    /// What is the matter, in a sentence or two.
    pub says: String,
    /// Who says so: a man page, a function of the kernel, a commit.
    pub source: String,
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
    let file: File = toml_file::read(&results.join("notes.toml"), "notes")?;
    Ok(file.note)
}

impl Note {
    /// Whether it is about a probe.
    pub fn names_probe(&self, probe: &str) -> bool {
        if self.probe.contains('*') { id_matches(&self.probe, probe) } else { self.probe == probe }
    }

    /// Whether it is about a kernel.
    pub fn names_kernel(&self, kernel: &Recorded) -> bool {
        self.kernels.is_empty() || self.kernels.iter().any(|name| is_named(name, kernel))
    }

    /// Whether it explains what is odd in a fact of a probe on a kernel.
    pub fn covers(&self, probe: &str, kernel: &Recorded, fact: &str) -> bool {
        self.names_probe(probe)
            && self.names_kernel(kernel)
            && (self.facts.is_empty() || self.facts.iter().any(|f| f == fact))
    }
}

/// Whether a series, version or release names a kernel.
pub fn is_named(name: &str, kernel: &Recorded) -> bool {
    let upstream = kernel.upstream;
    name == upstream.series() || name == upstream.to_string() || name == kernel.release
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use std::fs;
    use uffd_results::Dataset;

    const TEXT: &str = "[[note]]\nprobe = \"copy/a\"\nkernels = [\"6.12\"]\nfacts = [\"copy\"]\n\
                        says = \"So.\"\nsource = \"mm/a.c: b()\"\n";

    fn read(text: &str) -> Result<Vec<Note>, TomlError> {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("notes.toml"), text).expect("written");
        load(folder.path())
    }

    #[test]
    fn a_note_covers_what_it_names() {
        let note = read(TEXT).expect("notes").remove(0);
        let kernels = Dataset::recorded().kernels();
        let of = |series: &str| kernels.iter().find(|k| k.upstream.series() == series);
        let (new, old) = (of("6.12").expect("recorded"), of("6.1").expect("recorded"));
        assert!(note.covers("copy/a", new, "copy"));
        assert!(!note.covers("copy/ab", new, "copy") && !note.covers("copy/a", old, "copy"));
        assert!(!note.covers("copy/a", new, "field"));
        let of_old = Note { kernels: vec!["6.1".into()], ..note.clone() };
        assert!(of_old.covers("copy/a", old, "copy") && !of_old.covers("copy/a", new, "copy"));
        let wide = Note { probe: "copy/*".into(), kernels: vec![], facts: vec![], ..note };
        assert!(wide.covers("copy/ab", old, "field") && !wide.covers("move/a", old, "field"));
    }

    #[rstest]
    #[case("", "")]
    #[case("says", "sais")]
    #[case("source = \"mm/a.c: b()\"", "")]
    #[case("[[note]]", "[[notes]]")]
    fn other_files_are_refused_with_the_place(#[case] from: &str, #[case] to: &str) {
        let read = read(&TEXT.replacen(from, to, 1));
        if from.is_empty() {
            assert_eq!(read.expect("notes").len(), 1);
            return;
        }
        let error = read.expect_err("refused").to_string();
        assert!(error.contains("notes.toml") && error.contains("line"), "{error}");
    }
}
