//! Hashing files and replacing them in one step.

use crate::scratch;
use sha2::{Digest, Sha256};
use std::io::{self, Read, Write};
use std::path::Path;

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
    sha256(std::fs::File::open(path)?)
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

/// Replaces `path` by `bytes`: a reader sees the old file or the new one, never a part.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    scratch::clean(folder, scratch::NEW);
    let (mut file, _owner) = scratch::new_file(folder)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|e| e.error)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert_eq!(std::fs::read_dir(folder.path()).expect("listed").count(), 1);
    }
}
