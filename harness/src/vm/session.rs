//! From a list of cases to one outcome each, with as many boots as that takes.
//!
//! A machine that is lost before a case began is our trouble: it is booted again and says nothing of
//! the kernel. A machine that goes down during a case is booted again with that case first: only a
//! case that brings down two machines, the second one fresh, has brought the kernel down.

use super::accel::{self, Choice};
use super::error::VmError;
use super::frame::Hello;
use super::machine::Launcher;
use super::plan::Plan;
use super::prepare;
use super::qemu::Qemu;
use super::share;
use super::watch::{Cause, Down, Watch};
use crate::arch::Arch;
use crate::interrupt;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};
use uffd_results::{End, Facts, Outcome};

/// What a VM is like. The default is what records are made with.
#[derive(Clone, Debug)]
pub struct Options {
    /// What the kernel is built for.
    pub arch: Arch,
    /// How the guest's code is run.
    pub accelerator: Choice,
    /// CPUs of the guest.
    pub cpus: u32,
    /// Its memory; below 1024 MiB the kernel turns transparent huge pages off.
    pub memory_mib: u64,
    /// Huge pages of 2 MiB that the kernel reserves at boot, where it clears them: 16 cost 0.03 s,
    /// 64 cost 0.2 s.
    pub huge_pages: u32,
    /// Whether the guest's clocks advance by executed instructions, one nanosecond each, and not by time.
    /// For emulation only.
    pub counts_instructions: bool,
    /// More words for the kernel's command line.
    pub append: Vec<String>,
    /// Settings for the guest, see [`Plan::settings`].
    pub settings: BTreeMap<String, String>,
    /// More files for the guest, by path.
    pub files: Vec<(String, Vec<u8>)>,
    /// The program that becomes PID 1; else the one that is running.
    pub program: Option<PathBuf>,
    /// QEMU, if not the one in PATH.
    pub qemu: Option<PathBuf>,
    /// What the image must have as its SHA-256 at every boot; if none is given, that of the first one.
    pub image_sha256: Option<String>,
    /// VMs that share the cases, side by side; fewer if there are few cases.
    pub machines: usize,
    /// When to give up.
    pub limits: Limits,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            arch: Arch::X86,
            accelerator: Choice::Auto,
            cpus: 1,
            memory_mib: 1024,
            huge_pages: 16,
            counts_instructions: false,
            append: Vec::new(),
            settings: BTreeMap::new(),
            files: Vec::new(),
            program: None,
            qemu: None,
            image_sha256: None,
            machines: 1,
            limits: Limits::default(),
        }
    }
}

impl Options {
    /// Has the guest load these modules, in this order, before its first case.
    pub fn give_modules(&mut self, modules: Vec<(String, Vec<u8>)>) {
        let names: Vec<&str> = modules.iter().map(|(name, _)| name.as_str()).collect();
        self.settings.insert(prepare::MODULES.to_owned(), names.join(","));
        let file = |(name, bytes): (String, _)| (prepare::module_path(&name), bytes);
        self.files.extend(modules.into_iter().map(file));
    }
}

/// When to give up.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// From the start of a machine to its first frame.
    pub boot: Duration,
    /// Between two frames: longer than the runner in the guest lets a case take.
    pub silence: Duration,
    /// How long a kernel that said that it panics may take to end.
    pub farewell: Duration,
    /// Machines in a row that bring no new outcome.
    pub barren_boots: u32,
    /// Machines in all.
    pub boots: u32,
    /// How often console and wire are looked at.
    pub poll: Duration,
}

impl Default for Limits {
    /// For a machine that does nothing else, times the load that there is: at a load of 8 a boot of
    /// one second takes 25.
    fn default() -> Self {
        let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let load = load.split(' ').next().and_then(|l| l.parse::<f64>().ok()).unwrap_or(0.0);
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        #[expect(clippy::cast_precision_loss, reason = "a number of CPUs")]
        let scale = (load / cpus as f64).clamp(1.0, 8.0);
        Self {
            boot: Duration::from_secs(60).mul_f64(scale),
            silence: Duration::from_secs(40).mul_f64(scale),
            farewell: Duration::from_secs(5),
            barren_boots: 4,
            boots: 100,
            poll: Duration::from_millis(2),
        }
    }
}

/// What happens while cases are run. Indices count within the whole plan.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A machine starts; the plan's cases from `from` on are still to be done.
    Boot {
        /// Which machine, from 1.
        number: u32,
        /// The first case that it will run.
        from: usize,
    },
    /// The guest is up.
    Up {
        /// What it says of itself.
        hello: &'a Hello,
        /// How long it took.
        after: Duration,
    },
    /// A case begins.
    Start {
        /// Which case.
        index: usize,
    },
    /// A case has its outcome.
    Outcome {
        /// Which case.
        index: usize,
        /// How it ended.
        outcome: &'a Outcome,
    },
    /// A file has left the guest; one that comes again from the same machine is newer.
    File {
        /// Its name, of the guest's choice: a relative path.
        name: &'a str,
        /// What is in it.
        bytes: &'a [u8],
    },
    /// The kernel complains on its console.
    Complaint(&'a Complaint),
    /// A machine was lost and says nothing of the kernel.
    Lost(&'a Lost),
}

/// A line in which the kernel says that something is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complaint {
    /// The case that ran when the line was read: it, or one shortly before it, was the cause.
    pub near: Option<usize>,
    /// The line.
    pub line: String,
}

/// A machine that was lost without the kernel being to blame, as far as one can tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// The case that ran, if one did.
    pub during: Option<usize>,
    /// What became of the machine.
    pub why: String,
}

/// What a session has shown.
#[derive(Clone, Debug)]
pub struct SessionReport {
    /// What the first guest that came up said of itself.
    pub hello: Hello,
    /// One outcome a case of the plan, in its order.
    pub outcomes: Vec<Outcome>,
    /// Machines that were started.
    pub boots: u32,
    /// Machines that were lost and say nothing of the kernel.
    pub lost: Vec<Lost>,
    /// What the kernel complained of first.
    pub complaints: Vec<Complaint>,
    /// How many complaints came after these.
    pub more_complaints: usize,
    /// Why cases were not run, if some were not.
    pub gave_up: Option<String>,
    /// From the start of the first good machine to its first frame.
    pub booted_in: Duration,
    /// The whole session.
    pub took: Duration,
    /// The end of the last console.
    pub console: String,
}

/// Boots `image` and has every case of `plan` run in it, or in as many VMs with it as the options say.
///
/// Fails only if nothing can be said: QEMU or the image is missing, no boot came up, guests were not of one kind, or
/// this process was told to stop. What keeps a later VM from being started costs the cases that are left: they are
/// not run. The machines are gone when this returns, and when the calling thread ends.
pub fn run_vm(
    image: &Path,
    plan: &[String],
    options: &Options,
    on_event: &mut (dyn FnMut(Event<'_>) + Send),
) -> Result<SessionReport, VmError> {
    let started = Instant::now();
    let _guard = interrupt::guard();
    let accelerator = accel::choose(image, options)?;
    let mut settings = options.settings.clone();
    settings.insert("accelerator".to_owned(), accelerator.word().to_owned());
    settings.insert("memory-mib".to_owned(), options.memory_mib.to_string());
    let machines = share::worth(options.machines, plan.len());
    let report = share::share(plan, machines, on_event, &|cases, stop, on_event| {
        let plan = Plan { settings: settings.clone(), cases: cases.to_vec() };
        let mut launcher = Qemu::new(image, accelerator, options)?;
        run(&mut launcher, image, &plan, options.limits, stop, on_event)
    })?;
    Ok(SessionReport { took: started.elapsed(), ..report })
}

/// The session with any kind of machine, until `stop` is set.
pub(super) fn run(
    launcher: &mut dyn Launcher,
    image: &Path,
    plan: &Plan,
    limits: Limits,
    stop: &AtomicBool,
    on_event: &mut dyn FnMut(Event<'_>),
) -> Result<SessionReport, VmError> {
    if let Some(fault) = plan.fault() {
        return Err(VmError::Plan(fault));
    }
    let started = Instant::now();
    let mut known = Known::default();
    let (mut boots, mut barren) = (0, 0);
    let mut suspect = None;
    let mut console = String::new();
    loop {
        interrupt::check()?;
        boots += 1;
        let from = known.outcomes.len();
        on_event(Event::Boot { number: boots, from });
        let rest = Plan { settings: plan.settings.clone(), cases: plan.cases[from..].to_vec() };
        let machine = match launcher.launch(&rest, barren) {
            Ok(machine) => machine,
            Err(error) if known.hello.is_none() => return Err(error),
            Err(error) => {
                boots -= 1;
                let why = format!("no further VM could be started: {}", error.brief());
                known.give_up(plan.cases.len(), why);
                break;
            }
        };
        let down = Watch::new(machine, limits, stop, rest.cases.len(), &mut known, on_event).run();
        let Down { cause, during, .. } = down;
        console = down.console;
        match cause {
            Cause::Complete => break,
            Cause::Interrupted(interrupted) => return Err(interrupted.into()),
            Cause::Stopped => return Err(VmError::Stopped),
            Cause::Unlike(what) => return Err(VmError::Unlike(what)),
            Cause::UsedUp => known.acquit(&mut suspect, on_event),
            _ => known.blame(&cause, during, &mut suspect, on_event),
        }
        // Cases that were lost with their machines are nothing new: whoever kills one may kill them all.
        let is_new = known.outcomes[from..].iter().any(|outcome| outcome.end != End::Broken);
        barren = if is_new { 0 } else { barren + 1 };
        let why = if known.hello.is_some() && plan.cases.len() == known.outcomes.len() {
            break;
        } else if barren >= limits.barren_boots {
            format!("{barren} VMs in a row were lost without a new outcome; the last one: {cause}")
        } else if boots >= limits.boots {
            format!("{boots} VMs were started, and the last one was lost, too: {cause}")
        } else {
            continue;
        };
        if known.hello.is_none() {
            let (image, why) = (image.to_owned(), cause.to_string());
            return Err(VmError::NoBoot { image, boots, why, console });
        }
        known.give_up(plan.cases.len(), why);
        break;
    }
    known.acquit(&mut suspect, on_event);
    let Known { hello, outcomes, lost, complaints, more_complaints, gave_up } = known;
    let Some((hello, booted_in)) = hello else {
        unreachable!("a session goes on until a guest has said hello, or returns why none did");
    };
    let took = started.elapsed();
    Ok(SessionReport {
        hello,
        outcomes,
        boots,
        lost,
        complaints,
        more_complaints,
        gave_up,
        booted_in,
        took,
        console,
    })
}

/// Complaints that are kept and told.
pub(super) const COMPLAINTS: usize = 100;

/// What is known so far.
#[derive(Default)]
pub(super) struct Known {
    pub(super) hello: Option<(Hello, Duration)>,
    /// Of the plan's first cases, without a gap.
    pub(super) outcomes: Vec<Outcome>,
    pub(super) lost: Vec<Lost>,
    complaints: Vec<Complaint>,
    more_complaints: usize,
    pub(super) gave_up: Option<String>,
}

impl Known {
    /// Takes the outcome of the next case.
    pub(super) fn outcome(&mut self, outcome: Outcome, on_event: &mut dyn FnMut(Event<'_>)) {
        on_event(Event::Outcome { index: self.outcomes.len(), outcome: &outcome });
        self.outcomes.push(outcome);
    }

    /// The cases that are left of so many are not run.
    fn give_up(&mut self, cases: usize, why: String) {
        let skipped = || Outcome::ended(End::NotRun, &why, Facts::new());
        self.outcomes.resize_with(cases, skipped);
        self.gave_up = Some(why);
    }

    /// Takes a complaint. A kernel may have one for ever: most are only counted.
    pub(super) fn complain(&mut self, complaint: Complaint, on_event: &mut dyn FnMut(Event<'_>)) {
        if self.complaints.len() == COMPLAINTS {
            self.more_complaints += 1;
            return;
        }
        on_event(Event::Complaint(&complaint));
        self.complaints.push(complaint);
    }

    /// Takes a machine that went down: a suspect case that did it again is guilty, any other is suspect.
    fn blame(
        &mut self,
        cause: &Cause,
        during: Option<usize>,
        suspect: &mut Option<Lost>,
        on_event: &mut dyn FnMut(Event<'_>),
    ) {
        if during.is_some() && suspect.as_ref().is_some_and(|s| s.during == during) {
            *suspect = None;
            self.outcome(cause.outcome(), on_event);
            return;
        }
        let lost = Lost { during, why: cause.to_string() };
        if during.is_some() {
            self.acquit(suspect, on_event);
            *suspect = Some(lost);
        } else {
            // Says nothing on a suspect that has not been run again yet.
            self.lose(lost, on_event);
        }
    }

    /// The suspect case, if any, did not bring down a second machine: the first one was just lost.
    fn acquit(&mut self, suspect: &mut Option<Lost>, on_event: &mut dyn FnMut(Event<'_>)) {
        if let Some(lost) = suspect.take() {
            self.lose(lost, on_event);
        }
    }

    fn lose(&mut self, lost: Lost, on_event: &mut dyn FnMut(Event<'_>)) {
        on_event(Event::Lost(&lost));
        self.lost.push(lost);
    }
}
