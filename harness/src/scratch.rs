//! Files and folders that are in use for a while and that nobody misses once their process is gone.
//!
//! Their owner holds a lock (flock) on them, which ends with the process, however that ends. So what has
//! a name of ours and is not locked was left behind by a process that was killed, and [`clean`] removes
//! it. Neither clocks nor process numbers are asked: the former jump, the latter come again. On a file
//! system without such locks nothing is removed.

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use tempfile::{Builder, NamedTempFile, TempDir};

/// Beginning of the names of what will take the place of something else.
pub(crate) const NEW: &str = ".uffd-conform-new-";

/// What says that something is in use; `None` where there are no locks.
pub(crate) type Owner = Option<Flock<File>>;

/// A folder that is removed when this is dropped.
#[derive(Debug)]
pub(crate) struct Scratch {
    folder: TempDir,
    owner: Owner,
}

impl Scratch {
    /// A new folder in `parent`.
    pub(crate) fn new(prefix: &str, parent: &Path) -> io::Result<Self> {
        loop {
            let folder = Builder::new().prefix(prefix).tempdir_in(parent)?;
            match File::open(folder.path()) {
                // Removed already, see `claim`.
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                opened => {
                    if let Some(owner) = claim(opened?, folder.path())? {
                        return Ok(Self { folder, owner });
                    }
                }
            }
        }
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The folder, which stays from now on; it is in use for as long as its owner is kept.
    pub(crate) fn keep(self) -> (PathBuf, Owner) {
        (self.folder.keep(), self.owner)
    }
}

/// A new file in `folder`, with the mode that the umask allows; removed when dropped and not persisted.
pub(crate) fn new_file(folder: &Path) -> io::Result<(NamedTempFile, Owner)> {
    loop {
        let file = Builder::new()
            .prefix(NEW)
            .permissions(Permissions::from_mode(0o666)) // the umask applies; the default is 0600
            .tempfile_in(folder)?;
        if let Some(owner) = claim(file.as_file().try_clone()?, file.path())? {
            return Ok((file, owner));
        }
    }
}

/// Locks what was just made at `path`; `None` if somebody who cleans up was faster, and it is gone.
fn claim(file: File, path: &Path) -> io::Result<Option<Owner>> {
    let made = file.metadata()?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Err((_, Errno::EWOULDBLOCK)) => Ok(None),
        // There are no locks here, so nobody cleans up either.
        Err(_) => Ok(Some(None)),
        Ok(owner) => Ok(is_at(&made, path).then_some(Some(owner))),
    }
}

/// Whether it is this file that a path leads to.
pub(crate) fn is_at(file: &fs::Metadata, path: &Path) -> bool {
    let there = fs::symlink_metadata(path);
    there.is_ok_and(|there| (there.dev(), there.ino()) == (file.dev(), file.ino()))
}

/// Removes from `folder` what processes that were killed have left behind: what is this user's, has a
/// name that begins with `prefix`, and is in nobody's use. Failing is no harm.
pub(crate) fn clean(folder: &Path, prefix: &str) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        if entry.file_name().as_encoded_bytes().starts_with(prefix.as_bytes()) {
            remove_unused(&entry.path());
        }
    }
}

fn remove_unused(path: &Path) {
    // Neither led elsewhere by a link nor held up by a pipe.
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let Ok(file) = File::options().read(true).custom_flags(flags).open(path) else { return };
    let Ok(is) = file.metadata() else { return };
    if is.uid() != nix::unistd::geteuid().as_raw() {
        return;
    }
    // Held until it is gone: whoever has just made it sees that, and makes another.
    let Ok(_lock) = Flock::lock(file, FlockArg::LockExclusiveNonblock) else { return };
    let _ = if is.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).expect("listed").flatten();
        let mut names: Vec<_> =
            entries.map(|e| e.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    #[test]
    fn what_is_in_use_stays_and_what_is_left_behind_goes() {
        let parent = tempfile::tempdir().expect("a folder");
        let at = parent.path();
        let used = Scratch::new("ours-", at).expect("made");
        fs::write(used.path().join("file"), "in use").expect("written");
        let (kept, owner) = Scratch::new("ours-", at).expect("made").keep();
        let (file, file_owner) = new_file(at).expect("made");
        fs::create_dir(at.join("ours-abandoned")).expect("made");
        fs::write(at.join("ours-abandoned/file"), "left").expect("written");
        fs::write(at.join("ours-file"), "left").expect("written");
        fs::write(at.join(format!("{NEW}left")), "left").expect("written");
        fs::write(at.join("others"), "not ours").expect("written");
        clean(at, "ours-");
        clean(at, NEW);
        assert!(used.path().join("file").exists() && kept.exists() && file.path().exists());
        assert_eq!(names(at).len(), 4, "{:?}", names(at));
        drop((used, owner, file, file_owner));
        // A child that a neighbouring test has just forked has the locks, too, until it runs its program.
        let start = Instant::now();
        while names(at) != ["others"] {
            assert!(start.elapsed() < Duration::from_secs(60), "{:?}", names(at));
            clean(at, "ours-");
            clean(at, NEW);
        }
    }

    #[test]
    fn a_link_leads_to_no_harm() {
        let (parent, other) =
            (tempfile::tempdir().expect("made"), tempfile::tempdir().expect("made"));
        fs::write(other.path().join("file"), "of somebody").expect("written");
        std::os::unix::fs::symlink(other.path(), parent.path().join("ours-link")).expect("linked");
        clean(parent.path(), "ours-");
        assert_eq!(names(other.path()), ["file"]);
    }

    /// Half of the threads make, the other half clean: nothing that was made is lost.
    #[test]
    fn who_cleans_takes_nothing_from_who_makes() {
        let parent = tempfile::tempdir().expect("a folder");
        let at = parent.path();
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        let made = Scratch::new("ours-", at).expect("made");
                        fs::write(made.path().join("file"), "in use").expect("it is still there");
                        let (mut file, _owner) = new_file(at).expect("made");
                        io::Write::write_all(&mut file, b"in use").expect("written");
                        file.persist(at.join("target")).expect("it is still there");
                    }
                });
                scope.spawn(|| {
                    for _ in 0..400 {
                        clean(at, "ours-");
                        clean(at, NEW);
                    }
                });
            }
        });
        assert_eq!(names(at), ["target"]);
    }
}
