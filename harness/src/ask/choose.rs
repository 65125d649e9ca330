//! From axes and filters to cases: which are recorded, which could be asked, and why none can.

use super::{Asked, distinct, words};
use crate::filter;
use anyhow::{Result, bail};
use std::collections::HashSet;
use uffd_results::{Dataset, glob};
use uffd_suites::point::Point;
use uffd_suites::probe::Ask;

/// What is asked for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wanted {
    /// Filters of case ids; without any, only the grid is meant.
    pub(crate) filters: Vec<String>,
    /// Axes, each with the values that will do, in which `*` stands for any text.
    pub(crate) axes: Vec<(String, Vec<String>)>,
}

/// The cases that are meant.
#[derive(Debug)]
pub(crate) struct Chosen {
    /// Those that some kernel was asked.
    pub(crate) recorded: Vec<Asked>,
    /// Those that the suite has and no kernel was asked.
    pub(crate) others: Vec<Asked>,
    /// Axes that were given up to find any, with what was wanted; empty but in [`nearest`].
    pub(crate) given_up: Vec<(String, Vec<String>)>,
}

impl Wanted {
    fn takes(&self, asked: &Asked) -> bool {
        self.axes.iter().all(|(name, values)| {
            asked.axis(name).is_some_and(|seen| values.iter().any(|value| glob(value, seen)))
        })
    }

    /// Whether only points of the grid are meant.
    fn is_of_the_grid(&self) -> bool {
        let grid = |(name, _): &(String, Vec<String>)| words::GRID.contains(&name.as_str());
        self.filters.is_empty() && self.axes.iter().all(grid)
    }

    /// The same for missing faults, which people mean who name no mode, if there is such a point.
    pub(crate) fn with_usual_mode(mut self, all: &[Asked]) -> Self {
        let is_open = self.is_of_the_grid() && !self.axes.iter().any(|(name, _)| name == "mode");
        let is_usual = |asked: &Asked| asked.axis("mode") == Some("missing") && self.takes(asked);
        if is_open && all.iter().any(is_usual) {
            self.axes.push(("mode".to_owned(), vec!["missing".to_owned()]));
        }
        self
    }

    fn without(&self, given_up: &[&str]) -> Self {
        let mut less = self.clone();
        less.axes.retain(|(name, _)| !given_up.contains(&name.as_str()));
        less
    }
}

/// All cases that can be meant, made once.
pub(crate) fn candidates(wanted: &Wanted) -> Result<Vec<Asked>> {
    let cases = filter::choose(&wanted.filters, true)?;
    let grid = wanted.is_of_the_grid();
    let meant = cases.into_iter().filter(|case| !grid || !matches!(case.ask, Ask::Trial(_)));
    Ok(meant.map(Asked::new).collect())
}

/// The cases that are meant; an error that says why if there is none.
pub(crate) fn choose(wanted: &Wanted, all: &[Asked], data: &Dataset) -> Result<Chosen> {
    let chosen = split(wanted, all, data);
    if chosen.recorded.is_empty() && chosen.others.is_empty() {
        return impossible(wanted, all);
    }
    Ok(chosen)
}

fn split(wanted: &Wanted, all: &[Asked], data: &Dataset) -> Chosen {
    let matching = all.iter().filter(|asked| wanted.takes(asked));
    let (mut recorded, mut others): (Vec<&Asked>, Vec<&Asked>) =
        matching.partition(|asked| data.case(&asked.id).is_some());
    if wanted.is_of_the_grid() {
        // Claims are points of the grid once more: each point is to be named once.
        let point = |asked: &Asked| match &asked.case.ask {
            Ask::Point(point) | Ask::Claim(point, _) => Some(*point),
            Ask::Trial(_) => None,
        };
        let mut told: HashSet<Point> = HashSet::new();
        for cases in [&mut recorded, &mut others] {
            cases.sort_by_key(|asked| matches!(asked.case.ask, Ask::Claim(..)));
            cases.retain(|asked| point(asked).is_none_or(|point| told.insert(point)));
        }
    }
    let owned = |cases: Vec<&Asked>| cases.into_iter().cloned().collect();
    Chosen { recorded: owned(recorded), others: owned(others), given_up: Vec::new() }
}

/// Axes in the order in which they are given up: those that matter least come first.
const LEAST: [&str; 9] =
    ["msg", "part", "over", "how", "backing", "waiter", "mode", "change", "op"];

/// Recorded cases that are the nearest to what was wanted: as few axes given up as possible.
pub(crate) fn nearest(wanted: &Wanted, all: &[Asked], data: &Dataset) -> Option<Chosen> {
    let mut tries: Vec<Vec<&str>> = LEAST.iter().map(|axis| vec![*axis]).collect();
    let pairs = LEAST.iter().enumerate();
    tries.extend(pairs.flat_map(|(i, a)| LEAST[i + 1..].iter().map(move |b| vec![*a, *b])));
    tries.into_iter().find_map(|names| {
        let given: Vec<_> =
            wanted.axes.iter().filter(|(n, _)| names.contains(&n.as_str())).cloned().collect();
        if given.len() != names.len() {
            return None;
        }
        let mut chosen = split(&wanted.without(&names), all, data);
        if chosen.recorded.is_empty() {
            return None;
        }
        chosen.given_up = given;
        Some(chosen)
    })
}

/// Says why nothing is at such a point, and what would be the nearest.
fn impossible(wanted: &Wanted, all: &[Asked]) -> Result<Chosen> {
    for (name, values) in &wanted.axes {
        let there = distinct(all.iter().filter_map(|asked| asked.axis(name)));
        if there.is_empty() {
            let mut names = distinct(all.iter().flat_map(Asked::axes).map(|(name, _)| name));
            names.sort_unstable();
            bail!("no such case has an axis {name:?}; there are: {}", few(&names));
        }
        if !there.iter().any(|seen| values.iter().any(|value| glob(value, seen))) {
            let values = values.join(" or ");
            bail!("no such case has {name}={values}; it can be {}", few(&there));
        }
    }
    let mut could = Vec::new();
    for (name, values) in &wanted.axes {
        let less = wanted.without(&[name]);
        let fit = || all.iter().filter(|asked| less.takes(asked));
        let there = distinct(fit().filter_map(|asked| asked.axis(name)));
        if !there.is_empty() {
            could.push(format!("{name} can be {} in place of {}", few(&there), few(values)));
        } else if fit().next().is_some() {
            could.push(format!("leave out {name}, which such a point does not have"));
        }
    }
    let asked: Vec<String> = wanted.axes.iter().map(|(n, v)| format!("{n}={}", few(v))).collect();
    let reason = reason(wanted).map(|why| format!(": {why}")).unwrap_or_default();
    let could = if could.is_empty() {
        "leave out two of them or more".to_owned()
    } else {
        format!("with the rest as it is, {}", could.join("; or "))
    };
    bail!("no case is at {}{reason}; {could}", asked.join(" "))
}

/// Some words, of many the first.
fn few<T: AsRef<str>>(words: &[T]) -> String {
    let shown: Vec<&str> = words.iter().take(24).map(AsRef::as_ref).collect();
    let more = words.len() - shown.len();
    let shown = shown.join(", ");
    if more == 0 { shown } else { format!("{shown} and {more} more") }
}

/// Why the grid has no such point, where a reason can be given.
fn reason(wanted: &Wanted) -> Option<&'static str> {
    let all = |name: &str, values: &[&str]| {
        let axis = wanted.axes.iter().find(|(n, _)| n == name);
        axis.is_some_and(|(_, given)| given.iter().all(|value| values.contains(&value.as_str())))
    };
    let given = |name: &str| wanted.axes.iter().any(|(n, _)| n == name);
    let unshared = ["anon", "private-memfd", "shared-anon", "hugetlb-private"];
    let readers =
        ["user-read", "sys-write", "vm-read", "populate-read", "futex", "vcpu-read", "vcpu-fetch"];
    let is_minor = all("mode", &["minor"]) || all("op", &["continue"]);
    let is_protected = all("mode", &["wp"]) || all("op", &["unprotect"]);
    Some(match () {
        () if given("msg") && all("waiter", &["none"]) => "where nobody waits there is no message",
        () if is_minor && all("backing", &unshared) => {
            "minor faults are of pages of a shared page cache, which a memfd has"
        }
        () if is_protected && all("waiter", &readers) => "only a write meets the write protection",
        () if all("waiter", &["mlock"]) && all("change", &["mremap"]) => {
            "mlock(2) splits the mapping that it locks, and mremap(2) takes one mapping"
        }
        () if all("op", &["move"]) && given("backing") => {
            "UFFDIO_MOVE takes anonymous memory, and shmem shows the refusal for all others"
        }
        () if given("part") && all("change", &["unchanged", "mremap", "discard"]) => {
            "a part is named for munmap and mmap-over; mremap and discard have `how`"
        }
        () if given("how") && all("change", &["unchanged", "munmap", "mmap-over"]) => {
            "`how` is of mremap and discard"
        }
        () if given("over") && all("change", &["unchanged", "munmap", "mremap", "discard"]) => {
            "`over` is of mmap-over"
        }
        () if all("change", &["discard"]) || all("over", &["same"]) => {
            "that change is only crossed with look, copy, unregister and wake, by the claims; madvise(2) with \
             every waiter is asked beside the grid: `uffd-conform ask changes/madvise`"
        }
        () if all("op", &["copy", "zeropage"]) && given("mode") => {
            "COPY and ZEROPAGE fill missing pages"
        }
        () if is_minor && all("mode", &["missing", "wp"]) => "CONTINUE is of minor faults",
        () if is_protected && all("mode", &["missing", "minor"]) => {
            "the operation removes a write protection"
        }
        () => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn wanted(axes: &[(&str, &str)]) -> Wanted {
        let given = |(name, value): &(&str, &str)| ((*name).to_owned(), vec![(*value).to_owned()]);
        Wanted { filters: Vec::new(), axes: axes.iter().map(given).collect() }
    }

    fn chosen(wanted: &Wanted) -> Result<Chosen> {
        choose(wanted, &candidates(wanted)?, Dataset::recorded())
    }

    #[rstest]
    #[case(&[("mode", "minor"), ("backing", "anon")], &["shared page cache", "shmem"])]
    #[case(&[("mode", "wp"), ("waiter", "user-read")], &["only a write", "user-write"])]
    #[case(&[("waiter", "mlock"), ("change", "mremap")], &["splits the mapping", "munmap"])]
    #[case(&[("waiter", "none"), ("msg", "read")], &["no message", "leave out msg"])]
    #[case(&[("op", "move"), ("backing", "shared-anon")], &["anonymous", "shmem"])]
    #[case(&[("change", "munmap"), ("how", "grow")], &["mremap and discard", "leave out how"])]
    #[case(&[("change", "discard"), ("op", "zeropage")], &["claims", "mmap-over"])]
    #[case(&[("backing", "teapot")], &["backing=teapot", "shmem"])]
    fn impossible_points_are_explained(#[case] axes: &[(&str, &str)], #[case] words: &[&str]) {
        let error = chosen(&wanted(axes)).expect_err("no such point").to_string();
        assert!(words.iter().all(|word| error.contains(word)), "{error}");
    }

    #[test]
    fn a_point_is_named_once_though_a_claim_asks_it_too() {
        let axes = [
            ("op", "copy"),
            ("change", "munmap"),
            ("part", "middle"),
            ("waiter", "none"),
            ("backing", "anon"),
        ];
        let found = chosen(&wanted(&axes)).expect("a point");
        let ids: Vec<&str> = found.recorded.iter().map(|asked| asked.id.as_str()).collect();
        assert_eq!(ids, ["copy/munmap[backing=anon,part=middle,waiter=none]"]);
    }

    #[test]
    fn what_is_not_recorded_has_something_near() {
        let axes = [
            ("op", "copy"),
            ("change", "mmap-over"),
            ("part", "head"),
            ("over", "prot-none"),
            ("waiter", "mlock"),
            ("msg", "unread"),
            ("backing", "hugetlb-private"),
        ];
        let wanted = wanted(&axes);
        let all = candidates(&wanted).expect("cases");
        // Nothing is recorded here at all, so that this holds whatever is recorded one day.
        let nothing = Dataset::default();
        let found = choose(&wanted, &all, &nothing).expect("a point");
        assert_eq!((found.recorded.len(), found.others.len()), (0, 1));
        assert!(nearest(&wanted, &all, &nothing).is_none());
        let data = Dataset::recorded();
        if data.case(&found.others[0].id).is_none() {
            let near = nearest(&wanted, &all, data);
            assert!(near.is_none_or(|near| !near.given_up.is_empty() && near.given_up.len() <= 2));
        }
    }

    #[test]
    fn trials_are_meant_by_filters_and_by_axes_of_their_own() {
        let mut wanted = wanted(&[("backing", "anon")]);
        assert!(candidates(&wanted).is_ok_and(|all| all.iter().all(|a| a.axis("op").is_some())));
        wanted.filters.push("events/".into());
        let found = chosen(&wanted).expect("cases");
        assert!(found.recorded.iter().all(|asked| asked.id.starts_with("events/")));
        let wanted =
            Wanted { filters: Vec::new(), axes: vec![("event".into(), vec!["re*".into()])] };
        assert!(chosen(&wanted).is_ok_and(|found| !found.recorded.is_empty()));
    }
}
