//! What the sources expect of releases that nobody recorded, where the recorded ones around them agree on
//! something else: such as a change that a long-lived series took over and the next ones, ended by then, never had.

use crate::judge::{Difference, judge};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use uffd_results::{Apart, Dataset, KernelVersion, Outcome, Verdict};
use uffd_suites::probe::Case;

/// What is expected of releases between two recorded series and is not what both have shown.
pub(super) fn between_series(data: &Dataset, cases: &HashMap<String, Case>) -> Vec<Apart> {
    let mut all = Vec::new();
    let machines: BTreeSet<&str> = data.kernels().iter().map(|k| k.machine.as_str()).collect();
    for asked in data.cases() {
        let id = asked.id();
        let Some(case) = cases.get(&id) else { continue };
        for machine in &machines {
            let kernels = data.kernels().iter().enumerate().filter(|(_, k)| k.machine == *machine);
            let answered = kernels.filter_map(|(at, k)| Some((k.upstream, asked.answer(at)?)));
            let answered: Vec<(KernelVersion, &Outcome)> = answered.collect();
            let pairs = answered.windows(2);
            all.extend(pairs.flat_map(|pair| of_pair(case, &id, pair[0], pair[1])));
        }
    }
    all
}

fn of_pair(
    case: &Case,
    id: &str,
    (older, seen): (KernelVersion, &Outcome),
    (newer, next): (KernelVersion, &Outcome),
) -> Vec<Apart> {
    if judge(case, seen, older).verdict != Verdict::Pass {
        return Vec::new();
    }
    let mut found: BTreeMap<((u16, u16), &str), BTreeSet<String>> = BTreeMap::new();
    for version in between(older, newer) {
        for Difference { expected, seen } in judge(case, seen, version).differences {
            // What the two do not agree on is unknown without this.
            if next.facts.get(expected.fact) == seen.as_deref() {
                let series = (version.major, version.minor);
                found.entry((series, expected.fact)).or_default().insert(expected.value.into());
            }
        }
    }
    let apart = |((series, fact), values): (((u16, u16), &str), BTreeSet<String>)| Apart {
        case: id.to_owned(),
        fact: fact.to_owned(),
        series,
        value: values.into_iter().collect::<Vec<_>>().join("|"),
    };
    found.into_iter().map(apart).collect()
}

/// The first and the last release of each series between two releases, and the first of the newer one's: what a
/// series has taken over late, the last one shows.
fn between(older: KernelVersion, newer: KernelVersion) -> Vec<KernelVersion> {
    /// The last minor number of each major one that has a successor.
    const LAST: [(u16, u16); 2] = [(5, 19), (6, 19)];
    let last = |major| LAST.iter().find(|(of, _)| *of == major).map(|(_, minor)| *minor);
    let (mut series, mut all) = ((older.major, older.minor), Vec::new());
    let end = (newer.major, newer.minor);
    while series < end {
        series = match series {
            (major, minor) if last(major) == Some(minor) => (major + 1, 0),
            (major, minor) => (major, minor + 1),
        };
        let patches = if series < end { &[0, u16::MAX][..] } else { &[0] };
        all.extend(patches.iter().map(|patch| KernelVersion::new(series.0, series.1, *patch)));
    }
    all.retain(|version| *version < newer);
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case((5, 10, 262), (5, 11, 3), &["5.11.0"])]
    #[case((5, 18, 1), (6, 1, 170), &["5.19.0", "5.19.65535", "6.0.0", "6.0.65535", "6.1.0"])]
    #[case((6, 12, 43), (6, 12, 118), &[])]
    #[case((6, 17, 13), (6, 18, 0), &[])]
    fn every_series_between_two_is_asked(
        #[case] older: (u16, u16, u16),
        #[case] newer: (u16, u16, u16),
        #[case] expected: &[&str],
    ) {
        let version = |(a, b, c)| KernelVersion::new(a, b, c);
        let all: Vec<String> =
            between(version(older), version(newer)).iter().map(ToString::to_string).collect();
        assert_eq!(all, expected);
    }

    /// The result field of EAGAIN is written from 6.15 on, and in 6.12 from 6.12.29 on.
    #[test]
    fn a_late_change_of_a_stable_series_is_not_the_next_ones() {
        let known = crate::known::built_in();
        let id = "copy/event-unread[backing=anon]";
        let all = between_series(&known.data, &crate::known::cases());
        let field = |series| {
            let is_it = |a: &&Apart| a.case == id && a.fact == "field" && a.series == series;
            all.iter().find(is_it).map(|apart| apart.value.as_str())
        };
        assert_eq!(
            [(6, 13), (6, 14), (6, 15)].map(field),
            [Some("untouched"), Some("untouched"), None]
        );
    }
}
