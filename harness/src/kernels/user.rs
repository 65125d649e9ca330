//! A kernel of the user's own: from files that the user names to an image that can be booted.
//!
//! The boot image comes as it is, or in a package that is unpacked for this run only; modules and configuration
//! come from the same package or from further files.

use super::header::{self, Header};
use super::identity::{self, Held, Identity, Image};
use super::modules::{self, Members};
use super::packed::{self, Packer};
use super::rpm;
use super::unpack::{Kind, UnpackError, Unpacked, copy, unpack};
use crate::files;
use crate::scratch::{self, Scratch};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use uffd_results::Package;

/// Beginning of the names of folders with what packages of the user's held.
const PREFIX: &str = "uffd-conform-kernel-";

/// The files of a kernel of the user's own.
#[derive(Clone, Debug, Default)]
pub struct UserKernel {
    /// A boot image, or a package with one.
    pub image: PathBuf,
    /// Folders and packages with its modules.
    pub modules: Vec<PathBuf>,
    /// Its configuration.
    pub config: Option<PathBuf>,
    /// The program that becomes PID 1 on it, if not this one.
    pub program: Option<PathBuf>,
}

/// Why a file can't be used.
#[derive(Debug, thiserror::Error)]
pub enum UserError {
    /// It holds no kernel that could be booted.
    #[error(
        "{path:?} can't be booted: {why}; give the bzImage or vmlinux of an x86-64 kernel, the Image of an \
         arm64 one, or a package (deb, rpm, tar) that holds it"
    )]
    Image {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A package has no kernel in it.
    #[error(
        "{path:?} holds no boot image (boot/vmlinuz-* or lib/modules/*/vmlinuz); it is in linux-image-* or, \
         from 6.19 on, linux-binary-* of Debian, in kernel-core of Fedora, in kernel-default of SUSE"
    )]
    Without {
        /// The package.
        path: PathBuf,
    },
    /// Modules can't be taken from there.
    #[error(
        "{path:?} gives no modules for {release}: {why}; give the folder lib/modules/{release}, or a package \
         (deb, rpm, tar) that holds it"
    )]
    Modules {
        /// The folder or file.
        path: PathBuf,
        /// The kernel's release.
        release: String,
        /// What is wrong there.
        why: String,
    },
    /// The configuration can't be read.
    #[error(
        "{path:?} is no kernel's configuration: {why}; give its .config, or leave --config out"
    )]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// There is no room to unpack a package.
    #[error(
        "unpacking a kernel into {folder:?} failed: {error}; make room there, or name another folder in TMPDIR"
    )]
    Scratch {
        /// The folder.
        folder: PathBuf,
        /// What is wrong with it.
        error: io::Error,
    },
}

/// Largest configuration, in bytes.
const MAX_CONFIG: u64 = 8 << 20;

/// Identifies a kernel of the user's own and unpacks what has to be. `say` gets what somebody should know.
pub fn user_image(files: &UserKernel, say: &dyn Fn(&str)) -> Result<Image, UserError> {
    let UserKernel { image: path, modules, config, program } = files;
    let error = |why: String| UserError::Image { path: path.clone(), why };
    let kind = Kind::of(path).map_err(|e| error(format!("opening it failed: {e}")))?;
    // Made at the first use; a bare boot image needs none.
    let mut scratch = None;
    let (image, mut found, package) = match kind {
        None => (path.clone(), Unpacked::default(), None),
        Some(kind) => {
            let image = folder(&mut scratch)?.join("vmlinuz");
            let found = unpacked(kind, path, &image, error)?;
            if !found.image {
                return Err(UserError::Without { path: path.clone() });
            }
            (image, found, package(kind, path).map_err(error)?)
        }
    };
    let image = plain(image, &mut scratch, error)?;
    let header = File::open(&image)
        .map_err(|e| format!("opening it failed: {e}"))
        .and_then(|mut file| header::read(&mut file))
        .map_err(error)?;
    let upstream = header
        .upstream()
        .ok_or_else(|| error(format!("its release {:?} begins with no version", header.release)))?;
    let (image_sha256, _) =
        files::sha256_of(&image).map_err(|e| error(format!("reading it failed: {e}")))?;

    let mut members = std::mem::take(&mut found.modules);
    for path in modules {
        let more = more_modules(path, &header, &mut scratch)?;
        members.join(more.modules);
        found.config = found.config.or(more.config);
    }
    if let Some(path) = config {
        found.config = Some(read_config(path)?);
    }
    let place = modules.last().unwrap_or(path);
    let tar = packed_modules(&members, place, &header)?;
    if tar.is_none() && !modules.is_empty() {
        say(&format!(
            "{}: of the modules that cases can ask for (kvm-amd, zram, loop) there are none: what needs them \
             and is not built in is skipped",
            place.display()
        ));
    }
    let modules = match tar {
        None => None,
        Some(tar) => {
            let folder = folder(&mut scratch)?;
            let path = folder.join("modules.tar");
            fs::write(&path, tar).map_err(|error| UserError::Scratch { folder, error })?;
            Some(path)
        }
    };
    let Header { arch, release, .. } = header;
    let config = identity::options(&found.config.unwrap_or_default());
    let identity = Identity { upstream, release, package, image_sha256, config };
    let scratch = scratch.map(|folder| Held(Arc::new(folder)));
    let program = program.clone();
    Ok(Image { path: image, arch, program, modules, identity, scratch })
}

/// The folder of what is unpacked, below the system's for temporary files.
fn folder(kept: &mut Option<Scratch>) -> Result<PathBuf, UserError> {
    if let Some(kept) = kept {
        return Ok(kept.path().to_owned());
    }
    let parent = std::env::temp_dir();
    // What a run that was killed has left there.
    scratch::clean(&parent, PREFIX);
    let made = Scratch::new(PREFIX, &parent)
        .map_err(|error| UserError::Scratch { folder: parent, error })?;
    Ok(kept.insert(made).path().to_owned())
}

/// An image as it is; one that is packed as a whole, as distributions have it for arm64, unpacked.
fn plain(
    image: PathBuf,
    scratch: &mut Option<Scratch>,
    error: impl Fn(String) -> UserError,
) -> Result<PathBuf, UserError> {
    let broken = |e: io::Error| error(format!("reading it failed: {e}"));
    let mut head = Vec::new();
    let opened = File::open(&image).map_err(broken)?;
    opened.take(packed::HEAD as u64).read_to_end(&mut head).map_err(broken)?;
    if Packer::of(&head).is_none() {
        return Ok(image);
    }
    let folder = folder(scratch)?;
    let target = folder.join("image");
    let mut contents =
        File::open(&image).and_then(packed::unpacked).map_err(|e| error(e.to_string()))?;
    copy(&mut contents, &target).map_err(|e| match e {
        UnpackError::Package(why) => error(why),
        UnpackError::Write(error) => UserError::Scratch { folder, error },
    })?;
    Ok(target)
}

fn unpacked(
    kind: Kind,
    package: &Path,
    image: &Path,
    error: impl Fn(String) -> UserError,
) -> Result<Unpacked, UserError> {
    unpack(kind, package, image).map_err(|e| match e {
        UnpackError::Package(why) => error(why),
        UnpackError::Write(error) => {
            UserError::Scratch { folder: image.parent().unwrap_or(image).to_owned(), error }
        }
    })
}

/// What a package calls itself; a tar file is none.
fn package(kind: Kind, path: &Path) -> Result<Option<Package>, String> {
    let (name, version) = match kind {
        Kind::Tar => return Ok(None),
        Kind::Rpm => {
            let rpm = rpm::open(path).map_err(|e| e.to_string())?;
            (rpm.name, rpm.version)
        }
        Kind::Deb => {
            let output = Command::new("dpkg-deb")
                .args(["--show", "--showformat=${Package}\n${Version}\n"])
                .arg(path)
                .output()
                .map_err(|e| format!("running dpkg-deb failed: {e}; install dpkg"))?;
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            let mut lines = text.lines().map(str::to_owned);
            match (lines.next(), lines.next()) {
                (Some(name), Some(version)) => (name, version),
                _ => return Err("it does not say what package it is".into()),
            }
        }
    };
    let (sha256, _) = files::sha256_of(path).map_err(|e| format!("reading it failed: {e}"))?;
    Ok(Some(Package { name, version, sha256 }))
}

/// The modules, and the configuration if there is one, of a folder or package.
fn more_modules(
    path: &Path,
    header: &Header,
    scratch: &mut Option<Scratch>,
) -> Result<Unpacked, UserError> {
    let release = &header.release;
    let error =
        |why: String| UserError::Modules { path: path.into(), release: release.clone(), why };
    if !path.is_dir() {
        let kind = Kind::of(path).map_err(|e| error(format!("opening it failed: {e}")))?;
        let kind = kind.ok_or_else(|| error("it is no folder and no package".into()))?;
        let unused = folder(scratch)?.join("unused");
        return unpacked(kind, path, &unused, error);
    }
    let places = ["lib/modules", "usr/lib/modules", ""].map(|below| path.join(below).join(release));
    let folder = places.into_iter().chain([path.to_owned()]).find(|f| f.join("kernel").is_dir());
    let folder = folder.ok_or_else(|| error("there is no folder \"kernel\" in it".into()))?;
    let mut found = Unpacked::default();
    found.modules.offer_folder(&folder.join("kernel")).map_err(|e| error(e.to_string()))?;
    let config = folder.join("config");
    if config.is_file() {
        found.config = Some(read_config(&config)?);
    }
    Ok(found)
}

/// The modules that cases can ask for, if they are this kernel's.
fn packed_modules(
    members: &Members,
    place: &Path,
    header: &Header,
) -> Result<Option<Vec<u8>>, UserError> {
    let release = &header.release;
    let error = |why| UserError::Modules { path: place.into(), release: release.clone(), why };
    for (name, module) in members.kept().map_err(|e| error(e.to_string()))? {
        match modules::release_of(&module) {
            Some(other) if other != *release => {
                return Err(error(format!("its module {name} is built for {other}")));
            }
            _ => {}
        }
    }
    members.to_tar().map_err(|e| error(e.to_string()))
}

fn read_config(path: &Path) -> Result<String, UserError> {
    let error = |why: String| UserError::Config { path: path.into(), why };
    let mut text = String::new();
    File::open(path)
        .and_then(|file| file.take(MAX_CONFIG).read_to_string(&mut text))
        .map_err(|e| error(format!("reading it failed: {e}")))?;
    if text.lines().any(|line| line.starts_with("CONFIG_")) {
        return Ok(text);
    }
    Err(error("no line of it begins with CONFIG_".into()))
}

#[cfg(test)]
#[path = "user_tests.rs"]
mod tests;
