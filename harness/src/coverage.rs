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

/// The file that ends a hand-out of counters; theirs have another ending. Counters that came without it are of
/// different moments.
const COMPLETE: &str = "complete";

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

/// The counters as they are now: a `.gcda` file a source file, by its path, and a last file that says that these
/// are all.
pub fn read() -> Result<Vec<(String, Vec<u8>)>, String> {
    let mut files = counters(Path::new(COUNTERS))?;
    if files.is_empty() {
        return Err(format!("no file below {COUNTERS}: the kernel was built to count in none"));
    }
    files.push((COMPLETE.to_owned(), Vec::new()));
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
    /// The counters that have come of a hand-out that is on its way.
    coming: Vec<(String, Vec<u8>)>,
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
        let (coming, trouble) = (Vec::new(), None);
        Ok(Self { root: root.to_owned(), boot: 0, coming, uncounted: 0, lost: 0, trouble })
    }

    /// Takes an event of the session.
    pub fn take(&mut self, event: &Event<'_>) {
        match event {
            Event::Boot { number, .. } => {
                self.boot = *number;
                self.coming.clear();
                self.lost += std::mem::take(&mut self.uncounted);
            }
            Event::Outcome { .. } => self.uncounted += 1,
            // Files of one moment, or those of an earlier one as they are: of both together nobody could make sense.
            Event::File { name: COMPLETE, .. } => {
                self.uncounted = 0;
                for (name, bytes) in std::mem::take(&mut self.coming) {
                    if let Err(error) = self.write(&name, &bytes) {
                        self.trouble.get_or_insert(error);
                    }
                }
            }
            Event::File { name, bytes } => {
                self.coming.push(((*name).to_owned(), (*bytes).to_owned()));
            }
            _ => {}
        }
    }

    /// How many cases went uncounted because their machine was lost before it had handed out its counters.
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
    use rstest::rstest;
    use uffd_results::{Facts, Outcome};

    const COMPLETED: Event<'_> = Event::File { name: COMPLETE, bytes: b"" };

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
            COMPLETED,
            Event::File { name: "mm/u.gcda", bytes: b"new" },
            COMPLETED,
            Event::Outcome { index: 1, outcome: &outcome },
            Event::Boot { number: 2, from: 2 },
            Event::Outcome { index: 2, outcome: &outcome },
            Event::File { name: "mm/u.gcda", bytes: b"other" },
            COMPLETED,
        ] {
            taken.take(&event);
        }
        assert_eq!(taken.finish().expect("written"), 1);
        let read = |path: &str| std::fs::read_to_string(folder.path().join(path)).expect("written");
        assert_eq!(read("boot-1/mm/u.gcda") + &read("boot-2/mm/u.gcda"), "newother");
        assert!(Folder::create(folder.path()).is_err(), "it is in use");
    }

    /// A machine dies while it hands out: what it had handed out before stays as it was, and the cases since are lost.
    #[rstest]
    #[case(true)]
    #[case(false)]
    fn counters_of_half_a_hand_out_count_for_nothing(#[case] boots_again: bool) {
        let folder = tempfile::tempdir().expect("a folder");
        let mut taken = Folder::create(folder.path()).expect("empty");
        let outcome = Outcome::done(Facts::new());
        for event in [
            Event::Boot { number: 1, from: 0 },
            Event::Outcome { index: 0, outcome: &outcome },
            Event::File { name: "fs/u.gcda", bytes: b"old" },
            Event::File { name: "mm/u.gcda", bytes: b"old" },
            COMPLETED,
            Event::Outcome { index: 1, outcome: &outcome },
            Event::Outcome { index: 2, outcome: &outcome },
            Event::File { name: "fs/u.gcda", bytes: b"new" },
        ] {
            taken.take(&event);
        }
        if boots_again {
            taken.take(&Event::Boot { number: 2, from: 3 });
            taken.take(&COMPLETED);
        }
        assert_eq!(taken.finish().expect("written"), 2);
        let read = |path: &str| std::fs::read_to_string(folder.path().join(path)).expect("written");
        assert_eq!(read("boot-1/fs/u.gcda") + &read("boot-1/mm/u.gcda"), "oldold");
        assert!(!folder.path().join("boot-2").exists());
    }

    #[test]
    fn a_guest_writes_nowhere_else() {
        let folder = tempfile::tempdir().expect("a folder");
        for name in ["../u", "/tmp/u", "a/../../u"] {
            let mut taken = Folder::create(&folder.path().join("new")).expect("empty");
            taken.take(&Event::File { name, bytes: b"" });
            taken.take(&COMPLETED);
            let error = taken.finish().expect_err("refused").to_string();
            assert!(error.contains(name), "{error}");
        }
    }
}
