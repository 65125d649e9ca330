//! Which trials are asked by default, of those that their suites propose: enough that every value of
//! an axis is asked, of anonymous memory where it can be, that every kind of memory is, and that every
//! two values of the few axes of a small probe meet. All of them are asked with `--full`.

use crate::probe::{Ask, Case};
use std::collections::{HashMap, HashSet};

/// What a consumer's assumption rests on stays a default, whatever it repeats: a probe, and what the
/// axes of a case must have. `results/contracts` names these cases.
const INSISTED: [(&str, &[&str]); 17] = [
    ("changes/collapse", &["backing=shmem", "present=few", "then=serve"]),
    ("changes/collapse", &["backing=anon", "present=most", "then=look"]),
    ("changes/collapse", &["backing=shmem", "mode=none", "present=few"]),
    ("changes/exchange", &["backing=anon", "events=remap+unmap"]),
    ("changes/file", &["backing=shmem", "how=write-page", "user-read", "op=copy"]),
    ("changes/madvise", &["backing=shmem", "how=dontneed-page", "user-read"]),
    ("changes/sequence", &["backing=anon", "how=qemu-shrink,", "op=copy"]),
    ("changes/sequence", &["backing=shmem", "how=qemu-shrink-file", "op=copy"]),
    ("continue/fault", &["backing=shmem", "page=punched", "mode=missing,"]),
    ("handle/ready", &["call=epoll,", "state=one-of-two-read"]),
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
];

/// Stay defaults because something happens in them that is expected not to happen in other defaults of
/// their probes, on the same kind of memory; `controls.rs` asks for such a case in every probe.
const CONTROLS: [(&str, &[&str]); 16] = [
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
    ("kinds/beyond-end", &["backing=private-memfd", "deed=zeropage"]),
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
        case.by_default = shown.len() > before || is_insisted(case);
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
        let anon = shows("backing=anon,op=copy,who=read");
        assert!(anon.ends_with(&["anon,who=read".to_owned(), "op=copy,who=read".to_owned()]));
        let shmem = shows("backing=shmem,op=copy,who=read");
        assert_eq!(shmem, ["backing=shmem", "op=copy", "who=read"]);
    }
}
