//! The folder that a site stands in: what of it is the site's, what is its owner's and stays.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

/// The list of a site's files, which says that they may be replaced.
pub(super) const LIST: &str = ".uffd-conform-site";

/// Whether something stays that does not come from `publish`: hidden files, such as a `.git`, and the name under
/// which GitHub serves the site.
pub(super) fn is_kept(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default();
    name.as_encoded_bytes().starts_with(b".") || path == Path::new("CNAME")
}

/// What is in a folder beside a site's own files.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Others {
    /// What stays, by its path below the folder.
    pub(super) kept: Vec<PathBuf>,
    /// What is neither a site's nor stays: the first of it, by name.
    pub(super) foreign: Option<PathBuf>,
}

impl Others {
    /// Looks through a folder. Its own files are those of the new site and those in the list of the old one.
    pub(super) fn of<'a>(folder: &Path, new: impl Iterator<Item = &'a str>) -> io::Result<Self> {
        let list = fs::read_to_string(folder.join(LIST)).unwrap_or_default();
        let own = list.lines().map(PathBuf::from).chain(new.map(PathBuf::from)).collect();
        let mut others = Self::default();
        others.look(folder, Path::new(""), &own)?;
        others.kept.sort();
        Ok(others)
    }

    fn look(&mut self, folder: &Path, below: &Path, own: &BTreeSet<PathBuf>) -> io::Result<()> {
        for entry in fs::read_dir(folder.join(below))? {
            let entry = entry?;
            let path = below.join(entry.file_name());
            if is_kept(&path) {
                if path != Path::new(LIST) {
                    self.kept.push(path);
                }
            } else if entry.file_type()?.is_dir() {
                self.look(folder, &path, own)?;
            } else if !own.contains(&path)
                && self.foreign.as_ref().is_none_or(|first| path < *first)
            {
                self.foreign = Some(path);
            }
        }
        Ok(())
    }

    /// Puts what stays into the folder that will take the place of `old`, so that nothing is ever in one of them only:
    /// files are linked, and copied where that can't be.
    pub(super) fn bring(&self, old: &Path, new: &Path) -> io::Result<()> {
        for path in &self.kept {
            let to = new.join(path);
            if let Some(folder) = to.parent() {
                fs::create_dir_all(folder)?;
            }
            double(&old.join(path), &to)?;
        }
        Ok(())
    }
}

fn double(from: &Path, to: &Path) -> io::Result<()> {
    let is = fs::symlink_metadata(from)?;
    if is.is_dir() {
        fs::create_dir(to)?;
        for entry in fs::read_dir(from)? {
            let name = entry?.file_name();
            double(&from.join(&name), &to.join(&name))?;
        }
        return fs::set_permissions(to, is.permissions());
    }
    if is.is_symlink() {
        return symlink(fs::read_link(from)?, to);
    }
    fs::hard_link(from, to).or_else(|error| {
        // A pipe can't be copied, and reading it would not end.
        if is.is_file() { fs::copy(from, to).map(drop) } else { Err(error) }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder with these files.
    fn folder(files: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a folder");
        for file in files {
            let path = folder.path().join(file);
            fs::create_dir_all(path.parent().expect("a folder")).expect("made");
            fs::write(path, file).expect("written");
        }
        folder
    }

    #[test]
    fn what_is_not_the_sites_is_kept_or_named() {
        let all = ["CNAME", ".git/a/b", "index.html", "old/page.html", "old/.x", "old/CNAME", "z"];
        let site = folder(&all);
        fs::write(site.path().join(LIST), "index.html\nold/page.html\n").expect("written");
        let others = Others::of(site.path(), ["index.html"].into_iter()).expect("readable");
        let kept = [".git", "CNAME", "old/.x"].map(PathBuf::from);
        assert_eq!(others, Others { kept: kept.into(), foreign: Some("old/CNAME".into()) });
        fs::remove_file(site.path().join(LIST)).expect("removed");
        let others = Others::of(site.path(), all.into_iter()).expect("readable");
        assert_eq!(others.foreign, None);
    }

    #[test]
    fn what_stays_is_in_both_folders_until_one_goes() {
        let (old, new) = (folder(&[".git/a/b", "CNAME", "old/.x"]), folder(&["index.html"]));
        symlink("nowhere", old.path().join(".git/link")).expect("linked");
        let others = Others::of(old.path(), std::iter::empty()).expect("readable");
        others.bring(old.path(), new.path()).expect("brought");
        for file in [".git/a/b", "CNAME", "old/.x"] {
            let [a, b] = [&old, &new].map(|f| fs::read(f.path().join(file)).expect("there"));
            assert!(a == file.as_bytes() && b == a);
        }
        drop(old);
        assert_eq!(fs::read(new.path().join(".git/a/b")).expect("there"), b".git/a/b");
        let link = fs::read_link(new.path().join(".git/link")).expect("a link");
        assert_eq!(link, Path::new("nowhere"));
    }
}
