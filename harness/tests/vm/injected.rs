//! Guests that misbehave, in real VMs: what a case does here costs that case alone.

use super::{Test, ends, expect, impatient, options, run};
use crate::frame::frame;
use libtest_mimic::Failed;
use nix::sys::mman::{MapFlags, ProtFlags, mmap, mmap_anonymous};
use nix::sys::reboot::{RebootMode, reboot};
use nix::unistd::{ForkResult, fork};
use std::fs::OpenOptions;
use std::io::Write;
use std::num::NonZeroUsize;
use std::path::Path;
use std::time::Duration;
use uffd_harness::filter;
use uffd_harness::runner::Runner;
use uffd_harness::vm::{Options, Plan, run_vm};
use uffd_results::{End, Facts, Outcome};
use uffd_suites::probe::Case;

pub(crate) const TESTS: &[(&str, Test)] = &[
    ("a_guest_that_reboots_costs_one_case", a_guest_that_reboots_costs_one_case),
    ("an_agent_that_dies_costs_one_case", an_agent_that_dies_costs_one_case),
    ("a_guest_without_interrupts_costs_one_case", a_guest_without_interrupts_costs_one_case),
    ("a_flood_on_the_console_costs_at_most_its_case", a_flood_costs_at_most_its_case),
    ("what_comes_on_the_port_between_frames", what_comes_on_the_port_between_frames),
    ("a_clock_that_jumps_changes_no_fact", a_clock_that_jumps_changes_no_fact),
    ("memory_that_is_short_changes_no_fact", memory_that_is_short_changes_no_fact),
];

/// Names what a guest of ours is disturbed by while it asks real cases.
pub(crate) const DISTURBED: &str = "disturbed";

/// The guest's side: does what the case is named for.
pub(crate) fn misbehave(index: usize, id: &str) -> Option<Outcome> {
    let mut facts = Facts::new();
    match id {
        "reboots" => {
            let Err(error) = reboot(RebootMode::RB_AUTOBOOT);
            facts.set("reboot", error);
        }
        // SAFETY: ends this process, which is what is wanted.
        "agent-dies" => unsafe { libc::_exit(7) },
        "deaf" => facts.set("deaf", format!("{:?}", go_deaf()).replace(' ', "-")),
        "babbles" => console(256 << 10),
        "floods" => console(usize::MAX),
        "noise" => port(&[&b"\r\n\x1b[2Jrubbish\0\xff\xfe"[..]; 50].concat()),
        "half-frame" => port(b"\x0199 400 deadbeef {\"case\":{\"index\":1,\"outc"),
        // What this case's start was written as.
        "twice" => {
            let start = serde_json::json!({"start": {"index": index}});
            port(&frame(1 + 2 * index as u64, &start));
        }
        _ => return None,
    }
    Some(Outcome::done(facts))
}

/// Turns the CPU's only source of interrupts off, and never ends.
fn go_deaf() -> std::io::Result<()> {
    const PAGE: usize = 4096;
    const LOCAL_APIC: i64 = 0xfee0_0000;
    /// Spurious-interrupt vector register; its bit 8 is the software enable.
    const SPURIOUS: usize = 0xf0;
    let memory = OpenOptions::new().read(true).write(true).open("/dev/mem")?;
    let size = NonZeroUsize::new(PAGE).ok_or(std::io::ErrorKind::InvalidInput)?;
    let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
    // SAFETY: a new mapping at an address of the kernel's choice changes no memory in use.
    let apic = unsafe { mmap(None, size, access, MapFlags::MAP_SHARED, memory, LOCAL_APIC) }?;
    // SAFETY: the register lies within the mapping and is aligned.
    unsafe { apic.byte_add(SPURIOUS).cast::<u32>().write_volatile(0xff) };
    loop {
        std::hint::spin_loop();
    }
}

fn console(bytes: usize) {
    let mut console = OpenOptions::new().write(true).open("/dev/console").expect("the console");
    let line = [b"flood ".repeat(170), b"\n".to_vec()].concat();
    for _ in 0..bytes / line.len() {
        console.write_all(&line).expect("written");
    }
}

/// Writes to the port that frames leave by where there is no PCI.
fn port(bytes: &[u8]) {
    let mut port = OpenOptions::new().write(true).open("/dev/ttyS1").expect("the port");
    port.write_all(bytes).expect("written");
    nix::sys::termios::tcdrain(&port).expect("sent");
}

/// The guest's side of real cases, named by their places among all; something disturbs it meanwhile.
pub(crate) fn real(by: &str) -> impl FnMut(usize, &str) -> Outcome + 'static {
    match by {
        "clock" => beside(clock_that_jumps),
        "memory" => {
            beside(memory_that_is_taken);
            while available_kib() > LEFT_KIB + (8 << 10) {
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        _ => {}
    }
    let cases = uffd_suites::cases();
    let runner = Runner::new(Duration::from_secs(30)).expect("a runner");
    move |_, id| {
        let place = id.strip_prefix("real-").and_then(|n| n.parse::<usize>().ok());
        let case: &Case = &cases[place.expect("a place")];
        runner.run_repeated(case, 1)
    }
}

fn beside(what: fn()) {
    // SAFETY: this process has one thread.
    if let Ok(ForkResult::Child) = unsafe { fork() } {
        what();
        std::process::exit(0);
    }
}

/// Sets the clock to and fro by years, every few milliseconds.
fn clock_that_jumps() {
    const JUMP: libc::time_t = 400_000_000;
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    for n in 0_u64.. {
        let by = if n % 2 == 0 { JUMP } else { -JUMP };
        // SAFETY: both calls take a time of ours.
        let failed = unsafe {
            libc::clock_gettime(libc::CLOCK_REALTIME, &raw mut time);
            time.tv_sec += by;
            libc::clock_settime(libc::CLOCK_REALTIME, &raw const time)
        };
        assert_eq!(failed, 0, "PID 1's children may set the clock");
        std::thread::sleep(Duration::from_millis(3));
    }
}

/// What is left of the guest's memory when some of it is taken: less, and its kernel kills cases.
const LEFT_KIB: u64 = 40 << 10;

fn available_kib() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").expect("meminfo");
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    line.and_then(|l| l.trim().strip_suffix("kB")?.trim().parse().ok()).expect("a number")
}

/// Takes memory until little is left, and keeps it.
fn memory_that_is_taken() {
    const PIECE: usize = 4 << 20;
    loop {
        if available_kib() > LEFT_KIB {
            let size = NonZeroUsize::new(PIECE).expect("a size");
            let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
            let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_POPULATE;
            // SAFETY: a new mapping at an address of the kernel's choice changes no memory in use.
            let _ = unsafe { mmap_anonymous(None, size, access, flags) };
        } else {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn a_guest_that_reboots_costs_one_case(kernel: &Path) -> Result<(), Failed> {
    let report = run(kernel, &["nothing", "reboots", "nothing"], &options())?;
    expect(ends(&report) == [End::Done, End::Panic, End::Done] && report.boots == 3, &report)
}

fn an_agent_that_dies_costs_one_case(kernel: &Path) -> Result<(), Failed> {
    let report = run(kernel, &["nothing", "agent-dies", "nothing"], &options())?;
    let says = report.outcomes[1].detail.contains("own process 1 died");
    expect(says && ends(&report) == [End::Done, End::Broken, End::Done], &report)
}

fn a_guest_without_interrupts_costs_one_case(kernel: &Path) -> Result<(), Failed> {
    let options = Options { append: vec!["iomem=relaxed".into()], ..impatient() };
    let report = run(kernel, &["nothing", "deaf", "nothing"], &options)?;
    expect(ends(&report) == [End::Done, End::Hang, End::Done] && report.boots >= 3, &report)
}

fn a_flood_costs_at_most_its_case(kernel: &Path) -> Result<(), Failed> {
    let report = run(kernel, &["nothing", "babbles", "nothing"], &options())?;
    expect(ends(&report) == [End::Done; 3] && report.lost.is_empty(), &report)?;
    let report = run(kernel, &["nothing", "floods", "nothing"], &impatient())?;
    // Stopped for what it says, or for what it does not say.
    let ends = ends(&report);
    expect(ends[0] == End::Done && ends[2] == End::Done, &report)?;
    expect(matches!(ends[1], End::Broken | End::Hang) && report.boots >= 3, &report)
}

fn what_comes_on_the_port_between_frames(kernel: &Path) -> Result<(), Failed> {
    let options = Options { append: vec!["pci=off".into()], ..options() };
    let report = run(kernel, &["nothing", "noise", "twice", "nothing"], &options)?;
    expect(ends(&report) == [End::Done; 4] && report.lost.is_empty(), &report)?;
    let report = run(kernel, &["nothing", "half-frame", "nothing"], &options)?;
    let says = report.outcomes[1].detail.contains("cut short");
    expect(says && ends(&report) == [End::Done, End::Broken, End::Done], &report)
}

/// Cases of many kinds, by their places.
fn some_cases() -> Result<Vec<String>, Failed> {
    let chosen: Vec<String> =
        ["copy/m*backing=anon*", "events/", "wake/*backing=shmem*"].map(str::to_owned).into();
    let chosen: Vec<String> = filter::choose(&chosen, false)?.iter().map(Case::id).collect();
    let all = uffd_suites::cases();
    let places = all.iter().enumerate().filter(|(_, case)| chosen.contains(&case.id()));
    Ok(places.map(|(place, _)| format!("real-{place}")).step_by(5).collect())
}

/// The outcomes of real cases in a guest that is disturbed.
fn outcomes(kernel: &Path, by: &str, memory_mib: u64) -> Result<Vec<Outcome>, Failed> {
    let mut options = Options { memory_mib, ..options() };
    options.settings.insert(DISTURBED.to_owned(), by.to_owned());
    let report = run_vm(kernel, &some_cases()?, &options, &mut |_| {})?;
    eprintln!("{by}: {} cases in {:?}", report.outcomes.len(), report.took);
    expect(report.lost.is_empty() && report.outcomes.len() > 50, &report)?;
    Ok(report.outcomes)
}

fn the_same(kernel: &Path, by: &str, memory_mib: u64) -> Result<(), Failed> {
    let expected = outcomes(kernel, "nothing", 1024)?;
    let seen = outcomes(kernel, by, memory_mib)?;
    for (expected, seen) in expected.iter().zip(&seen) {
        if expected != seen {
            return Err(format!("{by}: {expected} became {seen}").into());
        }
    }
    Ok(())
}

fn a_clock_that_jumps_changes_no_fact(kernel: &Path) -> Result<(), Failed> {
    the_same(kernel, "clock", 1024)
}

fn memory_that_is_short_changes_no_fact(kernel: &Path) -> Result<(), Failed> {
    the_same(kernel, "memory", 1024)
}

/// Whether a plan is one of real cases.
pub(crate) fn disturbed(plan: &Plan) -> Option<&str> {
    plan.setting(DISTURBED)
}
