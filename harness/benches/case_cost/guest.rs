//! A whole run in a VM beside its floor: a boot that does nothing, and the bare floor once a case.
//!
//! This program is PID 1 of both VMs. In the second one batches of the floor run between the default
//! cases, so that what the machine does beside is the same for both.

use super::floor::bare;
use super::{median, time};
use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;
use std::time::{Duration, Instant};
use uffd_harness::environment::environment;
use uffd_harness::kernels::{self, Cache, Image, Lock};
use uffd_harness::runner::Runner;
use uffd_harness::vm::{self, Event, Options, Plan, guest};
use uffd_results::{End, Facts, Outcome, Suite};
use uffd_suites::probe::Case;

/// In a plan, a batch of the floor.
const BARE: &str = "bare";
/// Cases between two of them.
const BETWEEN: usize = 100;
/// A run may cost this many times its floor.
const LIMIT: f64 = 1.3;

/// The guest's side.
pub(super) fn main() -> ! {
    guest::main(agent)
}

fn agent(plan: &Plan) -> guest::Agent<'static> {
    let suite = Suite { version: String::new(), revision: String::new() };
    let environment = environment(None, "", None);
    let files = Box::new(|| Ok(Vec::new()));
    if plan.cases.is_empty() {
        let run = Box::new(|_: usize, _: &str| Outcome::done(Facts::new()));
        return guest::Agent { suite, environment, run, files, is_used_up: || false };
    }
    let cases = uffd_suites::bump::keeping(uffd_suites::registry);
    let runner = Runner::new(Duration::from_secs(30)).expect("this kernel can be asked");
    let way = runner.stage().way.clone().expect("userfaultfd is permitted");
    let run = move |_: usize, id: &str| {
        let mut facts = Facts::new();
        if id == BARE {
            facts.set("us", time(|| bare(way, runner.stage().source)).round());
            return Outcome::done(facts);
        }
        let case = id.parse().ok().and_then(|place: usize| cases.get(place)).expect("a place");
        let start = Instant::now();
        let outcome = runner.run(case);
        facts.set("us", start.elapsed().as_micros());
        Outcome { facts, ..outcome }
    };
    guest::Agent { suite, environment, run: Box::new(run), files, is_used_up: || false }
}

/// Asks the kernel's VM; with `probes` shows what each probe costs.
pub(super) fn measure(kernel: &str, probes: bool) -> ExitCode {
    let image = image(kernel);
    let cases = uffd_suites::cases();
    let chosen: Vec<usize> = (0..cases.len()).filter(|&n| cases[n].by_default).collect();
    let mut plan = Vec::new();
    for (n, place) in chosen.iter().enumerate() {
        if n % BETWEEN == 0 {
            plan.push(BARE.to_owned());
        }
        plan.push(place.to_string());
    }
    let mut options = Options { accelerator: vm::accel::Choice::Tcg, ..Options::default() };
    let empty = run(&image, &[], &options);
    let modules: BTreeSet<&str> =
        chosen.iter().flat_map(|&n| cases[n].modules()).copied().collect();
    if let Some(tar) = &image.modules {
        let modules: Vec<&str> = modules.into_iter().collect();
        options.give_modules(kernels::read_modules(tar, &modules).expect("modules of the package"));
    }
    let whole = run(&image, &plan, &options);
    let mut costs: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    let (mut floors, mut all) = (Vec::new(), Vec::new());
    for (id, outcome) in plan.iter().zip(&whole.outcomes) {
        let us = outcome.facts.get("us").and_then(|us| us.parse().ok());
        let Some(us) = us.filter(|_| outcome.end != End::NotRun) else { continue };
        if id == BARE {
            floors.push(us);
            continue;
        }
        let case: &Case = &cases[id.parse::<usize>().expect("a place")];
        costs.entry(case.probe.to_string()).or_default().push(us);
        all.push(us);
    }
    if probes {
        let mut costs: Vec<_> = costs.iter().collect();
        costs.sort_by(|a, b| b.1.iter().sum::<f64>().total_cmp(&a.1.iter().sum()));
        for (probe, us) in costs {
            let (sum, most) =
                (us.iter().sum::<f64>() / 1e3, us.iter().copied().fold(0.0, f64::max));
            #[expect(clippy::cast_precision_loss, reason = "a number of cases")]
            let each = sum * 1e3 / us.len() as f64;
            println!("{sum:8.0} ms  {:4} x {each:6.0} us, at most {most:6.0}  {probe}", us.len());
        }
    }
    show(&image, &empty, &whole, &mut floors, &mut all)
}

fn show(
    image: &Image,
    empty: &vm::SessionReport,
    whole: &vm::SessionReport,
    floors: &mut [f64],
    all: &mut [f64],
) -> ExitCode {
    #[expect(clippy::cast_precision_loss, reason = "a number of cases")]
    let cases = all.len() as f64;
    let sum: f64 = all.iter().sum();
    let in_floors = floors.iter().sum::<f64>() * f64::from(super::RUNS) / 1e6;
    let (floor, middle) = (median(floors), median(all));
    let (bare_boot, boot) = (empty.took.as_secs_f64(), whole.booted_in.as_secs_f64());
    let took = whole.took.as_secs_f64() - in_floors;
    let limit = bare_boot + cases * floor / 1e6;
    println!(
        "Linux {}: {cases} cases; a case takes {:.0} us (the middle one {middle:.0}), its bare floor \
         {floor:.0} us: {:.2} times; up after {boot:.2} s, a VM that does nothing takes {bare_boot:.2} s",
        image.identity.upstream,
        sum / cases,
        sum / cases / floor
    );
    let ratio = took / limit;
    println!(
        "ratio whole/bare: {ratio:.2} ({took:.1} s / {limit:.1} s); at most {LIMIT:.1} is wanted"
    );
    if ratio > LIMIT { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn run(image: &Image, plan: &[String], options: &Options) -> vm::SessionReport {
    vm::run_vm(&image.path, plan, options, &mut |_: Event<'_>| {}).expect("a VM")
}

fn image(kernel: &str) -> Image {
    let lock = Lock::open(None).expect("the lock file");
    let slots = kernels::select(&lock, &[kernel.to_owned()], true).expect("a known kernel");
    let slot = slots.first().expect("a kernel of that name");
    let filled = Cache::open().and_then(|cache| cache.fill(slot, &[], &|text| eprintln!("{text}")));
    filled.expect("a cache").expect("a kernel that can be had")
}
