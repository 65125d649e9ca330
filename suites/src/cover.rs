//! Which trials are asked by default, of all that the suites have; with `--full` all are.
//!
//! The list is made, by a rule of `testing`, from what is expected: enough that every value of an axis is asked
//! where it makes a difference, that each change from release to release is seen, that every kind of memory is
//! asked, and what is insisted on. A test says when it is not what the rule makes, and how to make it anew.
//! `scripts/kernel-coverage --check` tells whether it still reaches what it reached.

use crate::probe::{Ask, Case, Probe};
use std::collections::HashMap;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

/// A line a probe that has any: its name and the numbers of its trials, from 0, in the registry's order.
const DEFAULTS: &str = include_str!("cover/defaults.txt");

/// Leaves the default to the trials of the list. Points of the grid and claims keep theirs.
pub(crate) fn thin(cases: &mut [Case]) {
    let listed: HashMap<(&str, &str), &str> = DEFAULTS.lines().filter_map(line).collect();
    // Of each probe: what the list still has, and the number of its next trial.
    let mut left: HashMap<*const Probe, (Numbers<'_>, u32)> = HashMap::new();
    for case in cases.iter_mut().filter(|case| matches!(case.ask, Ask::Trial(_))) {
        let (numbers, next) = left.entry(std::ptr::from_ref(case.probe)).or_insert_with(|| {
            let text =
                listed.get(&(case.probe.suite, case.probe.name)).copied().unwrap_or_default();
            (Numbers { text: text.split(' '), run: 0..0 }, 0)
        });
        case.by_default = numbers.takes(*next);
        *next += 1;
    }
}

/// `suite/name: numbers`.
fn line(text: &str) -> Option<((&str, &str), &str)> {
    let (name, numbers) = text.split_once(": ")?;
    Some((name.split_once('/')?, numbers))
}

/// Numbers in ascending order: `0-3 7 9-12`.
struct Numbers<'a> {
    text: std::str::Split<'a, char>,
    run: std::ops::Range<u32>,
}

impl Numbers<'_> {
    /// Whether `number`, which grows from call to call, is one of them.
    fn takes(&mut self, number: u32) -> bool {
        while self.run.end <= number {
            let Some(word) = self.text.next() else { return false };
            let (first, last) = word.split_once('-').unwrap_or((word, word));
            let read = |text: &str| text.parse().unwrap_or(u32::MAX);
            self.run = read(first)..read(last).saturating_add(1);
        }
        self.run.contains(&number)
    }
}
