//! The compatibility site: static pages, made from records, contracts and notes alone.
//!
//! Belongs here: what pages there are, and how they are written whole or not at all. `page` has the
//! frame around every page, `links` where each one stands, `world` what all of them read; then a file
//! a kind of page. Everything that a record, contract or note says goes through `maud`, which writes it
//! as text; the only markup taken as it is are our own assets and drawings.

mod answers;
mod ask;
mod axes;
mod bench;
mod changes;
mod contracts;
mod downloads;
mod guarantees;
mod kernels;
mod links;
mod matrix;
mod method;
mod overview;
mod page;
mod picture;
mod place;
mod plots;
mod probes;
mod start;
mod words;
mod world;

use crate::diff::Comparer;
use crate::files;
use crate::known::Known;
use crate::notes::Note;
use crate::recipes::Recipe;
use crate::scratch::{self, Scratch};
use crate::store::StoreError;
use anyhow::Result;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use page::Page;
use place::Others;
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use uffd_results::Record;
use world::World;

/// A site that stands in memory.
#[derive(Debug)]
pub struct Site {
    /// What each file holds, by its path below the site's folder.
    files: BTreeMap<String, Vec<u8>>,
}

/// What every page comes with.
const ASSETS: [(&str, &str); 5] = [
    ("site.css", include_str!("site/assets/site.css")),
    ("site.js", include_str!("site/assets/site.js")),
    ("matrix.js", include_str!("site/assets/matrix.js")),
    ("lookup.js", include_str!("site/assets/lookup.js")),
    ("ask.js", include_str!("site/assets/ask.js")),
];

pub use bench::Costs;

/// The site of some records, which are sorted. Equal records, contracts, notes, recipes and costs give equal
/// bytes.
pub fn build(
    records: &[Record],
    known: &Known,
    notes: &[Note],
    recipes: &[Recipe],
    costs: Costs<'_>,
) -> Result<Site> {
    let world = World::of(records, known, notes);
    let comparer = Comparer::new();
    let downloads = downloads::files(known)?;
    let points = axes::points(&world)?;
    let mut pages: Vec<Page> = vec![
        start::page(&world, recipes),
        ask::page(&world, &points),
        matrix::page(&world),
        overview::page(&world),
        bench::page(&world, costs),
        guarantees::page(&world, recipes),
        method::page(&world),
        downloads::page(&world, &downloads),
    ];
    pages.extend(answers::pages(&world, &points)?);
    pages.extend(kernels::pages(&world, &comparer));
    pages.extend(contracts::pages(&world));
    pages.extend(changes::pages(&world, &comparer));
    pages.extend(probes::pages(&world)?);
    let mut files = BTreeMap::new();
    for (name, text) in ASSETS {
        files.insert(name.to_owned(), text.as_bytes().to_vec());
    }
    files.insert("search-data.js".to_owned(), page::search_data(&pages)?.into_bytes());
    files.insert("ask-data.js".to_owned(), ask::data(&world, &points)?.into_bytes());
    for file in downloads {
        files.insert(file.path.to_owned(), file.text.into_bytes());
    }
    for page in pages {
        let (path, html) = page.html();
        files.insert(path, html.into_bytes());
    }
    Ok(Site { files })
}

impl Site {
    /// The files, by path.
    pub fn files(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.files.iter().map(|(path, bytes)| (path.as_str(), bytes.as_slice()))
    }

    /// Puts the site in the place of a folder, or of the one that a link leads to, whole or not at all: the site that
    /// stood there is gone, hidden files and CNAME stay. A folder that holds anything else is left alone.
    pub fn write(&self, folder: &Path) -> Result<(), StoreError> {
        let fail = |path: &Path, error| StoreError::Write { path: path.to_owned(), error };
        let folder = &files::led_to(folder).map_err(|e| fail(folder, e))?;
        let others = if folder.exists() { self.others(folder)? } else { Others::default() };
        let parent =
            folder.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        std::fs::create_dir_all(parent).map_err(|e| fail(parent, e))?;
        // What lies beside a site that is missing may be all that is left of it.
        if folder.exists() {
            scratch::clean(parent, scratch::NEW);
        }
        let new = Scratch::new(scratch::NEW, parent).map_err(|e| fail(folder, e))?;
        for (path, bytes) in self.files() {
            let path = new.path().join(path);
            let folder: PathBuf = path.parent().map(Path::to_owned).unwrap_or_default();
            std::fs::create_dir_all(&folder).map_err(|e| fail(&folder, e))?;
            std::fs::write(&path, bytes).map_err(|e| fail(&path, e))?;
        }
        let list = new.path().join(place::LIST);
        std::fs::write(&list, self.list()).map_err(|e| fail(&list, e))?;
        others.bring(folder, new.path()).map_err(|e| fail(folder, e))?;
        // A temporary folder is for its owner alone; a site is for a web server too.
        let all = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(new.path(), all).map_err(|e| fail(folder, e))?;
        let (new, _owner) = new.keep();
        put(&new, folder).map_err(|e| fail(folder, e))
    }

    /// What a folder holds that is no site's and stays; fails if there is something that would be lost.
    fn others(&self, folder: &Path) -> Result<Others, StoreError> {
        let fail = |path: &Path, error| StoreError::Write { path: path.to_owned(), error };
        if !is_site(folder) {
            let text = "it is there and is no site; name another folder";
            return Err(fail(folder, std::io::Error::other(text)));
        }
        let own = self.files.keys().map(String::as_str);
        let others = Others::of(folder, own).map_err(|e| fail(folder, e))?;
        match &others.foreign {
            None => Ok(others),
            Some(path) => {
                let text = "it stands in the folder of the site, which does not have it; move it away, or name \
                            another folder";
                Err(fail(&folder.join(path), std::io::Error::other(text)))
            }
        }
    }

    /// The paths of the files, a line each.
    fn list(&self) -> String {
        self.files.keys().fold(String::new(), |list, path| list + path + "\n")
    }
}

/// Puts a folder in the place of another, which is removed; whoever looks, or is killed, meets one of the
/// two whole.
fn put(new: &Path, folder: &Path) -> std::io::Result<()> {
    let old = if folder.exists() {
        match renameat2(AT_FDCWD, new, AT_FDCWD, folder, RenameFlags::RENAME_EXCHANGE) {
            Ok(()) => return std::fs::remove_dir_all(new),
            // Not every file system can: there the old one steps aside for a moment.
            Err(Errno::EINVAL | Errno::ENOSYS) => {
                let mut aside = new.as_os_str().to_owned();
                aside.push("-old");
                std::fs::rename(folder, &aside)?;
                Some(aside)
            }
            Err(e) => return Err(e.into()),
        }
    } else {
        None
    };
    std::fs::rename(new, folder)?;
    old.map_or(Ok(()), std::fs::remove_dir_all)
}

/// Whether a folder holds a site of ours, or nothing but what stays.
fn is_site(folder: &Path) -> bool {
    let Ok(entries) = std::fs::read_dir(folder) else { return false };
    let is_kept = |entry: std::fs::DirEntry| place::is_kept(Path::new(&entry.file_name()));
    folder.join("search-data.js").is_file() || entries.flatten().all(is_kept)
}
