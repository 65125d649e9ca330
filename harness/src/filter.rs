//! Choosing cases by words of their ids.

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
        let found = |case: &Case, id: &str| (full || case.by_default) && matches(filter, id);
        let in_list = all.iter().zip(&ids).any(|(case, id)| named(id) || found(case, id));
        if !in_list && !hidden.iter().any(|case| named(&case.id())) {
            let hint = if ids.iter().any(|id| matches(filter, id)) { " (with --full)" } else { "" };
            return Err(FilterError::Nothing { filter: filter.clone(), hint });
        }
    }
    let wanted = |case: &Case, id: &str| {
        let by_pattern = filters.is_empty() || filters.iter().any(|f| matches(f, id));
        ((full || case.by_default) && by_pattern) || filters.iter().any(|f| f == id)
    };
    let chosen = all.into_iter().zip(ids).filter(|(case, id)| wanted(case, id));
    Ok(chosen.map(|(case, _)| case).chain(hidden).collect())
}

/// Whether a case id has what a filter asks for: the filter itself, or its pattern with `*`.
pub fn matches(filter: &str, id: &str) -> bool {
    if filter.contains('*') { glob(filter.as_bytes(), id.as_bytes()) } else { id.contains(filter) }
}

/// Whether `text` is `pattern` with `*` standing for any text.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let mut parts = pattern.split(|b| *b == b'*');
    let Some(mut rest) = parts.next().and_then(|head| text.strip_prefix(head)) else {
        return false;
    };
    let mut parts = parts.peekable();
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        let Some(at) = rest.windows(part.len().max(1)).position(|w| part.is_empty() || w == part)
        else {
            return part.is_empty();
        };
        rest = &rest[at + part.len()..];
    }
    rest.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("copy/", "copy/munmap[x=1]", true)]
    #[case("copy/*", "copy/munmap[x=1]", true)]
    #[case("*x=1*", "copy/munmap[x=1]", true)]
    #[case("copy/*[x=2]", "copy/munmap[x=1]", false)]
    #[case("*", "anything", true)]
    #[case("munmap*", "copy/munmap[x=1]", false)]
    fn patterns(#[case] filter: &str, #[case] id: &str, #[case] expected: bool) {
        assert_eq!(matches(filter, id), expected);
    }

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
