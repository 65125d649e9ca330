//! What a whole case costs on the running kernel, beside its floor: fork, mmap, userfaultfd, REGISTER,
//! a thread that faults, its message, COPY, join, exit, wait, written in the plainest way.
//!
//! Both run in the same process in alternate batches, so that noise and memory are the same for
//! both; criterion then shows each on its own. With `-k KERNEL` the same is asked in a VM, of all default
//! cases; see `guest`.

mod floor;
mod guest;

use criterion::Criterion;
use floor::bare;
use std::hint::black_box;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use uffd_harness::runner::Runner;
use uffd_results::End;
use uffd_suites::probe::Case;

/// Cases whose cost is shown: placed, stuck and freed, cleaned up, on two kinds of memory.
const CASES: [&str; 4] = [
    "copy/unchanged[backing=anon,waiter=user-read,msg=read]",
    "copy/unchanged[backing=shmem,waiter=user-read,msg=read]",
    "copy/mmap-over[backing=anon,part=middle,over=anon,waiter=user-read,msg=read]",
    "unregister/munmap[backing=anon,part=middle,waiter=user-read,msg=read]",
];
/// Batches of each, and runs in a batch.
const BATCHES: usize = 40;
const RUNS: u32 = 25;
/// A whole case may cost this many times its floor.
const LIMIT: f64 = 1.5;

fn main() -> ExitCode {
    if uffd_harness::vm::guest::is_guest() {
        guest::main();
    }
    let arguments: Vec<String> = std::env::args().collect();
    // Some cases run this program in place of their process.
    if arguments.iter().any(|argument| argument == "--version") {
        return ExitCode::SUCCESS;
    }
    if let Some(at) = arguments.iter().position(|argument| argument == "-k") {
        let kernel = arguments.get(at + 1).expect("-k needs a kernel: 6.12.118");
        return guest::measure(kernel, arguments.iter().any(|argument| argument == "--probes"));
    }
    let runner = Runner::new(Duration::from_secs(30)).expect("this kernel can be asked");
    let way = runner.stage().way.clone().expect("userfaultfd is permitted");
    let source = runner.stage().source;
    let cases: Vec<Case> = CASES.iter().map(|id| find(id)).collect();
    let mut worst: f64 = 0.0;
    for case in &cases {
        let (mut whole, mut floor) = (Vec::new(), Vec::new());
        for _ in 0..BATCHES {
            floor.push(time(|| bare(way, source)));
            whole.push(time(|| run(&runner, case)));
        }
        let (whole, floor) = (median(&mut whole), median(&mut floor));
        let ratio = whole / floor;
        println!("ratio case/bare: {ratio:.2} ({whole:.0} us / {floor:.0} us)  {}", case.id());
        worst = worst.max(ratio);
    }
    println!("medians of {BATCHES} alternate batches of {RUNS}; at most {LIMIT:.1} is wanted");
    if arguments.iter().any(|argument| argument == "--criterion") {
        let mut criterion = Criterion::default().measurement_time(Duration::from_secs(3));
        criterion.bench_function("bare", |b| b.iter(|| bare(way, source)));
        for case in &cases {
            criterion.bench_function(&case.id(), |b| b.iter(|| run(&runner, case)));
        }
        criterion.final_summary();
    }
    if worst > LIMIT {
        eprintln!("a case costs {worst:.2} times its floor");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn find(id: &str) -> Case {
    let found = uffd_suites::cases().into_iter().find(|case| case.id() == id);
    found.unwrap_or_else(|| panic!("no case {id}"))
}

/// Microseconds a run, over one batch.
fn time(mut run: impl FnMut()) -> f64 {
    let start = Instant::now();
    (0..RUNS).for_each(|_| run());
    start.elapsed().as_secs_f64() * 1e6 / f64::from(RUNS)
}

fn median(times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn run(runner: &Runner, case: &Case) {
    let outcome = black_box(runner.run(case));
    assert_eq!(outcome.end, End::Done, "{}: {outcome}", case.id());
}
