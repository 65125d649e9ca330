//! Picks kernels from the lock.
//!
//! A pattern is a series (`6.12`), a glob over series (`7.*`), a version (`6.12.43`, `7.3-rc7`), a
//! glob over versions (`6.12.9*`), or a package version (`6.12.90-2`). Series give their oldest and
//! newest release, everything else all that it names.

use super::lock::{Lock, Locked};
use std::collections::BTreeMap;
use uffd_results::{KernelVersion, glob};

/// A kernel that is wanted, with what may stand in for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slot {
    /// What is wanted, in words: `oldest 6.12`, `6.12.43`.
    pub wanted: String,
    /// Candidates, best first: a package that has left the archive gives way to the next.
    pub candidates: Vec<Locked>,
}

/// Why nothing can be picked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SelectError {
    /// The lock has nothing of the kind.
    #[error(
        "no kernel matches {pattern:?}; give a series (6.12), a version (6.12.43) or a glob (7.*) of these:\n{available}"
    )]
    NoMatch {
        /// The pattern as given.
        pattern: String,
        /// What there is, a line a series.
        available: String,
    },
    /// The lock has nothing at all.
    #[error("the list of kernels is empty: fill it with `uffd-conform kernels --update`")]
    Empty,
}

/// The kernels that the patterns name, in version order; without patterns the oldest and the
/// newest release of every series. `newest_only` leaves out the oldest ones.
pub fn select(
    lock: &Lock,
    patterns: &[String],
    newest_only: bool,
) -> Result<Vec<Slot>, SelectError> {
    if lock.kernels().is_empty() {
        return Err(SelectError::Empty);
    }
    let every = ["*".to_owned()];
    let patterns = if patterns.is_empty() { &every[..] } else { patterns };
    let mut slots: Vec<Slot> = Vec::new();
    for pattern in patterns {
        let found = matching(lock.kernels(), pattern, newest_only);
        if found.is_empty() {
            let available = available(lock);
            return Err(SelectError::NoMatch { pattern: pattern.clone(), available });
        }
        for slot in found {
            if !slots.iter().any(|s| s.candidates.first() == slot.candidates.first()) {
                slots.push(slot);
            }
        }
    }
    slots.sort_by(|a, b| match (a.candidates.first(), b.candidates.first()) {
        (Some(a), Some(b)) => a.order(b),
        (a, b) => a.is_some().cmp(&b.is_some()),
    });
    Ok(slots)
}

fn matching(kernels: &[Locked], pattern: &str, newest_only: bool) -> Vec<Slot> {
    let one_package: Vec<_> = kernels.iter().filter(|k| k.image.version == pattern).collect();
    if !one_package.is_empty() {
        return vec![slot(pattern, one_package)];
    }
    let names_versions = pattern.matches('.').count() > 1 || pattern.contains(['-', '~']);
    let mut groups: BTreeMap<KernelVersion, Vec<&Locked>> = BTreeMap::new();
    if names_versions {
        let pattern = pattern.replace('~', "-");
        for kernel in kernels.iter().filter(|k| glob(&pattern, &k.upstream.to_string())) {
            groups.entry(kernel.upstream).or_default().push(kernel);
        }
        // Builds of one version for several releases of Debian stand in for each other.
        return groups
            .into_iter()
            .map(|(version, builds)| slot(&version.to_string(), builds.into_iter().rev()))
            .collect();
    }
    for kernel in kernels.iter().filter(|k| glob(pattern, &k.series())) {
        let series = KernelVersion::new(kernel.upstream.major, kernel.upstream.minor, 0);
        groups.entry(series).or_default().push(kernel);
    }
    groups.into_values().flat_map(|series| of_series(&series, newest_only)).collect()
}

/// The oldest and the newest of a series; candidates count only where there is no release.
fn of_series(kernels: &[&Locked], newest_only: bool) -> Vec<Slot> {
    let released: Vec<_> = kernels.iter().copied().filter(|k| k.upstream.rc.is_none()).collect();
    let kernels = if released.is_empty() { kernels.to_vec() } else { released };
    let (Some(first), Some(last)) = (kernels.first(), kernels.last()) else { return Vec::new() };
    let series = first.series();
    let mut slots = Vec::new();
    if !newest_only && first.upstream != last.upstream {
        slots.push(slot(&format!("oldest {series}"), kernels.iter().copied()));
    }
    slots.push(slot(&format!("newest {series}"), kernels.iter().rev().copied()));
    slots
}

fn slot<'a>(wanted: &str, candidates: impl IntoIterator<Item = &'a Locked>) -> Slot {
    Slot { wanted: wanted.to_owned(), candidates: candidates.into_iter().cloned().collect() }
}

/// What there is: a line a series, with its versions.
fn available(lock: &Lock) -> String {
    let mut lines: Vec<(String, Vec<String>)> = Vec::new();
    for kernel in lock.kernels() {
        let (series, version) = (kernel.series(), kernel.upstream.to_string());
        match lines.last_mut().filter(|(s, _)| *s == series) {
            Some((_, versions)) if versions.contains(&version) => {}
            Some((_, versions)) => versions.push(version),
            None => lines.push((series, vec![version])),
        }
    }
    let lines: Vec<_> = lines.iter().map(|(s, v)| format!("  {s}: {}", v.join(" "))).collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::super::testing::kernel;
    use super::*;
    use rstest::{fixture, rstest};

    #[fixture]
    fn lock() -> Lock {
        let versions = [
            "5.10.218-1",
            "6.12.43-1",
            "6.12.90-1~bpo12+1",
            "6.12.90-1",
            "6.12.90-2",
            "6.12.101-1",
            "7.2.6-1",
            "7.2.13-1",
            "7.3~rc7-1~exp1",
            "7.3.4-1",
            "7.4~rc1-1",
            "7.4~rc2-1",
        ];
        Lock::of(versions.into_iter().map(|v| kernel(v, "s")).collect())
    }

    /// The slots as `wanted: first candidate`.
    fn words(lock: &Lock, patterns: &[&str], newest_only: bool) -> Vec<String> {
        let patterns: Vec<_> = patterns.iter().map(ToString::to_string).collect();
        let slots = select(lock, &patterns, newest_only).expect("matches");
        slots.iter().map(|s| format!("{}: {}", s.wanted, s.candidates[0].image.version)).collect()
    }

    #[rstest]
    #[case(&["6.12"], &["oldest 6.12: 6.12.43-1", "newest 6.12: 6.12.101-1"])]
    #[case(&["6.12.43"], &["6.12.43: 6.12.43-1"])]
    #[case(&["6.12.90"], &["6.12.90: 6.12.90-2"])]
    #[case(&["6.12.90-1"], &["6.12.90-1: 6.12.90-1"])]
    #[case(&["6.12.9?"], &["6.12.90: 6.12.90-2"])]
    #[case(&["6.12.*"], &["6.12.43: 6.12.43-1", "6.12.90: 6.12.90-2", "6.12.101: 6.12.101-1"])]
    #[case(&["7.3"], &["newest 7.3: 7.3.4-1"])]
    #[case(&["7.3-rc7"], &["7.3-rc7: 7.3~rc7-1~exp1"])]
    #[case(&["7.3~rc7"], &["7.3-rc7: 7.3~rc7-1~exp1"])]
    #[case(&["7.4"], &["oldest 7.4: 7.4~rc1-1", "newest 7.4: 7.4~rc2-1"])]
    // The same kernel under two names is taken once, under the name given first.
    #[case(&["7.3", "6.12.43", "6.12"], &["6.12.43: 6.12.43-1", "newest 6.12: 6.12.101-1", "newest 7.3: 7.3.4-1"])]
    #[case(&["6.12", "6.12.43"], &["oldest 6.12: 6.12.43-1", "newest 6.12: 6.12.101-1"])]
    fn patterns_select(lock: Lock, #[case] patterns: &[&str], #[case] expected: &[&str]) {
        assert_eq!(words(&lock, patterns, false), expected);
    }

    #[rstest]
    fn series_globs_and_the_default(lock: Lock) {
        let seven = words(&lock, &["7.*"], false);
        assert_eq!(
            seven,
            [
                "oldest 7.2: 7.2.6-1",
                "newest 7.2: 7.2.13-1",
                "newest 7.3: 7.3.4-1",
                "oldest 7.4: 7.4~rc1-1",
                "newest 7.4: 7.4~rc2-1"
            ]
        );
        let all = words(&lock, &[], true);
        assert_eq!(all.len(), 5, "one a series: {all:?}");
        assert!(all.iter().all(|w| w.starts_with("newest")), "{all:?}");
    }

    #[rstest]
    fn candidates_stand_in_in_order(lock: Lock) {
        let slots = select(&lock, &["6.12".to_owned()], false).expect("matches");
        let versions = |slot: &Slot| {
            slot.candidates.iter().map(|k| k.image.version.clone()).collect::<Vec<_>>()
        };
        let up = ["6.12.43-1", "6.12.90-1~bpo12+1", "6.12.90-1", "6.12.90-2", "6.12.101-1"];
        assert_eq!(versions(&slots[0]), up);
        assert_eq!(versions(&slots[1]), up.iter().rev().copied().collect::<Vec<_>>());
    }

    #[rstest]
    #[case("6.13")]
    #[case("6.12.44")]
    #[case("oldest")]
    #[case("")]
    fn what_matches_nothing_lists_what_there_is(lock: Lock, #[case] pattern: &str) {
        let error = select(&lock, &[pattern.to_owned()], false).expect_err("no match").to_string();
        assert!(error.contains("  6.12: 6.12.43 6.12.90 6.12.101\n"), "{error}");
    }

    #[test]
    fn an_empty_lock_says_what_to_do() {
        let error = select(&Lock::default(), &[], false).expect_err("empty").to_string();
        assert!(error.contains("--update"), "{error}");
    }
}
