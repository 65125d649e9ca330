//! One case in one child process, under a deadline.

use super::huge;
use super::pins;
use super::slate::{Said, Slate};
use super::wait::{BURIAL, attend_children, wait};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};
use std::os::unix::process::ExitStatusExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;
use std::time::Duration;
use uffd_results::{End, Facts, Outcome};
use uffd_suites::outcome::{ASKED_AT_MOST, Seen, Stop};
use uffd_suites::probe::Case;
use uffd_suites::process;
use uffd_suites::stage::Stage;

/// How long after its deadline a case ends by itself, if its runner has not ended it.
const GRACE: Duration = Duration::from_secs(3);

/// Bounds on what should end. They are ways out, never evidence.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// For a whole case.
    pub deadline: Duration,
    /// How often each case is asked; more than once looks for disagreement.
    pub repeat: u32,
}

/// Runs cases from this process, which must have one thread.
#[derive(Debug)]
pub struct Runner {
    stage: Stage,
    slate: Slate,
    pool: huge::Pool,
    deadline: Duration,
    /// This process.
    pid: Pid,
    /// Whether pages are to be pinned, which is done before the first case.
    pins: Option<Once>,
}

impl Runner {
    /// Prepares this process: its signal handlers and mask, and what its children inherit.
    pub fn new(deadline: Duration) -> anyhow::Result<Self> {
        // A case that panics says so through its slate; standard error belongs to people.
        std::panic::set_hook(Box::new(|_| {}));
        super::pages::enlarge();
        attend_children()?;
        let stage = Stage::prepare(deadline * 2 / 3)?;
        stage.check_arena()?;
        if stage.disposable {
            super::pages::drop_signal_stack();
        }
        // SAFETY: the stage's mapping is never unmapped, and this is its only slate.
        let slate = unsafe { Slate::new(stage.notes) };
        Ok(Self { stage, slate, pool: huge::Pool::open(), deadline, pid: Pid::this(), pins: None })
    }

    /// Has fork copy at once what nearly every case writes to ([`pins`]). For a VM of ours: the pages are pinned for
    /// as long as this process lives.
    #[must_use]
    pub fn pinning(self) -> Self {
        Self { pins: Some(Once::new()), ..self }
    }

    /// The shared ground of the cases.
    pub const fn stage(&self) -> &Stage {
        &self.stage
    }

    /// Runs a case in a child process. Whatever happens to the child, there is an outcome.
    ///
    /// A case of huge pages must leave the pool as it was. Pages that are not back break the case;
    /// reservations that are not are the kernel's doing, and become the fact `leaked`.
    pub fn run(&self, case: &Case) -> Outcome {
        if !case.is_exclusive() {
            return self.run_child(case);
        }
        let before = self.pool.read();
        let mut outcome = self.run_child(case);
        let after = self.pool.read();
        if before.free != after.free {
            let detail = format!("huge pages are not back: {before:?} before, {after:?} after");
            return Outcome::ended(End::Broken, detail, outcome.facts);
        }
        if before.reserved != after.reserved && outcome.facts.get("leaked").is_none() {
            // A kernel may also give back more than was reserved, even below zero.
            let leaked = after.reserved.wrapping_sub(before.reserved).cast_signed();
            outcome.facts.set("leaked", leaked);
            if self.stage.disposable && leaked > 0 {
                huge::grow(leaked.unsigned_abs());
            }
        }
        outcome
    }

    fn run_child(&self, case: &Case) -> Outcome {
        undisturbed(|| self.run_once(case))
    }

    fn run_once(&self, case: &Case) -> Asked {
        if let Some(pins) = &self.pins {
            // From here, where the stack is as deep as when a case is forked. What can't be had costs time alone.
            let here = 0;
            pins.call_once(|| drop(pins::pin(&self.stage, &here)));
        }
        self.slate.clear();
        // What the C library's fork does for processes with threads lies on three pages, which each case would
        // copy. Its id of the first thread is the parent's then; it asks the kernel where that matters.
        match process::fork_with(0, || self.be_child(case)) {
            Ok(child) => self.attend(child),
            Err(e) => Outcome::ended(End::Broken, format!("fork: {e:?}"), Facts::new()).into(),
        }
    }

    fn be_child(&self, case: &Case) -> ! {
        // PID 1 takes the kernel with it.
        if !self.stage.disposable {
            process::die_with(self.pid);
        }
        // Should the runner not get to run in time: the kernel itself then ends the case.
        let mut alarm = SigSet::empty();
        alarm.add(Signal::SIGALRM);
        let _ = alarm.thread_unblock();
        nix::unistd::alarm::set(seconds(self.deadline + GRACE));
        self.stage.enter_case();
        let mut sink = &self.slate;
        let ran =
            catch_unwind(AssertUnwindSafe(|| case.run(&self.stage, &mut Seen::new(&mut sink))));
        let (end, detail) = match ran {
            Ok(Ok(())) => (End::Done, String::new()),
            Ok(Err(stop)) => stop.into_end(),
            Err(payload) => Stop::Broken(format!("panicked: {}", message(&*payload))).into_end(),
        };
        self.slate.end(end, &detail);
        // SAFETY: ends the process without the destructors and exit handlers of its parent.
        unsafe { libc::_exit(0) }
    }

    fn attend(&self, child: Pid) -> Asked {
        let status = match wait(child, self.deadline) {
            Ok(Some(status)) => status,
            Ok(None) => return self.kill(child).into(),
            Err(e) => {
                let facts = self.kill(child).facts;
                return Outcome::ended(End::Broken, format!("waiting: {e:?}"), facts).into();
            }
        };
        let said = self.slate.read();
        let disturbed = said.disturbed;
        let mut died_of = None;
        let outcome = match status.signal().map(Signal::try_from) {
            Some(Ok(Signal::SIGALRM)) => {
                died_of = Some(Signal::SIGALRM);
                self.too_late(said, "")
            }
            Some(signal) => {
                died_of = signal.ok();
                let name = died_of.map_or_else(|| status.to_string(), |s| s.to_string());
                said.outcome(|step| (End::Killed, format!("{name} in step {step:?}")))
            }
            None => {
                said.outcome(|step| (End::Broken, format!("{status} without an end, in {step}")))
            }
        };
        Asked { outcome, died_of, disturbed }
    }

    /// Ends a child that did not end by itself.
    fn kill(&self, child: Pid) -> Outcome {
        let said = self.slate.read();
        let _ = kill(child, Signal::SIGKILL);
        let buried = matches!(wait(child, BURIAL), Ok(Some(_)));
        self.too_late(said, if buried { "" } else { "; it can't be killed" })
    }

    fn too_late(&self, said: Said, tail: &str) -> Outcome {
        let limit = self.deadline.as_secs_f32();
        said.outcome(|step| (End::Hang, format!("in step {step:?}: no end within {limit} s{tail}")))
    }
}

/// A case that was asked once.
struct Asked {
    outcome: Outcome,
    /// The signal that ended it, if one did.
    died_of: Option<Signal>,
    /// Whether it says that somebody else has changed what it saw.
    disturbed: bool,
}

impl From<Outcome> for Asked {
    fn from(outcome: Outcome) -> Self {
        Self { outcome, died_of: None, disturbed: false }
    }
}

/// Asks until nobody else has a part in the outcome. SIGKILL comes from others, such as a system that runs out
/// of memory, and the alarm where this process did not get to run, or the clock has jumped: only a case that dies so
/// twice has to do with it. What disturbs a case every time is no accident.
fn undisturbed(mut ask: impl FnMut() -> Asked) -> Outcome {
    let mut killed = false;
    for _ in 1..ASKED_AT_MOST {
        let once = ask();
        let by_others = matches!(once.died_of, Some(Signal::SIGKILL | Signal::SIGALRM));
        if by_others && !killed {
            killed = true;
        } else if !once.disturbed {
            return once.outcome;
        }
    }
    ask().outcome
}

/// Runs `task` in a child process and returns the text that it made. A child that somebody has killed is no
/// answer: another one is asked.
pub fn in_child(task: impl Fn() -> Result<String, String>) -> anyhow::Result<String> {
    let mut ended = in_child_once(&task)?;
    for _ in 1..ASKED_AT_MOST {
        let (_, WaitStatus::Signaled(_, Signal::SIGKILL, _)) = ended else { break };
        ended = in_child_once(&task)?;
    }
    match (ended.1, ended.0.split_at_checked(1)) {
        (WaitStatus::Exited(_, 0), Some(("=", text))) => Ok(text.to_owned()),
        (WaitStatus::Exited(_, 0), Some(("!", why))) => anyhow::bail!("{why}"),
        (how, _) => anyhow::bail!("a child process of the harness gave no answer: {how:?}"),
    }
}

/// What a child has written, and how it ended.
fn in_child_once(
    task: &impl Fn() -> Result<String, String>,
) -> anyhow::Result<(String, WaitStatus)> {
    use std::io::{Read, Write};
    let (mut ours, mut theirs) = std::os::unix::net::UnixStream::pair()?;
    let parent = Pid::this();
    // SAFETY: this process has one thread, so the child may use everything.
    match unsafe { fork()? } {
        ForkResult::Child => {
            process::die_with(parent);
            let (kind, text) = task().map_or_else(|e| ('!', e), |text| ('=', text));
            let _ = write!(theirs, "{kind}{text}");
            // SAFETY: ends the process without the destructors and exit handlers of its parent.
            unsafe { libc::_exit(0) }
        }
        ForkResult::Parent { child } => {
            drop(theirs);
            let mut text = Vec::new();
            let read = ours.read_to_end(&mut text);
            let status = waitpid(child, None)?;
            read?;
            Ok((String::from_utf8_lossy(&text).into_owned(), status))
        }
    }
}

/// Whole seconds, for alarm(2).
fn seconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_secs()).unwrap_or(u32::MAX)
}

fn message(payload: &(dyn std::any::Any + Send)) -> &str {
    payload
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| payload.downcast_ref::<&str>().copied())
        .unwrap_or("without a message")
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    const KILLED: (&str, Option<Signal>, bool) = ("killed", Some(Signal::SIGKILL), false);
    const DISTURBED: (&str, Option<Signal>, bool) = ("disturbed", None, true);
    const SEEN: (&str, Option<Signal>, bool) = ("seen", None, false);
    const ALARM: (&str, Option<Signal>, bool) = ("alarm", Some(Signal::SIGALRM), false);
    const SEGV: (&str, Option<Signal>, bool) = ("segv", Some(Signal::SIGSEGV), false);

    /// What is asked again, how often, and which outcome stands; each asked for as long as there are answers.
    #[rstest]
    #[case::at_once(&[SEEN], "seen")]
    #[case::killed_by_somebody(&[KILLED, SEEN], "seen")]
    #[case::dies_of_it_twice(&[KILLED, KILLED], "killed")]
    #[case::ended_by_the_alarm(&[ALARM, SEEN], "seen")]
    #[case::ends_by_the_alarm_twice(&[ALARM, ALARM], "alarm")]
    #[case::dies_of_its_own(&[SEGV], "segv")]
    #[case::disturbed(&[DISTURBED, DISTURBED, SEEN], "seen")]
    #[case::disturbed_and_killed(&[DISTURBED, KILLED, SEEN], "seen")]
    #[case::always_disturbed(&[DISTURBED; ASKED_AT_MOST as usize], "disturbed")]
    fn who_is_disturbed_is_asked_again(
        #[case] answers: &[(&str, Option<Signal>, bool)],
        #[case] stands: &str,
    ) {
        let mut left = answers.iter();
        let outcome = undisturbed(|| {
            let (word, died_of, disturbed) = *left.next().expect("asked too often");
            let outcome = Outcome::ended(End::Done, word.to_owned(), Facts::new());
            Asked { outcome, died_of, disturbed }
        });
        assert_eq!((outcome.detail.as_str(), left.len()), (stands, 0));
    }
}
