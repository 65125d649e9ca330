//! Reads the cpio archive that an rpm package holds, a member after the other.
//!
//! A member's name is a text to choose by and never a path to write to.

use std::io::{self, Read};

/// Longest name that a member may have, in bytes.
const LONGEST_NAME: u64 = 4096;

/// Bytes of a member's head: a magic and 13 numbers in hexadecimal digits.
const HEAD: usize = 110;

/// The name behind which nothing comes.
const END: &str = "TRAILER!!!";

/// The bits of a mode that tell the kind of file, and a regular file's.
const KIND: u64 = 0o170_000;
const REGULAR: u64 = 0o100_000;

/// Reads an archive (`newc`, with or without checksums) and hands each regular file to `take`, which need
/// not read all of it.
pub(super) fn each<E: From<io::Error>>(
    mut archive: impl Read,
    take: &mut dyn FnMut(&str, &mut dyn Read) -> Result<(), E>,
) -> Result<(), E> {
    loop {
        let mut head = [0; HEAD];
        archive.read_exact(&mut head).map_err(short)?;
        match &head[..6] {
            b"070701" | b"070702" => {}
            b"07070X" => {
                return Err(odd(
                    "its files are larger than 4 GiB together, or it is of rpm's format 6",
                )
                .into());
            }
            _ => return Err(odd("its payload is no cpio archive").into()),
        }
        let (mode, size) = (number(&head, 1)?, number(&head, 6)?);
        let name = name(&mut archive, number(&head, 11)?)?;
        if name == END {
            return Ok(());
        }
        let mut file = archive.by_ref().take(size);
        if mode & KIND == REGULAR {
            take(&name, &mut file)?;
        }
        let left = file.limit() + padding(size);
        let skipped = io::copy(&mut archive.by_ref().take(left), &mut io::sink())?;
        if skipped < left {
            return Err(short(io::ErrorKind::UnexpectedEof.into()).into());
        }
    }
}

/// The number in a place of the head.
fn number(head: &[u8; HEAD], place: usize) -> io::Result<u64> {
    let at = 6 + place * 8;
    let digits = std::str::from_utf8(&head[at..at + 8]).ok();
    // A sign would be taken for a part of the number.
    let digits = digits.filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
    digits
        .and_then(|digits| u64::from_str_radix(digits, 16).ok())
        .ok_or_else(|| odd("a member's head is damaged"))
}

fn name(archive: &mut impl Read, size: u64) -> io::Result<String> {
    if !(1..=LONGEST_NAME).contains(&size) {
        return Err(odd("a member's name is longer than any"));
    }
    let whole = size + padding(HEAD as u64 + size);
    let mut bytes = Vec::new();
    archive.take(whole).read_to_end(&mut bytes)?;
    if bytes.len() as u64 != whole {
        return Err(short(io::ErrorKind::UnexpectedEof.into()));
    }
    let end =
        bytes.iter().position(|b| *b == 0).ok_or_else(|| odd("a member's name has no end"))?;
    Ok(String::from_utf8_lossy(&bytes[..end]).into_owned())
}

/// Bytes from a length to the next multiple of four.
const fn padding(len: u64) -> u64 {
    len.next_multiple_of(4) - len
}

fn odd(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

fn short(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => odd("its payload is cut short"),
        _ => error,
    }
}

#[cfg(test)]
pub(super) mod testing {
    use std::fmt::Write as _;

    /// An archive with these members: mode, name, contents.
    pub(in crate::kernels) fn archive(members: &[(u32, &str, &[u8])]) -> Vec<u8> {
        let mut out = Vec::new();
        for (mode, name, bytes) in members.iter().chain(&[(0, super::END, &b""[..])]) {
            let mut numbers = [0; 13];
            numbers[1] = *mode;
            numbers[6] = u32::try_from(bytes.len()).expect("short");
            numbers[11] = u32::try_from(name.len() + 1).expect("short");
            let head = numbers.iter().fold("070701".to_owned(), |mut head, number| {
                let _ = write!(head, "{number:08x}");
                head
            });
            out.extend(head.bytes().chain(name.bytes()).chain([0]));
            out.resize(out.len().next_multiple_of(4), 0);
            out.extend(*bytes);
            out.resize(out.len().next_multiple_of(4), 0);
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::testing::archive;
    use super::*;
    use rstest::rstest;

    fn read(archive: &[u8]) -> io::Result<Vec<(String, String)>> {
        let mut found = Vec::new();
        each(archive, &mut |name, file| {
            let mut text = String::new();
            file.read_to_string(&mut text)?;
            found.push((name.to_owned(), text));
            Ok::<_, io::Error>(())
        })
        .map(|()| found)
    }

    fn sample() -> Vec<u8> {
        archive(&[
            (0o040_755, "./lib", b""),
            (0o100_644, "./lib/a", b"one"),
            (0o120_777, "./lib/link", b"/etc/passwd"),
            (0o100_644, "../../etc/shadow", b"four"),
        ])
    }

    #[test]
    fn regular_files_come_with_their_names_as_they_are() {
        let expected = [("./lib/a", "one"), ("../../etc/shadow", "four")];
        assert_eq!(read(&sample()).expect("read"), expected.map(|(n, t)| (n.into(), t.into())));
    }

    #[test]
    fn what_is_not_read_is_passed_over() {
        let mut names = Vec::new();
        let taken = each(&sample()[..], &mut |name, _| {
            names.push(name.to_owned());
            Ok::<_, io::Error>(())
        });
        taken.expect("read");
        assert_eq!(names.len(), 2);
    }

    #[rstest]
    #[case(&|a: &mut Vec<u8>| a[5] = b'X', "larger than 4 GiB")]
    #[case(&|a: &mut Vec<u8>| a[0] = 0, "no cpio archive")]
    #[case(&|a: &mut Vec<u8>| a[14] = b'+', "head is damaged")]
    #[case(&|a: &mut Vec<u8>| a[94..102].copy_from_slice(b"ffffffff"), "longer than any")]
    #[case(&|a: &mut Vec<u8>| a[94..102].copy_from_slice(b"00000000"), "longer than any")]
    #[case(&|a: &mut Vec<u8>| a[115] = b'x', "no end")]
    fn damage_is_told(#[case] spoil: &dyn Fn(&mut Vec<u8>), #[case] why: &str) {
        let mut archive = sample();
        spoil(&mut archive);
        let error = read(&archive).expect_err("refused").to_string();
        assert!(error.contains(why), "{error}");
    }

    #[test]
    fn every_cut_is_noticed() {
        let whole = sample();
        for cut in 0..whole.len() - 1 {
            assert!(read(&whole[..cut]).is_err(), "cut at {cut}");
        }
    }
}
