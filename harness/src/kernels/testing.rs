//! Kernels that exist in tests only.

use super::lock::{Archive, Locked, PackageFile};
use std::io::Write;
use uffd_results::KernelVersion;

/// A kernel of the package version `version`, seen in `suite`.
pub(super) fn kernel(version: &str, suite: &str) -> Locked {
    let name = format!("linux-image-{}-cloud-amd64", version.replace('~', "."));
    let path = format!("pool/main/l/linux/{name}_{version}_amd64.deb");
    let (sha256, _) = crate::files::sha256(path.as_bytes()).expect("reading memory");
    let image = PackageFile {
        name,
        version: version.into(),
        archive: Archive::Main,
        path,
        size: 20_000_000,
        sha256,
    };
    let upstream = KernelVersion::parse(version).expect("a version of this test");
    Locked { upstream, suites: vec![suite.into()], gone: false, image, config: None, modules: None }
}

/// A boot image with a header as the kernel's build writes it, and `body` behind the setup code.
pub(super) fn bzimage(banner: &str, body: &[u8]) -> Vec<u8> {
    let mut image = vec![0; 5 * 512];
    image[0x1f1] = 4; // sectors of setup code after the first
    let paragraphs = u32::try_from(body.len().div_ceil(16)).expect("a small body");
    image[0x1f4..0x1f8].copy_from_slice(&paragraphs.to_le_bytes());
    image[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
    image[0x202..0x206].copy_from_slice(b"HdrS");
    image[0x206..0x208].copy_from_slice(&0x20f_u16.to_le_bytes());
    image[0x20e..0x210].copy_from_slice(&0x300_u16.to_le_bytes());
    image[0x211] = 1; // loaded high
    image[0x236] = 1; // has a 64-bit entry
    image[0x500..0x500 + banner.len()].copy_from_slice(banner.as_bytes());
    image.extend_from_slice(body);
    image.resize(5 * 512 + body.len().div_ceil(16) * 16, 0);
    image
}

/// Bytes packed as xz does.
pub(super) fn xz(bytes: &[u8]) -> Vec<u8> {
    let options = lzma_rust2::XzOptions::with_preset(1);
    let mut packer = lzma_rust2::XzWriter::new(Vec::new(), options).expect("memory");
    packer.write_all(bytes).expect("memory");
    packer.finish().expect("memory")
}
