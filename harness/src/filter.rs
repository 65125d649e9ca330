//! Choosing cases by words of their ids.

use uffd_results::id_matches;
use uffd_suites::probe::Case;

/// Why a filter chooses nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// No case has this in its id.
    #[error(
        "no case matches {filter:?}: give a part of a case id, or a pattern with * for the whole id; \
         `uffd-conform list` shows the ids{hint}"
    )]
    Nothing {
        /// The filter.
        filter: String,
        /// What to add, if it can be said.
        hint: &'static str,
    },
    /// An empty word, as of a shell's unset variable.
    #[error("a filter is empty: give a part of a case id, or leave it out to choose all cases")]
    Empty,
}

/// The cases whose id a filter matches, in order; all of them without filters. With `full` also
/// those that are not asked by default; a case named by its whole id is always found.
pub fn choose(filters: &[String], full: bool) -> Result<Vec<Case>, FilterError> {
    if filters.iter().any(String::is_empty) {
        return Err(FilterError::Empty);
    }
    let all = uffd_suites::cases();
    let ids: Vec<String> = all.iter().map(Case::id).collect();
    let mut hidden: Vec<Case> = uffd_suites::hidden_cases();
    hidden.retain(|case| filters.contains(&case.id()));
    for filter in filters {
        let named = |id: &str| id == filter;
        let found = |case: &Case, id: &str| (full || case.by_default) && id_matches(filter, id);
        let in_list = all.iter().zip(&ids).any(|(case, id)| named(id) || found(case, id));
        if !in_list && !hidden.iter().any(|case| named(&case.id())) {
            let hint =
                if ids.iter().any(|id| id_matches(filter, id)) { " (with --full)" } else { "" };
            return Err(FilterError::Nothing { filter: filter.clone(), hint });
        }
    }
    let wanted = |case: &Case, id: &str| {
        let by_pattern = filters.is_empty() || filters.iter().any(|f| id_matches(f, id));
        ((full || case.by_default) && by_pattern) || filters.iter().any(|f| f == id)
    };
    let chosen = all.into_iter().zip(ids).filter(|(case, id)| wanted(case, id));
    Ok(chosen.map(|(case, _)| case).chain(hidden).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_filter_is_an_error() {
        let error = choose(&["copy/teleport".into()], true).expect_err("nothing");
        assert!(error.to_string().contains("copy/teleport"), "{error}");
    }

    #[test]
    fn an_empty_filter_is_an_error() {
        assert_eq!(choose(&[String::new()], false).map(|c| c.len()), Err(FilterError::Empty));
    }

    #[test]
    fn a_case_outside_of_the_default_is_hinted_at_and_found_by_its_id() {
        let extra = uffd_suites::cases().into_iter().find(|c| !c.by_default).expect("one").id();
        assert_eq!(choose(std::slice::from_ref(&extra), false).map(|c| c.len()), Ok(1));
        let error = choose(&[extra[..extra.len() - 1].to_owned()], false).expect_err("not default");
        assert!(error.to_string().contains("--full"), "{error}");
    }

    #[test]
    fn hidden_cases_need_their_whole_id() {
        assert!(choose(&["hidden/".into()], true).is_err());
        let found = choose(&["hidden/hangs[backing=anon]".into()], false).map(|c| c.len());
        assert_eq!(found, Ok(1));
        assert!(choose(&[], true).is_ok_and(|all| all.iter().all(|c| c.probe.suite != "hidden")));
    }
}
