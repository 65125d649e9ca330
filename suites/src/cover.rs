//! Which trials are asked by default, of those that their suites propose: enough that every value of
//! an axis is asked, of anonymous memory where it can be, that every kind of memory is, and that every
//! two values of the few axes of a small probe meet. All of them are asked with `--full`.

use crate::probe::{Ask, Case};
use std::collections::{HashMap, HashSet};

/// Takes the default away from trials that show nothing that others before them have not shown.
pub(crate) fn thin(cases: &mut [Case]) {
    let mut shown: HashMap<*const crate::probe::Probe, HashSet<String>> = HashMap::new();
    for case in cases.iter_mut().filter(|case| case.by_default) {
        if !matches!(case.ask, Ask::Trial(_)) {
            continue;
        }
        let shown = shown.entry(std::ptr::from_ref(case.probe)).or_default();
        let before = shown.len();
        shown.extend(shows(&case.axes()));
        case.by_default = shown.len() > before;
    }
}

/// What a case shows: its values, each of them of anonymous memory where there is a choice; and the
/// pairs of two values where there are no more, of anonymous memory or where there is none.
fn shows(axes: &str) -> Vec<String> {
    let (backing, others): (Vec<&str>, Vec<&str>) =
        axes.split(',').partition(|a| a.starts_with("backing=") || a.starts_with("memory="));
    let kind = match backing.first() {
        Some(&"backing=anon" | &"memory=anon") => "anon",
        Some(_) => "other",
        None => "none",
    };
    let mut shown: Vec<String> = axes.split(',').map(ToOwned::to_owned).collect();
    if kind != "other" {
        shown.extend(others.iter().map(|value| format!("{kind},{value}")));
    }
    if let ([a, b], "anon") | ([a, b, ..], "none") = (&others[..], kind) {
        shown.push(format!("{a},{b}"));
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_of_a_default_trial_stays_a_default() {
        let mut cases = crate::registry();
        let values = |cases: &[Case]| -> HashSet<String> {
            cases
                .iter()
                .filter(|case| case.by_default)
                .flat_map(|case| {
                    let probe = case.probe.to_string();
                    let of = move |axis: &str| format!("{probe} {axis}");
                    case.axes().split(',').map(of).collect::<Vec<_>>()
                })
                .collect()
        };
        let before = values(&cases);
        thin(&mut cases);
        assert_eq!(values(&cases), before);
    }

    #[test]
    fn memory_that_is_not_anonymous_need_not_meet_every_pair() {
        let anon = shows("backing=anon,op=copy,who=read");
        assert!(anon.ends_with(&["anon,who=read".to_owned(), "op=copy,who=read".to_owned()]));
        let shmem = shows("backing=shmem,op=copy,who=read");
        assert_eq!(shmem, ["backing=shmem", "op=copy", "who=read"]);
    }
}
