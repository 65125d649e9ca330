//! Which trials are asked by default, of those that their suites propose: enough that every value of
//! an axis is asked, of anonymous memory where it can be, that every kind of memory is, and that every
//! two values of the few axes of a small probe meet. All of them are asked with `--full`.
//! `scripts/kernel-coverage --check` tells whether what is left still reaches what it reached.

use crate::probe::{Ask, Case};
use std::collections::{HashMap, HashSet};

/// What a consumer's assumption rests on stays a default, whatever it repeats: a probe, and what the
/// axes of a case must have. `results/contracts` names these cases.
const INSISTED: [(&str, &[&str]); 24] = [
    ("changes/collapse", &["backing=shmem", "present=few", "then=serve"]),
    ("changes/collapse", &["backing=anon", "present=most", "then=look"]),
    ("changes/collapse", &["backing=shmem", "mode=none", "present=few"]),
    ("changes/exchange", &["backing=anon", "events=remap+unmap"]),
    ("changes/file", &["backing=shmem", "how=write-page", "user-read", "op=copy"]),
    ("changes/madvise", &["backing=shmem", "how=dontneed-page", "user-read"]),
    ("changes/half-way", &["events=remap+unmap,"]),
    ("changes/merge", &["touched=before", "then=nothing"]),
    ("changes/sequence", &["backing=anon", "how=qemu-shrink,", "op=copy"]),
    ("changes/sequence", &["backing=shmem", "how=qemu-shrink-file", "op=copy"]),
    ("continue/fault", &["backing=shmem", "page=punched", "mode=missing,"]),
    ("events/mremap", &["backing=anon", "how=move-part", "events=remap+unmap,"]),
    ("events/mremap", &["backing=anon", "events=remap+remove+unmap,"]),
    ("handle/feature", &["with=offered"]),
    ("handle/ready", &["call=epoll,", "state=one-of-two-read"]),
    ("handle/user-mode-only", &["way=user-mode-only"]),
    ("permission/open", &["who=other-user", "way=user-mode-only", "features=none"]),
    ("permission/open", &["who=userns-root", "features=event-fork"]),
    (
        "register/mprotect-later",
        &["backing=shmem", "registered=none,later=write,", "touch=user-write"],
    ),
    ("register/modes", &["memory=hugetlb-shared", "mode=missing,", "features=none"]),
    ("register/modes", &["memory=shmem", "mode=missing,", "features=none"]),
    ("register/modes", &["memory=shmem", "mode=wp,"]),
    ("waiters/spread", &["backing=anon", "waiter=user-read,msg=read", "first=3"]),
    ("writeprotect/reach", &["backing=anon", "page=missing", "asks=wp-unpopulated"]),
];

/// Stay defaults because something happens in them that is expected not to happen in other defaults of
/// their probes, on the same kind of memory; `controls.rs` asks for such a case in every probe.
const CONTROLS: [(&str, &[&str]); 17] = [
    (
        "arguments/range",
        &["ioctl=wake,backing=hugetlb-shared", "user-read", "bad=huge-len-of-page"],
    ),
    ("changes/adopt", &["backing=anon,how=munmap-anew-register,waiter=user-read,op=copy"]),
    ("changes/adopt", &["backing=private-memfd,how=munmap-anew-register,waiter=user-read,op=copy"]),
    ("changes/adopt", &["backing=shmem,how=munmap-anew-register,waiter=user-read,op=copy"]),
    ("changes/file", &["backing=hugetlb-shared,how=punch-page,waiter=user-read,op=copy"]),
    ("changes/mprotect", &["backing=shmem,how=none-middle,waiter=user-read,op=copy"]),
    (
        "changes/sequence",
        &["backing=private-memfd,how=shrink-grow-register,waiter=user-read,op=copy"],
    ),
    ("changes/truncate", &["backing=hugetlb-shared,how=zero-then-back,waiter=user-read,op=copy"]),
    ("changes/truncate", &["backing=private-memfd,how=grow,waiter=user-read,op=copy"]),
    ("events/mremap", &["backing=shmem,how=move,events=remap+unmap"]),
    ("events/munmap", &["backing=shmem,what=whole,events=remap+remove+unmap"]),
    ("handle/read-size", &["fd=blocking", "unread=1"]),
    ("rwp/scan", &["backing=private-memfd,ask=accessed,done=load"]),
    ("rwp/scan", &["backing=shared-anon,ask=accessed,done=load"]),
    ("rwp/scan", &["backing=shmem,ask=accessed,done=load"]),
    ("waiters/debugger", &["backing=shmem,page=missing,access=process-vm-readv,owner=idle"]),
    ("waiters/sigbus", &["backing=shmem,mode=missing,access=user-read,feature=none"]),
];

/// What alone reaches a line of the kernel, mostly one that refuses an argument, stays a default too:
/// each ioctl has a check of its own. `docs/coverage.md` has the lines that nothing reaches.
const REACHES: &[(&str, &[&str])] = &[
    ("arguments/event-unread", &["ioctl=continue,", "backing=shmem", "wrong=struct"]),
    ("arguments/event-unread", &["ioctl=copy,", "backing=anon", "wrong=struct"]),
    ("arguments/event-unread", &["ioctl=move,", "backing=anon", "wrong=struct"]),
    ("arguments/event-unread", &["ioctl=poison,", "backing=anon", "wrong=struct"]),
    ("arguments/event-unread", &["ioctl=zeropage,", "backing=anon", "wrong=struct"]),
    ("arguments/mode", &["ioctl=continue,", "backing=shmem", "user-read", "mode=bit-5,"]),
    ("arguments/mode", &["ioctl=copy,", "backing=anon", "user-read", "mode=bit-5,"]),
    ("arguments/mode", &["ioctl=move,", "backing=anon", "user-read", "mode=bit-5,"]),
    ("arguments/mode", &["ioctl=poison,", "backing=anon", "user-read", "mode=bit-5,"]),
    ("arguments/mode", &["ioctl=writeprotect,", "backing=anon", "user-write", "mode=bit-5,"]),
    ("arguments/mode", &["ioctl=zeropage,", "backing=anon", "user-read", "mode=bit-5,"]),
    ("arguments/range", &["ioctl=continue,", "backing=shmem", "user-read", "bad=len-zero"]),
    ("arguments/range", &["ioctl=copy,", "backing=anon", "user-read", "bad=len-zero"]),
    ("arguments/range", &["ioctl=copy,", "backing=anon", "user-read", "bad=start-odd"]),
    ("arguments/range", &["ioctl=copy,", "backing=hugetlb-shared", "bad=huge-"]),
    ("arguments/range", &["ioctl=move,", "backing=anon", "user-read", "bad=len-zero"]),
    ("arguments/range", &["ioctl=poison,", "backing=anon", "user-read", "bad=len-zero"]),
    ("arguments/range", &["ioctl=unregister,", "backing=anon", "user-read", "bad=len-zero"]),
    ("arguments/range", &["ioctl=unregister,", "backing=hugetlb-shared", "bad=huge-start"]),
    ("arguments/range", &["ioctl=writeprotect,", "backing=anon", "user-write", "bad=len-zero"]),
    ("arguments/range", &["ioctl=writeprotect,", "backing=hugetlb-shared", "bad=huge-"]),
    ("arguments/range", &["ioctl=zeropage,", "backing=anon", "user-read", "bad=len-zero"]),
    ("arguments/struct", &["ioctl=continue,", "backing=shmem", "user-read", "struct=half"]),
    ("arguments/struct", &["ioctl=move,", "backing=anon", "user-read", "struct=half"]),
    ("arguments/struct", &["ioctl=poison,", "backing=anon", "user-read", "struct=half"]),
    ("events/munmap", &["backing=anon", "what=around,events=unmap,"]),
    ("events/munmap", &["backing=anon", "what=split,events=unmap,"]),
    ("handle/read-fault", &["buffer=half", "unread=1"]),
    ("handle/read-fault", &["buffer=second-outside", "unread=2"]),
    ("kinds/beyond-end", &["backing=private-memfd", "deed=zeropage"]),
    ("kinds/thp", &["how=protect-all", "access=user-write"]),
    ("move/memory", &["to=read-only,from=read-only"]),
    ("move/source", &["source=no-page-directory,holes=allowed"]),
    ("races/argument", &["ioctl=move", "meanwhile=remove-unread"]),
    ("races/argument", &["ioctl=protect", "meanwhile=remove-unread"]),
    ("races/copy-source", &["backing=shared-anon", "meanwhile=mmap-over-same-registered"]),
    ("races/copy-source", &["backing=private-memfd", "meanwhile=mmap-over-registered"]),
    ("races/copy-source", &["backing=shmem", "meanwhile=mprotect-none"]),
    ("register/modes", &["memory=anon-droppable", "mode=missing,", "features=none"]),
    (
        "writeprotect/missing-then-wp",
        &["hugetlb-shared", "mark-then-copy,", "user-write", "asks=none"],
    ),
];

fn is_insisted(case: &Case) -> bool {
    let probe = case.probe.to_string();
    let axes = format!("{},", case.axes());
    let mut named = INSISTED.iter().chain(&CONTROLS).chain(REACHES);
    named.any(|(name, all)| *name == probe && all.iter().all(|part| axes.contains(part)))
}

/// More pairs of values than these need not all meet: in a probe that has as many they are much alike.
const PAIRS: usize = 16;

/// Takes the default away from trials that show nothing that others before them have not shown.
pub(crate) fn thin(cases: &mut [Case]) {
    let of_trial = |case: &Case| case.by_default && matches!(case.ask, Ask::Trial(_));
    let mut pairs: HashMap<*const crate::probe::Probe, HashSet<String>> = HashMap::new();
    for case in cases.iter().filter(|case| of_trial(case)) {
        pairs.entry(std::ptr::from_ref(case.probe)).or_default().extend(pair(&case.axes()));
    }
    let mut shown: HashMap<*const crate::probe::Probe, HashSet<String>> = HashMap::new();
    for case in cases.iter_mut().filter(|case| of_trial(case)) {
        let probe = std::ptr::from_ref(case.probe);
        let axes = case.axes();
        let shown = shown.entry(probe).or_default();
        let before = shown.len();
        shown.extend(values(&axes));
        if pairs.get(&probe).is_some_and(|pairs| pairs.len() <= PAIRS) {
            shown.extend(pair(&axes));
        }
        case.by_default = shown.len() > before || is_insisted(case);
    }
}

/// The axes beside the kind of memory, and which kind it is: `anon`, `other`, or `none`.
fn split(axes: &str) -> (Vec<&str>, &'static str) {
    let (backing, others): (Vec<&str>, Vec<&str>) =
        axes.split(',').partition(|a| a.starts_with("backing=") || a.starts_with("memory="));
    let kind = match backing.first() {
        Some(&"backing=anon" | &"memory=anon") => "anon",
        Some(_) => "other",
        None => "none",
    };
    (others, kind)
}

/// What a case shows: its values, each of them of anonymous memory where there is a choice.
fn values(axes: &str) -> Vec<String> {
    let (others, kind) = split(axes);
    let mut values: Vec<String> = axes.split(',').map(ToOwned::to_owned).collect();
    if kind != "other" {
        values.extend(others.iter().map(|value| format!("{kind},{value}")));
    }
    values
}

/// The two values that meet in a case that has no more, of anonymous memory or where there is none.
fn pair(axes: &str) -> Option<String> {
    match (&split(axes).0[..], split(axes).1) {
        ([a, b], "anon") | ([a, b, ..], "none") => Some(format!("{a},{b}")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_of_a_default_trial_stays_a_default() {
        let mut cases = crate::registry().to_vec();
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
    fn what_is_insisted_on_exists_and_is_a_default() {
        let cases = crate::cases();
        for (name, all) in INSISTED.iter().chain(REACHES) {
            let is_it = |case: &&Case| {
                let axes = format!("{},", case.axes());
                case.probe.to_string() == *name && all.iter().all(|part| axes.contains(part))
            };
            assert!(cases.iter().filter(is_it).any(|case| case.by_default), "{name} {all:?}");
        }
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
}
