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
    use crate::known;
    use rstest::rstest;
    use std::collections::BTreeSet;
    use std::fs;
    use uffd_results::Kept;

    /// The committed recipes.
    fn committed() -> Vec<Recipe> {
        let results = Path::new(env!("CARGO_MANIFEST_DIR")).join("../results");
        load(&results, uffd_results::contracts()).expect("recipes")
    }

    #[test]
    fn every_error_of_copy_that_was_recorded_has_a_step() {
        let data = known::built_in().data;
        let mut errors: BTreeSet<&str> = BTreeSet::new();
        for case in data.cases() {
            let shown = (0..data.kernels().len()).filter_map(|kernel| case.fact(kernel, "copy"));
            errors.extend(shown.filter(|value| value.starts_with('E')));
        }
        let recipes = committed();
        let recipe = recipes.iter().find(|r| r.id == "place-a-page").expect("a recipe");
        let told = |error: &&&str| {
            let words =
                |step: &Step| step.does.split(|c: char| !c.is_alphanumeric()).any(|w| w == **error);
            recipe.steps.iter().any(words)
        };
        let missing: Vec<&&str> = errors.iter().filter(|error| !told(error)).collect();
        assert!(!errors.is_empty() && missing.is_empty(), "{missing:?} of {errors:?}");
    }

    #[test]
    fn no_recorded_kernel_breaks_what_recipes_rest_on() {
        let data = known::built_in().data;
        for id in committed().iter().flat_map(|r| &r.steps).flat_map(|step| &step.rests_on) {
            let mut all = uffd_results::contracts().iter().flat_map(|c| &c.assumptions);
            let bound = all.find(|a| a.id == *id).expect("an assumption").bind(&data);
            let kept: Vec<_> = (0..data.kernels().len()).map(|kernel| bound.kept(kernel)).collect();
            assert!(kept.contains(&Some(Kept::Kept)), "{id}");
            assert!(!kept.contains(&Some(Kept::Broken)), "{id}: {kept:?}");
        }
    }

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
