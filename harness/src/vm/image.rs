//! Unpacks a kernel image on the host, which takes a tenth of the time that it takes under emulation.
//!
//! A bzImage is a small program that unpacks the kernel it carries. QEMU also starts the kernel
//! itself, an ELF file, by the PVH entry that Debian's kernels have. Measured on a busy machine: 1.0 s
//! less a boot for 6.12 to 7.3 (of 2.9), 0.1 to 0.4 s for 5.10 and 6.1 (of 1.8). What can't be unpacked
//! here is booted as it is.

use crate::bytes::number;

/// More than any kernel has: a broken image must not fill the memory.
const LIMIT: usize = 512 << 20;

/// Segments of an ELF file that are looked at: a kernel has five.
const SEGMENTS: usize = 64;

/// Bytes that LZ4 makes of one at most.
const LZ4_RATIO: usize = 255;

/// The kernel in a bzImage, if it can be unpacked and started directly.
pub(super) fn unpacked(image: &[u8]) -> Option<Vec<u8>> {
    let payload = payload(image)?;
    let (packed, size) = payload.split_last_chunk()?;
    let size = usize::try_from(u32::from_le_bytes(*size)).ok().filter(|&size| size <= LIMIT)?;
    let kernel = match packed.first_chunk()? {
        [0x28, 0xb5, 0x2f, 0xfd] => zstd(packed, size),
        [0x02, 0x21, 0x4c, 0x18] => lz4(&packed[4..], size),
        _ => None,
    }?;
    (kernel.len() == size && has_pvh_entry(&kernel)).then_some(kernel)
}

/// The packed kernel and its size, by the boot protocol's header (from protocol 2.08 on).
fn payload(image: &[u8]) -> Option<&[u8]> {
    if image.get(0x202..0x206)? != b"HdrS" || number::<2>(image, 0x206)? < 0x208 {
        return None;
    }
    let setup = match image.get(0x1f1)? {
        0 => 4,
        sectors => usize::from(*sectors),
    };
    let start = (setup + 1) * 512 + number::<4>(image, 0x248)?;
    image.get(start..start + number::<4>(image, 0x24c)?)
}

fn zstd(packed: &[u8], size: usize) -> Option<Vec<u8>> {
    zstd::bulk::decompress(packed, size).ok()
}

/// The kernel's flavour of LZ4: blocks with their lengths in front, each of 8 MiB unpacked.
fn lz4(mut blocks: &[u8], size: usize) -> Option<Vec<u8>> {
    if size / LZ4_RATIO > blocks.len() {
        return None;
    }
    let mut kernel = vec![0; size];
    let mut done = 0;
    while done < size {
        let len = number::<4>(blocks, 0)?;
        let block = blocks.get(4..4 + len)?;
        let new = lz4_flex::block::decompress_into(block, &mut kernel[done..]).ok()?;
        if new == 0 {
            return None;
        }
        done += new;
        blocks = &blocks[4 + len..];
    }
    Some(kernel)
}

/// Whether an ELF file has the note by which QEMU finds the entry.
fn has_pvh_entry(elf: &[u8]) -> bool {
    const NOTE: usize = 4;
    const ENTRY: usize = 18;
    let note_at = |at: usize, end: usize| -> Option<usize> {
        let name = number::<4>(elf, at).filter(|_| at < end)?;
        let data = number::<4>(elf, at + 4)?;
        if number::<4>(elf, at + 8)? == ENTRY && elf.get(at + 12..at + 16)? == b"Xen\0" {
            return Some(0);
        }
        Some(at + 12 + name.next_multiple_of(4) + data.next_multiple_of(4))
    };
    let in_segment = |n: usize| -> Option<bool> {
        let header = number::<8>(elf, 32)?.checked_add(n * 56).filter(|&h| h < elf.len())?;
        if number::<4>(elf, header)? != NOTE {
            return None;
        }
        let start = number::<8>(elf, header + 8).filter(|&start| start < elf.len())?;
        let end = start.saturating_add(number::<8>(elf, header + 32)?).min(elf.len());
        std::iter::successors(Some(start), |&at| (at != 0).then(|| note_at(at, end))?)
            .any(|at| at == 0)
            .into()
    };
    let segments = number::<2>(elf, 56).unwrap_or(0).min(SEGMENTS);
    elf.starts_with(b"\x7fELF") && (0..segments).any(|n| in_segment(n) == Some(true))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    /// An ELF file with one note, and contents that pack well.
    fn kernel(owner: [u8; 4], kind: u32) -> Vec<u8> {
        let mut elf = b"\x7fELF\x02\x01".to_vec();
        elf.resize(64 + 56, 0);
        elf[32] = 64;
        elf[56] = 1;
        elf[64] = 4;
        elf[64 + 8] = 128;
        elf[64 + 32] = 64;
        elf.resize(128, 0);
        // A note before it, of six bytes, which count as eight.
        for word in [4u32, 6, 1] {
            elf.extend(word.to_le_bytes());
        }
        elf.extend(b"GNU\0abcdef\0\0");
        for word in [4, 8, kind] {
            elf.extend(word.to_le_bytes());
        }
        elf.extend(owner);
        elf.extend([0; 8]);
        elf.resize(100_000, 7);
        elf
    }

    fn lz4_payload(kernel: &[u8]) -> Vec<u8> {
        let mut packed = vec![0x02, 0x21, 0x4c, 0x18];
        for block in kernel.chunks(30_000) {
            // One run of literals: what a packer does when nothing repeats.
            let mut raw = vec![0xf0];
            let mut rest = block.len() - 15;
            while rest >= 255 {
                raw.push(255);
                rest -= 255;
            }
            raw.push(u8::try_from(rest).expect("less than 255"));
            raw.extend(block);
            packed.extend(u32::try_from(raw.len()).expect("short").to_le_bytes());
            packed.extend(raw);
        }
        packed.extend(u32::try_from(kernel.len()).expect("short").to_le_bytes());
        packed
    }

    fn zstd_payload(kernel: &[u8]) -> Vec<u8> {
        let mut packed = zstd::bulk::compress(kernel, 1).expect("packed");
        packed.extend(u32::try_from(kernel.len()).expect("short").to_le_bytes());
        packed
    }

    fn image(payload: &[u8]) -> Vec<u8> {
        let mut image = vec![0; 1024 + 100];
        image[0x1f1] = 1;
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x206..0x208].copy_from_slice(&[0x0f, 0x02]);
        image[0x248] = 100;
        let len = u32::try_from(payload.len()).expect("short");
        image[0x24c..0x250].copy_from_slice(&len.to_le_bytes());
        image.extend(payload);
        image.extend(b"behind");
        image
    }

    #[rstest]
    fn a_kernel_is_unpacked(#[values(lz4_payload, zstd_payload)] pack: fn(&[u8]) -> Vec<u8>) {
        let kernel = kernel(*b"Xen\0", 18);
        assert!(unpacked(&image(&pack(&kernel))) == Some(kernel));
    }

    #[rstest]
    #[case::another_owner(image(&lz4_payload(&kernel(*b"Xyz\0", 18))))]
    #[case::another_note(image(&lz4_payload(&kernel(*b"Xen\0", 6))))]
    #[case::another_packer(image(b"\xfd7zXZ and so on"))]
    #[case::no_kernel(b"MZ".to_vec())]
    #[case::elf_already(kernel(*b"Xen\0", 18))]
    fn what_can_not_be_started_directly_is_left(#[case] image: Vec<u8>) {
        assert!(unpacked(&image).is_none());
    }

    #[rstest]
    fn no_damage_is_fatal(#[values(lz4_payload, zstd_payload)] pack: fn(&[u8]) -> Vec<u8>) {
        let whole = image(&pack(&kernel(*b"Xen\0", 18)));
        let end = whole.len() - b"behind".len();
        for cut in (0..end).step_by(97).chain(end - 10..end) {
            assert!(unpacked(&whole[..cut]).is_none(), "cut at {cut}");
        }
        for at in (0x1f0..whole.len()).step_by(61) {
            let mut broken = whole.clone();
            broken[at] ^= 0x5a;
            // Most is noticed; what is not must only not panic or grow without bounds.
            let _ = unpacked(&broken);
        }
    }
}
