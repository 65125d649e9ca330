//! `guarantees.toml` of a results folder: what a program can do on every kernel, as steps that rest on
//! assumptions. The texts are data; whether they hold is worked out of records.

use crate::toml_file::{self, TomlError};
use serde::Deserialize;
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use uffd_results::Contract;

/// What to do in one situation.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Its id: lower-case words joined by `-`.
    pub id: String,
    /// What it is for.
    pub title: String,
    /// When it is needed, in a sentence.
    pub when: String,
    /// The steps, in their order.
    #[serde(rename = "step")]
    pub steps: Vec<Step>,
}

/// One step.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Step {
    /// What to do, in a sentence or two.
    pub does: String,
    /// The ids of the assumptions that it rests on; at least one.
    pub rests_on: Vec<String>,
}

/// Why there are no recipes.
#[derive(Debug, thiserror::Error)]
pub enum RecipesError {
    /// The file could not be read.
    #[error(transparent)]
    File(#[from] TomlError),
    /// A step rests on nothing, or on what no contract has.
    #[error(
        "{path}: recipe {recipe:?} has a step that rests on {id}; name ids of assumptions, which \
         `uffd-conform contract` lists"
    )]
    Unfounded {
        /// The file.
        path: PathBuf,
        /// The recipe.
        recipe: String,
        /// The id, or `nothing`.
        id: String,
    },
}

/// What a file of recipes holds.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct File {
    #[serde(default)]
    recipe: Vec<Recipe>,
}

/// The recipes of a results folder, held against its contracts; none if it has no such file.
pub fn load(results: &Path, contracts: &[Contract]) -> Result<Vec<Recipe>, RecipesError> {
    let path = results.join("guarantees.toml");
    let recipes = toml_file::read::<File>(&path, "recipes")?.recipe;
    let known: HashSet<&str> =
        contracts.iter().flat_map(|c| &c.assumptions).map(|a| a.id.as_str()).collect();
    for recipe in &recipes {
        for step in &recipe.steps {
            let unknown = step.rests_on.iter().find(|id| !known.contains(id.as_str()));
            let nothing = step.rests_on.is_empty().then(|| "nothing".to_owned());
            if let Some(id) = unknown.map(|id| format!("{id:?}")).or(nothing) {
                return Err(RecipesError::Unfounded { path, recipe: recipe.id.clone(), id });
            }
        }
    }
    Ok(recipes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use std::fs;

    const TEXT: &str = "[[recipe]]\nid = \"a\"\ntitle = \"A\"\nwhen = \"Now.\"\n[[recipe.step]]\n\
                        does = \"It.\"\nrests-on = [\"wake.len0.einval\"]\n";

    fn read(text: &str) -> Result<Vec<Recipe>, RecipesError> {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("guarantees.toml"), text).expect("written");
        load(folder.path(), uffd_results::contracts())
    }

    #[test]
    fn recipes_are_read() {
        assert_eq!(read(TEXT).expect("recipes")[0].steps[0].rests_on, ["wake.len0.einval"]);
        let empty = tempfile::tempdir().expect("a folder");
        assert!(load(empty.path(), &[]).expect("none").is_empty());
    }

    #[rstest]
    #[case("wake.len0.einval", "wake.nobody-knows", "wake.nobody-knows")]
    #[case("[\"wake.len0.einval\"]", "[]", "rests on nothing")]
    #[case("does", "doe", "line")]
    fn what_rests_on_nothing_is_refused(#[case] from: &str, #[case] to: &str, #[case] says: &str) {
        let error = read(&TEXT.replacen(from, to, 1)).expect_err("refused").to_string();
        assert!(error.contains(says) && error.contains("guarantees.toml"), "{error}");
    }
}
