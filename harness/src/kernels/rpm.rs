//! Reads rpm packages (headers of version 3 and 4): what one is called, and its files.
//!
//! A package is a lead of 96 bytes, a header with signatures, a header with what is known of the package, and
//! a compressed cpio archive. A header is a table of entries (tag, type, offset, count) and a store that the
//! offsets point into; all numbers are big-endian. Signatures are not checked: the file is the user's.

use super::packed;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

/// How the file begins.
pub(super) const MAGIC: [u8; 4] = [0xed, 0xab, 0xee, 0xdb];

const LEAD: usize = 96;

/// How a header begins; four bytes without meaning follow.
const HEADER: [u8; 4] = [0x8e, 0xad, 0xe8, 0x01];

/// rpm's own limit of a header, in bytes, and of its entries.
const LARGEST_HEADER: u64 = 256 << 20;
const MOST_ENTRIES: u64 = 0x1_0000;

const NAME: u32 = 1000;
const VERSION: u32 = 1001;
const RELEASE: u32 = 1002;
const STRING: u32 = 6;

/// An opened package.
pub(super) struct Rpm {
    /// What it is called, without version.
    pub(super) name: String,
    /// Version and release, joined by a dash.
    pub(super) version: String,
    /// Its cpio archive.
    pub(super) archive: Box<dyn Read>,
}

/// Opens a package.
pub(super) fn open(path: &Path) -> io::Result<Rpm> {
    let mut file = File::open(path)?;
    let (name, version) = head(&mut file)?;
    Ok(Rpm { name, version, archive: packed::unpacked(file)? })
}

/// Reads up to the archive: what the package is called, and its version and release.
pub(super) fn head(file: &mut (impl Read + Seek)) -> io::Result<(String, String)> {
    let mut lead = [0; LEAD];
    file.read_exact(&mut lead).map_err(short)?;
    if lead[..4] != MAGIC {
        return Err(odd("it is no rpm package"));
    }
    let signatures = header(file)?;
    // Only this header is padded.
    let padding = signatures.store.len().next_multiple_of(8) - signatures.store.len();
    file.seek(SeekFrom::Current(i64::try_from(padding).unwrap_or(0)))?;
    let header = header(file)?;
    let text = |tag| header.text(tag).ok_or_else(|| odd("its header does not say what it is"));
    let (name, version, release) = (text(NAME)?, text(VERSION)?, text(RELEASE)?);
    Ok((name, format!("{version}-{release}")))
}

struct Header {
    entries: Vec<u8>,
    store: Vec<u8>,
}

fn header(file: &mut impl Read) -> io::Result<Header> {
    let mut head = [0; 16];
    file.read_exact(&mut head).map_err(short)?;
    if head[..4] != HEADER {
        return Err(odd("a header of it is damaged, or of another version than 3 and 4"));
    }
    let entries = u64::from(long(&head, 8).unwrap_or(0));
    let size = u64::from(long(&head, 12).unwrap_or(0));
    if entries > MOST_ENTRIES || size > LARGEST_HEADER {
        return Err(odd("a header of it is larger than any"));
    }
    let mut read = |len: u64| {
        let mut bytes = Vec::new();
        file.by_ref().take(len).read_to_end(&mut bytes)?;
        if bytes.len() as u64 == len { Ok(bytes) } else { Err(odd("it is cut short")) }
    };
    Ok(Header { entries: read(entries * 16)?, store: read(size)? })
}

impl Header {
    /// The text that a tag has.
    fn text(&self, tag: u32) -> Option<String> {
        let entry = self
            .entries
            .chunks_exact(16)
            .find(|entry| long(entry, 0) == Some(tag) && long(entry, 4) == Some(STRING))?;
        let rest = self.store.get(usize::try_from(long(entry, 8)?).ok()?..)?;
        let text = std::str::from_utf8(rest.split(|b| *b == 0).next()?).ok()?;
        // As in `Package`'s texts, which stand in records.
        let fit =
            !text.is_empty() && text.len() <= 100 && text.bytes().all(|b| b.is_ascii_graphic());
        fit.then(|| text.to_owned())
    }
}

fn long(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_be_bytes)
}

fn odd(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

fn short(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => odd("it is cut short"),
        _ => error,
    }
}

#[cfg(test)]
pub(super) mod testing {
    use super::{HEADER, LEAD, MAGIC, NAME, RELEASE, STRING, VERSION};

    fn header(texts: &[(u32, &str)]) -> Vec<u8> {
        let (mut entries, mut store) = (Vec::new(), Vec::new());
        for (tag, text) in texts {
            let at = u32::try_from(store.len()).expect("short");
            entries.extend([*tag, STRING, at, 1].into_iter().flat_map(u32::to_be_bytes));
            store.extend(text.bytes().chain([0]));
        }
        let mut out = HEADER.to_vec();
        let [count, size] = [texts.len(), store.len()].map(|n| u32::try_from(n).expect("short"));
        out.extend([0, count, size].into_iter().flat_map(u32::to_be_bytes));
        out.extend(entries);
        out.extend(store);
        out
    }

    /// A package with this payload.
    pub(in crate::kernels) fn rpm(payload: &[u8]) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.resize(LEAD, 0);
        out.extend(header(&[(267, "signed")]));
        out.resize(out.len().next_multiple_of(8), 0);
        out.extend(header(&[(NAME, "kernel-core"), (VERSION, "6.12.9"), (RELEASE, "200.fc41")]));
        out.extend(payload);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::testing::rpm;
    use super::*;
    use rstest::rstest;

    fn opened(bytes: &[u8]) -> io::Result<(String, String, Vec<u8>)> {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), bytes).expect("written");
        let mut rpm = open(file.path())?;
        let mut archive = Vec::new();
        rpm.archive.read_to_end(&mut archive)?;
        Ok((rpm.name, rpm.version, archive))
    }

    #[rstest]
    #[case(b"archive".to_vec())]
    #[case(zstd::bulk::compress(b"archive", 1).expect("memory"))]
    fn name_version_and_archive_are_read(#[case] payload: Vec<u8>) {
        let expected = ("kernel-core".into(), "6.12.9-200.fc41".into(), b"archive".to_vec());
        assert_eq!(opened(&rpm(&payload)).expect("a package"), expected);
    }

    #[rstest]
    #[case(0, 0, "no rpm package")]
    #[case(96, 0, "damaged")]
    #[case(99, 2, "another version")]
    #[case(104, 0xff, "larger than any")]
    #[case(108, 0xff, "larger than any")]
    #[case(96 + 16 + 16 + 8 + 16 + 2, 0xff, "does not say what it is")]
    fn damage_is_told(#[case] at: usize, #[case] byte: u8, #[case] why: &str) {
        let mut bytes = rpm(b"archive");
        bytes[at] = byte;
        let error = opened(&bytes).expect_err("refused").to_string();
        assert!(error.contains(why), "{error}");
    }

    #[test]
    fn cuts_before_the_payload_are_noticed() {
        let whole = rpm(b"");
        for cut in 0..whole.len() {
            assert!(opened(&whole[..cut]).is_err(), "cut at {cut}");
        }
    }
}
