//! Tests of the foundations run in a process each, as cases do: the arena is one per process.

use crate::outcome::Sink;
use crate::stage::Stage;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};
use std::cell::Cell;
use std::fs::File;
use std::io::{Read, Seek};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Facts in memory.
#[derive(Debug, Default)]
pub(crate) struct Facts(pub(crate) Vec<(&'static str, String)>);

impl Sink for Facts {
    fn fact(&mut self, name: &'static str, value: &str) {
        self.0.push((name, value.to_owned()));
    }

    fn step(&mut self, _name: &'static str) {}
}

impl Facts {
    /// The value of a fact; empty if it was not seen.
    pub(crate) fn get(&self, name: &str) -> &str {
        self.0.iter().find(|(n, _)| *n == name).map_or("", |(_, v)| v)
    }
}

/// Says in which call of [`isolated`] this program is to run the test itself.
const CALL: &str = "UFFD_TEST_ISOLATED_CALL";
/// What a program ends with whose test has passed: not the code of one that found no test of that name.
const PASSED: i32 = 66;
/// How long a test may take, on a machine that does something else, too.
const LIMIT: Duration = Duration::from_secs(240);

/// Runs `test` in a process of its own with a stage of its own; panics if it panics, dies or does not end.
///
/// The process is a new run of this program that is asked for this test alone: it has no other tests' threads,
/// which a fork could meet while they hold a lock of the runtime, that nobody would release in the child.
pub(crate) fn isolated(test: impl FnOnce(&Stage)) {
    thread_local!(static CALLS: Cell<u32> = const { Cell::new(0) });
    let call = CALLS.replace(CALLS.get() + 1).to_string();
    match std::env::var(CALL) {
        Err(_) => in_a_program_of_its_own(&call),
        Ok(wanted) if wanted == call => in_a_child(test),
        Ok(_) => {}
    }
}

fn in_a_program_of_its_own(call: &str) {
    let this = std::thread::current();
    let name = this.name().expect("a test's thread bears its name");
    let program = std::env::current_exe().expect("this program");
    let file = memfd_create("said", MFdFlags::MFD_CLOEXEC).expect("a file in memory");
    let mut said = File::from(file);
    let to = || said.try_clone().expect("a descriptor");
    let mut ran = Command::new(program)
        .args([name, "--exact", "--nocapture"])
        .env(CALL, call)
        .stdin(Stdio::null())
        .stdout(to())
        .stderr(to())
        .spawn()
        .expect("this program again");
    let start = Instant::now();
    let status = loop {
        if let Some(status) = ran.try_wait().expect("wait") {
            break Some(status);
        }
        if start.elapsed() > LIMIT {
            break None;
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    let stuck = if status.is_none() { threads() } else { String::new() };
    let _ = ran.kill();
    let _ = ran.wait();
    let mut text = String::new();
    let _ = said.rewind().and_then(|()| said.read_to_string(&mut text));
    let code = status.and_then(|status| status.code());
    assert!(code == Some(PASSED), "in a program of its own: {status:?}\n{text}{stuck}");
}

/// Where the threads of every run of this program are, for one that does not end.
fn threads() -> String {
    let ours = std::env::current_exe().ok();
    let mut text = String::new();
    for process in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        if std::fs::read_link(process.path().join("exe")).ok() != ours {
            continue;
        }
        for task in std::fs::read_dir(process.path().join("task")).into_iter().flatten().flatten() {
            let read = |file| std::fs::read_to_string(task.path().join(file)).unwrap_or_default();
            let (name, call, at) = (read("comm"), read("syscall"), read("wchan"));
            let words = [name.trim(), at.trim(), call.trim()].join(" ");
            text.extend([task.path().display().to_string(), ": ".into(), words, "\n".into()]);
        }
    }
    text
}

/// Ends this program with the end of `test`, which runs in a child with one thread.
fn in_a_child(test: impl FnOnce(&Stage)) -> ! {
    // The other thread, which waits for this one's test, must not hold a lock either.
    let main = format!("/proc/self/task/{}/stat", std::process::id());
    while std::fs::read_to_string(&main).is_ok_and(|stat| !stat.contains(") S ")) {
        std::thread::yield_now();
    }
    let parent = Pid::this();
    // SAFETY: the only other thread sleeps, and holds no lock that the child takes.
    let code = match unsafe { fork() }.expect("fork") {
        ForkResult::Parent { child } => match waitpid(child, None).expect("waitpid") {
            WaitStatus::Exited(_, PASSED) => PASSED,
            status => {
                let _ = nix::unistd::write(std::io::stderr(), format!("{status:?}\n").as_bytes());
                1
            }
        },
        ForkResult::Child => {
            crate::process::die_with(parent);
            std::panic::set_hook(Box::new(|info| {
                let _ = nix::unistd::write(std::io::stderr(), format!("{info}\n").as_bytes());
            }));
            let ran = catch_unwind(AssertUnwindSafe(|| {
                test(&Stage::prepare(Duration::from_secs(20)).expect("stage"));
            }));
            if ran.is_ok() { PASSED } else { 1 }
        }
    };
    // SAFETY: leaves at once, without the runner's destructors and exit handlers.
    unsafe { libc::_exit(code) }
}

mod tests {
    use super::*;

    #[rstest::rstest]
    #[case::passes(|| {}, "")]
    #[case::panics(|| panic!("on purpose"), "on purpose")]
    #[case::dies(|| std::process::abort(), "SIGABRT")]
    #[case::ends_without_a_word(|| std::process::exit(0), "Exited")]
    fn what_becomes_of_a_test_is_told(#[case] test: fn(), #[case] why: &str) {
        let told = catch_unwind(AssertUnwindSafe(|| isolated(|_| test())));
        match told {
            Ok(()) => assert!(why.is_empty()),
            Err(said) => {
                let said = said.downcast_ref::<String>().expect("a message");
                assert!(!why.is_empty() && said.contains(why), "{said}");
            }
        }
    }
}
