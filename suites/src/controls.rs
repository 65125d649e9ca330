//! Controls: "nobody was woken", "nobody waits" and "no message came" say little where nobody and
//! nothing could have.
//!
//! A family is a probe together with the probes that are named here as its controls. Whatever a default
//! case of a family expects not to happen must happen in another default case of it, on the same kind
//! of memory.

use crate::probe::Case;
use std::collections::{BTreeMap, BTreeSet};
use uffd_results::KernelVersion;

/// Probes whose control is another probe: the same steps on the same ground, but for what the probe
/// says hinders them.
const CONTROLS: &[(&str, &[&str])] = &[
    ("arguments/number", &["arguments/range"]),
    ("arguments/order", &["arguments/range"]),
    ("changes/half-way", &["copy/unchanged"]),
    ("continue/m*", &["continue/unchanged"]),
    ("copy/d*", &["copy/unchanged"]),
    ("copy/m*", &["copy/unchanged"]),
    ("copy/other-uffd", &["copy/unchanged"]),
    ("copy/present", &["copy/unchanged"]),
    ("copy/source-unmapped", &["copy/unchanged"]),
    ("copy/span-*", &["copy/part-present"]),
    ("events/brk", &["copy/unchanged"]),
    ("events/process-gone", &["lifetime/ends-in-event"]),
    ("events/shmdt", &["events/munmap"]),
    ("handle/call", &["handle/unknown-ioctl"]),
    ("kinds/guard-waiter", &["kinds/guard-control"]),
    ("kinds/shmem-collapse", &["copy/unchanged"]),
    ("lifetime/fork-child", &["lifetime/fork-ioctl"]),
    ("move/destination", &["move/source"]),
    ("move/dontwake", &["move/dontwake-control"]),
    ("move/edge", &["move/span"]),
    ("move/m*", &["move/unchanged"]),
    ("move/source-waiter", &["move/source"]),
    ("poison/dontwake", &["poison/dontwake-control"]),
    ("poison/m*", &["poison/unchanged"]),
    ("poison/range", &["poison/unchanged"]),
    ("poison/span", &["poison/unchanged"]),
    ("poison/state", &["poison/unchanged"]),
    ("races/copy-owner-ends", &["lifetime/ends-in-event"]),
    ("races/register-result", &["copy/unchanged"]),
    ("unregister/m*", &["unregister/unchanged"]),
    ("unregister/other-uffd", &["unregister/unchanged"]),
    ("unregister/wp-*", &["unregister/unchanged"]),
    ("vcpu/immediate-exit", &["vcpu/copy"]),
    ("vcpu/munmap-wake", &["vcpu/copy"]),
    ("waiters/never-waits", &["waiters/system-call"]),
    ("wake/length-zero", &["wake/wide"]),
    ("wake/misaligned", &["wake/wide"]),
    ("wake/other-*", &["wake/wide"]),
    ("writeprotect/m*", &["writeprotect/unchanged"]),
    ("zeropage/m*", &["zeropage/unchanged"]),
    ("zeropage/span-split", &["zeropage/unchanged"]),
];

/// What is expected not to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Absence {
    /// A waiter sleeps on.
    Woken,
    /// No message, event or region is read.
    Message,
    /// An access does not wait.
    Parked,
}

/// Facts that tell what became of those who waited.
const FATES: [&str; 18] = [
    "waiter",
    "waiter-then",
    "waiters",
    "fates",
    "filled",
    "last",
    "unread",
    "registered",
    "early-waiter",
    "first",
    "second",
    "closed",
    "after",
    "signal",
    "signal-2",
    "stop",
    "killed",
    "woken",
];

/// Facts that name what was read.
const MESSAGES: [&str; 6] = ["events", "message", "read", "read-again", "parent-read", "regions"];

/// What a fact of a case says about an absence: that something is absent (true) or there (false).
fn says(fact: &str, value: &str, ended: bool) -> Option<(Absence, bool)> {
    if MESSAGES.contains(&fact) {
        let absent = matches!(value, "none" | "EAGAIN");
        let refused = !absent && value.starts_with('E');
        return (!refused).then_some((Absence::Message, absent));
    }
    if value.contains("asleep") || fact == "waiters" && value.contains('z') {
        return Some((Absence::Woken, true));
    }
    if FATES.contains(&fact) {
        return Some((Absence::Woken, false));
    }
    if fact == "queue" {
        return match value {
            "0/0" => ended.then_some((Absence::Parked, true)),
            _ => Some((Absence::Parked, false)),
        };
    }
    matches!(value, "again" | "parks").then_some((Absence::Parked, false))
}

/// Facts that tell how an access ended that might have waited.
const ACCESSES: [&str; 5] = ["access", "returned", "deed", "touch", "call"];

/// The kind of memory that a case is asked on; empty if it has none to choose.
fn memory(case: &Case) -> String {
    let axes = case.axes();
    let kind = axes
        .split(',')
        .find_map(|axis| axis.strip_prefix("backing=").or_else(|| axis.strip_prefix("memory=")));
    kind.unwrap_or_default().to_owned()
}

type Seen = BTreeMap<(Absence, bool), BTreeSet<String>>;

/// What each probe's cases say, with the kinds of memory on which they do.
fn sayings(cases: &[Case], kernel: KernelVersion) -> BTreeMap<String, Seen> {
    let mut probes: BTreeMap<String, Seen> = BTreeMap::new();
    for case in cases.iter().filter(|case| case.by_default) {
        let seen = probes.entry(case.probe.to_string()).or_default();
        let facts = case.expect(kernel);
        let is_fault = |fact: &str| fact.starts_with("fault");
        let waits = |fact: &str| is_fault(fact) || FATES.contains(&fact);
        let waits = facts.iter().any(|e| waits(e.fact) || matches!(&*e.value, "again" | "parks"));
        let ended = !waits && facts.iter().any(|e| ACCESSES.contains(&e.fact));
        for expected in &facts {
            if let Some(said) = says(expected.fact, &expected.value, ended) {
                seen.entry(said).or_default().insert(memory(case));
            }
            if is_fault(expected.fact) {
                for absence in [Absence::Parked, Absence::Message] {
                    seen.entry((absence, false)).or_default().insert(memory(case));
                }
            }
        }
    }
    probes
}

/// Whether a name of the list is the probe's; one that ends in `*` is of all that begin so.
fn is_named(name: &str, probe: &str) -> bool {
    name.strip_suffix('*').map_or(name == probe, |head| probe.starts_with(head))
}

/// Families in which something is expected not to happen that never happens on that kind of memory.
fn uncontrolled(
    cases: &[Case],
    controls: &[(&str, &[&str])],
    kernel: KernelVersion,
) -> Vec<String> {
    let probes = sayings(cases, kernel);
    let mut missing = Vec::new();
    for (probe, seen) in &probes {
        let named =
            controls.iter().filter(|(name, _)| is_named(name, probe)).flat_map(|(_, all)| *all);
        let family: Vec<&Seen> =
            std::iter::once(seen).chain(named.filter_map(|control| probes.get(*control))).collect();
        for ((absence, _), kinds) in seen.iter().filter(|((_, absent), _)| *absent) {
            let there: BTreeSet<&String> =
                family.iter().filter_map(|seen| seen.get(&(*absence, false))).flatten().collect();
            let is_shown = |kind: &String| {
                there.contains(kind)
                    || there.contains(&String::new())
                    || kind.is_empty() && !there.is_empty()
            };
            let open: Vec<&str> =
                kinds.iter().filter(|kind| !is_shown(kind)).map(String::as_str).collect();
            if !open.is_empty() {
                missing.push(format!("{probe}: {absence:?} never, on {}", open.join(" ")));
            }
        }
    }
    missing
}

/// The newest kernel that is recorded, which has every operation.
const KERNEL: KernelVersion = KernelVersion::new(7, 3, 0);

#[test]
fn whatever_must_not_happen_happens_in_the_same_family() {
    let missing = uncontrolled(&crate::cases(), CONTROLS, KERNEL);
    assert!(missing.is_empty(), "no control:\n{}", missing.join("\n"));
}

#[test]
fn a_family_without_its_control_is_objected_to() {
    let objects = |keeps: fn(&Case) -> bool| {
        let mut cases = crate::cases();
        cases.retain(keeps);
        uncontrolled(&cases, CONTROLS, KERNEL)
    };
    // A control that is another probe.
    let missing = objects(|case| case.probe.to_string() != "copy/unchanged");
    assert!(missing.iter().any(|m| m.starts_with("copy/munmap: Woken")), "{missing:?}");
    let missing = objects(|case| case.probe.to_string() != "waiters/system-call");
    assert_eq!(missing, ["waiters/never-waits: Parked never, on anon shmem"]);
    // One of the same probe.
    let missing = objects(|case| {
        case.probe.to_string() != "events/discard" || case.axes().contains("events=none")
    });
    assert!(missing.iter().any(|m| m.starts_with("events/discard: Message")), "{missing:?}");
    // One that is not asked by default says nothing in a default run.
    let mut cases = crate::cases();
    for case in cases.iter_mut().filter(|case| case.probe.to_string() == "wake/wide") {
        case.by_default = false;
    }
    let missing = uncontrolled(&cases, CONTROLS, KERNEL);
    assert!(missing.iter().any(|m| m.starts_with("wake/misaligned: Woken")), "{missing:?}");
}

#[test]
fn every_named_control_exists_and_is_needed() {
    let cases = crate::cases();
    let probes: BTreeSet<String> = cases.iter().map(|case| case.probe.to_string()).collect();
    for (n, (name, all)) in CONTROLS.iter().enumerate() {
        assert!(probes.iter().any(|probe| is_named(name, probe)), "{name} is no probe");
        assert!(all.iter().all(|control| probes.contains(*control)), "{name}: {all:?}");
        let mut others = CONTROLS.to_vec();
        others.remove(n);
        let missing = uncontrolled(&cases, &others, KERNEL);
        assert!(!missing.is_empty(), "{name} needs no other probe as its control");
    }
}
