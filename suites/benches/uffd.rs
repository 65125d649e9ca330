//! The operations under Criterion, which keeps what it has seen and says what has changed since; then what
//! must hold of every measurement here: our primitives against the least that C can do, and an operation
//! against itself.
//!
//! `uffd-conform bench` measures the same operations with their limits, on any kernel.

use criterion::Criterion;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};
use uffd_suites::bench::{self, Operation, Work, clock, measure, stats};
use uffd_suites::memory::BLOCK;
use uffd_suites::outcome::Stop;
use uffd_suites::stage::Stage;

/// A round trip through our primitives may cost this many times the one in C.
const MOST: f64 = 1.1;
/// How often both are measured in turns, and the rounds of 32 faults of a turn.
const TURNS: usize = 24;
const ROUNDS: u32 = 40;
/// Operations that are held against themselves.
const SELF: [&str; 3] =
    ["copy/pages[backing=anon,size=4k]", "roundtrip/read[cpus=same]", "register/pages[n=1]"];

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let stage = Stage::prepare(Duration::from_secs(20)).expect("this process can be prepared");
    if !words.iter().any(|word| word == "--checks") {
        under_criterion(&stage);
    }
    // With a filter, only what it names is of interest.
    let only = words.iter().any(|word| !word.starts_with('-'));
    if !only && !(beside_c(&stage) & against_itself(&stage)) {
        std::process::exit(1);
    }
}

fn under_criterion(stage: &Stage) {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(150))
        .measurement_time(Duration::from_millis(700))
        .sample_size(20)
        .without_plots()
        .configure_from_args();
    let tick = nanoseconds_per_tick(stage);
    for operation in bench::operations().iter().filter(|operation| operation.is_listed()) {
        let mut work = match operation.set_up(stage, BLOCK) {
            Ok(work) => work,
            Err(stop) => {
                println!("{}: {stop}", operation.id());
                continue;
            }
        };
        criterion.bench_function(&operation.id(), |b| {
            b.iter_custom(|calls| timed(&mut *work, operation, calls, tick));
        });
    }
    criterion.final_summary();
}

/// The time of `calls` calls, without what prepares them.
fn timed(work: &mut dyn Work, operation: &Operation, calls: u64, tick: f64) -> Duration {
    let calls = usize::try_from(calls).expect("a count of calls fits");
    let mut ticks = Vec::new();
    while ticks.len() < calls {
        work.round(&mut ticks).unwrap_or_else(|stop| panic!("{}: {stop}", operation.id()));
    }
    ticks.truncate(calls);
    #[expect(clippy::cast_precision_loss, reason = "ticks of a second stay below 2^52")]
    let time = ticks.iter().sum::<u64>() as f64 * tick;
    Duration::from_secs_f64(time / 1e9)
}

#[expect(clippy::cast_precision_loss, reason = "ticks of a millisecond")]
fn nanoseconds_per_tick(stage: &Stage) -> f64 {
    let clock = bench::find(clock::MILLISECOND).expect("the clock is an operation");
    let costs = measure(stage, clock, None, 5).expect("the clock can be read");
    1e6 / costs.sample().expect("five rounds").p50 as f64
}

/// The C program, compiled.
fn minimal() -> Result<PathBuf, String> {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/minimal.c");
    let program = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("minimal");
    let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".into());
    let status = Command::new(&compiler)
        .args(["-O2", "-Wall", "-Werror", "-pthread", "-o"])
        .arg(&program)
        .arg(source)
        .status()
        .map_err(|e| format!("running the C compiler {compiler}: {e}; install gcc, or set CC"))?;
    if status.success() { Ok(program) } else { Err(format!("{compiler} can't compile {source}")) }
}

/// Ticks of the faults that the C program has served.
fn in_c(program: &PathBuf, cpu: usize) -> Result<Vec<u64>, String> {
    let run = Command::new(program).args([ROUNDS.to_string(), cpu.to_string()]).output();
    let output = run.map_err(|e| format!("running {}: {e}", program.display()))?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).trim().to_owned());
    }
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().map(|line| line.parse().map_err(|e| format!("{line:?}: {e}"))).collect()
}

/// Measures our round trip and that of C in turns; whether ours costs no more than it may.
fn beside_c(stage: &Stage) -> bool {
    let program = match minimal() {
        Ok(program) => program,
        Err(why) => {
            eprintln!("a round trip beside C: {why}");
            return false;
        }
    };
    let cpu = (0..1024).find(|&cpu| is_allowed(cpu)).unwrap_or(0);
    let operation = bench::find("roundtrip/read[cpus=same]").expect("it is an operation");
    let (mut ours, mut theirs, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..TURNS {
        let costs = match measure(stage, operation, None, ROUNDS) {
            Ok(costs) => costs.calls,
            Err(stop @ (Stop::Denied(_) | Stop::Unsupported(_))) => {
                println!("a round trip beside C: {stop}");
                return true;
            }
            Err(stop) => panic!("{stop}"),
        };
        let least = in_c(&program, cpu).unwrap_or_else(|why| panic!("the C program: {why}"));
        ratios.push(quotient(stats::median(&costs), stats::median(&least)));
        ours.extend(costs);
        theirs.extend(least);
    }
    let ratio = stats::ratio(&ratios).expect("turns");
    let (ours, theirs) =
        (stats::sample(&ours).expect("ours"), stats::sample(&theirs).expect("C's"));
    println!(
        "a round trip costs {:.3} ({:.3}..{:.3}) times the one in C; p50 {} and {} ticks, p99 {} and {}; at \
         most {MOST} is wanted",
        ratio.mid, ratio.low, ratio.high, ours.p50, theirs.p50, ours.p99, theirs.p99
    );
    ratio.mid <= MOST
}

fn is_allowed(cpu: usize) -> bool {
    nix::sched::sched_getaffinity(nix::unistd::Pid::from_raw(0))
        .and_then(|set| set.is_set(cpu))
        .unwrap_or(false)
}

#[expect(clippy::cast_precision_loss, reason = "ticks of one call stay below 2^52")]
fn quotient(ours: Option<u64>, theirs: Option<u64>) -> f64 {
    ours.zip(theirs).map_or(f64::NAN, |(ours, theirs)| ours as f64 / theirs as f64)
}

/// Whether an operation costs as much as itself.
fn against_itself(stage: &Stage) -> bool {
    let started = Instant::now();
    let mut good = true;
    for id in SELF {
        let operation = bench::find(id).expect("it is an operation");
        match measure(stage, operation, Some(operation), 200) {
            Ok(costs) => {
                let ratio = costs.ratio().expect("200 turns");
                // Two places in memory differ by less than this for reasons of their own.
                let holds = ratio.low <= 1.02 && ratio.high >= 0.98;
                let word = if holds { "is" } else { "is not" };
                let (low, mid, high) = (ratio.low, ratio.mid, ratio.high);
                println!("{id} {word} as dear as itself: {mid:.3} ({low:.3}..{high:.3})");
                good &= holds;
            }
            Err(stop @ (Stop::Denied(_) | Stop::Unsupported(_) | Stop::Precondition(_))) => {
                println!("{id} against itself: {stop}");
            }
            Err(stop) => panic!("{id}: {stop}"),
        }
    }
    println!("held against itself in {:.1} s", started.elapsed().as_secs_f64());
    good
}
