//! The session against machines that follow a script in place of a kernel.

use super::error::VmError;
use super::frame::{self, Hello, Message};
use super::machine::{Ending, Launcher, Machine};
use super::plan::Plan;
use super::session::{Event, Limits, Lost, SessionReport, run};
use rstest::{fixture, rstest};
use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use uffd_results::{End, Environment, Facts, Outcome, Suite};

/// How a machine of the script behaves, by case of the whole plan.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Does {
    /// Everything well.
    Well,
    /// Panics while a case runs; the machine ends.
    PanicAt(usize),
    /// Panics while a case runs and never ends.
    PanicAndStayAt(usize),
    /// Ends without a word while a case runs.
    VanishAt(usize),
    /// Is killed, as QEMU by the host, while a case runs.
    KilledAt(usize),
    /// Floods its console while a case runs.
    FloodAt(usize),
    /// Complains without end while a case runs.
    ComplainForEverAt(usize),
    /// Says nothing any more while a case runs.
    HangAt(usize),
    /// Is killed by its own program's death while a case runs.
    OwnDeathAt(usize),
    /// Reports a fault while a case runs.
    FaultAt(usize),
    /// Says behind a case's outcome that the machine is used up.
    UsedUpBehind(usize),
    /// Ends between a case's outcome and the next start.
    VanishBehind(usize),
    /// Ends before the hello.
    NoBoot,
    /// Never says anything.
    Dumb,
    /// Loses the start of a case.
    LoseStartOf(usize),
    /// Writes rubbish around every frame, and some frames twice.
    Noisy,
    /// Cuts the outcome of a case short.
    CutAt(usize),
    /// Says that it has more cases than it was given.
    Miscounts,
    /// Skips a case silently, with good sequence numbers.
    Skips(usize),
    /// Complains on its console while a case runs, and goes on.
    ComplainAt(usize),
    /// Can't be started.
    NoRoom,
    /// Boots another kernel.
    Another,
    /// Hands out a file in two pieces before its end.
    HandOut,
    /// Hands out a file while a case runs.
    HandOutAt(usize),
}

/// The machines of a session in order; the last one's behaviour repeats.
struct Script {
    machines: Vec<Does>,
    started: usize,
    all: usize,
}

struct Scripted {
    console: Vec<u8>,
    frames: Vec<u8>,
    ends: Option<Ending>,
}

const PANIC: &[u8] =
    b"[    1.0] BUG: kernel NULL pointer dereference, address: 0000000000000010\r\n\
    [    1.1] Kernel panic - not syncing: Fatal exception\r\n";

fn outcome(index: usize) -> Outcome {
    let mut facts = Facts::new();
    facts.set("case", index);
    Outcome::done(facts)
}

fn hello(cases: usize) -> Message {
    Message::Hello(Box::new(said("6.12", cases)))
}

/// What a guest says of itself.
pub(super) fn said(release: &str, cases: usize) -> Hello {
    let environment = Environment {
        accelerator: "tcg".into(),
        cpus: 1,
        memory_mib: 1024,
        page_size: 4096,
        huge_pages_2m: 64,
        uffd: "syscall".into(),
        uffd_features: vec![],
        kvm: false,
        append: String::new(),
        sysctls: BTreeMap::new(),
    };
    let suite = Suite { version: "0".into(), revision: "r".into() };
    let text = |t: &str| t.to_owned();
    let (release, version, machine) = (text(release), text("#1"), text("x86_64"));
    Hello { release, version, machine, environment, suite, cases }
}

fn file(bytes: &[u8], more: bool) -> Message {
    Message::File { name: "mm/f.gcda".into(), bytes: bytes.to_vec(), more }
}

/// Writes frames as a guest would, with what its behaviour makes of them.
struct Writer {
    does: Does,
    frames: Vec<u8>,
    sequence: u64,
}

impl Writer {
    fn say(&mut self, message: &Message) {
        let frame = frame::encode(self.sequence, message).expect("short");
        self.sequence += 1;
        if self.does == Does::Noisy {
            self.frames.extend(b"\x1b[2J\r\n");
            self.frames.extend(&frame);
            self.frames.extend(&frame);
        } else {
            self.frames.extend(frame);
        }
    }
}

impl Launcher for Script {
    fn launch(&mut self, plan: &Plan, _: u32) -> Result<Box<dyn Machine>, VmError> {
        let does = *self.machines.get(self.started).or(self.machines.last()).expect("a script");
        self.started += 1;
        let first = self.all - plan.cases.len();
        let mut out = Writer { does, frames: Vec::new(), sequence: 0 };
        let ending = |how: &str, by_guest| Some(Ending { how: how.to_owned(), by_guest });
        let gone = || ending("QEMU ended with status 0", true);
        let end = |console: &[u8], out: Writer, ends| {
            Ok::<Box<dyn Machine>, VmError>(Box::new(Scripted {
                console: console.to_vec(),
                frames: out.frames,
                ends,
            }))
        };
        match does {
            Does::NoRoom => {
                let full = io::Error::from_raw_os_error(libc::ENOSPC);
                return Err(VmError::file("writing kernel")(full));
            }
            Does::Another => {
                out.say(&Message::Hello(Box::new(said("6.13", plan.cases.len()))));
            }
            Does::NoBoot => return end(b"early trouble\r\n", out, gone()),
            Does::Dumb => return end(b"", out, None),
            Does::Miscounts => out.say(&hello(plan.cases.len() + 1)),
            _ => out.say(&hello(plan.cases.len())),
        }
        let mut console: &[u8] = b"";
        for (index, _) in plan.cases.iter().enumerate() {
            let case = first + index;
            if does == Does::Skips(case) {
                continue;
            }
            if does == Does::LoseStartOf(case) {
                out.sequence += 1;
            } else {
                out.say(&Message::Start { index });
            }
            match does {
                Does::PanicAt(at) if at == case => return end(PANIC, out, gone()),
                Does::PanicAndStayAt(at) if at == case => return end(PANIC, out, None),
                Does::VanishAt(at) if at == case => return end(b"", out, gone()),
                Does::KilledAt(at) if at == case => {
                    return end(b"", out, ending("QEMU died of signal 9", false));
                }
                Does::FloodAt(at) if at == case => {
                    return end(&vec![b'x'; 17 << 20], out, None);
                }
                Does::ComplainForEverAt(at) if at == case => {
                    return end(&b"WARNING: again\n".repeat(1 << 16), out, None);
                }
                Does::HangAt(at) if at == case => return end(b"", out, None),
                Does::OwnDeathAt(at) if at == case => {
                    let line =
                        b"Kernel panic - not syncing: Attempted to kill init! exitcode=0xb\n";
                    return end(line, out, gone());
                }
                Does::FaultAt(at) if at == case => {
                    out.say(&Message::Fault { text: "it panicked: at the runner".into() });
                    return end(b"", out, gone());
                }
                Does::HandOutAt(at) if at == case => out.say(&file(b"x", false)),
                Does::ComplainAt(at) if at == case => {
                    console = b"[ 2.0] WARNING: CPU: 0 PID: 9 at mm/memory.c:7\r\n";
                }
                _ => {}
            }
            out.say(&Message::Case { index, outcome: outcome(case) });
            if does == Does::CutAt(case) {
                out.frames.truncate(out.frames.len() - 5);
                return end(b"", out, gone());
            }
            if does == Does::UsedUpBehind(case) {
                out.say(&Message::End { cases: index + 1 });
                return end(b"", out, gone());
            }
            if does == Does::VanishBehind(case) {
                return end(b"", out, gone());
            }
        }
        if does == Does::HandOut {
            out.say(&file(b"one", true));
            out.say(&file(b"two", false));
        }
        out.say(&Message::End { cases: plan.cases.len() });
        end(console, out, None)
    }
}

impl Machine for Scripted {
    fn poll(&mut self, console: &mut Vec<u8>, frames: &mut Vec<u8>) -> io::Result<Option<Ending>> {
        // In small pieces, as from a wire; what the console says comes after the last frame.
        let piece = self.frames.len().min(37);
        frames.extend(self.frames.drain(..piece));
        if !self.frames.is_empty() {
            return Ok(None);
        }
        console.append(&mut self.console);
        Ok(self.ends.clone())
    }
}

#[fixture]
fn limits() -> Limits {
    // Longer than what a moment without a CPU counts for.
    Limits {
        boot: Duration::from_millis(400),
        silence: Duration::from_millis(400),
        farewell: Duration::from_millis(300),
        barren_boots: 4,
        boots: 20,
        poll: Duration::from_micros(100),
    }
}

fn session(
    machines: &[Does],
    cases: usize,
    limits: Limits,
) -> (Result<SessionReport, VmError>, usize) {
    let mut script = Script { machines: machines.to_vec(), started: 0, all: cases };
    let plan = Plan { cases: (0..cases).map(|n| format!("case/{n}")).collect(), ..Plan::default() };
    let (mut next, mut in_order) = (0, true);
    let go_on = AtomicBool::new(false);
    let result = run(&mut script, Path::new("vmlinuz"), &plan, limits, &go_on, &mut |event| {
        if let Event::Outcome { index, .. } = event {
            in_order &= index == next;
            next += 1;
        }
    });
    assert!(in_order, "outcomes are told once and in order");
    (result, script.started)
}

const CASES: usize = 6;

#[rstest]
#[case::all_well(&[Does::Well], &[], 1, 0)]
#[case::noise_and_repetition(&[Does::Noisy], &[], 1, 0)]
#[case::a_complaint(&[Does::ComplainAt(2)], &[], 1, 0)]
#[case::panic_twice(&[Does::PanicAt(3), Does::PanicAt(3), Does::Well], &[(3, End::Panic)], 3, 0)]
#[case::panic_and_stay(&[Does::PanicAndStayAt(3), Does::PanicAndStayAt(3), Does::Well], &[(3, End::Panic)], 3, 0)]
#[case::panic_once(&[Does::PanicAt(3), Does::Well], &[], 2, 1)]
#[case::panic_at_the_first(&[Does::PanicAt(0), Does::PanicAt(0), Does::Well], &[(0, End::Panic)], 3, 0)]
#[case::panic_at_the_last(&[Does::PanicAt(5), Does::PanicAt(5)], &[(5, End::Panic)], 2, 0)]
#[case::panic_at_two_cases(
    &[Does::PanicAt(1), Does::PanicAt(1), Does::PanicAt(2), Does::PanicAt(2), Does::Well],
    &[(1, End::Panic), (2, End::Panic)], 5, 0)]
#[case::a_panic_that_wanders(&[Does::PanicAt(1), Does::PanicAt(3), Does::PanicAt(4), Does::Well], &[], 4, 3)]
#[case::a_lost_boot_between_two_panics(
    &[Does::PanicAt(3), Does::NoBoot, Does::PanicAt(3), Does::Well], &[(3, End::Panic)], 4, 1)]
#[case::vanish_twice(&[Does::VanishAt(2), Does::VanishAt(2), Does::Well], &[(2, End::Panic)], 3, 0)]
#[case::killed_once(&[Does::KilledAt(2), Does::Well], &[], 2, 1)]
#[case::killed_twice(&[Does::KilledAt(2), Does::KilledAt(2), Does::Well], &[(2, End::Broken)], 3, 0)]
#[case::flood_once(&[Does::FloodAt(2), Does::Well], &[], 2, 1)]
#[case::flood_twice(&[Does::FloodAt(2), Does::FloodAt(2), Does::Well], &[(2, End::Broken)], 3, 0)]
#[case::hang_twice(&[Does::HangAt(2), Does::HangAt(2), Does::Well], &[(2, End::Hang)], 3, 0)]
#[case::hang_once(&[Does::HangAt(2), Does::Well], &[], 2, 1)]
#[case::own_death_twice(&[Does::OwnDeathAt(2), Does::OwnDeathAt(2), Does::Well], &[(2, End::Broken)], 3, 0)]
#[case::fault_twice(&[Does::FaultAt(2), Does::FaultAt(2), Does::Well], &[(2, End::Broken)], 3, 0)]
#[case::lost_before_the_first(&[Does::NoBoot, Does::NoBoot, Does::NoBoot, Does::Well], &[], 4, 3)]
#[case::dumb_once(&[Does::Dumb, Does::Well], &[], 2, 1)]
#[case::used_up(&[Does::UsedUpBehind(2), Does::Well], &[], 2, 0)]
#[case::used_up_and_goes_on(&[Does::PanicAt(2), Does::UsedUpBehind(2), Does::Well], &[], 3, 1)]
#[case::used_up_twice(&[Does::UsedUpBehind(0), Does::UsedUpBehind(4), Does::Well], &[], 3, 0)]
#[case::lost_between(&[Does::VanishBehind(2), Does::Well], &[], 2, 1)]
#[case::lost_behind_the_last(&[Does::VanishBehind(5)], &[], 1, 1)]
#[case::a_lost_frame(&[Does::LoseStartOf(2), Does::Well], &[], 2, 1)]
#[case::a_cut_frame(&[Does::CutAt(2), Does::Well], &[], 2, 1)]
#[case::a_wrong_count(&[Does::Miscounts, Does::Well], &[], 2, 1)]
#[case::a_file_in_a_case(&[Does::HandOutAt(2), Does::Well], &[], 2, 1)]
#[case::a_case_left_out(&[Does::Skips(2), Does::Well], &[], 2, 1)]
fn every_case_gets_one_outcome(
    limits: Limits,
    #[case] machines: &[Does],
    #[case] ends: &[(usize, End)],
    #[case] boots: usize,
    #[case] lost: usize,
) {
    let (report, started) = session(machines, CASES, limits);
    let report = report.expect("a report");
    assert_eq!(report.outcomes.len(), CASES);
    for (index, got) in report.outcomes.iter().enumerate() {
        match ends.iter().find(|(at, _)| *at == index) {
            None => assert_eq!(*got, outcome(index)),
            Some((_, end)) => assert_eq!(got.end, *end, "case {index}: {got}"),
        }
    }
    assert_eq!((started, report.boots as usize, report.lost.len()), (boots, boots, lost));
    assert_eq!(report.gave_up, None, "{report:?}");
}

#[rstest]
#[case(
    Does::PanicAt(1),
    "BUG: kernel NULL pointer dereference, address: ADDRESS; \
     Kernel panic - not syncing: Fatal exception"
)]
#[case(Does::VanishAt(1), "the VM ended without a word: QEMU ended with status 0")]
#[case(Does::HangAt(1), "the VM gave no sign for 0.4 s")]
#[case(Does::FaultAt(1), "the guest's program gave up: it panicked: at the runner")]
fn the_detail_says_how(limits: Limits, #[case] does: Does, #[case] detail: &str) {
    let (report, _) = session(&[does, does, Does::Well], 3, limits);
    assert_eq!(report.expect("a report").outcomes[1].detail, detail);
}

#[rstest]
fn complaints_name_the_case_near_them(limits: Limits) {
    let (report, _) = session(&[Does::PanicAt(1), Does::Well], 3, limits);
    let report = report.expect("a report");
    assert_eq!(report.complaints.len(), 2, "{report:?}");
    assert_eq!(report.lost, [Lost { during: Some(1), why: report.lost[0].why.clone() }]);
    assert!(report.lost[0].why.contains("Fatal exception"), "{report:?}");
}

#[rstest]
fn complaints_without_end_are_counted(limits: Limits) {
    let (report, _) = session(&[Does::ComplainForEverAt(1), Does::Well], 3, limits);
    let report = report.expect("a report");
    assert_eq!(report.complaints.len() + report.more_complaints, 1 << 16);
    assert_eq!(report.complaints.len(), 100);
    assert_eq!(report.outcomes, [outcome(0), outcome(1), outcome(2)]);
}

#[rstest]
fn files_come_whole_and_from_every_machine(limits: Limits) {
    let machines = vec![Does::VanishBehind(0), Does::HandOut];
    let mut script = Script { machines, started: 0, all: 2 };
    let plan = Plan { cases: vec!["a".into(), "b".into()], ..Plan::default() };
    let mut files = Vec::new();
    let go_on = AtomicBool::new(false);
    run(&mut script, Path::new("vmlinuz"), &plan, limits, &go_on, &mut |event| match event {
        Event::Boot { number, .. } => files.push((number, String::new(), Vec::new())),
        Event::File { name, bytes } => {
            let last = files.last_mut().expect("a boot");
            (last.1, last.2) = (name.to_owned(), bytes.to_owned());
        }
        _ => {}
    })
    .expect("a report");
    let none = (1, String::new(), Vec::new());
    assert_eq!(files, [none, (2, "mm/f.gcda".to_owned(), b"onetwo".to_vec())]);
}

#[rstest]
fn a_kernel_that_never_boots_is_an_error(
    limits: Limits,
    #[values(Does::NoBoot, Does::Dumb)] does: Does,
) {
    let (result, started) = session(&[does], CASES, limits);
    let error = result.expect_err("nothing to report").to_string();
    assert_eq!(started, 4);
    assert!(error.contains("vmlinuz did not come up in 4 boots"), "{error}");
}

#[rstest]
fn when_booting_becomes_impossible_the_rest_is_not_run(limits: Limits) {
    let (report, started) = session(&[Does::VanishBehind(2), Does::NoBoot], CASES, limits);
    let report = report.expect("a report");
    assert_eq!(started, 5);
    let ends: Vec<_> = report.outcomes.iter().map(|o| o.end).collect();
    assert_eq!(ends[..3], [End::Done; 3]);
    assert_eq!(ends[3..], [End::NotRun; 3]);
    let why = "4 VMs in a row were lost without a new outcome";
    assert!(report.outcomes[5].detail.starts_with(why), "{report:?}");
    assert!(report.gave_up.is_some_and(|w| w.starts_with(why)));
}

/// What was answered is true, whatever keeps the next machine from being started.
#[rstest]
fn when_no_machine_can_be_started_the_rest_is_not_run(limits: Limits) {
    let (report, started) = session(&[Does::VanishAt(2), Does::NoRoom], CASES, limits);
    let report = report.expect("a report");
    assert_eq!((started, report.boots, report.lost.len()), (2, 1, 1));
    let ends: Vec<_> = report.outcomes.iter().map(|o| o.end).collect();
    assert_eq!((&ends[..2], &ends[2..]), (&[End::Done; 2][..], &[End::NotRun; 4][..]));
    let why = report.gave_up.expect("a reason");
    assert!(why.starts_with("no further VM could be started: writing kernel failed"), "{why}");
}

#[rstest]
#[case::at_first(&[Does::NoRoom])]
#[case::before_any_was_up(&[Does::NoBoot, Does::NoRoom])]
fn a_machine_that_cannot_be_started_is_an_error(limits: Limits, #[case] machines: &[Does]) {
    let (result, _) = session(machines, CASES, limits);
    let error = result.expect_err("nothing to report").to_string();
    assert!(error.contains("No space left"), "{error}");
}

#[rstest]
fn another_kernel_is_no_answer(limits: Limits) {
    let (result, started) = session(&[Does::VanishAt(2), Does::Another], CASES, limits);
    let error = result.expect_err("two kernels").to_string();
    assert_eq!(started, 2);
    assert!(error.contains(r#"release is "6.12" and "6.13""#), "{error}");
    assert!(error.contains("ask again"), "{error}");
}

#[rstest]
fn when_each_machine_is_killed_the_rest_is_not_run(limits: Limits) {
    let machines: Vec<_> = (0..CASES).flat_map(|n| [Does::KilledAt(n); 2]).collect();
    let (report, started) = session(&machines, CASES, limits);
    let report = report.expect("a report");
    let ends = |end| report.outcomes.iter().filter(|o| o.end == end).count();
    assert_eq!((started, ends(End::Broken), ends(End::NotRun)), (4, 2, CASES - 2));
}

#[rstest]
fn the_number_of_machines_is_bounded(limits: Limits) {
    let machines: Vec<_> = (0..40).flat_map(|n| [Does::PanicAt(n); 2]).collect();
    let (report, started) = session(&machines, 40, limits);
    let report = report.expect("a report");
    assert_eq!(started, 20);
    let ends = |end| report.outcomes.iter().filter(|o| o.end == end).count();
    assert_eq!((ends(End::Panic), ends(End::NotRun)), (10, 30));
}

#[rstest]
#[case(&[Does::Well], 1)]
#[case(&[Does::NoBoot, Does::Well], 2)]
fn an_empty_plan_is_done_when_the_guest_says_so(
    limits: Limits,
    #[case] machines: &[Does],
    #[case] boots: usize,
) {
    let (report, started) = session(machines, 0, limits);
    assert_eq!((report.expect("a report").outcomes.len(), started), (0, boots));
}

#[rstest]
fn an_id_that_is_no_line_is_refused(limits: Limits) {
    let mut script = Script { machines: vec![Does::Well], started: 0, all: 1 };
    let plan = Plan { cases: vec!["a\nb".into()], ..Plan::default() };
    let go_on = AtomicBool::new(false);
    let error = run(&mut script, Path::new("vmlinuz"), &plan, limits, &go_on, &mut |_| ());
    assert!(matches!(error, Err(VmError::Plan(_))), "{error:?}");
    assert_eq!(script.started, 0);
}
