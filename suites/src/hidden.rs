//! Probes that test the runner, not the kernel: one hangs, one dies, one takes the kernel down.
//! They are in no list and no record, and run only when named in full.

use crate::expect::Expected;
use crate::outcome::{Seen, Stop};
use crate::point::Backing;
use crate::probe::{Case, Probe, Routine};
use crate::stage::Stage;
use uffd_results::KernelVersion;

static HANGS: Probe = Probe {
    suite: "hidden",
    name: "hangs",
    statement: "A case that never ends costs that case alone.",
    consumers: &[],
};
static DIES: Probe = Probe {
    suite: "hidden",
    name: "dies",
    statement: "A case that dies of SIGSEGV costs that case alone.",
    consumers: &[],
};
static PANICS: Probe = Probe {
    suite: "hidden",
    name: "panics",
    statement: "A case that takes the kernel down costs that case alone.",
    consumers: &[],
};

/// The hidden cases.
pub(crate) fn cases() -> Vec<Case> {
    let own: [(&'static Probe, Routine); 3] = [
        (&HANGS, Routine { run: hang, expect: nothing, recipe: &["wait for ever"] }),
        (&DIES, Routine { run: die, expect: nothing, recipe: &["load from address 0"] }),
        (&PANICS, Routine { run: panic, expect: nothing, recipe: &["/proc/sysrq-trigger: c"] }),
    ];
    own.map(|(probe, routine)| Case::own(probe, routine, Backing::Anon)).into()
}

fn nothing(_: Backing, _: KernelVersion) -> Vec<Expected> {
    Vec::new()
}

fn hang(_: &Stage, _: Backing, seen: &mut Seen<'_>) -> Result<(), Stop> {
    seen.fact("before", "seen");
    seen.step("wait for ever");
    loop {
        nix::unistd::pause();
    }
}

fn die(_: &Stage, _: Backing, seen: &mut Seen<'_>) -> Result<(), Stop> {
    seen.fact("before", "seen");
    seen.step("die");
    crate::touch::die();
    Err(Stop::Broken("survived a load from address 0".into()))
}

/// Only PID 1 of a VM that is ours, and its children, may do this.
fn panic(stage: &Stage, _: Backing, seen: &mut Seen<'_>) -> Result<(), Stop> {
    seen.step("crash the kernel");
    if !stage.disposable {
        return Err(Stop::Precondition("takes the kernel down: only asked in a VM".into()));
    }
    std::fs::write("/proc/sysrq-trigger", "c")
        .map_err(|e| Stop::Broken(format!("/proc/sysrq-trigger: {e}")))
}
