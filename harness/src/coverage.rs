//! What a kernel with `CONFIG_GCOV_KERNEL` counts: which of its lines ran, and how often.
//!
//! The guest reads the counters of all files that the kernel was built to count in, the host writes
//! them to a folder, a boot a folder of its own: `gcov-tool merge` adds them up. The rest is gcc's.

use crate::vm::Event;
use anyhow::{Context, Result, bail};
use nix::mount::{MsFlags, mount};
use std::path::{Component, Path, PathBuf};

/// Where a guest has debugfs.
const DEBUGFS: &str = "/sys/kernel/debug";

/// The folder of the counters there.
const COUNTERS: &str = "/sys/kernel/debug/gcov";

/// Makes the counters readable; in a guest, once.
pub fn open() -> Result<(), String> {
    mount(Some("debugfs"), DEBUGFS, Some("debugfs"), MsFlags::empty(), None::<&str>)
        .map_err(|error| format!("can't mount debugfs on {DEBUGFS}: {error}"))?;
    if Path::new(COUNTERS).is_dir() {
        Ok(())
    } else {
        Err("the kernel counts nothing: it was built without CONFIG_GCOV_KERNEL".to_owned())
    }
}

/// The counters as they are now: a `.gcda` file a source file, by its path.
pub fn read() -> Result<Vec<(String, Vec<u8>)>, String> {
    let files = counters(Path::new(COUNTERS))?;
    if files.is_empty() {
        return Err(format!("no file below {COUNTERS}: the kernel was built to count in none"));
    }
    Ok(files)
}

fn counters(folder: &Path) -> Result<Vec<(String, Vec<u8>)>, String> {
    let fault = |path: &Path, error| format!("can't read {}: {error}", path.display());
    let (mut files, mut folders) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(at) = folders.pop() {
        for entry in std::fs::read_dir(&at).map_err(|e| fault(&at, e))? {
            let entry = entry.map_err(|e| fault(&at, e))?;
            let (path, kind) = (entry.path(), entry.file_type().map_err(|e| fault(&at, e))?);
            if kind.is_dir() {
                folders.push(path);
            } else if kind.is_file() && path.extension().is_some_and(|e| e == "gcda") {
                let name = path.strip_prefix(folder).unwrap_or(&path).display().to_string();
                files.push((name, std::fs::read(&path).map_err(|e| fault(&path, e))?));
            }
        }
    }
    files.sort();
    Ok(files)
}

/// A folder that takes what leaves the guests of a session.
#[derive(Debug)]
pub struct Folder {
    root: PathBuf,
    boot: u32,
    /// Outcomes since the last counters of this boot.
    uncounted: usize,
    lost: usize,
    trouble: Option<anyhow::Error>,
}

impl Folder {
    /// A new folder: counters of another run would be added to those of this one.
    pub fn create(root: &Path) -> Result<Self> {
        std::fs::create_dir_all(root).with_context(|| format!("making {}", root.display()))?;
        let mut entries =
            std::fs::read_dir(root).with_context(|| format!("reading {}", root.display()))?;
        if entries.next().is_some() {
            bail!("{} is not empty: name a new folder for the counters", root.display());
        }
        Ok(Self { root: root.to_owned(), boot: 0, uncounted: 0, lost: 0, trouble: None })
    }

    /// Takes an event of the session.
    pub fn take(&mut self, event: &Event<'_>) {
        match event {
            Event::Boot { number, .. } => {
                self.boot = *number;
                self.lost += std::mem::take(&mut self.uncounted);
            }
            Event::Outcome { .. } => self.uncounted += 1,
            Event::File { name, bytes } => {
                self.uncounted = 0;
                if let Err(error) = self.write(name, bytes) {
                    self.trouble.get_or_insert(error);
                }
            }
            _ => {}
        }
    }

    /// How many cases went uncounted because their machine was lost before it handed out its counters.
    pub fn finish(self) -> Result<usize> {
        self.trouble.map_or(Ok(self.lost + self.uncounted), Err)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let name = Path::new(name);
        if !name.components().all(|part| matches!(part, Component::Normal(_))) {
            bail!("the guest named a file {}, which is no path below a folder", name.display());
        }
        let path = self.root.join(format!("boot-{}", self.boot)).join(name);
        let written = std::fs::create_dir_all(path.parent().unwrap_or(&path))
            .and_then(|()| crate::files::replace(&path, bytes));
        written.with_context(|| format!("writing {}", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uffd_results::{Facts, Outcome};

    fn tree(folder: &Path, files: &[&str]) {
        for file in files {
            let path = folder.join(file);
            std::fs::create_dir_all(path.parent().expect("below")).expect("a folder");
            std::fs::write(path, file).expect("a file");
        }
    }

    #[test]
    fn counters_are_read_by_their_path_and_links_are_not_followed() {
        let folder = tempfile::tempdir().expect("a folder");
        tree(folder.path(), &["reset", "b/mm/u.gcda", "b/fs/u.gcda"]);
        let link = folder.path().join("b/mm/u.gcno");
        std::os::unix::fs::symlink("/nowhere/u.gcno", link).expect("a link");
        let files = counters(folder.path()).expect("read");
        let of = |name: &str| (name.to_owned(), name.as_bytes().to_vec());
        assert_eq!(files, [of("b/fs/u.gcda"), of("b/mm/u.gcda")]);
    }

    #[test]
    fn each_boot_has_its_newest_counters_and_what_was_lost_is_known() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut taken = Folder::create(folder.path()).expect("empty");
        let outcome = Outcome::done(Facts::new());
        for event in [
            Event::Boot { number: 1, from: 0 },
            Event::Outcome { index: 0, outcome: &outcome },
            Event::File { name: "mm/u.gcda", bytes: b"old" },
            Event::File { name: "mm/u.gcda", bytes: b"new" },
            Event::Outcome { index: 1, outcome: &outcome },
            Event::Boot { number: 2, from: 2 },
            Event::Outcome { index: 2, outcome: &outcome },
            Event::File { name: "mm/u.gcda", bytes: b"other" },
        ] {
            taken.take(&event);
        }
        assert_eq!(taken.finish().expect("written"), 1);
        let read = |path: &str| std::fs::read_to_string(folder.path().join(path)).expect("written");
        assert_eq!(read("boot-1/mm/u.gcda") + &read("boot-2/mm/u.gcda"), "newother");
        assert!(Folder::create(folder.path()).is_err(), "it is in use");
    }

    #[test]
    fn a_guest_writes_nowhere_else() {
        let folder = tempfile::tempdir().expect("a folder");
        for name in ["../u", "/tmp/u", "a/../../u"] {
            let mut taken = Folder::create(&folder.path().join("new")).expect("empty");
            taken.take(&Event::File { name, bytes: b"" });
            let error = taken.finish().expect_err("refused").to_string();
            assert!(error.contains(name), "{error}");
        }
    }
}
