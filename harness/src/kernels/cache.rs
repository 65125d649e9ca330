//! The cache of boot images: downloads a locked package, checks it, keeps what is needed of it.
//!
//! An entry is `<package>_<version>.vmlinuz`, `.config` and `.modules.tar` (where these are shipped) and
//! `.json`, written in this order, each in one step. The JSON holds the hashes of the others, so a
//! damaged entry is noticed and made anew, and two processes can only write the same bytes.

use super::apt::{Apt, Fetch, FetchFailure};
use super::header;
use super::identity::{self, Identity, Image};
use super::index;
use super::lock::{Locked, PackageFile};
use super::select::Slot;
use super::unpack::{Kind, UnpackError, Unpacked, unpack};
use crate::arch::Arch;
use crate::files;
use crate::scratch::{self, Scratch};
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use uffd_results::{KernelVersion, Package};

/// Names another cache folder.
const VARIABLE: &str = "UFFD_CONFORM_CACHE";

/// Beginning of the names of folders that are removed after use.
pub(super) const SCRATCH: &str = ".fetch-";

/// Boot image, configuration and modules need less than this beside the package.
const UNPACKED: u64 = 32 << 20;

/// The cache of boot images.
pub struct Cache {
    folder: PathBuf,
    fetcher: Box<dyn Fetch + Send + Sync>,
}

/// Why an image could not be had.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The archive no longer has the package; another kernel may do.
    #[error("{package} is gone from Debian's archive ({detail}) and not in the cache")]
    Gone {
        /// Package and version.
        package: String,
        /// How that is known.
        detail: String,
    },
    /// The download failed.
    #[error(
        "downloading {package} failed: {detail}; check the network and apt's settings, and try again"
    )]
    Download {
        /// Package and version.
        package: String,
        /// apt's words.
        detail: String,
    },
    /// What came is not what the lock says.
    #[error(
        "{package} is not as expected: {detail}; try again, or bring the list up to date with `uffd-conform kernels --update`"
    )]
    Content {
        /// Package and version.
        package: String,
        /// What is wrong.
        detail: String,
    },
    /// The cache folder can't be written.
    #[error(
        "the cache folder {folder:?} can't be used: {detail}; free space there and see that it is writable, or name another folder in {VARIABLE}"
    )]
    Storage {
        /// The folder.
        folder: PathBuf,
        /// What is wrong.
        detail: String,
    },
}

/// The format of entries. Those of format 0 were made when no modules were kept.
const FORMAT: u32 = 1;

/// Ending of the file with the modules.
const MODULES: &str = "modules.tar";

/// The JSON file of an entry.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    #[serde(default)]
    format: u32,
    upstream: String,
    release: String,
    package: Package,
    image_sha256: String,
    config_sha256: Option<String>,
    #[serde(default)]
    modules_sha256: Option<String>,
}

/// The folder of this cache: `kernels` in `UFFD_CONFORM_CACHE`, else in `uffd-conform` below the
/// user's cache folder.
pub(super) fn folder() -> Result<PathBuf, FetchError> {
    let set = |name| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let below = |base: PathBuf| base.join("uffd-conform");
    set(VARIABLE)
        .or_else(|| set("XDG_CACHE_HOME").filter(|p| p.is_absolute()).map(below))
        .or_else(|| set("HOME").map(|home| below(home.join(".cache"))))
        .map(|cache| cache.join("kernels"))
        .ok_or_else(|| FetchError::Storage {
            folder: PathBuf::new(),
            detail: "neither XDG_CACHE_HOME nor HOME is set".into(),
        })
}

impl Cache {
    /// The user's cache, filled through apt.
    pub fn open() -> Result<Self, FetchError> {
        Self::at(&folder()?, Box::new(Apt::default()))
    }

    /// A cache in `folder`, filled by `fetcher`.
    pub fn at(folder: &Path, fetcher: Box<dyn Fetch + Send + Sync>) -> Result<Self, FetchError> {
        let cache = Self { folder: folder.into(), fetcher };
        fs::create_dir_all(folder).map_err(|e| cache.storage(&e))?;
        scratch::clean(folder, SCRATCH);
        scratch::clean(folder, scratch::NEW);
        Ok(cache)
    }

    /// The first candidate of `slot` that can be had and is not in `taken`; a kernel that is gone
    /// is skipped with a word. `None` if all that can be had are taken already.
    pub fn fill(
        &self,
        slot: &Slot,
        taken: &[Image],
        progress: &dyn Fn(&str),
    ) -> Result<Option<Image>, FetchError> {
        let mut last = None;
        for candidate in &slot.candidates {
            let package = Some(candidate.package());
            if taken.iter().any(|image| image.identity.package == package) {
                return Ok(None);
            }
            match self.get(candidate, progress) {
                Ok(image) => return Ok(Some(image)),
                Err(error @ FetchError::Gone { .. }) => {
                    progress(&format!("{}: {error}, skipped", slot.wanted));
                    last = Some(error);
                }
                Err(error) => return Err(error),
            }
        }
        last.map_or(Ok(None), Err)
    }

    /// The image of a kernel, from the cache or the archive.
    pub fn get(&self, kernel: &Locked, progress: &dyn Fn(&str)) -> Result<Image, FetchError> {
        let old = match self.check(kernel) {
            Ok(Some((image, true))) => return Ok(image),
            Ok(Some((image, false))) => Some(image),
            Ok(None) => None,
            Err(why) => {
                progress(&format!(
                    "{kernel}: the cache entry is damaged ({why}), fetching it again"
                ));
                None
            }
        };
        let made = if kernel.gone {
            let detail = "so the list of kernels says".into();
            Err(FetchError::Gone { package: kernel.image.to_string(), detail })
        } else {
            self.make(kernel, progress)
        };
        match (made, old) {
            (Err(error @ (FetchError::Gone { .. } | FetchError::Download { .. })), Some(old)) => {
                progress(&format!("{kernel}: without its modules: {error}"));
                Ok(old)
            }
            (made, _) => made,
        }
    }

    /// The image of a kernel, if it is in the cache and whole.
    pub fn cached(&self, kernel: &Locked) -> Option<Image> {
        self.check(kernel).ok().flatten().map(|(image, _)| image)
    }

    fn file(&self, kernel: &Locked, ending: &str) -> PathBuf {
        let PackageFile { name, version, .. } = &kernel.image;
        self.folder.join(format!("{name}_{version}.{ending}"))
    }

    /// The image, and whether all is there that is kept today. `Ok(None)`: there is no entry; the
    /// error says how an entry is damaged.
    fn check(&self, kernel: &Locked) -> Result<Option<(Image, bool)>, String> {
        let json = match fs::read(self.file(kernel, "json")) {
            Ok(json) => json,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e.to_string()),
        };
        let entry: Entry = serde_json::from_slice(&json).map_err(|e| e.to_string())?;
        if entry.package != kernel.package() || entry.upstream != kernel.upstream.to_string() {
            return Err("it is of another package".into());
        }
        let path = self.file(kernel, "vmlinuz");
        let (hash, _) = files::sha256_of(&path).map_err(|e| format!("boot image: {e}"))?;
        if hash != entry.image_sha256 {
            return Err("the boot image has changed".into());
        }
        let mut config = String::new();
        if let Some(expected) = &entry.config_sha256 {
            config = fs::read_to_string(self.file(kernel, "config"))
                .map_err(|e| format!("configuration: {e}"))?;
            if hash_of(config.as_bytes()) != *expected {
                return Err("the configuration has changed".into());
            }
        }
        let mut modules = None;
        if let Some(expected) = &entry.modules_sha256 {
            let tar = self.file(kernel, MODULES);
            let (hash, _) = files::sha256_of(&tar).map_err(|e| format!("modules: {e}"))?;
            if hash != *expected {
                return Err("the modules have changed".into());
            }
            modules = Some(tar);
        }
        let Entry { format, release, package, image_sha256, .. } = entry;
        let identity = Identity {
            upstream: kernel.upstream,
            release,
            package: Some(package),
            image_sha256,
            config: identity::options(&config),
        };
        let complete = format == FORMAT || !may_have_modules(kernel);
        let (arch, program, scratch) = (Arch::X86, None, None);
        Ok(Some((Image { path, arch, program, modules, identity, scratch }, complete)))
    }

    fn make(&self, kernel: &Locked, progress: &dyn Fn(&str)) -> Result<Image, FetchError> {
        let need = kernel.image.size + UNPACKED;
        if let Ok(free) = nix::sys::statvfs::statvfs(&self.folder) {
            let free = free.blocks_available() * free.fragment_size();
            if free < need {
                let detail =
                    format!("it has {} MiB of space left, {} are needed", free >> 20, need >> 20);
                return Err(FetchError::Storage { folder: self.folder.clone(), detail });
            }
        }
        // Beside the entries, so that they can be moved into place by a rename.
        let scratch = Scratch::new(SCRATCH, &self.folder).map_err(|e| self.storage(&e))?;

        progress(&format!("{kernel}: downloading {} MB", kernel.image.size.div_ceil(1_000_000)));
        let (vmlinuz, unused) = (scratch.path().join("vmlinuz"), scratch.path().join("unused"));
        let found = self.unpack(&kernel.image, scratch.path(), &vmlinuz)?;
        let content =
            |detail: String| FetchError::Content { package: kernel.image.to_string(), detail };
        if !found.image {
            return Err(content("it holds no boot image".into()));
        }
        let release = checked_release(kernel, &vmlinuz).map_err(content)?;
        let (mut config, mut modules) = (found.config, found.modules);
        let part = |package: &PackageFile, what: &str| {
            match self.unpack(package, scratch.path(), &unused) {
                // The kernel answers without it, and its record says that it is missing.
                Err(error @ FetchError::Gone { .. }) => {
                    progress(&format!("{kernel}: no {what}, {error}"));
                    Ok(Unpacked::default())
                }
                other => other,
            }
        };
        if let (None, Some(package)) = (&config, &kernel.config) {
            config = part(package, "configuration")?.config;
        }
        if let Some(package) = &kernel.modules {
            modules = part(package, "modules")?.modules;
        }
        let modules = modules.to_tar().map_err(|e| content(format!("its modules: {e}")))?;

        let (image_sha256, _) = files::sha256_of(&vmlinuz).map_err(|e| self.storage(&e))?;
        let entry = Entry {
            format: FORMAT,
            upstream: kernel.upstream.to_string(),
            release,
            package: kernel.package(),
            image_sha256,
            config_sha256: config.as_deref().map(|text| hash_of(text.as_bytes())),
            modules_sha256: modules.as_deref().map(hash_of),
        };
        self.store(kernel, &vmlinuz, config.as_deref(), modules.as_deref(), &entry)
            .map_err(|e| self.storage(&e))?;
        match self.check(kernel) {
            Ok(Some((image, _))) => Ok(image),
            Ok(None) => Err(self.storage(&io::Error::other("the new entry has vanished"))),
            Err(why) => Err(self.storage(&io::Error::other(format!("the new entry: {why}")))),
        }
    }

    fn store(
        &self,
        kernel: &Locked,
        vmlinuz: &Path,
        config: Option<&str>,
        modules: Option<&[u8]>,
        entry: &Entry,
    ) -> io::Result<()> {
        fs::rename(vmlinuz, self.file(kernel, "vmlinuz"))?;
        if let Some(config) = config {
            files::replace(&self.file(kernel, "config"), config.as_bytes())?;
        }
        if let Some(modules) = modules {
            files::replace(&self.file(kernel, MODULES), modules)?;
        }
        let mut json = serde_json::to_string_pretty(entry)?;
        json.push('\n');
        files::replace(&self.file(kernel, "json"), json.as_bytes())
    }

    /// Downloads and unpacks a package; its boot image, if it has one, goes to `image`.
    fn unpack(
        &self,
        package: &PackageFile,
        scratch: &Path,
        image: &Path,
    ) -> Result<Unpacked, FetchError> {
        let name = package.to_string();
        let deb = scratch.join("package.deb");
        self.fetcher.fetch(package, &deb).map_err(|failure| match failure {
            FetchFailure::Gone(detail) => FetchError::Gone { package: name.clone(), detail },
            FetchFailure::Storage(detail) => {
                FetchError::Storage { folder: self.folder.clone(), detail }
            }
            FetchFailure::Other(detail) => FetchError::Download { package: name.clone(), detail },
        })?;
        let content = |detail| FetchError::Content { package: name.clone(), detail };
        let (hash, size) = files::sha256_of(&deb).map_err(|e| self.storage(&e))?;
        if size != package.size {
            return Err(content(format!("it has {size} bytes, not {}", package.size)));
        }
        if hash != package.sha256 {
            return Err(content(format!("its SHA-256 is {hash}, not {}", package.sha256)));
        }
        let found = unpack(Kind::Deb, &deb, image).map_err(|error| match error {
            UnpackError::Write(e) => self.storage(&e),
            UnpackError::Package(detail) => content(detail),
        })?;
        // Removed at once: the next package may need its space.
        fs::remove_file(&deb).map_err(|e| self.storage(&e))?;
        Ok(found)
    }

    fn storage(&self, error: &io::Error) -> FetchError {
        FetchError::Storage { folder: self.folder.clone(), detail: error.to_string() }
    }
}

/// The release in the image's header, if the image is the kernel that the package claims.
fn checked_release(kernel: &Locked, vmlinuz: &Path) -> Result<String, String> {
    let mut file = fs::File::open(vmlinuz).map_err(|e| format!("boot image: {e}"))?;
    let header = header::read(&mut file).map_err(|e| format!("its boot image: {e}"))?;
    let expected = index::release(&kernel.image.name).unwrap_or_default();
    if header.release != expected {
        return Err(format!("its boot image says that it is {}", header.release));
    }
    if header.upstream() != Some(kernel.upstream) {
        let said = header.upstream().as_ref().map(KernelVersion::to_string);
        return Err(format!(
            "its boot image says version {}, the list says {}",
            said.as_deref().unwrap_or("unknown"),
            kernel.upstream
        ));
    }
    Ok(header.release)
}

/// From 6.19 on the modules are in a package of their own, which not every series has.
fn may_have_modules(kernel: &Locked) -> bool {
    kernel.modules.is_some() || kernel.image.name.starts_with("linux-image-")
}

fn hash_of(bytes: &[u8]) -> String {
    files::sha256(bytes).map_or_else(|e| unreachable!("memory can be read: {e}"), |(hash, _)| hash)
}

#[cfg(test)]
#[path = "cache_tests.rs"]
mod tests;
