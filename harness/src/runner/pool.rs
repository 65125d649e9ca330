//! Worker processes, each with one thread, that run cases side by side on this kernel.
//!
//! Workers are forked from the harness before it has threads of its own. Cases that share the pool
//! of huge pages all go to the first worker, so they run one at a time.

use super::child::{Limits, Runner};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::{ForkResult, Pid, fork};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use uffd_results::{End, Facts, Outcome};
use uffd_suites::bump::passing;
use uffd_suites::probe::Case;
use uffd_suites::process::die_with;

/// Cases that a worker has at hand, so that it never waits for the next one.
const AHEAD: usize = 2;

/// How often workers are looked after whose ends the kernel does not tell (before 5.3), in milliseconds.
const LOOK: u16 = 500;

/// Why the pool could not be used.
#[derive(Debug, thiserror::Error)]
pub enum PoolError {
    /// A system call of ours failed.
    #[error("running worker processes: {0}")]
    System(#[from] std::io::Error),
    /// A worker could not prepare itself.
    #[error("a worker could not prepare itself: {0}")]
    Worker(String),
}

impl From<nix::Error> for PoolError {
    fn from(e: nix::Error) -> Self {
        Self::System(e.into())
    }
}

/// The workers.
#[derive(Debug)]
pub struct Pool {
    workers: usize,
    limits: Limits,
}

struct Worker {
    pid: Pid,
    /// By which its end is told: that of its stream does not come while any process of its cases lives.
    pidfd: Option<OwnedFd>,
    stream: UnixStream,
    buffer: Vec<u8>,
    at_hand: VecDeque<usize>,
}

impl Pool {
    /// A pool of `workers` processes, at least one.
    pub fn new(workers: usize, limits: Limits) -> Self {
        Self { workers: workers.max(1), limits }
    }

    /// Runs the cases; `done` is called once a case, in the order of `cases`.
    pub fn run(
        &self,
        cases: &[Case],
        done: &mut dyn FnMut(usize, Outcome),
    ) -> Result<(), PoolError> {
        let (exclusive, shared): (VecDeque<usize>, VecDeque<usize>) =
            (0..cases.len()).partition(|i| cases[*i].is_exclusive());
        let mut queues = Queues { exclusive, shared };
        let mut workers = Vec::new();
        for _ in 0..self.workers.min(cases.len().max(1)) {
            workers.push(Worker::start(cases, self.limits)?);
        }
        let (mut results, mut suspects) = (BTreeMap::new(), BTreeSet::new());
        let mut next = 0;
        while next < cases.len() {
            for (n, worker) in workers.iter_mut().enumerate() {
                worker.feed(&mut queues, n == 0);
            }
            for n in ready(&workers)? {
                if !workers[n].answers(&mut results)? {
                    if let Some((case, why)) = workers[n].bury(&mut queues, cases)? {
                        // It may have been killed by somebody: only the second one speaks against the case.
                        if suspects.insert(case) {
                            queues.of(case, cases).push_front(case);
                        } else {
                            results.insert(case, Outcome::ended(End::Broken, why, Facts::new()));
                        }
                    }
                    workers[n] = Worker::start(cases, self.limits)?;
                }
            }
            while let Some(outcome) = results.remove(&next) {
                done(next, outcome);
                next += 1;
            }
        }
        for worker in workers {
            // The worker ends at the end of its input.
            worker.stream.shutdown(std::net::Shutdown::Write)?;
            let _ = waitpid(worker.pid, None);
        }
        Ok(())
    }
}

struct Queues {
    exclusive: VecDeque<usize>,
    shared: VecDeque<usize>,
}

impl Queues {
    /// The queue that a case belongs to.
    fn of(&mut self, case: usize, cases: &[Case]) -> &mut VecDeque<usize> {
        if cases[case].is_exclusive() { &mut self.exclusive } else { &mut self.shared }
    }
}

/// Waits for workers that have answered or ended.
fn ready(workers: &[Worker]) -> Result<Vec<usize>, PoolError> {
    let told = |worker: &Worker| worker.pidfd.is_some();
    let timeout = if workers.iter().all(told) { PollTimeout::NONE } else { LOOK.into() };
    let mut fds = Vec::new();
    for (n, worker) in workers.iter().enumerate() {
        let ends = worker.pidfd.iter().map(AsFd::as_fd);
        let each = std::iter::once(worker.stream.as_fd()).chain(ends);
        fds.extend(each.map(|fd| (n, PollFd::new(fd, PollFlags::POLLIN))));
    }
    let (owners, mut fds): (Vec<usize>, Vec<PollFd<'_>>) = fds.into_iter().unzip();
    match poll(&mut fds, timeout) {
        // Those whose ends are not told are looked after.
        Ok(0) => return Ok((0..workers.len()).collect()),
        Ok(_) | Err(Errno::EINTR) => {}
        Err(e) => return Err(e.into()),
    }
    let is_ready = |fd: &PollFd<'_>| fd.any().unwrap_or(false);
    let ready = owners.iter().zip(&fds).filter(|(_, fd)| is_ready(fd)).map(|(n, _)| *n);
    Ok(ready.collect::<BTreeSet<_>>().into_iter().collect())
}

/// A descriptor of a child.
fn pidfd_of(child: Pid) -> Option<OwnedFd> {
    // SAFETY: pidfd_open takes plain numbers and returns a new descriptor.
    let ret = unsafe { libc::syscall(libc::SYS_pidfd_open, child.as_raw(), 0) };
    let fd = i32::try_from(ret).ok().filter(|fd| *fd >= 0)?;
    // SAFETY: the kernel has just handed out this descriptor; nobody else owns it.
    Some(unsafe { OwnedFd::from_raw_fd(fd) })
}

impl Worker {
    fn start(cases: &[Case], limits: Limits) -> Result<Self, PoolError> {
        let (ours, theirs) = UnixStream::pair()?;
        // Reads take what has come; what is written always fits.
        ours.set_nonblocking(true)?;
        let parent = Pid::this();
        // SAFETY: the harness has one thread while a pool runs, so the child may use everything.
        match unsafe { fork()? } {
            ForkResult::Parent { child } => Ok(Self::of(child, ours)),
            ForkResult::Child => {
                die_with(parent);
                drop(ours);
                let code = serve(theirs, cases, limits);
                // SAFETY: ends the process without the harness's destructors and exit handlers.
                unsafe { libc::_exit(code) }
            }
        }
    }

    fn of(child: Pid, stream: UnixStream) -> Self {
        let (buffer, at_hand) = (Vec::new(), VecDeque::new());
        Self { pid: child, pidfd: pidfd_of(child), stream, buffer, at_hand }
    }

    /// Keeps the worker supplied; the first one prefers the cases that only it may run.
    fn feed(&mut self, queues: &mut Queues, first: bool) {
        while self.at_hand.len() < AHEAD {
            let own = if first { queues.exclusive.pop_front() } else { None };
            let Some(case) = own.or_else(|| queues.shared.pop_front()) else { break };
            if writeln!(self.stream, "{case}").is_err() {
                // A dead worker is noticed where its answers are read; the case is asked again.
                let queue = if own.is_some() { &mut queues.exclusive } else { &mut queues.shared };
                queue.push_front(case);
                break;
            }
            self.at_hand.push_back(case);
        }
    }

    /// Whether it has ended; it is still to be reaped.
    fn has_ended(&self) -> Result<bool, PoolError> {
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        match waitid(Id::Pid(self.pid), flags) {
            Ok(status) => Ok(status != WaitStatus::StillAlive),
            // Who was started with the signal of a child's end ignored has no child then.
            Err(Errno::ECHILD) => Ok(true),
            Err(e) => Err(e.into()),
        }
    }

    /// Takes all that the worker has answered; false if it is gone.
    fn answers(&mut self, results: &mut BTreeMap<usize, Outcome>) -> Result<bool, PoolError> {
        // Before its answers are read: what one that has ended has written is there then.
        let has_ended = self.has_ended()?;
        loop {
            match self.receive(results) {
                Ok(true) => {}
                Ok(false) => return Ok(false),
                Err(PoolError::System(e)) if e.kind() == ErrorKind::WouldBlock => {
                    return Ok(!has_ended);
                }
                Err(e) => return Err(e),
            }
        }
    }

    /// Takes some of what the worker has answered; false at the end.
    fn receive(&mut self, results: &mut BTreeMap<usize, Outcome>) -> Result<bool, PoolError> {
        let mut chunk = [0; 8 * 1024];
        let n = match self.stream.read(&mut chunk) {
            // It died with cases at hand that it had not read.
            Err(e) if e.kind() == ErrorKind::ConnectionReset => 0,
            read => read?,
        };
        self.buffer.extend_from_slice(&chunk[..n]);
        while let Some(end) = self.buffer.iter().position(|b| *b == b'\n') {
            let line: Vec<u8> = self.buffer.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line);
            if let Some(why) = line.strip_prefix('!') {
                return Err(PoolError::Worker(why.trim().to_owned()));
            }
            let Some(case) = self.at_hand.pop_front() else { continue };
            let outcome = serde_json::from_str(&line).unwrap_or_else(|e| {
                Outcome::ended(End::Broken, format!("the worker's answer: {e}"), Facts::new())
            });
            results.insert(case, outcome);
        }
        Ok(n > 0)
    }

    /// Reaps a worker that has died: the case that it was in, and how it died. What else it had at hand is
    /// asked again.
    fn bury(
        &mut self,
        queues: &mut Queues,
        cases: &[Case],
    ) -> Result<Option<(usize, String)>, PoolError> {
        let _ = kill(self.pid, Signal::SIGKILL);
        let status = waitpid(self.pid, None)?;
        let lost = self.at_hand.pop_front();
        for case in self.at_hand.drain(..).rev() {
            queues.of(case, cases).push_front(case);
        }
        Ok(lost.map(|case| (case, format!("the worker process died twice: {status:?}"))))
    }
}

/// The worker's side: reads case numbers, writes outcomes, until its input ends.
fn serve(stream: UnixStream, cases: &[Case], limits: Limits) -> i32 {
    let Ok(mut output) = stream.try_clone() else { return 1 };
    let runner = match Runner::new(limits.deadline) {
        Ok(runner) => runner,
        Err(e) => {
            let _ = writeln!(output, "!{e}");
            return 1;
        }
    };
    let (mut input, mut line) = (BufReader::new(stream), String::with_capacity(32));
    while matches!(input.read_line(&mut line), Ok(1..)) {
        let Some(case) = line.trim().parse().ok().and_then(|n: usize| cases.get(n)) else {
            return 1;
        };
        line.clear();
        let mut written = false;
        let work = || {
            let outcome = runner.run_repeated(case, limits.repeat);
            let answer = serde_json::to_string(&outcome).unwrap_or_default();
            written = writeln!(output, "{answer}").is_ok();
        };
        // SAFETY: what is left of a case is whether it was written.
        unsafe { passing(work) };
        if !written {
            return 1;
        }
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use uffd_suites::process::fork_with;

    /// Its end of the stream is held by another, as by a process of a case that has outlived it: it is noticed all
    /// the same, and what it had answered before is taken.
    #[rstest]
    fn a_worker_that_has_ended_is_noticed(#[values(true, false)] told: bool) {
        let (ours, theirs) = UnixStream::pair().expect("a stream");
        ours.set_nonblocking(true).expect("set");
        let seen = Outcome::done(Facts::parse("copy=0").expect("facts"));
        let answer = serde_json::to_string(&seen).expect("text") + "\n";
        let ends = || i32::from(nix::unistd::write(&theirs, answer.as_bytes()).is_err());
        let mut worker = Worker::of(fork_with(0, ends).expect("a child"), ours);
        if !told {
            worker.pidfd = None;
        }
        worker.at_hand.extend([7, 8]);
        let mut results = BTreeMap::new();
        let mut workers = [worker];
        loop {
            assert_eq!(ready(&workers).expect("polled"), [0]);
            if !workers[0].answers(&mut results).expect("read") {
                break;
            }
        }
        assert_eq!(results, BTreeMap::from([(7, seen)]));
        assert_eq!(workers[0].at_hand, [8]);
        let _ = waitpid(workers[0].pid, None);
        drop(theirs);
    }
}
