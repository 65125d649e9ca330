//! The header of an x86 boot image: is it one, is it whole, and which kernel does it hold?
//!
//! Offsets are those of the kernel's Documentation/arch/x86/boot.rst.

use std::io::{Read, Seek, SeekFrom};
use uffd_results::{KernelVersion, is_plain};

const SETUP_SECTORS: usize = 0x1f1;
const SYSTEM_SIZE: usize = 0x1f4;
const MAGIC: usize = 0x202;
const PROTOCOL: usize = 0x206;
const KERNEL_VERSION: usize = 0x20e;
const LOAD_FLAGS: usize = 0x211;
const EXTENDED_LOAD_FLAGS: usize = 0x236;

const SECTOR: usize = 512;

/// What a boot image says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// What `uname -r` will say.
    pub(super) release: String,
    /// The release, who built it, and what `uname -v` will say.
    banner: String,
}

impl Header {
    /// The upstream version. Debian's older releases hide it (`6.1.0-47` is 6.1.170), the banner
    /// names the package version.
    pub(super) fn upstream(&self) -> Option<KernelVersion> {
        let debian = self.banner.split_once(" Debian ").map(|(_, version)| version);
        debian
            .and_then(|version| KernelVersion::parse(version).ok())
            .or_else(|| KernelVersion::parse(&self.release).ok())
    }
}

/// Reads the header of a boot image; the error says what is wrong with the file.
pub(super) fn read(file: &mut (impl Read + Seek)) -> Result<Header, String> {
    let io = |e: std::io::Error| format!("reading it failed: {e}");
    let mut head = Vec::new();
    file.seek(SeekFrom::Start(0)).map_err(io)?;
    // Setup code is at most 255 sectors and one; the version string lies in it.
    file.by_ref().take(256 * SECTOR as u64).read_to_end(&mut head).map_err(io)?;
    let length = file.seek(SeekFrom::End(0)).map_err(io)?;

    if bytes::<4>(&head, MAGIC) != Some(*b"HdrS") {
        return Err(format!("{}, but an x86 boot image (bzImage) is needed", kind(&head)));
    }
    let short = || "it is cut short".to_owned();
    let byte = |at| bytes::<1>(&head, at).map(|[b]| b).ok_or_else(short);
    let word = |at| bytes::<2>(&head, at).map(u16::from_le_bytes).ok_or_else(short);
    let long = |at| bytes::<4>(&head, at).map(u32::from_le_bytes).ok_or_else(short);
    if byte(LOAD_FLAGS)? & 1 == 0 {
        return Err("it is a zImage, built for low memory".to_owned());
    }
    // The 64-bit flag came with protocol 2.12 (Linux 3.8), long before userfaultfd.
    if word(PROTOCOL)? < 0x20c || word(EXTENDED_LOAD_FLAGS)? & 1 == 0 {
        return Err("it has no 64-bit entry: it is a 32-bit kernel or older than 3.8".to_owned());
    }
    let setup = (usize::from(byte(SETUP_SECTORS)?) + 1) * SECTOR;
    let whole = setup as u64 + u64::from(long(SYSTEM_SIZE)?) * 16;
    if length < whole {
        return Err(format!("it is cut short: {length} bytes, its header says {whole}"));
    }
    let at = usize::from(word(KERNEL_VERSION)?) + SECTOR;
    let banner = head
        .get(at..setup)
        .filter(|_| at != SECTOR)
        .and_then(|rest| rest.split(|b| *b == 0).next())
        .and_then(|text| std::str::from_utf8(text).ok())
        .filter(|text| text.chars().all(is_plain))
        .ok_or("its header names no kernel version")?;
    match banner.split_whitespace().next() {
        Some(release) => Ok(Header { release: release.to_owned(), banner: banner.to_owned() }),
        None => Err("its header names an empty kernel version".to_owned()),
    }
}

fn bytes<const N: usize>(head: &[u8], at: usize) -> Option<[u8; N]> {
    head.get(at..at + N)?.try_into().ok()
}

/// What a file that is no boot image seems to be.
fn kind(head: &[u8]) -> &'static str {
    match head {
        [] => "it is empty",
        [0x7f, b'E', b'L', b'F', ..] => "it is an ELF file such as vmlinux",
        [0x1f, 0x8b, ..] | [0xfd, b'7', b'z', ..] | [0x28, 0xb5, 0x2f, 0xfd, ..] => {
            "it is a compressed file"
        }
        _ if bytes::<4>(head, 0x38) == Some(*b"ARMd") => "it is a kernel for arm64",
        _ => "it has no kernel's header",
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::bzimage;
    use super::*;
    use rstest::rstest;
    use std::io::Cursor;

    const OLD: &str = "5.10.0-30-cloud-amd64 (who@where) #1 SMP Debian 5.10.218-1 (2024-06-01)";

    #[rstest]
    #[case(OLD, "5.10.0-30-cloud-amd64", Some("5.10.218"))]
    #[case(
        "7.3-cloud-amd64 (a) #1 SMP Debian 7.3~rc7-1~exp1 (b)",
        "7.3-cloud-amd64",
        Some("7.3-rc7")
    )]
    #[case("6.18.0-rc3-00012-gabc+ (me@here) #7 SMP", "6.18.0-rc3-00012-gabc+", Some("6.18-rc3"))]
    #[case("mine", "mine", None)]
    fn reads(#[case] banner: &str, #[case] release: &str, #[case] upstream: Option<&str>) {
        let header = read(&mut Cursor::new(bzimage(banner, &[1; 64]))).expect("a boot image");
        assert_eq!(header.release, release);
        assert_eq!(header.upstream().map(|v| v.to_string()).as_deref(), upstream);
    }

    #[rstest]
    #[case(|i: &mut Vec<u8>| i.clear(), "it is empty")]
    #[case(|i: &mut Vec<u8>| i[0x202] = 0, "no kernel's header")]
    #[case(|i: &mut Vec<u8>| { i[..4].copy_from_slice(b"\x7fELF"); i[0x202] = 0 }, "ELF")]
    #[case(|i: &mut Vec<u8>| i[0x211] = 0, "zImage")]
    #[case(|i: &mut Vec<u8>| i[0x236] = 0, "32-bit")]
    #[case(|i: &mut Vec<u8>| i[0x206] = 0, "32-bit")]
    #[case(|i: &mut Vec<u8>| i.truncate(i.len() - 1), "cut short")]
    #[case(|i: &mut Vec<u8>| i.truncate(0x208), "cut short")]
    #[case(|i: &mut Vec<u8>| i[0x20e..0x210].fill(0), "names no kernel version")]
    #[case(|i: &mut Vec<u8>| i[0x20e..0x210].fill(0xff), "names no kernel version")]
    #[case(|i: &mut Vec<u8>| i[0x501] = 0x1b, "names no kernel version")]
    #[case(|i: &mut Vec<u8>| i[0x500] = 0, "empty kernel version")]
    fn says_what_is_wrong(#[case] spoil: fn(&mut Vec<u8>), #[case] message: &str) {
        let mut image = bzimage(OLD, &[1; 64]);
        spoil(&mut image);
        let error = read(&mut Cursor::new(image)).expect_err("refused");
        assert!(error.contains(message), "{error}");
    }
}
