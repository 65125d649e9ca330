//! A sweep that is killed or told to stop at any moment, or whose machines are: what it had is kept, what
//! it started is gone, and the next one ends with the same records.

use crate::scene::{
    KERNELS, Scene, all_of, at_moments, died_of, end, injected, pid, send, times, until_it_meets,
};
use crate::shared::text;
use nix::sys::signal::Signal;
use std::collections::BTreeMap;
use std::process::Output;
use std::time::{Duration, Instant};

pub(crate) const TESTS: &[(&str, fn())] = &[
    ("a_sweep_that_is_killed_loses_no_answer", a_sweep_that_is_killed_loses_no_answer),
    ("a_sweep_that_is_told_to_stop_stops_whole", a_sweep_that_is_told_to_stop_stops_whole),
    ("a_forced_sweep_goes_on_where_it_was", a_forced_sweep_goes_on_where_it_was),
    ("a_machine_that_is_killed_costs_nothing", a_machine_that_is_killed_costs_nothing),
    ("two_sweeps_of_one_kernel_do_not_mix", two_sweeps_of_one_kernel_do_not_mix),
    ("what_was_not_run_is_asked_by_the_next", what_was_not_run_is_asked_by_the_next),
    ("a_record_is_replaced_by_less_only_if_forced", a_record_is_replaced_by_less_only_if_forced),
];

/// Microseconds a case: a sweep takes a second then.
const PACE: u64 = 200;

fn succeeded(output: &Output) {
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{out}{err}");
}

/// The records of an undisturbed sweep, and how long it took.
fn undisturbed(scene: &Scene) -> (BTreeMap<String, Vec<u8>>, Duration) {
    let started = Instant::now();
    succeeded(&end(scene.slow_sweep(&[], PACE)));
    let took = started.elapsed();
    let records = scene.records();
    assert_eq!(records.len(), KERNELS.len());
    assert!(scene.journals().is_empty());
    scene.check_no_file();
    scene.forget();
    (records, took)
}

/// Whole lines of a journal that hold an outcome.
fn answers(journal: &[u8]) -> usize {
    let lines = journal.split_inclusive(|&b| b == b'\n').filter(|line| line.ends_with(b"\n"));
    lines.filter(|line| line.starts_with(b"{\"case\"")).count()
}

/// Disturbs a sweep by a signal, a certain time after its start.
fn disturb(scene: &Scene, more: &[&str], signal: Signal, after: Duration) -> Output {
    let child = scene.slow_sweep(more, PACE);
    std::thread::sleep(after);
    // Whether that ended it is told by its status.
    send(pid(&child), signal);
    let output = end(child);
    scene.check_no_process();
    output
}

/// Whether a signal has ended it.
fn ended_by_it(output: &Output) -> bool {
    died_of(output.status).is_some()
}

/// What was kept is true, and the next sweep asks the rest and no more.
fn goes_on(scene: &Scene, expected: &BTreeMap<String, Vec<u8>>, options: &[&str]) {
    for (name, record) in scene.records() {
        assert!(expected[&name] == record, "{name} is not as it should be");
    }
    let cases: usize = expected.values().map(|record| answers_of(record)).sum();
    let done = scene.records().keys().map(|name| answers_of(&expected[name])).sum::<usize>();
    let open = scene.journals().into_iter().filter(|(name, _)| !scene.records().contains_key(name));
    let kept: usize = open.map(|(_, journal)| answers(&journal)).sum();
    scene.asked();
    succeeded(&end(scene.slow_sweep(options, 0)));
    let asked = scene.asked();
    assert_eq!(asked + kept + done, cases, "kept {kept}, of recorded kernels {done}");
    assert!(scene.records() == *expected, "the records differ");
    assert!(scene.journals().is_empty());
    scene.check_no_process();
    scene.check_no_file();
}

fn answers_of(record: &[u8]) -> usize {
    uffd_results::Record::read(record).expect("a record").cases.len()
}

fn a_sweep_that_is_killed_loses_no_answer() {
    let scene = Scene::new();
    let (expected, took) = undisturbed(&scene);
    let killed = at_moments(took, times(8), |_, after| {
        scene.forget();
        let output = disturb(&scene, &[], Signal::SIGKILL, after);
        assert!(matches!(died_of(output.status), Some(Signal::SIGKILL) | None));
        goes_on(&scene, &expected, &["--resume"]);
        ended_by_it(&output)
    });
    injected("harness killed during a sweep", killed);
}

fn a_sweep_that_is_told_to_stop_stops_whole() {
    let scene = Scene::new();
    let (expected, took) = undisturbed(&scene);
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let stopped = at_moments(took, times(4), |_, after| {
            scene.forget();
            let output = disturb(&scene, &[], signal, after);
            let error = text(&output.stderr);
            match died_of(output.status) {
                // It had ended, or had not begun to listen yet.
                None => succeeded(&output),
                Some(of) => {
                    assert_eq!(of, signal, "{error}");
                    let words = ["interrupted by", "kernels are recorded", "--resume goes on"];
                    // Before the first kernel was asked, or behind the last, there is nothing to be said.
                    let is_between = scene.path("results").exists() && scene.records() != expected;
                    assert!(
                        !is_between || words.iter().all(|word| error.contains(word)),
                        "{error}"
                    );
                }
            }
            // At once, and not only by the next one.
            scene.check_no_file();
            goes_on(&scene, &expected, &["--resume"]);
            ended_by_it(&output)
        });
        injected(&format!("harness told to stop by {signal} during a sweep"), stopped);
    }
}

fn a_forced_sweep_goes_on_where_it_was() {
    let scene = Scene::new();
    let (expected, took) = undisturbed(&scene);
    // One kernel after the other takes twice as long.
    let ended = at_moments(2 * took, times(4), |n, after| {
        scene.forget();
        succeeded(&end(scene.slow_sweep(&[], 0)));
        scene.asked();
        // One kernel after the other, so that one is recorded when the other is interrupted.
        let forced = ["--force", "--jobs", "1"];
        let signal = if n % 2 == 0 { Signal::SIGKILL } else { Signal::SIGTERM };
        let is_ended = ended_by_it(&disturb(&scene, &forced, signal, after));
        let recorded = scene.journals().into_iter().filter(|(_, j)| j.ends_with(b"\"recorded\"\n"));
        let done: usize = recorded.map(|(name, _)| answers_of(&expected[&name])).sum();
        let kept: usize = scene.journals().values().map(|journal| answers(journal)).sum();
        scene.asked();
        succeeded(&end(scene.slow_sweep(&["--force", "--jobs", "1", "--resume"], 0)));
        let cases: usize = expected.values().map(|record| answers_of(record)).sum();
        let asked = scene.asked();
        let is_whole = !is_ended || asked + kept == cases;
        assert!(is_whole, "{asked} asked, {kept} kept, {done} recorded");
        assert!(scene.records() == expected && scene.journals().is_empty());
        scene.check_no_file();
        is_ended
    });
    injected("forced sweep killed or told to stop", ended);
}

fn a_machine_that_is_killed_costs_nothing() {
    let scene = Scene::new();
    let (expected, _) = undisturbed(&scene);
    let cases = expected.values().map(|record| answers_of(record)).max().unwrap_or(0);
    // What a machine takes at the least.
    let asking = Duration::from_micros(PACE * cases as u64);
    for signal in [Signal::SIGKILL, Signal::SIGTERM] {
        let ended = at_moments(asking, times(6), |_, after| {
            scene.forget();
            let mut child = scene.slow_sweep(&[], PACE);
            // However long it takes to come so far beside what else there is to do.
            while child.try_wait().expect("it can be waited for").is_none()
                && scene.machine().is_none()
            {
                std::thread::sleep(Duration::from_millis(1));
            }
            std::thread::sleep(after);
            let is_sent = scene.machine().is_some_and(|machine| send(machine, signal));
            let output = end(child);
            succeeded(&output);
            let error = text(&output.stderr);
            // It may have been at its very end, and nobody has missed it.
            let is_missed = error.contains(&format!("signal {}", signal as i32));
            assert!(error.is_empty() || is_sent && is_missed, "{error}");
            assert!(scene.records() == expected, "the records differ");
            scene.check_no_process();
            scene.check_no_file();
            is_missed
        });
        injected(&format!("QEMU ended by {signal} during a sweep"), ended);
    }
}

fn two_sweeps_of_one_kernel_do_not_mix() {
    let scene = Scene::new();
    let (expected, _) = undisturbed(&scene);
    until_it_meets(|| {
        scene.forget();
        meets_a_stopped_one(&scene, &expected)
    });
}

/// Whether a second sweep has met the first one while that asked both kernels.
fn meets_a_stopped_one(scene: &Scene, expected: &BTreeMap<String, Vec<u8>>) -> bool {
    let mut first = scene.slow_sweep(&[], 5 * PACE);
    let asks_both = || scene.journals().len() == KERNELS.len() && scene.records().is_empty();
    while first.try_wait().expect("it can be waited for").is_none() && !asks_both() {
        std::thread::sleep(Duration::from_millis(5));
    }
    // So that it still asks when the other one comes, however late that is.
    send(pid(&first), Signal::SIGSTOP);
    if !asks_both() {
        send(pid(&first), Signal::SIGCONT);
        succeeded(&end(first));
        return false;
    }
    let second = end(scene.slow_sweep(&[], 0));
    send(pid(&first), Signal::SIGCONT);
    let error = text(&second.stderr);
    assert_eq!(second.status.code(), Some(2), "{error}");
    assert!(error.contains("another sweep asks this kernel now"), "{error}");
    succeeded(&end(first));
    assert!(scene.records() == *expected);
    true
}

/// Whoever ends each machine keeps cases from being run; the record says so, and no later sweep takes it
/// for a whole one.
fn what_was_not_run_is_asked_by_the_next() {
    let scene = Scene::new();
    let (expected, _) = undisturbed(&scene);
    for signal in [Signal::SIGKILL, Signal::SIGTERM] {
        scene.forget();
        not_run(&scene, &expected, signal);
    }
}

fn not_run(scene: &Scene, expected: &BTreeMap<String, Vec<u8>>, signal: Signal) {
    let mut child = scene.slow_sweep(&["--jobs", "1"], 25 * PACE);
    let (out, err) = (all_of(child.stdout.take()), all_of(child.stderr.take()));
    let mut killed = 0;
    while child.try_wait().expect("it can be waited for").is_none() {
        // Not before it has spoken for the first time.
        if scene.journals().values().any(|journal| !journal.is_empty())
            && let Some(machine) = scene.machine()
        {
            killed += u32::from(send(machine, signal));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let (out, err) = (out.join().expect("it reads"), err.join().expect("it reads"));
    let said = text(&out) + &text(&err);
    assert!(matches!(end(child).status.code(), Some(1 | 2)), "{said}");
    assert!(said.contains(&format!("signal {}", signal as i32)), "{said}");
    for (name, bytes) in scene.records() {
        let record = uffd_results::Record::read(&bytes).expect("a record");
        let whole = uffd_results::Record::read(&expected[&name]).expect("a record");
        for (id, outcome) in record.cases.iter() {
            let is_true = whole.cases.get(id) == Some(outcome);
            let is_ours = matches!(outcome.end.word(), "not-run" | "broken");
            assert!(is_true || is_ours, "{id}: {outcome}");
        }
    }
    succeeded(&end(scene.slow_sweep(&["--resume"], 0)));
    assert!(scene.records() == *expected, "the records differ");
    scene.check_no_file();
    injected(&format!("every QEMU ended by {signal} as soon as it runs"), killed);
}

/// Records with more cases than are asked, of another build, and that can't be read.
fn a_record_is_replaced_by_less_only_if_forced() {
    let scene = Scene::new();
    let (expected, _) = undisturbed(&scene);
    let (name, good) = expected.first_key_value().expect("a record");
    let whole = uffd_results::Record::read(good).expect("a record");
    let more = |mut record: uffd_results::Record| {
        let mut cases: Vec<_> = record.cases.iter().map(|(i, o)| (i.into(), o.clone())).collect();
        cases.push(("copy/more[x=1]".into(), cases[0].1.clone()));
        record.cases = uffd_results::Cases::new(cases);
        record.to_json().into_bytes()
    };
    let mut lacking: Vec<_> = whole.cases.iter().map(|(i, o)| (i.into(), o.clone())).collect();
    lacking.pop();
    let lacking =
        uffd_results::Record { cases: uffd_results::Cases::new(lacking), ..whole.clone() };
    let (whole, lacking) = (more(whole), more(lacking));
    for (before, after) in [(&whole, &whole), (&lacking, &whole)] {
        succeeded(&end(scene.slow_sweep(&[], 0)));
        scene.put(name, before);
        succeeded(&end(scene.slow_sweep(&[], 0)));
        assert!(scene.records()[name] == *after, "answers are gone");
    }
    let mut other = uffd_results::Record::read(good).expect("a record");
    (other.kernel.image_sha256, other.kernel.package) = (Some("0".repeat(64)), None);
    let newer = b"{\"schema\": 99, \"new\": []}".to_vec();
    for (before, word) in [(other.to_json().into_bytes(), "another build"), (newer, "schema 99")] {
        scene.put(name, &before);
        scene.asked();
        let output = end(scene.slow_sweep(&[], 0));
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{error}");
        assert!(
            [word, name.as_str(), "--force"].iter().all(|word| error.contains(word)),
            "{error}"
        );
        assert!(scene.records()[name] == before && scene.asked() == 0);
        succeeded(&end(scene.slow_sweep(&["--force"], 0)));
        assert!(scene.records() == expected);
    }
}
