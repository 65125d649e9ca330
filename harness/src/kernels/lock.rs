//! The lock file: every kernel that the archive had, by package, size and hash.
//!
//! It is JSON with two to four lines a kernel, sorted, so that an update reads well in a diff.
//! Entries are never dropped: a package that left the archive is marked `gone`, and records made
//! from it stay valid.

use super::debian;
use crate::files;
use serde::{Deserialize, Serialize};
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write as _};
use std::path::{Path, PathBuf};
use uffd_results::{KernelVersion, Package};

/// The format version that this program writes.
const SCHEMA: u32 = 1;

/// The lock that was current when the program was built.
pub(super) const BUILT_IN: &str = include_str!("../../../kernels.lock");

/// Names another lock file.
const VARIABLE: &str = "UFFD_CONFORM_LOCK";

/// Which of Debian's archives a package lies in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Archive {
    /// The distribution itself.
    Main,
    /// The archive of security updates.
    Security,
}

/// A package file, as the signed index describes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackageFile {
    /// Package name.
    pub name: String,
    /// Package version.
    pub version: String,
    /// The archive that `path` is relative to.
    pub archive: Archive,
    /// Path below the archive's root.
    pub path: String,
    /// Size in bytes.
    pub size: u64,
    /// SHA-256, lower-case hex.
    pub sha256: String,
}

/// A kernel of the lock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Locked {
    /// Upstream version, for example `6.12.43`.
    #[serde(with = "version_text")]
    pub upstream: KernelVersion,
    /// The suites that it was last seen in.
    pub suites: Vec<String>,
    /// Whether the archive had it once and has it no more.
    #[serde(default)]
    pub gone: bool,
    /// The package with the boot image.
    pub image: PackageFile,
    /// The package with the configuration, where it is not in the image's package.
    #[serde(default)]
    pub config: Option<PackageFile>,
    /// The package with the modules, where they are not in the image's package.
    #[serde(default)]
    pub modules: Option<PackageFile>,
}

/// All kernels that are known, sorted by upstream version, then package version, then name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lock {
    kernels: Vec<Locked>,
}

/// Why a lock file can't be used.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// It can't be read.
    #[error(
        "reading the lock file {0:?} failed: {1}; check the path, or leave it out to use the built-in list"
    )]
    Read(PathBuf, std::io::Error),
    /// It can't be written.
    #[error(
        "writing the lock file {0:?} failed: {1}; nothing was changed: see that its folder exists and \
         can be written to, or name another file with --lock"
    )]
    Write(PathBuf, std::io::Error),
    /// Its text is no lock.
    #[error(
        "{0} is not a usable list of kernels: {1}; restore it, or write a new one with `uffd-conform kernels --update`"
    )]
    Text(String, String),
}

impl Locked {
    /// The package as a record names it.
    pub fn package(&self) -> Package {
        let PackageFile { name, version, sha256, .. } = self.image.clone();
        Package { name, version, sha256 }
    }

    /// The series, for example `6.12`.
    pub fn series(&self) -> String {
        self.upstream.series()
    }

    pub(super) fn order(&self, other: &Self) -> Ordering {
        self.upstream
            .cmp(&other.upstream)
            .then_with(|| debian::compare(&self.image.version, &other.image.version))
            .then_with(|| self.image.name.cmp(&other.image.name))
    }

    fn key(&self) -> (String, String) {
        (self.image.name.clone(), self.image.version.clone())
    }

    fn check(&self) -> Result<(), String> {
        for file in std::iter::once(&self.image).chain(&self.config).chain(&self.modules) {
            file.check()?;
        }
        if KernelVersion::parse(&self.image.version) != Ok(self.upstream) {
            return Err(format!("{} is not version {}", self.image, self.upstream));
        }
        let plain = |suite: &&String| suite.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        match self.suites.iter().find(|suite| !plain(suite)) {
            Some(suite) => Err(format!("{} has an odd suite {suite:?}", self.image)),
            None => Ok(()),
        }
    }
}

impl PackageFile {
    /// What is wrong with it: the path and the name end up in file names and commands.
    pub(super) fn check(&self) -> Result<(), String> {
        let plain = |text: &str, more: &str| {
            !text.is_empty()
                && !text.starts_with(['-', '.', '/'])
                && !text.contains("..")
                && text.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(c))
        };
        if !plain(&self.name, "+-.") || !plain(&self.version, "+-.~") {
            return Err(format!("odd package {:?} {:?}", self.name, self.version));
        }
        if !plain(&self.path, "+-.~/_%") {
            return Err(format!("{self} has an odd path {:?}", self.path));
        }
        if !files::is_sha256(&self.sha256) {
            return Err(format!("{self} has an odd SHA-256 {:?}", self.sha256));
        }
        Ok(())
    }
}

impl fmt::Display for PackageFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name, self.version)
    }
}

impl fmt::Display for Locked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.upstream, self.image)
    }
}

impl Lock {
    /// The lock that `path` names, else `UFFD_CONFORM_LOCK`, else the built-in one.
    pub fn open(path: Option<&Path>) -> Result<Self, LockError> {
        let named = std::env::var_os(VARIABLE).filter(|v| !v.is_empty()).map(PathBuf::from);
        match path.map(Path::to_owned).or(named) {
            Some(path) => Self::load(&path),
            None => Self::parse(BUILT_IN, "the built-in list"),
        }
    }

    /// Reads a lock file.
    pub fn load(path: &Path) -> Result<Self, LockError> {
        let text = std::fs::read_to_string(path).map_err(|e| LockError::Read(path.into(), e))?;
        Self::parse(&text, &path.display().to_string())
    }

    /// Writes a lock file in one step.
    pub fn save(&self, path: &Path) -> Result<(), LockError> {
        files::replace(path, self.to_text().as_bytes())
            .map_err(|e| LockError::Write(path.into(), e))
    }

    /// The kernels, oldest upstream version first.
    pub fn kernels(&self) -> &[Locked] {
        &self.kernels
    }

    pub(super) fn parse(text: &str, from: &str) -> Result<Self, LockError> {
        #[derive(Deserialize)]
        struct Head {
            schema: u32,
        }
        #[derive(Deserialize)]
        struct Body {
            kernels: Vec<Locked>,
        }
        let error = |why: String| LockError::Text(from.to_owned(), why);
        let head: Head = serde_json::from_str(text).map_err(|e| error(e.to_string()))?;
        if head.schema > SCHEMA {
            let schema = head.schema;
            return Err(error(format!("it has schema {schema}, this program reads {SCHEMA}")));
        }
        let body: Body = serde_json::from_str(text).map_err(|e| error(e.to_string()))?;
        let mut seen = BTreeSet::new();
        for kernel in &body.kernels {
            kernel.check().map_err(error)?;
            if !seen.insert(kernel.key()) {
                return Err(error(format!("{} stands twice", kernel.image)));
            }
        }
        Ok(Self::of(body.kernels))
    }

    pub(super) fn of(mut kernels: Vec<Locked>) -> Self {
        kernels.sort_by(Locked::order);
        Self { kernels }
    }

    /// Takes in what was seen in the suites `read`; an entry that only these could have shown and
    /// did not is gone. Returns words about what is new, gone or otherwise other than before.
    pub(super) fn merge(&mut self, seen: Vec<Locked>, read: &BTreeSet<String>) -> Merged {
        let mut merged = Merged::default();
        let mut seen: BTreeMap<_, _> = seen.into_iter().map(|k| (k.key(), k)).collect();
        for old in &mut self.kernels {
            let unread: Vec<_> =
                old.suites.iter().filter(|s| !read.contains(*s)).cloned().collect();
            match seen.remove(&old.key()) {
                Some(mut new) => {
                    if old.image.sha256 != new.image.sha256 {
                        merged.other.push(format!("{old}: other content under the same version"));
                    }
                    if old.gone {
                        merged.added.push(format!("{old}, back again"));
                    }
                    for suite in
                        unread.into_iter().filter(|s| !new.suites.contains(s)).collect::<Vec<_>>()
                    {
                        new.suites.push(suite);
                    }
                    *old = new;
                }
                None if unread.is_empty() && !old.gone => {
                    old.gone = true;
                    merged.gone.push(old.to_string());
                }
                None => {}
            }
        }
        merged.added.extend(seen.values().map(ToString::to_string));
        self.kernels.extend(seen.into_values());
        self.kernels.sort_by(Locked::order);
        merged
    }

    pub(super) fn to_text(&self) -> String {
        let mut out = format!("{{\n\"schema\": {SCHEMA},\n\"kernels\": [");
        for (i, kernel) in self.kernels.iter().enumerate() {
            let Locked { upstream, suites, gone, image, config, modules } = kernel;
            let comma = if i == 0 { "" } else { "," };
            let _ = write!(
                out,
                "{comma}\n{{\"upstream\": \"{upstream}\", \"suites\": {}",
                json(suites)
            );
            if *gone {
                out.push_str(", \"gone\": true");
            }
            let _ = write!(out, ",\n \"image\": {}", json(image));
            if let Some(config) = config {
                let _ = write!(out, ",\n \"config\": {}", json(config));
            }
            if let Some(modules) = modules {
                let _ = write!(out, ",\n \"modules\": {}", json(modules));
            }
            out.push('}');
        }
        out.push_str("\n]\n}\n");
        out
    }
}

/// What a merge has changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Merged {
    /// Kernels that were not there before.
    pub(super) added: Vec<String>,
    /// Kernels that are there no more.
    pub(super) gone: Vec<String>,
    /// What should not happen.
    pub(super) other: Vec<String>,
}

fn json<T: Serialize + ?Sized>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_else(|e| unreachable!("plain data serializes: {e}"))
}

/// A kernel version as text.
mod version_text {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};
    use uffd_results::KernelVersion;

    pub(super) fn serialize<S: Serializer>(v: &KernelVersion, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(v)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<KernelVersion, D::Error> {
        KernelVersion::parse(&String::deserialize(d)?).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::kernel;
    use super::*;
    use rstest::rstest;

    fn read(suites: &[&str]) -> BTreeSet<String> {
        suites.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn text_round_trips_sorted() {
        let mut with_config = kernel("7.3.4-1~bpo13+1", "trixie-backports");
        with_config.config = Some(with_config.image.clone());
        with_config.modules = Some(with_config.image.clone());
        let lock = Lock::of(vec![
            with_config,
            kernel("7.3~rc7-1~exp1", "experimental"),
            kernel("6.12.90-2", "a"),
            kernel("6.12.90-2~bpo12+1", "a"),
            kernel("5.10.218-1", "bullseye"),
        ]);
        let order: Vec<_> = lock.kernels().iter().map(|k| k.image.version.as_str()).collect();
        assert_eq!(
            order,
            ["5.10.218-1", "6.12.90-2~bpo12+1", "6.12.90-2", "7.3~rc7-1~exp1", "7.3.4-1~bpo13+1"]
        );
        assert_eq!(Lock::parse(&lock.to_text(), "test").expect("own output"), lock);
    }

    #[test]
    fn the_built_in_list_is_what_this_program_writes() {
        let lock = Lock::parse(BUILT_IN, "built-in").expect("the committed file");
        assert_eq!(lock.to_text(), BUILT_IN);
        assert!(!BUILT_IN.contains("://"), "no address of a mirror belongs in the lock");
    }

    #[rstest]
    #[case("\"schema\": 1", "\"schema\": 2", "schema 2")]
    #[case("pool/", "/pool/", "odd path")]
    #[case("pool/", "pool/../", "odd path")]
    #[case("\"5.10.218\"", "\"5.10.219\"", "is not version 5.10.219")]
    #[case("\"sha256\":\"", "\"sha256\":\"g", "odd SHA-256")]
    #[case("\"name\":\"", "\"name\":\"-x/", "odd package")]
    #[case("[\"bullseye\"]", "[\"\\u001b[2J\"]", "odd suite")]
    #[case("]\n}", "]", "EOF")]
    fn wrong_text_is_refused(#[case] from: &str, #[case] to: &str, #[case] message: &str) {
        let text = Lock::of(vec![kernel("5.10.218-1", "bullseye")]).to_text();
        let error = Lock::parse(&text.replace(from, to), "test").expect_err("refused").to_string();
        assert!(error.contains(message), "{error}");
    }

    #[test]
    fn merge_keeps_what_has_gone() {
        let mut lock = Lock::of(vec![kernel("6.1.1-1", "s"), kernel("6.1.2-1", "s")]);
        let merged =
            lock.merge(vec![kernel("6.1.2-1", "s"), kernel("6.1.3-1", "s")], &read(&["s"]));
        let gone: Vec<_> = lock.kernels().iter().map(|k| k.gone).collect();
        assert_eq!(gone, [true, false, false]);
        assert_eq!((merged.added.len(), merged.gone.len(), merged.other.len()), (1, 1, 0));

        let merged = lock.merge(
            vec![kernel("6.1.1-1", "s"), kernel("6.1.2-1", "s"), kernel("6.1.3-1", "s")],
            &read(&["s"]),
        );
        assert!(lock.kernels().iter().all(|k| !k.gone), "came back");
        assert_eq!((merged.added.len(), merged.gone.len()), (1, 0));
    }

    #[test]
    fn a_suite_that_was_not_read_proves_nothing() {
        let mut lock = Lock::of(vec![kernel("6.1.1-1", "unread"), kernel("6.1.2-1", "unread")]);
        let merged = lock.merge(vec![kernel("6.1.2-1", "s")], &read(&["s"]));
        assert!(lock.kernels().iter().all(|k| !k.gone));
        assert_eq!(merged, Merged::default());
        assert_eq!(lock.kernels()[1].suites, ["s", "unread"]);
    }

    #[test]
    fn other_content_under_the_same_version_is_told() {
        let mut lock = Lock::of(vec![kernel("6.1.1-1", "s")]);
        let mut new = kernel("6.1.1-1", "s");
        new.image.sha256 = "0".repeat(64);
        let merged = lock.merge(vec![new], &read(&["s"]));
        assert!(merged.other[0].contains("other content"), "{merged:?}");
    }
}
