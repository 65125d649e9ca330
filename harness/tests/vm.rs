//! Boots the kernel that `UFFD_TEST_KERNEL` names and asks it things whose answer is known.
//!
//! Without the variable every test here is shown as ignored. This program is PID 1 of its VMs.

#[path = "shared/frame.rs"]
mod frame;
#[path = "vm/injected.rs"]
mod injected;

use libtest_mimic::{Arguments, Failed, Trial};
use nix::sys::statfs::statfs;
use nix::sys::wait::{Id, WaitPidFlag, waitid, waitpid};
use nix::unistd::{ForkResult, Pid, fork};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use uffd_harness::environment::environment;
use uffd_harness::vm::accel::{self, Choice};
use uffd_harness::vm::guest::{self, Agent, Run};
use uffd_harness::vm::{Event, Limits, Options, Plan, SessionReport, run_vm};
use uffd_results::{End, Facts, Outcome, Suite};

fn main() {
    if guest::is_guest() {
        guest::main(agent);
    }
    let kernel = std::env::var_os("UFFD_TEST_KERNEL").map(PathBuf::from);
    let tests: [(&'static str, Test); 10] = [
        ("an_empty_plan_ends", an_empty_plan_ends),
        ("the_accelerator_is_the_proved_one", the_accelerator_is_the_proved_one),
        ("without_pci_the_serial_port_serves", without_pci_the_serial_port_serves),
        ("cases_run_in_order_on_ramfs", cases_run_in_order_on_ramfs),
        ("a_guest_sees_nothing_of_the_host", a_guest_sees_nothing_of_the_host),
        ("files_leave_the_guest_whole", files_leave_the_guest_whole),
        ("a_thousand_cases_of_each_kind", a_thousand_cases_of_each_kind),
        ("a_kernel_that_goes_down_costs_one_case", a_kernel_that_goes_down_costs_one_case),
        ("a_guest_that_falls_silent_costs_one_case", a_guest_that_falls_silent_costs_one_case),
        ("two_vms_share_a_plan", two_vms_share_a_plan),
    ];
    if kernel.is_none() {
        eprintln!("UFFD_TEST_KERNEL names no vmlinuz: no kernel is booted");
    }
    let trial = |(name, test): (&'static str, Test)| {
        let kernel = kernel.clone();
        let ignored = kernel.is_none();
        let run = move || test(kernel.as_deref().ok_or("no kernel was named")?);
        Trial::test(name, run).with_ignored_flag(ignored)
    };
    let mut arguments = Arguments::from_args();
    // Figures mean nothing with several VMs at a time.
    arguments.test_threads.get_or_insert(1);
    let tests = tests.into_iter().chain(injected::TESTS.iter().copied());
    libtest_mimic::run(&arguments, tests.map(trial).collect()).exit();
}

/// A test of one kernel.
type Test = fn(&Path) -> Result<(), Failed>;

/// What the guest hands out at its end: more than fits in one frame.
const FILE: &str = "folder/file";
const FILE_SIZE: usize = 20_000;

/// The guest's side.
fn agent(plan: &Plan) -> Agent<'static> {
    let setting = plan.setting("greeting").unwrap_or("none").to_owned();
    let run: Run<'static> = match injected::disturbed(plan) {
        Some(by) => Box::new(injected::real(by)),
        None => Box::new(move |index, id| {
            injected::misbehave(index, id).unwrap_or_else(|| case(index, id, &setting))
        }),
    };
    Agent {
        suite: Suite { version: "0".into(), revision: "test".into() },
        environment: environment(None, plan.setting("accelerator").unwrap_or_default(), None),
        run,
        files: Box::new(|| Ok(vec![(FILE.to_owned(), vec![0xff; FILE_SIZE])])),
        is_used_up: || false,
    }
}

fn case(index: usize, id: &str, setting: &str) -> Outcome {
    let mut facts = Facts::new();
    match id.split('[').next().unwrap_or(id) {
        "where" => {
            let magic = statfs("/proc/self/exe").map(|s| s.filesystem_type().0);
            facts.set("index", index);
            facts.set("magic", magic.map_or_else(|e| e.to_string(), |m| format!("{m:x}")));
            facts.set("greeting", setting);
        }
        "around" => {
            for (name, folder) in [
                ("root", "/"),
                ("interfaces", "/sys/class/net"),
                ("disks", "/sys/block"),
                ("channels", "/sys/class/virtio-ports"),
                ("buses", "/sys/bus/virtio/devices"),
                ("devices", "/sys/bus/pci/devices"),
            ] {
                facts.set(name, entries(folder));
            }
            facts.set("mounts", mounts());
        }
        "orphan" => {
            child(child_left_behind);
        }
        "children" => facts.set("children", own_children()),
        "fork" => child(|| ()),
        "oops" => {
            let _ = std::fs::write("/proc/sysrq-trigger", "c");
        }
        "silence" => loop {
            std::thread::sleep(Duration::from_secs(1));
        },
        "panic" => panic!("the test's own panic"),
        _ => {}
    }
    Outcome::done(facts)
}

/// The names in a folder. RAM and loop disks, which are the kernel's own, have no place of their own.
fn entries(folder: &str) -> String {
    let Ok(entries) = std::fs::read_dir(folder) else { return "none".to_owned() };
    let own = |name: &String| !["ram", "loop", "zram"].iter().any(|disk| name.starts_with(disk));
    let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut names: Vec<String> = names.filter(own).collect();
    names.sort();
    if names.is_empty() { "none".to_owned() } else { names.join(",") }
}

/// The kinds of file systems that are mounted.
fn mounts() -> String {
    let text = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let mut kinds: Vec<&str> = text.lines().filter_map(|line| line.split(' ').nth(2)).collect();
    kinds.sort_unstable();
    kinds.join(",")
}

fn child(body: impl FnOnce()) {
    // SAFETY: this process has one thread.
    match unsafe { fork() } {
        Ok(ForkResult::Child) => {
            body();
            std::process::exit(0);
        }
        Ok(ForkResult::Parent { child }) => {
            waitpid(child, None).expect("the child's end");
        }
        Err(error) => panic!("fork: {error}"),
    }
}

/// A grandchild that has ended when its parent ends, and that nobody has waited for.
fn child_left_behind() {
    // SAFETY: this process has one thread.
    match unsafe { fork() } {
        Ok(ForkResult::Child) => std::process::exit(0),
        Ok(ForkResult::Parent { child }) => {
            let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT;
            waitid(Id::Pid(child), flags).expect("the grandchild's end");
        }
        Err(error) => panic!("fork: {error}"),
    }
}

/// How many processes have PID 1 for their parent.
fn own_children() -> usize {
    let entries = std::fs::read_dir("/proc").expect("/proc").flatten();
    let names = entries.filter_map(|e| e.file_name().to_str()?.parse::<i32>().ok());
    let parent = |pid: i32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit(')').next().and_then(|s| s.split(' ').nth(2)?.parse().ok())
            == Some(Pid::this().as_raw())
    };
    names.filter(|&pid| parent(pid)).count()
}

fn options() -> Options {
    Options {
        accelerator: Choice::Tcg,
        settings: [("greeting".to_owned(), "hello".to_owned())].into(),
        ..Options::default()
    }
}

/// Less patient with guests that fall silent, for those that do; more so where there is load.
fn impatient() -> Options {
    let limits = Limits::default();
    Options { limits: Limits { silence: limits.silence / 5, ..limits }, ..options() }
}

fn run(kernel: &Path, cases: &[&str], options: &Options) -> Result<SessionReport, Failed> {
    let plan: Vec<_> = cases.iter().map(|&c| c.to_owned()).collect();
    let report = run_vm(kernel, &plan, options, &mut |event| match event {
        Event::Start { .. } | Event::Outcome { .. } | Event::Up { .. } | Event::File { .. } => {}
        other => eprintln!("{other:?}"),
    })?;
    let SessionReport { boots, booted_in, took, .. } = &report;
    eprintln!(
        "{} cases, {boots} boots, first up after {booted_in:?}, {took:?} in all",
        cases.len()
    );
    Ok(report)
}

fn ends(report: &SessionReport) -> Vec<End> {
    report.outcomes.iter().map(|outcome| outcome.end).collect()
}

fn expect(holds: bool, report: &SessionReport) -> Result<(), Failed> {
    if holds { Ok(()) } else { Err(format!("{report:#?}").into()) }
}

fn an_empty_plan_ends(kernel: &Path) -> Result<(), Failed> {
    let report = run(kernel, &[], &options())?;
    let environment = &report.hello.environment;
    let as_given = environment.accelerator == "tcg"
        && (environment.cpus, environment.memory_mib, environment.huge_pages_2m) == (1, 1024, 16);
    eprintln!("{:?}", report.hello);
    expect(report.outcomes.is_empty() && report.gave_up.is_none() && as_given, &report)
}

fn the_accelerator_is_the_proved_one(kernel: &Path) -> Result<(), Failed> {
    let options = Options { accelerator: Choice::Auto, ..options() };
    let started = Instant::now();
    let chosen = accel::choose(kernel, &options)?;
    eprintln!("{} after {:?}: {}", chosen.word(), started.elapsed(), chosen.why);
    let report = run(kernel, &["nothing"], &options)?;
    expect(report.hello.environment.accelerator == chosen.word(), &report)
}

fn without_pci_the_serial_port_serves(kernel: &Path) -> Result<(), Failed> {
    let options = Options { append: vec!["pci=off".into()], ..options() };
    let report = run(kernel, &["nothing"; 100], &options)?;
    expect(ends(&report) == [End::Done; 100] && report.lost.is_empty(), &report)
}

fn cases_run_in_order_on_ramfs(kernel: &Path) -> Result<(), Failed> {
    let report = run(kernel, &["where[n=0]", "orphan", "children", "where[n=1]"], &options())?;
    let facts: Vec<_> = report.outcomes.iter().map(ToString::to_string).collect();
    let place = |n| format!("index={n} magic=858458f6 greeting=hello");
    // The orphan is gone; the kernel's own threads have another parent.
    let expected = [place(0), String::new(), "children=0".to_owned(), place(3)];
    expect(facts == expected && report.lost.is_empty(), &report)
}

fn a_guest_sees_nothing_of_the_host(kernel: &Path) -> Result<(), Failed> {
    let report = run(kernel, &["around"], &options())?;
    let value = |fact: &str| report.outcomes[0].facts.get(fact).unwrap_or("(none)").to_owned();
    eprintln!("{}", report.outcomes[0]);
    let is = |fact: &str, allowed: &[&str]| allowed.contains(&value(fact).as_str());
    // QEMU's bridge, its ISA, IDE and power controllers, and the shared memory that frames go through.
    let devices = value("devices").split(',').count();
    let good = is("root", &["dev,init,plan,proc,sys,tmp", "dev,init,plan,proc,root,sys,tmp"])
        && is("interfaces", &["lo", "none"])
        && is("disks", &["none"])
        && is("channels", &["none"])
        && is("buses", &["none"])
        && is("mounts", &["devtmpfs,proc,rootfs,sysfs,tmpfs"])
        && devices <= 5;
    expect(good, &report)
}

fn files_leave_the_guest_whole(kernel: &Path) -> Result<(), Failed> {
    for append in [vec![], vec!["pci=off".to_owned()]] {
        let mut files = Vec::new();
        let options = Options { append, ..options() };
        let report = run_vm(kernel, &["nothing".to_owned()], &options, &mut |event| {
            if let Event::File { name, bytes } = event {
                files.push((name.to_owned(), bytes == vec![0xff; FILE_SIZE]));
            }
        })?;
        expect(files == [(FILE.to_owned(), true)], &report)?;
    }
    Ok(())
}

fn after_boot(report: &SessionReport) -> Duration {
    report.took.saturating_sub(report.booted_in)
}

fn a_thousand_cases_of_each_kind(kernel: &Path) -> Result<(), Failed> {
    let empty = run(kernel, &[], &options())?;
    for kind in ["nothing", "fork"] {
        let report = run(kernel, &[kind; 1000], &options())?;
        let each = after_boot(&report).saturating_sub(after_boot(&empty)) / 1000;
        eprintln!("{kind}: {each:?} a case");
        expect(ends(&report) == [End::Done; 1000], &report)?;
    }
    Ok(())
}

fn a_kernel_that_goes_down_costs_one_case(kernel: &Path) -> Result<(), Failed> {
    let report = run(kernel, &["nothing", "oops", "nothing", "panic", "nothing"], &options())?;
    for outcome in &report.outcomes {
        eprintln!("{outcome}");
    }
    let expected = [End::Done, End::Panic, End::Done, End::Broken, End::Done];
    let named = report.outcomes[1].detail.contains("Kernel panic")
        && report.outcomes[3].detail.contains("the test's own panic");
    expect(ends(&report) == expected && named && report.boots == 5, &report)
}

fn a_guest_that_falls_silent_costs_one_case(kernel: &Path) -> Result<(), Failed> {
    let report = run(kernel, &["silence", "nothing"], &impatient())?;
    // On a busy machine one may fall silent by itself.
    expect(ends(&report) == [End::Hang, End::Done] && report.boots >= 3, &report)
}

fn two_vms_share_a_plan(kernel: &Path) -> Result<(), Failed> {
    let mut cases = vec!["nothing"; 801];
    cases[400] = "oops";
    let report = run(kernel, &cases, &Options { machines: 2, ..options() })?;
    let mut expected = vec![End::Done; 801];
    expected[400] = End::Panic;
    // One of them once, the other one again for the case that brings it down, and for those behind it.
    let whole = ends(&report) == expected && report.hello.cases == 801 && report.boots == 4;
    let known = report.complaints.iter().all(|complaint| complaint.near == Some(400));
    expect(whole && known && report.lost.is_empty(), &report)
}
