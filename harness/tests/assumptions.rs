//! The lists of assumptions say what is true: filters find cases, and no assumption stands twice.

use std::collections::BTreeSet;
use uffd_results::id_matches;
use uffd_suites::probe::Case;

const ASKED: &str = include_str!("../../docs/assumptions.md");
const NOT_ASKED: &str = include_str!("../../docs/not-asked.md");

/// The rows of a page's tables whose first cell is one word in backticks: that word and the other
/// cells. Tables of other things begin with a plain word.
fn rows(page: &str) -> Vec<(&str, Vec<&str>)> {
    page.lines()
        .filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |"))
        .filter_map(|line| {
            let mut cells = line.split(" | ");
            let id = cells.next()?.strip_prefix('`')?.strip_suffix('`')?;
            Some((id, cells.collect()))
        })
        .collect()
}

/// What stands in backticks.
fn quoted(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

#[test]
fn every_row_is_whole() {
    let (asked, not_asked) = (rows(ASKED), rows(NOT_ASKED));
    assert!(asked.len() > 150 && not_asked.len() > 5, "{} and {}", asked.len(), not_asked.len());
    for (id, cells) in asked.iter().chain(&not_asked) {
        let lower = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || ".-".contains(c);
        assert!(id.chars().all(lower), "{id}: lower-case words joined by '.' and '-'");
        assert!(cells.iter().all(|cell| !cell.trim().is_empty()), "{id}: an empty cell");
    }
    for (id, cells) in &asked {
        assert_eq!(cells.len(), 2, "{id}: assumption, what is assumed, asked by");
        assert_eq!(cells[1].matches('`').count() % 2, 0, "{id}: an odd backtick");
        let rest = cells[1].split('`').step_by(2).all(|between| between.trim().is_empty());
        assert!(rest && !quoted(cells[1]).is_empty(), "{id}: the last cell holds filters only");
    }
    for (id, cells) in &not_asked {
        assert_eq!(cells.len(), 1, "{id}: assumption, why not");
    }
}

#[test]
fn no_assumption_stands_twice() {
    let mut seen = BTreeSet::new();
    let twice: Vec<&str> = rows(ASKED)
        .into_iter()
        .chain(rows(NOT_ASKED))
        .map(|(id, _)| id)
        .filter(|id| !seen.insert(*id))
        .collect();
    assert!(twice.is_empty(), "in both files, or twice in one: {twice:?}");
}

#[test]
fn every_filter_finds_a_case_that_is_asked_by_default() {
    let ids: Vec<String> =
        uffd_suites::cases().iter().filter(|case| case.by_default).map(Case::id).collect();
    let rows = rows(ASKED);
    let filters: BTreeSet<&str> = rows.iter().flat_map(|(_, cells)| quoted(cells[1])).collect();
    let lost: Vec<&str> = filters
        .into_iter()
        .filter(|filter| !filter.contains('/') || !ids.iter().any(|id| id_matches(filter, id)))
        .collect();
    assert!(lost.is_empty(), "these find nothing: {lost:#?}");
}
