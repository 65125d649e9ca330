//! Writes archives in the format of an initramfs: cpio, "newc" flavour, uncompressed.

/// An archive in the making.
#[derive(Debug, Default)]
pub(super) struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;
const CHARACTER: u32 = 0o020_000;

impl Archive {
    /// A directory; its parents come first.
    pub(super) fn directory(&mut self, path: &str) {
        self.entry(path, DIRECTORY | 0o755, &[], (0, 0));
    }

    /// A regular file.
    ///
    /// # Panics
    /// If `data` has 4 GiB or more, which the format can't say.
    pub(super) fn file(&mut self, path: &str, permissions: u32, data: &[u8]) {
        self.entry(path, REGULAR | permissions, data, (0, 0));
    }

    /// A character device.
    pub(super) fn device(&mut self, path: &str, major: u32, minor: u32) {
        self.entry(path, CHARACTER | 0o600, &[], (major, minor));
    }

    /// The archive with its end mark.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[], (0, 0));
        self.bytes
    }

    fn entry(&mut self, path: &str, mode: u32, data: &[u8], device: (u32, u32)) {
        let size = u32::try_from(data.len())
            .unwrap_or_else(|_| panic!("{path} has 4 GiB or more, which cpio can't hold"));
        let name_size = u32::try_from(path.len() + 1)
            .unwrap_or_else(|_| panic!("a path of {} bytes is no path", path.len()));
        self.entries += 1;
        // Inode, mode, uid, gid, links, mtime, size, the file system's device, the node's device,
        // the length of the name with its NUL, and a checksum that this flavour leaves at 0.
        let fields = [self.entries, mode, 0, 0, 1, 0, size, 0, 0, device.0, device.1, name_size, 0];
        self.bytes.extend(b"070701");
        for field in fields {
            self.bytes.extend(format!("{field:08x}").bytes());
        }
        self.bytes.extend(path.bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend(data);
        self.pad();
    }

    /// Names and contents end at a multiple of four.
    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[derive(Debug, PartialEq)]
    struct Entry {
        path: String,
        mode: u32,
        data: Vec<u8>,
        device: (u32, u32),
    }

    /// Reads an archive back, as strictly as the kernel does.
    fn read(mut bytes: &[u8]) -> Vec<Entry> {
        let mut entries = Vec::new();
        let total = bytes.len();
        loop {
            assert_eq!(&bytes[..6], b"070701", "at {}", total - bytes.len());
            let field = |n: usize| {
                let text = std::str::from_utf8(&bytes[6 + 8 * n..14 + 8 * n]).expect("hex");
                u32::from_str_radix(text, 16).expect("hex")
            };
            let (size, name_size) = (field(6) as usize, field(11) as usize);
            let name_end = 110 + name_size;
            assert_eq!(bytes[name_end - 1], 0);
            let path = String::from_utf8(bytes[110..name_end - 1].to_vec()).expect("name");
            let data_start = name_end.next_multiple_of(4);
            let entry = Entry {
                path,
                mode: field(1),
                data: bytes[data_start..data_start + size].to_vec(),
                device: (field(9), field(10)),
            };
            bytes = &bytes[(data_start + size).next_multiple_of(4)..];
            if entry.path == "TRAILER!!!" {
                assert!(bytes.is_empty(), "{} bytes behind the end", bytes.len());
                return entries;
            }
            entries.push(entry);
        }
    }

    #[rstest]
    fn every_alignment_reads_back(#[values(0, 1, 2, 3, 4, 5)] name: usize) {
        for size in 0..6 {
            let mut archive = Archive::default();
            let path = "n".repeat(name + 1);
            archive.directory("dev");
            archive.device("dev/console", 5, 1);
            archive.file(&path, 0o755, &vec![b'x'; size]);
            let expected = [
                Entry { path: "dev".into(), mode: 0o40_755, data: vec![], device: (0, 0) },
                Entry { path: "dev/console".into(), mode: 0o20_600, data: vec![], device: (5, 1) },
                Entry { path, mode: 0o100_755, data: vec![b'x'; size], device: (0, 0) },
            ];
            assert_eq!(read(&archive.finish()), expected);
        }
    }

    #[test]
    fn an_empty_archive_is_its_end_mark() {
        assert_eq!(read(&Archive::default().finish()), []);
    }
}
