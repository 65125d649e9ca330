//! Which trials are asked by default, of those that their suites propose: enough that every value of
//! an axis meets every value of every other, as anonymous memory and as some other kind. All of them
//! are asked with `--full`.

use crate::probe::{Ask, Case};
use std::collections::{HashMap, HashSet};
use std::fmt;

/// Takes the default away from trials that show no pair of values that others have not shown.
pub(crate) fn thin(cases: &mut [Case]) {
    let mut shown: HashMap<*const crate::probe::Probe, HashSet<String>> = HashMap::new();
    for case in cases.iter_mut().filter(|case| case.by_default) {
        if !matches!(case.ask, Ask::Trial(_)) {
            continue;
        }
        let shown = shown.entry(std::ptr::from_ref(case.probe)).or_default();
        let before = shown.len();
        shown.extend(pairs(&case.axes()));
        case.by_default = shown.len() > before;
    }
}

/// What a case shows: pairs of values; the kind of memory alone, and whether it is anonymous with
/// each other value.
fn pairs(axes: &str) -> Vec<String> {
    let (backing, others): (Vec<&str>, Vec<&str>) =
        axes.split(',').partition(|axis| axis.starts_with("backing="));
    let both = |a: &dyn fmt::Display, b: &dyn fmt::Display| format!("{a},{b}");
    let mut pairs: Vec<String> = Vec::new();
    for (i, a) in others.iter().enumerate() {
        pairs.extend(others[i + 1..].iter().map(|b| both(a, b)));
    }
    match backing.first() {
        Some(backing) => {
            pairs.push((*backing).to_owned());
            let kind = if *backing == "backing=anon" { "anon" } else { "other" };
            pairs.extend(others.iter().map(|value| both(&kind, value)));
        }
        None => pairs.extend(others.iter().map(ToString::to_string)),
    }
    pairs
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
    fn memory_that_is_not_anonymous_need_not_meet_every_value() {
        assert_eq!(
            pairs("backing=shmem,op=copy,who=read"),
            ["op=copy,who=read", "backing=shmem", "other,op=copy", "other,who=read"]
        );
    }
}
