//! The list of default trials is what the rule makes; and the rule makes what it should.

use super::testing::{INSISTED, REACHES, WANTED, file, pair, values};
use super::*;
use crate::cases;
use std::collections::HashSet;

/// `UFFD_BLESS=1` writes the list in place of comparing it.
#[test]
fn the_defaults_are_those_of_the_rule() {
    let made = file(crate::registry());
    if std::env::var_os("UFFD_BLESS").is_some() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/cover/defaults.txt");
        std::fs::write(path, made).expect("the list written");
        return;
    }
    let differs = DEFAULTS.lines().zip(made.lines()).find(|(is, should)| is != should);
    assert!(
        DEFAULTS == made,
        "not as the rule makes it: {differs:?}; UFFD_BLESS=1 cargo test -p uffd-suites --lib cover writes it"
    );
}

#[test]
fn every_value_that_a_suite_proposes_is_a_default() {
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
    let defaults = values(&cases());
    let lost: Vec<String> =
        values(crate::registry()).into_iter().filter(|value| !defaults.contains(value)).collect();
    assert!(lost.is_empty(), "{lost:?}");
}

#[test]
fn what_is_insisted_on_exists_and_is_a_default() {
    let cases = cases();
    for (name, all) in INSISTED.iter().chain(REACHES).chain(WANTED) {
        let is_it = |case: &&Case| {
            let axes = format!("{},", case.axes());
            case.probe.to_string() == *name && all.iter().all(|part| axes.contains(part))
        };
        assert!(cases.iter().filter(is_it).any(|case| case.by_default), "{name} {all:?}");
    }
}

/// With events that nobody asked for, MADV_FREE would look like MADV_COLD.
#[test]
fn a_value_is_asked_where_it_makes_a_difference() {
    let cases = cases();
    let is_default = |id: &str| cases.iter().any(|case| case.by_default && case.id() == id);
    for advice in ["free", "cold", "dontneed-locked"] {
        let told = |events: &str| {
            is_default(&format!(
                "events/discard[backing=anon,advice={advice},what=page,events={events}]"
            ))
        };
        assert!(["remove", "remap+remove+unmap"].into_iter().any(told), "{advice}");
    }
}

#[test]
fn numbers_are_read_as_they_are_written() {
    let mut numbers = Numbers { text: "0-2 5 9-10".split(' '), run: 0..0 };
    let taken: Vec<u32> = (0..12).filter(|&i| numbers.takes(i)).collect();
    assert_eq!(taken, [0, 1, 2, 5, 9, 10]);
    let mut none = Numbers { text: "".split(' '), run: 0..0 };
    assert!((0..3).all(|i| !none.takes(i)));
}

#[test]
fn memory_that_is_not_anonymous_need_not_meet_every_pair() {
    let anon = "backing=anon,op=copy,who=read";
    assert!(values(anon).ends_with(&["anon,op=copy".to_owned(), "anon,who=read".to_owned()]));
    assert_eq!(pair(anon).as_deref(), Some("op=copy,who=read"));
    let shmem = "backing=shmem,op=copy,who=read";
    assert_eq!(values(shmem), ["backing=shmem", "op=copy", "who=read"]);
    assert_eq!(pair(shmem), None);
}
