//! A worked example: how a postcopy destination decides, when it starts, how it will clean up.
//!
//! Guest memory is registered with a userfaultfd, vCPUs wait in pages that have not come yet, and then
//! a piece of a block is mapped anew: by a hot-unplug, a discard, a remap after a memory error. Later
//! the destination ends the registration of the block as it once was. A vCPU that still sleeps then
//! sleeps for ever, so which calls free it must be known before, not found out by a guest that hangs.
//!
//! ```text
//! cargo run -p uffd-results --example postcopy_destination             # for the running kernel
//! cargo run -p uffd-results --example postcopy_destination -- 6.8.0-45-generic
//! ```

use std::fmt;
use uffd_results::{Case, Certainty, Dataset, NONE, Release, id_matches};

/// What the fact of a thread says that still waits, or that was woken and waits again.
const WAITS: [&str; 2] = ["asleep", "again"];

/// What may be done at the end, from the least to the most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CleanUp {
    /// `UFFDIO_UNREGISTER` of the block. If it fails with EINVAL, as where a regular file is mapped into
    /// the block, nothing of it has ended: then of each mapping that is still registered.
    Unregister,
    /// Then also `UFFDIO_WAKE` of the range that was registered, whatever is mapped there now. In this
    /// order: a thread that is woken while its page is still registered only waits again.
    UnregisterAndWake,
    /// Then also close the userfaultfd, which no thread outlasts; other blocks lose it too.
    UnregisterWakeAndClose,
}

impl CleanUp {
    const ALL: [Self; 3] =
        [Self::Unregister, Self::UnregisterAndWake, Self::UnregisterWakeAndClose];

    /// The cases whose threads this call has to free, and the fact that says whether it did.
    const fn cases(self) -> (&'static str, &'static str) {
        match self {
            Self::Unregister => ("unregister/mmap-over[backing=anon,*waiter=user-read,*", "waiter"),
            Self::UnregisterAndWake => {
                ("wake/mmap-over[backing=anon,*waiter=user-read,*", "waiter")
            }
            Self::UnregisterWakeAndClose => {
                ("lifetime/last-close[backing=anon,how=close,waiter=user-read*", "after")
            }
        }
    }
}

/// What was decided, and what it rests on.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) clean_up: CleanUp,
    /// The weakest certainty of what decided; unknown for the plan that fits every recorded kernel.
    pub(crate) certainty: Certainty,
}

/// The least that frees every waiting thread on this kernel. Where nothing recorded speaks for the
/// kernel, guessing could cost a guest: then it is what freed them on every recorded kernel.
pub(crate) fn plan(data: &Dataset, release: &Release) -> Plan {
    for clean_up in CleanUp::ALL {
        match frees(data, release, clean_up) {
            (Some(true), certainty) => return Plan { clean_up, certainty },
            (Some(false), _) => {}
            (None, _) => return Plan { clean_up: everywhere(data), certainty: Certainty::Unknown },
        }
    }
    Plan { clean_up: CleanUp::UnregisterWakeAndClose, certainty: Certainty::Unknown }
}

/// Whether a call frees the threads of all its cases, if that is known, and how surely.
fn frees(data: &Dataset, release: &Release, clean_up: CleanUp) -> (Option<bool>, Certainty) {
    let (filter, fact) = clean_up.cases();
    let (mut free, mut certainty, mut any) = (true, Certainty::Exact, false);
    for case in chosen(data, filter) {
        let answer = data.resolve(release, |kernel| fate(case, kernel, fact));
        let Some(value) = answer.value else { return (None, Certainty::Unknown) };
        // The surest is the least.
        certainty = certainty.max(answer.certainty);
        free &= !WAITS.contains(&value);
        any = true;
    }
    (any.then_some(free), certainty)
}

/// The least that freed every thread on every recorded kernel.
fn everywhere(data: &Dataset) -> CleanUp {
    let freed = |clean_up: &CleanUp| {
        let (filter, fact) = clean_up.cases();
        let kernels = 0..data.kernels().len();
        let mut values = chosen(data, filter)
            .flat_map(|case| kernels.clone().filter_map(move |kernel| fate(case, kernel, fact)))
            .peekable();
        values.peek().is_some() && values.all(|value| !WAITS.contains(&value))
    };
    CleanUp::ALL.into_iter().find(freed).unwrap_or(CleanUp::UnregisterWakeAndClose)
}

/// What became of the thread; `None` if the kernel did not answer, or lacks what the case is about.
fn fate<'d>(case: Case<'d>, kernel: usize, fact: &str) -> Option<&'d str> {
    case.fact(kernel, fact).filter(|value| *value != NONE)
}

fn chosen<'d>(data: &'d Dataset, filter: &str) -> impl Iterator<Item = Case<'d>> {
    data.cases().filter(move |case| id_matches(filter, &case.id()))
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.clean_up {
            CleanUp::Unregister => "UNREGISTER frees every waiter",
            CleanUp::UnregisterAndWake => "UNREGISTER, then WAKE of the range as it was registered",
            CleanUp::UnregisterWakeAndClose => "UNREGISTER, WAKE, then close the userfaultfd",
        })?;
        match self.certainty {
            Certainty::Unknown => {
                f.write_str(" (kernel not known: what freed all on every recorded one)")
            }
            certainty => write!(f, " ({certainty})"),
        }
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let release = match std::env::args().nth(1) {
        Some(text) => Release::parse(&text)?,
        // uname -v names the point release of Debian's kernels, whose uname -r may not.
        None => Release::parse(&std::fs::read_to_string("/proc/sys/kernel/osrelease")?)?
            .with_version(&std::fs::read_to_string("/proc/sys/kernel/version")?)
            .on_machine(std::env::consts::ARCH),
    };
    println!("{release}: {}", plan(Dataset::recorded(), &release));
    Ok(())
}
