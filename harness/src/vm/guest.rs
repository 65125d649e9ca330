//! The guest's side: this program as PID 1 of a VM.

use super::frame::{self, Hello, Message, PIECE};
use super::initramfs::PLAN;
use super::plan::Plan;
use super::prepare::{HugeShared, prepare};
use super::wire::Wire;
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sys::reboot::{RebootMode, reboot};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use std::any::Any;
use std::hint::black_box;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use uffd_results::{End, Environment, Facts, Outcome, Suite};
use uffd_suites::bump::{keeping, passing};
use uffd_suites::memory::PAGE;

/// Whether this process is PID 1 of a VM of ours. To be asked first of all in `main`.
pub fn is_guest() -> bool {
    std::process::id() == 1 && Path::new(PLAN).is_file()
}

/// Runs one case, by its place in the plan of this boot and its id.
///
/// When it returns, every child that it started is waited for: what is left of the case's processes
/// is reaped by PID 1 then.
pub type Run<'a> = Box<dyn FnMut(usize, &str) -> Outcome + 'a>;

/// Hands out the files that are to leave the guest, by name, as they are now.
pub type Files<'a> = Box<dyn FnMut() -> Result<Vec<(String, Vec<u8>)>, String> + 'a>;

/// Says whether what was asked has used the machine up: then the next one goes on.
pub type UsedUp = fn() -> bool;

/// Cases between which files are handed out: what a machine that goes down takes with it.
const BATCH: usize = 256;

/// What the guest's program adds: the questions' side.
pub struct Agent<'a> {
    /// Which questions this program asks.
    pub suite: Suite,
    /// Where the kernel is asked, read when /proc and /sys are there.
    pub environment: Environment,
    /// Runs the cases.
    pub run: Run<'a>,
    /// What leaves the guest beside outcomes; an error ends the boot.
    pub files: Files<'a>,
    /// Whether to end behind this case.
    pub is_used_up: UsedUp,
}

/// Does what the plan says and turns the machine off.
///
/// `agent` is called once, when /proc, /sys and /dev are there.
pub fn main<'a>(agent: impl FnOnce(&Plan) -> Agent<'a>) -> ! {
    if let Err(why) = live(agent) {
        // The console is all that is left.
        eprintln!("uffd-conform as PID 1: {why}");
    }
    let Err(error) = reboot(RebootMode::RB_POWER_OFF);
    // PID 1 must not return: the kernel would call that a panic.
    eprintln!("uffd-conform as PID 1: can't power off: {error}");
    loop {
        std::thread::park();
    }
}

fn live<'a>(agent: impl FnOnce(&Plan) -> Agent<'a>) -> Result<(), String> {
    for (kind, place) in
        [("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev"), ("tmpfs", "/tmp")]
    {
        mount(Some(kind), place, Some(kind), MsFlags::empty(), None::<&str>)
            .map_err(|error| format!("can't mount {kind} on {place}: {error}"))?;
    }
    let wire = keeping(Wire::open).map_err(|error| format!("there is no way out: {error}"))?;
    let mut sender = Sender { wire, sequence: 0 };
    let work = catch_unwind(AssertUnwindSafe(|| work(&mut sender, agent)));
    let text = match work {
        Ok(Ok(())) => return Ok(()),
        Ok(Err(why)) => why,
        Err(panic) => format!("it panicked: {}", panic_text(&*panic)),
    };
    sender.send(&Message::Fault { text })
}

fn work<'a, W: Write>(
    sender: &mut Sender<W>,
    agent: impl FnOnce(&Plan) -> Agent<'a>,
) -> Result<(), String> {
    // This process forks for each case: what stays in it must not be copied each time.
    let huge = HugeShared::begin();
    let plan = keeping(|| {
        let text =
            std::fs::read_to_string(PLAN).map_err(|error| format!("can't read {PLAN}: {error}"))?;
        Plan::parse(&text).map_err(|why| format!("{PLAN} is no plan: {why}"))
    })?;
    prepare(&plan);
    let (mut run, mut files, is_used_up) = keeping(|| greet(sender, &plan, agent))?;
    drop(huge);
    let mut served = Ok(());
    at_head_of_page(&mut || served = serve(sender, &plan, &mut *run, &mut *files, is_used_up));
    served
}

/// Calls `work` where a page of the stack begins: fork has each page copied that is written to between two cases,
/// and what is called there fits on one.
#[inline(never)]
fn at_head_of_page(work: &mut dyn FnMut()) {
    let step = [0_u8; 256];
    if black_box(&step).as_ptr().addr() % PAGE >= PAGE - 512 {
        work();
    } else {
        at_head_of_page(work);
    }
    // Each call keeps its step until the one below has ended.
    black_box(&step);
}

/// Says who answers, and hands out what does.
fn greet<'a, W: Write>(
    sender: &mut Sender<W>,
    plan: &Plan,
    agent: impl FnOnce(&Plan) -> Agent<'a>,
) -> Result<(Run<'a>, Files<'a>, UsedUp), String> {
    let Agent { suite, environment, run, mut files, is_used_up } = agent(plan);
    // What can't be had is said before anything is asked.
    drop(files()?);
    let name = nix::sys::utsname::uname().map_err(|error| format!("uname failed: {error}"))?;
    let text = |s: &std::ffi::OsStr| s.to_string_lossy().into_owned();
    let hello = Hello {
        release: text(name.release()),
        version: text(name.version()),
        machine: text(name.machine()),
        environment,
        suite,
        cases: plan.cases.len(),
    };
    sender.send(&Message::Hello(Box::new(hello)))?;
    Ok((run, files, is_used_up))
}

/// Runs the cases in order, as many as the machine has room for; each start is out before its case begins.
///
/// Not inlined: its frame is to lie on one page of the stack with those of what it calls.
#[inline(never)]
fn serve<W: Write>(
    sender: &mut Sender<W>,
    plan: &Plan,
    run: &mut dyn FnMut(usize, &str) -> Outcome,
    files: &mut dyn FnMut() -> Result<Vec<(String, Vec<u8>)>, String>,
    is_used_up: UsedUp,
) -> Result<(), String> {
    let mut cases = 0;
    for (index, id) in plan.cases.iter().enumerate() {
        if index % BATCH == 0 && index > 0 {
            hand_out(sender, files()?)?;
        }
        let mut sent = Ok(());
        let work = || {
            if let Err(why) = one(sender, index, id, run) {
                sent = Err(keeping(|| why.clone()));
            }
        };
        // SAFETY: neither the sender nor a wire takes memory that it keeps, a runner has its own, and the text
        // is kept.
        unsafe { passing(work) };
        sent?;
        reap_orphans();
        cases = index + 1;
        if is_used_up() {
            break;
        }
    }
    hand_out(sender, files()?)?;
    sender.send(&Message::End { cases })
}

/// Asks one case; its start is out before that.
fn one<W: Write>(
    sender: &mut Sender<W>,
    index: usize,
    id: &str,
    run: &mut dyn FnMut(usize, &str) -> Outcome,
) -> Result<(), String> {
    sender.send(&Message::Start { index })?;
    let outcome = run(index, id);
    sender.send(&Message::Case { index, outcome })
}

/// Sends files, in pieces.
fn hand_out<W: Write>(sender: &mut Sender<W>, files: Vec<(String, Vec<u8>)>) -> Result<(), String> {
    for (name, bytes) in files {
        let mut rest = &bytes[..];
        loop {
            let (piece, behind) = rest.split_at(rest.len().min(PIECE));
            let (bytes, more) = (piece.to_vec(), !behind.is_empty());
            sender.send(&Message::File { name: name.clone(), bytes, more })?;
            if !more {
                break;
            }
            rest = behind;
        }
    }
    Ok(())
}

/// Takes the ends of processes whose parents died first. Called between cases only, when the runner
/// waits for no child: within a case it would take the runner's statuses away.
fn reap_orphans() {
    loop {
        match waitpid(None::<Pid>, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) => return,
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => return,
        }
    }
}

/// The text of a panic.
fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("without a text")
}

/// Numbers and writes messages.
struct Sender<W> {
    wire: W,
    sequence: u64,
}

impl<W: Write> Sender<W> {
    fn send(&mut self, message: &Message) -> Result<(), String> {
        let frame = frame::encode(self.sequence, message).or_else(|| {
            // Only an outcome or a fault can be that long, and it must not cost the VM.
            let text = "what there was to say does not fit in a frame";
            let short = match message {
                Message::Case { index, .. } => Message::Case {
                    index: *index,
                    outcome: Outcome::ended(End::Broken, text, Facts::new()),
                },
                _ => Message::Fault { text: text.to_owned() },
            };
            frame::encode(self.sequence, &short)
        });
        self.sequence += 1;
        let frame = frame.unwrap_or_default();
        self.wire
            .write_all(&frame)
            .and_then(|()| self.wire.flush())
            .map_err(|error| format!("can't write frame {}: {error}", self.sequence - 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vm::frame::{Decoder, Item};

    /// A wire that takes all.
    #[derive(Default)]
    struct Taken(Vec<u8>);

    impl Write for Taken {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            keeping(|| self.0.write(bytes))
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn messages(bytes: &[u8]) -> Vec<Message> {
        let mut items = Vec::new();
        Decoder::default().feed(bytes, &mut items);
        let message = |item| match item {
            Item::Message(message) => message,
            other => panic!("{other:?}"),
        };
        items.into_iter().map(message).collect()
    }

    fn facts(text: &str) -> Outcome {
        Outcome::done(Facts::parse(text).expect("facts of this test"))
    }

    #[test]
    fn a_start_is_out_before_its_case_begins() {
        let plan = Plan { cases: vec!["a".into(), "b".into()], ..Plan::default() };
        let mut sender = Sender { wire: Taken::default(), sequence: 0 };
        let mut ran = Vec::new();
        let mut run = |index, id: &str| {
            keeping(|| ran.push((index, id.to_owned())));
            facts("copy=0")
        };
        serve(&mut sender, &plan, &mut run, &mut || Ok(Vec::new()), || false).expect("all taken");
        assert_eq!(ran, [(0, "a".to_owned()), (1, "b".to_owned())]);
        let expected = [
            Message::Start { index: 0 },
            Message::Case { index: 0, outcome: facts("copy=0") },
            Message::Start { index: 1 },
            Message::Case { index: 1, outcome: facts("copy=0") },
            Message::End { cases: 2 },
        ];
        assert_eq!(messages(&sender.wire.0), expected);
    }

    #[test]
    fn files_leave_whole_between_cases_and_at_the_end() {
        let plan = Plan { cases: vec!["a".into(); BATCH + 1], ..Plan::default() };
        let mut sender = Sender { wire: Taken::default(), sequence: 0 };
        let long = vec![0xff; PIECE + 1];
        let mut files =
            || Ok(vec![("empty".to_owned(), vec![]), ("long".to_owned(), long.clone())]);
        serve(&mut sender, &plan, &mut |_, _| facts("copy=0"), &mut files, || false)
            .expect("all taken");
        let messages = messages(&sender.wire.0);
        let file = |name: &str, len: usize, more| Message::File {
            name: name.into(),
            bytes: vec![0xff; len],
            more,
        };
        let handed_out =
            [file("empty", 0, false), file("long", PIECE, true), file("long", 1, false)];
        assert_eq!(messages[2 * BATCH..2 * BATCH + 3], handed_out);
        assert_eq!(messages[2 * BATCH + 5..][..3], handed_out);
        assert_eq!(messages.len(), 2 * BATCH + 9);
    }

    #[test]
    fn a_machine_that_is_used_up_ends_behind_a_case() {
        let plan = Plan { cases: vec!["a".into(), "b".into()], ..Plan::default() };
        let mut sender = Sender { wire: Taken::default(), sequence: 0 };
        let (mut run, mut files) = (|_: usize, _: &str| facts("copy=0"), || Ok(Vec::new()));
        serve(&mut sender, &plan, &mut run, &mut files, || true).expect("all taken");
        assert_eq!(messages(&sender.wire.0).last(), Some(&Message::End { cases: 1 }));
    }

    #[test]
    fn files_that_cannot_be_had_end_the_boot() {
        let mut sender = Sender { wire: Taken::default(), sequence: 0 };
        let mut files = || Err("no counters".to_owned());
        let why =
            serve(&mut sender, &Plan::default(), &mut |_, _| facts("copy=0"), &mut files, || false);
        assert_eq!((why, sender.wire.0.len()), (Err("no counters".to_owned()), 0));
    }

    #[test]
    fn what_is_too_long_costs_its_case() {
        let mut sender = Sender { wire: Taken::default(), sequence: 0 };
        let outcome = Outcome::ended(End::Killed, "x".repeat(100_000), Facts::new());
        sender.send(&Message::Case { index: 7, outcome }).expect("all taken");
        let messages = messages(&sender.wire.0);
        assert!(
            matches!(&messages[..], [Message::Case { index: 7, outcome }] if outcome.end == End::Broken),
            "{messages:?}"
        );
    }

    #[test]
    fn work_begins_where_a_page_does() {
        let mut at = 0;
        at_head_of_page(&mut || {
            let local = [0_u64; 1];
            at = black_box(&local).as_ptr().addr();
        });
        assert!(at % PAGE > PAGE / 2, "{at:#x}");
    }

    #[test]
    fn a_test_is_no_guest() {
        assert!(!is_guest());
    }
}
