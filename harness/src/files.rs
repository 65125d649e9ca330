//! Hashing files and replacing them in one step.

use crate::scratch;
use nix::errno::Errno;
use sha2::{Digest, Sha256};
use std::fs::{self, File, Metadata};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

/// SHA-256 of all that is left to read, in lower-case hex, and its length.
pub(crate) fn sha256(mut reader: impl Read) -> io::Result<(String, u64)> {
    let (mut hash, mut length) = (Sha256::new(), 0);
    let mut buffer = vec![0; 1 << 16];
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => return Ok((hex(&hash.finalize()), length)),
            Ok(n) => {
                hash.update(&buffer[..n]);
                length += n as u64;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

/// SHA-256 of a file, and its length.
pub(crate) fn sha256_of(path: &Path) -> io::Result<(String, u64)> {
    sha256(File::open(path)?)
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(64), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Whether `text` is a SHA-256 as this program writes it.
pub(crate) fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// What writing to a path means.
#[derive(Debug)]
pub(crate) enum Target {
    /// A file at this place, which is there or will be: links lead to it.
    File(PathBuf),
    /// A device, a pipe or a socket, or what this process writes to already: it takes bytes as they come, and nothing
    /// can stand in its place.
    Stream,
}

/// Links that are followed before it is a circle.
const LINKS: u32 = 40;

impl Target {
    /// What is at `path`, or where it leads.
    pub(crate) fn of(path: &Path) -> io::Result<Self> {
        let Ok(there) = fs::metadata(path) else { return led_to(path).map(Self::File) };
        let is_link = fs::symlink_metadata(path)?.is_symlink();
        if there.is_dir() {
            Err(io::ErrorKind::IsADirectory.into())
        } else if !there.is_file() || is_link && own_output(&there).is_some() {
            Ok(Self::Stream)
        } else {
            fs::canonicalize(path).map(Self::File)
        }
    }
}

/// Where a path leads, be there something or not: links are followed.
pub(crate) fn led_to(path: &Path) -> io::Result<PathBuf> {
    if let Ok(there) = fs::canonicalize(path) {
        return Ok(there);
    }
    let mut path = path.to_owned();
    for _ in 0..LINKS {
        match fs::read_link(&path) {
            Ok(to) => path = path.parent().unwrap_or(Path::new("")).join(to),
            // There is none, or no link.
            Err(_) => return Ok(path),
        }
    }
    Err(Errno::ELOOP.into())
}

/// Of standard output and standard error the one that goes to this file, as `/dev/stdout` names it: what it opens
/// anew would begin at the file's head again.
fn own_output(there: &Metadata) -> Option<File> {
    let copies =
        [io::stdout().as_fd().try_clone_to_owned(), io::stderr().as_fd().try_clone_to_owned()];
    copies.into_iter().flatten().map(File::from).find(|file| {
        file.metadata().is_ok_and(|own| (own.dev(), own.ino()) == (there.dev(), there.ino()))
    })
}

/// Replaces the file at `path`, or the one that links there lead to, by `bytes`: a reader sees the old file or the new
/// one, never a part. What is no file is written to.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    Ready::new(path, bytes)?.put()
}

/// Bytes that lie on the disk of the file whose place they are to take, and need but its name. Dropped, they are gone.
#[derive(Debug)]
pub(crate) enum Ready<'b> {
    /// Beside the file.
    File(PathBuf, NamedTempFile, scratch::Owner),
    /// Still to be written, to what is no file.
    Stream(PathBuf, &'b [u8]),
}

impl<'b> Ready<'b> {
    /// Writes `bytes` beside the file at `path`, which need not be there, or beside the one that links there lead to.
    pub(crate) fn new(path: &Path, bytes: &'b [u8]) -> io::Result<Self> {
        let Target::File(path) = Target::of(path)? else {
            return Ok(Self::Stream(path.to_owned(), bytes));
        };
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        scratch::clean(folder, scratch::NEW);
        let (mut file, owner) = scratch::new_file(folder)?;
        file.write_all(bytes)?;
        file.as_file().sync_all()?;
        Ok(Self::File(path, file, owner))
    }

    /// Puts them in their place.
    pub(crate) fn put(self) -> io::Result<()> {
        match self {
            Self::File(path, file, _owner) => file.persist(path).map(drop).map_err(|e| e.error),
            Self::Stream(path, bytes) => {
                let there = fs::metadata(&path)?;
                let own = own_output(&there).map(Ok);
                let mut stream = own.unwrap_or_else(|| File::options().write(true).open(path))?;
                io::stdout().flush()?;
                stream.write_all(bytes)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::stat::{Mode, SFlag, mknod};
    use rstest::rstest;
    use std::os::unix::fs::{FileTypeExt, symlink};

    #[test]
    fn replaces_and_hashes() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("f");
        replace(&path, b"old").expect("written");
        replace(&path, b"abc").expect("replaced");
        let (hash, length) = sha256_of(&path).expect("read");
        assert_eq!(hash, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert!(is_sha256(&hash) && !is_sha256("BA78"));
        assert_eq!(length, 3);
        assert_eq!(fs::read_dir(folder.path()).expect("listed").count(), 1);
    }

    /// Whether the file that a link leads to is there already or not.
    #[rstest]
    fn links_are_followed_and_stay(#[values(false, true)] is_there: bool) {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("below")).expect("a folder");
        if is_there {
            fs::write(at("below/file"), "old").expect("written");
        }
        symlink("below/link", at("link")).expect("linked");
        symlink("file", at("below/link")).expect("linked");
        replace(&at("link"), b"new").expect("written");
        assert_eq!(fs::read(at("below/file")).expect("read"), b"new");
        assert!(["link", "below/link"].iter().all(|link| at(link).is_symlink()));
        assert_eq!(fs::read_dir(at("below")).expect("listed").count(), 2);
        symlink("circle", at("circle")).expect("linked");
        replace(&at("circle"), b"new").expect_err("it leads nowhere");
        assert!(
            replace(folder.path(), b"new").is_err_and(|e| e.kind() == io::ErrorKind::IsADirectory)
        );
    }

    #[rstest]
    fn a_pipe_is_written_to_and_stays(#[values(false, true)] by_link: bool) {
        let folder = tempfile::tempdir().expect("a folder");
        let (pipe, link) = (folder.path().join("pipe"), folder.path().join("link"));
        nix::unistd::mkfifo(&pipe, Mode::S_IRWXU).expect("a pipe");
        symlink("pipe", &link).expect("linked");
        let reader = std::thread::spawn({
            let pipe = pipe.clone();
            move || fs::read(pipe).expect("read")
        });
        replace(if by_link { &link } else { &pipe }, b"all of it").expect("written");
        assert_eq!(reader.join().expect("it ends"), b"all of it");
        assert!(fs::symlink_metadata(&pipe).expect("there").file_type().is_fifo());
        assert_eq!(fs::read_dir(folder.path()).expect("listed").count(), 2);
    }

    /// A copy of /dev/null: where it could be replaced, it must not.
    #[test]
    fn a_device_is_written_to_and_stays() {
        let folder = tempfile::tempdir().expect("a folder");
        let null = folder.path().join("null");
        let number = fs::metadata("/dev/null").expect("a device").rdev();
        match mknod(&null, SFlag::S_IFCHR, Mode::S_IRUSR | Mode::S_IWUSR, number) {
            Err(Errno::EPERM) => return eprintln!("this user can't make a device: not asked"),
            made => made.expect("a device"),
        }
        match replace(&null, b"gone") {
            // On a file system without devices it can't be opened; it stays all the same.
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {}
            written => written.expect("written"),
        }
        assert!(fs::metadata(&null).expect("there").file_type().is_char_device());
        assert_eq!(fs::read_dir(folder.path()).expect("listed").count(), 1);
    }
}
