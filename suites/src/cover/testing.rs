//! The rule that makes the list of default trials. It is part of the tests, since what it needs, the answers
//! that are expected of every trial on every recorded release, takes seconds to work out.

use crate::probe::{Ask, Case};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hash, Hasher};
use uffd_results::KernelVersion;

/// What a consumer's assumption rests on stays a default, whatever it repeats: a probe, and what the
/// axes of a case must have. `results/contracts` names these cases.
pub(super) const INSISTED: &[(&str, &[&str])] = &[
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
const CONTROLS: &[(&str, &[&str])] = &[
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
    (
        "events/discard",
        &["backing=hugetlb-shared,advice=dontneed,what=page,events=remap+remove+unmap"],
    ),
    ("events/mremap", &["backing=shmem,how=move,events=remap+unmap"]),
    ("events/munmap", &["backing=shmem,what=whole,events=remap+remove+unmap"]),
    ("handle/read-size", &["fd=blocking", "unread=1"]),
    ("lifetime/core-dump", &["backing=shmem,mode=missing,first=served"]),
    ("rwp/scan", &["backing=private-memfd,ask=accessed,done=load"]),
    ("rwp/scan", &["backing=shared-anon,ask=accessed,done=load"]),
    ("rwp/scan", &["backing=shmem,ask=accessed,done=load"]),
    ("waiters/debugger", &["backing=shmem,page=missing,access=process-vm-readv,owner=idle"]),
    ("waiters/grow-locked", &["backing=shmem,call=mremap-grow,lock=mlock,then=copy"]),
    ("waiters/sigbus", &["backing=shmem,mode=missing,access=user-read,feature=none"]),
];

/// What alone reaches a line of the kernel, mostly one that refuses an argument, stays a default too:
/// each ioctl has a check of its own. `docs/coverage.md` has the lines that nothing reaches.
pub(super) const REACHES: &[(&str, &[&str])] = &[
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
    ("lifetime/core-dump", &["backing=shmem,mode=missing,first=nothing"]),
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

/// Asked by default whatever its suite proposes.
pub(super) const WANTED: &[(&str, &[&str])] = &[
    ("arguments/mode", &["ioctl=continue", "backing=shmem", "mode=none"]),
    ("arguments/mode", &["ioctl=copy,", "backing=anon", "user-read", "mode=bit-1,"]),
    ("changes/move", &["backing=shmem", "how=overlapping", "waiter=user-read,op=copy"]),
    ("changes/truncate", &["hugetlb-shared,how=shrink-to-page,waiter=user-read,op=copy"]),
    ("continue/filled-elsewhere", &["shmem,mode=missing,act=copy-then-wake,who=user-read"]),
    ("events/discard", &["backing=hugetlb-shared", "what=byte", "events=remap+remove+unmap"]),
    ("events/mmap-over", &["backing=anon", "what=middle,over=anon,events=none"]),
    ("events/unread", &["backing=anon", "event=fork,ioctl=copy,"]),
    ("events/waiter", &["backing=anon,waiter=user-read,by=remove,then=close"]),
    ("events/waiter", &["backing=anon,waiter=user-read,by=remove,then=unregister"]),
    ("handle/feature", &["bit=19,with=nothing"]),
    ("handle/feature", &["bit=20,with=nothing"]),
    ("handle/feature", &["bit=30,with=nothing"]),
    ("handle/read-size", &["bytes=32,fd=nonblock,unread=0"]),
    ("handle/ready", &["call=poll,fd=nonblock,state=woken-unread"]),
    ("kinds/hugetlb-empty", &["backing=hugetlb-shared,page=only,waiter=user-read"]),
    ("lifetime/dead-owner-control", &["backing=anon,how=lives,call=register,"]),
    ("lifetime/dead-owner-control", &["backing=anon,how=lives,call=unregister,"]),
    ("permission/open", &["who=other-user,sysctl=0,way=syscall,features=none"]),
    ("permission/open", &["who=other-user,sysctl=1,way=syscall,features=none"]),
    ("register/span", &["backing=anon,mode=missing,layout=prefix"]),
    ("register/twice", &["shmem,first=missing,second=missing+minor,part=whole"]),
    ("writeprotect/missing-then-wp", &["=anon,how=copy-wp,who=user-write,asks=none"]),
    ("writeprotect/missing-then-wp", &["hugetlb-shared,how=copy-wp,who=user-write,asks=none"]),
    ("writeprotect/reach", &["backing=anon,page=dropped", "asks=none"]),
    ("writeprotect/reach", &["backing=anon,page=missing", "asks=none"]),
    ("continue/fault", &["backing=shmem", "page=dropped", "mode=minor,", "who=user-read"]),
    (
        "continue/fault",
        &["backing=hugetlb-shared", "page=punched", "mode=missing,", "who=user-read"],
    ),
    ("lifetime/dead-owner", &["backing=anon", "how=execve", "register"]),
    ("lifetime/ends-waiting", &["how=lives", "waiter=user-read", "waiters=1,msg=unread"]),
    ("lifetime/ends-waiting", &["how=sigkill", "waiters=1,msg=unread"]),
    ("register/modes", &["memory=vdso", "mode=wp,features=wp-async"]),
    ("vcpu/async-killed", &["lapic=kernel"]),
    ("vcpu/async-signal", &["backing=anon"]),
    ("waiters/process", &["backing=anon", "op=sigkill"]),
];

/// Two axes of which every two values meet.
const PAIRED: &[(&str, &str, &str)] =
    &[("arguments/range", "ioctl=", "bad="), ("arguments/struct", "ioctl=", "struct=")];

/// Values with which little is asked, so that every other value is to be asked without them, too: `*` stands for
/// all probes of a suite.
pub(super) const OFF: &[(&str, &str)] = &[
    ("changes/*", "op=look"),
    ("continue/*", "mode=none"),
    ("events/*", "events=none"),
    ("handle/address", "feature=off"),
    ("handle/address", "offset=0"),
    ("handle/read-fault", "unread=0"),
    ("handle/read-vector", "unread=0"),
    ("handle/ready", "state=before-api"),
    ("handle/ready", "state=idle"),
    ("handle/thread-id", "feature=off"),
    ("races/argument", "meanwhile=none"),
    ("register/mprotect-later", "registered=none"),
];

/// More pairs of values than these need not all meet: in a probe that has as many they are much alike.
const PAIRS: usize = 16;

/// The releases whose answers are compared: where something is known to have changed there are two beside it.
const RELEASES: [(u16, u16, u16); 21] = [
    (5, 10, 218),
    (5, 10, 262),
    (6, 1, 170),
    (6, 1, 192),
    (6, 12, 43),
    (6, 12, 118),
    (6, 16, 3),
    (6, 16, 12),
    (6, 17, 8),
    (6, 17, 13),
    (6, 18, 5),
    (6, 18, 15),
    (6, 19, 6),
    (6, 19, 14),
    (7, 0, 4),
    (7, 0, 13),
    (7, 1, 3),
    (7, 1, 13),
    (7, 2, 6),
    (7, 2, 13),
    (7, 3, 4),
];

/// A trial as the rule sees it.
struct Trial {
    axes: String,
    /// Proposed by its suite.
    proposed: bool,
    /// Stands for all that is expected of it, on every release.
    answer: u64,
    /// The facts that change, each with the number of the release from which it is another.
    changes: Vec<String>,
}

impl Trial {
    fn new(case: &Case) -> Self {
        let mut facts: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for (i, (major, minor, patch)) in RELEASES.into_iter().enumerate() {
            for fact in case.expect(KernelVersion::new(major, minor, patch)) {
                let values = facts.entry(fact.fact).or_default();
                values.resize(i, String::new());
                values.push(fact.value.to_string());
            }
        }
        let mut answer = DefaultHasher::new();
        facts.hash(&mut answer);
        let mut changes = Vec::new();
        for (fact, values) in &facts {
            for (i, two) in values.windows(2).enumerate() {
                if two[0] != two[1] && !two.iter().any(String::is_empty) {
                    changes.push(format!("{fact} {i}"));
                }
            }
        }
        Self { axes: case.axes(), proposed: case.by_default, answer: answer.finish(), changes }
    }

    fn values(&self) -> impl Iterator<Item = &str> {
        self.axes.split(',')
    }
}

/// What each probe has by default: its name and the numbers of its trials.
pub(super) fn rule(registry: &[Case]) -> Vec<(String, BTreeSet<usize>)> {
    let mut probes: Vec<(String, Vec<Trial>)> = Vec::new();
    let mut places: HashMap<String, usize> = HashMap::new();
    for case in registry.iter().filter(|case| matches!(case.ask, Ask::Trial(_))) {
        let name = case.probe.to_string();
        let place = *places.entry(name.clone()).or_insert(probes.len());
        if place == probes.len() {
            probes.push((name, Vec::new()));
        }
        probes[place].1.push(Trial::new(case));
    }
    let chosen = |(name, trials): (String, Vec<Trial>)| {
        let numbers = choose(&name, &trials);
        (name, numbers)
    };
    probes.into_iter().map(chosen).filter(|(_, numbers)| !numbers.is_empty()).collect()
}

fn choose(probe: &str, trials: &[Trial]) -> BTreeSet<usize> {
    let all = 0..trials.len();
    let mut chosen: BTreeSet<usize> =
        all.clone().filter(|&i| is_insisted(probe, &trials[i])).collect();
    let needs = telling(trials);
    let mut left: HashSet<&str> = needs.iter().flatten().map(String::as_str).collect();
    let met = |left: &mut HashSet<&str>, i: usize| {
        for need in &needs[i] {
            left.remove(need.as_str());
        }
    };
    for &i in &chosen {
        met(&mut left, i);
    }
    while !left.is_empty() {
        let count = |i: usize| needs[i].iter().filter(|n| left.contains(n.as_str())).count();
        let best =
            all.clone().max_by_key(|&i| (count(i), trials[i].proposed, std::cmp::Reverse(i)));
        let best = best.expect("a trial for each need");
        met(&mut left, best);
        chosen.insert(best);
    }
    // What is still not shown, by the first trial that shows it.
    let few = trials.iter().filter(|t| t.proposed).filter_map(|t| pair(&t.axes));
    let few = few.collect::<HashSet<_>>().len() <= PAIRS;
    let proposed = &proposed(trials);
    let off = &off(probe);
    let shows = |trial: &Trial| {
        let mut shown = values(&trial.axes);
        shown.extend(pair(&trial.axes).filter(|_| few));
        shown.extend(paired(probe, &trial.axes));
        if off.as_ref().is_some_and(|off| trial.values().all(|value| !off.contains(&value))) {
            let usual = trial.values().all(|value| proposed.contains(value));
            shown.extend(
                values(&trial.axes).into_iter().filter(|_| usual).map(|v| format!("on {v}")),
            );
        }
        shown
    };
    let mut seen: HashSet<String> = chosen.iter().flat_map(|&i| shows(&trials[i])).collect();
    for (i, trial) in trials.iter().enumerate() {
        let new = shows(trial).into_iter().filter(|what| trial.proposed || is_wanted(what));
        let before = seen.len();
        seen.extend(new);
        if seen.len() > before {
            chosen.insert(i);
        }
    }
    chosen
}

/// What each trial is good for: values that make a difference in it, compared with the other values in their
/// place, as in no other trial; and changes from release to release.
fn telling(trials: &[Trial]) -> Vec<Vec<String>> {
    let answers: HashMap<&str, u64> = trials.iter().map(|t| (t.axes.as_str(), t.answer)).collect();
    let proposed = proposed(trials);
    let mut others: HashMap<&str, BTreeSet<&str>> = HashMap::new();
    for value in trials.iter().flat_map(Trial::values) {
        others.entry(axis(value)).or_default().insert(value);
    }
    let mut best: HashMap<&str, usize> = HashMap::new();
    let mut differences: Vec<Vec<(&str, usize)>> = Vec::new();
    for trial in trials {
        let mut of_trial = Vec::new();
        for value in trial.values().filter(|v| !is_memory(v) && proposed.contains(v)) {
            let differs = |other: &&&str| {
                let in_its_place: Vec<&str> =
                    trial.values().map(|v| if v == value { **other } else { v }).collect();
                answers.get(in_its_place.join(",").as_str()).is_some_and(|a| *a != trial.answer)
            };
            let count = others[axis(value)].iter().filter(differs).count();
            of_trial.push((value, count));
            let most = best.entry(value).or_default();
            *most = count.max(*most);
        }
        differences.push(of_trial);
    }
    let needs = differences.into_iter().zip(trials).map(|(of_trial, trial)| {
        let most = of_trial.into_iter().filter(|(value, n)| *n > 0 && *n == best[value]);
        let values = most.map(|(value, _)| value.to_owned());
        values.chain(trial.changes.iter().cloned()).collect()
    });
    needs.collect()
}

/// The values that a probe's suite proposes for a default run, wherever.
fn proposed(trials: &[Trial]) -> BTreeSet<&str> {
    trials.iter().filter(|trial| trial.proposed).flat_map(Trial::values).collect()
}

/// The values of [`OFF`] that a probe has, if any.
fn off(probe: &str) -> Option<Vec<&'static str>> {
    let suite = probe.split('/').next();
    let is_its = |name: &str| name == probe || name.strip_suffix("/*") == suite;
    let values: Vec<_> = OFF.iter().filter(|(name, _)| is_its(name)).map(|(_, v)| *v).collect();
    (!values.is_empty()).then_some(values)
}

/// Whether a trial may show it that its suite does not propose.
fn is_wanted(what: &str) -> bool {
    what.starts_with("pair ") || what.starts_with("on ")
}

fn axis(value: &str) -> &str {
    value.split('=').next().unwrap_or(value)
}

fn is_memory(value: &str) -> bool {
    matches!(axis(value), "backing" | "memory")
}

fn is_insisted(probe: &str, trial: &Trial) -> bool {
    let axes = format!("{},", trial.axes);
    let is_in = |table: &[(&str, &[&str])]| {
        table.iter().any(|(name, all)| *name == probe && all.iter().all(|part| axes.contains(part)))
    };
    is_in(WANTED) || trial.proposed && [INSISTED, CONTROLS, REACHES].into_iter().any(is_in)
}

/// The two values that are to meet, of a probe where all are.
fn paired(probe: &str, axes: &str) -> Option<String> {
    let (_, first, second) = PAIRED.iter().find(|(name, ..)| *name == probe)?;
    let value = |axis: &str| axes.split(',').find(|value| value.starts_with(axis));
    Some(format!("pair {} {}", value(first)?, value(second)?))
}

/// The list as a file.
pub(super) fn file(registry: &[Case]) -> String {
    let mut text = String::new();
    for (probe, numbers) in rule(registry) {
        let _ = write!(text, "{probe}:");
        let mut runs: Vec<(usize, usize)> = Vec::new();
        for number in numbers {
            match runs.last_mut() {
                Some((_, last)) if *last + 1 == number => *last = number,
                _ => runs.push((number, number)),
            }
        }
        for (first, last) in runs {
            let _ = if first == last {
                write!(text, " {first}")
            } else {
                write!(text, " {first}-{last}")
            };
        }
        text.push('\n');
    }
    text
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
pub(super) fn values(axes: &str) -> Vec<String> {
    let (others, kind) = split(axes);
    let mut values: Vec<String> = axes.split(',').map(ToOwned::to_owned).collect();
    if kind != "other" {
        values.extend(others.iter().map(|value| format!("{kind},{value}")));
    }
    values
}

/// The two values that meet in a case that has no more, of anonymous memory or where there is none.
pub(super) fn pair(axes: &str) -> Option<String> {
    match (&split(axes).0[..], split(axes).1) {
        ([a, b], "anon") | ([a, b, ..], "none") => Some(format!("{a},{b}")),
        _ => None,
    }
}
