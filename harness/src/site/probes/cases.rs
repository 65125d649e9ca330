//! Cases of a probe in words: the axes in which some of them differ from the others.

use crate::ask::distinct;
use std::collections::HashMap;
use uffd_results::{Case, ProbeCases};

/// The cases of a probe with their axes.
#[derive(Debug)]
pub(super) struct Axes<'d> {
    cases: HashMap<&'d str, Vec<(&'d str, &'d str)>>,
    /// The axes in which cases differ, in the order in which ids have them.
    names: Vec<&'d str>,
}

/// Some cases, told from the others.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Told {
    /// In words: `12 cases: waiter=vcpu-read/vcpu-write`.
    pub(super) text: String,
    /// Whether the words name these cases and no others.
    pub(super) exact: bool,
}

impl<'d> Axes<'d> {
    /// The cases of a probe.
    pub(super) fn of(probe: ProbeCases<'d>) -> Self {
        let pairs = |axes: &'d str| axes.split(',').filter_map(|pair| pair.split_once('='));
        let all: Vec<&str> = probe.cases().map(Case::axes).collect();
        let mut names = distinct(all.iter().flat_map(|axes| pairs(axes)).map(|(name, _)| name));
        let cases: HashMap<&str, Vec<(&str, &str)>> =
            all.iter().map(|axes| (*axes, pairs(axes).collect())).collect();
        let differs = |name: &str| distinct(all.iter().map(|a| value(&cases[a], name))).len() > 1;
        names.retain(|name| differs(name));
        Self { cases, names }
    }

    /// Tells some cases, given by their axes, from the others.
    pub(super) fn tell(&self, some: &[&str]) -> Told {
        let (n, all) = (some.len(), self.cases.len());
        if n == all {
            let text = if n == 1 { "the case".to_owned() } else { format!("all {n} cases") };
            return Told { text, exact: true };
        }
        let values = |of: &mut dyn Iterator<Item = &str>, name: &str| {
            let mut values =
                distinct(of.map(|axes| self.cases.get(axes).map_or("", |case| value(case, name))));
            values.sort_unstable();
            values
        };
        let mut kept: Vec<(&str, Vec<&str>, String)> = Vec::new();
        for name in &self.names {
            let of_some = values(&mut some.iter().copied(), name);
            let mut rest = values(&mut self.cases.keys().copied(), name);
            rest.retain(|value| !of_some.contains(value));
            if rest.is_empty() {
                continue;
            }
            let word = if rest.len() < of_some.len() && of_some.len() > 2 {
                format!("{name} not {}", join(&rest))
            } else {
                format!("{name}={}", join(&of_some))
            };
            kept.push((name, of_some, word));
        }
        let fitting = |kept: &[(&str, Vec<&str>, String)]| {
            let fits = |case: &&Vec<(&str, &str)>| {
                kept.iter().all(|(name, values, _)| values.contains(&value(case, name)))
            };
            self.cases.values().filter(fits).count()
        };
        let fit = fitting(&kept);
        // What the other axes tell already need not be said; the longest first.
        let mut order: Vec<&str> = kept.iter().map(|(name, ..)| *name).collect();
        order
            .sort_by_key(|name| kept.iter().find(|k| k.0 == *name).map(|k| usize::MAX - k.2.len()));
        for name in order {
            let less: Vec<_> = kept.iter().filter(|k| k.0 != name).cloned().collect();
            if fitting(&less) == fit {
                kept = less;
            }
        }
        let words: Vec<&str> = kept.iter().map(|(_, _, word)| word.as_str()).collect();
        let (fitting, exact) = (fit, fit == n);
        let text = match (exact, words.is_empty()) {
            (true, _) => format!("{}: {}", crate::report::count(n, "case"), words.join(", ")),
            (false, true) => format!("{n} of the {all} cases"),
            (false, false) => format!("{n} of the {fitting} cases with {}", words.join(", ")),
        };
        Told { text, exact }
    }
}

fn join(values: &[&str]) -> String {
    let word = |value: &&str| (if value.is_empty() { "(none)" } else { value }).to_owned();
    values.iter().map(word).collect::<Vec<_>>().join("/")
}

fn value<'a>(case: &[(&'a str, &'a str)], name: &str) -> &'a str {
    case.iter().find(|(n, _)| *n == name).map_or("", |(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn axes() -> Axes<'static> {
        let ids = ["b=anon,w=read", "b=anon,w=write", "b=shmem,w=read", "b=shmem,w=write,m=x"];
        let pair =
            |id: &'static str| (id, id.split(',').filter_map(|p| p.split_once('=')).collect());
        Axes { cases: ids.into_iter().map(pair).collect(), names: vec!["b", "w", "m"] }
    }

    #[rstest]
    #[case(&["b=anon,w=read", "b=anon,w=write"], "2 cases: b=anon", true)]
    #[case(&["b=shmem,w=write,m=x"], "1 case: m=x", true)]
    #[case(&["b=anon,w=read", "b=shmem,w=write,m=x"], "2 of the 4 cases", false)]
    #[case(&["b=anon,w=write", "b=shmem,w=read"], "2 of the 3 cases with m=(none)", false)]
    fn cases_are_told_apart(#[case] some: &[&str], #[case] text: &str, #[case] exact: bool) {
        assert_eq!(axes().tell(some), Told { text: text.to_owned(), exact });
    }
}
