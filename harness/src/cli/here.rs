//! Asking the running kernel: who it is, and what the cases saw.

use super::{choose, report};
use crate::environment::{Uname, check_pages, environment};
use crate::runner::{Limits, Pool, Runner};
use anyhow::{Context, Result, bail};
use uffd_results::{Cases, Environment, Kernel, Outcome, Record, SCHEMA};
use uffd_suites::outcome::Stop;
use uffd_suites::probe::Case;

/// Descriptors that cases may take, with room to spare.
const DESCRIPTORS: u64 = 256;

/// The running kernel, which may be asked.
pub(crate) struct Here {
    pub(crate) kernel: Kernel,
    pub(crate) environment: Environment,
}

impl Here {
    /// Finds out who it is; an error if this user may not make a userfaultfd at all.
    pub(crate) fn find() -> Result<Self> {
        check_pages().map_err(anyhow::Error::msg)?;
        check_proc()?;
        check_descriptors()?;
        if let Err(stop) = uffd_suites::stage::find_way() {
            return Err(explain(stop));
        }
        let uname = Uname::read().context("reading the kernel's name (uname)")?;
        let kernel = uname.kernel().context("reading the running kernel's version")?;
        Ok(Self { kernel, environment: in_child_environment()? })
    }

    /// Asks; `done` hears of each case in their order. `jobs` run side by side, by default one a CPU.
    pub(crate) fn ask(
        self,
        cases: &[Case],
        limits: Limits,
        jobs: Option<u16>,
        done: &mut dyn FnMut(&Case, &Outcome),
    ) -> Result<Record> {
        let cpus = choose::cpus();
        let mut seen: Vec<(String, Outcome)> = Vec::with_capacity(cases.len());
        Pool::new(jobs.map_or(cpus, usize::from), limits).run(cases, &mut |index, outcome| {
            done(&cases[index], &outcome);
            seen.push((cases[index].id(), outcome));
        })?;
        let Self { kernel, environment } = self;
        let (suite, cases) = (report::suite(), Cases::new(seen));
        Ok(Record { schema: SCHEMA, kernel, environment, suite, by: None, cases })
    }
}

/// Evidence is read from /proc, by the ids of this namespace.
fn check_proc() -> Result<()> {
    let own = std::fs::read_link("/proc/self").ok();
    if own.is_none_or(|own| own.as_os_str() != std::process::id().to_string().as_str()) {
        bail!(
            "/proc is not that of this pid namespace, so what it says of threads is not of ours: mount it (mount -t \
             proc proc /proc), or start in a namespace that has its own (unshare --mount-proc)"
        );
    }
    Ok(())
}

/// Takes as many descriptors as are allowed. With too few, what a case can't open would look like an answer.
fn check_descriptors() -> Result<()> {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (soft, hard) =
        getrlimit(Resource::RLIMIT_NOFILE).context("asking for the limit of open files")?;
    if hard < DESCRIPTORS {
        bail!(
            "{hard} open files are allowed, and cases need {DESCRIPTORS}: raise the limit (ulimit -Hn)"
        );
    }
    if soft < DESCRIPTORS {
        setrlimit(Resource::RLIMIT_NOFILE, DESCRIPTORS, hard)
            .context("raising the limit of open files")?;
    }
    Ok(())
}

/// Reads the environment in a child, since preparing for cases changes a process.
fn in_child_environment() -> Result<Environment> {
    let text = crate::runner::in_child(|| {
        let runner = Runner::new(std::time::Duration::from_secs(30)).map_err(|e| e.to_string())?;
        serde_json::to_string(&environment(Some(runner.stage()), "native", None))
            .map_err(|e| e.to_string())
    })?;
    serde_json::from_str(&text).context("reading the environment of the cases")
}

/// Why there is nobody to be asked: neither this user's fault nor the kernel's.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Nobody {
    /// This user may not make a userfaultfd.
    #[error("no permission to ask this kernel: {0}")]
    Denied(String),
    /// This kernel has none.
    #[error("this kernel can't be asked: {0}")]
    Unsupported(String),
}

fn explain(stop: Stop) -> anyhow::Error {
    match stop {
        Stop::Denied(why) => Nobody::Denied(why).into(),
        Stop::Unsupported(why) => Nobody::Unsupported(why).into(),
        other => anyhow::anyhow!("{other}"),
    }
}
