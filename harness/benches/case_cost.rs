//! What a whole case costs on the running kernel, beside its floor: fork, mmap, userfaultfd, REGISTER,
//! a thread that faults, its message, COPY, join, exit, wait, written in the plainest way.
//!
//! Both run in the same process in alternate batches, so that noise and memory are the same for
//! both; criterion then shows each on its own.

use criterion::Criterion;
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, fork};
use std::hint::black_box;
use std::time::{Duration, Instant};
use uffd_harness::runner::Runner;
use uffd_results::End;
use uffd_suites::abi::{REGISTER_MODE_MISSING, Range, Uffd, Way};
use uffd_suites::memory::PAGE;
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
const LIMIT: f64 = 2.0;

fn main() {
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
    if std::env::args().any(|argument| argument == "--criterion") {
        let mut criterion = Criterion::default().measurement_time(Duration::from_secs(3));
        criterion.bench_function("bare", |b| b.iter(|| bare(way, source)));
        for case in &cases {
            criterion.bench_function(&case.id(), |b| b.iter(|| run(&runner, case)));
        }
        criterion.final_summary();
    }
    if worst > LIMIT {
        eprintln!("a case costs {worst:.2} times its floor");
        std::process::exit(1);
    }
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

/// The floor, once.
fn bare(way: Way, source: usize) {
    // SAFETY: the process has one thread, so the child may use everything.
    match unsafe { fork() }.expect("fork") {
        ForkResult::Parent { child } => {
            waitpid(child, None).expect("waitpid");
        }
        ForkResult::Child => {
            bare_child(way, source);
            // SAFETY: ends the child without its parent's destructors.
            unsafe { libc::_exit(0) }
        }
    }
}

fn bare_child(way: Way, source: usize) {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    let access = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: a fresh mapping at an address that the kernel chooses.
    let at = unsafe { libc::mmap(std::ptr::null_mut(), 6 * PAGE, access, flags, -1, 0) };
    let block = Range { start: at as usize, len: 6 * PAGE };
    let uffd = Uffd::open(way).expect("userfaultfd");
    uffd.api(0).expect("UFFDIO_API");
    uffd.register(block, REGISTER_MODE_MISSING).expect("UFFDIO_REGISTER");
    let mut thread = 0;
    // SAFETY: `load` only reads the byte at its argument, which is mapped for as long as it runs.
    let made = unsafe { libc::pthread_create(&raw mut thread, std::ptr::null(), load, at) };
    assert_eq!(made, 0);
    while uffd.read().is_err() {
        let fd =
            nix::poll::PollFd::new(std::os::fd::AsFd::as_fd(&uffd), nix::poll::PollFlags::POLLIN);
        nix::poll::poll(&mut [fd], nix::poll::PollTimeout::NONE).expect("poll");
    }
    let page = Range { start: block.start, len: PAGE };
    assert!(uffd.copy(page, source, 0).0.is_ok());
    // SAFETY: the thread was made above and is joined once.
    unsafe { libc::pthread_join(thread, std::ptr::null_mut()) };
}

extern "C" fn load(at: *mut libc::c_void) -> *mut libc::c_void {
    // SAFETY: see `bare_child`.
    black_box(unsafe { at.cast::<u8>().read_volatile() });
    std::ptr::null_mut()
}
