//! Takes boot image, configuration and modules out of a package, without installing it.
//!
//! Debian's packages, rpm packages and tar files, these packed or not. Nothing is written to a path that a
//! package names: a member's name only says what it is.

use super::cpio;
use super::modules::Members;
use super::packed::{self, Packer};
use super::rpm;
use crate::{children, interrupt};
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::process::{Command, Stdio};

/// No kernel and no configuration is larger; a package that claims so is not worth the disk.
const MAX_IMAGE: u64 = 256 << 20;
const MAX_CONFIG: u64 = 8 << 20;

/// Why a package could not be unpacked.
#[derive(Debug)]
pub(super) enum UnpackError {
    /// The target could not be written.
    Write(io::Error),
    /// The package is not as expected, or the tool for it is missing.
    Package(String),
}

impl From<io::Error> for UnpackError {
    fn from(error: io::Error) -> Self {
        Self::Package(error.to_string())
    }
}

/// What a package held.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Unpacked {
    /// Whether there was a boot image, written to where it was asked for.
    pub(super) image: bool,
    /// The configuration's text.
    pub(super) config: Option<String>,
    /// The modules.
    pub(super) modules: Members,
}

/// Kinds of files that can hold a kernel beside other things.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Deb,
    Rpm,
    Tar,
}

impl Kind {
    /// The kind of a file; `None` if it is none of them.
    pub(super) fn of(path: &Path) -> io::Result<Option<Self>> {
        // A tar file's first head has its magic at 257.
        let mut head = Vec::new();
        File::open(path)?.take(512).read_to_end(&mut head)?;
        if head.starts_with(b"!<arch>\ndebian-binary") {
            return Ok(Some(Self::Deb));
        }
        if head.starts_with(&rpm::MAGIC) {
            return Ok(Some(Self::Rpm));
        }
        if Packer::of(&head).is_some() {
            head.clear();
            let contents = packed::unpacked(File::open(path)?)?;
            // What does not unpack is no tar file, whatever else it may be.
            if contents.take(512).read_to_end(&mut head).is_err() {
                return Ok(None);
            }
        }
        Ok((head.get(257..262) == Some(b"ustar")).then_some(Self::Tar))
    }
}

/// Reads a package of this kind and writes its boot image to `image`.
pub(super) fn unpack(kind: Kind, package: &Path, image: &Path) -> Result<Unpacked, UnpackError> {
    let mut taker = Taker { image, found: Unpacked::default() };
    match kind {
        Kind::Deb => return unpack_deb(package, taker),
        Kind::Tar => from_tar(packed::unpacked(File::open(package)?)?, &mut taker)?,
        Kind::Rpm => {
            cpio::each(rpm::open(package)?.archive, &mut |name, file| taker.take(name, file))?;
        }
    }
    Ok(taker.found)
}

fn unpack_deb(deb: &Path, mut taker: Taker<'_>) -> Result<Unpacked, UnpackError> {
    let mut command = Command::new("dpkg-deb");
    command.arg("--fsys-tarfile").arg(deb);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = children::bind(&mut command)
        .spawn()
        .map_err(|e| UnpackError::Package(format!("running dpkg-deb failed: {e}; install dpkg")))?;
    let read = match child.stdout.take() {
        Some(stdout) => from_tar(interrupt::Checked(stdout), &mut taker),
        None => unreachable!("the output is a pipe"),
    };
    // The pipe is closed by now: dpkg-deb ends, at the latest by a broken pipe.
    let output = child
        .wait_with_output()
        .map_err(|e| UnpackError::Package(format!("waiting for dpkg-deb failed: {e}")))?;
    let found = taker.found;
    match read {
        Ok(()) if found.image || found.config.is_some() || output.status.success() => Ok(found),
        Err(error @ UnpackError::Write(_)) => Err(error),
        Ok(()) => Err(UnpackError::Package(dpkg_words(&output.stderr, "ended early"))),
        Err(UnpackError::Package(why)) => {
            Err(UnpackError::Package(dpkg_words(&output.stderr, &why)))
        }
    }
}

fn dpkg_words(stderr: &[u8], otherwise: &str) -> String {
    let text = String::from_utf8_lossy(stderr);
    format!("dpkg-deb: {}", text.lines().next().unwrap_or(otherwise))
}

/// Reads the tar file that a package holds.
pub(super) fn members(tar: impl Read, image: &Path) -> Result<Unpacked, UnpackError> {
    let mut taker = Taker { image, found: Unpacked::default() };
    from_tar(tar, &mut taker)?;
    Ok(taker.found)
}

fn from_tar(tar: impl Read, taker: &mut Taker<'_>) -> Result<(), UnpackError> {
    for entry in tar::Archive::new(tar).entries()? {
        let mut entry = entry?;
        if entry.header().entry_type().is_file() {
            let member = entry.path()?.to_string_lossy().into_owned();
            taker.take(&member, &mut entry)?;
        }
    }
    Ok(())
}

/// Takes what is needed of a package's members, as they come.
struct Taker<'a> {
    image: &'a Path,
    found: Unpacked,
}

impl Taker<'_> {
    fn take(&mut self, member: &str, mut file: &mut dyn Read) -> Result<(), UnpackError> {
        match part(member) {
            Some(Part::Image) if !self.found.image => {
                copy(&mut file, self.image)?;
                self.found.image = true;
            }
            Some(Part::Config) if self.found.config.is_none() => {
                let mut text = String::new();
                file.take(MAX_CONFIG).read_to_string(&mut text)?;
                self.found.config = Some(text);
            }
            Some(_) => {}
            None => self.found.modules.offer(member, file)?,
        }
        Ok(())
    }
}

/// Copies with the errors of both sides kept apart: a full disk is not a broken package.
pub(super) fn copy(entry: &mut impl Read, image: &Path) -> Result<(), UnpackError> {
    let mut target = File::create(image).map_err(UnpackError::Write)?;
    let mut buffer = vec![0; 1 << 16];
    let mut total = 0;
    loop {
        let n = entry.read(&mut buffer).map_err(|e| UnpackError::Package(e.to_string()))?;
        if n == 0 {
            return Ok(());
        }
        total += n as u64;
        if total > MAX_IMAGE {
            return Err(UnpackError::Package("its boot image is larger than 256 MiB".into()));
        }
        io::Write::write_all(&mut target, &buffer[..n]).map_err(UnpackError::Write)?;
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Part {
    Image,
    Config,
}

/// Which part a member is: `boot/vmlinuz-*` and `boot/config-*` up to 7.1, then
/// `usr/lib/modules/*/vmlinuz` and `config`.
fn part(member: &str) -> Option<Part> {
    let member = member.strip_prefix("./").unwrap_or(member);
    if let Some(file) = member.strip_prefix("boot/") {
        return match file.split_once('-')?.0 {
            "vmlinuz" => Some(Part::Image),
            "config" => Some(Part::Config),
            _ => None,
        };
    }
    let modules = member.strip_prefix("usr/").unwrap_or(member).strip_prefix("lib/modules/")?;
    match modules.split_once('/')?.1 {
        "vmlinuz" => Some(Part::Image),
        "config" => Some(Part::Config),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("./boot/vmlinuz-5.10.0-30-cloud-amd64", Some(Part::Image))]
    #[case("./boot/config-5.10.0-30-cloud-amd64", Some(Part::Config))]
    #[case("./boot/System.map-5.10.0-30-cloud-amd64", None)]
    #[case("./usr/lib/modules/7.3.4+deb13-cloud-amd64/vmlinuz", Some(Part::Image))]
    #[case("./usr/lib/modules/7.3.4+deb13-cloud-amd64/config", Some(Part::Config))]
    #[case("./lib/modules/1/vmlinuz", Some(Part::Image))]
    #[case("./lib/modules/1/kernel/config", None)]
    #[case("./usr/share/doc/vmlinuz", None)]
    fn knows_its_parts(#[case] member: &str, #[case] expected: Option<Part>) {
        assert_eq!(part(member), expected);
    }

    #[test]
    fn no_package_is_an_error_with_the_tools_words() {
        let folder = tempfile::tempdir().expect("a folder");
        let deb = folder.path().join("x.deb");
        std::fs::write(&deb, "no package").expect("written");
        let error = unpack(Kind::Deb, &deb, &folder.path().join("image")).expect_err("refused");
        assert!(matches!(&error, UnpackError::Package(w) if w.contains("dpkg-deb")), "{error:?}");
    }

    #[test]
    fn a_full_disk_is_told_from_a_broken_package() {
        let mut source = io::repeat(1).take(1 << 20);
        let error = copy(&mut source, Path::new("/dev/full")).expect_err("full");
        assert!(matches!(&error, UnpackError::Write(e) if e.kind() == io::ErrorKind::StorageFull));
    }
}
