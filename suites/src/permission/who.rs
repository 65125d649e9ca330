//! Who asks, and what of the machine decides: credentials, the sysctl, the device's mode.

use crate::abi::{Uffd, Way};
use crate::outcome::Stop;
use crate::process;
use crate::stage::Stage;
use caps::{CapSet, Capability, CapsHashSet};
use nix::errno::Errno;
use nix::unistd::{Gid, Uid};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// A user id that owns nothing.
const NOBODY: u32 = 65534;

/// The sysctl.
pub(super) const SYSCTL: &str = "/proc/sys/vm/unprivileged_userfaultfd";
/// The device.
pub(super) const DEVICE: &str = "/dev/userfaultfd";

/// Whose credentials a process has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Who {
    /// Root with every capability.
    Root,
    /// Another user with CAP_SYS_PTRACE and no other capability.
    Ptrace,
    /// Root without capabilities.
    NoCaps,
    /// Another user, without capabilities.
    Nobody,
    /// Root with every capability in a user namespace of its own.
    Userns,
}

impl Who {
    pub(super) const ALL: &'static [Self] =
        &[Self::Root, Self::Ptrace, Self::NoCaps, Self::Nobody, Self::Userns];

    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::Ptrace => "cap-sys-ptrace",
            Self::NoCaps => "root-no-caps",
            Self::Nobody => "other-user",
            Self::Userns => "userns-root",
        }
    }

    /// Whether it has CAP_SYS_PTRACE where the kernel asks for it.
    pub(super) const fn may_trace(self) -> bool {
        matches!(self, Self::Root | Self::Ptrace)
    }

    /// Takes these credentials on, in a process of one thread that had them all.
    pub(super) fn enter(self) -> Result<(), Stop> {
        let fail = |what: &str, e: Errno| Stop::Broken(format!("{what}: {e:?}"));
        // It lives: this process dies with it until the credentials change.
        let parent = nix::unistd::Pid::parent();
        match self {
            Self::Root => {}
            Self::NoCaps => limit(&CapsHashSet::new())?,
            Self::Nobody => leave_root().map_err(|e| fail("setresuid", e))?,
            Self::Ptrace => {
                nix::sys::prctl::set_keepcaps(true).map_err(|e| fail("PR_SET_KEEPCAPS", e))?;
                leave_root().map_err(|e| fail("setresuid", e))?;
                limit(&CapsHashSet::from([Capability::CAP_SYS_PTRACE]))?;
            }
            Self::Userns => nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWUSER)
                .map_err(|e| Stop::Precondition(format!("no user namespace here: {e:?}")))?,
        }
        process::die_with(parent);
        process::stay_visible();
        Ok(())
    }
}

fn leave_root() -> Result<(), Errno> {
    let (user, group) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
    nix::unistd::setgroups(&[])?;
    nix::unistd::setresgid(group, group, group)?;
    nix::unistd::setresuid(user, user, user)
}

fn limit(to: &CapsHashSet) -> Result<(), Stop> {
    let none = CapsHashSet::new();
    for (set, to) in
        [(CapSet::Effective, to), (CapSet::Inheritable, &none), (CapSet::Permitted, to)]
    {
        caps::set(None, set, to)
            .map_err(|e| Stop::Broken(format!("changing capabilities: {e}")))?;
    }
    Ok(())
}

/// Only one with every privilege can give some of them up.
pub(super) fn must_be_root() -> Result<(), Stop> {
    let able = [Capability::CAP_SYS_PTRACE, Capability::CAP_SETUID, Capability::CAP_SETGID]
        .iter()
        .all(|cap| caps::has_cap(None, CapSet::Effective, *cap).unwrap_or(false));
    // Root of a user namespace of its own has them all, and none that the kernel asks for here.
    let is_initial = std::fs::read_to_string("/proc/self/uid_map")
        .map_or(true, |map| map.split_whitespace().eq(["0", "0", "4294967295"]));
    if !(able && is_initial && Uid::effective().is_root()) {
        return Err(Stop::Denied(
            "compares privileges: must begin as the machine's root, with all of them".into(),
        ));
    }
    // The kernel refuses such a one nothing.
    match Uffd::open(Way::Syscall) {
        Err(Errno::EPERM) => Err(Stop::Denied(
            "compares privileges: userfaultfd(2) is refused even to root (a seccomp filter)".into(),
        )),
        _ => Ok(()),
    }
}

/// Stops a case that needs [`DEVICE`] where the kernel has it and this /dev does not, as in a container: that is
/// no answer of the kernel's.
pub(crate) fn must_show_device() -> Result<(), Stop> {
    let misc = std::fs::read_to_string("/proc/misc").unwrap_or_default();
    let has_it = misc.lines().any(|line| line.split_whitespace().nth(1) == Some("userfaultfd"));
    if has_it && !Path::new(DEVICE).exists() {
        return Err(Stop::Precondition(format!(
            "{DEVICE} is not in this /dev, though the kernel has it"
        )));
    }
    Ok(())
}

/// A setting of the machine that is put back when the case is over.
#[derive(Debug)]
pub(super) enum Setting {
    /// It was as wanted.
    Kept,
    /// The sysctl's former value.
    Sysctl(String),
    /// The device's former mode.
    Mode(u32),
}

impl Setting {
    /// Sets the sysctl, where that harms nobody.
    pub(super) fn sysctl(stage: &Stage, wanted: &str) -> Result<Self, Stop> {
        let now = std::fs::read_to_string(SYSCTL)
            .map_err(|e| Stop::Unsupported(format!("{SYSCTL} (5.2 brought it): {e}")))?;
        if now.trim() == wanted {
            return Ok(Self::Kept);
        }
        must_be_disposable(stage, &format!("vm.unprivileged_userfaultfd={wanted}"))?;
        std::fs::write(SYSCTL, wanted).map_err(|e| Stop::Broken(format!("{SYSCTL}: {e}")))?;
        Ok(Self::Sysctl(now))
    }

    /// Sets the device's mode, where that harms nobody. No device, no setting.
    pub(super) fn mode(stage: &Stage, wanted: u32) -> Result<Self, Stop> {
        must_show_device()?;
        if !Path::new(DEVICE).exists() {
            return Ok(Self::Kept);
        }
        let fail = |e| Stop::Broken(format!("{DEVICE}: {e}"));
        let now = std::fs::metadata(DEVICE).map_err(fail)?.permissions().mode() & 0o777;
        if now == wanted {
            return Ok(Self::Kept);
        }
        must_be_disposable(stage, &format!("{DEVICE} with mode {wanted:03o}"))?;
        std::fs::set_permissions(DEVICE, std::fs::Permissions::from_mode(wanted)).map_err(fail)?;
        Ok(Self::Mode(now))
    }
}

/// Stops a case that would change the machine if that is not a VM of ours.
pub(super) fn must_be_disposable(stage: &Stage, what: &str) -> Result<(), Stop> {
    if stage.disposable {
        Ok(())
    } else {
        Err(Stop::Precondition(format!("needs {what}: only set in a VM")))
    }
}

impl Drop for Setting {
    fn drop(&mut self) {
        match self {
            Self::Kept => {}
            Self::Sysctl(value) => drop(std::fs::write(SYSCTL, value)),
            Self::Mode(mode) => {
                let mode = std::fs::Permissions::from_mode(*mode);
                drop(std::fs::set_permissions(DEVICE, mode));
            }
        }
    }
}
