//! Tests of the operations: that they are what they say, run, and find what has a known size.

use super::{Operation, cases, clock, delays, find, measure, operations, stats};
use crate::outcome::Stop;
use crate::stage::Stage;
use crate::testing::isolated;
use rstest::rstest;
use std::collections::HashSet;
use std::time::Duration;

#[test]
fn ids_are_unique_and_no_questions_and_every_limit_is_an_operation() {
    let mut ids: HashSet<String> = crate::registry().iter().map(crate::probe::Case::id).collect();
    for operation in operations() {
        let id = operation.id();
        assert!(uffd_results::is_case_id(&id), "{id}");
        assert!(ids.insert(id.clone()), "{id} stands twice");
        assert!(operation.about.ends_with('.'), "{id}");
        if let Some(limit) = &operation.limit {
            assert!(find(limit).is_some(), "{id}: no operation {limit}");
            assert_ne!(*limit, id);
        }
    }
    assert_eq!(cases().len(), operations().len());
}

#[test]
fn what_needs_kvm_says_so() {
    let cases = cases();
    let kvm: Vec<_> = cases.iter().filter(|case| case.modules() == ["kvm-amd"]).collect();
    assert_eq!(kvm.len(), 2);
    assert!(kvm.iter().all(|case| case.id().starts_with("roundtrip/kvm")));
}

/// Every operation and its limit, twice: on this kernel, or why not.
#[rstest]
fn every_operation_can_be_measured(
    #[values(
        "roundtrip/",
        "phase/",
        "copy/",
        "zeropage/",
        "continue/",
        "move/",
        "writeprotect/",
        "wake/",
        "register/",
        "unregister/",
        "cost/",
        "window/",
        "crowd/",
        "floor/",
        "check/"
    )]
    group: &str,
) {
    for operation in operations().iter().filter(|o| o.id().starts_with(group)) {
        isolated(|stage| once(stage, operation));
    }
}

fn once(stage: &Stage, operation: &Operation) {
    if stage.way.is_err() {
        return;
    }
    let limit = operation.limit.as_deref().and_then(find);
    match measure(stage, operation, limit, 2) {
        Ok(costs) => {
            let sample = costs.sample().expect("calls");
            assert!(sample.min > 0, "{operation:?}: {sample:?}");
            if let (Some(limit), Some(Ok(_))) = (limit, &costs.limit) {
                assert!(costs.ratio().is_some(), "{operation:?}: no ratio to {limit:?}");
            }
        }
        Err(Stop::Unsupported(_) | Stop::Denied(_) | Stop::Precondition(_)) => {}
        Err(stop) => panic!("{operation:?}: {stop}"),
    }
}

/// A delay in a copy of the handler is found with its size: the difference of two round trips, against the
/// loop by itself. Several tries, farther and farther apart, since tests run side by side on CPUs that others use too.
#[test]
fn a_delay_of_known_length_is_found_with_its_size() {
    isolated(|stage| {
        if stage.way.is_err() {
            return;
        }
        let [(without, _), (with, turns)] = delays();
        // A quarter of the calls are no dearer: others only add to a call, and the cheapest one is a rare one.
        let cost = |id: &str| {
            let costs = measure(stage, find(id).expect("it is an operation"), None, 30)?;
            let mut calls = costs.calls;
            calls.sort_unstable();
            Ok::<_, Stop>(calls[calls.len() / 4])
        };
        let mut seen = Vec::new();
        for n in 0..10 {
            std::thread::sleep(Duration::from_millis(100 << n).min(Duration::from_secs(5)));
            let spun: Vec<u64> = (0..15)
                .map(|_| {
                    let start = clock::stamp();
                    clock::spin(turns);
                    clock::stamp() - start
                })
                .collect();
            let put_in = stats::median(&spun).expect("some");
            let found = cost(&with).and_then(|with| Ok(with.saturating_sub(cost(&without)?)));
            if found.as_ref().is_ok_and(|found| found.abs_diff(put_in) * 100 <= put_in * 15) {
                return;
            }
            seen.push((put_in, found));
        }
        panic!("put in and found, in ticks: {seen:?}");
    });
}
