//! A cgroup (version 2) for one case, in a VM of ours.

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
    /// Mounts the hierarchy and makes a group in it whose memory can be limited; a precondition where there
    /// is none.
    pub(crate) fn new(disposable: bool) -> Result<Self, Stop> {
        Self::with(disposable, "memory", Some("+memory"))
    }

    /// The same, of a group that can be frozen: no controller does that.
    pub(crate) fn freezable(disposable: bool) -> Result<Self, Stop> {
        let group = Self::with(disposable, "freezable", None)?;
        if group.path.join("cgroup.freeze").exists() {
            return Ok(group);
        }
        Err(Stop::Precondition("no cgroup.freeze (5.2 brought it)".into()))
    }

    fn with(disposable: bool, kind: &str, controllers: Option<&str>) -> Result<Self, Stop> {
        if !disposable {
            return Err(Stop::Precondition(format!("makes a {kind} cgroup: only asked in a VM")));
        }
        let no = |what: &str, e: &dyn Display| {
            Stop::Precondition(format!("no {kind} cgroup: {what}: {e}"))
        };
        fs::create_dir_all(ROOT).map_err(|e| no(ROOT, &e))?;
        let nothing: Option<&Path> = None;
        mount(nothing, ROOT, Some("cgroup2"), MsFlags::empty(), nothing)
            .map_err(|e| no("mounting cgroup2", &e))?;
        // From here on a drop cleans up.
        let group = Self { path: Path::new(ROOT).join("case") };
        if let Some(controllers) = controllers {
            fs::write(format!("{ROOT}/cgroup.subtree_control"), controllers)
                .map_err(|e| no("cgroup.subtree_control", &e))?;
        }
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

    /// Tells its processes to freeze, or to go on.
    pub(crate) fn freeze(&self, freeze: bool) -> Result<(), Stop> {
        self.write("cgroup.freeze", &u8::from(freeze))
    }

    /// Whether all of its processes are frozen.
    pub(crate) fn is_frozen(&self) -> Result<bool, Stop> {
        let path = self.path.join("cgroup.events");
        let text = fs::read_to_string(&path)
            .map_err(|e| Stop::Broken(format!("reading {}: {e}", path.display())))?;
        match text.lines().find_map(|line| line.strip_prefix("frozen ")) {
            Some("1") => Ok(true),
            Some("0") => Ok(false),
            other => Err(Stop::Broken(format!("cgroup.events says frozen {other:?}"))),
        }
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
