//! A memory cgroup for one case, in a VM of ours.

use crate::outcome::Stop;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use std::fmt::Display;
use std::fs;
use std::path::{Path, PathBuf};

const ROOT: &str = "/cgroup";

/// A group that exists until this is dropped, which must be after the end of its processes.
#[derive(Debug)]
pub(crate) struct Group {
    path: PathBuf,
}

impl Group {
    /// Mounts the hierarchy and makes a group in it; a precondition where there is none.
    pub(crate) fn new(disposable: bool) -> Result<Self, Stop> {
        if !disposable {
            return Err(Stop::Precondition("makes a memory cgroup: only asked in a VM".into()));
        }
        let no = |what: &str, e: &dyn Display| {
            Stop::Precondition(format!("no memory cgroup: {what}: {e}"))
        };
        fs::create_dir_all(ROOT).map_err(|e| no(ROOT, &e))?;
        let nothing: Option<&Path> = None;
        mount(nothing, ROOT, Some("cgroup2"), MsFlags::empty(), nothing)
            .map_err(|e| no("mounting cgroup2", &e))?;
        // From here on a drop cleans up.
        let group = Self { path: Path::new(ROOT).join("case") };
        fs::write(format!("{ROOT}/cgroup.subtree_control"), "+memory")
            .map_err(|e| no("cgroup.subtree_control", &e))?;
        fs::create_dir(&group.path).map_err(|e| no("making a group", &e))?;
        Ok(group)
    }

    /// Takes a process in. What it has used so far stays with its old group.
    pub(crate) fn admit(&self, pid: i32) -> Result<(), Stop> {
        self.write("cgroup.procs", &pid)
    }

    /// Sets the most that its processes may use, in bytes, or `max`.
    pub(crate) fn limit(&self, bytes: &str) -> Result<(), Stop> {
        self.write("memory.max", &bytes)
    }

    fn write(&self, file: &str, value: &dyn Display) -> Result<(), Stop> {
        fs::write(self.path.join(file), value.to_string())
            .map_err(|e| Stop::Broken(format!("writing {value} to {file} of the group: {e}")))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.path);
        let _ = umount2(ROOT, MntFlags::MNT_DETACH);
    }
}
