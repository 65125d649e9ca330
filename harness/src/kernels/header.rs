//! The head of a boot image: is it one, for which architecture, is it whole, and which kernel does it hold?
//!
//! Offsets are those of the kernel's Documentation/arch/x86/boot.rst and arch/arm64/booting.rst. Only a bzImage
//! names its kernel in its head; elsewhere the kernel's own banner is looked for.

use crate::arch::Arch;
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

/// No boot image is larger: a vmlinux with all that debuggers want has some hundreds of MiB.
const MAX_IMAGE: u64 = 2 << 30;

const ARM64_FLAGS: usize = 24;
const ARM64_MAGIC: usize = 56;

/// Where an ELF file says for which architecture it is.
const ELF_MACHINE: usize = 18;

/// What a boot image says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) arch: Arch,
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

/// Reads the head of a boot image; the error says what is wrong with the file.
pub(super) fn read(file: &mut (impl Read + Seek)) -> Result<Header, String> {
    let io = |e: std::io::Error| format!("reading it failed: {e}");
    let mut head = Vec::new();
    file.seek(SeekFrom::Start(0)).map_err(io)?;
    // Setup code is at most 255 sectors and one; the version string lies in it.
    file.by_ref().take(256 * SECTOR as u64).read_to_end(&mut head).map_err(io)?;
    let length = file.seek(SeekFrom::End(0)).map_err(io)?;
    if length > MAX_IMAGE {
        return Err(format!("it has {length} bytes, and no kernel has more than {MAX_IMAGE}"));
    }

    let (arch, banner) = if bytes::<4>(&head, MAGIC) == Some(*b"HdrS") {
        (Arch::X86, of_bzimage(&head, length)?)
    } else {
        let arch = arch(&head)?;
        (
            arch,
            of_kernel(file, length)?
                .ok_or("it names no kernel version: the banner \"Linux version\" is not in it")?,
        )
    };
    match banner.split_whitespace().next() {
        Some(release) => Ok(Header { arch, release: release.to_owned(), banner }),
        None => Err("its header names an empty kernel version".to_owned()),
    }
}

/// The banner in the setup code of a bzImage of `length` bytes.
fn of_bzimage(head: &[u8], length: u64) -> Result<String, String> {
    let short = || "it is cut short".to_owned();
    let byte = |at| bytes::<1>(head, at).map(|[b]| b).ok_or_else(short);
    let word = |at| bytes::<2>(head, at).map(u16::from_le_bytes).ok_or_else(short);
    let long = |at| bytes::<4>(head, at).map(u32::from_le_bytes).ok_or_else(short);
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
    Ok(banner.to_owned())
}

/// The architecture of an image that is not packed: vmlinux of x86-64, or Image of arm64.
fn arch(head: &[u8]) -> Result<Arch, String> {
    let elf = head.starts_with(b"\x7fELF\x02\x01")
        && bytes::<2>(head, ELF_MACHINE).map(u16::from_le_bytes) == Some(Arch::X86.elf());
    if elf {
        return Ok(Arch::X86);
    }
    if bytes::<4>(head, ARM64_MAGIC) == Some(*b"ARMd") {
        let flags = bytes::<8>(head, ARM64_FLAGS).map_or(0, u64::from_le_bytes);
        // Bits 1 and 2 tell the page size; 0 is "not said".
        let page_kib = [4, 4, 16, 64][usize::try_from(flags >> 1 & 3).unwrap_or(0)];
        return Ok(Arch::Arm64 { page_kib });
    }
    Err(format!("{}, but a boot image is needed", kind(head)))
}

/// The banner in a kernel of `length` bytes that is not packed, if there is one.
fn of_kernel(file: &mut (impl Read + Seek), length: u64) -> Result<Option<String>, String> {
    const LABEL: &[u8] = b"Linux version ";
    /// No banner is longer.
    const LONGEST: usize = 1024;
    /// Bytes that are looked at together.
    const WINDOW: usize = 1 << 20;
    let io = |e: std::io::Error| format!("reading it failed: {e}");
    file.seek(SeekFrom::Start(0)).map_err(io)?;
    let mut file = file.take(length);
    let mut window = Vec::new();
    loop {
        let room = (WINDOW - window.len()) as u64;
        let is_end = file.by_ref().take(room).read_to_end(&mut window).map_err(io)? == 0;
        for (at, _) in window.windows(LABEL.len()).enumerate().filter(|(_, w)| *w == LABEL) {
            let text = &window[at + LABEL.len()..];
            let text = text[..text.len().min(LONGEST + 1)].split(|b| *b == 0 || *b == b'\n').next();
            let text =
                text.filter(|t| t.len() <= LONGEST && t.first().is_some_and(u8::is_ascii_digit));
            // One that may go on behind this window is whole in the next.
            let is_whole = |t: &&[u8]| is_end || at + LABEL.len() + t.len() < window.len();
            if let Some(text) = text
                .filter(is_whole)
                .and_then(|t| std::str::from_utf8(t).ok())
                .filter(|t| t.chars().all(is_plain))
            {
                return Ok(Some(text.to_owned()));
            }
        }
        if is_end {
            return Ok(None);
        }
        // A banner that this window has cut stands whole at the head of the next.
        window.drain(..window.len().saturating_sub(LABEL.len() + LONGEST));
    }
}

fn bytes<const N: usize>(head: &[u8], at: usize) -> Option<[u8; N]> {
    head.get(at..at + N)?.try_into().ok()
}

/// What a file that is no boot image seems to be.
fn kind(head: &[u8]) -> &'static str {
    match head {
        [] => "it is empty",
        [0x7f, b'E', b'L', b'F', ..] => "it is an ELF file, but not for x86-64",
        [0x1f, 0x8b, ..] | [0xfd, b'7', b'z', ..] | [0x28, 0xb5, 0x2f, 0xfd, ..] => {
            "it is a compressed file"
        }
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
        assert_eq!((header.arch, &*header.release), (Arch::X86, release));
        assert_eq!(header.upstream().map(|v| v.to_string()).as_deref(), upstream);
    }

    /// An image that is not packed.
    fn plain(arm64_flags: Option<u8>) -> Vec<u8> {
        let mut image = b"\x7fELF\x02\x01".to_vec();
        image.resize(100, 0);
        image[18] = 62;
        if let Some(flags) = arm64_flags {
            image[..2].copy_from_slice(b"MZ");
            image[24] = flags;
            image[56..60].copy_from_slice(b"ARMd");
        }
        image.extend(b"%s\nLinux version %s\0");
        image.resize(3 << 20, 1);
        image.extend(
            b"\0Linux version 6.12.0-9-x (a@b) (gcc (Debian 14)) #1 SMP Debian 6.12.7-1 (c)\n\0",
        );
        image
    }

    #[rstest]
    #[case(None, Arch::X86)]
    #[case(Some(0), Arch::Arm64 { page_kib: 4 })]
    #[case(Some(0b1010), Arch::Arm64 { page_kib: 4 })]
    #[case(Some(0b1100), Arch::Arm64 { page_kib: 16 })]
    #[case(Some(0b1110), Arch::Arm64 { page_kib: 64 })]
    fn the_banner_is_found(#[case] flags: Option<u8>, #[case] arch: Arch) {
        let header = read(&mut Cursor::new(plain(flags))).expect("an image");
        assert_eq!((header.arch, &*header.release), (arch, "6.12.0-9-x"));
        assert_eq!(header.upstream().expect("a version").to_string(), "6.12.7");
        let mut other = plain(flags);
        other.truncate(3 << 20);
        let error = read(&mut Cursor::new(other)).expect_err("no banner");
        assert!(error.contains("names no kernel version"), "{error}");
    }

    /// Wherever a window ends: in the label, in the banner, or where it is whole.
    #[rstest]
    #[case(-80)]
    #[case(-20)]
    #[case(-14)]
    #[case(-7)]
    #[case(0)]
    #[case(3)]
    fn a_banner_is_found_wherever_it_stands(#[case] by: isize) {
        for end in [b"\0".as_slice(), b"\n", b""] {
            let mut image = plain(None);
            image.truncate((1_usize << 20).checked_add_signed(by).expect("a place"));
            image.extend(b"Linux version 6.12.1 (a@b) #1 SMP PREEMPT_DYNAMIC Debian 6.12.7-1 (c)");
            image.extend(end);
            let header = read(&mut Cursor::new(image)).expect("an image");
            assert_eq!(header.upstream().expect("a version").to_string(), "6.12.7");
        }
    }

    /// A file with a kernel's head, and nothing else for as long as one looks.
    struct Endless {
        at: u64,
        length: u64,
        read: u64,
    }

    impl Read for Endless {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            assert!(buffer.len() <= 2 << 20, "{} bytes at a time", buffer.len());
            buffer.fill(0);
            for (at, byte) in (self.at..).zip(buffer.iter_mut()).take(64) {
                *byte = match at {
                    0..4 => b"\x7fELF"[usize::try_from(at).expect("small")],
                    4 => 2,
                    5 => 1,
                    18 => 62,
                    _ => 0,
                };
            }
            self.at += buffer.len() as u64;
            self.read += buffer.len() as u64;
            Ok(buffer.len())
        }
    }

    impl Seek for Endless {
        fn seek(&mut self, to: SeekFrom) -> std::io::Result<u64> {
            self.at = match to {
                SeekFrom::Start(at) => at,
                _ => self.length,
            };
            Ok(self.at)
        }
    }

    /// Eight GiB that take no room on a disk; a device, which says that it has no length; a kernel without a banner.
    #[rstest]
    #[case(8 << 30, 1 << 20, "no kernel has more than")]
    #[case(0, 1 << 20, "names no kernel version")]
    #[case(64 << 20, 65 << 20, "names no kernel version")]
    fn a_file_that_seems_endless_takes_little_memory(
        #[case] length: u64,
        #[case] most: u64,
        #[case] message: &str,
    ) {
        let mut file = Endless { at: 0, length, read: 0 };
        let error = read(&mut file).expect_err("refused");
        assert!(error.contains(message), "{error}");
        assert!(file.read <= most, "{} bytes were read", file.read);
    }

    #[rstest]
    #[case(|i: &mut Vec<u8>| i.clear(), "it is empty")]
    #[case(|i: &mut Vec<u8>| i[0x202] = 0, "no kernel's header")]
    #[case(|i: &mut Vec<u8>| { i[..4].copy_from_slice(b"\x7fELF"); i[0x202] = 0 }, "not for x86-64")]
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
